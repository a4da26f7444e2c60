//! Root file systems: which topology is mounted, switching between topologies, and proof by digest.
//!
//! (implementation follows in this file)

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::images::CheckpointedFile;
use super::topology::TopologyError;

/// Whether a switch had to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switched {
    /// The mount was changed.
    Changed,
    /// It was already so.
    AlreadySo,
}

/// Digest of a directory tree: names, types, modes, owners, extended attributes and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreeDigest(pub String);

/// One file as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Absolute path inside the container.
    pub path: String,
    /// Hex SHA-256 of its content; absent when there is no such file.
    pub sha256: Option<String>,
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
    /// The mount cannot be described.
    #[error("the overlay on {rootfs} cannot be stacked")]
    Topology {
        /// The root file system.
        rootfs: PathBuf,
        /// The reason.
        source: TopologyError,
    },
    /// Something else than one overlay is mounted there.
    #[error("{rootfs} has {found} mounted on it, expected an overlay or nothing")]
    Foreign {
        /// The root file system.
        rootfs: PathBuf,
        /// File system type found.
        found: String,
    },
    /// The kernel refused the mount.
    #[error("could not mount {options} on {rootfs}")]
    Mount {
        /// The root file system.
        rootfs: PathBuf,
        /// The options.
        options: String,
        /// The reason.
        source: io::Error,
    },
    /// The kernel refused to unmount.
    #[error("could not unmount {rootfs}")]
    Unmount {
        /// The root file system.
        rootfs: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The mount is not what was asked for.
    #[error("{rootfs} shows {found:?} after it was switched")]
    NotSwitched {
        /// The root file system.
        rootfs: PathBuf,
        /// What is mounted now.
        found: Box<super::topology::Topology>,
    },
}

/// Files whose digests are to be taken.
pub type Files<'a> = &'a [CheckpointedFile];
