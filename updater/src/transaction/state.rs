//! The transition function of a host transaction.
//!
//! A transaction is a [`Plan`] plus the list of [`Event`]s that happened to it. [`Progress::apply`] is the
//! only place where an event changes anything, and it serves both live running and replaying the journal
//! after a crash; [`Progress::next`] derives what to do from nothing else. So what a resumed transaction does
//! can never differ from what the interrupted one would have done.
//!
//! Invariants:
//! - the commit step decides: before it is done a transaction can only end rolled back, after it only
//!   committed;
//! - a step is undone if it was *intended*, whether or not its outcome was recorded, because an intended step
//!   may have acted; undos are therefore safe to repeat and safe on untouched things;
//! - the steps of one container are undone strictly last to first: an undo that fails bars those below it; one of the
//!   host's packages bars those of services and of every container that was taken down before them;
//! - a container whose plan says so goes back alone when one of its steps fails before the commit: from then on its
//!   steps are undone and no more of them run, and the commit makes true what is left. If nothing is left, all goes
//!   back; if its undo fails, the rest goes on, and the transaction stays open at its end;
//! - nothing here touches a host, reads a clock, or panics on a strange journal: an impossible event is an
//!   [`Impossible`] error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use workloads::model::WorkloadId;

use crate::plan::{Action, OnFailure, Plan};

/// Index of a step in its plan.
pub type StepIndex = usize;

/// Something that happened to a transaction. Each event is synced to disk before the next thing is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The step is about to touch the host.
    Intended {
        /// Which step.
        step: StepIndex,
    },
    /// The step took effect and its effect was checked.
    Done {
        /// Which step.
        step: StepIndex,
        /// What the step learned that its undo or the story of the transaction needs.
        receipt: serde_json::Value,
    },
    /// The step did not take effect, or did so only in part.
    Failed {
        /// Which step.
        step: StepIndex,
        /// The error with its causes.
        error: String,
    },
    /// The container of this failed step goes back alone, from here on; the rest of the transaction goes on.
    GivenUp {
        /// Which step.
        step: StepIndex,
    },
    /// From here on the transaction goes back to the old state.
    RollbackDecided {
        /// Why.
        cause: Cause,
    },
    /// The undo of the step is about to touch the host.
    UndoIntended {
        /// Which step.
        step: StepIndex,
    },
    /// The step's effect is gone, and that was checked.
    Undone {
        /// Which step.
        step: StepIndex,
        /// What the undo learned.
        receipt: serde_json::Value,
    },
    /// The undo did not take effect. Steps of other containers and of the kernel are still undone.
    UndoFailed {
        /// Which step.
        step: StepIndex,
        /// The error with its causes.
        error: String,
    },
    /// The step is about to boot the host, and goes on in the boot that follows. Without this record a boot in
    /// the middle of a transaction is a crash.
    RebootPlanned {
        /// Which step.
        step: StepIndex,
    },
    /// The boot that the step had planned has come, in whatever shape: the step looks for itself.
    Booted {
        /// Which step.
        step: StepIndex,
    },
    /// An operator asked to try the failed steps or undos once more.
    RetryDecided,
    /// The transaction is over.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// Why a transaction goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// A step failed; its index names it.
    StepFailed {
        /// Which step.
        step: StepIndex,
    },
    /// The program or the host stopped before the commit.
    Crash,
    /// The operator asked, by a signal or by `update rollback`.
    Operator,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The host is in the new state.
    Committed,
    /// The host is in the old state.
    RolledBack,
}

/// Where one step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepStatus {
    /// Never begun.
    Pending,
    /// Begun, outcome not recorded.
    Intended,
    /// Begun, and about to boot the host.
    Rebooting,
    /// Took effect.
    Done(serde_json::Value),
    /// Failed, perhaps half-way.
    Failed(String),
    /// Its undo has begun, outcome not recorded. Keeps the receipt if there was one.
    Undoing(Option<serde_json::Value>),
    /// Undone.
    Undone,
    /// Its undo failed. Keeps the receipt and the error.
    UndoFailed(Option<serde_json::Value>, String),
}

impl StepStatus {
    /// What the step learned when it was done, if that was recorded.
    pub fn receipt(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Done(receipt) => Some(receipt),
            Self::Undoing(receipt) | Self::UndoFailed(receipt, _) => receipt.as_ref(),
            _ => None,
        }
    }
}

