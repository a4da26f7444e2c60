//! podman: the life cycle of root's containers through podman's own commands.
//!
//! podman supervises a container by conmon, and takes the end of its first process for the container's. So nothing is
//! done under its feet: it checkpoints, starts, stops and restores, and its own view stays true. A container is known by
//! its name (`podman:web`).
//!
//! Invariants, beside those of [`runc`](crate::lifecycle::runc):
//! - The images of a finished checkpoint are ours: podman would write over them with the next. They are put back for a
//!   restore, with the address that the container had.
//! - What comes back is supervised as before: a restart policy that a stop had suspended, and the timer of a health check,
//!   which podman's restore leaves out, are put in force again.
//!
//! What this does not do: rootless containers (their podman is another's), pods, quadlets; [`Lifecycle::terms`] says so.

mod describe;
mod recipe;
mod recreate;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use system::clock::Interrupt;
use system::command::{self, HeldLock, Invocation, WhenLate};
use system::durable;

use crate::criu::images::CheckpointContent;
use crate::lifecycle::checkpoints::{
    complete, forget_complete, fresh_directory, full_work, note_boot, read_complete, sync_file_system,
    written_since_boot,
};
use crate::lifecycle::error::{AfterFailure, RuntimeError};
use crate::lifecycle::helpers::Helpers;
use crate::lifecycle::inspected::{self, Inspected};
use crate::lifecycle::{Checkpointer, Lifecycle, Patience, Terms, came_back, can_come_back, engine};
use crate::model::{
    CheckpointDir, CheckpointStats, Container, DumpBase, ExecOutcome, Image, Listing, Pid, Restored,
    RuntimeName, WorkloadId,
};
use crate::processes::procfs;

/// The name of this runtime.
pub const NAME: RuntimeName = RuntimeName::literal("podman");

/// Deleted files up to this size travel inside the checkpoint: CRIU's default, since podman passes no other on.
pub const GHOST_LIMIT: u64 = 1 << 20;

/// podman's word for an answer that it does not have: no such container.
const NO_SUCH: i32 = 1;

/// What podman calls the parts of a checkpoint, in a container's directory.
const IMAGES: &str = "checkpoint";
const PRE_IMAGES: &str = "pre-checkpoint";
/// By this name, beside the images, CRIU finds the pages that were written before.
const PARENT: &str = "parent";
/// What belongs to the images and lies beside them: `/dev/shm`, and the addresses that the container had. The
/// statistics come last: they say that all is there.
const COMPANIONS: [&str; 4] = ["devshm-checkpoint.tar", "network.status", "dump.log", "stats-dump"];
/// Those that a restore needs.
const FOR_RESTORE: [&str; 2] = ["devshm-checkpoint.tar", "network.status"];

/// The runtime `podman`, root's.
#[derive(Debug)]
pub struct Podman {
    program: PathBuf,
    helpers: Helpers,
    lock: Option<HeldLock>,
    patience: Patience,
}

impl Podman {
    /// podman, if it is installed.
    pub fn found() -> Option<Self> {
        let program = command::find("podman")?;
        Some(Self { program, helpers: Helpers::default(), lock: None, patience: Patience::default() })
    }

