//! Apply a signed manifest: hold the host, authenticate, survey, plan, raise the floors, begin, drive.
//!
//! The command line and whoever else acts on a manifest come in here: nothing is believed before the host is
//! held, so that two versions of a manifest cannot overtake each other between the check and the act.

use std::path::Path;

use jiff::Timestamp;
use manifests::{Envelope, Manifest, Payload, Policy, TrustFloor, UtcTime, Verified, VerifyError};
use system::lock::Turn;
use workloads::processes::Onlooker;

use crate::operations::along::{self, Along, Taken};
use crate::operations::collect::size;
use crate::operations::errand::Errand;
use crate::operations::hold::Heeding;
use crate::operations::publication::keep_fork;
use crate::operations::trust::{TrustError, believe, policy_in_force, read_envelope};
use crate::operations::{Drive, Driven, Engine, EngineError, Listeners, Session};
use crate::plan::Plan;
use crate::plan::planner;
use crate::state::author::Author;
use crate::state::floors::{raise_floor, read_floor, reset_clock, see_policy};
use crate::state::grants::TakenGrant;
use crate::state::hold::Passed;
use crate::state::journal::{Grounds, Origin, TransactionId};
use crate::state::payloads::PayloadSource;

/// What a livepatch in quarantine means to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quarantine {
    /// It is refused.
    Heed,
    /// It is loaded once more, since an operator says so. The quarantine ends with the commit.
    Retry,
}

/// A signed manifest to act upon.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The file with the signed manifest.
    pub manifest: &'a Path,
    /// Where its payloads come from.
    pub payloads: &'a dyn PayloadSource,
    /// Whether a livepatch in quarantine may be loaded.
    pub quarantine: Quarantine,
    /// What a hold of this host means.
    pub heeding: Heeding,
    /// A policy and revocations that come with it.
    pub along: Option<&'a Along>,
}

/// What the journal is told before the first step.
pub(super) struct Beginning<'a> {
    pub(super) id: &'a TransactionId,
    pub(super) origin: &'a Origin,
    pub(super) plan: &'a Plan,
    /// What lets it begin, if it is the fleet's doing.
    pub(super) grant: Option<&'a TakenGrant>,
    /// The hold that an operator goes past.
    pub(super) despite: Option<&'a Passed>,
    /// The envelope of the manifest, as it was signed.
    pub(super) manifest: Option<&'a str>,
}

/// What an apply came to.
#[derive(Debug)]
pub enum Applied {
    /// The host has all of it already, but for what the manifest skips; no transaction was begun.
    Nothing(Plan),
    /// A transaction was driven.
    Transaction {
        /// What was applied.
        origin: Origin,
        /// What was to be done.
        plan: Plan,
        /// How far it came.
        driven: Driven,
    },
}

impl Engine {
    /// The plan of a manifest on this host. Changes nothing but the payload store.
    ///
    /// # Errors
    /// [`EngineError::Trust`] if the manifest is not to be acted upon, [`EngineError::Refused`] with everything
    /// that stands against it, or why the host cannot be surveyed.
    pub fn plan(&self, request: &Request<'_>) -> Result<Plan, EngineError> {
        // Another command may collect meanwhile, and the host is not held.
        let _in_use = self.payloads.in_use()?;
        let (manifest, ..) = self.believe_with(request.manifest, request.along)?;
        let plan = self.plan_as(&self.look()?, &self.new_id(), &manifest, request, Onlooker::NOBODY)?;
        self.with_hold(plan)
    }

    /// Plan and do it. `begun` hears the plan before the first step.
    ///
    /// # Errors
    /// [`EngineError`]; except for [`EngineError::Stopped`] nothing was touched.
    pub fn apply(
        &self,
        request: &Request<'_>,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Applied, EngineError> {
        self.apply_by(request, None, listeners, begun)
    }

