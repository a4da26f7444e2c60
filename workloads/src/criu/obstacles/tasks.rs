//! Tasks: where they live, who traces them, whether they can be stopped.

use std::fs;

use crate::criu::obstacles::of;
use crate::model::Pid;
use crate::model::{Obstacle, ObstacleKind};
use crate::processes::procfs::{self, Process, status_field};

/// Namespaces and tracing of one process.
pub(crate) fn look(process: &Process, init: Pid, found: &mut Vec<Obstacle>) {
    for (name, kind) in [
        ("user", ObstacleKind::NestedUserNamespace),
        ("pid", ObstacleKind::NestedPidNamespace),
        // Made by `unshare` for children yet to come.
        ("pid_for_children", ObstacleKind::NestedPidNamespace),
        ("net", ObstacleKind::SecondNetworkNamespace),
    ] {
        found.extend(elsewhere(process, init, name, kind));
    }
    found.extend(in_another_time(process, init));
    for (tid, status) in threads(process.pid) {
        let tracer = status_field(&status, "TracerPid").unwrap_or("0");
        if tracer != "0" {
            let by = tracer.parse().ok().and_then(|tracer| procfs::comm(Pid(tracer))).unwrap_or_default();
            let tracer = format!("traced by {by} (pid {tracer})");
            found.push(of(process, ObstacleKind::Traced, format!("thread {tid}"), tracer));
        }
    }
}

/// What CRIU dumps and then does not restore, CRIU 4.1.1 by `Can't restore sub-task in NS (cflags 80)`. It gives all
/// that it brings back a time namespace of their own, which what `runc exec` starts later does not enter: so it meets
/// containers that came back once.
pub(crate) fn in_another_time(process: &Process, init: Pid) -> Option<Obstacle> {
    let kind = ObstacleKind::SecondTimeNamespace;
    ["time", "time_for_children"].iter().find_map(|name| elsewhere(process, init, name, kind))
}

/// A namespace of a process that is not the one of the container's first process.
fn elsewhere(process: &Process, init: Pid, name: &str, kind: ObstacleKind) -> Option<Obstacle> {
    let own = namespace(process.pid, name)?;
    // Children of the first process go to the first process's own namespaces.
    let reference = namespace(init, name.trim_end_matches("_for_children"))?;
    (own != reference).then(|| of(process, kind, format!("namespace {name}"), own))
}

/// Threads in uninterruptible sleep at this instant.
pub(crate) fn sleeping(processes: &[Process]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for process in processes {
        for (tid, status) in threads(process.pid) {
            if status_field(&status, "State").is_some_and(|state| state.starts_with('D')) {
                let place = format!("thread {tid}");
                let state = "in uninterruptible sleep";
                found.push(of(process, ObstacleKind::UninterruptibleSleep, place, state));
            }
        }
    }
    found
}

fn namespace(pid: Pid, name: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// The status of each thread of a process.
fn threads(pid: Pid) -> Vec<(String, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = |entry: fs::DirEntry| {
        let status = procfs::words(entry.path().join("status")).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), status))
    };
    entries.filter_map(status).collect()
}
