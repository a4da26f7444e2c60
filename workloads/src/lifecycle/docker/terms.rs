//! What docker does not do for a container, and what a start by docker changes.

use crate::lifecycle::docker::NAME;
use crate::lifecycle::inspected::Inspected;
use crate::lifecycle::{Terms, engine};
use crate::model::{Obstacle, ObstacleKind};

/// By these labels others than dockerd know the containers that they would replace.
const MASTERS: [(&str, &str); 2] =
    [("com.docker.swarm.task.id", "swarm"), ("io.kubernetes.pod.uid", "the kubelet")];

pub(super) fn of(found: &Inspected, all: &[Inspected]) -> Terms {
    Terms { obstacles: obstacles(found), changes: changes(found, all) }
}

fn obstacles(found: &Inspected) -> Vec<Obstacle> {
    let what = "`docker checkpoint` is an experiment, and cannot keep connections";
    let mut all = vec![Obstacle::of_all(ObstacleKind::NoCheckpoints, NAME.as_str(), what)];
    all.extend(engine::removed_when_ended(&NAME, found));
    let masters = MASTERS.iter().filter(|(label, _)| found.label(label).is_some());
    all.extend(masters.map(|(label, master)| {
        let what = format!("{master} starts another when it ends (label {label})");
        Obstacle::of_all(ObstacleKind::Supervised, NAME.as_str(), what)
    }));
    all
}

fn changes(found: &Inspected, all: &[Inspected]) -> Vec<String> {
    let mut changes = of_a_start(found, all);
    changes.push(engine::hidden_changes(&NAME, found));
    changes
}

/// What becomes of its addresses, and of who shares its network, when docker starts it.
pub(super) fn of_a_start(found: &Inspected, all: &[Inspected]) -> Vec<String> {
    let address = |(name, now): (&str, String)| {
        format!(
            "its address in the network {name}, now {now}: docker may give another at a start, unless `--ip` fixes it"
        )
    };
    let mut changes: Vec<String> = found.moving_addresses().map(address).collect();
    let guests = all.iter().filter(|other| other.shares() == Some(&found.id) && other.has_processes());
    changes.extend(guests.map(|guest| {
        format!("the network of {}, which shares it: it has none until it is restarted too", guest.name())
    }));
    if found.restart_policy() == "unless-stopped" {
        changes.push(
            "after a power cut while it is stopped docker does not start it (`unless-stopped`): `docker start` does"
                .to_owned(),
        );
    }
    changes
}
