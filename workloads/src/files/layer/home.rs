//! `layers/` in the store: who may write there, what a crash left, how a layer becomes visible.
//!
//! Invariants:
//! - One unpack at a time: `layers/` itself is locked (`flock(2)`) for as long as a [`Home`] lives, so an
//!   `.incoming-*` directory that it finds belongs to nobody.
//! - `layers/<sha256>` appears by a rename of a synced directory, and `layers/` is synced after it.
//! - `layers/.records/<sha256>` was written and synced before its layer appeared.
//! - `layers/` is root's alone (0700): set-user-ID files of layers are out of reach on the host.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, fchmod, fstatat, mkdirat};
use nix::unistd::syncfs;
use system::durable;
use system::durable::{DOOMED, UNFINISHED};

use crate::files::inventory::Inventory;
use crate::files::layer::Layer;
use crate::files::layer::error::{FileKind, LayerError};
use crate::files::layer::tree::kind_of;

/// What is known about each layer. Not beside the tree in one directory with it, since `layers/<sha256>` itself
/// is the overlay's lower directory.
const RECORDS: &str = ".records";

/// The locked directory of all layers.
pub(super) struct Home {
    path: PathBuf,
    directory: Flock<File>,
}

/// A layer that is being unpacked. Dropped without [`Incoming::publish`], it is removed.
pub(super) struct Incoming<'a> {
    home: &'a Home,
    layer: Sha256,
    name: String,
    published: bool,
}

impl Home {
    /// Opens, makes if need be, and locks the directory of all layers. Waits for another unpack to end.
    pub(super) fn open(path: &Path) -> Result<Self, LayerError> {
        let path = path.to_owned();
        make_directory(&path)?;
        make_directory(&path.join(RECORDS))?;
        let directory = File::options()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
            .open(&path)
            .map_err(store_error("open", &path))?;
        let directory = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| store_error("lock", &path)(errno.into()))?;
        fchmod(&*directory, Mode::S_IRWXU).map_err(|errno| store_error("close", &path)(errno.into()))?;
        Ok(Self { path, directory })
    }

    /// Removes what a crash left behind, and records of layers that are no more.
    pub(super) fn remove_leftovers(&self) -> Result<(), LayerError> {
        let records = self.path.join(RECORDS);
        let is_incoming = |name: &OsStr| {
            let name = name.as_encoded_bytes();
            name.starts_with(UNFINISHED.as_bytes()) || name.starts_with(DOOMED.as_bytes())
        };
        for name in names(&self.path)?.iter().filter(|name| is_incoming(name)) {
            remove(&self.path.join(name))?;
        }
        for name in names(&records)?.iter().filter(|name| is_incoming(name) || !self.path.join(name).is_dir())
        {
            remove(&records.join(name))?;
        }
        Ok(())
    }

    /// Keeps what is known about a layer. Its root is not kept: it follows from the digest.
    pub(super) fn write_record(&self, digest: &Sha256, layer: &Layer) -> Result<(), LayerError> {
        let path = record(&self.path, digest);
        let json =
            serde_json::to_vec(layer).map_err(|source| LayerError::Record { path: path.clone(), source })?;
        durable::replace(&path, &json).map_err(store_error("write", &path))
    }

    /// Whether a layer is there; if so, it is complete, and stays after a power cut.
    pub(super) fn holds(&self, layer: &Sha256) -> Result<bool, LayerError> {
        let name = layer.to_string();
        match fstatat(&*self.directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => match kind_of(&stat) {
                // A crash may have come between the rename and the sync.
                FileKind::Directory => {
                    self.directory.sync_all().map_err(store_error("sync", &self.path)).map(|()| true)
                }
                found => Err(LayerError::InTheWay { path: self.path.join(name), found }),
            },
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(store_error("look at", &self.path.join(name))(errno.into())),
        }
    }

    /// How much there is of a layer.
    pub(super) fn inventory(&self, layer: &Sha256) -> Result<Inventory, LayerError> {
        inventory(&place(&self.path, layer))
    }

    /// Removes a layer; no part of it stays under its name.
    pub(super) fn remove(&self, layer: &Sha256) -> Result<(), LayerError> {
        let path = place(&self.path, layer);
        durable::remove(&path).map_err(store_error("remove", &path))
    }

    /// A new directory for a layer.
    pub(super) fn incoming(&self, layer: &Sha256) -> Result<Incoming<'_>, LayerError> {
        let name = format!("{UNFINISHED}{layer}");
        mkdirat(&*self.directory, name.as_str(), Mode::S_IRWXU)
            .map_err(|errno| store_error("make", &self.path.join(&name))(errno.into()))?;
        Ok(Incoming { home: self, layer: *layer, name, published: false })
    }
}

impl Incoming<'_> {
    /// The directory to fill.
    pub(super) fn root(&self) -> Result<OwnedFd, LayerError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&*self.home.directory, self.name.as_str(), flags, Mode::empty())
            .map_err(|errno| store_error("open", &self.path())(errno.into()))
    }

    /// How much is in it.
    pub(super) fn inventory(&self) -> Result<Inventory, LayerError> {
        inventory(&self.path())
    }

    /// Makes the layer durable, then visible, then its visibility durable.
    pub(super) fn publish(mut self) -> Result<(), LayerError> {
        let home = self.home;
        // One call for all files; it reports writes that failed (since Linux 5.8).
        syncfs(&*home.directory).map_err(|errno| store_error("sync", &self.path())(errno.into()))?;
        let name = self.layer.to_string();
        let (from, to) = (self.name.as_str(), name.as_str());
        renameat2(&*home.directory, from, &*home.directory, to, RenameFlags::RENAME_NOREPLACE)
            .map_err(|errno| store_error("rename", &self.path())(errno.into()))?;
        self.published = true;
        home.directory.sync_all().map_err(store_error("sync", &home.path))
    }

    fn path(&self) -> PathBuf {
        self.home.path.join(&self.name)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here is the one to report; the next unpack removes what stays.
            let _ = remove(&self.path());
        }
    }
}

/// Where a layer is once it is complete.
pub(super) fn place(layers: &Path, digest: &Sha256) -> PathBuf {
    layers.join(digest.to_string())
}

/// How much there is in a layer's directory.
pub(super) fn inventory(path: &Path) -> Result<Inventory, LayerError> {
    Inventory::of(path).map_err(store_error("look through", path))
}

/// What is known about a layer; `None` when nothing is.
pub(super) fn read_record(layers: &Path, digest: &Sha256) -> Result<Option<Layer>, LayerError> {
    let path = record(layers, digest);
    match fs::read(&path) {
        Ok(json) => {
            let layer: Layer =
                serde_json::from_slice(&json).map_err(|source| LayerError::Record { path, source })?;
            Ok(Some(Layer { root: place(layers, digest), ..layer }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(store_error("read", &path)(error)),
    }
}

fn record(layers: &Path, digest: &Sha256) -> PathBuf {
    layers.join(RECORDS).join(digest.to_string())
}

fn names(directory: &Path) -> Result<Vec<OsString>, LayerError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(store_error("list", directory))
}

/// Removes a file or a whole tree. The standard library walks it by descriptors and follows no link.
fn remove(path: &Path) -> Result<(), LayerError> {
    let kind = fs::symlink_metadata(path).map_err(store_error("look at", path))?.file_type();
    let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(store_error("remove", path))
}

/// Makes a directory, durably, and what is missing above it.
fn make_directory(path: &Path) -> Result<(), LayerError> {
    durable::make_directory(path).map_err(store_error("make", path))
}

fn store_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> LayerError {
    move |source| LayerError::Store { doing, path: path.to_owned(), source }
}
