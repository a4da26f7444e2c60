//! podman's containers as everybody else knows them, and those of users.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::inspected::{Inspected, Particulars};
use crate::lifecycle::podman::NAME;
use crate::model::{CgroupDriver, Container, Unreadable};

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

/// Where systemd's users have their control groups.
const USERS: &str = "/sys/fs/cgroup/user.slice";

/// How far below it a rootless container's group lies: user-1000.slice/user@1000.service/user.slice/libpod-….scope.
const DEPTH: usize = 5;

/// Containers of users' own podman, found by their control groups. They are told, since root's podman does not.
pub(super) fn rootless() -> Vec<Unreadable> {
    let mut found = Vec::new();
    let mut waiting = vec![(PathBuf::from(USERS), DEPTH)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let scope = name.strip_prefix("libpod-").and_then(|rest| rest.strip_suffix(".scope"));
            if let Some(id) = scope.filter(|id| !id.starts_with("conmon-")) {
                let user = directory.strip_prefix(USERS).unwrap_or(&directory).display();
                found.push(Unreadable {
                    container: format!("{NAME}:{}", id.get(..12).unwrap_or(id)),
                    why: format!("it is rootless, of a user's own podman ({user}), and is left alone"),
                });
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push((entry.path(), depth - 1));
            }
        }
    }
    found
}
