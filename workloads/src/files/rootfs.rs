//! Root file systems: which topology is mounted, switching between topologies, and proof by digest.
//!
//! Invariants:
//! - A switch unmounts before it mounts: no directory is ever the upper of one mount and a lower of
//!   another, so what a trial stacks upon cannot change under it.
//! - After a switch the mount table is read back; a switch that cannot be seen there is an error.
//! - Nothing is deleted. A directory that should be empty and is not is refused.
//!
//! What this does not do: stopping the container first (a running one keeps its own copy of the old
//! mount), and unpacking layers ([`super::layer`]).

#![expect(clippy::disallowed_methods, reason = "waits for the kernel to let go of a mount")]

mod digest;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::Sha256;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::criu::images::CheckpointedFile;
use crate::files::RootfsMounts;
use crate::files::layer::Layer;
use crate::files::mountinfo;
use crate::files::mountinfo::Mount;
use crate::files::storage;
use crate::model::{FreshUpper, Overlay, SeenPath, Topology, TopologyError};

/// A dying container's last process may hold the mount for a moment.
const BUSY_ATTEMPTS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Whether a switch had to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switched {
    /// The mount was changed.
    Changed,
    /// It was already so.
    AlreadySo,
}

/// One file as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Absolute path inside the container.
    pub path: SeenPath,
    /// Digest of its content; absent when there is no such file.
    pub sha256: Option<Sha256>,
}

/// A path of a layer that would do more to a container than replace a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerConflict {
    /// The path inside the container.
    pub path: PathBuf,
    /// What is there now.
    pub found: String,
}

impl std::fmt::Display for LayerConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the layer has a directory at {}, the container has {}", self.path.display(), self.found)
    }
}

/// Why a root file system could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file or directory could not be read.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A directory could not be made.
    #[error("could not make {path}")]
    Make {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A directory for changes is already in use.
    #[error("{path} should be empty and has {found:?} in it")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The first thing found in it.
        found: std::ffi::OsString,
    },
    /// A layer or upper directory of the wanted mount is not there.
    #[error("{path} is needed to mount {rootfs} and is not there")]
    Missing {
        /// The root file system.
        rootfs: PathBuf,
        /// The directory.
        path: PathBuf,
    },
    /// The mount cannot be described or made.
    #[error("the overlay on {rootfs} cannot be stacked")]
    Topology {
        /// The root file system.
        rootfs: PathBuf,
        /// The reason.
        source: TopologyError,
    },
    /// The kernel refused the mount.
    #[error("could not mount an overlay with {options} on {rootfs}")]
    Mount {
        /// The root file system.
        rootfs: PathBuf,
        /// The options.
        options: String,
        /// The reason.
        source: io::Error,
    },
    /// The kernel refused to unmount.
    #[error("could not unmount {rootfs}{}", if *.source == nix::Error::EBUSY { "; somebody still uses it" } else { "" })]
    Unmount {
        /// The root file system.
        rootfs: PathBuf,
        /// The reason.
        source: nix::Error,
    },
    /// Its engine has it mounted.
    #[error("{rootfs} is still mounted by its engine, expected the container to be stopped")]
    InUse {
        /// The root file system.
        rootfs: PathBuf,
    },
    /// The mount is not what was asked for.
    #[error("{rootfs} shows {found:?} after it was switched")]
    NotSwitched {
        /// The root file system.
        rootfs: PathBuf,
        /// What is mounted now.
        found: Box<Topology>,
    },
}

