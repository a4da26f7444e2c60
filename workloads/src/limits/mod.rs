//! Control groups: resource limits, and the freezer.

pub mod freezer;
pub mod knobs;

pub use self::freezer::{CgroupFreezer, FreezeError, FreezeLease, FreezeState, Freezer, LeaseStore};
pub use self::knobs::{CgroupError, CgroupLimits, CgroupRecord, KnobDifference};
use crate::model::Container;

/// Resource limits.
pub trait Limits {
    /// The knobs of a running container's cgroup.
    fn record(&self, container: &Container) -> Result<CgroupRecord, CgroupError>;

    /// Puts recorded knobs on a running container; returns those that still differ.
    fn apply(&self, container: &Container, record: &CgroupRecord)
    -> Result<Vec<KnobDifference>, CgroupError>;
}
