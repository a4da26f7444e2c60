//! The way back of a container: from its checkpoint, with memory, files and connections.
//!
//! A container that existed only as a checkpoint is restored, in the same boot and after a reboot; any other belongs
//! to whoever starts it at boot. The images go only when the memory in them is known to run: what comes back in
//! any other way keeps them for as long as checkpoints are retained.

use serde_json::{Value, json};
use workloads::files::rootfs::FileRecord;
use workloads::lifecycle::error::RuntimeError;
use workloads::model::{CheckpointDir, Container, NetworkPlace, Restored, Run, WorkloadId};
use workloads::network::is_there;

use crate::plan::PlannedContainer;
use crate::steps::Performer;
use crate::steps::container::{doing, planned};
use crate::steps::dossier::{After, Dossier, Return, Way};
use crate::steps::livepatch::micros;
use crate::transaction::driver::{Place, Since, StepError};

/// What an operator can do about a container that runs without its memory.
const CHOICE: &str =
    "end it, and `update resume` brings that memory back; leave it, and `update resume` leaves it, too";

impl Performer<'_> {
    /// A dump or restore that took too long has ended: only now can be told what became of the container. The same goes
    /// for those that share its network namespace, since CRIU's lock is the namespace's.
    fn settled(&self, at: &Place<'_>, planned: &PlannedContainer) -> Result<(), StepError> {
        let own = &planned.container;
        let shares =
            |other: &Container| matches!(own.network, NetworkPlace::Path(_)) && other.network == own.network;
        let all = at.plan.containers.iter().map(|planned| &planned.container);
        all.filter(|other| other.id == own.id || shares(other)).try_for_each(|other| {
            self.checkpointer.settled(&other.id).map_err(doing("wait for what is under way with", &other.id))
        })
    }

    pub(super) fn discard_images(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        self.settled(at, planned(at, id)?)?;
        let dossier = self.dossier(at, id);
        let finished = dossier.after().map_err(doing("read the checkpoint of", id))?.is_some();
        let back = dossier.come_back().map_err(doing("read how it came back:", id))?;
        let restored = back.is_some_and(|back| back.way == Way::Restored);
        if finished && !restored {
            return Ok(kept("its memory is nowhere else", &dossier));
        }
        dossier.discard().map_err(doing("remove the images of", id))?;
        Ok(Value::Null)
    }

    /// Bring a container back with memory, files and connections, wherever the transaction was stopped.
    pub(super) fn restore_checkpoint(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        self.settled(at, planned)?;
        let dossier = self.dossier(at, id);
        let network = &planned.container.network;
        let after = dossier.after().map_err(doing("read the checkpoint of", id))?;
        let back = dossier.come_back().map_err(doing("read how it came back:", id))?;
        if let Some(running) = self.running(id)? {
            return self.running_already(at, planned, &dossier, after.as_ref(), back, &running);
        }
        if at.since.userspace_is_gone() {
            // What was written before a soft reboot is there, synced or not, and so is CRIU's lock.
            let soft = at.since == Since::SoftRebooted;
            let dumped = after.is_some() || soft && self.checkpointer.content(id, dossier.images()).is_ok();
            if !dumped {
                if soft {
                    self.hold
                        .clear_checkpoint_lock(network, &[])
                        .map_err(doing("remove CRIU's network lock of", id))?;
                }
                return Ok(
                    json!({ "note": "the reboot ended it before it was checkpointed; whoever starts it at boot does so" }),
                );
            }
            match back.map(|back| back.way) {
                Some(Way::Restored) => {
                    return Ok(
                        json!({ "note": "it was back when the reboot ended it; whoever starts it at boot does so" }),
                    );
                }
                Some(Way::StartedAnew) => {
                    return Ok(kept("it was started anew, and the reboot ended it", &dossier));
                }
                Some(Way::Restoring) | None => {}
            }
            if let NetworkPlace::Path(path) = network
                && !is_there(network)
            {
                let why = format!("its network namespace {} is gone", path.display());
                return Ok(kept(&why, &dossier));
            }
            self.mounts
                .switch(&planned.container.rootfs, &planned.topology)
                .map_err(doing("mount the old files of", id))?;
        }
        let connections = match &after {
            Some(after) => {
                self.prove_files(planned, dossier.images(), &after.files)?;
                after.connections.clone()
            }
            None if dossier.before().map_err(doing("read the checkpoint of", id))?.is_none() => {
                return Ok(json!({ "note": "it did not run when its checkpoint was due" }));
            }
            // The dump ended, and the program or the disk before it was written down what it holds. Nothing
            // has touched the files since.
            None => {
                self.checkpointer
                    .content(id, dossier.images())
                    .map_err(doing("read the unfinished checkpoint of", id))?
                    .connections
            }
        };
        let begun = self.clock.elapsed();
        self.note_return(&dossier, Way::Restoring, None);
        match self.checkpointer.restore(&planned.container, dossier.images()) {
            Ok(restored) => {
                let running =
                    self.running(id)?.ok_or_else(|| doing("find the restored", id)("it is not running"))?;
                self.hold
                    .clear_checkpoint_lock(&running.network, &connections)
                    .map_err(doing("remove CRIU's network lock of", id))?;
                self.reapply_limits(&dossier, &running)?;
                self.note_return(&dossier, Way::Restored, running.run());
                let mut receipt = json!({
                    "took_us": micros(self.clock.elapsed() - begun),
                    "processes": restored.processes,
                    "connections": connections.len(),
                });
                if let Some(note) = note_of(&restored) {
                    receipt["note"] = note.into();
                }
                Ok(receipt)
            }
            // It may yet come back.
            Err(error) if error.is_under_way() => Err(doing("restore", id)(error)),
            Err(error) => self.start_instead(planned, &dossier, error),
        }
    }

    /// What runs under the container's name when it is to be restored: the process that was never taken down, or one
    /// that this undo restored before it was cut. Anything else has not its memory.
    fn running_already(
        &self,
        at: &Place<'_>,
        planned: &PlannedContainer,
        dossier: &Dossier,
        after: Option<&After>,
        back: Option<Return>,
        running: &Container,
    ) -> Result<Value, StepError> {
        let id = &planned.container.id;
        let connections = after.map(|after| after.connections.as_slice()).unwrap_or_default();
        let was_back = back.as_ref().is_some_and(|back| back.way == Way::Restored);
        let back = back.filter(|back| self.incarnation.since(&back.during) == Since::SameBoot);
        // What was brought back and ended may have been started by anybody since.
        let ours = |back: &Return| match (back.run, running.run()) {
            (Some(then), Some(now)) => now.is_the_same_as(&then),
            _ => true,
        };
        let since = back.as_ref().is_some_and(|back| !ours(back));
        let way = back.map(|back| back.way);
        let untouched = at.since == Since::SameBoot && self.is_planned(planned, running);
        let settle = || {
            self.hold
                .clear_checkpoint_lock(&running.network, connections)
                .map_err(doing("remove CRIU's network lock of", id))?;
            self.reapply_limits(dossier, running)
        };
        match way {
            _ if untouched => settle().map(|()| json!({ "note": "it was not taken down" })),
            Some(Way::Restored) if since => {
                settle().map(|()| json!({ "note": "it was restored, and started since by somebody else" }))
            }
            Some(Way::Restoring | Way::Restored) => {
                settle()?;
                self.note_return(dossier, Way::Restored, running.run());
                Ok(json!({ "note": "it was restored already" }))
            }
            Some(Way::StartedAnew) => {
                settle()?;
                Ok(kept("it goes on without its memory", dossier))
            }
            None if at.since == Since::SameBoot => {
                self.note_return(dossier, Way::StartedAnew, None);
                Err(doing("restore", id)(format!(
                    "expected it not to run, found first process {:?}: somebody else started it without the memory \
                     that is in {}; {CHOICE}",
                    running.init,
                    dossier.images().root().display()
                )))
            }
            None if was_back || after.is_none() => Ok(json!({ "note": "it was started since the reboot" })),
            None => Ok(kept("it was started since the reboot, before it could be restored", dossier)),
        }
    }

    /// Writes down that a dump that could not be completed was undone at once, so that what runs now is known as ours.
    pub(super) fn note_brought_back(&self, error: &RuntimeError, id: &WorkloadId, dossier: &Dossier) {
        if error.was_brought_back()
            && let Ok(Some(running)) = self.running(id)
        {
            self.note_return(dossier, Way::Restored, running.run());
        }
    }

    /// Writes down how the container comes back. A disk without room for it is no reason to leave it down.
    fn note_return(&self, dossier: &Dossier, way: Way, run: Option<Run>) {
        let back = Return { during: self.incarnation.clone(), way, run };
        if let Err(error) = dossier.write_return(&back) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot note how the container comes back"
            );
        }
    }

    /// The checkpoint does not come back: start the container on its old files rather than leave it down, and
    /// say that its memory is lost. Whether that is good enough, only an operator can tell.
    fn start_instead(
        &self,
        planned: &PlannedContainer,
        dossier: &Dossier,
        original: RuntimeError,
    ) -> Result<Value, StepError> {
        let id = &planned.container.id;
        let kept = dossier.images().root().display().to_string();
        self.note_return(dossier, Way::StartedAnew, None);
        match self.lifecycle.start(&planned.container) {
            Ok(_) => Err(StepError::doing(format!(
                "restore container {id} (it was started afresh on its old files instead; its memory is in {kept}; \
                 {CHOICE})"
            ))(original)),
            Err(second) => {
                self.note_return(dossier, Way::Restoring, None);
                Err(StepError::doing(format!(
                    "restore container {id} (starting it afresh failed too: {second}; its memory is in {kept})"
                ))(original))
            }
        }
    }

    pub(super) fn restore_retained(
        &self,
        at: &Place<'_>,
        id: &WorkloadId,
        of: &str,
    ) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        self.expect_down(id)?;
        let dossier = Dossier::named(&self.checkpoints, of, id);
        let after =
            dossier.after().map_err(doing("read the retained checkpoint of", id))?.ok_or_else(|| {
                doing("find the retained checkpoint of", id)(format!(
                    "none in {}",
                    dossier.images().root().display()
                ))
            })?;
        self.prove_files(planned, dossier.images(), &after.files)?;
        let restored = self
            .checkpointer
            .restore(&planned.container, dossier.images())
            .map_err(doing("restore the retained checkpoint of", id))?;
        let running = self.running(id)?.ok_or_else(|| doing("find the restored", id)("it is not running"))?;
        self.hold
            .clear_checkpoint_lock(&running.network, &after.connections)
            .map_err(doing("remove CRIU's network lock of", id))?;
        self.reapply_limits(&dossier, &running)?;
        Ok(note_of(&restored).map_or(Value::Null, |note| json!({ "note": note })))
    }

    fn prove_files(
        &self,
        planned: &PlannedContainer,
        images: &CheckpointDir,
        expected: &[FileRecord],
    ) -> Result<(), StepError> {
        let id = &planned.container.id;
        let content = self.checkpointer.content(id, images).map_err(doing("read the checkpoint of", id))?;
        let found = self
            .mounts
            .file_records(&planned.container.rootfs, &content.files)
            .map_err(doing("prove the old files of", id))?;
        let changed: Vec<String> = expected
            .iter()
            .filter(|record| !found.contains(record))
            .map(|record| {
                let digest = |record: Option<&FileRecord>| {
                    record
                        .and_then(|record| record.sha256)
                        .map_or_else(|| "no file".to_owned(), |sha256| sha256.to_string())
                };
                let now = found.iter().find(|now| now.path == record.path);
                format!("{}: expected {}, found {}", record.path, digest(Some(record)), digest(now))
            })
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        Err(doing("prove the old files of", id)(changed.join("; ")))
    }
}

/// What is not there any more of a container that came back.
fn note_of(restored: &Restored) -> Option<String> {
    let ended = restored.ended.join(", ");
    (!ended.is_empty()).then(|| format!("came back and ended since: {ended}"))
}

/// Where a memory is that does not run.
fn kept(why: &str, dossier: &Dossier) -> Value {
    json!({ "note": format!("{why}; its checkpoint is kept in {}", dossier.images().root().display()) })
}
