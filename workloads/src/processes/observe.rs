//! What can be seen of running containers from outside: [`Observer`] over `/proc`.

use manifests::FileIdentity;

use crate::criu::obstacles;
use crate::lifecycle::error::RuntimeError;
use crate::model::Container;
use crate::model::Obstacle;
use crate::processes::Observer;
use crate::processes::affected::{MappedFiles, Match};

/// The kernel's own account of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Procfs;

impl Observer for Procfs {
    fn mapped(
        &self,
        containers: &[Container],
        wanted: &[FileIdentity],
    ) -> Result<Vec<Vec<Match>>, RuntimeError> {
        let mut files = MappedFiles::default();
        containers.iter().map(|container| files.matches(container, wanted)).collect()
    }

    fn obstacles(&self, container: &Container) -> Vec<Obstacle> {
        obstacles::judge(container)
    }
}
