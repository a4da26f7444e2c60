//! docker: the life cycle of its containers through docker's own commands.
//!
//! dockerd supervises a container by a shim and takes the end of its first process for the container's, so nothing is
//! done under its feet: it starts and stops, and its own view stays true. A container is known by its name (`docker:web`).
//!
//! There are no checkpoints: docker's are an experiment that has to be switched on, and it cannot ask CRIU to keep
//! connections. A container is restarted on the fixed files, if the manifest permits that, and the way back is a restart
//! on the old ones; [`Lifecycle::terms`] says so.
//!
//! Invariants:
//! - The daemon is asked at its own socket, whatever the environment says of others.
//! - It is never woken: where it does not run none of its containers was started since the boot, and at boot it waits
//!   for the command that would wait for it.

mod api;
mod recipe;
mod recreate;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use system::clock::Interrupt;
use system::command::{self, CommandError, Invocation, WhenLate};

pub use self::api::ApiError;
use crate::criu::images::CheckpointContent;
use crate::lifecycle::containerd;
use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::inspected::{self, Inspected, Particulars};
use crate::lifecycle::{Checkpointer, Lifecycle, Patience, Terms, engine};
use crate::model::{
    CgroupDriver, CheckpointDir, CheckpointStats, Container, DumpBase, ExecOutcome, Image, Listing, Pid,
    Restored, RuntimeName, Unreadable, WorkloadId,
};
use crate::processes::procfs;

/// The name of this runtime.
pub const NAME: RuntimeName = RuntimeName::literal("docker");

/// Where the daemon listens, and says which process it is.
const SOCKET: &str = "/run/docker.sock";
const PID_FILE: &str = "/run/docker.pid";
const DAEMON: &str = "dockerd";

/// The engine `docker`, root's.
#[derive(Debug)]
pub struct Docker {
    program: PathBuf,
    socket: PathBuf,
    pid_file: PathBuf,
    daemon: &'static str,
    patience: Patience,
}

impl Docker {
    /// docker, if it is installed. A `docker` without its daemon is another engine's, or another host's.
    pub fn found() -> Option<Self> {
        command::find(DAEMON)?;
        let program = command::find("docker")?;
        let (socket, pid_file) = (SOCKET.into(), PID_FILE.into());
        Some(Self { program, socket, pid_file, daemon: DAEMON, patience: Patience::default() })
    }

    /// Whether the daemon runs. It starts when its socket is connected to, so that is not how to ask.
    fn runs(&self) -> bool {
        let pid = fs::read_to_string(&self.pid_file).ok().and_then(|text| text.trim().parse().ok());
        pid.and_then(|pid| procfs::comm(Pid(pid))).is_some_and(|comm| comm.to_string() == self.daemon)
    }

    fn command(&self) -> Invocation<'_> {
        let command = Invocation::new(&self.program).limit(self.patience.short, WhenLate::Kill);
        command.args(["--host", &format!("unix://{}", self.socket.display())])
    }

    /// The ids of all containers, or of those that a filter takes.
    fn ids(&self, filter: Option<&str>) -> Result<Vec<String>, CommandError> {
        let mut command = self.command().args(["ps", "--all", "--quiet", "--no-trunc"]);
        if let Some(filter) = filter {
            command = command.args(["--filter", filter]);
        }
        let ids = command.output()?;
        Ok(String::from_utf8_lossy(&ids).split_whitespace().map(str::to_owned).collect())
    }

    /// What docker says of these containers.
    fn asked(&self, names: &[impl AsRef<OsStr>]) -> Result<Vec<u8>, CommandError> {
        self.command().args(["container", "inspect", "--"]).args(names).output()
    }

    /// What docker says of all its containers.
    fn all(&self) -> Result<Vec<Inspected>, RuntimeError> {
        let failed = |source| RuntimeError::List { source };
        let ids = self.ids(None).map_err(failed)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        inspected::all(&NAME, &self.asked(&ids).map_err(failed)?)
    }

    fn inspected(&self, id: &WorkloadId) -> Result<Option<Inspected>, RuntimeError> {
        let name = id.id.as_str();
        let json = match self.asked(&[name]) {
            Ok(json) => json,
            // The filter is an expression, in which a dot is any character: what it does not take is not there.
            Err(source) => {
                return match self.ids(Some(&format!("name=^/{name}$"))) {
                    Ok(ids) if ids.is_empty() => Ok(None),
                    _ => Err(RuntimeError::Refused { action: "inspect", id: id.clone(), source }),
                };
            }
        };
        // docker takes the beginning of an id for a name, too.
        Ok(inspected::all(&NAME, &json)?.into_iter().find(|found| found.name() == name))
    }

    fn known(&self, id: &WorkloadId) -> Result<Inspected, RuntimeError> {
        self.inspected(id)?.ok_or_else(|| RuntimeError::Unknown { id: id.clone() })
    }
}

