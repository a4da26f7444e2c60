//! Which processes still run files that were replaced, deleted, or are known to be at fault.
//!
//! The question of needrestart and checkrestart, answered from what is mapped and not from names:
//!
//! - *outdated*: code is mapped from a file that is not the one under its path any more. The same
//!   build under a new inode (a package installed once more) is not outdated; a deleted file that is
//!   no ELF file (a just-in-time compiler's) is none either. No path is left out by its name.
//! - *at fault*: any mapping of a file whose build-id or SHA-256 is asked for, whatever its path.
//!
//! - *not proven*: code that a process may run and that its mappings do not show ([`NotProven`]).
//!
//! A process that ends meanwhile is left out. One of which something cannot be told is counted and named,
//! because it may not pass as up to date; what is known of it is told all the same.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{Comm, Pid, SeenPath, Units};
use crate::processes::contents::{Allowance, Sought, Wanted};
use crate::processes::look::{Look, Questions, Seen};
use crate::processes::procfs;
use crate::processes::program::{NotProven, Program};
use crate::processes::unknown::Unknown;
use crate::processes::watchdog::{self, LookError, Onlooker, PATIENCE, Pulse, Subject};

pub use crate::processes::look::Why;

/// A process that should not go on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Its id on the host.
    pub pid: Pid,
    /// What it calls itself.
    pub comm: Comm,
    /// Its control group in the unified hierarchy.
    pub cgroup: Option<SeenPath>,
    /// The systemd units that it is in, by its control group.
    #[serde(flatten)]
    pub units: Units,
    /// The program that it was started with; `null` if that cannot be told.
    pub program: Option<Program>,
    /// The files, by path.
    pub files: Vec<StaleFile>,
}

/// A process that may run what its mappings do not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opaque {
    /// Its id on the host.
    pub pid: Pid,
    /// The program that it was started with; `null` if that cannot be told.
    pub program: Option<Program>,
    /// What that is.
    pub not_proven: Vec<NotProven>,
}

/// A file that a process should not go on running.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StaleFile {
    /// Where it is or was, as the process sees it.
    pub path: SeenPath,
    /// Why.
    #[serde(flatten)]
    pub why: Why,
    /// Whether it is the program that the process was started with.
    pub is_program: bool,
}

/// What a look at all processes found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// How many processes could be looked at whole.
    pub processes: usize,
    /// How many could not: another user's, or with a file that nobody can read.
    pub unreadable: usize,
    /// What could not be told of those.
    pub unknown: Vec<Unknown>,
    /// Those that should not go on as they are, by id.
    pub stale: Vec<Stale>,
    /// Those that may run what their mappings do not show, by id.
    pub opaque: Vec<Opaque>,
}

/// Looks at every process of the host. Kernel threads map nothing.
///
/// # Errors
/// When `/proc` cannot be listed, somebody asked to stop, or no thread could be started.
pub fn scan(wanted: &[Wanted], onlooker: Onlooker<'_>) -> Result<Scan, LookError> {
    let entries = fs::read_dir("/proc").map_err(LookError::List)?;
    let mut pids: Vec<Pid> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid)).collect();
    pids.sort_unstable();
    let seen = look_at(&pids, wanted, onlooker)?;
    let mut result =
        Scan { processes: 0, unreadable: 0, unknown: Vec::new(), stale: Vec::new(), opaque: Vec::new() };
    for (pid, seen) in pids.into_iter().zip(seen) {
        if seen.unknown.is_empty() {
            result.processes += 1;
        } else {
            let unknown = Unknown::of(pid, seen.unknown);
            result.unreadable += usize::from(!unknown.is_empty());
            result.unknown.extend(unknown);
        }
        let program = seen.program.as_deref();
        if !seen.not_proven.is_empty() {
            let not_proven = seen.not_proven.into_iter().collect();
            result.opaque.push(Opaque { pid, program: program.cloned(), not_proven });
        }
        if seen.files.is_empty() {
            continue;
        }
        let Some(comm) = procfs::comm(pid) else { continue };
        let cgroup = procfs::cgroup_of(pid).map(|path: PathBuf| SeenPath::from(&*path));
        let units = cgroup.as_ref().map(|path| Units::of(path.as_bytes())).unwrap_or_default();
        let is_program = |path: &SeenPath| program.is_some_and(|program| program.path == *path);
        let files = seen.files.into_iter();
        let files = files.map(|(path, why)| StaleFile { is_program: is_program(&path), path, why }).collect();
        result.stale.push(Stale { pid, comm, cgroup, units, program: program.cloned(), files });
    }
    Ok(result)
}

fn look_at(pids: &[Pid], wanted: &[Wanted], onlooker: Onlooker<'_>) -> Result<Vec<Seen>, LookError> {
    let sought = Arc::new(Sought::new(wanted));
    let make = |silent: &[Subject]| {
        let mut look = Look::new(Questions::OutdatedToo, Arc::clone(&sought), silent);
        move |pid: &Pid, pulse: &Pulse| look.process(*pid, &mut Allowance::default(), pulse)
    };
    watchdog::over(pids, onlooker, PATIENCE, make, |_, subject| Seen::silent(subject))
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
