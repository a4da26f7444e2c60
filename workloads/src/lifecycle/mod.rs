//! The life cycle of workloads: one adapter for each runtime.
//!
//! Two traits, because not every runtime can do both: whoever can start and stop something need not be able to bring
//! its memory back. An adapter serves the workloads of its own runtime; ids say which that is.

mod checkpoints;
mod containerd;
pub mod docker;
mod engine;
pub mod error;
mod helpers;
mod inspected;
pub mod podman;
pub mod recreate;
mod rootless;
pub mod runc;
pub mod runtimes;
pub mod trial;

use std::time::Duration;

use system::clock::Interrupt;
use system::command::{CommandError, Finished};

pub use self::docker::Docker;
pub use self::error::RuntimeError;
pub use self::podman::Podman;
pub use self::recreate::{Recreation, Recreator};
pub use self::runc::Runc;
pub use self::runtimes::Runtimes;
use crate::criu::images::{CheckpointContent, CheckpointedProcess};
use crate::criu::obstacles::bars_the_way_back;
use crate::model::{
    CheckpointDir, CheckpointStats, Container, ContainerStatus, DumpBase, ExecOutcome, Image, Listing,
    Obstacle, ObstacleKind, Pid, Restored, WorkloadId,
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

/// On what terms a runtime starts, checkpoints and restores a container, beside what can be seen of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// What it does not do.
    pub obstacles: Vec<Obstacle>,
    /// What differs after it was started anew, one sentence each.
    pub changes: Vec<String>,
}

impl Terms {
    /// Whether the runtime keeps no checkpoints of anything.
    pub fn rule_out_checkpoints(&self) -> bool {
        self.obstacles.iter().any(|obstacle| obstacle.kind == ObstacleKind::NoCheckpoints)
    }
}

/// Starts and stops workloads, and looks at them.
pub trait Lifecycle {
    /// All containers that the runtime knows, by id. One that cannot be read is an entry, not an error.
    fn list(&self) -> Result<Listing, RuntimeError>;

    /// One container; `None` when the runtime does not know it (any more). A bundle that cannot be read is
    /// said by its [`NetworkPlace`](crate::model::NetworkPlace).
    fn inspect(&self, id: &WorkloadId) -> Result<Option<Container>, RuntimeError>;

    /// Starts a container anew from its bundle, detached, with its standard streams on `/dev/null`.
    fn start(&self, container: &Container) -> Result<Pid, RuntimeError>;

    /// Ends a container: SIGTERM, after `patience` SIGKILL, then the runtime forgets it.
    fn stop(&self, id: &WorkloadId, patience: Duration) -> Result<(), RuntimeError>;

    /// Runs a command inside the container; ends it when its time is over or somebody asks to stop.
    fn exec(
        &self,
        id: &WorkloadId,
        command: &[String],
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError>;

    /// What a container was made from; `None` where the runtime knows no images.
    fn image(&self, _id: &WorkloadId) -> Result<Option<Image>, RuntimeError> {
        Ok(None)
    }

    /// The runtime's own terms for a container that runs. A bare runtime has none.
    fn terms(&self, _container: &Container) -> Result<Terms, RuntimeError> {
        Ok(Terms::default())
    }
}

/// Writes the memory of workloads to disk, and brings it back.
///
/// A dump or restore that takes too long goes on ([`RuntimeError::StillRunning`]), and may take the container down, or
/// bring it up, at any moment. Every request here, and [`Lifecycle::start`] and [`Lifecycle::stop`], wait for its end
/// first. Whoever judges or removes what it works on has to ask [`Checkpointer::settled`].
pub trait Checkpointer {
    /// Waits until no dump or restore of this container is under way, whoever began it.
    ///
    /// # Errors
    /// [`RuntimeError::StillRunning`] if it does not end.
    fn settled(&self, id: &WorkloadId) -> Result<(), RuntimeError>;

