//! The life cycle of containers: one adapter for each runtime.

pub mod error;
pub mod runc;

use std::time::Duration;

use system::clock::Interrupt;

pub use self::error::RuntimeError;
pub use self::runc::Runc;
use crate::criu::images::CheckpointContent;
use crate::model::{
    CheckpointDir, CheckpointStats, Container, ContainerId, DumpBase, ExecOutcome, Listing, Pid, Restored,
};

/// The life cycle of containers.
pub trait ContainerRuntime {
    /// All containers that the runtime knows, by id. One that cannot be read is an entry, not an error.
    fn list(&self) -> Result<Listing, RuntimeError>;

    /// One container; `None` when the runtime does not know it (any more). A bundle that cannot be read is
    /// said by its [`NetworkPlace`].
    fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, RuntimeError>;

    /// Writes memory to `dir.pre()` while the container runs on.
    fn pre_dump(&self, id: &ContainerId, dir: &CheckpointDir) -> Result<(), RuntimeError>;

    /// Writes the container to `dir.full()` and ends it without a packet to its peers.
    ///
    /// On error the container runs on ([`error::AfterFailure`] says so when it is certain).
    /// CRIU's network lock stays behind: [`ConnectionHold::clear_checkpoint_lock`] removes it.
    fn checkpoint(
        &self,
        id: &ContainerId,
        dir: &CheckpointDir,
        base: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError>;

    /// What a finished checkpoint holds: connections, files, processes.
    fn content(&self, id: &ContainerId, dir: &CheckpointDir) -> Result<CheckpointContent, RuntimeError>;

    /// Brings a container back from `dir.full()` and proves that its processes live.
    ///
    /// The root file system must already be the one of the checkpoint. What a failed restore leaves
    /// in the runtime is removed, so that it can be tried again.
    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError>;

    /// Starts a container anew from its bundle, detached, with its standard streams on `/dev/null`.
    fn start(&self, container: &Container) -> Result<Pid, RuntimeError>;

    /// Ends a container: SIGTERM, after `patience` SIGKILL, then the runtime forgets it.
    fn stop(&self, id: &ContainerId, patience: Duration) -> Result<(), RuntimeError>;

    /// Runs a command inside the container; ends it when its time is over or somebody asks to stop.
    fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError>;
}
