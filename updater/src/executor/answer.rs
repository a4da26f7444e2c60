//! Doing what a grant lets this host do, and how that is said.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fleet::local::{Answer, Papers, Verdict};
use fleet::rollout::{Action, Fault, Outcome, Said, verdict_of_exit};
use manifests::{GrantedAction, LabelValue, Nonce, Sha256};
use system::clock::Interrupt;
use system::error::with_causes;
use system::lock::HostLock;
use system::lock::Looked;

use super::{Executor, held, locked};
use crate::cli::failures;
use crate::operations::errand::{self, Ailment, Done, Errand, Fate};
use crate::operations::{Driven, Engine, EngineError, Listeners};
use crate::state::journal::TransactionId;
use crate::state::payloads::Spool;
use crate::transaction::driver::{Boundaries, Boundary, Onward, Reached};
use crate::transaction::state;

/// The most bytes of a reason.
const WHY: usize = 1024;

/// An error with everything below it, in one line.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = with_causes(error);
    if let Some((end, _)) = words.char_indices().find(|(at, _)| *at >= WHY) {
        words.truncate(end);
    }
    words
}

pub(super) fn declined(outcome: Outcome, why: String) -> Verdict {
    Verdict { said: Said::Declined { outcome }, why, transaction: None }
}

/// What an operation that was refused, or that failed, says of this host: by its exit code, as for everybody else.
pub(super) fn of_refusal(error: EngineError) -> Verdict {
    let why = words(&error);
    let said = match verdict_of_exit(failures::engine(error).exit().code()) {
        Ok(()) => Said::Ready,
        Err(Ok(outcome)) => Said::Declined { outcome },
        Err(Err(fault)) => Said::Hurt { fault },
    };
    Verdict { said, why, transaction: None }
}

/// The documents as the operations take them. The manifest lies in a file of root's own, not in the agent's.
pub(super) struct Unpacked<'a> {
    rollout: &'a str,
    manifest: tempfile::NamedTempFile,
    spool: Spool,
}

impl<'a> Unpacked<'a> {
    pub(super) fn of(what: &'a Papers, engine: &Engine) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("keep the manifest: {error}");
        let mut manifest = tempfile::Builder::new()
            .prefix(system::durable::UNFINISHED)
            .tempfile_in(&engine.config().store)
            .map_err(failed)?;
        manifest.write_all(what.manifest.as_bytes()).map_err(failed)?;
        Ok(Self { rollout: &what.rollout, manifest, spool: Spool(what.spool.clone()) })
    }

    pub(super) fn papers(&self) -> errand::Papers<'_> {
        errand::Papers { rollout: self.rollout, manifest: self.manifest.path(), payloads: &self.spool }
    }
}

/// Turns back when the fleet, or whoever ends this program, says so.
struct Leash<'a> {
    fleet: Arc<AtomicBool>,
    ending: &'a AtomicBool,
}

impl Interrupt for Leash<'_> {
    fn asked(&self) -> bool {
        self.fleet.load(Ordering::Relaxed) || self.ending.load(Ordering::Relaxed)
    }
}

impl Boundaries for Leash<'_> {
    fn reached(&self, boundary: &Boundary<'_>) -> Onward {
        #[cfg(feature = "power-cuts")]
        crate::cli::power_cuts::reached(boundary);
        let _ = boundary;
        if self.asked() { Onward::TurnBack } else { Onward::Continue }
    }
}

