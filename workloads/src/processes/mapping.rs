//! Mapped files of a process: `/proc/PID/maps`, and the way to the very file that is mapped.
//!
//! `/proc/PID/map_files` leads to the mapped file itself, also when it was replaced or deleted since,
//! or lies in another mount namespace. What vanishes while it is looked at is as if it never was.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use nix::libc;

use crate::model::Pid;

/// The kernel's remark on a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// One line of `/proc/PID/maps` that maps a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    pub(crate) range: (u64, u64),
    /// Whether it is code.
    pub(crate) executable: Executable,
    /// As the kernel prints it: `08:01`.
    pub(crate) device: &'a [u8],
    pub(crate) inode: u64,
    name: &'a [u8],
}

/// Whether a mapping may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executable {
    Yes,
    No,
}

impl Mapping<'_> {
    /// Where it is, as the process sees it; for a deleted file, where it was.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(self.name.strip_suffix(DELETED).unwrap_or(self.name)))
    }

    /// Whether the file has no name any more. (One whose name ends in the kernel's remark looks so.)
    pub(crate) fn is_deleted(&self) -> bool {
        self.name.ends_with(DELETED)
    }
}

/// The mappings of a process as text; nothing of one that is gone.
pub(crate) fn read(pid: Pid) -> io::Result<Vec<u8>> {
    match fs::read(format!("/proc/{pid}/maps")) {
        Err(error) if vanished(&error) => Ok(Vec::new()),
        result => result,
    }
}

/// The mappings of files.
pub(crate) fn files(maps: &[u8]) -> impl Iterator<Item = Mapping<'_>> {
    maps.split(|byte| *byte == b'\n').filter_map(parse)
}

/// The mapped file itself; `None` for what is no regular file, or vanished.
pub(crate) fn open(pid: Pid, (start, end): (u64, u64)) -> io::Result<Option<File>> {
    let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    let mut options = File::options();
    // A mapped device must not do anything because it is looked at.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match fs::metadata(&path).and_then(|found| found.is_file().then(|| options.open(&path)).transpose()) {
        Err(error) if vanished(&error) => Ok(None),
        result => result,
    }
}

pub(crate) fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// `start-end perms offset dev inode   path` (proc(5)); only those with a file and a path.
fn parse(line: &[u8]) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let executable = if fields.next()?.get(2) == Some(&b'x') { Executable::Yes } else { Executable::No };
    let device = fields.nth(1)?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok().filter(|inode| *inode != 0)?;
    let name = fields.next()?.trim_ascii_start();
    name.starts_with(b"/").then_some(Mapping { range, executable, device, inode, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_map_a_file_count() {
        let line = b"7f1c2a000000-7f1c2a026000 r-xp 00000000 08:01 1234                       /usr/lib/a b.so (deleted)";
        let mapping = parse(line).unwrap();
        assert_eq!(mapping.range, (0x7f1c_2a00_0000, 0x7f1c_2a02_6000));
        assert_eq!((mapping.device, mapping.inode), (&b"08:01"[..], 1234));
        assert_eq!((mapping.executable, mapping.is_deleted()), (Executable::Yes, true));
        assert_eq!(mapping.path(), PathBuf::from("/usr/lib/a b.so"));
        for other in [
            &b"7f1c2a000000-7f1c2a026000 rw-p 00000000 00:00 0 "[..],
            b"7ffd0e1f5000-7ffd0e216000 rw-p 00000000 00:00 0                          [stack]",
            b"",
            b"nonsense",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}