    /// Another program of the same command line, and another directory for what is under way.
    pub fn run_by(program: impl Into<PathBuf>, helpers: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            helpers: Helpers::at(helpers.into()),
            lock: None,
            patience: Patience::default(),
        }
    }

    /// Makes commands that change a container hold this lock while they run.
    pub fn holding(mut self, lock: HeldLock) -> Self {
        self.lock = Some(lock);
        self
    }

    fn command(&self) -> Invocation<'_> {
        Invocation::new(&self.program).limit(self.patience.short, WhenLate::Kill)
    }

    /// A command about one container that is over in a moment.
    fn brief(&self, action: &'static str, words: &[&str], id: &WorkloadId) -> Result<(), RuntimeError> {
        let run = self.command().args(words).arg("--").arg(id.id.as_str()).output();
        run.map(drop).map_err(|source| RuntimeError::Refused { action, id: id.clone(), source })
    }

    fn inspected(&self, id: &WorkloadId) -> Result<Option<Inspected>, RuntimeError> {
        let refused = |source| RuntimeError::Refused { action: "inspect", id: id.clone(), source };
        let json = match self.command().args(["container", "inspect", "--"]).arg(id.id.as_str()).output() {
            Ok(json) => json,
            Err(source) => {
                let asked = self.command().args(["container", "exists", "--"]).arg(id.id.as_str()).run();
                return match asked {
                    Ok(answer) if answer.status.code() == Some(NO_SUCH) => Ok(None),
                    _ => Err(refused(source)),
                };
            }
        };
        // podman takes the beginning of an id for a name, too.
        Ok(inspected::all(&NAME, &json)?.into_iter().find(|found| found.name() == id.id.as_str()))
    }

    fn known(&self, id: &WorkloadId) -> Result<Inspected, RuntimeError> {
        self.inspected(id)?.ok_or_else(|| RuntimeError::Unknown { id: id.clone() })
    }

    fn settled_and_known(&self, id: &WorkloadId) -> Result<Inspected, RuntimeError> {
        self.settled(id)?;
        self.known(id)
    }

    /// `podman container checkpoint`, with CRIU's own words on failure.
    fn dump(
        &self,
        id: &WorkloadId,
        action: &'static str,
        bundle: &Path,
        more: &[&str],
    ) -> Result<(), RuntimeError> {
        let command = self
            .command()
            .args(["container", "checkpoint", "--keep", "--tcp-established", "--file-locks"])
            .args(more)
            .arg("--")
            .arg(id.id.as_str());
        let run = self.helpers.moving_memory(command, id, self.patience.long, self.lock.as_ref())?.output();
        run.map(drop).map_err(|source| {
            let error =
                RuntimeError::of_criu(action, id, &bundle.join("dump.log"), source, || self.inspect(id));
            // Where it does not run any more this may be the only copy of its memory.
            if matches!(error, RuntimeError::Criu { state: AfterFailure::StillRunning, .. }) {
                clear(bundle);
            }
            error
        })
    }

    /// Takes a checkpoint that podman has finished into our directory. What was moved before is not there any more.
    fn take_over(&self, id: &WorkloadId, bundle: &Path, dir: &CheckpointDir) -> Result<(), RuntimeError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| RuntimeError::Prepare { path, source }
        };
        let work = full_work(dir);
        for (from, to) in [(PRE_IMAGES, dir.pre()), (IMAGES, dir.full())] {
            carry(&bundle.join(from), &to).map_err(at(&to))?;
        }
        let parent = dir.full().join(PARENT);
        if parent.is_symlink() {
            relink(&parent, "../pre").map_err(at(&parent))?;
        }
        for name in COMPANIONS {
            carry(&bundle.join(name), &work.join(name)).map_err(at(&work.join(name)))?;
        }
        sync_file_system(&work)?;
        clear(bundle);
        match work.join("stats-dump").exists() {
            true => Ok(()),
            false => Err(RuntimeError::Incomplete { id: id.clone(), path: dir.root().to_owned() }),
        }
    }

    /// Lays a checkpoint where podman looks for it.
    fn lay_out(&self, bundle: &Path, dir: &CheckpointDir) -> Result<(), RuntimeError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| RuntimeError::Prepare { path, source }
        };
        for (from, name) in [(dir.pre(), PRE_IMAGES), (dir.full(), IMAGES)] {
            let to = bundle.join(name);
            durable::remove(&to).map_err(at(&to))?;
            if from.is_dir() {
                copy_images(&from, &to).map_err(at(&to))?;
            }
        }
        let parent = bundle.join(IMAGES).join(PARENT);
        if parent.is_symlink() {
            relink(&parent, "../pre-checkpoint").map_err(at(&parent))?;
        }
        for name in FOR_RESTORE {
            let (from, to) = (full_work(dir).join(name), bundle.join(name));
            if from.exists() {
                fs::copy(&from, &to).map_err(at(&to))?;
            }
        }
        Ok(())
    }

    /// A stop suspends the restart policy for as long as the container is not started, and a restore is no start for
    /// podman. Making the container anew, and taking that back, puts it in force.
    fn forget_stop(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        self.brief("prepare", &["init"], id)?;
        self.brief("clean up after", &["container", "cleanup"], id)
    }

    /// podman's restore leaves out the timer of a health check. It sets one anew when the interval changes, and only then:
    /// so the interval is another for a moment.
    fn watch_health(&self, id: &WorkloadId, interval: u64) -> Result<(), RuntimeError> {
        [interval + 1_000_000_000, interval].iter().try_for_each(|interval| {
            let interval = format!("{interval}ns");
            self.brief("look after the health of", &["update", "--health-interval", &interval], id)
        })
    }
}

