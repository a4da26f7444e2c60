//! The nouns that everybody above speaks of; values only, nothing here touches a host.

pub mod build;
pub mod cgroup;
pub mod comm;
pub mod container;
pub mod obstacle;
pub mod probe_site;
pub mod replacement;
pub mod topology;
pub mod workload_id;

pub use build::{Build, GoBuildId};
pub use cgroup::{CgroupOwner, CgroupPath, CgroupPathError, KnownContainer, Owners, Place, Units};
pub use comm::{Comm, SeenPath};
pub use container::{
    CgroupDriver, CheckpointDir, CheckpointStats, Container, ContainerStatus, DumpBase, ExecOutcome, Image,
    Listing, NetworkPlace, Pid, Restored, Run, Unreadable,
};
pub use obstacle::{Effect, Obstacle, ObstacleKind, ObstacleProcess};
pub use probe_site::ProbeSite;
pub use replacement::Replacement;
pub use topology::{FreshUpper, Overlay, Topology, TopologyError, trial_of};
pub use workload_id::{RuntimeName, WorkloadId, WorkloadIdError};
