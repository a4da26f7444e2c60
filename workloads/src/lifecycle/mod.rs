//! The life cycle of workloads: one adapter for each runtime.
//!
//! Two traits, because not every runtime can do both: whoever can start and stop something need not be able to bring
//! its memory back. An adapter serves the workloads of its own runtime; ids say which that is.

pub mod error;
pub mod runc;

use std::time::Duration;

use system::clock::Interrupt;

pub use self::error::RuntimeError;
pub use self::runc::Runc;
use crate::criu::images::CheckpointContent;
use crate::model::{
    CheckpointDir, CheckpointStats, Container, DumpBase, ExecOutcome, Listing, Pid, Restored, WorkloadId,
};

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

    /// Brings a container back from `dir.full()` and proves that its processes live.
    ///
    /// The root file system must already be the one of the checkpoint. What a failed restore leaves
    /// in the runtime is removed, so that it can be tried again.
    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError>;
}
