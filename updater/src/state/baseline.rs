//! What this host should have, now and after its next boot: livepatches, root file systems and packages.
//!
//! The rows change only together with a commit step (see [`crate::state::journal`]), so they always
//! describe the state to which the last transaction was committed. `update resume` at boot makes the host
//! agree with them.

use std::path::PathBuf;

use manifests::{KernelRelease, ModuleName, PackageVersion, Sha256};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use workloads::model::{Topology, WorkloadId};
use workloads::packages::PackageId;

use crate::plan::{Action, Plan, Undo};
use crate::state::journal::{Journal, JournalError, TransactionId, decode, encode};

/// A livepatch that should be live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Livepatch {
    /// The module.
    pub module: ModuleName,
    /// Its bytes in the store.
    pub payload: Sha256,
    /// The kernel that it is for; another one does not get it.
    pub kernel: KernelRelease,
    /// How long its transition may take, in milliseconds.
    pub deadline_ms: u64,
}

/// A root file system that should be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The container.
    pub container: WorkloadId,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Where to mount.
    pub mount_point: PathBuf,
    /// What to mount.
    pub topology: Topology,
}

impl Rootfs {
    /// The layers of this program that are in it: directories of the store are named by their content.
    pub fn layers(&self) -> impl Iterator<Item = Sha256> {
        let lower = self.topology.overlay().into_iter().flat_map(|overlay| &overlay.lower);
        lower.filter_map(|directory| directory.file_name()?.to_str()?.parse().ok())
    }
}

/// A package that should be installed. A later version is somebody else's upgrade, and as good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Which.
    #[serde(flatten)]
    pub package: PackageId,
    /// The version that was installed.
    pub version: PackageVersion,
    /// Its file in the store.
    pub payload: Sha256,
}

/// One change of the baseline, written with the commit event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaselineChange {
    /// The livepatch should be live.
    AddLivepatch(Livepatch),
    /// No livepatch of this name should be live.
    RemoveLivepatch(ModuleName),
    /// The root file system should be mounted this way.
    SetRootfs(Rootfs),
    /// Nothing is to be mounted for this container: it has other files, which its engine looks after.
    ForgetRootfs(WorkloadId),
    /// The package should be installed in this version.
    SetPackage(Package),
}

impl BaselineChange {
    /// What committing `plan` changes.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let mut changes = Vec::new();
        for step in &plan.steps {
            match (&step.action, &step.undo) {
                (
                    Action::LoadLivepatch { module, payload, kernel },
                    Undo::UnloadLivepatch { deadline, reload, .. },
                ) => {
                    changes.extend(reload.iter().map(|old| Self::RemoveLivepatch(old.module.clone())));
                    changes.push(Self::AddLivepatch(Livepatch {
                        module: module.clone(),
                        payload: *payload,
                        kernel: kernel.clone(),
                        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
                    }));
                }
                (Action::RemoveLivepatch { module, .. }, _) => {
                    changes.push(Self::RemoveLivepatch(module.clone()))
                }
                (Action::SwitchRootfs { container, to }, _) => {
                    changes.extend(plan.container(container).map(|planned| {
                        Self::SetRootfs(Rootfs {
                            container: container.clone(),
                            bundle: planned.container.bundle.clone(),
                            mount_point: planned.container.rootfs.clone(),
                            topology: to.clone(),
                        })
                    }));
                }
                (Action::ExchangeContainers { container, .. }, _) => {
                    changes.push(Self::ForgetRootfs(container.clone()));
                }
                (Action::InstallPackages { packages }, _) => {
                    changes.extend(packages.iter().map(|switch| {
                        Self::SetPackage(Package {
                            package: switch.package.clone(),
                            version: switch.to.version.clone(),
                            payload: switch.to.payload,
                        })
                    }));
                }
                _ => {}
            }
        }
        changes
    }

    pub(crate) fn write(&self, db: &rusqlite::Transaction<'_>, tx: &TransactionId) -> rusqlite::Result<()> {
        match self {
            Self::AddLivepatch(livepatch) => {
                // Only an operator's word brings a livepatch from quarantine as far as a commit.
                db.execute(
                    "DELETE FROM quarantine WHERE digest = ?1",
                    params![livepatch.payload.to_string()],
                )?;
                db.execute(
                    "INSERT OR REPLACE INTO baseline_livepatches (module, value, tx) VALUES (?1, ?2, ?3)",
                    params![livepatch.module.as_str(), encode(livepatch), tx.as_str()],
                )
            }
            Self::RemoveLivepatch(module) => {
                db.execute("DELETE FROM baseline_livepatches WHERE module = ?1", params![module.as_str()])
            }
            Self::ForgetRootfs(container) => {
                db.execute("DELETE FROM baseline_rootfs WHERE container = ?1", params![container.to_string()])
            }
            Self::SetRootfs(rootfs) => db.execute(
                "INSERT OR REPLACE INTO baseline_rootfs (container, value, tx) VALUES (?1, ?2, ?3)",
                params![rootfs.container.to_string(), encode(rootfs), tx.as_str()],
            ),
            Self::SetPackage(package) => db.execute(
                "INSERT OR REPLACE INTO baseline_packages (package, value, tx) VALUES (?1, ?2, ?3)",
                params![package.package.to_string(), encode(package), tx.as_str()],
            ),
        }
        .map(drop)
    }
}

/// The whole baseline.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Baseline {
    /// In the order in which they were loaded.
    pub livepatches: Vec<Livepatch>,
    /// By container.
    pub rootfs: Vec<Rootfs>,
    /// By package.
    pub packages: Vec<Package>,
}

impl Baseline {
    /// Read it.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    pub fn read(journal: &Journal) -> Result<Self, JournalError> {
        let rows = |table: &'static str, order: &'static str| {
            journal.read("read the baseline", |db| {
                db.prepare(&format!("SELECT value FROM {table} ORDER BY {order}"))?
                    .query_map([], |row| row.get::<_, String>(0))?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
        };
        let livepatches = rows("baseline_livepatches", "rowid")?;
        let rootfs = rows("baseline_rootfs", "container")?;
        let packages = rows("baseline_packages", "package")?;
        Ok(Self {
            livepatches: livepatches
                .iter()
                .map(|text| decode("baseline livepatch", text))
                .collect::<Result<_, _>>()?,
            rootfs: rootfs
                .iter()
                .map(|text| decode("baseline root file system", text))
                .collect::<Result<_, _>>()?,
            packages: packages
                .iter()
                .map(|text| decode("baseline package", text))
                .collect::<Result<_, _>>()?,
        })
    }
}
