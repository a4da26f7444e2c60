//! runc: the life cycle of containers through its command line.
//!
//! Invariants:
//! - A container is started and restored with its standard streams on `/dev/null`; what runc has to
//!   say comes from its `--log`.
//! - A dump and a restore are never killed: a half-dumped container is worse than a late one. Past their time they are
//!   reported as still running, and nothing is done to their container before they are known to have ended, be it by
//!   this process ([`Checkpointer::settled`]) or by one that comes after it.
//! - A dump, a restore and a start hold the host's lock for as long as they run.
//! - The images of a checkpoint are on disk, and marked complete, before [`checkpoint`] returns. What
//!   a pre-dump wrote is synced while the container still runs.
//! - A failed dump leaves the container running and a failed restore leaves nothing.
//!
//! What this does not do: root file systems, network locks, limits.
//!
//! [`checkpoint`]: Checkpointer::checkpoint

#![expect(clippy::disallowed_methods, reason = "waits for real processes to end")]

mod describe;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use system::clock::Interrupt;
use system::command::{CommandError, HeldLock, Invocation, WhenLate};

use crate::criu::images::{CheckpointContent, CheckpointedProcess};
use crate::lifecycle::checkpoints::{
    complete, forget_complete, fresh_directory, full_work, note_boot, read_complete, restore_work,
    restored_since_boot, sync_file_system, written_since_boot,
};
use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::helpers::Helpers;
use crate::lifecycle::{Checkpointer, Lifecycle, Patience, alive, came_back, can_come_back, exec_outcome};
use crate::model::{
    CgroupDriver, CheckpointDir, CheckpointStats, Container, ContainerStatus, DumpBase, ExecOutcome, Listing,
    Pid, Restored, WorkloadId,
};
use crate::processes::procfs;

/// How often a stopping container is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Deleted files up to this size travel inside the checkpoint. CRIU's default of 1 MiB refuses every
/// process whose library was replaced on disk by a package upgrade.
pub const GHOST_LIMIT: u64 = 64 << 20;

/// The runtime `runc`.
#[derive(Debug)]
pub struct Runc {
    program: PathBuf,
    root: PathBuf,
    helpers: Helpers,
    lock: Option<HeldLock>,
    patience: Patience,
}

impl Default for Runc {
    fn default() -> Self {
        Self::new("/run/runc")
    }
}

