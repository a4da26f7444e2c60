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
mod images;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use system::clock::Interrupt;
use system::command::{CommandError, HeldLock, Invocation, WhenLate};
use system::durable;
use system::process::ProcessIdentity;

use self::images::{
    BOOT_ID, Complete, forget_complete, fresh_directory, full_work, inventory, read_complete,
    sync_file_system, write_complete, written_since_boot,
};
use crate::criu::images::{CheckpointContent, CheckpointedProcess, dump_stats, last_errors};
use crate::lifecycle::error::{AfterFailure, RuntimeError};
use crate::lifecycle::{Checkpointer, Lifecycle};
use crate::model::{
    CgroupDriver, CheckpointDir, CheckpointStats, Container, ContainerStatus, DumpBase, ExecOutcome, Listing,
    Pid, Restored, WorkloadId,
};
use crate::processes::procfs;
use crate::processes::procfs::Process;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Listing and killing are immediate; a minute covers a host that thrashes. Past it they are killed.
    pub short: Duration,
    /// A dump or restore moves all of a container's memory. Past this it is reported; whoever comes next waits for it
    /// as long again. A start that takes longer is ended.
    pub long: Duration,
    /// How long a killed container may take to disappear. A task in uninterruptible sleep takes longer.
    pub kill: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let [short, long, kill] = [60, 900, 20].map(Duration::from_secs);
        Self { short, long, kill }
    }
}

/// Where dumps and restores under way are known. They do not outlive the boot, and neither does this directory.
const HELPERS: &str = "/run/update/helpers";

/// How often a stopping container is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How many of CRIU's error lines an error carries: the cause and its consequences up the stack.
const CRIU_LINES: usize = 6;

/// Deleted files up to this size travel inside the checkpoint. CRIU's default of 1 MiB refuses every
/// process whose library was replaced on disk by a package upgrade.
pub const GHOST_LIMIT: u64 = 64 << 20;

/// The runtime `runc`.
#[derive(Debug)]
pub struct Runc {
    program: PathBuf,
    root: PathBuf,
    helpers: PathBuf,
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
            helpers: HELPERS.into(),
            lock: None,
            patience: Patience::default(),
        }
    }

    /// The same with another program of the same command line, and another directory for what is under way.
    pub fn run_by(self, program: impl Into<PathBuf>, helpers: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), helpers: helpers.into(), ..self }
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
    /// has ended ([`Runc::settled`]).
    fn moving_memory(&self, id: &WorkloadId) -> Result<Invocation<'_>, RuntimeError> {
        let record = self.helper(id);
        durable::make_directory(&self.helpers)
            .map_err(|source| RuntimeError::Prepare { path: self.helpers.clone(), source })?;
        Ok(self
            .command()
            .limit(self.patience.long, WhenLate::Leave)
            .holding(self.lock.as_ref())
            .known_at(record))
    }

    /// Where the dump or restore of a container that is under way is known.
    fn helper(&self, id: &WorkloadId) -> PathBuf {
        self.helpers.join(id.directory_name())
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
            .and_then(|()| fs::copy(BOOT_ID, work.join("boot-id")))
            .map_err(|source| RuntimeError::Prepare { path: settings.clone(), source })?;
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
        match source {
            CommandError::StillRunning { pid, limit, .. } => {
                return RuntimeError::StillRunning { action, id: id.clone(), pid, waited: limit };
            }
            CommandError::Missing { .. } => {
                return RuntimeError::Refused { action, id: id.clone(), source };
            }
            _ => {}
        }
        let state = match self.inspect(id) {
            Ok(Some(found)) if found.status == ContainerStatus::Running => AfterFailure::StillRunning,
            _ => AfterFailure::Gone,
        };
        let written = fs::read(log).unwrap_or_default();
        let criu = last_errors(&String::from_utf8_lossy(&written), CRIU_LINES);
        RuntimeError::Criu { action, id: id.clone(), criu, state, source: Box::new(source) }
    }

    /// Proof that a container runs and has these processes.
    fn proven_alive(
        &self,
        action: &'static str,
        id: &WorkloadId,
        expected: &[CheckpointedProcess],
    ) -> Result<Restored, RuntimeError> {
        let found = self.known(id)?;
        let living = found.cgroup.as_deref().map(procfs::in_cgroup).unwrap_or_default();
        let missing = missing(expected, &living);
        match (found.status, found.init) {
            (ContainerStatus::Running, Some(init)) if missing.is_empty() => {
                Ok(Restored { init, processes: living.len() })
            }
            (status, _) => {
                let found = format!("{status:?}").to_lowercase();
                Err(RuntimeError::NotAlive { action, id: id.clone(), found, missing })
            }
        }
    }

    /// What is left to do once CRIU has written everything and the container is gone.
    fn complete(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointStats, RuntimeError> {
        let unusable = |source| RuntimeError::Images { id: id.clone(), source };
        let stats = dump_stats(&full_work(dir)).map_err(unusable)?;
        let content = CheckpointContent::read(&dir.full()).map_err(unusable)?;
        sync_file_system(&dir.full())?;
        write_complete(dir, &Complete { stats, content, inventory: Some(inventory(dir)?) })?;
        Ok(stats)
    }

    fn restore_images(
        &self,
        container: &Container,
        dir: &CheckpointDir,
        expected: &[CheckpointedProcess],
    ) -> Result<Restored, RuntimeError> {
        let id = &container.id;
        let work = dir.work().join("restore");
        fresh_directory(&work)?;
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
        self.proven_alive("restore", id, expected)
    }
}

