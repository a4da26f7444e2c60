//! Dumps and restores under way: known on disk, so that whoever comes next waits for them, be it this process or one that
//! comes after it.

#![expect(clippy::disallowed_methods, reason = "waits for real processes to end")]

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use system::command::{HeldLock, Invocation, WhenLate};
use system::durable;
use system::process::ProcessIdentity;

use crate::lifecycle::error::RuntimeError;
use crate::model::WorkloadId;

/// Where dumps and restores under way are known. They do not outlive the boot, and neither does this directory.
const DIRECTORY: &str = "/run/update/helpers";

/// How often one is looked at.
const POLL: Duration = Duration::from_millis(5);

/// What is under way when this process was not there when it began.
const BEGUN_BEFORE: &str = "dump or restore";

/// The records of what is under way.
#[derive(Debug)]
pub(super) struct Helpers {
    directory: PathBuf,
}

impl Default for Helpers {
    fn default() -> Self {
        Self { directory: DIRECTORY.into() }
    }
}

impl Helpers {
    /// Records in another directory.
    pub(super) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn record(&self, id: &WorkloadId) -> PathBuf {
        self.directory.join(id.directory_name())
    }

    /// Makes a command one that moves a container's memory and must reach its end. Begin it only once what was begun
    /// before has ended ([`Helpers::settled`]).
    pub(super) fn moving_memory<'a>(
        &self,
        command: Invocation<'a>,
        id: &WorkloadId,
        limit: Duration,
        lock: Option<&'a HeldLock>,
    ) -> Result<Invocation<'a>, RuntimeError> {
        durable::make_directory(&self.directory)
            .map_err(|source| RuntimeError::Prepare { path: self.directory.clone(), source })?;
        Ok(command.limit(limit, WhenLate::Leave).holding(lock).known_at(self.record(id)))
    }

    /// Waits until none of this container is under way.
    pub(super) fn settled(&self, id: &WorkloadId, patience: Duration) -> Result<(), RuntimeError> {
        let record = self.record(id);
        let failed = |source| RuntimeError::Prepare { path: record.clone(), source };
        let helper: ProcessIdentity = match fs::read(&record) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let deadline = Instant::now() + patience;
        while helper.group_lives().map_err(failed)? {
            if Instant::now() >= deadline {
                let pid = helper.pid;
                return Err(RuntimeError::StillRunning {
                    action: BEGUN_BEFORE,
                    id: id.clone(),
                    pid,
                    waited: patience,
                });
            }
            std::thread::sleep(POLL);
        }
        durable::forget(&record).map_err(failed)
    }
}
