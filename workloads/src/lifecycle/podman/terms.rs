//! What podman does not do for a container, and what a start by podman changes.

use std::path::Path;

use serde::Deserialize;
use system::command::{self, Invocation};

use crate::lifecycle::inspected::Inspected;
use crate::lifecycle::podman::{NAME, describe};
use crate::lifecycle::{Terms, engine};
use crate::model::{Obstacle, ObstacleKind};

/// Where crun finds CRIU, which it loads when it is to write down a memory.
const LIBRARY: &str = "libcriu.so.2";
const LIBRARIES: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// The part of `podman network inspect` that is used.
#[derive(Debug, Deserialize)]
struct Network {
    name: String,
    driver: String,
}

pub(super) fn of(found: &Inspected, podman: &Path) -> Terms {
    Terms { obstacles: obstacles(found, podman), changes: changes(found) }
}

fn obstacles(found: &Inspected, podman: &Path) -> Vec<Obstacle> {
    let mut all = Vec::new();
    if let Some(unit) = describe::unit(found) {
        all.push(Obstacle::of_all(ObstacleKind::Supervised, "systemd", format!("{unit} starts and ends it")));
    }
    all.extend(engine::removed_when_ended(&NAME, found));
    let shared = match found.shares() {
        _ if !found.pod.is_empty() => Some(format!("it is in the pod {:.12}", found.pod)),
        other => other.map(|other| format!("it is in the network of {other:.12}")),
    };
    all.extend(shared.map(|what| Obstacle::of_all(ObstacleKind::SharedNamespaces, "podman", what)));
    if found.health_interval().is_some() && !can_set_health_checks(podman) {
        let what =
            "podman's restore leaves it out, and `podman update` cannot set it again before podman 5.4";
        all.push(Obstacle::of_all(ObstacleKind::SupervisionLost, "its health check", what));
    }
    if let Err(what) = writes_memory(&found.oci_runtime) {
        all.push(Obstacle::of_all(ObstacleKind::MissingProgram, &*found.oci_runtime, what));
    }
    let names: Vec<&str> = found.networks().map(|(name, _)| name).collect();
    let foreign = networks(podman, &names).into_iter().filter(|network| network.driver != "bridge");
    all.extend(foreign.map(|Network { name, driver }| {
        Obstacle::of_all(
            ObstacleKind::OwnInterfaces,
            format!("network {name}"),
            format!("its driver is {driver}"),
        )
    }));
    all
}

/// Whether this OCI runtime can write down a memory, and why not.
fn writes_memory(runtime: &str) -> Result<(), String> {
    let there =
        |found: bool, what: &str| if found { Ok(()) } else { Err(format!("{what} is not installed")) };
    there(command::find(runtime).is_some(), runtime)?;
    if runtime == "runc" {
        return there(command::find("criu").is_some(), "criu");
    }
    let said = Invocation::new(runtime).arg("--version").output().unwrap_or_default();
    match String::from_utf8_lossy(&said).contains("+CRIU") {
        true => there(LIBRARIES.iter().any(|directory| Path::new(directory).join(LIBRARY).exists()), LIBRARY),
        false => Err("built without CRIU".to_owned()),
    }
}

/// Whether this podman changes health checks, and so can set one again.
fn can_set_health_checks(podman: &Path) -> bool {
    let help = Invocation::new(podman).args(["update", "--help"]).output().unwrap_or_default();
    String::from_utf8_lossy(&help).contains("--health-interval")
}

/// What podman says of these networks; nothing if it does not answer.
fn networks(podman: &Path, names: &[&str]) -> Vec<Network> {
    if names.is_empty() {
        return Vec::new();
    }
    let said = Invocation::new(podman).args(["network", "inspect", "--"]).args(names).output();
    said.ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

fn changes(found: &Inspected) -> Vec<String> {
    let mut changes = addresses(found);
    changes.push(engine::hidden_changes(&NAME, found));
    changes
}

/// What becomes of its addresses when podman starts it.
pub(super) fn addresses(found: &Inspected) -> Vec<String> {
    let address = |(name, now): (&str, String)| {
        format!(
            "its address in the network {name}, now {now}: podman gives another at every start, unless `--ip` fixes it; \
             a checkpoint comes back with its own"
        )
    };
    found.moving_addresses().map(address).collect()
}
