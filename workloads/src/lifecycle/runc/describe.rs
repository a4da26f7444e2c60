//! From runc's JSON, the bundle and `/proc` to a [`Container`].
//!
//! runc's own answer lacks three things: the cgroup, who made it, and the network namespace. The
//! first comes from the kernel, the second from runc's saved state, the third from the bundle (it is
//! what a restore will use) checked against the kernel.
//!
//! What cannot be read of one container is part of the answer: another one, or a transaction that was
//! interrupted, does not wait for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use serde::Deserialize;
use serde_json::Value;
use system::process::ProcessIdentity;

use crate::lifecycle::error::RuntimeError;
use crate::model::{
    CgroupDriver, Container, ContainerStatus, Listing, NetworkPlace, Pid, RuntimeName, Unreadable, WorkloadId,
};
use crate::processes::procfs;

/// The part of `runc list` and `runc state` that is used. More than the "State" of the OCI runtime specification:
/// runc adds the root file system, and knows containers that are paused.
#[derive(Debug, Deserialize)]
struct State {
    id: String,
    pid: u32,
    status: ContainerStatus,
    bundle: PathBuf,
    rootfs: PathBuf,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The part of a bundle's `config.json` that is used. Not a whole `oci_spec::runtime::Spec`: one capability or
/// system call action that is newer than the crate would make the whole bundle unreadable.
#[derive(Debug, Deserialize)]
struct Config {
    linux: Option<Linux>,
}

#[derive(Debug, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<LinuxNamespace>,
}

/// The part of runc's `state.json` that is used; the format is runc's own.
#[derive(Debug, Deserialize)]
struct Saved {
    config: SavedConfig,
    /// By controller; of the unified hierarchy under the empty name.
    #[serde(default)]
    cgroup_paths: BTreeMap<String, PathBuf>,
}

#[derive(Debug, Deserialize)]
struct SavedConfig {
    cgroups: Option<SavedCgroups>,
}

#[derive(Debug, Deserialize)]
struct SavedCgroups {
    #[serde(default, alias = "Systemd")]
    systemd: bool,
}

pub(crate) fn containers(json: &[u8], root: &Path) -> Result<Listing, RuntimeError> {
    let entries: Option<Vec<Value>> = serde_json::from_slice(json)
        .map_err(|source| RuntimeError::Answer { about: "all containers".into(), source })?;
    let mut listing = Listing::default();
    // No container at all is `null`.
    for entry in entries.unwrap_or_default() {
        let container = entry.get("id").and_then(Value::as_str).unwrap_or("without a name").to_owned();
        let state = serde_json::from_value::<State>(entry)
            .map_err(|source| RuntimeError::Answer { about: "a container".into(), source });
        match state.and_then(|state| complete(state, root)) {
            Ok(found) => {
                if let NetworkPlace::Unknown(why) = &found.network {
                    listing.unreadable.push(Unreadable { container, why: why.clone() });
                }
                listing.containers.push(found);
            }
            Err(error) => listing.unreadable.push(Unreadable { container, why: error.with_causes() }),
        }
    }
    listing.containers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(listing)
}

pub(crate) fn container(json: &[u8], root: &Path) -> Result<Container, RuntimeError> {
    let state: State = serde_json::from_slice(json)
        .map_err(|source| RuntimeError::Answer { about: "a container".into(), source })?;
    complete(state, root)
}

fn complete(state: State, root: &Path) -> Result<Container, RuntimeError> {
    let id = WorkloadId::new(RuntimeName::DEFAULT, state.id.parse()?);
    let init = (state.pid != 0 && state.status != ContainerStatus::Stopped).then_some(Pid(state.pid));
    let network = match read_json::<Config>(&state.bundle.join("config.json"), &id) {
        Ok(config) => network(&config),
        Err(error) => NetworkPlace::Unknown(error.with_causes()),
    };
    let saved: Option<Saved> = read_json(&root.join(id.id.as_str()).join("state.json"), &id).ok();
    let made = saved.as_ref().and_then(|saved| saved.cgroup_paths.get("").cloned());
    let systemd = saved.and_then(|saved| saved.config.cgroups).is_some_and(|cgroups| cgroups.systemd);
    let cgroup_driver = if systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
    Ok(Container {
        status: state.status,
        init,
        started: init.and_then(|pid| ProcessIdentity::of(pid.0)).map(|found| found.started),
        rootfs: state.rootfs,
        annotations: state.annotations.unwrap_or_default(),
        cgroup: init.and_then(procfs::cgroup_of).map(|own| group(own, made.as_deref())),
        cgroup_driver,
        network,
        bundle: state.bundle,
        id,
    })
}

