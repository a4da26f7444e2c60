//! Container steps.
//!
//! The order of a restart is: pre-dump, prepare the hold, checkpoint (which ends the processes silently, then
//! holds their connections), switch the root file system, start. The undos run the other way round, so the old
//! files are back and proven before the restore (`restore`), and the packets flow again only after it.
//!
//! After a reboot there is nothing left to stop, to switch or to hold.

use std::time::Duration;

use manifests::{LayerFormat, Sha256};
use serde_json::{Value, json};
use workloads::model::{Container, DumpBase, FreshUpper, Topology, WorkloadId};
use workloads::network::hold::HoldName;
use workloads::network::is_there;

use crate::plan::PlannedContainer;
use crate::state::journal::TransactionId;
use crate::steps::Performer;
use crate::steps::dossier::{After, Before, Dossier};
use crate::steps::livepatch::micros;
use crate::transaction::driver::{Place, Since, StepError};

/// Names a failure by what was being done to which container.
pub(super) fn doing<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
    id: &WorkloadId,
) -> impl FnOnce(E) -> StepError {
    StepError::doing(format!("{what} container {id}"))
}

impl Performer<'_> {
    pub(super) fn unpack_layer(&self, layer: &Sha256, format: LayerFormat) -> Result<Value, StepError> {
        let what = || format!("unpack layer {layer}");
        let payload = self.payloads.open(layer).map_err(StepError::doing(what()))?;
        let unpacked = self.layers.unpack(layer, &payload, format).map_err(StepError::doing(what()))?;
        Ok(json!({ "entries": unpacked.entries, "bytes": unpacked.bytes, "privileged": unpacked.privileged }))
    }

    pub(super) fn prepare_rootfs(
        &self,
        at: &Place<'_>,
        id: &WorkloadId,
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

    pub(super) fn pre_dump(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        self.expect_unchanged(planned(at, id)?)?;
        self.expect_fit_medium(id)?;
        let dossier = self.dossier(at, id);
        let begun = self.clock.elapsed();
        self.checkpointer.pre_dump(id, dossier.images()).map_err(doing("pre-dump", id))?;
        dossier.sync().map_err(doing("keep the pre-dump of", id))?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    pub(super) fn prepare_hold(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let network = &planned(at, id)?.container.network;
        self.hold
            .hold(network, &hold_name(at.id, id)?, &[])
            .map_err(doing("prepare to hold the connections of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn let_connections_go(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let network = &planned(at, id)?.container.network;
        // The host's own packet filters outlive its userspace.
        if at.since == Since::Rebooted || at.since == Since::SoftRebooted && !is_there(network) {
            return Ok(Value::Null);
        }
        self.hold
            .release(network, &hold_name(at.id, id)?)
            .map_err(doing("let go of the connections of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn checkpoint(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        let container = self.expect_unchanged(planned)?;
        self.expect_fit_medium(id)?;
        let dossier = self.dossier(at, id);
        let limits = self.limits.record(&container).map_err(doing("record the limits of", id))?;
        dossier
            .write_before(&Before { container, limits })
            .map_err(doing("prepare the checkpoint of", id))?;

        let begun = self.clock.elapsed();
        let stats = self
            .checkpointer
            .checkpoint(id, dossier.images(), DumpBase::PreDump)
            .inspect_err(|error| self.note_brought_back(error, id, &dossier))
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
        stats: workloads::model::CheckpointStats,
    ) -> Result<After, StepError> {
        let id = &planned.container.id;
        let network = &planned.container.network;
        let content =
            self.checkpointer.content(id, dossier.images()).map_err(doing("read the checkpoint of", id))?;
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

    pub(super) fn stop(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let container = self.expect_unchanged(planned(at, id)?)?;
        let limits = self.limits.record(&container).map_err(doing("record the limits of", id))?;
        self.dossier(at, id)
            .write_before(&Before { container, limits })
            .map_err(doing("prepare to stop", id))?;
        self.lifecycle.stop(id, self.stop_patience).map_err(doing("stop", id))?;
        Ok(Value::Null)
    }

    pub(super) fn start_again(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        // One that was set aside had no policy when its engine started the others.
        if at.since.userspace_is_gone() && !at.plan.starts_by_policy(id) {
            return Ok(json!({ "note": "whoever starts it at boot does so" }));
        }
        let running = match self.running(id)? {
            Some(running) => running,
            None => {
                self.lifecycle.start(&planned(at, id)?.container).map_err(doing("start", id))?;
                self.running(id)?.ok_or_else(|| doing("find the started", id)("it is not running"))?
            }
        };
        self.reapply_limits(&self.dossier(at, id), &running)?;
        Ok(Value::Null)
    }

    pub(super) fn switch_rootfs(
        &self,
        at: &Place<'_>,
        id: &WorkloadId,
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
        id: &WorkloadId,
        to: &Topology,
    ) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        if at.since == Since::Rebooted && !planned.topology.outlives_the_boot() {
            // Mounts are gone. The restore, if there is one, mounts the old files itself.
            return Ok(json!({ "note": "the reboot unmounted it" }));
        }
        let rootfs = &planned.container.rootfs;
        let put_back = || doing("put back the root file system of", id);
        let now = self.mounts.current(rootfs).map_err(put_back())?;
        if at.since == Since::SoftRebooted && now == Topology::Plain && planned.topology != now {
            return Ok(json!({ "note": "the soft reboot unmounted it" }));
        }
        // `to` has a work directory of its own, so a switch that failed before it began is told by the old one.
        if now == planned.topology {
            return Ok(json!({ "note": "it was not switched" }));
        }
        self.expect_down(id)?;
        self.mounts.switch(rootfs, to).map(|_| Value::Null).map_err(put_back())
    }

    pub(super) fn start(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        self.expect_down(id)?;
        let begun = self.clock.elapsed();
        self.lifecycle.start(&planned.container).map_err(doing("start", id))?;
        let running = self.running(id)?.ok_or_else(|| doing("find the started", id)("it is not running"))?;
        self.reapply_limits(&self.dossier(at, id), &running)?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    pub(super) fn stop_trial(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        if at.since.userspace_is_gone() {
            return Ok(json!({ "note": "the reboot ended it" }));
        }
        // What failed its trial gets no time to say goodbye: the old version is waiting.
        self.lifecycle.stop(id, Duration::ZERO).map_err(doing("end the trial of", id))?;
        Ok(Value::Null)
    }

    pub(super) fn release_connections(&self, at: &Place<'_>, id: &WorkloadId) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        let network = &planned.container.network;
        let after = self.dossier(at, id).after().map_err(doing("read the checkpoint of", id))?;
        if at.since == Since::Rebooted || at.since == Since::SoftRebooted && !is_there(network) {
            return Ok(json!({ "note": "the reboot let go of them" }));
        }
        self.hold
            .release(network, &hold_name(at.id, id)?)
            .map_err(doing("let go of the connections of", id))?;
        let connections = after.map(|after| after.connections).unwrap_or_default();
        // Who has its address now, if anybody, is what runs now.
        let running = self.running(id)?.map(|running| running.network);
        let speaks = running.as_ref().unwrap_or(network);
        let farewell =
            self.hold.reset_peers(speaks, &connections).map_err(doing("reset the peers of", id))?;
        Ok(json!({ "reset": farewell.told.len(), "silent": farewell.silent }))
    }

    pub(super) fn dossier(&self, at: &Place<'_>, id: &WorkloadId) -> Dossier {
        Dossier::new(&self.checkpoints, at.id, id)
    }

    pub(super) fn running(&self, id: &WorkloadId) -> Result<Option<Container>, StepError> {
        let found = self.lifecycle.inspect(id).map_err(doing("look at", id))?;
        Ok(found.filter(|container| container.status.has_processes()))
    }

    /// The container that the plan was made for still runs, with the same first process.
    pub(super) fn expect_unchanged(&self, planned: &PlannedContainer) -> Result<Container, StepError> {
        let id = &planned.container.id;
        match self.running(id)? {
            Some(now) if self.is_planned(planned, &now) => Ok(now),
            Some(now) => Err(doing("find the planned", id)(format!(
                "expected first process {:?}, found {:?}: it was restarted since the plan was made",
                planned.container.init, now.init
            ))),
            None => Err(doing("find the planned", id)("it is not running: it ended since the plan was made")),
        }
    }

    fn expect_fit_medium(&self, id: &WorkloadId) -> Result<(), StepError> {
        (self.unfit_medium)().map_or(Ok(()), |why| Err(doing("write down the memory of", id)(why)))
    }

    /// Whether what runs is what ran when the plan was made.
    pub(super) fn is_planned(&self, planned: &PlannedContainer, now: &Container) -> bool {
        now.run().zip(planned.container.run()).is_some_and(|(now, then)| now.is_the_same_as(&then))
    }

    pub(super) fn expect_down(&self, id: &WorkloadId) -> Result<(), StepError> {
        match self.running(id)? {
            None => Ok(()),
            Some(now) => Err(doing("change the files of", id)(format!(
                "expected it not to run, found first process {:?}: somebody else started it",
                now.init
            ))),
        }
    }

    pub(super) fn reapply_limits(&self, dossier: &Dossier, running: &Container) -> Result<(), StepError> {
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

pub(super) fn planned<'a>(at: &Place<'a>, id: &WorkloadId) -> Result<&'a PlannedContainer, StepError> {
    at.plan.container(id).ok_or_else(|| doing("find in the plan", id)("the plan does not describe it"))
}

/// nftables table names allow fewer characters than container ids, so the id goes in as a digest.
fn hold_name(transaction: &TransactionId, id: &WorkloadId) -> Result<HoldName, StepError> {
    let digest = Sha256::of(format!("{transaction}/{id}").as_bytes()).to_string();
    HoldName::new(format!("update_{}", &digest[..16])).map_err(doing("name the hold of", id))
}
