//! The file system side: a new tree below one descriptor, written without following a link.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::archive::Stop;
use super::{Layer, LayerError, Violation};

/// Owner, mode, time and extended attributes of an entry.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    pub(super) extended: Vec<(String, Vec<u8>)>,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    ImplicitDirectory,
    Directory,
    File,
    Other,
}

/// A tree that grows.
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    nodes: BTreeMap<PathBuf, Node>,
    /// Applied last: a child would change its parent's time.
    directory_times: Vec<(PathBuf, (i64, u32))>,
    removed: Vec<PathBuf>,
    privileged: Vec<PathBuf>,
}

impl Tree {
    pub(super) fn create(root: &Path) -> Result<Self, LayerError> {
        let store = |source| LayerError::Store { path: root.to_owned(), source };
        let opened = File::open(root).map_err(store)?;
        opened.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(store)?;
        Ok(Self {
            root: opened.into(),
            path: root.to_owned(),
            nodes: BTreeMap::new(),
            directory_times: Vec::new(),
            removed: Vec::new(),
            privileged: Vec::new(),
        })
    }

    pub(super) fn entries(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn finish(self) -> Result<Layer, LayerError> {
        for (path, time) in self.directory_times.iter().rev() {
            let directory = self.open_directory(path).map_err(|source| self.at(path, source))?;
            set_time(&directory, OsStr::new("."), *time).map_err(|source| self.at(path, source))?;
        }
        let named = |wanted: &[Node]| -> Vec<PathBuf> {
            self.nodes
                .iter()
                .filter(|(_, node)| wanted.contains(node))
                .map(|(path, _)| path.clone())
                .collect()
        };
        Ok(Layer {
            root: self.path.clone(),
            directories: named(&[Node::Directory, Node::ImplicitDirectory]),
            implicit: named(&[Node::ImplicitDirectory]),
            entries: self.nodes.len(),
            bytes: 0,
            removed: self.removed,
            privileged: self.privileged,
        })
    }

    fn at(&self, path: &Path, source: impl Into<io::Error>) -> LayerError {
        LayerError::Store { path: self.path.join(path), source: source.into() }
    }

    fn open_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
    }

