//! Remove what nobody needs any more: old checkpoints, payloads, layers and trial directories.
//!
//! Only things that this program made, only of transactions that have ended, and never anything that the
//! baseline or an unfinished transaction names, nor a livepatch that a rollback would load again: that one is
//! needed for as long as what replaced it is in force, however long ago that was. A failure to remove is not a failure of the operation that
//! was carried out; it is logged and tried again next time.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use system::durable;
use system::durable::UNFINISHED;
use system::lock::{HostLock, Turn};
use workloads::model::{Topology, WorkloadId, trial_of};

use crate::operations::rollback::in_force;
use crate::operations::{Engine, EngineError};
use crate::plan::{Action, Step, Undo};
use crate::state::baseline::Baseline;
use crate::state::journal::{Origin, Stored, TransactionId};
use crate::transaction::state::Outcome;

/// No copy of a payload takes this long.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(1);

impl Engine {
    /// Collect, and do nothing else. Every operation that changes the host collects too; this is for a host that
    /// is left alone.
    ///
    /// # Errors
    /// [`EngineError::Lock`] while an operation is under way; [`EngineError::Journal`] if it cannot be known what
    /// is needed. Nothing is removed then.
    pub fn collect(&self) -> Result<(), EngineError> {
        // update-collect.timer comes by each hour.
        self.count_hold();
        let _held = HostLock::take(&self.config.store, "collect", Turn::Now, &*self.host.clock)?;
        self.collect_holding_the_host()
    }

    pub(super) fn collect_holding_the_host(&self) -> Result<(), EngineError> {
        let journal = self.journal();
        let all = journal.all()?;
        let baseline = Baseline::read(&journal)?;
        drop(journal);
        let mut needed = Needed::default();
        needed.payloads.extend(baseline.livepatches.iter().map(|livepatch| livepatch.payload.to_string()));
        needed.replaced(&in_force(&all).collect::<Vec<_>>());
        needed.packages(&in_force(&all).collect::<Vec<_>>());
        baseline.rootfs.iter().for_each(|rootfs| needed.topology(&rootfs.topology));
        for stored in &all {
            if stored.outcome().is_none() || !self.is_over(stored) {
                needed.plan(stored);
            }
        }
        let store = &self.config.store;
        let checkpoints = self.config.checkpoints();
        finish_removals(store, &checkpoints);
        let over_quota = self.over_quota(&all, &checkpoints);
        for name in entries(&checkpoints) {
            let recent =
                all.iter().any(|stored| stored.id.as_str() == name && needed.transactions.contains(&name));
            if !recent || over_quota.contains(&name) {
                remove(&checkpoints.join(name));
            }
        }
        match self.payloads.unused()? {
            Some(_unused) => {
                for name in entries(&store.join("payloads")) {
                    if !needed.payloads.contains(&name) {
                        remove(&store.join("payloads").join(name));
                    }
                }
                self.remove_unfinished_copies(&store.join("payloads"));
            }
            None => tracing::info!("payloads are in use by a running command, and are not collected"),
        }
        for name in entries(&store.join("layers")) {
            let path = store.join("layers").join(name);
            if !needed.directories.contains(&path) {
                remove(&path);
            }
        }
        for stored in all.iter().filter(|stored| stored.outcome().is_some()) {
            trial_directories(stored)
                .iter()
                .filter(|path| !needed.directories.contains(*path))
                .for_each(|path| collected(path, remove_in_place(path)));
        }
        self.forget_the_past(&all)
    }

    /// The transactions whose checkpoints take more than they may, the oldest first. What an unfinished one may
    /// restore counts, and is never among them.
    fn over_quota(&self, all: &[Stored], checkpoints: &Path) -> BTreeSet<String> {
        let Some(quota) = self.config.checkpoint_quota_mib else { return BTreeSet::new() };
        let mut unfinished = Needed::default();
        all.iter().filter(|stored| stored.outcome().is_none()).for_each(|stored| unfinished.plan(stored));
        let is_needed = |stored: &&Stored| unfinished.transactions.contains(stored.id.as_str());
        let (kept, ended): (Vec<_>, Vec<_>) = all.iter().rev().partition(is_needed);
        let mut taken: u64 = kept.iter().map(|stored| size(&checkpoints.join(stored.id.as_str()))).sum();
        let mut over = BTreeSet::new();
        for stored in ended {
            taken += size(&checkpoints.join(stored.id.as_str()));
            if taken > quota.saturating_mul(1 << 20) {
                over.insert(stored.id.as_str().to_owned());
            }
        }
        over
    }

