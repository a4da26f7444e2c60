//! Doing what a grant lets this host do, and how that is said.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fleet::local::{Answer, Papers, Verdict};
use fleet::rollout::{Action, Fault, Outcome, Said, verdict_of_exit};
use manifests::{Document, Envelope, Grant, GrantedAction, LabelValue, Nonce, Sha256};
use system::clock::Interrupt;
use system::error::with_causes;
use system::lock::HostLock;
use system::lock::Looked;

use super::{Executor, Run};
use crate::cli::failures;
use crate::operations::errand::{self, Ailment, Done, Errand, Fate};
use crate::operations::{Engine, EngineError, Listeners};
use crate::state::journal::TransactionId;
use crate::state::payloads::Spool;
use crate::transaction::driver::{Boundaries, Boundary, Onward};
use crate::transaction::state::{self, Cause};

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

/// What an operation that did not come to its end says of this host: by its exit code, as for everybody else.
pub(super) fn of_refusal(error: EngineError) -> Verdict {
    let why = words(&error);
    if let EngineError::Stopped { id, .. } = &error {
        let said = Said::Hurt { fault: Fault::Unrestored };
        return Verdict { said, why, transaction: label(id) };
    }
    if let EngineError::Hold(_) = &error {
        return declined(Outcome::Held, why);
    }
    match verdict_of_exit(failures::engine(error).exit().code()) {
        Err(Ok(outcome)) => declined(outcome, why),
        // It was interrupted before it began, or something older is half-way: nothing of this is on the host.
        _ => declined(Outcome::Busy, why),
    }
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
pub(super) struct Leash<'a>(Option<[&'a AtomicBool; 2]>);

impl<'a> Leash<'a> {
    /// For ways back: nobody turns them back.
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn of(run: &'a Run<'_>) -> Self {
        match run.made.action {
            Action::Apply => Self(Some([&run.turn_back, &run.executor.ending])),
            Action::Rollback => Self::none(),
        }
    }
}

impl Interrupt for Leash<'_> {
    fn asked(&self) -> bool {
        self.0.is_some_and(|who| who.iter().any(|one| one.load(Ordering::Relaxed)))
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
        let (engine, member) = self.member()?;
        // For which attempt it is, the grant says; whether it may, the operation judges.
        let word = word_of(grant)?;
        let Some(run) = self.run(word.nonce) else {
            // It comes again, or nobody waits for it: nothing is begun, and what is true is said.
            return self.outcome(word.rollout, &word.nonce);
        };
        let action = run.made.action;
        let errand = Errand { member: &member, grant, nonce: run.nonce, made: run.made.at };
        let papers = Unpacked::of(what, &engine)?;
        let leash = Leash::of(&run);
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &leash };
        let begun = |id: &TransactionId, _: &_| tracing::info!(transaction = %id, "begun for the fleet");
        let done = match action {
            Action::Apply => engine.apply_granted(&errand, &papers.papers(), &listeners, &begun),
            Action::Rollback => engine.roll_back_granted(&errand, &what.rollout, &listeners, &begun),
        };
        Ok(Answer::Said(match done {
            Ok(Done::Nothing | Done::Transaction(_)) => {
                return judge(&engine, run.made.rollout, &run.nonce);
            }
            // What the way back cannot begin leaves the change where it is.
            Err(error) if action == Action::Rollback => {
                Verdict { said: Said::NotRolledBack, why: words(&error), transaction: None }
            }
            Err(error) => of_refusal(error),
        }))
    }

    pub(super) fn outcome(&self, rollout: Sha256, nonce: &Nonce) -> Result<Answer, String> {
        {
            let mut attempts = self.attempts();
            if attempts.running.contains_key(nonce) {
                return Ok(Answer::Running);
            }
            // Whoever asks has lost it: it begins nothing any more.
            attempts.waiting.remove(nonce);
        }
        let (engine, _) = self.engine()?;
        judge(&engine, rollout, nonce)
    }
}

/// What the journal, and the host since then, say of an attempt.
fn judge(engine: &Engine, rollout: Sha256, nonce: &Nonce) -> Result<Answer, String> {
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
        Fate::Ended {
            action: GrantedAction::Apply,
            transaction,
            outcome: state::Outcome::RolledBack,
            cause: Some(Cause::Operator),
            ..
        } => Answer::Said(turned_back(&transaction)),
        Fate::Ended { action, transaction, outcome, since, error, .. } => {
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
                (GrantedAction::Rollback, state::Outcome::Committed, _) => (Said::RolledBack, String::new()),
                (GrantedAction::Rollback, state::Outcome::RolledBack, _) => {
                    (Said::NotRolledBack, error.unwrap_or_default())
                }
            };
            Answer::Said(Verdict { said, why, transaction: label(&transaction) })
        }
    })
}

/// Somebody said so, and the host is as it was: it may be asked again.
fn turned_back(id: &TransactionId) -> Verdict {
    let why = "it was told to turn back, and everything is as before".to_owned();
    Verdict { transaction: label(id), ..declined(Outcome::Busy, why) }
}

fn label(id: &TransactionId) -> Option<LabelValue> {
    id.as_str().parse().ok()
}

/// What a grant says, before anybody believes it.
fn word_of(grant: &str) -> Result<Grant, String> {
    let envelope = Envelope::parse(grant.as_bytes()).map_err(|error| words(&error))?;
    <Grant as Document>::parse(envelope.unverified_payload()).map_err(|error| words(&error))
}

fn is_held_by_somebody(store: &Path) -> Result<bool, String> {
    match HostLock::look(store) {
        Ok(Looked::Held { .. }) => Ok(true),
        Ok(Looked::Free(_)) => Ok(false),
        Err(error) => Err(words(&error)),
    }
}