    fn open(&self, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let inside =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let how =
            OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).mode(mode).resolve(inside);
        openat2(&self.root, path, how)
    }

    /// Opens the parent of a path, making directories that the archive did not name.
    fn parent(&mut self, path: &Path) -> Result<OwnedFd, Stop> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut way = PathBuf::new();
        for part in parent {
            way.push(part);
            match self.nodes.get(&way) {
                Some(Node::Directory | Node::ImplicitDirectory) => {}
                Some(_) => return Err(Violation::ParentNotDirectory(way).into()),
                None => {
                    let above = self
                        .open_directory(way.parent().unwrap_or(Path::new("")))
                        .map_err(|error| self.at(&way, error))?;
                    mkdirat(&above, part, Mode::from_bits_truncate(0o755))
                        .map_err(|error| self.at(&way, error))?;
                    let made = self.open_directory(&way).map_err(|error| self.at(&way, error))?;
                    fchmod(&made, Mode::from_bits_truncate(0o755)).map_err(|error| self.at(&way, error))?;
                    self.nodes.insert(way.clone(), Node::ImplicitDirectory);
                }
            }
        }
        self.open_directory(parent).map_err(|error| self.at(parent, error).into())
    }

    /// The parent's descriptor and the last name of a path that is not taken yet.
    fn vacant<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Stop> {
        if self.nodes.contains_key(path) {
            return Err(Violation::Duplicate.into());
        }
        let parent = self.parent(path)?;
        Ok((parent, path.file_name().unwrap_or_default()))
    }

    pub(super) fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<(), Stop> {
        match self.nodes.get(path) {
            Some(Node::ImplicitDirectory) => {}
            Some(_) => return Err(Violation::Duplicate.into()),
            None => {
                let (parent, name) = self.vacant(path)?;
                mkdirat(&parent, name, Mode::from_bits_truncate(0o700))
                    .map_err(|error| self.at(path, error))?;
            }
        }
        let opened = self.open_directory(path).map_err(|error| self.at(path, error))?;
        apply(&File::from(opened), &attributes).map_err(|error| self.at(path, error))?;
        self.directory_times.push((path.to_owned(), attributes.mtime));
        self.nodes.insert(path.to_owned(), Node::Directory);
        Ok(())
    }

    pub(super) fn file(
        &mut self,
        path: &Path,
        attributes: Attributes,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), Stop> {
        self.vacant(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let opened =
            self.open(path, flags, Mode::from_bits_truncate(0o600)).map_err(|error| self.at(path, error))?;
        let mut file = File::from(opened);
        copy(content, &mut file, size).map_err(|error| match error {
            CopyError::Reading(source) => Stop::Reading(source),
            CopyError::Writing(source) => Stop::Writing(self.at(path, source)),
        })?;
        apply(&file, &attributes).map_err(|error| self.at(path, error))?;
        let parent = self.parent(path)?;
        set_time(&parent, path.file_name().unwrap_or_default(), attributes.mtime)
            .map_err(|error| self.at(path, error))?;
        let capable = attributes.extended.iter().any(|(name, _)| name == "security.capability");
        if attributes.mode & 0o6000 != 0 || capable {
            self.privileged.push(path.to_owned());
        }
        self.nodes.insert(path.to_owned(), Node::File);
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: &Path, attributes: Attributes, target: &Path) -> Result<(), Stop> {
        let (parent, name) = self.vacant(path)?;
        let made = symlinkat(target, &parent, name)
            .and_then(|()| {
                let owner = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
                fchownat(&parent, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)
            })
            .map_err(io::Error::from)
            .and_then(|()| set_time(&parent, name, attributes.mtime));
        made.map_err(|error| self.at(path, error))?;
        self.nodes.insert(path.to_owned(), Node::Other);
        Ok(())
    }

    pub(super) fn hard_link(&mut self, path: &Path, source: &Path) -> Result<(), Stop> {
        if self.nodes.get(source) != Some(&Node::File) {
            return Err(Violation::HardLinkTarget(source.to_string_lossy().into_owned()).into());
        }
        let from = self.parent(source)?;
        let (to, name) = self.vacant(path)?;
        linkat(&from, source.file_name().unwrap_or_default(), &to, name, AtFlags::empty())
            .map_err(|error| self.at(path, error))?;
        self.nodes.insert(path.to_owned(), Node::File);
        Ok(())
    }

    /// Overlay's whiteout is a character device 0/0 (kernel `overlayfs.rst`, "whiteouts").
    pub(super) fn whiteout(&mut self, path: &Path) -> Result<(), Stop> {
        let (parent, name) = self.vacant(path)?;
        mknodat(&parent, name, SFlag::S_IFCHR, Mode::empty(), 0).map_err(|error| self.at(path, error))?;
        self.removed.push(path.to_owned());
        self.nodes.insert(path.to_owned(), Node::Other);
        Ok(())
    }

    /// Hides everything below this directory that is not in the layer.
    pub(super) fn opaque(&mut self, path: &Path) -> Result<(), Stop> {
        // The root cannot be hidden: overlay reads the attribute of merged directories only.
        if path.as_os_str().is_empty() {
            return Err(Violation::Whiteout.into());
        }
        if matches!(self.nodes.get(path), Some(Node::File | Node::Other)) {
            return Err(Violation::ParentNotDirectory(path.to_owned()).into());
        }
        let directory = self.parent(&path.join("x"))?;
        set_attribute(directory.as_fd(), "trusted.overlay.opaque", b"y")
            .map_err(|error| self.at(path, error))?;
        self.removed.push(path.to_owned());
        Ok(())
    }
}

enum CopyError {
    Reading(io::Error),
    Writing(io::Error),
}

fn copy(from: &mut impl Read, to: &mut File, size: u64) -> Result<(), CopyError> {
    use std::io::Write;
    let mut buffer = vec![0; 1 << 16];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => return Err(CopyError::Reading(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Reading(error)),
        };
        to.write_all(&buffer[..count]).map_err(CopyError::Writing)?;
        left -= count as u64;
    }
    Ok(())
}

/// Owner first: changing it clears the set-id bits and capabilities.
fn apply(file: &File, attributes: &Attributes) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(file, Mode::from_bits_truncate(attributes.mode))?;
    for (name, value) in &attributes.extended {
        set_attribute(file.as_fd(), name, value)?;
    }
    Ok(())
}

/// By descriptor, through `/proc`: the name might lead elsewhere by now.
fn set_attribute(file: std::os::fd::BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    xattr::set_deref(format!("/proc/self/fd/{}", file.as_raw_fd()), name, value)
}

fn set_time(parent: impl AsFd, name: &OsStr, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds.into());
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(io::Error::from)
}
