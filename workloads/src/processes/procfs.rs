//! The processes of a container, as `/proc` and the cgroup file system show them.
//!
//! Everything here races with the processes themselves: what vanished while it was read is left
//! out, never an error. And it is bytes: names are what processes call themselves ([`Comm`]); where only the
//! kernel's own words are looked at, [`words`] reads them whatever stands beside them.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::signal::{Signal, kill};

use crate::model::{Comm, Pid, Units};

/// Where cgroup v2 is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id on the host.
    pub pid: Pid,
    /// Its id in the innermost pid namespace it lives in.
    pub inner: u32,
    /// Its command name.
    pub comm: Comm,
}

/// Host pids in a cgroup and all cgroups below it. Zombies are not among them.
pub fn pids_in_cgroup(cgroup: &Path) -> Vec<Pid> {
    let mut pids = Vec::new();
    let mut waiting = vec![Path::new(CGROUPS).join(cgroup.strip_prefix("/").unwrap_or(cgroup))];
    while let Some(directory) = waiting.pop() {
        pids.extend(members(&directory));
        let children = fs::read_dir(&directory).into_iter().flatten().flatten();
        waiting
            .extend(children.filter(|one| one.file_type().is_ok_and(|t| t.is_dir())).map(|one| one.path()));
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The processes in a group. One that has its threads in groups of their own shows them as such only
/// (`cgroup.type`, `Documentation/admin-guide/cgroup-v2.rst`).
fn members(directory: &Path) -> Vec<Pid> {
    let numbers = |file: &str| -> io::Result<Vec<Pid>> {
        let text = words(directory.join(file))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).map(Pid).collect())
    };
    match numbers("cgroup.procs") {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let threads = numbers("cgroup.threads").unwrap_or_default();
            threads.into_iter().filter_map(process_of).collect()
        }
        members => members.unwrap_or_default(),
    }
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> Option<Pid> {
    let status = words(format!("/proc/{thread}/status")).ok()?;
    status_field(&status, "Tgid")?.parse().ok().map(Pid)
}

/// The living processes of a cgroup.
pub fn in_cgroup(cgroup: &Path) -> Vec<Process> {
    pids_in_cgroup(cgroup).into_iter().filter_map(describe).collect()
}

/// What a process is called, inside and outside.
pub fn describe(pid: Pid) -> Option<Process> {
    let status = words(format!("/proc/{pid}/status")).ok()?;
    let inner = status_field(&status, "NSpid")?.split_whitespace().last()?.parse().ok()?;
    Some(Process { pid, inner, comm: comm(pid)? })
}

/// What a process calls itself.
pub fn comm(pid: Pid) -> Option<Comm> {
    let mut room = [0; 64];
    short(&format!("/proc/{pid}/comm"), &mut room).ok().map(Comm::from_file)
}

/// What one `read(2)` gives of a file that the kernel makes up: all of it, if it is shorter than the room.
fn short<'a>(path: &str, room: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let got = fs::File::open(path)?.read(room)?;
    Ok(&room[..got])
}

/// A text of the kernel's, of which only the kernel's own words are looked at: a name that is no text must not
/// hide them.
pub(crate) fn words(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// A field of `/proc/PID/status`.
pub(crate) fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The cgroup v2 path of a process.
pub fn cgroup_of(pid: Pid) -> Option<PathBuf> {
    let mut room = [0; 4096];
    let path = format!("/proc/{pid}/cgroup");
    // On a host with many hierarchies of the first version it may be long.
    let text = match short(&path, &mut room).ok()? {
        whole if whole.len() < 4096 => whole.to_owned(),
        _ => fs::read(&path).ok()?,
    };
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// The systemd units that a process is in, by the names of its groups.
pub fn units_of(pid: Pid) -> Units {
    cgroup_of(pid).map(|path| Units::of(path.as_os_str().as_bytes())).unwrap_or_default()
}

/// Kills the session that a pid file names, if it still belongs to `cgroup`.
pub(crate) fn kill_session(pid_file: &Path, cgroup: Option<&Path>) {
    if let Some(pid) = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok()) {
        kill_session_of(Pid(pid), cgroup);
    }
}

/// Kills the session that a process leads, if that still belongs to `cgroup`.
///
/// runc makes what it executes a session leader, so its children go with it.
pub(crate) fn kill_session_of(leader: Pid, cgroup: Option<&Path>) {
    let belongs = cgroup_of(leader).is_some_and(|of| cgroup.is_some_and(|all| of.starts_with(all)));
    let pid = leader.0 as i32;
    if belongs && pid > 1 {
        // Gone already is as good.
        let _ = kill(nix::unistd::Pid::from_raw(-pid), Signal::SIGKILL);
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The parent of a process.
pub(crate) fn parent(pid: Pid) -> Option<Pid> {
    let status = words(format!("/proc/{pid}/status")).ok()?;
    status_field(&status, "PPid")?.parse().ok().map(Pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_describes_itself() {
        let own = describe(Pid(std::process::id())).unwrap();
        assert_eq!(own.pid, Pid(std::process::id()));
        assert!(!own.comm.as_bytes().is_empty());
    }

    #[test]
    fn a_vanished_process_is_left_out() {
        assert_eq!(describe(Pid(u32::MAX)), None);
        assert_eq!(pids_in_cgroup(Path::new("/no/such/cgroup")), []);
    }

    #[test]
    fn status_fields_are_found_by_their_whole_name() {
        let status = "Name:\tx\nPid:\t7\nPPid:\t1\nNSpid:\t7\t2\n";
        assert_eq!(status_field(status, "Pid"), Some("7"));
        assert_eq!(status_field(status, "NSpid"), Some("7\t2"));
        assert_eq!(status_field(status, "NS"), None);
    }
}