    /// Forget transactions that ended long ago and are not in force. One that was undone goes together with what undid
    /// it, never before: it would look as if it were in force again.
    fn forget_the_past(&self, all: &[Stored]) -> Result<(), EngineError> {
        let in_force: BTreeSet<&str> = in_force(all).map(|stored| stored.id.as_str()).collect();
        let is_past = |stored: &Stored| {
            stored.outcome().is_some() && self.ended_before(stored, self.config.journal_retention)
        };
        let undoing = |stored: &Stored, of: &TransactionId| matches!(&stored.origin, Origin::Rollback { of: undone, .. } if undone == of);
        let goes = |stored: &Stored| {
            let undone_by = all.iter().filter(|other| undoing(other, &stored.id));
            is_past(stored) && !in_force.contains(stored.id.as_str()) && { undone_by }.all(is_past)
        };
        let stays = |id: &TransactionId| all.iter().any(|stored| stored.id == *id && !goes(stored));
        let past = all.iter().filter(|stored| match &stored.origin {
            Origin::Apply { .. } => goes(stored),
            Origin::Rollback { of, .. } => goes(stored) && !stays(of),
        });
        let past: Vec<&TransactionId> = past.map(|stored| &stored.id).collect();
        if !past.is_empty() {
            self.journal().forget(&past, self.host.clock.now())?;
        }
        Ok(())
    }

    /// What a crash in the middle of a copy left. A recent one may belong to a running `update plan`.
    fn remove_unfinished_copies(&self, payloads: &Path) {
        let now = self.host.clock.now();
        for entry in fs::read_dir(payloads).into_iter().flatten().flatten() {
            let written = entry.metadata().and_then(|found| found.modified()).ok();
            let age = written.and_then(|at| Timestamp::try_from(at).ok()).map(|at| now.duration_since(at));
            let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            if unfinished && age.is_some_and(|age| age > LONG_AGO) {
                remove(&entry.path());
            }
        }
    }

    /// Whether a transaction ended longer ago than checkpoints are kept.
    fn is_over(&self, stored: &Stored) -> bool {
        self.ended_before(stored, self.config.checkpoint_retention)
    }

    fn ended_before(&self, stored: &Stored, retention: Duration) -> bool {
        stored.events.last().is_some_and(|last| {
            let age = self.host.clock.now().duration_since(last.at);
            !age.is_negative() && age.unsigned_abs() >= retention
        })
    }
}

/// What a directory takes on its file system, in bytes; nothing if it is not there.
pub(super) fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let taken = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(taken).sum()
}

#[derive(Default)]
struct Needed {
    transactions: BTreeSet<String>,
    payloads: BTreeSet<String>,
    directories: BTreeSet<PathBuf>,
}

impl Needed {
    fn topology(&mut self, topology: &Topology) {
        if let Some(overlay) = topology.overlay() {
            self.directories.extend(overlay.lower.iter().chain(&overlay.upper).chain(&overlay.work).cloned());
        }
    }

    /// What rollbacks of these would load again, one after the other, beginning with what is needed so far.
    fn replaced(&mut self, in_force: &[&Stored]) {
        loop {
            let known = self.payloads.len();
            for step in in_force.iter().flat_map(|stored| &stored.progress.plan().steps) {
                if let (Action::LoadLivepatch { payload, .. }, Undo::UnloadLivepatch { reload, .. }) =
                    (&step.action, &step.undo)
                    && self.payloads.contains(&payload.to_string())
                {
                    self.payloads.extend(reload.iter().map(|old| old.payload.to_string()));
                }
            }
            if self.payloads.len() == known {
                return;
            }
        }
    }