impl RootfsError {
    /// Whether the root file system's directory itself is not there.
    pub fn is_absence_of(&self, wanted: &Path) -> bool {
        match self {
            Self::Read { path, source } => path == wanted && source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Overlay mounts in this process's mount namespace.
#[derive(Debug, Clone, Copy, Default)]
pub struct OverlayMounts;

impl OverlayMounts {
    fn top(rootfs: &Path) -> Result<Option<Mount>, RootfsError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| RootfsError::Read { path, source }
        };
        let real = rootfs.canonicalize().map_err(read(rootfs))?;
        let table = Path::new("/proc/self/mountinfo");
        let text = fs::read(table).map_err(read(table))?;
        // Of several mounts on one place the last one shows.
        Ok(mountinfo::parse(&text).into_iter().rfind(|mount| mount.point == real))
    }

    /// The engine lets go of what it has mounted for a container when that has ended, in a moment.
    fn wait_until_unmounted(rootfs: &Path) -> Result<(), RootfsError> {
        for _ in 0..BUSY_ATTEMPTS {
            let top = match Self::top(rootfs) {
                // docker removes the mount point, too.
                Err(error) if error.is_absence_of(rootfs) => None,
                top => top?,
            };
            if top.is_none_or(|mount| mount.kind != "overlay") {
                return Ok(());
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        Err(RootfsError::InUse { rootfs: rootfs.to_owned() })
    }

    fn unmount_overlays(rootfs: &Path) -> Result<(), RootfsError> {
        while Self::top(rootfs)?.is_some_and(|mount| mount.kind == "overlay") {
            let mut attempts = 0;
            while let Err(source) = umount2(rootfs, MntFlags::UMOUNT_NOFOLLOW) {
                attempts += 1;
                if source != nix::Error::EBUSY || attempts >= BUSY_ATTEMPTS {
                    return Err(RootfsError::Unmount { rootfs: rootfs.to_owned(), source });
                }
                std::thread::sleep(BUSY_PAUSE);
            }
        }
        Ok(())
    }

    fn mount(rootfs: &Path, overlay: &Overlay) -> Result<(), RootfsError> {
        let topology = |source| RootfsError::Topology { rootfs: rootfs.to_owned(), source };
        let options = overlay.mount_options().map_err(topology)?;
        if let Some(work) = &overlay.work {
            make_directory(work, 0o700)?;
        }
        let flags = overlay.flags.iter().filter_map(|flag| mount_flag(flag)).collect();
        mount(Some("overlay"), rootfs, Some("overlay"), flags, Some(options.as_str()))
            .map_err(|error| RootfsError::Mount { rootfs: rootfs.to_owned(), options, source: error.into() })
    }
}

/// A root file system that its engine has not mounted, mounted elsewhere for looking only.
struct View {
    place: tempfile::TempDir,
}

impl View {
    fn of(layer: &storage::Layer) -> Result<Self, RootfsError> {
        let place =
            tempfile::tempdir().map_err(|source| RootfsError::Make { path: std::env::temp_dir(), source })?;
        OverlayMounts::mount(place.path(), &layer.view()?)?;
        Ok(Self { place })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.place.path(), MntFlags::MNT_DETACH) {
            tracing::warn!(%error, place = %self.place.path().display(), "a view of a container's files stays mounted");
        }
    }
}

impl RootfsMounts for OverlayMounts {
    fn current(&self, rootfs: &Path) -> Result<Topology, RootfsError> {
        if let Some(layer) = storage::Layer::mounted_on(rootfs) {
            return layer.topology();
        }
        match Self::top(rootfs)? {
            Some(mount) if mount.kind == "overlay" => {
                let mut overlay = Overlay::from_options(&mount.super_options)
                    .map_err(|source| RootfsError::Topology { rootfs: rootfs.to_owned(), source })?;
                let flags = mount.options.split(',').filter(|flag| !matches!(*flag, "rw" | "relatime"));
                overlay.flags = flags.map(str::to_owned).collect();
                Ok(Topology::Overlay(overlay))
            }
            _ => Ok(Topology::Plain),
        }
    }

    fn conflicts(&self, rootfs: &Path, layer: &Layer) -> Result<Vec<LayerConflict>, RootfsError> {
        let mut conflicts = Vec::new();
        for directory in &layer.directories {
            let found = match fs::symlink_metadata(rootfs.join(directory)) {
                Ok(found) if found.is_dir() => continue,
                Ok(found) if found.is_symlink() => "a symbolic link",
                Ok(_) => "a file",
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                Err(source) => return Err(RootfsError::Read { path: rootfs.join(directory), source }),
            };
            let path = Path::new("/").join(directory);
            conflicts.push(LayerConflict { path, found: found.to_owned() });
        }
        Ok(conflicts)
    }

    fn prepare(&self, rootfs: &Path, layers: &[Layer], fresh: &FreshUpper) -> Result<(), RootfsError> {
        for directory in [&fresh.upper, &fresh.work] {
            make_directory(directory, 0o700)?;
        }
        let implicit: BTreeSet<&PathBuf> = layers.iter().flat_map(|layer| &layer.implicit).collect();
        refuse_content(&fresh.upper, &implicit)?;
        copy_attributes(rootfs, &fresh.upper)?;
        for directory in implicit {
            let old = rootfs.join(directory);
            if fs::symlink_metadata(&old).is_ok_and(|found| found.is_dir()) {
                let new = fresh.upper.join(directory);
                make_directory(&new, 0o755)?;
                copy_attributes(&old, &new)?;
            }
        }
        Ok(())
    }

    fn switch(&self, rootfs: &Path, to: &Topology) -> Result<Switched, RootfsError> {
        if let (Some(layer), Topology::Stored(overlay)) = (storage::Layer::mounted_on(rootfs), to) {
            Self::wait_until_unmounted(rootfs)?;
            return layer.switch(rootfs, overlay);
        }
        let now = self.current(rootfs)?;
        let same_work = match (&now, to) {
            (Topology::Overlay(one), Topology::Overlay(two)) => one.work == two.work,
            _ => true,
        };
        if now.shows_the_same_as(to) && same_work {
            return Ok(Switched::AlreadySo);
        }
        if let Topology::Overlay(overlay) = to {
            let needed = overlay.lower.iter().chain(&overlay.upper);
            if let Some(path) = needed.into_iter().find(|path| !path.is_dir()) {
                return Err(RootfsError::Missing { rootfs: rootfs.to_owned(), path: path.clone() });
            }
        }
        Self::unmount_overlays(rootfs)?;
        if let Topology::Overlay(overlay) = to {
            Self::mount(rootfs, overlay)?;
        }
        let found = self.current(rootfs)?;
        if found.shows_the_same_as(to) {
            Ok(Switched::Changed)
        } else {
            Err(RootfsError::NotSwitched { rootfs: rootfs.to_owned(), found: Box::new(found) })
        }
    }

    fn file_records(
        &self,
        rootfs: &Path,
        files: &[CheckpointedFile],
    ) -> Result<Vec<FileRecord>, RootfsError> {
        match storage::Layer::mounted_on(rootfs) {
            Some(layer) if Self::top(rootfs)?.is_none_or(|mount| mount.kind != "overlay") => {
                let view = View::of(&layer)?;
                digest::files(view.place.path(), files)
            }
            _ => digest::files(rootfs, files),
        }
    }
}

fn mount_flag(word: &str) -> Option<MsFlags> {
    Some(match word {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        _ => return None,
    })
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RootfsError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| RootfsError::Make { path: path.to_owned(), source })
}

/// Refuses a directory with anything in it but what an earlier, interrupted preparation made.
fn refuse_content(upper: &Path, allowed: &BTreeSet<&PathBuf>) -> Result<(), RootfsError> {
    let allowed: BTreeSet<PathBuf> =
        allowed.iter().flat_map(|path| path.ancestors()).map(|path| upper.join(path)).collect();
    let mut waiting = vec![upper.to_owned()];
    while let Some(directory) = waiting.pop() {
        let read = |source| RootfsError::Read { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            if !entry.file_type().map_err(read)?.is_dir() || !allowed.contains(&entry.path()) {
                return Err(RootfsError::NotEmpty { path: upper.to_owned(), found: entry.file_name() });
            }
            waiting.push(entry.path());
        }
    }
    Ok(())
}

/// Gives a directory the owner, mode and extended attributes of another.
///
/// The root of an overlay shows the attributes of its upper directory, and a merged directory those
/// of its topmost layer: without this, a container's `/` would suddenly be root's own, mode 0700.
fn copy_attributes(from: &Path, to: &Path) -> Result<(), RootfsError> {
    let read = |source| RootfsError::Read { path: from.to_owned(), source };
    let make = |source| RootfsError::Make { path: to.to_owned(), source };
    let found = fs::symlink_metadata(from).map_err(read)?;
    std::os::unix::fs::lchown(to, Some(found.uid()), Some(found.gid())).map_err(make)?;
    fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777)).map_err(make)?;
    for name in xattr::list(from).map_err(read)? {
        if name.to_string_lossy().starts_with("trusted.overlay.") {
            continue;
        }
        if let Some(value) = xattr::get(from, &name).map_err(read)? {
            xattr::set(to, &name, &value).map_err(make)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
