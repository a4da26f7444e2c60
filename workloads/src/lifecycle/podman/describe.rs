//! podman's containers as everybody else knows them.

use std::time::Duration;

use serde::Deserialize;

use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::inspected::{Inspected, Particulars};
use crate::lifecycle::podman::NAME;
use crate::model::{CgroupDriver, Container};

/// The label by which podman knows the systemd unit that a container belongs to.
const UNIT: &str = "PODMAN_SYSTEMD_UNIT";

pub(super) fn container(found: &Inspected) -> Result<Container, RuntimeError> {
    found.container(Particulars {
        runtime: NAME,
        driver: "overlay",
        bundle: found.static_dir.clone(),
        cgroup: found.cgroup(),
        cgroup_driver: CgroupDriver::Systemd,
    })
}

/// The systemd unit that starts and ends it.
pub(super) fn unit(found: &Inspected) -> Option<&str> {
    found.label(UNIT)
}

/// What `podman container restore --print-stats` says of one container (podman 4 and 5).
#[derive(Debug, Deserialize)]
struct RestoreReport {
    container_statistics: Vec<RestoredContainer>,
}

#[derive(Debug, Deserialize)]
struct RestoredContainer {
    criu_statistics: Option<CriuStatistics>,
}

/// From CRIU's own `stats-restore`.
#[derive(Debug, Deserialize)]
struct CriuStatistics {
    /// In microseconds.
    restore_time: Option<u32>,
}

/// How long CRIU says that a restore took, if it says so.
pub(super) fn restore_time(report: &[u8]) -> Option<Duration> {
    let report: RestoreReport = serde_json::from_slice(report).ok()?;
    let [restored] = &report.container_statistics[..] else { return None };
    let time = restored.criu_statistics.as_ref()?.restore_time?;
    Some(Duration::from_micros(time.into()))
}
