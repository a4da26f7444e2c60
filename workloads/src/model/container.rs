//! What a container is to this program: its identity, where it lives and what it is made of.
//!
//! Values only; they are written to the journal, so every type here is serialisable and its
//! form is part of the state on disk. Nothing here asks the runtime anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::WorkloadId;

/// A process id in the host's pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The runtime's word on a container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerStatus {
    /// Made, its program not started.
    Created,
    /// Its program runs.
    Running,
    /// Frozen by the cgroup freezer.
    Paused,
    /// Its first process is gone; the runtime still remembers it.
    Stopped,
}

impl ContainerStatus {
    /// Whether it has processes, frozen or not.
    pub fn has_processes(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// Where a container's packets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "path")]
pub enum NetworkPlace {
    /// The host's own network namespace.
    Host,
    /// A namespace that somebody else made and that outlives the container.
    Path(PathBuf),
    /// A namespace made for this container by the runtime; it is gone when the container is.
    Own,
    /// A namespace that the container's engine makes for each run of it, here the present one's, and joins to a bridge
    /// of the host's: between two runs the host alone can say what becomes of packets.
    Engine(PathBuf),
    /// The bundle, which would say so, cannot be read, for this reason. Such a container can be looked at, and
    /// is not touched: it could not be started again.
    Unknown(String),
}

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// The runtime, in the file system.
    Cgroupfs,
    /// systemd, asked by the runtime; the runtime must be told so at each start.
    Systemd,
}

/// A container as the runtime described it at one instant.
///
/// The record taken before a container is touched is what it is started or restored from: the
/// runtime forgets it as soon as it is checkpointed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub id: WorkloadId,
    /// The runtime's word on its state.
    pub status: ContainerStatus,
    /// Its first process; absent once stopped.
    pub init: Option<Pid>,
    /// When that process began, in clock ticks since boot; not in records of before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// The OCI bundle directory (holds `config.json`).
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// OCI annotations; a manifest's label selectors match these.
    pub annotations: BTreeMap<String, String>,
    /// Its cgroup, as an absolute path under the cgroup file system's root (`/system.slice/web-1`).
    pub cgroup: Option<PathBuf>,
    /// Who makes its cgroup.
    pub cgroup_driver: CgroupDriver,
    /// Where its packets go.
    pub network: NetworkPlace,
}

impl Container {
    /// Which run of it this is; `None` if it does not run.
    pub fn run(&self) -> Option<Run> {
        self.init.map(|init| Run { init, started: self.started })
    }
}

/// One run of a container: its first process, by number and start. Its name says nothing, and a number comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first process.
    pub init: Pid,
    /// When it began, in clock ticks since boot.
    #[serde(default)]
    pub started: Option<u64>,
}

impl Run {
    /// Whether both are one run. Where the start was not kept, the number has to do.
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        let starts = self.started.zip(other.started);
        self.init == other.init && starts.is_none_or(|(one, two)| one == two)
    }
}

/// What a container was made from, by its engine's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it is called.
    pub name: Option<String>,
    /// The digest of its configuration, `sha256:…`, which names its layers.
    pub id: String,
    /// The digest of its manifest, where the engine keeps it.
    pub digest: Option<String>,
    /// The digests of its unpacked layers, `sha256:…`, lowest first.
    pub layers: Vec<String>,
}

/// The runtime's containers, and what could not be read of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The containers, by id; of some the bundle cannot be read ([`NetworkPlace::Unknown`]).
    pub containers: Vec<Container>,
    /// Entries that are not whole. One of which only the bundle cannot be read is among the containers too.
    pub unreadable: Vec<Unreadable>,
}

/// An entry of the runtime's list that could not be read. It is nobody else's trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name, as the runtime gave it.
    pub container: String,
    /// What was expected and what was found.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} cannot be read: {}", self.container, self.why)
    }
}

/// The directories of one container's checkpoint.
///
/// `pre` holds the pre-dump, `full` the final dump, and `work` CRIU's logs and statistics. `full`
/// refers to `pre` by a relative path, so the two move together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckpointDir(PathBuf);

impl CheckpointDir {
    /// The checkpoint whose directories stand (or will stand) under `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The directory that holds the three.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Memory pages written while the container was running.
    pub fn pre(&self) -> PathBuf {
        self.0.join("pre")
    }

    /// The checkpoint proper.
    pub fn full(&self) -> PathBuf {
        self.0.join("full")
    }

    /// CRIU's logs and statistics, in one directory per operation.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }
}

/// What the final dump builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DumpBase {
    /// All memory is written while the container is frozen.
    Nothing,
    /// Only memory changed since the pre-dump is written.
    PreDump,
}

/// What a finished checkpoint cost, by CRIU's own account (`stats-dump`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckpointStats {
    /// From the first task's being asked to stop until all stood still.
    pub freezing: Duration,
    /// How long the tasks stood still.
    pub frozen: Duration,
    /// The part of `frozen` spent on finding changed memory.
    pub memory_dump: Duration,
    /// The part of `frozen` spent on writing memory.
    pub memory_write: Duration,
    /// Pages examined (of 4096 bytes).
    pub pages_scanned: u64,
    /// Pages left out because the pre-dump has them.
    pub pages_skipped: u64,
    /// Pages written.
    pub pages_written: u64,
}

/// A container that came back from its checkpoint, as found afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Its first process.
    pub init: Pid,
    /// Processes found in its cgroup.
    pub processes: usize,
    /// Those of the checkpoint that came back and have ended since, by themselves: number in the container, and name.
    pub ended: Vec<String>,
}

/// How a command inside a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It ended by itself with this status.
    Exited {
        /// Its exit status.
        status: i32,
        /// The end of what it wrote to stderr.
        stderr_tail: String,
    },
    /// It was killed because its time was over.
    TimedOut,
    /// It was killed because the operator asked to stop.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_came_again_is_another_run() {
        let run = |started| Run { init: Pid(7), started };
        assert!(run(Some(1)).is_the_same_as(&run(Some(1))));
        assert!(!run(Some(1)).is_the_same_as(&run(Some(2))));
        assert!(run(Some(1)).is_the_same_as(&run(None)), "an old record has no start");
    }
}
