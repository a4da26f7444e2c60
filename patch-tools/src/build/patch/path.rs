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

    /// The path from a diff's header, whose first component (`a/`, `b/`, `linux-6.1/`) stands for the tree.
    pub(super) fn from_header(name: &str) -> Option<Self> {
        name.split_once('/')
            .filter(|(tree, _)| !matches!(*tree, "" | "." | ".."))
            .and_then(|(_, path)| Self::new(path))
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
            assert_eq!(SourcePath::from_header(hostile), None, "{hostile:?} was taken");
        }
        let path = SourcePath::from_header("a/fs/namei.c").unwrap();
        assert_eq!(
            (path.as_str(), path.directory(), path.file_name(), path.extension()),
            ("fs/namei.c", "fs", "namei.c", "c")
        );
    }
}