/// The group of a container: that which the runtime made. Its first process may have moved into one below (systemd
/// does), and others stay beside it.
fn group(of_init: PathBuf, made: Option<&Path>) -> PathBuf {
    let made =
        made.and_then(|made| made.strip_prefix("/sys/fs/cgroup").ok()).map(|made| Path::new("/").join(made));
    made.filter(|made| made != Path::new("/") && of_init.starts_with(made)).unwrap_or(of_init)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, id: &WorkloadId) -> Result<T, RuntimeError> {
    let bytes = fs::read(path).map_err(|source| RuntimeError::Bundle { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| RuntimeError::Answer {
        about: format!("container {id}, {}", path.display()),
        source,
    })
}

fn network(config: &Config) -> NetworkPlace {
    let namespaces = config.linux.as_ref().map(|linux| linux.namespaces.as_slice()).unwrap_or_default();
    let network = |namespace: &&LinuxNamespace| namespace.typ() == LinuxNamespaceType::Network;
    let Some(namespace) = namespaces.iter().find(network) else {
        return NetworkPlace::Host;
    };
    match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
        None => NetworkPlace::Own,
        Some(path) if is_hosts(path) => NetworkPlace::Host,
        Some(path) => NetworkPlace::Path(path.to_owned()),
    }
}

/// Whether a namespace file leads to the namespace that this process lives in.
fn is_hosts(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(path).is_some_and(|one| Some(one) == identity(Path::new("/proc/self/ns/net")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(namespaces: &str) -> NetworkPlace {
        let text = format!(r#"{{"linux": {{"namespaces": [{namespaces}]}}}}"#);
        network(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn the_group_of_a_container_is_the_one_that_the_runtime_made() {
        let made = Some(Path::new("/sys/fs/cgroup/system.slice/runc-web.scope"));
        for of_init in ["/system.slice/runc-web.scope", "/system.slice/runc-web.scope/init.scope"] {
            assert_eq!(group(of_init.into(), made), Path::new("/system.slice/runc-web.scope"), "{of_init}");
        }
        for elsewhere in [None, Some(Path::new("/sys/fs/cgroup")), Some(Path::new("/sys/fs/cgroup/other"))] {
            assert_eq!(group("/a/b".into(), elsewhere), Path::new("/a/b"), "{elsewhere:?}");
        }
    }

    #[test]
    fn the_network_is_the_hosts_unless_the_bundle_says_otherwise() {
        assert_eq!(place(r#"{"type": "pid"}"#), NetworkPlace::Host);
        assert_eq!(place(r#"{"type": "network"}"#), NetworkPlace::Own);
        assert_eq!(place(r#"{"type": "network", "path": ""}"#), NetworkPlace::Own);
        assert_eq!(place(r#"{"type": "network", "path": "/proc/self/ns/net"}"#), NetworkPlace::Host);
        assert_eq!(
            place(r#"{"type": "network", "path": "/run/netns/web"}"#),
            NetworkPlace::Path("/run/netns/web".into())
        );
    }

    #[test]
    fn a_listing_without_containers_is_null() {
        assert_eq!(containers(b"null", Path::new("/run/runc")).unwrap(), Listing::default());
        assert!(containers(b"what?", Path::new("/run/runc")).is_err());
    }

    #[test]
    fn a_container_is_described_from_its_state_and_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        let config = r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "network"}]}}"#;
        fs::write(bundle.path().join("config.json"), config).unwrap();
        let bundle = bundle.path().display();
        let json = format!(
            r#"{{"ociVersion":"1.0.2","id":"web-1","pid":0,"status":"stopped","bundle":"{bundle}",
                "rootfs":"{bundle}/rootfs","created":"2026-01-01T00:00:00Z","annotations":{{"tier":"web"}},"owner":""}}"#
        );
        let found = container(json.as_bytes(), Path::new("/nonexistent")).unwrap();
        assert_eq!(found.id.to_string(), "web-1");
        assert_eq!((found.status, found.init), (ContainerStatus::Stopped, None));
        assert_eq!(found.annotations["tier"], "web");
        assert_eq!(found.network, NetworkPlace::Own);
    }

    #[test]
    fn what_cannot_be_read_of_one_container_is_told_and_hides_no_other() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("config.json"), r#"{"linux": {"namespaces": []}}"#).unwrap();
        let entry = |id: &str, status: &str, bundle: &Path| {
            let bundle = bundle.display();
            format!(
                r#"{{"id":"{id}","pid":0,"status":"{status}","bundle":"{bundle}","rootfs":"{bundle}/rootfs"}}"#
            )
        };
        let entries = [
            entry("web", "running", bundle.path()),
            entry("gone", "stopped", Path::new("/no/such/bundle")),
            entry("odd", "dreaming", bundle.path()),
            r#"{"pid": 7}"#.to_owned(),
        ];
        let json = format!("[{}]", entries.join(","));
        let listing = containers(json.as_bytes(), Path::new("/nonexistent")).unwrap();
        let ids: Vec<String> = listing.containers.iter().map(|found| found.id.to_string()).collect();
        assert_eq!(ids, ["gone", "web"]);
        let told: Vec<String> = listing.unreadable.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("container gone cannot be read: could not read /no/such/bundle/config.json")
        );
        assert!(told[1].contains("container odd") && told[1].contains("dreaming"), "{told:?}");

        let alone = container(entries[1].as_bytes(), Path::new("/nonexistent")).unwrap();
        assert!(matches!(&alone.network, NetworkPlace::Unknown(why) if why.contains("No such file")));
    }
}