    /// Writes memory to `dir.pre()` while the container runs on.
    fn pre_dump(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<(), RuntimeError>;

    /// Writes the container to `dir.full()` and ends it without a packet to its peers.
    ///
    /// On error the container runs on ([`error::AfterFailure`] says so when it is certain). CRIU's network lock
    /// stays behind: [`clear_checkpoint_lock`](crate::network::ConnectionHold::clear_checkpoint_lock) removes it.
    fn checkpoint(
        &self,
        id: &WorkloadId,
        dir: &CheckpointDir,
        base: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError>;

    /// What a finished checkpoint holds: connections, files, processes.
    fn content(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointContent, RuntimeError>;

    /// Brings a container back from `dir.full()` and proves that all of its processes came back.
    ///
    /// The root file system must already be the one of the checkpoint. What a failed restore leaves
    /// in the runtime is removed, so that it can be tried again.
    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError>;
}

/// What became of a command that a runtime's program ran inside a container. Killing that program leaves what it started
/// inside: `end` ends that.
fn exec_outcome(
    id: &WorkloadId,
    run: Result<Finished, CommandError>,
    end: impl FnOnce() -> Result<(), RuntimeError>,
) -> Result<ExecOutcome, RuntimeError> {
    let cut_short = match run {
        Ok(done) => {
            let status = done.status.code().unwrap_or(-1);
            return Ok(ExecOutcome::Exited { status, stderr_tail: done.stderr_tail });
        }
        Err(CommandError::Killed { .. }) => ExecOutcome::TimedOut,
        Err(CommandError::Interrupted { .. }) => ExecOutcome::Interrupted,
        Err(source) => return Err(RuntimeError::Refused { action: "exec in", id: id.clone(), source }),
    };
    end()?;
    Ok(cut_short)
}

/// Refuses a dump that would succeed and leave nothing that can be restored.
fn can_come_back(container: &Container) -> Result<(), RuntimeError> {
    match bars_the_way_back(container) {
        None => Ok(()),
        Some(obstacle) => {
            Err(RuntimeError::NoWayBack { id: container.id.clone(), obstacle: Box::new(obstacle) })
        }
    }
}

/// Proof that a container runs.
fn alive(action: &'static str, found: &Container) -> Result<Pid, RuntimeError> {
    match (found.status, found.init) {
        (ContainerStatus::Running, Some(init)) => Ok(init),
        _ => Err(not_alive(action, found, Vec::new())),
    }
}

/// Proof that a container came back with these processes.
///
/// They go on as soon as they are back, and some end before anybody can look: every sleep that CRIU interrupted returns
/// EINTR, which is the end for some programs (`sleep` of BusyBox 1.37). So a process that does not live is missing only
/// if there is no word of CRIU's (`finished`: how long it took) that it brought all of them to where they go on. The
/// first one has to live in any case.
fn came_back(
    found: &Container,
    expected: &[CheckpointedProcess],
    finished: Option<Duration>,
) -> Result<Restored, RuntimeError> {
    let living = found.cgroup.as_deref().map(procfs::in_cgroup).unwrap_or_default();
    let ended = missing(expected, &living);
    match alive("restore", found) {
        Ok(init) if ended.is_empty() || finished.is_some() => {
            Ok(Restored { init, processes: living.len(), ended })
        }
        _ => Err(not_alive("restore", found, ended)),
    }
}

fn not_alive(action: &'static str, found: &Container, missing: Vec<String>) -> RuntimeError {
    let status = format!("{:?}", found.status).to_lowercase();
    RuntimeError::NotAlive { action, id: found.id.clone(), found: status, missing }
}

/// Who of these does not live. A process is its number in the container's namespace; what it calls itself may be cut
/// anywhere, and it may have called itself something else since.
fn missing(expected: &[CheckpointedProcess], living: &[Process]) -> Vec<String> {
    let lives = |one: &&CheckpointedProcess| living.iter().any(|process| process.inner == one.pid);
    expected.iter().filter(|one| !lives(one)).map(ToString::to_string).collect()
}
