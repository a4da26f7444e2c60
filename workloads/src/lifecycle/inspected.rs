//! What an engine says of its containers: the answer to `inspect`, which podman gives in docker's words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use system::process::ProcessIdentity;

use crate::lifecycle::error::RuntimeError;
use crate::model::{
    CgroupDriver, Container, ContainerStatus, Image, NetworkPlace, Pid, RuntimeName, Unreadable, WorkloadId,
};

/// The part of the answer that is used (podman 4 and 5, docker 20 to 28).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Inspected {
    pub(crate) id: String,
    name: String,
    #[serde(default)]
    pub(crate) pod: String,
    #[serde(rename = "OCIRuntime", default)]
    pub(crate) oci_runtime: String,
    /// The OCI bundle; docker does not say where it is.
    #[serde(default)]
    pub(crate) static_dir: PathBuf,
    state: State,
    /// The image: podman gives the digest of its configuration bare, docker with `sha256:`.
    #[serde(default)]
    image: String,
    /// podman's.
    #[serde(default)]
    image_name: String,
    /// The digest of the image's manifest; podman's.
    #[serde(default)]
    image_digest: String,
    driver: String,
    graph_driver: GraphDriver,
    config: Config,
    pub(crate) host_config: HostConfig,
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
    /// The image by the name that the container was made with.
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    healthcheck: Option<Healthcheck>,
    /// The command line that made it; podman's.
    #[serde(default)]
    create_command: Option<Vec<String>>,
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
pub(crate) struct HostConfig {
    pub(crate) network_mode: String,
    #[serde(default)]
    pub(crate) auto_remove: bool,
    #[serde(default)]
    restart_policy: RestartPolicy,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    #[serde(default)]
    name: String,
    #[serde(default)]
    maximum_retry_count: u64,
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
pub(crate) struct Joined {
    #[serde(rename = "IPAddress", default)]
    address: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    address_v6: String,
    /// Addresses that it was given for good.
    #[serde(rename = "IPAMConfig", default)]
    fixed: Option<BTreeMap<String, Value>>,
}

impl Joined {
    /// The addresses that it has now.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        [&*self.address, &*self.address_v6].into_iter().filter(|address| !address.is_empty()).collect()
    }

    /// Whether it has them at every start.
    pub(crate) fn is_fixed(&self) -> bool {
        let fixed: Vec<&str> =
            self.fixed.iter().flat_map(BTreeMap::values).filter_map(Value::as_str).collect();
        self.addresses().iter().all(|address| fixed.contains(address))
    }
}

/// An engine's particulars, which stand in no answer or in another place for each.
#[derive(Debug)]
pub(crate) struct Particulars {
    pub(crate) runtime: RuntimeName,
    /// The storage driver whose layers are directories of an overlay.
    pub(crate) driver: &'static str,
    pub(crate) bundle: PathBuf,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) cgroup_driver: CgroupDriver,
}

/// All containers of an answer.
pub(crate) fn all(engine: &RuntimeName, json: &[u8]) -> Result<Vec<Inspected>, RuntimeError> {
    serde_json::from_slice(json)
        .map_err(|source| RuntimeError::Answer { about: format!("the containers of {engine}"), source })
}

impl Inspected {
    /// The engine's name for it.
    pub(crate) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    pub(crate) fn unreadable(&self, engine: &RuntimeName, error: &RuntimeError) -> Unreadable {
        Unreadable { container: format!("{engine}:{}", self.name()), why: error.with_causes() }
    }

    pub(crate) fn has_processes(&self) -> bool {
        self.status().has_processes()
    }

    /// What it was made from, but for the layers; `None` if the engine does not say.
    pub(crate) fn image(&self) -> Option<Image> {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let bare = self.image.strip_prefix("sha256:").unwrap_or(&self.image);
        let id = said(bare).map(|id| format!("sha256:{id}"))?;
        let name = said(&self.image_name).or_else(|| said(&self.config.image));
        Some(Image { name, id, digest: said(&self.image_digest), layers: Vec::new() })
    }