    /// The packages that rollbacks of these would install again, and those that would come back if that failed.
    fn packages(&mut self, in_force: &[&Stored]) {
        let plans = in_force.iter().map(|stored| stored.progress.plan());
        let switches = plans.flat_map(|plan| &plan.packages).map(|planned| &planned.switch);
        let files = switches.flat_map(|switch| [&switch.from, &switch.to]);
        self.payloads.extend(files.map(|file| file.payload.to_string()));
    }

    fn plan(&mut self, stored: &Stored) {
        self.transactions.insert(stored.id.as_str().to_owned());
        let plan = stored.progress.plan();
        plan.containers.iter().for_each(|planned| self.topology(&planned.topology));
        for step in &plan.steps {
            match &step.action {
                Action::LoadLivepatch { payload, .. } => {
                    self.payloads.insert(payload.to_string());
                }
                Action::InstallPackages { packages } => {
                    let files = packages.iter().flat_map(|switch| [&switch.from, &switch.to]);
                    self.payloads.extend(files.map(|file| file.payload.to_string()));
                }
                Action::UnpackLayer { layer, .. } => {
                    self.payloads.insert(layer.to_string());
                }
                // What has ended needs no archive: engines have their images.
                Action::LoadImage { payload, .. } if stored.outcome().is_none() => {
                    self.payloads.insert(payload.to_string());
                }
                Action::SwitchRootfs { container, to }
                    if stored.outcome() != Some(Outcome::RolledBack)
                        && !stored.progress.given_up().contains_key(container) =>
                {
                    self.topology(to)
                }
                Action::RestoreRetained { of, .. } => {
                    self.transactions.insert(of.clone());
                }
                _ => {}
            }
            match &step.undo {
                Undo::UnloadLivepatch { reload, .. } => {
                    self.payloads.extend(reload.iter().map(|patch| patch.payload.to_string()));
                }
                Undo::ReloadLivepatch { patch, .. } => {
                    self.payloads.insert(patch.payload.to_string());
                }
                _ => {}
            }
        }
    }
}

/// What a trial that went back wrote into: that of every container, or of those that went back alone. The work
/// directory of the way back is in use and not among these.
fn trial_directories(stored: &Stored) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    let is_stored = |id: &WorkloadId| {
        let planned = stored.progress.plan().container(id);
        planned.is_some_and(|planned| matches!(planned.topology, Topology::Stored(_)))
    };
    let went_back = |step: &&Step| {
        let container = step.action.container();
        stored.outcome() == Some(Outcome::RolledBack)
            || container.is_some_and(|id| stored.progress.given_up().contains_key(id))
    };
    for step in stored.progress.plan().steps.iter().filter(went_back) {
        match &step.action {
            Action::SwitchRootfs { to: Topology::Overlay(overlay), .. } => {
                directories.extend(overlay.upper.iter().chain(&overlay.work).cloned());
            }
            // What it wrote lies where the way back has put it.
            Action::PrepareRootfs { container, fresh, .. } if is_stored(container) => {
                directories.extend([fresh.upper.clone(), fresh.work.clone(), trial_of(&fresh.upper)]);
            }
            _ => {}
        }
    }
    // A rollback's switch keeps the upper directory of the container: only what bears this transaction's
    // name was made by it.
    directories.retain(|path| path.to_string_lossy().contains(stored.id.as_str()));
    directories
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Removes something whose name says what it is.
fn remove(path: &Path) {
    collected(path, durable::remove(path));
}

/// Removes a trial's directory, which is tried again for as long as it is there.
fn remove_in_place(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)
}

/// Removes what a crash in the middle of a removal left.
fn finish_removals(store: &Path, checkpoints: &Path) {
    let below = entries(checkpoints).into_iter().map(|name| checkpoints.join(name));
    for directory in
        [store.join("payloads"), store.join("layers"), checkpoints.to_owned()].into_iter().chain(below)
    {
        if let Err(error) = durable::finish_removals(&directory) {
            tracing::warn!(path = %directory.display(), %error, "an earlier removal cannot be finished");
        }
    }
}

fn collected(path: &Path, removed: io::Result<()>) {
    match removed {
        Ok(()) => tracing::info!(path = %path.display(), "collected"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be collected"),
    }
}