/// Takes away what is left of a dump or restore in a container's directory: it would be part of the next, and it holds
/// memory.
fn clear(bundle: &Path) {
    let left =
        [IMAGES, PRE_IMAGES, "irmap-cache", "restore.log", "stats-restore"].into_iter().chain(COMPANIONS);
    for path in left.map(|name| bundle.join(name)) {
        if let Err(error) = durable::remove(&path) {
            tracing::warn!(%error, path = %path.display(), "part of a checkpoint stays with podman");
        }
    }
}

/// Moves a file or directory, to another file system if need be. Not there is success: it was moved before.
fn carry(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    durable::remove(to)?;
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        renamed => return renamed,
    }
    match from.is_dir() {
        true => copy_images(from, to)?,
        false => drop(fs::copy(from, to)?),
    }
    durable::sync_file_system(to)?;
    durable::remove(from)
}

/// Images are files and one link; they are as large as a container's memory, so they are linked where that is possible.
fn copy_images(from: &Path, to: &Path) -> io::Result<()> {
    durable::make_directory(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn relink(link: &Path, target: &str) -> io::Result<()> {
    fs::remove_file(link)?;
    symlink(target, link)
}

/// The directories of commands that run inside a container, each named by its session.
fn sessions(bundle: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(bundle).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).filter(|name| name.len() == 64).collect()
}

impl Lifecycle for Podman {
    fn list(&self) -> Result<Listing, RuntimeError> {
        let failed = |source| RuntimeError::List { source };
        let ids = self.command().args(["ps", "--all", "--quiet", "--no-trunc"]).output().map_err(failed)?;
        let ids = String::from_utf8_lossy(&ids);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(Listing::default());
        }
        let json = self.command().args(["container", "inspect", "--"]).args(ids).output().map_err(failed)?;
        Ok(engine::listing(&NAME, &inspected::all(&NAME, &json)?, describe::container))
    }

    fn inspect(&self, id: &WorkloadId) -> Result<Option<Container>, RuntimeError> {
        self.inspected(id)?.as_ref().map(describe::container).transpose()
    }

    fn start(&self, container: &Container) -> Result<Pid, RuntimeError> {
        self.settled(&container.id)?;
        engine::start(self, self.command().limit(self.patience.long, WhenLate::Kill), &container.id)
    }

    fn stop(&self, id: &WorkloadId, patience: Duration) -> Result<(), RuntimeError> {
        self.settled(id)?;
        // podman does not stop what was never started.
        if self.inspected(id)?.is_none_or(|found| found.is_new()) {
            return Ok(());
        }
        let limit = self.patience.kill + patience + self.patience.short;
        engine::stop(self, self.command(), id, patience, limit)?;
        // Else its files may still be mounted for a moment.
        self.brief("clean up after", &["container", "cleanup"], id)
    }

    fn exec(
        &self,
        id: &WorkloadId,
        command: &[String],
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError> {
        let container = describe::container(&self.known(id)?)?;
        let before = sessions(&container.bundle);
        engine::exec(self.command().limit(timeout, WhenLate::Kill), id, command, interrupt, || {
            for session in sessions(&container.bundle).difference(&before) {
                let pid_file = container.bundle.join(session).join("exec_pid");
                procfs::kill_session(&pid_file, container.cgroup.as_deref());
            }
        })
    }

    fn image(&self, id: &WorkloadId) -> Result<Option<Image>, RuntimeError> {
        let Some(found) = self.inspected(id)? else { return Ok(None) };
        engine::image(self.command(), id, &found)
    }

    fn terms(&self, container: &Container) -> Result<Terms, RuntimeError> {
        Ok(terms::of(&self.known(&container.id)?, &self.program))
    }
}

impl Checkpointer for Podman {
    fn settled(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        self.helpers.settled(id, self.patience.long)
    }

    fn pre_dump(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<(), RuntimeError> {
        let bundle = self.settled_and_known(id)?.static_dir;
        fresh_directory(dir.root())?;
        self.dump(id, "pre-dump", &bundle, &["--pre-checkpoint"])?;
        carry(&bundle.join(PRE_IMAGES), &dir.pre())
            .map_err(|source| RuntimeError::Prepare { path: dir.pre(), source })?;
        clear(&bundle);
        sync_file_system(&dir.pre())
    }

    fn checkpoint(
        &self,
        id: &WorkloadId,
        dir: &CheckpointDir,
        base: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError> {
        let found = self.settled_and_known(id)?;
        let container = describe::container(&found)?;
        let bundle = &*found.static_dir;
        if !container.status.has_processes() {
            // Repeated after a crash of this process: the dump had already succeeded.
            return match read_complete(id, dir)? {
                Some(done) => Ok(done.stats),
                None => self.take_over(id, bundle, dir).and_then(|()| complete(id, dir)),
            };
        }
        can_come_back(&container)?;
        forget_complete(dir)?;
        for directory in [dir.full(), full_work(dir)] {
            fresh_directory(&directory)?;
        }
        clear(bundle);
        note_boot(&full_work(dir))?;
        let previous: &[&str] = match base {
            DumpBase::PreDump if dir.pre().is_dir() => {
                copy_images(&dir.pre(), &bundle.join(PRE_IMAGES))
                    .map_err(|source| RuntimeError::Prepare { path: bundle.join(PRE_IMAGES), source })?;
                &["--with-previous"]
            }
            DumpBase::PreDump | DumpBase::Nothing => &[],
        };
        self.dump(id, "checkpoint", bundle, previous)?;
        let finished = self.take_over(id, bundle, dir).and_then(|()| complete(id, dir));
        finished.map_err(|original| RuntimeError::Unfinished {
            id: id.clone(),
            original: Box::new(original),
            during_undo: self.restore_images(&container, dir).err().map(Box::new),
        })
    }

    fn content(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointContent, RuntimeError> {
        self.settled(id)?;
        if let Some(complete) = read_complete(id, dir)? {
            return Ok(complete.content);
        }
        // This process may have ended between CRIU's end and the record of it.
        let found = self.inspected(id)?.filter(|found| !found.has_processes());
        let incomplete = || RuntimeError::Incomplete { id: id.clone(), path: dir.root().to_owned() };
        self.take_over(id, &found.ok_or_else(incomplete)?.static_dir, dir)?;
        if !written_since_boot(dir) {
            return Err(incomplete());
        }
        complete(id, dir)?;
        read_complete(id, dir)?.map(|done| done.content).ok_or_else(incomplete)
    }

    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError> {
        let id = &container.id;
        let expected = self.content(id, dir)?.processes;
        let finished = match self.known(id)?.has_processes() {
            true => None,
            false => self.restore_images(container, dir)?,
        };
        came_back(&describe::container(&self.known(id)?)?, &expected, finished)
    }
}

impl Podman {
    /// Returns CRIU's word that all came back: how long it took.
    fn restore_images(
        &self,
        container: &Container,
        dir: &CheckpointDir,
    ) -> Result<Option<Duration>, RuntimeError> {
        let id = &container.id;
        let found = self.known(id)?;
        if found.restart_is_suspended() {
            self.forget_stop(id)?;
        }
        self.lay_out(&found.static_dir, dir)?;
        let command = self
            .command()
            .args(["container", "restore", "--print-stats", "--tcp-established", "--file-locks", "--"])
            .arg(id.id.as_str());
        // Without the host's lock: conmon, which it starts, would keep it for as long as the container runs.
        let run = self.helpers.moving_memory(command, id, self.patience.long, None)?.output();
        let bundle = &*found.static_dir;
        let said = run
            .map_err(|source| {
                RuntimeError::of_criu("restore", id, &bundle.join("restore.log"), source, || self.inspect(id))
            })
            .inspect_err(|error| {
                if !error.is_under_way() {
                    clear(bundle);
                }
            })?;
        clear(bundle);
        // The container is back, whatever becomes of this.
        if let Some(Err(error)) = found.health_interval().map(|interval| self.watch_health(id, interval)) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a health check is not run by podman any more"
            );
        }
        Ok(describe::restore_time(&said))
    }
}
