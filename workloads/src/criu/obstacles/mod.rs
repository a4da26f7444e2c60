//! Can this container be checkpointed? Judged from `/proc`, before anything is frozen.
//!
//! CRIU itself says no only after it has frozen the container and looked for a second or more, and
//! then by a line in a log. Everything that it refuses and that can be seen from outside is looked
//! for here, so that a plan can say beforehand what will happen.
//!
//! - [`tasks`]: namespaces, tracing, uninterruptible sleep
//! - [`descriptors`]: what each open descriptor is
//! - [`sockets`]: unix peers and TCP states, from the kernel's socket diagnosis
//! - [`surroundings`]: bundle, mounts, network, supervisor, programs and modules of the host
//!
//! What may pass by itself (a task in disk wait, a connection being made) counts only if it is still
//! there after [`PERSISTS`]. Processes that end while they are looked at are left out. This is a
//! judgement, not a lock: what appears between it and the dump, CRIU still refuses, and the
//! container runs on. What it does not refuse and cannot bring back is looked for again ([`bars_the_way_back`]).

#![expect(clippy::disallowed_methods, reason = "passing states pass in real time")]

mod descriptors;
mod sockets;
mod surroundings;
mod tasks;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Container, ContainerStatus, Pid};
use crate::model::{Obstacle, ObstacleKind, ObstacleProcess};
use crate::processes::procfs;
use crate::processes::procfs::Process;

/// How often passing states are looked at, and how long apart: a disk wait under load or a TCP
/// handshake in a data centre is over by then.
const LOOKS: u32 = 3;
const PERSISTS: Duration = Duration::from_millis(60);

/// Everything that stands in the way of a checkpoint of this container; empty if nothing does.
pub fn judge(container: &Container) -> Vec<Obstacle> {
    let runtime = &container.id.runtime;
    let mut found = surroundings::host(runtime);
    let (ContainerStatus::Running, Some(init), Some(cgroup)) =
        (container.status, container.init, container.cgroup.as_deref())
    else {
        let status = format!("{:?}", container.status).to_lowercase();
        found.push(Obstacle::of_all(ObstacleKind::NotRunning, format!("container {}", container.id), status));
        return found;
    };
    let processes = procfs::in_cgroup(cgroup);
    let bundle = surroundings::Bundle::read(container, &mut found);
    surroundings::container(container, init, &bundle, &mut found);
    for one in &processes {
        tasks::look(one, init, &mut found);
    }
    let view = descriptors::look(&processes, runtime, &bundle, &mut found);
    sockets::look(init, &view, &mut found);
    found.extend(persisting(&processes, init, &view));
    found.sort_by(|a, b| (a.kind, &a.place).cmp(&(b.kind, &b.place)));
    found.dedup();
    found
}

/// What would be dumped and could not be brought back, looked for once more right before the dump: it comes with every
/// command that somebody runs in the container.
pub(crate) fn bars_the_way_back(container: &Container) -> Option<Obstacle> {
    let (init, cgroup) = (container.init?, container.cgroup.as_deref()?);
    procfs::in_cgroup(cgroup).iter().find_map(|process| tasks::in_another_time(process, init))
}

/// Passing states that do not pass.
fn persisting(processes: &[Process], init: Pid, view: &descriptors::View) -> Vec<Obstacle> {
    let look = || {
        let mut found = tasks::sleeping(processes);
        found.extend(sockets::passing(init, view));
        found
    };
    let mut still = look();
    for _ in 1..LOOKS {
        if still.is_empty() {
            break;
        }
        std::thread::sleep(PERSISTS / LOOKS);
        let now: BTreeSet<(ObstacleKind, String)> =
            look().into_iter().map(|one| (one.kind, one.place)).collect();
        still.retain(|one| now.contains(&(one.kind, one.place.clone())));
    }
    still
}

/// An obstacle that a process has.
fn of(process: &Process, kind: ObstacleKind, place: impl Into<String>, found: impl Into<String>) -> Obstacle {
    let owner = ObstacleProcess { pid: process.pid, comm: process.comm.to_string() };
    Obstacle { kind, process: Some(owner), place: place.into(), found: found.into() }
}

#[cfg(test)]
mod tests;