impl Runc {
    /// runc with its state under `root` (`runc --root`).
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            program: "runc".into(),
            root: root.into(),
            helpers: Helpers::default(),
            lock: None,
            patience: Patience::default(),
        }
    }

    /// The same with another program of the same command line, and another directory for what is under way.
    pub fn run_by(self, program: impl Into<PathBuf>, helpers: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), helpers: Helpers::at(helpers.into()), ..self }
    }

    /// The same with other limits.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Makes commands that change a container hold this lock while they run.
    pub fn holding(mut self, lock: HeldLock) -> Self {
        self.lock = Some(lock);
        self
    }

    fn command(&self) -> Invocation<'_> {
        Invocation::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .limit(self.patience.short, WhenLate::Kill)
    }

    /// A command that moves a container's memory and must reach its end. Begin it only once what was begun before
    /// has ended.
    fn moving_memory(&self, id: &WorkloadId) -> Result<Invocation<'_>, RuntimeError> {
        self.helpers.moving_memory(self.command(), id, self.patience.long, self.lock.as_ref())
    }

    fn known(&self, id: &WorkloadId) -> Result<Container, RuntimeError> {
        self.inspect(id)?.ok_or_else(|| RuntimeError::Unknown { id: id.clone() })
    }

    fn delete(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        let deleted = self.command().args(["delete", "--force", "--"]).arg(id.id.as_str()).output();
        match (deleted, self.inspect(id)?) {
            (_, None) => Ok(()),
            (Err(source), Some(_)) => Err(RuntimeError::Refused { action: "delete", id: id.clone(), source }),
            (Ok(_), Some(_)) => Err(RuntimeError::WillNotStop { id: id.clone(), after: self.patience.kill }),
        }
    }

    fn signal(&self, id: &WorkloadId, signal: &str) -> Result<(), RuntimeError> {
        let sent = self.command().args(["kill", "--"]).arg(id.id.as_str()).arg(signal).output();
        match sent {
            Ok(_) => Ok(()),
            // It may have ended by itself in the meantime.
            Err(source) => match self.inspect(id)?.map(|found| found.status) {
                None | Some(ContainerStatus::Stopped) => Ok(()),
                _ => Err(RuntimeError::Refused { action: "signal", id: id.clone(), source }),
            },
        }
    }

    fn ended_within(&self, id: &WorkloadId, patience: Duration) -> Result<Stopped, RuntimeError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.inspect(id)?.map(|found| found.status) {
                None | Some(ContainerStatus::Stopped) => return Ok(Stopped::Yes),
                Some(_) if Instant::now() >= deadline => return Ok(Stopped::No),
                Some(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// `runc checkpoint`, with CRIU's own words on failure.
    fn dump(
        &self,
        id: &WorkloadId,
        action: &'static str,
        images: &Path,
        work: &Path,
        more: &[&str],
    ) -> Result<(), RuntimeError> {
        for directory in [images, work] {
            fresh_directory(directory)?;
        }
        let settings = work.join("criu.conf");
        fs::write(&settings, format!("ghost-limit {GHOST_LIMIT}\n"))
            .map_err(|source| RuntimeError::Prepare { path: settings.clone(), source })?;
        note_boot(work)?;
        let run = self
            .moving_memory(id)?
            .env("CRIU_CONFIG_FILE", &settings)
            .arg("checkpoint")
            .args(["--tcp-established", "--file-locks"])
            .args(more)
            .arg("--image-path")
            .arg(images)
            .arg("--work-path")
            .arg(work)
            .arg("--")
            .arg(id.id.as_str())
            .output();
        run.map(drop).map_err(|source| self.criu_failure(action, id, &work.join("dump.log"), source))
    }

    fn criu_failure(
        &self,
        action: &'static str,
        id: &WorkloadId,
        log: &Path,
        source: CommandError,
    ) -> RuntimeError {
        RuntimeError::of_criu(action, id, log, source, || self.inspect(id))
    }

    fn restore_images(
        &self,
        container: &Container,
        dir: &CheckpointDir,
        expected: &[CheckpointedProcess],
    ) -> Result<Restored, RuntimeError> {
        let id = &container.id;
        let work = restore_work(dir);
        fresh_directory(&work)?;
        note_boot(&work)?;
        let run = made_by(self.moving_memory(id)?, container.cgroup_driver)
            .arg("restore")
            .args(["--detach", "--tcp-established", "--file-locks"])
            .arg("--bundle")
            .arg(&container.bundle)
            .arg("--image-path")
            .arg(dir.full())
            .arg("--work-path")
            .arg(&work)
            .arg("--")
            .arg(id.id.as_str())
            .speaking_by_log()
            .output();
        if let Err(source) = run {
            let error = self.criu_failure("restore", id, &work.join("restore.log"), source);
            // Only what is known to have ended leaves remains.
            if matches!(error, RuntimeError::Criu { .. }) {
                self.delete(id)?;
            }
            return Err(error);
        }
        came_back(&self.known(id)?, expected, restored_since_boot(dir))
    }
}

/// A container whose cgroup systemd makes is made through systemd again.
fn made_by(command: Invocation<'_>, driver: CgroupDriver) -> Invocation<'_> {
    match driver {
        CgroupDriver::Cgroupfs => command,
        CgroupDriver::Systemd => command.arg("--systemd-cgroup"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Yes,
    No,
}

impl Lifecycle for Runc {
    fn list(&self) -> Result<Listing, RuntimeError> {
        if !self.root.exists() {
            return system::command::find(&self.program.to_string_lossy())
                .map(|_| Listing::default())
                .ok_or_else(|| RuntimeError::List {
                    source: CommandError::Missing { program: self.program.display().to_string() },
                });
        }
        let output = self.command().args(["list", "--format", "json"]).output();
        let json = output.map_err(|source| RuntimeError::List { source })?;
        describe::containers(&json, &self.root)
    }

    fn inspect(&self, id: &WorkloadId) -> Result<Option<Container>, RuntimeError> {
        // `runc state` tells an unknown container from other trouble only by its prose.
        if !self.root.join(id.id.as_str()).join("state.json").exists() {
            return Ok(None);
        }
        let json = self.command().args(["state", "--"]).arg(id.id.as_str()).output();
        match json {
            Ok(json) => describe::container(&json, &self.root).map(Some),
            Err(_) if !self.root.join(id.id.as_str()).join("state.json").exists() => Ok(None),
            Err(source) => Err(RuntimeError::Refused { action: "inspect", id: id.clone(), source }),
        }
    }

    fn start(&self, container: &Container) -> Result<Pid, RuntimeError> {
        let id = &container.id;
        self.settled(id)?;
        match self.inspect(id)?.map(|found| found.status) {
            Some(ContainerStatus::Running) => {
                return alive("start", &self.known(id)?);
            }
            Some(_) => self.delete(id)?,
            None => {}
        }
        // Nothing is lost by ending a start half-way: whoever asked for it starts again.
        let run = made_by(self.command(), container.cgroup_driver)
            .limit(self.patience.long, WhenLate::Kill)
            .holding(self.lock.as_ref())
            .args(["run", "--detach", "--bundle"])
            .arg(&container.bundle)
            .arg("--")
            .arg(id.id.as_str())
            .speaking_by_log()
            .output();
        if let Err(source) = run {
            if !matches!(source, CommandError::Missing { .. }) {
                self.delete(id)?;
            }
            return Err(RuntimeError::Refused { action: "start", id: id.clone(), source });
        }
        alive("start", &self.known(id)?)
    }

    fn stop(&self, id: &WorkloadId, patience: Duration) -> Result<(), RuntimeError> {
        self.settled(id)?;
        match self.inspect(id)?.map(|found| found.status) {
            None => return Ok(()),
            Some(ContainerStatus::Running) if !patience.is_zero() => {
                self.signal(id, "TERM")?;
                if self.ended_within(id, patience)? == Stopped::Yes {
                    return self.delete(id);
                }
            }
            Some(_) => {}
        }
        self.signal(id, "KILL")?;
        match self.ended_within(id, self.patience.kill)? {
            Stopped::Yes => self.delete(id),
            Stopped::No => Err(RuntimeError::WillNotStop { id: id.clone(), after: self.patience.kill }),
        }
    }

    fn exec(
        &self,
        id: &WorkloadId,
        command: &[String],
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError> {
        let scratch = tempfile::tempdir()
            .map_err(|source| RuntimeError::Prepare { path: std::env::temp_dir(), source })?;
        let pid_file = scratch.path().join("pid");
        let run = self
            .command()
            .limit(timeout, WhenLate::Kill)
            .args(["exec", "--pid-file"])
            .arg(&pid_file)
            .arg("--")
            .arg(id.id.as_str())
            .args(command)
            .run_unless(interrupt);
        exec_outcome(id, run, || {
            let cgroup = self.inspect(id)?.and_then(|found| found.cgroup);
            procfs::kill_session(&pid_file, cgroup.as_deref());
            Ok(())
        })
    }
}

impl Checkpointer for Runc {
    fn settled(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        self.helpers.settled(id, self.patience.long)
    }

    fn pre_dump(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<(), RuntimeError> {
        self.settled(id)?;
        fresh_directory(dir.root())?;
        self.dump(id, "pre-dump", &dir.pre(), &dir.work().join("pre"), &["--pre-dump"])?;
        sync_file_system(&dir.pre())
    }

    fn checkpoint(
        &self,
        id: &WorkloadId,
        dir: &CheckpointDir,
        base: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError> {
        self.settled(id)?;
        let Some(container) = self.inspect(id)? else {
            // Repeated after a crash of this process: the dump had already succeeded.
            return match read_complete(id, dir)? {
                Some(done) => Ok(done.stats),
                None if written_since_boot(dir) => complete(id, dir),
                None => Err(RuntimeError::Unknown { id: id.clone() }),
            };
        };
        can_come_back(&container)?;
        forget_complete(dir)?;
        // Relative to the image path, by runc's rule.
        let parent: &[&str] = match base {
            DumpBase::Nothing => &[],
            DumpBase::PreDump => &["--parent-path", "../pre"],
        };
        self.dump(id, "checkpoint", &dir.full(), &full_work(dir), parent)?;
        complete(id, dir).map_err(|original| RuntimeError::Unfinished {
            id: id.clone(),
            original: Box::new(original),
            during_undo: self.restore_images(&container, dir, &[]).err().map(Box::new),
        })
    }

    fn content(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointContent, RuntimeError> {
        self.settled(id)?;
        match read_complete(id, dir)? {
            Some(complete) => Ok(complete.content),
            // This process ended between CRIU's end and the record of it.
            None if written_since_boot(dir) && self.inspect(id)?.is_none() => {
                complete(id, dir)?;
                CheckpointContent::read(&dir.full())
                    .map_err(|source| RuntimeError::Images { id: id.clone(), source })
            }
            None => Err(RuntimeError::Incomplete { id: id.clone(), path: dir.root().to_owned() }),
        }
    }

    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError> {
        let id = &container.id;
        let expected = self.content(id, dir)?.processes;
        match self.inspect(id)?.map(|found| found.status) {
            Some(ContainerStatus::Running) => {
                return came_back(&self.known(id)?, &expected, restored_since_boot(dir));
            }
            Some(_) => self.delete(id)?,
            None => {}
        }
        self.restore_images(container, dir, &expected)
    }
}
