//! Apply a verified manifest: survey, plan, begin, drive.

use std::path::Path;

use manifests::{Manifest, Verified};
use workloads::processes::Onlooker;

use crate::operations::{Adapters, Drive, Driven, Engine, EngineError, Listeners};
use crate::plan::Plan;
use crate::plan::planner;
use crate::state::journal::{Origin, TransactionId};

/// What a livepatch in quarantine means to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quarantine {
    /// It is refused.
    Heed,
    /// It is loaded once more, since an operator says so. The quarantine ends with the commit.
    Retry,
}

/// What an apply came to.
#[derive(Debug)]
pub enum Applied {
    /// The host has all of it already, but for what the manifest skips; no transaction was begun.
    Nothing(Plan),
    /// A transaction was driven.
    Transaction(Plan, Driven),
}

impl Engine {
    /// The plan of a manifest on this host. Changes nothing but the payload store.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with everything that stands against it, or why the host cannot be surveyed.
    pub fn plan(
        &self,
        manifest: &Manifest,
        payloads: &Path,
        quarantine: Quarantine,
    ) -> Result<Plan, EngineError> {
        let adapters = self.look()?;
        self.plan_as(&adapters, &self.new_id(), manifest, payloads, quarantine, Onlooker::NOBODY)
    }

    /// Plan and do it. `begun` hears the plan before the first step.
    ///
    /// # Errors
    /// [`EngineError`]; except for [`EngineError::Stopped`] nothing was touched.
    pub fn apply(
        &self,
        manifest: &Verified<Manifest>,
        origin: &Origin,
        payloads: &Path,
        quarantine: Quarantine,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Applied, EngineError> {
        let adapters = self.lock(&origin.to_string())?;
        self.expect_finished()?;
        self.judge_crashes()?;
        let id = self.new_id();
        let onlooker = Onlooker { interrupt: listeners.boundaries, ..Onlooker::NOBODY };
        let plan = self.plan_as(&adapters, &id, manifest, payloads, quarantine, onlooker)?;
        // Where there is nothing to do, too: an older version would be a step back from here.
        crate::operations::trust::raise_floor(&mut self.journal(), manifest)?;
        if plan.is_empty() {
            return Ok(Applied::Nothing(plan));
        }
        let driven = self.begin(&adapters, &id, origin, &plan, listeners, begun)?;
        self.afterwards();
        Ok(Applied::Transaction(plan, driven))
    }

    pub(super) fn begin(
        &self,
        adapters: &Adapters,
        id: &TransactionId,
        origin: &Origin,
        plan: &Plan,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Driven, EngineError> {
        self.journal().begin(id, origin, plan, self.host.clock.now())?;
        begun(id, plan);
        let stored = self.journal().transaction(id.as_str())?;
        self.drive(adapters, stored, Drive::Begin, listeners)
    }

    pub(super) fn new_id(&self) -> TransactionId {
        let now = self.host.clock.now();
        // Two transactions of a host cannot begin in the same microsecond: each holds the host's lock.
        TransactionId::new(now, now.subsec_nanosecond().unsigned_abs() / 1000)
    }

    fn plan_as(
        &self,
        adapters: &Adapters,
        id: &TransactionId,
        manifest: &Manifest,
        payloads: &Path,
        quarantine: Quarantine,
        onlooker: Onlooker<'_>,
    ) -> Result<Plan, EngineError> {
        for payload in manifest.payloads() {
            self.payloads.add(payload, payloads)?;
        }
        let facts = self.survey(adapters, manifest, quarantine, onlooker)?;
        Ok(planner::plan(manifest, &facts, id.as_str())?)
    }
}