/// Who of these does not live. A process is its number in the container's namespace; what it calls itself may be cut
/// anywhere, and it may have called itself something else since.
fn missing(expected: &[CheckpointedProcess], living: &[Process]) -> Vec<String> {
    let lives = |one: &&CheckpointedProcess| living.iter().any(|process| process.inner == one.pid);
    expected.iter().filter(|one| !lives(one)).map(ToString::to_string).collect()
}

/// What is under way when this process was not there when it began.
const BEGUN_BEFORE: &str = "dump or restore";

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
                return self.proven_alive("start", id, &[]).map(|alive| alive.init);
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
        self.proven_alive("start", id, &[]).map(|alive| alive.init)
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
        let refused = |source| RuntimeError::Refused { action: "exec in", id: id.clone(), source };
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
        match run {
            Ok(done) => Ok(ExecOutcome::Exited {
                status: done.status.code().unwrap_or(-1),
                stderr_tail: done.stderr_tail,
            }),
            Err(ended @ (CommandError::Killed { .. } | CommandError::Interrupted { .. })) => {
                // Killing runc leaves what it started inside the container.
                let cgroup = self.inspect(id)?.and_then(|found| found.cgroup);
                procfs::kill_session(&pid_file, cgroup.as_deref());
                Ok(match ended {
                    CommandError::Interrupted { .. } => ExecOutcome::Interrupted,
                    _ => ExecOutcome::TimedOut,
                })
            }
            Err(source) => Err(refused(source)),
        }
    }
}

impl Checkpointer for Runc {
    fn settled(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        let record = self.helper(id);
        let failed = |source| RuntimeError::Prepare { path: record.clone(), source };
        let helper: ProcessIdentity = match fs::read(&record) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let deadline = Instant::now() + self.patience.long;
        while helper.group_lives().map_err(failed)? {
            if Instant::now() >= deadline {
                let (pid, waited) = (helper.pid, self.patience.long);
                return Err(RuntimeError::StillRunning { action: BEGUN_BEFORE, id: id.clone(), pid, waited });
            }
            std::thread::sleep(POLL);
        }
        durable::forget(&record).map_err(failed)
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
                None if written_since_boot(dir) => self.complete(id, dir),
                None => Err(RuntimeError::Unknown { id: id.clone() }),
            };
        };
        forget_complete(dir)?;
        // Relative to the image path, by runc's rule.
        let parent: &[&str] = match base {
            DumpBase::Nothing => &[],
            DumpBase::PreDump => &["--parent-path", "../pre"],
        };
        self.dump(id, "checkpoint", &dir.full(), &full_work(dir), parent)?;
        self.complete(id, dir).map_err(|original| RuntimeError::Unfinished {
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
                self.complete(id, dir)?;
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
            Some(ContainerStatus::Running) => return self.proven_alive("restore", id, &expected),
            Some(_) => self.delete(id)?,
            None => {}
        }
        self.restore_images(container, dir, &expected)
    }
}
