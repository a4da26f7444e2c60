//! Containers: what runs, what it maps, whether it can be checkpointed, and every change made to it.
//!
//! The executor sees only the narrow traits below.
//!
//! | trait | question or change | adapter |
//! |---|---|---|
//! | [`ContainerRuntime`] | life cycle: list, dump, restore, start, stop, exec | [`runc`] |
//! | [`RootfsMounts`] | which directories make up a root file system | [`rootfs`] |
//! | [`ConnectionHold`] | packets of checkpointed connections | [`hold`] |
//! | [`Layers`] | fix layers, unpacked | [`layer`] |
//! | [`Limits`] | cgroup knobs | [`cgroup`] |
//! | [`Prober`] | is the new version any good | [`probe`] |
//! | [`Observer`] | who has mapped a file at fault ([`affected`]), what stands in the way of a checkpoint ([`dumpability`]) | [`observe`] |
//!
//! Looking at the whole host, changing nothing: [`scan`] (who still runs replaced or vulnerable files).
//!
//! Values and pure parts: [`container`] (identity and state), [`topology`] (stacking directories),
//! [`images`] (CRIU's image files), [`obstacle`], [`error`].
//!
//! Invariants:
//! - Every request may be repeated: asking for a state that already holds is success.
//! - External programs are run from [`command`] only; the end of their stderr is in the error.
//! - Nothing here decides: which container, in which order and what to do on failure is the plan's.

pub mod affected;
mod buildid;
pub mod cgroup;
pub mod command;
pub mod container;
pub mod dumpability;
pub mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod hold;
pub mod images;
pub mod layer;
mod mapping;
mod mountinfo;
mod netns;
pub mod observe;
pub mod obstacle;
pub mod probe;
pub mod process;
pub mod rootfs;
pub mod runc;
pub mod scan;
pub mod topology;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use manifests::{FileIdentity, LayerFormat, Probe, Sha256};

use crate::host::Interrupt;

pub use affected::Match;
pub use cgroup::{CgroupError, CgroupLimits, CgroupRecord, KnobDifference};
pub use command::HeldLock;
pub use container::{
    CgroupDriver, CheckpointDir, CheckpointStats, Container, ContainerId, ContainerStatus, DumpBase,
    ExecOutcome, Listing, NetworkPlace, Pid, Restored, Unreadable,
};
pub use error::RuntimeError;
pub use hold::{Farewell, HoldError, HoldName, LeftoverLock, NftHold};
pub use images::{CheckpointContent, CheckpointedFile, CheckpointedProcess, Connection, FilePlace};
pub use layer::{Layer, LayerError, LayerStore};
pub use observe::Procfs;
pub use obstacle::{Effect, Obstacle, ObstacleKind, ObstacleProcess};
pub use probe::{ProbeError, ProbeSite, Probes};
pub use rootfs::{FileRecord, LayerConflict, OverlayMounts, RootfsError, Switched, TreeDigest};
pub use runc::Runc;
pub use topology::{FreshUpper, Overlay, Topology, TopologyError};

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

/// Root file systems on the host's side.
pub trait RootfsMounts {
    /// What is mounted on `rootfs` now.
    fn current(&self, rootfs: &Path) -> Result<Topology, RootfsError>;

    /// Places where a layer's directory would hide something that is not a directory, such as a
    /// link `/lib` to `usr/lib`. Look before anything is stopped.
    fn conflicts(&self, rootfs: &Path, layer: &Layer) -> Result<Vec<LayerConflict>, RootfsError>;

    /// Makes the directories that a trial writes to, empty, with the owners and modes that `rootfs`
    /// shows now for its root and for the directories that the layers only imply.
    fn prepare(&self, rootfs: &Path, layers: &[Layer], fresh: &FreshUpper) -> Result<(), RootfsError>;

    /// Makes `rootfs` show `to`; already so is success. Its work directory is made if need be.
    ///
    /// The container must be stopped. Overlays on `rootfs` are unmounted before the new one is
    /// mounted; a plain root is left bare.
    fn switch(&self, rootfs: &Path, to: &Topology) -> Result<Switched, RootfsError>;

    /// Digest of a whole tree that nobody changes at the moment (an old upper directory on trial).
    fn tree_digest(&self, directory: &Path) -> Result<TreeDigest, RootfsError>;

    /// Digests of the files that lie in the root file system; links stay inside it.
    fn file_records(&self, rootfs: &Path, files: &[CheckpointedFile])
    -> Result<Vec<FileRecord>, RootfsError>;
}

/// What can be seen of running containers without asking the runtime.
pub trait Observer {
    /// For each container, the files among `wanted` that its processes have mapped.
    fn mapped(
        &self,
        containers: &[Container],
        wanted: &[FileIdentity],
    ) -> Result<Vec<Vec<Match>>, RuntimeError>;

    /// Everything that stands in the way of a checkpoint; empty if nothing does.
    fn obstacles(&self, container: &Container) -> Vec<Obstacle>;
}

/// Probes.
pub trait Prober {
    /// Tries until the probe has held often enough in a row, or somebody asks to stop; returns how
    /// often it was tried.
    fn until_ready(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<u32, ProbeError>;

    /// Tries once, unless somebody asks to stop.
    fn once(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<(), ProbeError>;
}

/// Fix layers, unpacked.
pub trait Layers {
    /// Unpacks an archive that was verified to have this digest. Already there is success.
    fn unpack(&self, digest: &Sha256, archive: &File, format: LayerFormat) -> Result<Layer, LayerError>;

    /// A layer that was unpacked before.
    fn get(&self, digest: &Sha256) -> Result<Option<Layer>, LayerError>;
}

/// Packets of connections whose container is on trial.
pub trait ConnectionHold {
    /// Drops the packets of these connections, in and out, and no others. One atomic change; a hold
    /// of the same name is replaced. Nothing happens for [`NetworkPlace::Own`]: the namespace is gone.
    fn hold(
        &self,
        place: &NetworkPlace,
        name: &HoldName,
        connections: &[Connection],
    ) -> Result<(), HoldError>;

    /// Removes what CRIU leaves after a dump or a restore: its `CRIU` chain in a namespace of the
    /// container, its rules for `connections` in the host's.
    fn clear_checkpoint_lock(
        &self,
        place: &NetworkPlace,
        connections: &[Connection],
    ) -> Result<LeftoverLock, HoldError>;

    /// Lets the packets through again. No such hold is success.
    fn release(&self, place: &NetworkPlace, name: &HoldName) -> Result<(), HoldError>;

    /// Makes the peers learn at once that these connections are no more. Call after `release`, when
    /// the old container will not come back; connections that live again are not harmed.
    fn reset_peers(&self, place: &NetworkPlace, connections: &[Connection]) -> Result<Farewell, HoldError>;
}

/// Resource limits.
pub trait Limits {
    /// The knobs of a running container's cgroup.
    fn record(&self, container: &Container) -> Result<CgroupRecord, CgroupError>;

    /// Puts recorded knobs on a running container; returns those that still differ.
    fn apply(&self, container: &Container, record: &CgroupRecord)
    -> Result<Vec<KnobDifference>, CgroupError>;
}
