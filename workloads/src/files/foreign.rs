//! Files that belong to somebody else's processes: the only way to them, in two forms.
//!
//! A path that a process has a hand in leads wherever the process likes: to a FIFO that makes an `open` wait
//! for ever, to a device that does something when it is opened, by a link to a file of the host. So
//!
//! - a *mapped* file (or one that is open) is reached through the kernel's own link to it, never by its name;
//! - a *named* file is looked up beneath the root that its name begins at (`openat2(2)`), so that no link leads
//!   out of it, and through no link of procfs.
//!
//! Either is opened with `O_PATH`, which does nothing to the file, then looked at, and only a regular file can
//! be opened for reading: through `/proc/self/fd`, so that it is the very file that was looked at, and without
//! waiting. Who holds a lease on it is not waited for (`EWOULDBLOCK`).
//!
//! Everything here may still not come back: a file system may be served by a process. Callers that look at
//! processes of others do so from a thread that can be left behind ([`crate::processes::watchdog`]).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlink};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor, stat};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::model::Pid;

/// `SECRETMEM_MAGIC` of `include/uapi/linux/magic.h`: memory that no other process can read.
const SECRETMEM: FsType = FsType(0x5345_434d);

/// What is there.
#[derive(Debug)]
pub(crate) enum Found {
    /// A regular file, not yet open for reading.
    File(Handle),
    /// A directory, device, FIFO or socket, or memory that only looks like a file.
    NoFile,
    /// Nothing.
    Nothing,
}

/// A regular file that was looked at and can be opened for reading.
#[derive(Debug)]
pub(crate) struct Handle {
    path: OwnedFd,
    stat: FileStat,
}

/// Which file, and which version of it. What `/proc/PID/maps` shows as device is none of this: all subvolumes
/// of a btrfs show one, and use the same inode numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, i64),
}

impl Handle {
    pub(crate) fn id(&self) -> FileId {
        let FileStat { st_dev, st_ino, st_size, st_ctime, st_ctime_nsec, .. } = self.stat;
        FileId { device: st_dev, inode: st_ino, size: st_size, changed: (st_ctime, st_ctime_nsec) }
    }

    /// Whether both are one file, whatever became of it meanwhile.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Whether no name leads to it any more.
    pub(crate) fn is_unlinked(&self) -> bool {
        self.stat.st_nlink == 0
    }

    /// Whether it was made by `memfd_create(2)` or the like and never had a name.
    pub(crate) fn is_memory(&self) -> bool {
        self.is_unlinked() && fstatfs(&self.path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
    }

    /// Whether `device`, as `/proc/PID/maps` shows it, and an inode number tell this file from all others while it
    /// exists: on file systems that have one device and give each file a number of its own.
    pub(crate) fn is_known_by_device(&self, device: &[u8]) -> bool {
        let shown = format!("{:02x}:{:02x}", major(self.stat.st_dev), minor(self.stat.st_dev));
        let plain = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC];
        device == shown.as_bytes()
            && fstatfs(&self.path).is_ok_and(|fs| plain.contains(&fs.filesystem_type()))
    }

    /// Whether it is the file of which `/proc/PID/maps` shows this device and inode number.
    pub(crate) fn is_at(&self, device: &[u8], inode: &[u8]) -> bool {
        self.is_known_by_device(device) && inode == self.stat.st_ino.to_string().as_bytes()
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// Those of `open(2)`; `EWOULDBLOCK` while somebody holds a lease on it.
    pub(crate) fn read(&self) -> io::Result<File> {
        let link = format!("/proc/self/fd/{}", self.path.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(File::from(open(link.as_str(), flags, Mode::empty())?))
    }
}

/// The file behind a mapping; [`Found::Nothing`] when there is no such mapping (any more).
pub(crate) fn mapped(pid: Pid, range: (u64, u64)) -> io::Result<Found> {
    linked(&mapping_link(pid, range))
}

/// The name of a mapped file, byte by byte: `/proc/PID/maps` does not tell a line feed from `\012`.
pub(crate) fn mapped_name(pid: Pid, range: (u64, u64)) -> io::Result<OsString> {
    Ok(readlink(mapping_link(pid, range).as_str())?)
}

/// The name of the program that a process was started with, as the kernel shows it; with its remark if the name is gone.
pub(crate) fn program_name(pid: Pid) -> io::Result<OsString> {
    Ok(readlink(format!("/proc/{pid}/exe").as_str())?)
}

fn mapping_link(pid: Pid, (start, end): (u64, u64)) -> String {
    format!("/proc/{pid}/map_files/{start:x}-{end:x}")
}

fn linked(link: &str) -> io::Result<Found> {
    found(open(link, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()))
}

/// The file under a path as those see it whose root is `root`. Links are followed, but never out of it.
pub(crate) fn named(root: impl AsFd, path: &Path) -> io::Result<Found> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(&root, path, how) {
            // A rename on the way could not be told from a way out: it is tried again (openat2(2)).
            Err(Errno::EAGAIN) => {}
            result => return found(result),
        }
    }
}

