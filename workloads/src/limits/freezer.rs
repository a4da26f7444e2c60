//! The cgroup v2 freezer, and the promise that what was frozen is thawed.
//!
//! A freeze wakes interruptible sleepers and takes them to the border of user space, where a
//! transition can move them. It stops a whole container, so:
//!
//! - [`hold`] is the only way to freeze. It writes a [`FreezeLease`] first and returns a [`Held`],
//!   which thaws when it is dropped, also by a panic.
//! - If the process is killed in between, [`LeaseStore::thaw_outstanding`] thaws what it left.
//! - A group that somebody else has frozen is left alone: thawing it later would undo their work.
//!
//! Leases are files on a tmpfs (`/run/update/frozen`), not in the journal: a frozen group does not
//! outlive the boot, and neither should the record of it.
//!
//! Files used: `cgroup.freeze`, `cgroup.events` (`Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::Sha256;
use serde::{Deserialize, Serialize};
use system::clock::Clock;
use system::kernel_file::KernelFileError;

use crate::model::CgroupPath;

/// A request to the freezer that failed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The control group disappeared, usually because its container ended.
    #[error("control group {cgroup} is gone")]
    CgroupGone {
        /// The group.
        cgroup: CgroupPath,
    },
    /// A file of cgroupfs, or a lease, could not be used.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// A record of a frozen group could not be kept or dropped.
    #[error("cannot keep the record of a frozen control group in {path}")]
    Lease {
        /// The record.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Stops and continues the tasks of a control group.
pub trait Freezer {
    /// How far the group is.
    ///
    /// # Errors
    /// [`FreezeError::CgroupGone`], [`FreezeError::File`].
    fn state(&self, cgroup: &CgroupPath) -> Result<FreezeState, FreezeError>;

    /// Begins to freeze the group and everything below it; does not wait.
    ///
    /// # Errors
    /// [`FreezeError::CgroupGone`], [`FreezeError::File`].
    fn freeze(&self, cgroup: &CgroupPath) -> Result<(), FreezeError>;

    /// Lets the group go on.
    ///
    /// # Errors
    /// [`FreezeError::CgroupGone`], [`FreezeError::File`].
    fn thaw(&self, cgroup: &CgroupPath) -> Result<(), FreezeError>;
}

/// Whether a group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreezeState {
    /// It runs.
    Thawed,
    /// A freeze was asked for; not every task has stopped.
    Freezing,
    /// Every task has stopped.
    Frozen,
}

/// The kernel's freezer.
#[derive(Clone, Debug)]
pub struct CgroupFreezer {
    mount: PathBuf,
}

impl CgroupFreezer {
    /// With the unified hierarchy mounted on `mount`, normally `/sys/fs/cgroup`.
    #[must_use]
    pub fn new(mount: impl Into<PathBuf>) -> Self {
        Self { mount: mount.into() }
    }

    fn read(&self, cgroup: &CgroupPath, file: &str) -> Result<String, FreezeError> {
        let path = cgroup.below(&self.mount).join(file);
        fs::read_to_string(&path)
            .map_err(|source| gone_or(cgroup, source, |source| KernelFileError::Read { path, source }.into()))
    }

    fn write(&self, cgroup: &CgroupPath, value: &str) -> Result<(), FreezeError> {
        let path = cgroup.below(&self.mount).join("cgroup.freeze");
        fs::write(&path, value).map_err(|source| {
            gone_or(cgroup, source, |source| {
                KernelFileError::Write { path, value: value.to_owned(), source }.into()
            })
        })
    }
}

/// `ENODEV` is what an open file of a removed group answers, `ENOENT` what its path does.
fn gone_or(
    cgroup: &CgroupPath,
    source: io::Error,
    other: impl FnOnce(io::Error) -> FreezeError,
) -> FreezeError {
    match source.raw_os_error() {
        Some(nix::libc::ENOENT | nix::libc::ENODEV) => FreezeError::CgroupGone { cgroup: cgroup.clone() },
        _ => other(source),
    }
}

impl Freezer for CgroupFreezer {
    fn state(&self, cgroup: &CgroupPath) -> Result<FreezeState, FreezeError> {
        let events = self.read(cgroup, "cgroup.events")?;
        if events.lines().any(|line| line == "frozen 1") {
            return Ok(FreezeState::Frozen);
        }
        match self.read(cgroup, "cgroup.freeze")?.trim_end() {
            "0" => Ok(FreezeState::Thawed),
            "1" => Ok(FreezeState::Freezing),
            found => Err(KernelFileError::Format {
                path: cgroup.below(&self.mount).join("cgroup.freeze"),
                expected: "0 or 1",
                found: found.chars().take(64).collect(),
            }
            .into()),
        }
    }

    fn freeze(&self, cgroup: &CgroupPath) -> Result<(), FreezeError> {
        self.write(cgroup, "1")
    }

    fn thaw(&self, cgroup: &CgroupPath) -> Result<(), FreezeError> {
        self.write(cgroup, "0")
    }
}

/// A note that this program has frozen a group and owes it a thaw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeLease {
    /// The group.
    pub cgroup: CgroupPath,
}

/// The leases of this host, one file each.
#[derive(Clone, Debug)]
pub struct LeaseStore {
    directory: PathBuf,
}