    /// As [`Engine::apply`]; for an errand of the fleet with its grant and the envelope of its rollout.
    pub(super) fn apply_by(
        &self,
        request: &Request<'_>,
        errand: Option<(&Errand<'_>, &str)>,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Applied, EngineError> {
        let mut session = self.lock(&format!("apply {}", request.manifest.display()), Turn::Now)?;
        self.expect_finished()?;
        let despite = self.expect_not_held(request.heeding)?;
        let (manifest, envelope, taken) = self.believe_with(request.manifest, request.along)?;
        let origin = Origin::of(&manifest);
        session.say(&origin)?;
        let grant = errand.map(|errand| self.heed_apply(errand, &manifest)).transpose()?;
        self.judge_crashes()?;
        let id = self.new_id();
        let onlooker = Onlooker { interrupt: listeners.boundaries, ..Onlooker::NOBODY };
        let plan = self.plan_as(&session, &id, &manifest, request, onlooker)?;
        self.take_along(&taken)?;
        // Where there is nothing to do, too: an older version would be a step back from here.
        raise_floor(&mut self.journal(), &manifest)?;
        if plan.is_empty() {
            if let Some(grant) = &grant {
                Self::take_alone(&mut self.journal(), grant)?;
            }
            return Ok(Applied::Nothing(plan));
        }
        let signed = envelope.to_json();
        let beginning = Beginning {
            id: &id,
            origin: &origin,
            plan: &plan,
            grant: grant.as_ref(),
            despite: despite.as_ref(),
            manifest: Some(&signed),
        };
        let driven = self.begin(&session, &beginning, listeners, begun)?;
        self.afterwards();
        Ok(Applied::Transaction { origin, plan, driven })
    }

    pub(super) fn authenticate(&self, manifest: &Path) -> Result<Verified<Manifest>, EngineError> {
        self.believe_with(manifest, None).map(|(manifest, ..)| manifest)
    }

    /// The manifest by what this host believes, with what comes along; the envelope that it came in, and what of the rest is to be
    /// taken up.
    fn believe_with(
        &self,
        manifest: &Path,
        along: Option<&Along>,
    ) -> Result<(Verified<Manifest>, Envelope, Taken), EngineError> {
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let (policy, floor, taken) = match along {
            Some(along) => along::with(policy, floor, along, now)?,
            None => (policy, floor, Taken::default()),
        };
        let envelope = read_envelope(manifest)?;
        let believed = believe(manifest, &envelope, &policy, &floor, now, Some(&self.config.store));
        if let Err(TrustError::NotAuthentic { source: VerifyError::NotLogged(refusal), .. }) = &believed {
            keep_fork(&self.config.store, refusal);
        }
        Ok((believed?, envelope, taken))
    }

    /// The policy in force, and what this host remembers, with what the policy revokes by now.
    pub(super) fn trusting(&self, now: Timestamp) -> Result<(Policy, TrustFloor), EngineError> {
        let remembered = read_floor(&self.journal())?;
        let policy = policy_in_force(&self.config.policy, &remembered)?;
        let floor = see_policy(&mut self.journal(), remembered, &policy, now)?;
        Ok((policy, floor))
    }

    /// Forget the time that accepted documents prove, as somebody who holds the host.
    ///
    /// # Errors
    /// [`EngineError::Lock`], [`EngineError::Journal`].
    pub fn reset_clock(&self, why: &str) -> Result<Option<UtcTime>, EngineError> {
        let _held = self.lock("policy reset-clock", Turn::Now)?;
        let who = Author::current().to_string();
        Ok(reset_clock(&mut self.journal(), self.host.clock.now(), &who, why)?)
    }

    pub(super) fn begin(
        &self,
        session: &Session,
        beginning: &Beginning<'_>,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Driven, EngineError> {
        let Beginning { id, origin, plan, grant, despite, manifest } = *beginning;
        let grounds = Grounds { grant, despite, manifest };
        self.journal().begin(id, origin, plan, self.host.clock.now(), grounds)?;
        begun(id, plan);
        let stored = self.journal().transaction(id.as_str())?;
        self.drive(session, stored, Drive::Begin, listeners)
    }

    pub(super) fn new_id(&self) -> TransactionId {
        let now = self.host.clock.now();
        // Two transactions of a host cannot begin in the same microsecond: each holds the host's lock.
        TransactionId::new(now, now.subsec_nanosecond().unsigned_abs() / 1000)
    }

    /// What is there counts and stays: it is in force, or a way back needs it.
    fn expect_room(&self, payloads: &[&Payload]) -> Result<(), EngineError> {
        let Some(quota) = self.config.fix_quota_mib else { return Ok(()) };
        let limit = quota.saturating_mul(1 << 20);
        let new = payloads.iter().filter(|payload| !self.payloads.has(&payload.sha256));
        let to_come: u64 = new.map(|payload| payload.size).sum();
        let store = &self.config.store;
        let taken = size(&store.join("payloads")) + size(&store.join("layers"));
        if to_come > 0 && taken.saturating_add(to_come) > limit {
            return Err(EngineError::OverQuota { limit, taken, to_come });
        }
        Ok(())
    }

    pub(super) fn plan_as(
        &self,
        session: &Session,
        id: &TransactionId,
        manifest: &Manifest,
        request: &Request<'_>,
        onlooker: Onlooker<'_>,
    ) -> Result<Plan, EngineError> {
        // A host takes what fits its kernel, and needs no other's payloads.
        let taken = manifest.for_kernel(&self.host.kernel).taken;
        let payloads: Vec<&Payload> =
            taken.into_iter().flat_map(|index| manifest.components[index].payloads()).collect();
        self.expect_room(&payloads)?;
        for payload in payloads {
            self.payloads.add(payload, request.payloads)?;
        }
        let facts = self.survey(session, manifest, request.quarantine, onlooker)?;
        Ok(planner::plan(manifest, &facts, id.as_str())?)
    }
}
