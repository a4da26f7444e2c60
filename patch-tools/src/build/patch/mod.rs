//! A source diff: what it says about itself, which files it changes, and what they become.
//!
//! Pure: bytes in, values out. Stricter than `patch(1)` on purpose, since the result runs in the kernel:
//! no fuzz, no guessing between two places that fit, no path outside the tree, no binary or rename. Line
//! offsets are allowed where exactly one place fits, as fixes are often cut from a neighbouring release.
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

pub use apply::{ApplyError, Placed};
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
    /// The file.
    pub path: SourcePath,
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

impl FileChange {
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
