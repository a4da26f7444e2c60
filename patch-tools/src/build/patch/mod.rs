//! A source diff: what it says about itself, which files it changes, and what they become.
//!
//! Pure: bytes in, values out. Stricter than `patch(1)` on purpose, since the result runs in the kernel:
//! no fuzz, no guessing between two places that fit, no place that only a line number speaks for, no text left
//! out, no path outside the tree, no binary or rename. Line offsets are allowed where exactly one place fits, as
//! fixes are often cut from a neighbouring release.
//!
//! | file | what |
//! |---|---|
//! | `parse` | the unified format |
//! | `apply` | hunks onto a file's content |
//! | `path` | names that cannot leave the source tree |

mod apply;
mod parse;
mod path;

use std::ops::Range;

pub use apply::{ApplyError, Placed, WhiteSpace};
pub use parse::ParseError;
pub use path::SourcePath;

/// A parsed diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The mail subject or the first line of the text before the diff.
    pub subject: Option<String>,
    /// CVE identifiers that the text before the diff names, in order, each once.
    pub cves: Vec<String>,
    /// What happens to each file, in the order of the diff.
    pub files: Vec<FileChange>,
}

/// What a diff does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The file, if the first component of the name in the diff stands for the tree, as usual.
    pub path: SourcePath,
    /// The file if it does not: the diff was made inside the tree. Only where both header lines say the same.
    whole: Option<SourcePath>,
    named: String,
    /// Whether it is made, changed or removed.
    pub kind: ChangeKind,
    /// The changes, ascending.
    pub hunks: Vec<Hunk>,
}

/// Whether a file is there before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The file is new.
    Created,
    /// The file is there before and after.
    Modified,
    /// The file is gone afterwards.
    Deleted,
}

/// One hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk {
    /// The first line in the old file, from 1; 0 where the old side is empty.
    pub old_start: usize,
    /// What stands behind `@@`: the function that the hunk is in, as bytes that may end inside a character.
    pub heading: Vec<u8>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a hunk, with its line end unless the file ends without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// On both sides.
    Context(Vec<u8>),
    /// Only in the old file.
    Removed(Vec<u8>),
    /// Only in the new file.
    Added(Vec<u8>),
}

impl Patch {
    /// Reads a diff in the unified format, with or without git's and a mail's headers.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        parse::patch(text)
    }
}

/// A name that could be either of two files of the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the patch's `{whole}` could be {below} or {whole}: both are in the source of this kernel (write it as \
     `a/…` and `b/…`, as git does)"
)]
pub struct AmbiguousPath {
    below: SourcePath,
    whole: SourcePath,
}

impl FileChange {
    /// The file in a tree, where `has` tells of a path whether the tree has such a file or directory.
    pub fn locate(&self, has: impl Fn(&str) -> bool) -> Result<&SourcePath, AmbiguousPath> {
        let Some(whole) = &self.whole else { return Ok(&self.path) };
        let is_there = |path: &SourcePath| match self.kind {
            ChangeKind::Created => has(path.directory()),
            ChangeKind::Modified | ChangeKind::Deleted => has(path.as_str()),
        };
        match (is_there(&self.path), is_there(whole)) {
            (true, true) => Err(AmbiguousPath { below: self.path.clone(), whole: whole.clone() }),
            (false, true) => Ok(whole),
            (_, false) => Ok(&self.path),
        }
    }

    /// The name in the diff's header.
    pub fn named(&self) -> &str {
        &self.named
    }

    /// The file's new content, from its old one.
    pub fn apply(&self, old: &[u8]) -> Result<Placed, ApplyError> {
        apply::hunks(&self.path, &self.hunks, old)
    }
}

impl Hunk {
    fn old_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter_map(|line| match line {
            Line::Context(text) | Line::Removed(text) => Some(text.as_slice()),
            Line::Added(_) => None,
        })
    }

    /// The lines of the old file that the hunk speaks of.
    pub fn old_range(&self) -> Range<usize> {
        self.old_start..self.old_start + self.old_lines().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_made_inside_the_tree_names_its_files_whole() {
        let located = |header: &str, tree: &[&str]| {
            let patch = Patch::parse(format!("{header}@@ -1 +1 @@\n-a\n+b\n").as_bytes()).unwrap();
            patch.files[0].locate(|path| tree.contains(&path)).map(ToString::to_string)
        };
        let inside = "--- fs/proc/cmdline.c\n+++ fs/proc/cmdline.c\n";
        assert_eq!(located(inside, &["fs/proc/cmdline.c"]).as_deref(), Ok("fs/proc/cmdline.c"));
        let above = "--- linux/fs/namei.c\n+++ linux/fs/namei.c\n";
        assert_eq!(located(above, &["fs/namei.c"]).as_deref(), Ok("fs/namei.c"));
        let copy = "--- fs/namei.c.orig\n+++ fs/namei.c\n";
        assert_eq!(located(copy, &["fs/namei.c"]).as_deref(), Ok("fs/namei.c"));
        let git = "--- a/net/core.c\n+++ b/net/core.c\n";
        assert_eq!(located(git, &["net/core.c", "a/net/core.c"]).as_deref(), Ok("net/core.c"));
        let both = "--- drivers/net/Space.c\n+++ drivers/net/Space.c\n";
        let error = located(both, &["net/Space.c", "drivers/net/Space.c"]).unwrap_err().to_string();
        assert!(error.starts_with("the patch's `drivers/net/Space.c` could be net/Space.c or"), "{error}");
    }

    #[test]
    fn a_new_file_of_a_diff_made_inside_the_tree_goes_to_its_directory() {
        let text = "--- fs/proc/new.h\t1970-01-01\n+++ fs/proc/new.h\t2026-01-01\n@@ -0,0 +1 @@\n+int a;\n";
        let patch = Patch::parse(text.as_bytes()).unwrap();
        assert_eq!(patch.files[0].kind, ChangeKind::Created);
        let located = patch.files[0].locate(|path| path == "fs/proc").unwrap();
        assert_eq!(located.as_str(), "fs/proc/new.h");
    }
}
