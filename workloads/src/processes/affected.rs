//! Which containers run the files at fault: what their processes have *mapped*, not what lies on disk.
//!
//! Trouble with one container is that container's: what could not be told of its processes is with it, and
//! whoever decides treats it as affected.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifests::FileIdentity;

use crate::model::{Container, Pid, SeenPath};
use crate::processes::contents::{Allowance, Sought, Wanted};
use crate::processes::look::{Look, Questions, Seen, Why};
use crate::processes::procfs;
use crate::processes::unknown::{Reason, Unknown};
use crate::processes::watchdog::{self, LookError, Onlooker, PATIENCE, Pulse, Subject};

/// A file at fault that a container has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// What it was known by.
    pub identity: FileIdentity,
    /// Where it is, as the container sees it.
    pub path: SeenPath,
    /// Who has mapped it.
    pub processes: Vec<Pid>,
}

/// What was found of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// The files at fault.
    pub matches: Vec<Match>,
    /// What could not be told; the container may be affected by anything.
    pub unknown: Vec<Unknown>,
}

/// For each container, the files among `wanted` that its processes have mapped.
///
/// # Errors
/// When somebody asked to stop, or no thread could be started. Whatever cannot be read is in the result.
pub fn mapped(
    containers: &[Container],
    wanted: &[Wanted],
    onlooker: Onlooker<'_>,
) -> Result<Vec<Mapped>, LookError> {
    let groups: Vec<Vec<Pid>> = containers
        .iter()
        .map(|container| container.cgroup.as_deref().map(procfs::pids_in_cgroup).unwrap_or_default())
        .collect();
    let mut found = look_at(&groups, wanted, onlooker)?;
    for (found, container) in found.iter_mut().zip(containers) {
        found.unknown.extend(lost(container));
    }
    Ok(found)
}

/// The same for groups of processes.
fn look_at(groups: &[Vec<Pid>], wanted: &[Wanted], onlooker: Onlooker<'_>) -> Result<Vec<Mapped>, LookError> {
    let sought = Arc::new(Sought::new(wanted));
    let members = groups.iter().enumerate();
    let jobs: Vec<(usize, Pid)> =
        members.flat_map(|(group, pids)| pids.iter().map(move |pid| (group, *pid))).collect();
    let make = |silent: &[Subject]| {
        let mut look = Look::new(Questions::AtFault, Arc::clone(&sought), silent);
        let (mut of, mut allowance) = (0, Allowance::default());
        move |&(group, pid): &(usize, Pid), pulse: &Pulse| {
            if group != of {
                (of, allowance) = (group, Allowance::default());
            }
            look.process(pid, &mut allowance, pulse)
        }
    };
    let no_answer = |_: &(usize, Pid), subject: Option<&Subject>| Seen::silent(subject);
    let seen = watchdog::over(&jobs, onlooker, PATIENCE, make, no_answer)?;
    let mut found = vec![Mapped::default(); groups.len()];
    let mut files: Vec<BTreeMap<(FileIdentity, SeenPath), Vec<Pid>>> = vec![BTreeMap::new(); groups.len()];
    for ((group, pid), seen) in jobs.into_iter().zip(seen) {
        for (path, why) in seen.files {
            if let Why::AtFault { identity } = why {
                files[group].entry((identity, path)).or_default().push(pid);
            }
        }
        found[group].unknown.extend(Unknown::of(pid, seen.unknown));
    }
    for (found, files) in found.iter_mut().zip(files) {
        found.matches.extend(files.into_iter().map(|((identity, path), processes)| Match {
            identity,
            path,
            processes,
        }));
    }
    Ok(found)
}

/// What is unknown of a container that has processes, and of which nobody knows where they are.
fn lost(container: &Container) -> Vec<Unknown> {
    let lost = container.init.filter(|_| container.cgroup.is_none());
    lost.map_or_else(Vec::new, |pid| Unknown::of(pid, [(None, Reason::NoGroup)]))
}

#[cfg(test)]
#[path = "affected_tests.rs"]
mod tests;