fn found(opened: nix::Result<OwnedFd>) -> io::Result<Found> {
    let path = match opened {
        Ok(path) => path,
        // Gone; or below what is a file now; or a name that the file system does not take.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH | Errno::ENAMETOOLONG) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&path)?;
    let regular = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
    if !regular || fstatfs(&path).is_ok_and(|fs| fs.filesystem_type() == SECRETMEM) {
        return Ok(Found::NoFile);
    }
    Ok(Found::File(Handle { path, stat }))
}

/// Whether this program sees the processes of the system whose files it sees: not in a mere `chroot(2)`.
#[must_use]
pub fn is_own_system() -> bool {
    match (stat("/proc/1/root"), stat("/")) {
        (Ok(first), Ok(own)) => (first.st_dev, first.st_ino) == (own.st_dev, own.st_ino),
        // Who may not look there is nobody that installs packages.
        (Err(Errno::EACCES), _) => true,
        _ => false,
    }
}

/// A directory that paths begin at.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    /// The root of the process that it was found by: its mount stays as long as this is open.
    below: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// What tells the roots of processes apart: the mount that a root is on, of which each mount namespace has its own, and where
/// in it the root is. A mount's number may be used again once it is gone: it counts as long as a [`Root`] is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RootId {
    mount: u64,
    directory: (u32, u32, u64),
}

impl RootId {
    /// That of a process.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        Self::at(&format!("/proc/{pid}/root"))
    }

    fn at(path: &str) -> io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = statx(CWD, path, AtFlags::empty(), wanted)?;
        if !StatxFlags::from_bits_retain(found.stx_mask).contains(wanted) {
            // Before Linux 5.8, which has none of what else is needed.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let directory = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
        Ok(Self { mount: found.stx_mnt_id, directory })
    }
}

impl Root {
    /// Where the paths begin that the kernel shows us of a process: at the top of its mount namespace, or at our
    /// own root if it lives in our namespace. The root of a process that called `chroot(2)` is below that.
    pub(crate) fn above(pid: Pid) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let below = open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty())?;
        let mut at = identity(&below)?;
        let mut directory = openat(&below, "..", flags, Mode::empty())?;
        loop {
            let above_at = identity(&directory)?;
            if above_at == at {
                return Ok(Self { directory, below });
            }
            at = above_at;
            directory = openat(&directory, "..", flags, Mode::empty())?;
        }
    }

    /// What this is known by: of the process's own root, which it keeps.
    pub(crate) fn id(&self) -> io::Result<RootId> {
        RootId::at(&format!("/proc/self/fd/{}", self.below.as_raw_fd()))
    }
}

fn identity(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{SFlag, makedev, mknod};
    use nix::unistd::mkfifo;

    use super::*;

    fn content(found: Found) -> Option<String> {
        let Found::File(handle) = found else { return None };
        let mut content = String::new();
        handle.read().unwrap().read_to_string(&mut content).unwrap();
        Some(content)
    }

    #[test]
    fn a_named_file_is_looked_up_in_the_root_that_its_name_begins_at() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(directory.path().join("secret"), "of the host").unwrap();
        fs::write(root.join("etc/file"), "of the container").unwrap();
        for (link, to) in [
            ("absolute", "/etc/file"),
            ("up", "../../../../etc/file"),
            ("etc/beside", "file"),
            ("loop", "loop"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        symlink(directory.path().join("secret"), root.join("out")).unwrap();
        symlink("/proc/self/root/etc/passwd", root.join("magic")).unwrap();
        fs::create_dir(root.join("proc")).unwrap();
        let at = File::open(&root).unwrap();
        for inside in ["/etc/file", "absolute", "up", "etc/beside"] {
            assert_eq!(
                content(named(&at, Path::new(inside)).unwrap()).unwrap(),
                "of the container",
                "{inside}"
            );
        }
        for outside in ["out", "magic", "../secret", "/secret", "etc/file/below"] {
            assert!(matches!(named(&at, Path::new(outside)).unwrap(), Found::Nothing), "{outside}");
        }
        assert!(named(&at, Path::new("loop")).is_err());
        // The kernel's own links lead anywhere.
        let everything = File::open("/").unwrap();
        assert!(named(&everything, Path::new("/proc/self/exe")).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_neither_opened_nor_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mkfifo(&directory.path().join("fifo"), mode).unwrap();
        // A device that does not exist: an open would fail.
        mknod(&directory.path().join("device"), SFlag::S_IFCHR, mode, makedev(511, 511)).unwrap();
        std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        let at = File::open(directory.path()).unwrap();
        for name in ["fifo", "device", "socket", "."] {
            assert!(matches!(named(&at, Path::new(name)).unwrap(), Found::NoFile), "{name}");
        }
    }

    #[test]
    fn what_was_looked_at_is_what_is_read_whatever_lies_under_its_name_by_then() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("name");
        fs::write(&name, "looked at").unwrap();
        let Found::File(handle) = named(File::open("/").unwrap(), &name).unwrap() else { panic!() };
        fs::remove_file(&name).unwrap();
        mkfifo(&name, Mode::S_IRUSR).unwrap();
        assert_eq!(content(Found::File(handle)).unwrap(), "looked at");
    }
}
