//! Drives a transaction: asks [`Progress::next`] what to do, journals, acts, journals.
//!
//! The driver decides nothing and knows nothing about kernels or containers. Around each act there are
//! three boundaries at which the program may be cut: after the intent is on disk, after the act but before its
//! outcome is on disk, and after the outcome is on disk. A [`Boundaries`] sees each of them, which is how an
//! operator's signal becomes a rollback and how the tests cut the power at every one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use serde_json::Value;
use system::boot::Incarnation;
pub use system::boot::Since;
use system::clock::{Clock, Interrupt};

use crate::plan::{Action, Plan, Step, Undo};
use crate::state::baseline::BaselineChange;
use crate::state::journal::{Journal, JournalError, Recorded, Stored, TransactionId};
use crate::transaction::state::{
    Cause, Event, Impossible, Next, Outcome, Phase, Progress, StepIndex, StepStatus,
};

/// What performs steps: the real host, or a simulated one.
pub trait Hands: Sync {
    /// Do the step and check that it took effect; if it has taken effect before, that is success.
    ///
    /// # Errors
    /// [`StepError`]; the step may have acted in part, which its undo copes with.
    fn perform(&self, at: &Place<'_>) -> Result<Value, StepError>;

    /// Take the step back and check that it is gone; if it never acted, that is success.
    ///
    /// # Errors
    /// [`StepError`]; repeating the undo is safe.
    fn undo(&self, at: &Place<'_>) -> Result<Value, StepError>;
}

/// A step in its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The transaction.
    pub id: &'a TransactionId,
    /// Its plan.
    pub plan: &'a Plan,
    /// The step.
    pub step: &'a Step,
    /// What the step reported when it was done; only for undos, and only if its outcome was recorded.
    pub receipt: Option<&'a Value>,
    /// What the host may have lost since the step was intended.
    pub since: Since,
}

impl Place<'_> {
    /// The bytes of the module that the step loads or takes off; `None` for every other step.
    pub fn step_payload(&self) -> Option<&manifests::Sha256> {
        match (&self.step.action, &self.step.undo) {
            (Action::LoadLivepatch { payload, .. }, _) => Some(payload),
            (Action::RemoveLivepatch { .. }, Undo::ReloadLivepatch { patch, .. }) => Some(&patch.payload),
            _ => None,
        }
    }
}

/// A step or undo that failed: what it was, with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StepError {
    /// What was being done.
    pub doing: String,
    /// Why it failed.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StepError {
    /// For `map_err`: what was being done, in the words of the operator.
    pub fn doing<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Self { doing, source: source.into() }
    }

    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        system::error::with_causes(self)
    }
}

/// A point between two things that can survive a power cut separately.
#[derive(Debug, Clone, Copy)]
pub struct Boundary<'a> {
    /// Which side of the record it is on.
    pub moment: Moment,
    /// The event that is or is about to be recorded.
    pub event: &'a Event,
}

/// Which side of the journal write a boundary is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The host was changed; the event that says so is not on disk.
    BeforeRecord,
    /// The event is on disk; what it announces has not begun.
    AfterRecord,
}

/// Sees every boundary of a transaction, and may end the waits between two of them.
pub trait Boundaries: Interrupt + Sync {
    /// Go on, or turn back. Not asked to turn back once the transaction is committed.
    fn reached(&self, boundary: &Boundary<'_>) -> Onward;
}

/// What to do at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// Go on.
    Continue,
    /// The operator asked to stop: roll back if that is still possible.
    TurnBack,
    /// Stop at once and record nothing, as a power cut does.
    Cut,
}

/// Why a transaction could not be driven to an end. It stays open in the journal.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The journal cannot be written, so nothing may be changed any more.
    #[error("the journal cannot be kept; the transaction stands where it is")]
    Journal(#[from] JournalError),
    /// The program recorded what cannot be.
    #[error("an impossible event")]
    Impossible(#[from] Impossible),
    /// A boundary asked for it.
    #[error("cut at a boundary")]
    Cut,
}

/// How far a drive came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// The end.
    Ended(Outcome),
    /// These steps or undos failed, and an operator must decide.
    NeedsOperator(Vec<StepIndex>),
}

