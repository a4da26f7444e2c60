//! The files of a container: fix layers, and the directories that its root file system is made of.

pub(crate) mod buildid;
pub(crate) mod foreign;
pub(crate) mod hashing;
pub mod inventory;
pub mod layer;
pub(crate) mod mountinfo;
pub mod rootfs;
pub(crate) mod storage;

use std::fs::File;
use std::path::Path;

use manifests::{LayerFormat, Sha256};

pub use self::layer::{Layer, LayerError, LayerStore};
pub use self::rootfs::{FileRecord, LayerConflict, OverlayMounts, RootfsError, Switched};
use crate::criu::CheckpointedFile;
use crate::model::{FreshUpper, Topology};

/// Root file systems on the host's side.
pub trait RootfsMounts {
    /// What is mounted on `rootfs` now.
    fn current(&self, rootfs: &Path) -> Result<Topology, RootfsError>;

    /// Places where a layer's directory would hide something that is not a directory, such as a
    /// link `/lib` to `usr/lib`. Look before anything is stopped.
    fn conflicts(&self, rootfs: &Path, layer: &Layer) -> Result<Vec<LayerConflict>, RootfsError>;

    /// Makes the directories that a trial writes to, empty, with the owners and modes that `rootfs`
    /// shows now for its root and for the directories that the layers only imply.
    fn prepare(&self, rootfs: &Path, layers: &[Layer], fresh: &FreshUpper) -> Result<(), RootfsError>;

    /// Makes `rootfs` show `to`; already so is success. Its work directory is made if need be.
    ///
    /// The container must be stopped. Overlays on `rootfs` are unmounted before the new one is
    /// mounted; a plain root is left bare.
    fn switch(&self, rootfs: &Path, to: &Topology) -> Result<Switched, RootfsError>;

    /// Digests of the files that lie in the root file system; links stay inside it.
    fn file_records(&self, rootfs: &Path, files: &[CheckpointedFile])
    -> Result<Vec<FileRecord>, RootfsError>;
}

/// Fix layers, unpacked.
pub trait Layers {
    /// Unpacks an archive that was verified to have this digest. Already there is success.
    fn unpack(&self, digest: &Sha256, archive: &File, format: LayerFormat) -> Result<Layer, LayerError>;

    /// A layer that was unpacked before.
    fn get(&self, digest: &Sha256) -> Result<Option<Layer>, LayerError>;
}
