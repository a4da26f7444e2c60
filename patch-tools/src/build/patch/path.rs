//! File names in a diff.

use std::fmt;
use std::path::Path;

/// A file of the source tree, as a path below its top: `fs/namei.c`.
///
/// Invariant: one or more components of printable ASCII without spaces, none of them empty, `.` or `..`, so
/// that joining it to a directory stays below that directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePath(String);

impl SourcePath {
    /// Longer than any path in a kernel tree; the longest has about 100 characters.
    const MAX: usize = 512;

    /// Checks a path that is already relative to the top of the tree.
    pub fn new(path: &str) -> Option<Self> {
        let sound = path.len() <= Self::MAX
            && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"'))
            && path.split('/').all(|component| !matches!(component, "" | "." | ".." | ".git"));
        sound.then(|| Self(path.to_owned()))
    }

    /// The path below the tree's top.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory, empty for a file at the top.
    pub fn directory(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The path without what makes it a source: `fs/namei` of `fs/namei.c`, `arch/x86/kernel/vmlinux` of
    /// `arch/x86/kernel/vmlinux.lds.S`.
    pub fn stem(&self) -> &str {
        let path = self.0.strip_suffix(".lds.S").unwrap_or(&self.0);
        if path.len() < self.0.len() || self.extension().is_empty() {
            return path;
        }
        path.rsplit_once('.').map_or(path, |(stem, _)| stem)
    }

    /// What follows the last dot of the file name; empty without one.
    pub fn extension(&self) -> &str {
        self.file_name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }
}

impl AsRef<Path> for SourcePath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for SourcePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// A file as a diff's header names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderName {
    /// The path behind the first component (`a/`, `b/`, `linux-6.1/`), which stands for the tree.
    pub(super) below: SourcePath,
    /// The name as it stands, for diffs that were made inside the tree (`patch -p0`).
    pub(super) whole: Option<SourcePath>,
}

impl HeaderName {
    pub(super) fn new(name: &str) -> Option<Self> {
        let (tree, below) = name.split_once('/')?;
        if matches!(tree, "" | "." | "..") {
            return None;
        }
        Some(Self { below: SourcePath::new(below)?, whole: SourcePath::new(name) })
    }

    /// The file that both header lines name; the two paths if it is not one.
    pub(super) fn of_both(old: Self, new: Self) -> Result<Self, (String, String)> {
        let whole = old.whole.zip(new.whole).and_then(|(old, new)| same_file(&old, &new));
        match same_file(&old.below, &new.below) {
            Some(below) => Ok(Self { below, whole }),
            None => Err((old.below.0, new.below.0)),
        }
    }
}

/// The file that two paths stand for if they are one, or one is the name of a copy of the other that somebody
/// kept for comparing: `namei.c.orig`, `namei.c~`, `namei.c.new`.
fn same_file(old: &SourcePath, new: &SourcePath) -> Option<SourcePath> {
    let is_copy = |path: &SourcePath, of: &SourcePath| path.0.strip_prefix(&of.0).is_some_and(is_copy_suffix);
    if old == new || is_copy(old, new) { Some(new.clone()) } else { is_copy(new, old).then(|| old.clone()) }
}

fn is_copy_suffix(suffix: &str) -> bool {
    const WORDS: [&str; 20] = [
        "orig",
        "org",
        "original",
        "old",
        "bak",
        "backup",
        "save",
        "saved",
        "prev",
        "before",
        "dist",
        "vanilla",
        "pristine",
        "unpatched",
        "new",
        "patched",
        "fixed",
        "mod",
        "modified",
        "after",
    ];
    // Editors append `~`, `cp --backup=numbered` appends `.~1~`.
    let word = suffix.strip_prefix(['.', '-', '_']);
    suffix.ends_with('~') || word.is_some_and(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_the_tree() {
        for hostile in [
            "/etc/passwd",
            "a/../../etc/passwd",
            "a/..",
            "a//etc",
            "a/./b",
            "a/",
            "x",
            "",
            "../a/b",
            "./fs/x.c",
            "a/.git/hooks/x",
            "a/b\0c",
            "a/b c",
            "a/b\\c",
            "a/\u{e9}",
        ] {
            assert_eq!(HeaderName::new(hostile), None, "{hostile:?} was taken");
        }
        let path = HeaderName::new("a/fs/namei.c").unwrap().below;
        assert_eq!(
            (path.as_str(), path.directory(), path.file_name(), path.extension()),
            ("fs/namei.c", "fs", "namei.c", "c")
        );
    }
    #[test]
    fn a_copy_kept_for_comparing_is_no_other_file() {
        let file = |old: &str, new: &str| {
            let (old, new) = (HeaderName::new(old).unwrap(), HeaderName::new(new).unwrap());
            HeaderName::of_both(old, new).map(|name| name.below.to_string()).ok()
        };
        for (old, new) in [
            ("linux/fs/namei.c.orig", "linux/fs/namei.c"),
            ("linux/fs/namei.c~", "linux/fs/namei.c"),
            ("linux/fs/namei.c.~12~", "linux/fs/namei.c"),
            ("linux/fs/namei.c-old", "linux/fs/namei.c"),
            ("linux/fs/namei.c", "linux/fs/namei.c.new"),
            ("a/fs/namei.c", "b/fs/namei.c.patched"),
        ] {
            assert_eq!(file(old, new).as_deref(), Some("fs/namei.c"), "{old} {new}");
        }
        assert_eq!(file("a/scripts/Makefile", "a/scripts/Makefile.lib"), None);
        assert_eq!(file("a/fs/namei.c", "b/fs/open.c"), None);
    }
}