    /// Whether a stop keeps podman from starting it again when it ends.
    pub(crate) fn restart_is_suspended(&self) -> bool {
        self.state.stopped_by_user && !matches!(self.restart_policy(), "" | "no")
    }

    pub(crate) fn restart_policy(&self) -> &str {
        &self.host_config.restart_policy.name
    }

    /// The same in the words of `--restart`.
    pub(crate) fn restart_words(&self) -> String {
        match (self.restart_policy(), self.host_config.restart_policy.maximum_retry_count) {
            ("", _) => "no".to_owned(),
            ("on-failure", tries @ 1..) => format!("on-failure:{tries}"),
            (policy, _) => policy.to_owned(),
        }
    }

    /// The words of `podman run` that made it; none where podman has not kept them.
    pub(crate) fn create_command(&self) -> &[String] {
        self.config.create_command.as_deref().unwrap_or_default()
    }

    /// Whether it was made and never started.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.state.status.as_str(), "created" | "configured")
    }

    /// How often podman looks after its health, in nanoseconds; `None` if it does not.
    pub(crate) fn health_interval(&self) -> Option<u64> {
        let check = self.config.healthcheck.as_ref()?;
        let looks = check.test.as_ref()?.first().is_some_and(|word| word != "NONE");
        (looks && check.interval > 0).then_some(check.interval)
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Its first process, if it has any.
    pub(crate) fn init(&self) -> Option<Pid> {
        (self.state.pid != 0 && self.has_processes()).then_some(Pid(self.state.pid))
    }

    /// Its control group, where the engine says it.
    pub(crate) fn cgroup(&self) -> Option<PathBuf> {
        self.init().map(|_| self.state.cgroup_path.clone()).filter(|path| path.is_absolute())
    }

    pub(crate) fn networks(&self) -> impl Iterator<Item = (&str, &Joined)> {
        self.network_settings.networks.iter().flatten().map(|(name, joined)| (name.as_str(), joined))
    }

    /// Whose network it shares.
    pub(crate) fn shares(&self) -> Option<&str> {
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
            _ if self.network_settings.sandbox_key.as_os_str().is_empty() => NetworkPlace::Own,
            _ => NetworkPlace::Engine(self.network_settings.sandbox_key.clone()),
        }
    }

    /// Addresses that it may have no more after a start.
    pub(crate) fn moving_addresses(&self) -> impl Iterator<Item = (&str, String)> {
        let moving = self.networks().filter(|(_, joined)| !joined.is_fixed());
        let now = moving.map(|(name, joined)| (name, joined.addresses()));
        now.filter(|(_, now)| !now.is_empty()).map(|(name, now)| (name, now.join(" and ")))
    }

    /// The container, as everybody else knows it.
    ///
    /// # Errors
    /// If its name or its storage is not one that this program can handle.
    pub(crate) fn container(&self, particulars: Particulars) -> Result<Container, RuntimeError> {
        let Particulars { runtime, driver, bundle, cgroup, cgroup_driver } = particulars;
        let init = self.init();
        let upper = self.graph_driver.data.as_ref().and_then(|layers| layers.upper_dir.as_deref());
        let layer = upper.and_then(Path::parent).filter(|_| self.driver == driver);
        let layer = layer.ok_or_else(|| RuntimeError::Storage { driver: self.driver.clone() })?;
        let annotations = self.config.annotations.iter().chain(&self.config.labels).flatten();
        Ok(Container {
            id: WorkloadId::new(runtime, self.name().parse()?),
            status: self.status(),
            init,
            started: init.and_then(|pid| ProcessIdentity::of(pid.0)).map(|found| found.started),
            bundle,
            rootfs: layer.join("merged"),
            annotations: annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
            cgroup,
            cgroup_driver,
            network: self.network(),
        })
    }

    /// The first characters of its id, which is how an engine shows it.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}