/// What a listener hears while a transaction runs.
#[derive(Debug)]
pub enum Heard<'a> {
    /// An event was recorded.
    Event(&'a Recorded, &'a Progress),
}

/// Runs transactions.
pub struct Driver<'a> {
    /// Where everything is recorded.
    pub journal: &'a Mutex<Journal>,
    /// Who acts.
    pub hands: &'a dyn Hands,
    /// Who may turn it back.
    pub boundaries: &'a dyn Boundaries,
    /// For the time of events.
    pub clock: &'a (dyn Clock + Sync),
    /// The boot that is running.
    pub incarnation: &'a Incarnation,
    /// Who is told.
    pub listener: &'a (dyn Fn(&Heard<'_>) + Sync),
}

impl Driver<'_> {
    /// Drive a transaction until it ends or needs an operator. `stored` is as loaded from the journal, or as
    /// just begun.
    ///
    /// # Errors
    /// [`DriveError`]; the transaction stays open and `update resume` takes it up.
    pub fn run(&self, stored: Stored) -> Result<Reached, DriveError> {
        self.live(stored).run()
    }

    fn live(&self, stored: Stored) -> Live<'_> {
        let intents = stored.events.iter().filter_map(|recorded| match recorded.event {
            Event::Intended { step } => Some((step, recorded.during.clone())),
            _ => None,
        });
        Live {
            driver: self,
            // The boot of the first event: a resume that was itself cut has recorded events of a later boot.
            began_in: stored.events.first().map(|recorded| recorded.during.clone()),
            intended_in: Mutex::new(intents.collect()),
            id: stored.id,
            progress: Mutex::new(stored.progress),
        }
    }

    /// Take up a transaction that was interrupted or waits for an operator: before its commit it goes back,
    /// after its commit it is finished; failed undos are tried once more.
    ///
    /// # Errors
    /// As [`Driver::run`].
    pub fn resume(&self, stored: Stored) -> Result<Reached, DriveError> {
        let live = self.live(stored);
        let decision = {
            let progress = live.progress();
            match progress.phase() {
                Phase::Ended(_) => None,
                Phase::Forward if !progress.committed() => {
                    // What waited for an operator did not crash, unless the host has gone down meanwhile.
                    let waited = matches!(progress.next(), Next::NeedsOperator(_));
                    Some(match (live.since(live.began_in.as_ref()), progress.rebooting()) {
                        (Since::Rebooted, Some(step)) => Event::Booted { step },
                        (Since::SameBoot | Since::SoftRebooted, _) if waited => {
                            Event::RollbackDecided { cause: Cause::Operator }
                        }
                        _ => Event::RollbackDecided { cause: Cause::Crash },
                    })
                }
                Phase::Forward | Phase::Backward(_) => Some(Event::RetryDecided),
            }
        };
        if let Some(event) = decision {
            live.record(event)?;
        }
        live.run()
    }
}

/// A transaction being driven.
struct Live<'a> {
    driver: &'a Driver<'a>,
    id: TransactionId,
    began_in: Option<Incarnation>,
    /// The boots in which the steps were intended.
    intended_in: Mutex<BTreeMap<StepIndex, Incarnation>>,
    progress: Mutex<Progress>,
}

