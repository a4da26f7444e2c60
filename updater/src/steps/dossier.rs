//! What stands beside a checkpoint: the container as it was, written before and after the dump.
//!
//! `before.json`, `after.json` and `return.json` in the checkpoint's directory, synced. The undo reads these and
//! not the step's receipt, so that it works when the power fails between the dump and the journal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use system::boot::Incarnation;
use system::durable;
use workloads::criu::images::Connection;
use workloads::files::rootfs::FileRecord;
use workloads::limits::knobs::CgroupRecord;
use workloads::model::{CheckpointDir, CheckpointStats, Container, Run, WorkloadId};

use crate::state::journal::TransactionId;

const RETURN: &str = "return.json";

/// The container just before it was taken down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// What the runtime said.
    pub container: Container,
    /// Its cgroup knobs.
    pub limits: CgroupRecord,
}

/// What the finished checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// What it cost.
    pub stats: CheckpointStats,
    /// The connections in it.
    pub connections: Vec<Connection>,
    /// Digests of the files in its root file system that its processes have open or mapped.
    pub files: Vec<FileRecord>,
}

/// How the container came back, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The boot, and the start of userspace, in which it did.
    #[serde(flatten)]
    pub during: Incarnation,
    /// By which way.
    pub way: Way,
    /// Which run of it this began; not known before it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// A way for a container to come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The runtime is about to be asked to restore it.
    Restoring,
    /// It runs with the memory of its checkpoint.
    Restored,
    /// It was started without that memory, which is in the checkpoint alone. An operator was told.
    StartedAnew,
}

/// Why a dossier cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DossierError {
    /// An input or output error.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{path} cannot be read")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The checkpoint directory of one container in one transaction.
#[derive(Debug, Clone)]
pub struct Dossier {
    dir: CheckpointDir,
}

impl Dossier {
    /// The dossier of this container in this transaction; nothing is made.
    pub fn new(checkpoints: &Path, id: &TransactionId, container: &WorkloadId) -> Self {
        Self::named(checkpoints, id.as_str(), container)
    }

    /// As [`Dossier::new`] with the transaction's name as text.
    pub fn named(checkpoints: &Path, transaction: &str, container: &WorkloadId) -> Self {
        Self { dir: CheckpointDir::new(checkpoints.join(transaction).join(container.directory_name())) }
    }

    /// Where the images are.
    pub fn images(&self) -> &CheckpointDir {
        &self.dir
    }

    /// Write what is known before the dump.
    ///
    /// # Errors
    /// [`DossierError::Io`].
    pub fn write_before(&self, before: &Before) -> Result<(), DossierError> {
        self.write("before.json", before)
    }

    /// Write what is known after the dump. Its presence means that the checkpoint is complete and on disk.
    ///
    /// # Errors
    /// [`DossierError::Io`].
    pub fn write_after(&self, after: &After) -> Result<(), DossierError> {
        self.write("after.json", after)
    }

    /// Write how the container comes back. Where that cannot be written nothing is known of it afterwards.
    ///
    /// # Errors
    /// [`DossierError::Io`].
    pub fn write_return(&self, back: &Return) -> Result<(), DossierError> {
        self.write(RETURN, back).inspect_err(|_| {
            // An older word would be a wrong one. Removing works on a full disk, too.
            let _ = fs::remove_file(self.dir.root().join(RETURN));
        })
    }

    /// How the container came back; `None` if it did not.
    ///
    /// # Errors
    /// [`DossierError`].
    pub fn come_back(&self) -> Result<Option<Return>, DossierError> {
        self.read(RETURN)
    }

    /// What was known before the dump; `None` if it was never written.
    ///
    /// # Errors
    /// [`DossierError`].
    pub fn before(&self) -> Result<Option<Before>, DossierError> {
        self.read("before.json")
    }

    /// What is known of the finished checkpoint; `None` if it was never finished.
    ///
    /// # Errors
    /// [`DossierError`].
    pub fn after(&self) -> Result<Option<After>, DossierError> {
        self.read("after.json")
    }

    /// Put everything written below this directory on disk.
    ///
    /// # Errors
    /// [`DossierError::Io`], for example when the disk is full.
    pub fn sync(&self) -> Result<(), DossierError> {
        let path = self.dir.root();
        durable::sync_file_system(path).map_err(|source| DossierError::Io {
            doing: "sync",
            path: path.to_owned(),
            source,
        })
    }

    /// Remove the directory and all images.
    ///
    /// # Errors
    /// [`DossierError::Io`].
    pub fn discard(&self) -> Result<(), DossierError> {
        let path = self.dir.root();
        durable::remove(path).map_err(|source| DossierError::Io {
            doing: "remove",
            path: path.to_owned(),
            source,
        })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DossierError> {
        let path = self.dir.root().join(name);
        let io = |doing| {
            let path = path.clone();
            move |source| DossierError::Io { doing, path, source }
        };
        durable::make_directory(self.dir.root()).map_err(io("make the directory of"))?;
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| DossierError::Damaged { path: path.clone(), source })?;
        durable::replace(&path, &bytes).map_err(io("write"))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DossierError> {
        let path = self.dir.root().join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| DossierError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DossierError::Io { doing: "read", path, source }),
        }
    }
}