/// The container, as everybody else knows it.
fn container(found: &Inspected) -> Result<Container, RuntimeError> {
    let init = found.init();
    if init.is_some_and(has_other_users) {
        return Err(RuntimeError::Storage {
            driver: "overlay2 with users of its own (userns-remap)".to_owned(),
        });
    }
    let cgroup = init.and_then(procfs::cgroup_of).and_then(|path| own_cgroup(&path, &found.id));
    let cgroup_driver = match cgroup.as_deref().is_some_and(|path| path.to_string_lossy().ends_with(".scope"))
    {
        true => CgroupDriver::Systemd,
        false => CgroupDriver::Cgroupfs,
    };
    let bundle = [containerd::TASKS, containerd::DOCKER, &found.id].iter().collect();
    found.container(Particulars { runtime: NAME, driver: "overlay2", bundle, cgroup, cgroup_driver })
}

/// The group that docker made for a container, of the one that its first process is in: a container may have groups below
/// its own.
fn own_cgroup(path: &Path, id: &str) -> Option<PathBuf> {
    let named = |path: &&Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(id));
    path.ancestors().find(named).map(Path::to_owned)
}

/// Whether root inside is another user outside: the files of a layer would be nobody's there.
fn has_other_users(init: Pid) -> bool {
    let map = fs::read_to_string(format!("/proc/{init}/uid_map")).unwrap_or_default();
    map.split_whitespace().nth(1).is_some_and(|outside| outside != "0")
}

/// Who leads a session in a container beside its first process: what was executed there. The shim is the parent of both.
fn executed(container: &Container) -> BTreeSet<Pid> {
    let shim = container.init.and_then(procfs::parent);
    let all = container.cgroup.as_deref().map(procfs::pids_in_cgroup).unwrap_or_default();
    let begun = |pid: &Pid| Some(*pid) != container.init && shim.is_some() && procfs::parent(*pid) == shim;
    all.into_iter().filter(begun).collect()
}

impl Lifecycle for Docker {
    fn list(&self) -> Result<Listing, RuntimeError> {
        if !self.runs() {
            let why = format!("{DAEMON} does not run, and is not started to be asked");
            let unreadable = vec![Unreadable { container: format!("of {NAME}"), why }];
            return Ok(Listing { unreadable, ..Listing::default() });
        }
        Ok(engine::listing(&NAME, &self.all()?, container))
    }

    fn inspect(&self, id: &WorkloadId) -> Result<Option<Container>, RuntimeError> {
        match self.runs() {
            true => self.inspected(id)?.as_ref().map(container).transpose(),
            false => Ok(None),
        }
    }

    fn start(&self, container: &Container) -> Result<Pid, RuntimeError> {
        engine::start(self, self.command().limit(self.patience.long, WhenLate::Kill), &container.id)
    }

    fn stop(&self, id: &WorkloadId, patience: Duration) -> Result<(), RuntimeError> {
        if self.inspect(id)?.is_none_or(|found| !found.status.has_processes()) {
            return Ok(());
        }
        let limit = self.patience.kill + patience + self.patience.short;
        engine::stop(self, self.command(), id, patience, limit)
    }

    fn exec(
        &self,
        id: &WorkloadId,
        command: &[String],
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError> {
        let container = container(&self.known(id)?)?;
        let before = executed(&container);
        engine::exec(self.command().limit(timeout, WhenLate::Kill), id, command, interrupt, || {
            let begun = executed(&container);
            begun
                .difference(&before)
                .for_each(|pid| procfs::kill_session_of(*pid, container.cgroup.as_deref()));
        })
    }

    fn image(&self, id: &WorkloadId) -> Result<Option<Image>, RuntimeError> {
        let Some(found) = self.inspected(id)? else { return Ok(None) };
        engine::image(self.command(), id, &found)
    }

    fn terms(&self, container: &Container) -> Result<Terms, RuntimeError> {
        let all = self.all()?;
        let found = all.iter().find(|found| found.name() == container.id.id.as_str());
        let found = found.ok_or_else(|| RuntimeError::Unknown { id: container.id.clone() })?;
        Ok(terms::of(found, &all))
    }
}

/// Nobody's memory is written down, so there is never anything to wait for; the rest is not asked for.
impl Checkpointer for Docker {
    fn settled(&self, _: &WorkloadId) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn pre_dump(&self, id: &WorkloadId, _: &CheckpointDir) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoCheckpoints { id: id.clone() })
    }

    fn checkpoint(
        &self,
        id: &WorkloadId,
        _: &CheckpointDir,
        _: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError> {
        Err(RuntimeError::NoCheckpoints { id: id.clone() })
    }

    fn content(&self, id: &WorkloadId, _: &CheckpointDir) -> Result<CheckpointContent, RuntimeError> {
        Err(RuntimeError::NoCheckpoints { id: id.clone() })
    }

    fn restore(&self, container: &Container, _: &CheckpointDir) -> Result<Restored, RuntimeError> {
        Err(RuntimeError::NoCheckpoints { id: container.id.clone() })
    }
}