impl Executor {
    pub(super) fn begin(&self, grant: &str, what: &Papers) -> Result<Answer, String> {
        let engine = (self.around.engine)().map_err(|error| words(&error))?;
        let (member, _) = self.member(engine.config())?;
        // For which attempt it is, the grant says; whether it may, the operation judges.
        let nonce = attempt_of(grant)?;
        let Some(made) = locked(&self.attempts).remove(&nonce) else {
            return Ok(Answer::NeverBegan);
        };
        if made.action == Action::Apply && self.is_held() {
            return Ok(held(&self.around));
        }
        let age = self.around.clock.elapsed().saturating_sub(made.at);
        let errand = Errand { member: &member, grant, nonce, age };
        let papers = Unpacked::of(what, &engine)?;
        let turn_back = Arc::new(AtomicBool::new(false));
        *locked(&self.running) = Some((made.rollout, turn_back.clone()));
        let leash = Leash { fleet: turn_back, ending: &self.ending };
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &leash };
        let begun = |id: &TransactionId, _: &_| tracing::info!(transaction = %id, "begun for the fleet");
        let done = match made.action {
            Action::Apply => engine.apply_granted(&errand, &papers.papers(), &listeners, &begun),
            Action::Rollback => engine.roll_back_granted(&errand, &what.rollout, &listeners, &begun),
        };
        *locked(&self.running) = None;
        Ok(Answer::Said(match done {
            Ok(Done::Nothing) => declined(Outcome::NotNeeded, String::new()),
            Ok(Done::Transaction(driven)) => of_driven(made.action, &driven),
            // What the way back cannot begin leaves the change where it is.
            Err(error) if made.action == Action::Rollback => {
                Verdict { said: Said::NotRolledBack, why: words(&error), transaction: None }
            }
            Err(error) => of_refusal(error),
        }))
    }

    pub(super) fn outcome(&self, rollout: Sha256, nonce: &Nonce) -> Result<Answer, String> {
        let waits = locked(&self.attempts).contains_key(nonce);
        if waits || locked(&self.running).as_ref().is_some_and(|(running, _)| *running == rollout) {
            return Ok(Answer::Running);
        }
        let engine = (self.around.engine)().map_err(|error| words(&error))?;
        let fate = engine.fate(rollout, nonce).map_err(|error| words(&error))?;
        Ok(match fate {
            Fate::NeverBegan => Answer::NeverBegan,
            Fate::NotNeeded => Answer::Said(declined(Outcome::NotNeeded, String::new())),
            Fate::Open(id) if is_held_by_somebody(&engine.config().store)? => {
                tracing::debug!(transaction = %id, "goes on");
                Answer::Running
            }
            Fate::Open(id) => {
                let why = "it is unfinished and nobody drives it: update resume".to_owned();
                let said = Said::Hurt { fault: Fault::Unrestored };
                Answer::Said(Verdict { said, why, transaction: label(&id) })
            }
            Fate::Ended { action, transaction, outcome, since, error } => {
                let (said, why) = match (action, outcome, since) {
                    (GrantedAction::Apply, state::Outcome::Committed, None) => (Said::Applied, String::new()),
                    (GrantedAction::Apply, state::Outcome::Committed, Some(Ailment::Kernel(flags))) => {
                        let why = format!("the kernel complained: taint flags {flags:#x} are new");
                        (Said::Hurt { fault: Fault::Splat }, why)
                    }
                    (GrantedAction::Apply, state::Outcome::Committed, Some(Ailment::Unsound)) => {
                        let why = "it does not have what it should have: update status".to_owned();
                        (Said::Hurt { fault: Fault::Unhealthy }, why)
                    }
                    (GrantedAction::Apply, state::Outcome::Committed, Some(Ailment::Undone)) => {
                        (Said::Hurt { fault: Fault::Restored }, "somebody took it back".to_owned())
                    }
                    (GrantedAction::Apply, state::Outcome::RolledBack, _) => {
                        (Said::Hurt { fault: Fault::Restored }, error.unwrap_or_default())
                    }
                    (GrantedAction::Rollback, state::Outcome::Committed, _) => {
                        (Said::RolledBack, String::new())
                    }
                    (GrantedAction::Rollback, state::Outcome::RolledBack, _) => {
                        (Said::NotRolledBack, error.unwrap_or_default())
                    }
                };
                Answer::Said(Verdict { said, why, transaction: label(&transaction) })
            }
        })
    }
}

fn of_driven(action: Action, driven: &Driven) -> Verdict {
    let said = match (action, &driven.reached) {
        (Action::Apply, Reached::Ended(state::Outcome::Committed)) => Said::Applied,
        (Action::Apply, Reached::Ended(state::Outcome::RolledBack)) => Said::Hurt { fault: Fault::Restored },
        (Action::Apply, Reached::NeedsOperator(_)) => Said::Hurt { fault: Fault::Unrestored },
        (Action::Rollback, Reached::Ended(state::Outcome::Committed)) => Said::RolledBack,
        (Action::Rollback, _) => Said::NotRolledBack,
    };
    let why = driven.first_error.as_ref().map(|(_, error)| error.clone()).unwrap_or_default();
    Verdict { said, why, transaction: label(&driven.id) }
}

fn label(id: &TransactionId) -> Option<LabelValue> {
    id.as_str().parse().ok()
}

/// The nonce that a grant names, before anybody believes it.
fn attempt_of(grant: &str) -> Result<Nonce, String> {
    let envelope = manifests::Envelope::parse(grant.as_bytes()).map_err(|error| words(&error))?;
    let grant: manifests::Grant = manifests::Document::parse(envelope.unverified_payload())
        .map_err(|error: manifests::GrantError| words(&error))?;
    Ok(grant.nonce)
}

fn is_held_by_somebody(store: &Path) -> Result<bool, String> {
    match HostLock::look(store) {
        Ok(Looked::Held { .. }) => Ok(true),
        Ok(Looked::Free(_)) => Ok(false),
        Err(error) => Err(words(&error)),
    }
}