impl LeaseStore {
    /// Kept in `directory`, which is made when it is needed and must not survive a reboot.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The leases that nobody has given back.
    ///
    /// # Errors
    /// [`FreezeError::Lease`], [`FreezeError::File`] for a file that is not a lease.
    pub fn outstanding(&self) -> Result<Vec<FreezeLease>, FreezeError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FreezeError::Lease { path: self.directory.clone(), source }),
        };
        let mut leases = Vec::new();
        for entry in entries {
            let path =
                entry.map_err(|source| FreezeError::Lease { path: self.directory.clone(), source })?.path();
            let text = fs::read_to_string(&path)
                .map_err(|source| FreezeError::Lease { path: path.clone(), source })?;
            // The text is written in one write to a new file; an empty one means that the writer
            // died before it froze anything.
            if text.is_empty() {
                self.forget(&path)?;
                continue;
            }
            leases.push(serde_json::from_str(&text).map_err(|_| KernelFileError::Format {
                path,
                expected: "a freeze lease",
                found: text.chars().take(64).collect(),
            })?);
        }
        Ok(leases)
    }

    /// Thaws whatever a killed process left frozen, and returns what that was. A group that is gone
    /// needs no thaw.
    ///
    /// # Errors
    /// Those of [`Self::outstanding`] and [`Freezer::thaw`].
    pub fn thaw_outstanding(&self, freezer: &dyn Freezer) -> Result<Vec<FreezeLease>, FreezeError> {
        let leases = self.outstanding()?;
        for lease in &leases {
            self.give_back(lease, freezer)?;
        }
        Ok(leases)
    }

    fn take(&self, cgroup: &CgroupPath) -> Result<FreezeLease, FreezeError> {
        let lease = FreezeLease { cgroup: cgroup.clone() };
        let path = self.path(cgroup);
        let failed = |source| FreezeError::Lease { path: path.clone(), source };
        fs::create_dir_all(&self.directory).map_err(failed)?;
        let text = serde_json::to_string(&lease).map_err(|error| failed(error.into()))?;
        fs::write(&path, text).map_err(failed)?;
        Ok(lease)
    }

    fn give_back(&self, lease: &FreezeLease, freezer: &dyn Freezer) -> Result<(), FreezeError> {
        match freezer.thaw(&lease.cgroup) {
            Ok(()) | Err(FreezeError::CgroupGone { .. }) => self.forget(&self.path(&lease.cgroup)),
            Err(error) => Err(error),
        }
    }

    fn forget(&self, path: &Path) -> Result<(), FreezeError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(FreezeError::Lease { path: path.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    fn path(&self, cgroup: &CgroupPath) -> PathBuf {
        // A digest, because a group's path can be longer than a file name; the path itself is inside.
        self.directory.join(format!("{}.json", Sha256::of(cgroup.as_str().as_bytes())))
    }
}

/// A group that this program has frozen. Dropping it thaws the group and gives the lease back.
pub struct Held<'a> {
    lease: FreezeLease,
    freezer: &'a dyn Freezer,
    leases: &'a LeaseStore,
    thawed: Thawed,
}

enum Thawed {
    NotYet,
    Done,
}

/// Begins to freeze a group that runs. `Ok(None)` when somebody else has frozen it already.
///
/// # Errors
/// [`FreezeError::Lease`] when the lease cannot be recorded (nothing was frozen then), and those of
/// [`Freezer`].
pub fn hold<'a>(
    cgroup: &CgroupPath,
    freezer: &'a dyn Freezer,
    leases: &'a LeaseStore,
) -> Result<Option<Held<'a>>, FreezeError> {
    if freezer.state(cgroup)? != FreezeState::Thawed {
        return Ok(None);
    }
    let held = Held { lease: leases.take(cgroup)?, freezer, leases, thawed: Thawed::NotYet };
    freezer.freeze(cgroup)?;
    Ok(Some(held))
}

impl Held<'_> {
    /// Waits until every task has stopped, at most `limit`, and tells how far the group got.
    ///
    /// # Errors
    /// Those of [`Freezer::state`].
    pub fn wait_frozen(&self, clock: &dyn Clock, limit: Duration) -> Result<FreezeState, FreezeError> {
        let begun = clock.elapsed();
        loop {
            let state = self.freezer.state(&self.lease.cgroup)?;
            if state == FreezeState::Frozen || clock.elapsed() - begun >= limit {
                return Ok(state);
            }
            clock.sleep(POLL);
        }
    }

    /// Thaws now, and tells if that failed.
    ///
    /// # Errors
    /// Those of [`Freezer::thaw`]; the lease stays then.
    pub fn thaw(mut self) -> Result<(), FreezeError> {
        self.thawed = Thawed::Done;
        self.leases.give_back(&self.lease, self.freezer)
    }
}

/// How often a freeze is looked at; a container is stopped meanwhile, so this is short.
const POLL: Duration = Duration::from_millis(1);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Thawed::NotYet = self.thawed
            && let Err(error) = self.leases.give_back(&self.lease, self.freezer)
        {
            tracing::error!(cgroup = %self.lease.cgroup, %error, "could not thaw; `update resume` will try again");
        }
    }
}
