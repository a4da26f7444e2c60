//! Writes entries below one directory, whatever their names say.
//!
//! Invariants:
//! - The only way to a directory is [`Tree::open`]: `openat2(2)` beneath the root descriptor, without
//!   symbolic links, without magic links, without crossing a mount. Files are made in it by their last part.
//! - Names are created exclusively; nothing that exists is opened for writing, replaced or removed.
//! - Attributes of directories are set last, since filling them changes their mtime.
//!
//! Attributes go on in the order owner, mode, extended attributes, mtime: `chown(2)` clears set-user-ID and
//! capabilities.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use xattr::FileExt;

use crate::files::layer::archive::{Archive, Attributes, Entry, failed, too_large};
use crate::files::layer::error::{Bound, EntryName, FileKind, LayerError, Rule};
use crate::files::layer::path::LayerPath;
use crate::files::layer::pax::Moment;
use crate::files::layer::{Layer, Limits};

/// Marks a directory whose lower namesakes are hidden (kernel `Documentation/filesystems/overlayfs.rst`).
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Mode of a directory that has no entry of its own.
const IMPLIED_MODE: u32 = 0o755;

/// Memory that something remembered takes besides its name and attributes, about.
const OVERHEAD: usize = 128;

/// Large enough that the disk, not system calls, sets the pace.
const CHUNK: usize = 128 * 1024;

/// The directory that is being filled.
pub(super) struct Tree {
    root: OwnedFd,
    limits: Limits,
    directories: BTreeMap<Box<[u8]>, Directory>,
    implied: u64,
    removed: Vec<PathBuf>,
    privileged: BTreeSet<PathBuf>,
    /// Bytes that the four above take, about.
    memory: u64,
    buffer: Box<[u8]>,
}

/// A directory of the layer, which gets its attributes at the end.
struct Directory {
    /// Of the entry that made it.
    offset: u64,
    /// `None` while it has no entry of its own.
    attributes: Option<Attributes>,
}

impl Tree {
    /// Fills the empty directory `root`.
    pub(super) fn new(root: OwnedFd, limits: Limits) -> Self {
        let mut directories = BTreeMap::new();
        directories.insert(Box::default(), Directory { offset: 0, attributes: None });
        let (removed, privileged) = (Vec::new(), BTreeSet::new());
        let buffer = vec![0; CHUNK].into_boxed_slice();
        Self { root, limits, directories, implied: 0, removed, privileged, memory: 0, buffer }
    }

    /// A directory; one that was only implied so far becomes this one.
    pub(super) fn directory(&mut self, entry: &Entry, path: &LayerPath) -> Result<(), LayerError> {
        let known = self.directories.get(path.as_bytes());
        match known {
            Some(Directory { attributes: Some(_), .. }) => {
                return Err(entry.refused(Rule::Duplicate { found: FileKind::Directory }));
            }
            Some(Directory { attributes: None, .. }) if path.is_root() => {}
            Some(Directory { attributes: None, .. }) => self.implied -= 1,
            None => {
                let parent = self.parent(entry, path)?;
                mkdirat(&parent, path.name(), Mode::S_IRWXU)
                    .map_err(|errno| self.not_created(entry, path, "make the directory", errno))?;
            }
        }
        self.remember(entry, path.as_bytes(), Some(entry.attributes.clone()))
    }

