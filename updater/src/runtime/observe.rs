//! What can be seen of running containers from outside: [`Observer`] over `/proc`.

use manifests::FileIdentity;

use super::affected::{MappedFiles, Match};
use super::container::Container;
use super::error::RuntimeError;
use super::obstacle::Obstacle;
use super::{Observer, dumpability};

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
        dumpability::judge(container)
    }
}