/// Which way a transaction moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Towards the new state.
    Forward,
    /// Towards the old state.
    Backward(Cause),
    /// Over.
    Ended(Outcome),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Run the rest of a stage: lanes that are independent of each other, each with its steps in order.
    Run(Vec<Vec<StepIndex>>),
    /// Record that the container of this failed step goes back alone.
    GiveUp(StepIndex),
    /// Record that the transaction goes back.
    DecideRollback(Cause),
    /// Undo this step.
    Undo(StepIndex),
    /// Record this end.
    End(Outcome),
    /// These steps (or their undos) failed and only an operator can say what now.
    NeedsOperator(Vec<StepIndex>),
    /// The transaction has ended.
    Nothing,
}

/// An event that cannot follow what came before: the journal is damaged or the program is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} cannot follow: step {step:?} is {found}, expected {expected}")]
pub struct Impossible {
    /// The event's name.
    pub event: &'static str,
    /// The step that it speaks of.
    pub step: Option<StepIndex>,
    /// What the event needs.
    pub expected: &'static str,
    /// What the state is.
    pub found: String,
}

/// A plan and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    plan: Plan,
    steps: Vec<StepStatus>,
    phase: Phase,
    /// Containers that went back, or go back, alone, with the steps that failed them.
    given_up: BTreeMap<WorkloadId, StepIndex>,
}

impl Progress {
    /// A transaction to which nothing has happened yet.
    pub fn new(plan: Plan) -> Self {
        let steps = vec![StepStatus::Pending; plan.steps.len()];
        Self { plan, steps, phase: Phase::Forward, given_up: BTreeMap::new() }
    }

    /// The state after all `events`, in order.
    ///
    /// # Errors
    /// [`Impossible`] for the first event that cannot follow those before it.
    pub fn replay<'a>(plan: Plan, events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Impossible> {
        let mut progress = Self::new(plan);
        for event in events {
            progress.apply(event)?;
        }
        Ok(progress)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Which way it moves.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Where a step stands; `None` past the end of the plan.
    pub fn status(&self, step: StepIndex) -> Option<&StepStatus> {
        self.steps.get(step)
    }

    /// Whether the commit step took effect, from where on there is no way back inside this transaction.
    pub fn committed(&self) -> bool {
        self.plan
            .steps
            .iter()
            .zip(&self.steps)
            .any(|(step, status)| step.action == Action::Commit && matches!(status, StepStatus::Done(_)))
    }

    /// The containers that went back alone, or are about to, and the step that failed of each.
    pub fn given_up(&self) -> &BTreeMap<WorkloadId, StepIndex> {
        &self.given_up
    }

    /// The part of the plan that a commit makes true: all but what is done to the containers that went back alone.
    pub fn in_effect(&self) -> Plan {
        self.plan.without(&self.given_up.keys().cloned().collect())
    }

    /// Whether a step has failed and stands in the way of every other. The failure of a container that goes back
    /// alone does not.
    pub fn is_halted(&self) -> bool {
        self.failures().any(|step| self.plan.goes_back_alone(&self.plan.steps[step]).is_none())
    }

    /// The steps that failed, but for those of containers that were given up.
    fn failures(&self) -> impl Iterator<Item = StepIndex> {
        let failed = |index: &StepIndex| matches!(self.steps[*index], StepStatus::Failed(_));
        (0..self.steps.len()).filter(failed).filter(|index| !self.is_given_up(*index))
    }

    /// Whether the step is one of a container that goes back alone.
    fn is_given_up(&self, step: StepIndex) -> bool {
        let container = self.plan.steps.get(step).and_then(|step| step.action.container());
        container.is_some_and(|container| self.given_up.contains_key(container))
    }

    /// The step that has planned a boot which it has not seen yet.
    pub fn rebooting(&self) -> Option<StepIndex> {
        self.steps.iter().position(|status| matches!(status, StepStatus::Rebooting))
    }