    /// A regular file with the content that is next in the archive.
    pub(super) fn file(
        &mut self,
        entry: &Entry,
        path: &LayerPath,
        archive: &mut Archive,
    ) -> Result<(), LayerError> {
        let parent = self.parent(entry, path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = openat(&parent, path.name(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .map_err(|errno| self.not_created(entry, path, "make the file", errno))?;
        loop {
            match archive.read_content(&mut self.buffer)? {
                0 => break,
                count => {
                    file.write_all(&self.buffer[..count]).map_err(|error| entry.failed("write", error))?;
                }
            }
        }
        set_attributes(&file, &entry.attributes).map_err(|(doing, error)| entry.failed(doing, error))?;
        match entry.attributes.are_privileged() {
            true => self.privilege(entry, path),
            false => Ok(()),
        }
    }

    /// A symbolic link; its target was judged by its form and is not looked at.
    pub(super) fn symlink(
        &mut self,
        entry: &Entry,
        path: &LayerPath,
        target: &[u8],
    ) -> Result<(), LayerError> {
        let parent = self.parent(entry, path)?;
        symlinkat(target, &parent, path.name())
            .map_err(|errno| self.not_created(entry, path, "make the symbolic link", errno))?;
        let Attributes { uid, gid, mtime, .. } = entry.attributes;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(&parent, path.name(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| entry.failed("set the owner of", errno))?;
        let time = time_spec(mtime);
        utimensat(&parent, path.name(), &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| entry.failed("set the time of", errno))
    }

    /// Another name for a file that this layer brought before.
    pub(super) fn hard_link(
        &mut self,
        entry: &Entry,
        path: &LayerPath,
        target: &[u8],
    ) -> Result<(), LayerError> {
        let target_path = LayerPath::parse(target).map_err(|rule| {
            entry.refused(Rule::HardLinkName { target: target.into(), rule: Box::new(rule) })
        })?;
        let refuse = |found| entry.refused(Rule::HardLinkTarget { target: target.into(), found });
        // Everything in this tree was made by this layer, so that being there is being of the layer.
        let place = match self.open(target_path.parent(), OFlag::O_PATH) {
            Ok(place) => place,
            Err(Errno::ENOENT) => return Err(refuse(FileKind::Nothing)),
            Err(errno) => return Err(self.no_way(entry, target_path.parent(), errno)),
        };
        let kind = match target_path.is_root() {
            true => FileKind::Directory,
            false => match fstatat(&place, target_path.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => kind_of(&stat),
                Err(Errno::ENOENT) => FileKind::Nothing,
                Err(errno) => return Err(entry.failed("look at the target of", errno)),
            },
        };
        if kind != FileKind::File {
            return Err(refuse(kind));
        }
        let parent = self.parent(entry, path)?;
        linkat(&place, target_path.name(), &parent, path.name(), AtFlags::empty())
            .map_err(|errno| self.not_created(entry, path, "make the hard link", errno))?;
        match self.privileged.contains(&path_buf(target_path.as_bytes())) {
            true => self.privilege(entry, path),
            false => Ok(()),
        }
    }

    /// A whiteout in overlay's form: a character device 0/0 with the name that is removed.
    pub(super) fn whiteout(&mut self, entry: &Entry, hidden: &LayerPath) -> Result<(), LayerError> {
        let parent = self.parent(entry, hidden)?;
        let made = mknodat(&parent, hidden.name(), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0));
        made.map_err(|errno| match (errno, self.found(hidden.as_bytes())) {
            (Errno::EEXIST, Ok(found @ FileKind::CharacterDevice)) => {
                entry.refused(Rule::Duplicate { found })
            }
            (Errno::EEXIST, Ok(_)) => entry.refused(Rule::WhiteoutAndEntry),
            _ => entry.failed("make the whiteout", errno),
        })?;
        self.remove(entry, hidden)
    }

    /// Hides what lower layers have in `directory`.
    pub(super) fn opaque(&mut self, entry: &Entry, directory: &LayerPath) -> Result<(), LayerError> {
        self.make_way(entry, directory.as_bytes())?;
        let opened = self
            .open(directory.as_bytes(), OFlag::O_RDONLY)
            .map(File::from)
            .map_err(|errno| entry.failed("open the directory of", errno))?;
        let doing = "set the attribute for";
        match opened.get_xattr(OPAQUE_XATTR).map_err(|error| entry.failed(doing, error))? {
            Some(_) => return Err(entry.refused(Rule::Duplicate { found: FileKind::File })),
            None => opened.set_xattr(OPAQUE_XATTR, b"y").map_err(|error| entry.failed(doing, error))?,
        }
        self.remove(entry, directory)
    }

    /// Sets the attributes of all directories, and says what is in the tree; entries and bytes are not counted.
    pub(super) fn finish(self) -> Result<Layer, LayerError> {
        // An implied directory has no time of its own; 1970 makes equal layers equal trees.
        let implied = Attributes { mode: IMPLIED_MODE, ..Attributes::default() };
        let mut layer = Layer::default();
        for (path, directory) in &self.directories {
            let attributes = directory.attributes.as_ref().unwrap_or(&implied);
            self.open(path, OFlag::O_RDONLY)
                .map_err(|errno| ("open", errno.into()))
                .and_then(|descriptor| set_attributes(&File::from(descriptor), attributes))
                .map_err(|(doing, error)| {
                    failed(&EntryName::from(&**path), directory.offset, doing, error)
                })?;
            if !path.is_empty() {
                layer.directories.push(path_buf(path));
                layer.implicit.extend(directory.attributes.is_none().then(|| path_buf(path)));
            }
        }
        layer.removed = self.removed;
        layer.privileged = self.privileged.into_iter().collect();
        Ok(layer)
    }

    /// A directory of this tree; `""` is its root.
    fn open(&self, path: &[u8], access: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(access | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(beneath());
        openat2(&self.root, if path.is_empty() { &b"."[..] } else { path }, how)
    }

    /// What is at `path`, itself and not where it leads.
    fn found(&self, path: &[u8]) -> Result<FileKind, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat2(&self.root, path, OpenHow::new().flags(flags).resolve(beneath())) {
            Ok(descriptor) => fstat(&descriptor).map(|stat| kind_of(&stat)),
            Err(Errno::ENOENT) => Ok(FileKind::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// The directory that `path` lies in; made if the archive did not.
    fn parent(&mut self, entry: &Entry, path: &LayerPath) -> Result<OwnedFd, LayerError> {
        self.make_way(entry, path.parent())
    }

    fn make_way(&mut self, entry: &Entry, directory: &[u8]) -> Result<OwnedFd, LayerError> {
        match self.open(directory, OFlag::O_PATH) {
            Ok(descriptor) => return Ok(descriptor),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(self.no_way(entry, directory, errno)),
        }
        let mut above = self.open(b"", OFlag::O_PATH).map_err(|errno| self.no_way(entry, b"", errno))?;
        for end in part_ends(directory) {
            let way = &directory[..end];
            let name = way.rsplit(|byte| *byte == b'/').next().unwrap_or(way);
            match mkdirat(&above, name, Mode::S_IRWXU) {
                Ok(()) => {
                    self.implied += 1;
                    if self.implied > self.limits.entries {
                        return Err(too_large(Bound::Entries, self.limits.entries, entry.offset));
                    }
                    self.remember(entry, way, None)?;
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(entry.failed("make a directory for", errno)),
            }
            above = self.open(way, OFlag::O_PATH).map_err(|errno| self.no_way(entry, way, errno))?;
        }
        Ok(above)
    }

    /// Keeps a directory's attributes for the end.
    fn remember(
        &mut self,
        entry: &Entry,
        path: &[u8],
        attributes: Option<Attributes>,
    ) -> Result<(), LayerError> {
        let xattrs = attributes.iter().flat_map(|attributes| &attributes.xattrs);
        let bytes: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        // Three times: here and in both lists of the layer.
        self.account(entry, 3 * path.len() + bytes)?;
        self.directories.insert(path.into(), Directory { offset: entry.offset, attributes });
        Ok(())
    }

    fn remove(&mut self, entry: &Entry, path: &LayerPath) -> Result<(), LayerError> {
        self.account(entry, path.as_bytes().len())?;
        self.removed.push(path_buf(path.as_bytes()));
        Ok(())
    }

    fn privilege(&mut self, entry: &Entry, path: &LayerPath) -> Result<(), LayerError> {
        self.account(entry, path.as_bytes().len())?;
        self.privileged.insert(path_buf(path.as_bytes()));
        Ok(())
    }

    /// Keeps what is remembered within its limit.
    fn account(&mut self, entry: &Entry, bytes: usize) -> Result<(), LayerError> {
        self.memory += (bytes + OVERHEAD) as u64;
        match self.memory > self.limits.memory {
            true => Err(too_large(Bound::Memory, self.limits.memory, entry.offset)),
            false => Ok(()),
        }
    }

    /// Why a directory cannot be reached: names the part of the way that is none.
    fn no_way(&self, entry: &Entry, directory: &[u8], errno: Errno) -> LayerError {
        let blocking =
            part_ends(directory).map(|end| &directory[..end]).find_map(|way| match self.found(way) {
                Ok(FileKind::Directory | FileKind::Nothing) | Err(_) => None,
                Ok(found) => Some(Rule::Parent { parent: way.into(), found }),
            });
        match blocking {
            Some(rule) => entry.refused(rule),
            None => entry.failed("reach the directory of", errno),
        }
    }

    /// Why a name could not be created: a duplicate is the layer's fault.
    fn not_created(&self, entry: &Entry, path: &LayerPath, doing: &'static str, errno: Errno) -> LayerError {
        match (errno, self.found(path.as_bytes())) {
            (Errno::EEXIST, Ok(FileKind::CharacterDevice)) => entry.refused(Rule::WhiteoutAndEntry),
            (Errno::EEXIST, Ok(found)) => entry.refused(Rule::Duplicate { found }),
            _ => entry.failed(doing, errno),
        }
    }
}

/// How far a name may lead: down, through directories of the same mount.
fn beneath() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV
}

/// Where each part of a checked name ends; none for the root.
fn part_ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
    slashes.chain((!path.is_empty()).then_some(path.len()))
}

/// Owner, mode, extended attributes, mtime: in this order.
fn set_attributes(file: &File, attributes: &Attributes) -> Result<(), (&'static str, io::Error)> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    fchown(file.as_fd(), Some(uid), Some(gid)).map_err(|errno| ("set the owner of", errno.into()))?;
    fchmod(file.as_fd(), Mode::from_bits_truncate(attributes.mode))
        .map_err(|errno| ("set the mode of", errno.into()))?;
    for (name, value) in &attributes.xattrs {
        file.set_xattr(OsStr::from_bytes(name), value)
            .map_err(|error| ("set the extended attributes of", error))?;
    }
    let time = time_spec(attributes.mtime);
    futimens(file.as_fd(), &time, &time).map_err(|errno| ("set the time of", errno.into()))
}

fn path_buf(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

fn time_spec(moment: Moment) -> TimeSpec {
    TimeSpec::new(moment.seconds, moment.nanoseconds.into())
}

/// What `stat(2)` says that a file is.
pub(super) fn kind_of(stat: &FileStat) -> FileKind {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileKind::File,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFLNK => FileKind::Symlink,
        SFlag::S_IFCHR => FileKind::CharacterDevice,
        SFlag::S_IFBLK => FileKind::BlockDevice,
        SFlag::S_IFIFO => FileKind::Fifo,
        _ => FileKind::Socket,
    }
}
