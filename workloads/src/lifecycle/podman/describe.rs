//! From `podman container inspect` to a [`Container`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use system::process::ProcessIdentity;

use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::podman::NAME;
use crate::model::{CgroupDriver, Container, ContainerStatus, NetworkPlace, Pid, Unreadable, WorkloadId};

/// The part of podman's answer that is used (podman 4 and 5).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    id: String,
    name: String,
    #[serde(default)]
    pub(super) pod: String,
    #[serde(rename = "OCIRuntime", default)]
    pub(super) oci_runtime: String,
    static_dir: PathBuf,
    state: State,
    driver: String,
    graph_driver: GraphDriver,
    config: Config,
    pub(super) host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    pid: u32,
    #[serde(default)]
    cgroup_path: PathBuf,
    #[serde(default)]
    stopped_by_user: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    #[serde(default)]
    data: Option<Layers>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Layers {
    #[serde(default)]
    upper_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    healthcheck: Option<Healthcheck>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Healthcheck {
    #[serde(default)]
    test: Option<Vec<String>>,
    /// Nanoseconds.
    #[serde(default)]
    interval: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    pub(super) network_mode: String,
    #[serde(default)]
    pub(super) auto_remove: bool,
    #[serde(default)]
    restart_policy: RestartPolicy,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    sandbox_key: PathBuf,
    #[serde(default)]
    networks: Option<BTreeMap<String, Joined>>,
}

/// A network that the container has joined.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Joined {
    #[serde(rename = "IPAddress", default)]
    address: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    address_v6: String,
    /// Addresses that it was given for good.
    #[serde(rename = "IPAMConfig", default)]
    fixed: Option<BTreeMap<String, String>>,
}

impl Joined {
    /// The addresses that it has now.
    pub(super) fn addresses(&self) -> Vec<&str> {
        [&*self.address, &*self.address_v6].into_iter().filter(|address| !address.is_empty()).collect()
    }

    /// Whether it has them at every start.
    pub(super) fn is_fixed(&self) -> bool {
        let fixed: Vec<&String> = self.fixed.iter().flat_map(BTreeMap::values).collect();
        self.addresses().iter().all(|address| fixed.iter().any(|fixed| fixed == address))
    }
}

/// The label by which podman knows the systemd unit that a container belongs to.
const UNIT: &str = "PODMAN_SYSTEMD_UNIT";

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

/// All containers of an answer.
pub(super) fn all(json: &[u8]) -> Result<Vec<Inspected>, RuntimeError> {
    serde_json::from_slice(json)
        .map_err(|source| RuntimeError::Answer { about: "podman's containers".into(), source })
}

impl Inspected {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The OCI bundle.
    pub(super) fn bundle(&self) -> &Path {
        &self.static_dir
    }

    pub(super) fn unreadable(&self, error: &RuntimeError) -> Unreadable {
        Unreadable { container: format!("{NAME}:{}", self.name), why: error.with_causes() }
    }

    pub(super) fn has_processes(&self) -> bool {
        self.status().has_processes()
    }

    /// Whether a stop keeps podman from starting it again when it ends.
    pub(super) fn restart_is_suspended(&self) -> bool {
        let policy = self.host_config.restart_policy.name.as_str();
        self.state.stopped_by_user && !matches!(policy, "" | "no")
    }

    /// How often podman looks after its health, in nanoseconds; `None` if it does not.
    pub(super) fn health_interval(&self) -> Option<u64> {
        let check = self.config.healthcheck.as_ref()?;
        let looks = check.test.as_ref()?.first().is_some_and(|word| word != "NONE");
        (looks && check.interval > 0).then_some(check.interval)
    }

    /// The systemd unit that starts and ends it.
    pub(super) fn unit(&self) -> Option<&str> {
        self.config.labels.as_ref()?.get(UNIT).map(String::as_str)
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = (&str, &Joined)> {
        self.network_settings.networks.iter().flatten().map(|(name, joined)| (name.as_str(), joined))
    }

    /// Whose network it shares.
    pub(super) fn shares(&self) -> Option<&str> {
        self.host_config.network_mode.strip_prefix("container:")
    }

    fn status(&self) -> ContainerStatus {
        match self.state.status.as_str() {
            "running" | "stopping" => ContainerStatus::Running,
            "paused" => ContainerStatus::Paused,
            "created" | "configured" | "initialized" => ContainerStatus::Created,
            _ => ContainerStatus::Stopped,
        }
    }

    fn network(&self) -> NetworkPlace {
        match self.host_config.network_mode.split(':').collect::<Vec<_>>()[..] {
            ["host"] => NetworkPlace::Host,
            ["none" | "slirp4netns" | "pasta", ..] => NetworkPlace::Own,
            ["ns", path] => NetworkPlace::Path(path.into()),
            _ => NetworkPlace::Engine(self.network_settings.sandbox_key.clone()),
        }
    }

    /// The container, as everybody else knows it.
    ///
    /// # Errors
    /// If its name or its storage is not one that this program can handle.
    pub(super) fn container(&self) -> Result<Container, RuntimeError> {
        let status = self.status();
        let init = (self.state.pid != 0 && status.has_processes()).then_some(Pid(self.state.pid));
        let upper = self.graph_driver.data.as_ref().and_then(|layers| layers.upper_dir.as_deref());
        let layer = upper.and_then(Path::parent).filter(|_| self.driver == "overlay");
        let layer = layer.ok_or_else(|| RuntimeError::Storage { driver: self.driver.clone() })?;
        let annotations = self.config.annotations.iter().chain(&self.config.labels).flatten();
        Ok(Container {
            id: WorkloadId::new(NAME, self.name.parse()?),
            status,
            init,
            started: init.and_then(|pid| ProcessIdentity::of(pid.0)).map(|found| found.started),
            bundle: self.static_dir.clone(),
            rootfs: layer.join("merged"),
            annotations: annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
            cgroup: init.map(|_| self.state.cgroup_path.clone()).filter(|path| path.is_absolute()),
            cgroup_driver: CgroupDriver::Systemd,
            network: self.network(),
        })
    }

    /// The first characters of its id, which is how podman shows it.
    pub(super) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
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