    /// Advance by one event.
    ///
    /// # Errors
    /// [`Impossible`] if the event cannot happen in this state; the state is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), Impossible> {
        use StepStatus as S;
        match event {
            Event::Intended { step } => {
                self.expect_phase("intended", self.phase == Phase::Forward, "moving forward")?;
                self.change("intended", *step, "pending", |status| match status {
                    S::Pending => Some(S::Intended),
                    _ => None,
                })
            }
            Event::Done { step, receipt } => self.change("done", *step, "intended", |status| match status {
                S::Intended => Some(S::Done(receipt.clone())),
                _ => None,
            }),
            Event::Failed { step, error } => {
                self.change("failed", *step, "intended", |status| match status {
                    S::Intended | S::Rebooting => Some(S::Failed(error.clone())),
                    _ => None,
                })
            }
            Event::GivenUp { step } => {
                let possible = self.phase == Phase::Forward && !self.committed();
                self.expect_phase("given-up", possible, "moving forward and not committed")?;
                let alone = self.plan.steps.get(*step).and_then(|step| self.plan.goes_back_alone(step));
                let container = alone.cloned();
                self.change("given-up", *step, "failed, of a container that goes back alone", |status| {
                    let failed = matches!(status, S::Failed(_)) && container.is_some();
                    failed.then(|| status.clone())
                })?;
                self.given_up.extend(container.map(|container| (container, *step)));
                Ok(())
            }
            Event::RollbackDecided { cause } => {
                let possible = self.phase == Phase::Forward && !self.committed();
                self.expect_phase("rollback-decided", possible, "moving forward and not committed")?;
                self.phase = Phase::Backward(cause.clone());
                // Of a container that was given up: it is tried once more with the rest.
                for status in &mut self.steps {
                    if let S::UndoFailed(receipt, _) = status {
                        *status = S::Undoing(receipt.take());
                    }
                }
                Ok(())
            }
            Event::RebootPlanned { step } => {
                self.expect_phase("reboot-planned", self.phase == Phase::Forward, "moving forward")?;
                self.change("reboot-planned", *step, "intended", |status| match status {
                    S::Intended => Some(S::Rebooting),
                    _ => None,
                })
            }
            Event::Booted { step } => {
                self.expect_phase("booted", self.phase == Phase::Forward, "moving forward")?;
                self.change("booted", *step, "about to boot the host", |status| match status {
                    S::Rebooting => Some(S::Pending),
                    _ => None,
                })
            }
            Event::UndoIntended { step } => {
                let backward = matches!(self.phase, Phase::Backward(_)) || self.is_given_up(*step);
                self.expect_phase("undo-intended", backward, "moving backward")?;
                self.change("undo-intended", *step, "begun and not undone", |status| match status {
                    S::Intended | S::Rebooting | S::Failed(_) => Some(S::Undoing(None)),
                    S::Done(receipt) => Some(S::Undoing(Some(receipt.clone()))),
                    // The program stopped between this undo's intent and its outcome: it is begun again.
                    S::Undoing(receipt) => Some(S::Undoing(receipt.clone())),
                    _ => None,
                })
            }
            Event::Undone { step, .. } => {
                self.change("undone", *step, "being undone", |status| match status {
                    S::Undoing(_) => Some(S::Undone),
                    _ => None,
                })
            }
            Event::UndoFailed { step, error } => {
                self.change("undo-failed", *step, "being undone", |status| match status {
                    S::Undoing(receipt) => Some(S::UndoFailed(receipt.clone(), error.clone())),
                    _ => None,
                })
            }
            Event::RetryDecided => {
                let open = !matches!(self.phase, Phase::Ended(_));
                self.expect_phase("retry-decided", open, "not ended")?;
                let committed = self.committed();
                let alone: Vec<bool> = (0..self.steps.len()).map(|step| self.is_given_up(step)).collect();
                for (status, alone) in self.steps.iter_mut().zip(alone) {
                    match status {
                        S::UndoFailed(receipt, _) => *status = S::Undoing(receipt.take()),
                        // After the commit an unfinished step is simply done again.
                        S::Failed(_) | S::Intended | S::Rebooting if committed && !alone => {
                            *status = S::Pending
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Event::Ended { outcome } => {
                let open = !matches!(self.phase, Phase::Ended(_));
                self.expect_phase("ended", open, "not ended")?;
                self.phase = Phase::Ended(*outcome);
                Ok(())
            }
        }
    }

    /// What to do next, derived from the state alone.
    pub fn next(&self) -> Next {
        match &self.phase {
            Phase::Ended(_) => Next::Nothing,
            Phase::Forward => self.next_forward(),
            Phase::Backward(_) => self.next_backward(),
        }
    }

    fn next_forward(&self) -> Next {
        if let Some(step) = self.failures().next() {
            let alone = self.plan.goes_back_alone(&self.plan.steps[step]).is_some();
            return if alone && !self.committed() && !self.is_halted() {
                Next::GiveUp(step)
            } else if self.committed() || self.plan.on_failure == OnFailure::Hold {
                Next::NeedsOperator(vec![step])
            } else {
                Next::DecideRollback(Cause::StepFailed { step })
            };
        }
        if let Some(step) = self.next_undo(|index| self.is_given_up(index)) {
            return Next::Undo(step);
        }
        // What went back alone is not the whole of it, unless nothing is left.
        if let Some(step) = self.given_up.values().min()
            && !self.in_effect().changes_the_host()
        {
            return Next::DecideRollback(Cause::StepFailed { step: *step });
        }
        let unfinished = |index: &StepIndex| {
            !matches!(self.steps[*index], StepStatus::Done(_)) && !self.is_given_up(*index)
        };
        let Some(first) = (0..self.steps.len()).find(unfinished) else {
            return self.end(Outcome::Committed);
        };
        let stage = self.plan.steps[first].stage;
        let mut lanes: BTreeMap<u32, Vec<StepIndex>> = BTreeMap::new();
        for index in (first..self.steps.len()).filter(unfinished) {
            let step = &self.plan.steps[index];
            if step.stage == stage {
                lanes.entry(step.lane).or_default().push(index);
            }
        }
        Next::Run(lanes.into_values().collect())
    }

    fn next_backward(&self) -> Next {
        match self.next_undo(|_| true) {
            Some(step) => Next::Undo(step),
            None => self.end(Outcome::RolledBack),
        }
    }

    /// The end, unless an undo failed.
    fn end(&self, outcome: Outcome) -> Next {
        let stuck: Vec<StepIndex> = (0..self.steps.len())
            .filter(|index| matches!(self.steps[*index], StepStatus::UndoFailed(..)))
            .collect();
        if stuck.is_empty() { Next::End(outcome) } else { Next::NeedsOperator(stuck) }
    }

    /// The last of these steps that may have acted and can be undone now.
    fn next_undo(&self, among: impl Fn(StepIndex) -> bool) -> Option<StepIndex> {
        let begun = |status: &StepStatus| {
            matches!(
                status,
                StepStatus::Intended
                    | StepStatus::Rebooting
                    | StepStatus::Done(_)
                    | StepStatus::Failed(_)
                    | StepStatus::Undoing(_)
            )
        };
        // The commit acts by the record of its outcome alone: without it, it never happened.
        let acted = |index: &StepIndex| {
            begun(&self.steps[*index]) && self.plan.steps[*index].action != Action::Commit
        };
        (0..self.steps.len()).rev().find(|index| among(*index) && acted(index) && !self.is_barred(*index))
    }

    /// Whether the undo of a later step of the same container failed. What is below it stands on that undo: old files
    /// are not restored under a version on trial that does not end, and a memory that did not come back is not
    /// thrown away.
    fn is_barred(&self, step: StepIndex) -> bool {
        let action = &self.plan.steps[step].action;
        let container = action.container();
        let on_packages = container.is_some() || matches!(action, Action::ExpectServices { .. });
        (step + 1..self.steps.len()).any(|later| {
            let above = &self.plan.steps[later].action;
            matches!(self.steps[later], StepStatus::UndoFailed(..))
                && (container.is_some() && above.container() == container
                    || on_packages && matches!(above, Action::InstallPackages { .. }))
        })
    }

    fn expect_phase(
        &self,
        event: &'static str,
        holds: bool,
        expected: &'static str,
    ) -> Result<(), Impossible> {
        if holds {
            return Ok(());
        }
        Err(Impossible { event, step: None, expected, found: format!("{:?}", self.phase) })
    }

    fn change(
        &mut self,
        event: &'static str,
        step: StepIndex,
        expected: &'static str,
        change: impl FnOnce(&StepStatus) -> Option<StepStatus>,
    ) -> Result<(), Impossible> {
        let impossible = |found: String| Impossible { event, step: Some(step), expected, found };
        if let Phase::Ended(outcome) = self.phase {
            return Err(impossible(format!("ended as {outcome:?}")));
        }
        let status = self.steps.get_mut(step).ok_or_else(|| impossible("not in the plan".to_owned()))?;
        match change(status) {
            Some(new) => *status = new,
            None => return Err(impossible(format!("{status:?}"))),
        }
        Ok(())
    }
}