impl Live<'_> {
    /// What may have happened to the host since that boot.
    fn since(&self, earlier: Option<&Incarnation>) -> Since {
        earlier.map_or(Since::SameBoot, |earlier| self.driver.incarnation.since(earlier))
    }

    fn since_intent(&self, step: StepIndex) -> Since {
        self.since(lock(&self.intended_in).get(&step))
    }

    fn run(&self) -> Result<Reached, DriveError> {
        loop {
            let next = self.progress().next();
            match next {
                Next::Run(lanes) => self.stage(&lanes)?,
                Next::GiveUp(step) => self.record(Event::GivenUp { step })?,
                Next::DecideRollback(cause) => self.record(Event::RollbackDecided { cause })?,
                Next::Undo(step) => self.undo(step)?,
                Next::End(outcome) => self.record(Event::Ended { outcome })?,
                Next::NeedsOperator(steps) => return Ok(Reached::NeedsOperator(steps)),
                Next::Nothing => match self.progress().phase() {
                    Phase::Ended(outcome) => return Ok(Reached::Ended(*outcome)),
                    Phase::Forward | Phase::Backward(_) => continue,
                },
            }
        }
    }

    /// Run the lanes of a stage side by side. Lanes stop at their next boundary when one of them fails, unless what
    /// fails goes back alone.
    fn stage(&self, lanes: &[Vec<StepIndex>]) -> Result<(), DriveError> {
        if let [lane] = lanes {
            return self.lane(lane);
        }
        thread::scope(|scope| {
            let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| self.lane(lane))).collect();
            let mut result = Ok(());
            for lane in running {
                let ended = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(ended);
            }
            result
        })
    }

    fn lane(&self, steps: &[StepIndex]) -> Result<(), DriveError> {
        for &step in steps {
            if !self.going_forward() {
                return Ok(());
            }
            match self.record(Event::Intended { step }) {
                // Another lane turned back between the question and the record.
                Err(DriveError::Impossible(_)) if !self.going_forward() => return Ok(()),
                recorded => recorded?,
            }
            if !self.going_forward() {
                return Ok(());
            }
            let plan = self.progress().plan().clone();
            let Some(action) = plan.steps.get(step) else { return Ok(()) };
            let since = self.since_intent(step);
            let at = Place { id: &self.id, plan: &plan, step: action, receipt: None, since };
            match self.driver.hands.perform(&at) {
                Ok(receipt) => self.record(Event::Done { step, receipt })?,
                Err(error) => {
                    self.record(Event::Failed { step, error: error.chain() })?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether lanes may take another step.
    fn going_forward(&self) -> bool {
        let progress = self.progress();
        *progress.phase() == Phase::Forward && !progress.is_halted()
    }

    fn undo(&self, step: StepIndex) -> Result<(), DriveError> {
        self.record(Event::UndoIntended { step })?;
        let (plan, receipt) = {
            let progress = self.progress();
            let receipt = progress.status(step).and_then(StepStatus::receipt).cloned();
            (progress.plan().clone(), receipt)
        };
        let Some(action) = plan.steps.get(step) else { return Ok(()) };
        let since = self.since_intent(step);
        let at = Place { id: &self.id, plan: &plan, step: action, receipt: receipt.as_ref(), since };
        match self.driver.hands.undo(&at) {
            Ok(receipt) => self.record(Event::Undone { step, receipt }),
            Err(error) => self.record(Event::UndoFailed { step, error: error.chain() }),
        }
    }

    /// Record an event, with the boundaries on both sides.
    fn record(&self, event: Event) -> Result<(), DriveError> {
        self.boundary(Moment::BeforeRecord, &event)?;
        self.write(event.clone())?;
        self.boundary(Moment::AfterRecord, &event)
    }

    /// Write an event to the journal, then make it true here.
    fn write(&self, event: Event) -> Result<(), DriveError> {
        let recorded =
            Recorded { at: self.driver.clock.now(), during: self.driver.incarnation.clone(), event };
        let mut progress = self.progress();
        let mut after = progress.clone();
        after.apply(&recorded.event)?;
        let commits = match recorded.event {
            Event::Done { step, .. } => {
                after.plan().steps.get(step).is_some_and(|step| step.action == Action::Commit)
            }
            _ => false,
        };
        let changes = if commits { BaselineChange::of(&after.in_effect()) } else { Vec::new() };
        lock(self.driver.journal).append(&self.id, &recorded, &changes)?;
        if let Event::Intended { step } = recorded.event {
            lock(&self.intended_in).insert(step, recorded.during.clone());
        }
        *progress = after;
        (self.driver.listener)(&Heard::Event(&recorded, &progress));
        Ok(())
    }

    fn boundary(&self, moment: Moment, event: &Event) -> Result<(), DriveError> {
        match self.driver.boundaries.reached(&Boundary { moment, event }) {
            Onward::Continue => Ok(()),
            Onward::Cut => Err(DriveError::Cut),
            Onward::TurnBack => {
                let may = {
                    let progress = self.progress();
                    *progress.phase() == Phase::Forward && !progress.committed()
                };
                // Between the act and its record the record comes first; the next boundary turns back.
                if may && moment == Moment::AfterRecord {
                    self.write(Event::RollbackDecided { cause: Cause::Operator })?;
                }
                Ok(())
            }
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }
}

/// A poisoned lock means that a lane panicked; its panic is resumed by the stage that joined it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
