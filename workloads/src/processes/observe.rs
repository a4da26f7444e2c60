//! What can be seen from outside: [`Observer`] and [`Everywhere`] over `/proc`.

use crate::criu::obstacles;
use crate::model::{Container, Obstacle, Pid};
use crate::processes::affected::{Mapped, mapped};
use crate::processes::contents::Wanted;
use crate::processes::on_host::{HostPaths, mapping_host_files};
use crate::processes::scan::{Scan, scan};
use crate::processes::watchdog::{LookError, Onlooker};
use crate::processes::{Everywhere, Observer};

/// The kernel's own account of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Procfs;

impl Everywhere for Procfs {
    fn scan(&self, wanted: &[Wanted], onlooker: Onlooker<'_>) -> Result<Scan, LookError> {
        scan(wanted, onlooker)
    }
}

impl Observer for Procfs {
    fn mapped(
        &self,
        containers: &[Container],
        wanted: &[Wanted],
        onlooker: Onlooker<'_>,
    ) -> Result<Vec<Mapped>, LookError> {
        mapped(containers, wanted, onlooker)
    }

    fn on_host_files(
        &self,
        processes: &[Pid],
        paths: &HostPaths,
        onlooker: Onlooker<'_>,
    ) -> Result<Vec<Pid>, LookError> {
        mapping_host_files(processes, paths, onlooker)
    }

    fn obstacles(&self, container: &Container) -> Vec<Obstacle> {
        obstacles::judge(container)
    }
}
