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
        let own = namespace(process.pid, name);
        // Children of the first process go to the first process's own pid namespace.
        let reference = namespace(init, name.trim_end_matches("_for_children"));
        if let (Some(own), Some(reference)) = (own, reference)
            && own != reference
        {
            found.push(of(process, kind, format!("namespace {name}"), own));
        }
    }
    for (tid, status) in threads(process.pid) {
        let tracer = status_field(&status, "TracerPid").unwrap_or("0");
        if tracer != "0" {
            let by = tracer.parse().ok().and_then(|tracer| procfs::comm(Pid(tracer))).unwrap_or_default();
            let tracer = format!("traced by {by} (pid {tracer})");
            found.push(of(process, ObstacleKind::Traced, format!("thread {tid}"), tracer));
        }
    }
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
