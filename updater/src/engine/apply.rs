//! Apply a verified manifest: survey, plan, begin, drive.

use std::path::Path;

use manifests::Manifest;

use super::{Drive, Driven, Engine, EngineError, Listeners};
use crate::host::Clock;
use crate::plan::Plan;
use crate::plan::planner;
use crate::transaction::journal::{Origin, TransactionId};

/// What an apply came to.
#[derive(Debug)]
pub enum Applied {
    /// The host has all of it already; no transaction was begun.
    Nothing(Plan),
    /// A transaction was driven.
    Transaction(Plan, Driven),
}

impl Engine {
    /// The plan of a manifest on this host. Changes nothing but the payload store.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with everything that stands against it, or why the host cannot be surveyed.
    pub fn plan(&self, manifest: &Manifest, payloads: &Path) -> Result<Plan, EngineError> {
        let id = self.new_id();
        self.plan_as(&id, manifest, payloads)
    }

    /// Plan and do it. `begun` hears the plan before the first step.
    ///
    /// # Errors
    /// [`EngineError`]; except for [`EngineError::Stopped`] nothing was touched.
    pub fn apply(
        &self,
        manifest: &Manifest,
        origin: &Origin,
        payloads: &Path,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Applied, EngineError> {
        let lock = self.lock(&origin.to_string())?;
        self.expect_finished()?;
        self.runtime.share_lock(&lock);
        let id = self.new_id();
        let plan = self.plan_as(&id, manifest, payloads)?;
        if plan.is_empty() {
            return Ok(Applied::Nothing(plan));
        }
        let driven = self.begin(&id, origin, &plan, listeners, begun)?;
        self.collect()?;
        drop(lock);
        Ok(Applied::Transaction(plan, driven))
    }

    pub(super) fn begin(
        &self,
        id: &TransactionId,
        origin: &Origin,
        plan: &Plan,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Driven, EngineError> {
        self.journal().begin(id, origin, plan, self.clock.now())?;
        begun(id, plan);
        let stored = self.journal().transaction(id.as_str())?;
        self.drive(stored, Drive::Begin, listeners)
    }

    pub(super) fn new_id(&self) -> TransactionId {
        let now = self.clock.now();
        // Two transactions of one host never begin in the same second: the lock is held for longer than that.
        // The salt keeps ids of two hosts apart in a fleet's log.
        let salt = u16::from_be_bytes([self.boot_id.as_ref()[0], self.boot_id.as_ref()[1]]) ^ now.subsec_nanosecond() as u16;
        TransactionId::new(now, salt)
    }

    fn plan_as(&self, id: &TransactionId, manifest: &Manifest, payloads: &Path) -> Result<Plan, EngineError> {
        for payload in manifest.payloads() {
            self.payloads.add(payload, payloads)?;
        }
        let facts = self.survey(manifest)?;
        Ok(planner::plan(manifest, &facts, id.as_str())?)
    }
}
