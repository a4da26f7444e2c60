//! Processes as the kernel shows them: what they have mapped, and whose files those are.

pub mod affected;
pub(crate) mod mapping;
pub mod observe;
pub mod procfs;
pub mod scan;

use manifests::FileIdentity;

pub use self::affected::Match;
pub use self::observe::Procfs;
use crate::lifecycle::RuntimeError;
use crate::model::{Container, Obstacle};

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
