//! Container steps.
//!
//! The order of a restart is: pre-dump, prepare the hold, checkpoint (which ends the processes silently, then
//! holds their connections), switch the root file system, start. The undos run the other way round, so the old
//! files are back and proven before the restore, and the packets flow again only after it.
//!
//! After a reboot there is nothing left to stop, to switch or to hold. A container that existed only as a
//! checkpoint is restored; any other belongs to whoever starts it at boot.

use std::time::Duration;

use manifests::{LayerFormat, Sha256};
use serde_json::{Value, json};

use super::Machine;
use super::dossier::{After, Before, Dossier};
use super::livepatch::micros;
use crate::plan::PlannedContainer;
use crate::runtime::{
    CheckpointDir, Container, ContainerId, ContainerStatus, DumpBase, FileRecord, FreshUpper, HoldName,
    NetworkPlace, Topology,
};
use crate::transaction::driver::{Place, Since, StepError};
use crate::transaction::journal::TransactionId;

/// Names a failure by what was being done to which container.
fn doing<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
    id: &ContainerId,
) -> impl FnOnce(E) -> StepError {
    StepError::doing(format!("{what} container {id}"))
}

impl Machine<'_> {
    pub(super) fn unpack_layer(&self, layer: &Sha256, format: LayerFormat) -> Result<Value, StepError> {
        let what = || format!("unpack layer {layer}");
        let payload = self.payloads.open(layer).map_err(StepError::doing(what()))?;
        let unpacked = self.layers.unpack(layer, &payload, format).map_err(StepError::doing(what()))?;
        Ok(json!({ "entries": unpacked.entries, "bytes": unpacked.bytes, "privileged": unpacked.privileged }))
    }

    pub(super) fn prepare_rootfs(
        &self,
        at: &Place<'_>,
        id: &ContainerId,
        layers: &[Sha256],
        fresh: &FreshUpper,
    ) -> Result<Value, StepError> {
        let rootfs = &planned(at, id)?.container.rootfs;
        let mut unpacked = Vec::new();
        for digest in layers {
            let layer = self.layers.get(digest).map_err(doing("find the layers for", id))?;
            let layer = layer
                .ok_or_else(|| doing("find the layers for", id)(format!("layer {digest} is not unpacked")))?;
            let conflicts =
                self.mounts.conflicts(rootfs, &layer).map_err(doing("compare the layers with", id))?;
            if !conflicts.is_empty() {
                let list: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
                return Err(doing("fit the layers over", id)(list.join("; ")));
            }
            unpacked.push(layer);
        }
        self.mounts
            .prepare(rootfs, &unpacked, fresh)
            .map_err(doing("prepare the root file system of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn pre_dump(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        self.expect_unchanged(planned(at, id)?)?;
        let dossier = self.dossier(at, id);
        let begun = self.clock.elapsed();
        self.runtime.pre_dump(id, dossier.images()).map_err(doing("pre-dump", id))?;
        dossier.sync().map_err(doing("keep the pre-dump of", id))?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    pub(super) fn discard_images(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        // After a reboot the images of a checkpoint that was not restored are all that is left of the memory.
        let lost = self.runtime.inspect(id).map_err(doing("look at", id))?.is_none();
        let dossier = self.dossier(at, id);
        if lost && dossier.after().map_err(doing("read the checkpoint of", id))?.is_some() {
            return Ok(json!({ "note": "the checkpoint is kept" }));
        }
        dossier.discard().map_err(doing("remove the images of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn prepare_hold(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        let network = &planned(at, id)?.container.network;
        self.hold
            .hold(network, &hold_name(at.id, id)?, &[])
            .map_err(doing("prepare to hold the connections of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn let_connections_go(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        if at.since == Since::Rebooted {
            return Ok(Value::Null);
        }
        let network = &planned(at, id)?.container.network;
        self.hold
            .release(network, &hold_name(at.id, id)?)
            .map_err(doing("let go of the connections of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn checkpoint(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        let container = self.expect_unchanged(planned)?;
        let dossier = self.dossier(at, id);
        let limits = self.limits.record(&container).map_err(doing("record the limits of", id))?;
        dossier
            .write_before(&Before { container, limits })
            .map_err(doing("prepare the checkpoint of", id))?;

        let begun = self.clock.elapsed();
        let stats = self
            .runtime
            .checkpoint(id, dossier.images(), DumpBase::PreDump)
            .map_err(doing("checkpoint", id))?;
        let after = self.close_checkpoint(at, planned, &dossier, stats)?;
        let took = self.clock.elapsed() - begun;
        Ok(json!({
            "frozen_us": micros(stats.frozen),
            "took_us": micros(took),
            "pages_written": stats.pages_written,
            "connections": after.connections.len(),
            "files": after.files.len(),
        }))
    }

    /// What follows a dump: hold the connections, take CRIU's own lock away, put everything on disk.
    fn close_checkpoint(
        &self,
        at: &Place<'_>,
        planned: &PlannedContainer,
        dossier: &Dossier,
        stats: crate::runtime::CheckpointStats,
    ) -> Result<After, StepError> {
        let id = &planned.container.id;
        let network = &planned.container.network;
        let content =
            self.runtime.content(id, dossier.images()).map_err(doing("read the checkpoint of", id))?;
        self.hold
            .hold(network, &hold_name(at.id, id)?, &content.connections)
            .map_err(doing("hold the connections of", id))?;
        self.hold
            .clear_checkpoint_lock(network, &content.connections)
            .map_err(doing("remove CRIU's network lock of", id))?;
        let files = self
            .mounts
            .file_records(&planned.container.rootfs, &content.files)
            .map_err(doing("record the files of", id))?;
        let after = After { stats, connections: content.connections, files };
        dossier.sync().map_err(doing("keep the checkpoint of", id))?;
        dossier.write_after(&after).map_err(doing("keep the checkpoint of", id))?;
        Ok(after)
    }

    /// Bring a container back with memory, files and connections, wherever the transaction was stopped.
    pub(super) fn restore_checkpoint(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        let dossier = self.dossier(at, id);
        let network = &planned.container.network;
        let after = dossier.after().map_err(doing("read the checkpoint of", id))?;
        let connections = after.as_ref().map(|after| after.connections.clone()).unwrap_or_default();

        if let Some(running) = self.running(id)? {
            // The dump failed or never began, or this undo was cut after its restore.
            self.hold
                .clear_checkpoint_lock(network, &connections)
                .map_err(doing("remove CRIU's network lock of", id))?;
            self.reapply_limits(&dossier, &running)?;
            return Ok(json!({ "note": "it runs" }));
        }
        if at.since == Since::Rebooted {
            if after.is_none() {
                return Ok(
                    json!({ "note": "the reboot ended it before it was checkpointed; whoever starts it at boot does so" }),
                );
            }
            if let NetworkPlace::Path(path) = network
                && !path.exists()
            {
                return Ok(json!({
                    "note": format!("its network namespace {} is gone; its checkpoint is kept in {}", path.display(), dossier.images().root().display()),
                }));
            }
            self.mounts
                .switch(&planned.container.rootfs, &planned.topology)
                .map_err(doing("mount the old files of", id))?;
        }
        let connections = match &after {
            Some(after) => {
                self.prove_files(planned, dossier.images(), &after.files)?;
                connections
            }
            None if dossier.before().map_err(doing("read the checkpoint of", id))?.is_none() => {
                return Ok(json!({ "note": "it did not run when its checkpoint was due" }));
            }
            // The dump ended, and the program or the disk before it was written down what it holds. Nothing
            // has touched the files since.
            None => {
                self.runtime
                    .content(id, dossier.images())
                    .map_err(doing("read the unfinished checkpoint of", id))?
                    .connections
            }
        };
        let begun = self.clock.elapsed();
        match self.runtime.restore(&planned.container, dossier.images()) {
            Ok(restored) => {
                self.hold
                    .clear_checkpoint_lock(network, &connections)
                    .map_err(doing("remove CRIU's network lock of", id))?;
                let running =
                    self.running(id)?.ok_or_else(|| doing("find the restored", id)("it is not running"))?;
                self.reapply_limits(&dossier, &running)?;
                Ok(json!({
                    "took_us": micros(self.clock.elapsed() - begun),
                    "processes": restored.processes,
                    "connections": connections.len(),
                }))
            }
            Err(error) => self.start_instead(planned, &dossier, error),
        }
    }

    /// The checkpoint does not come back: start the container on its old files rather than leave it down, and
    /// say that its memory is lost. Whether that is good enough, only an operator can tell.
    fn start_instead(
        &self,
        planned: &PlannedContainer,
        dossier: &Dossier,
        original: crate::runtime::RuntimeError,
    ) -> Result<Value, StepError> {
        let id = &planned.container.id;
        let kept = dossier.images().root().display().to_string();
        match self.runtime.start(&planned.container) {
            Ok(_) => Err(StepError::doing(format!(
                "restore container {id} (it was started afresh on its old files instead; its memory is in {kept})"
            ))(original)),
            Err(second) => Err(StepError::doing(format!(
                "restore container {id} (starting it afresh failed too: {second}; its memory is in {kept})"
            ))(original)),
        }
    }

    pub(super) fn stop(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        let container = self.expect_unchanged(planned(at, id)?)?;
        let limits = self.limits.record(&container).map_err(doing("record the limits of", id))?;
        self.dossier(at, id)
            .write_before(&Before { container, limits })
            .map_err(doing("prepare to stop", id))?;
        self.runtime.stop(id, self.stop_patience).map_err(doing("stop", id))?;
        Ok(Value::Null)
    }

    pub(super) fn start_again(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        if at.since == Since::Rebooted {
            return Ok(json!({ "note": "whoever starts it at boot does so" }));
        }
        let running = match self.running(id)? {
            Some(running) => running,
            None => {
                self.runtime.start(&planned(at, id)?.container).map_err(doing("start", id))?;
                self.running(id)?.ok_or_else(|| doing("find the started", id)("it is not running"))?
            }
        };
        self.reapply_limits(&self.dossier(at, id), &running)?;
        Ok(Value::Null)
    }

    pub(super) fn switch_rootfs(
        &self,
        at: &Place<'_>,
        id: &ContainerId,
        to: &Topology,
    ) -> Result<Value, StepError> {
        self.expect_down(id)?;
        let rootfs = &planned(at, id)?.container.rootfs;
        self.mounts
            .switch(rootfs, to)
            .map(|_| Value::Null)
            .map_err(doing("switch the root file system of", id))
    }

    pub(super) fn switch_back(
        &self,
        at: &Place<'_>,
        id: &ContainerId,
        to: &Topology,
    ) -> Result<Value, StepError> {
        if at.since == Since::Rebooted {
            // Mounts are gone. The restore, if there is one, mounts the old files itself.
            return Ok(json!({ "note": "the reboot unmounted it" }));
        }
        self.expect_down(id)?;
        let rootfs = &planned(at, id)?.container.rootfs;
        self.mounts
            .switch(rootfs, to)
            .map(|_| Value::Null)
            .map_err(doing("put back the root file system of", id))
    }

    pub(super) fn start(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        self.expect_down(id)?;
        let begun = self.clock.elapsed();
        self.runtime.start(&planned.container).map_err(doing("start", id))?;
        let running = self.running(id)?.ok_or_else(|| doing("find the started", id)("it is not running"))?;
        self.reapply_limits(&self.dossier(at, id), &running)?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    pub(super) fn stop_trial(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        if at.since == Since::Rebooted {
            return Ok(json!({ "note": "the reboot ended it" }));
        }
        // What failed its trial gets no time to say goodbye: the old version is waiting.
        self.runtime.stop(id, Duration::ZERO).map_err(doing("end the trial of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn restore_retained(
        &self,
        at: &Place<'_>,
        id: &ContainerId,
        of: &str,
    ) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        self.expect_down(id)?;
        let dossier = Dossier::named(&self.store, of, id);
        let after =
            dossier.after().map_err(doing("read the retained checkpoint of", id))?.ok_or_else(|| {
                doing("find the retained checkpoint of", id)(format!(
                    "none in {}",
                    dossier.images().root().display()
                ))
            })?;
        self.prove_files(planned, dossier.images(), &after.files)?;
        self.runtime
            .restore(&planned.container, dossier.images())
            .map_err(doing("restore the retained checkpoint of", id))?;
        self.hold
            .clear_checkpoint_lock(&planned.container.network, &after.connections)
            .map_err(doing("remove CRIU's network lock of", id))?;
        let running = self.running(id)?.ok_or_else(|| doing("find the restored", id)("it is not running"))?;
        self.reapply_limits(&dossier, &running)?;
        Ok(Value::Null)
    }

    pub(super) fn release_connections(&self, at: &Place<'_>, id: &ContainerId) -> Result<Value, StepError> {
        let network = &planned(at, id)?.container.network;
        let after = self.dossier(at, id).after().map_err(doing("read the checkpoint of", id))?;
        if at.since == Since::Rebooted {
            return Ok(json!({ "note": "the reboot let go of them" }));
        }
        self.hold
            .release(network, &hold_name(at.id, id)?)
            .map_err(doing("let go of the connections of", id))?;
        let connections = after.map(|after| after.connections).unwrap_or_default();
        let farewell =
            self.hold.reset_peers(network, &connections).map_err(doing("reset the peers of", id))?;
        Ok(json!({ "reset": farewell.told.len(), "silent": farewell.silent }))
    }

    fn dossier(&self, at: &Place<'_>, id: &ContainerId) -> Dossier {
        Dossier::new(&self.store, at.id, id)
    }

    fn running(&self, id: &ContainerId) -> Result<Option<Container>, StepError> {
        let found = self.runtime.inspect(id).map_err(doing("look at", id))?;
        Ok(found.filter(|container| {
            matches!(container.status, ContainerStatus::Running | ContainerStatus::Paused)
        }))
    }

    /// The container that the plan was made for still runs, with the same first process.
    fn expect_unchanged(&self, planned: &PlannedContainer) -> Result<Container, StepError> {
        let id = &planned.container.id;
        match self.running(id)? {
            Some(now) if now.init == planned.container.init => Ok(now),
            Some(now) => Err(doing("find the planned", id)(format!(
                "expected first process {:?}, found {:?}: it was restarted since the plan was made",
                planned.container.init, now.init
            ))),
            None => Err(doing("find the planned", id)("it is not running: it ended since the plan was made")),
        }
    }

    fn expect_down(&self, id: &ContainerId) -> Result<(), StepError> {
        match self.running(id)? {
            None => Ok(()),
            Some(now) => Err(doing("change the files of", id)(format!(
                "expected it not to run, found first process {:?}: somebody else started it",
                now.init
            ))),
        }
    }

    fn prove_files(
        &self,
        planned: &PlannedContainer,
        images: &CheckpointDir,
        expected: &[FileRecord],
    ) -> Result<(), StepError> {
        let id = &planned.container.id;
        let content = self.runtime.content(id, images).map_err(doing("read the checkpoint of", id))?;
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

    fn reapply_limits(&self, dossier: &Dossier, running: &Container) -> Result<(), StepError> {
        let id = &running.id;
        let Some(before) = dossier.before().map_err(doing("read the limits of", id))? else { return Ok(()) };
        let differing =
            self.limits.apply(running, &before.limits).map_err(doing("put back the limits of", id))?;
        if differing.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = differing
            .iter()
            .map(|knob| format!("{} should be {:?}, is {:?}", knob.knob, knob.expected, knob.found))
            .collect();
        Err(doing("put back the limits of", id)(list.join("; ")))
    }
}

fn planned<'a>(at: &Place<'a>, id: &ContainerId) -> Result<&'a PlannedContainer, StepError> {
    at.plan.container(id).ok_or_else(|| doing("find in the plan", id)("the plan does not describe it"))
}

/// nftables table names allow fewer characters than container ids, so the id goes in as a digest.
fn hold_name(transaction: &TransactionId, id: &ContainerId) -> Result<HoldName, StepError> {
    let digest = Sha256::of(format!("{transaction}/{id}").as_bytes()).to_string();
    HoldName::new(format!("update_{}", &digest[..16])).map_err(doing("name the hold of", id))
}
