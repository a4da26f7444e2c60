//! What happened in a transaction, with times: from the journal alone.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use workloads::model::WorkloadId;

use crate::kernel::livepatch::Blocker;
use crate::kernel::transition::TransitionReport;
use crate::plan::Action;
use crate::state::author::Actor;
use crate::state::hold::Passed;
use crate::state::journal::{Origin, Stored};
use crate::transaction::state::{Event, Outcome, Phase, StepIndex, StepStatus};

/// The whole story of one transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// Its name.
    pub id: String,
    /// What began it.
    pub origin: Origin,
    /// Who began it; `null` where that was not kept.
    pub by: Option<Actor>,
    /// The hold that it was begun despite, and who said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub despite_hold: Option<Passed>,
    /// When it began.
    pub began: Timestamp,
    /// When the last thing happened.
    pub until: Timestamp,
    /// How it ended; `null` while it is unfinished.
    pub outcome: Option<Outcome>,
    /// Why it went back, if it did.
    pub cause: Option<String>,
    /// Containers that went back alone, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<GivenUp>,
    /// The steps that were begun, in order, with their undos.
    pub steps: Vec<Chapter>,
    /// Times of each container.
    pub containers: Vec<ContainerTimes>,
    /// Times of each livepatch.
    pub livepatches: Vec<LivepatchTimes>,
}

/// A container that failed and went back alone: it runs what it ran before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// Which.
    pub container: WorkloadId,
    /// The step that failed, with its error.
    pub why: String,
}

/// One step or undo.
#[derive(Debug, Clone, Serialize)]
pub struct Chapter {
    /// Index in the plan.
    pub step: StepIndex,
    /// What was done.
    pub title: String,
    /// Whether it is the step or its undo.
    pub direction: Direction,
    /// When its intent was recorded.
    pub began: Timestamp,
    /// Until its outcome was recorded, in microseconds; `null` if it never was.
    pub took_us: Option<u64>,
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
}

/// Which way a chapter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Towards the new state.
    Do,
    /// Towards the old state.
    Undo,
}

/// How a chapter ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum End {
    /// It took effect.
    Done {
        /// What was learned.
        receipt: Value,
    },
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
    /// The program stopped in the middle of it.
    Cut,
}

/// What a container felt, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerTimes {
    /// Which.
    pub container: String,
    /// How long its tasks stood still while the rest of its memory was written.
    pub frozen_us: Option<u64>,
    /// From the checkpoint (or stop) until the new version was started.
    pub down_us: Option<u64>,
    /// From the checkpoint until the old version was back, if it went back.
    pub back_after_us: Option<u64>,
}

/// What a livepatch took, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LivepatchTimes {
    /// Which.
    pub module: String,
    /// Until every task ran the new functions, in milliseconds.
    pub transition_ms: Option<u64>,
    /// Tasks that held it back.
    pub blockers: usize,
    /// Those of them whose processes were killed, as the manifest permits.
    pub killed: Vec<Blocker>,
}

impl Story {
    /// The story of a stored transaction.
    pub fn of(stored: &Stored) -> Self {
        let steps = chapters(stored);
        let cause = stored.events.iter().find_map(|recorded| match &recorded.event {
            Event::RollbackDecided { cause } => Some(describe_cause(stored, cause)),
            _ => None,
        });
        Self {
            id: stored.id.to_string(),
            origin: stored.origin.clone(),
            by: stored.by.clone(),
            despite_hold: stored.despite.clone(),
            began: stored.began,
            until: stored.events.last().map_or(stored.began, |recorded| recorded.at),
            outcome: stored.outcome(),
            cause,
            given_up: stored.given_up(),
            containers: container_times(stored, &steps),
            livepatches: livepatch_times(stored, &steps),
            steps,
        }
    }
}

impl Stored {
    /// The first error of a step or an undo, if there was one.
    pub fn first_error(&self) -> Option<(StepIndex, String)> {
        self.events.iter().find_map(|recorded| match &recorded.event {
            Event::Failed { step, error } | Event::UndoFailed { step, error } => Some((*step, error.clone())),
            _ => None,
        })
    }

    /// The containers that went back alone.
    pub fn given_up(&self) -> Vec<GivenUp> {
        let why = |failed: StepIndex| {
            let title = self.progress.plan().steps.get(failed).map(|step| step.action.title());
            let error = self.events.iter().find_map(|recorded| match &recorded.event {
                Event::Failed { step, error } if *step == failed => Some(error.as_str()),
                _ => None,
            });
            format!("{}: {}", title.unwrap_or_default(), error.unwrap_or("it failed"))
        };
        let given_up = self.progress.given_up().iter();
        given_up.map(|(id, step)| GivenUp { container: id.clone(), why: why(*step) }).collect()
    }

    /// The steps whose undo (or, after the commit, whose action) failed, with the errors.
    pub fn stuck(&self) -> Vec<(String, String)> {
        let plan = self.progress.plan();
        (0..plan.steps.len())
            .filter_map(|index| match self.progress.status(index) {
                Some(StepStatus::UndoFailed(_, error) | StepStatus::Failed(error))
                    if !matches!(self.progress.phase(), Phase::Ended(_)) =>
                {
                    Some((plan.steps[index].action.title(), error.clone()))
                }
                _ => None,
            })
            .collect()
    }
}

fn describe_cause(stored: &Stored, cause: &crate::transaction::state::Cause) -> String {
    use crate::transaction::state::Cause;
    match cause {
        Cause::StepFailed { step } => {
            let title = stored.progress.plan().steps.get(*step).map(|step| step.action.title());
            format!("failed: {}", title.unwrap_or_else(|| format!("step {step}")))
        }
        Cause::Crash => "the program or the host stopped before the commit".to_owned(),
        Cause::Operator => "the operator asked".to_owned(),
    }
}

fn chapters(stored: &Stored) -> Vec<Chapter> {
    let plan = stored.progress.plan();
    let mut chapters: Vec<Chapter> = Vec::new();
    for recorded in &stored.events {
        let (step, direction) = match &recorded.event {
            Event::Intended { step } => (*step, Direction::Do),
            Event::UndoIntended { step } => (*step, Direction::Undo),
            Event::Done { step, .. } | Event::Failed { step, .. } => {
                end(&mut chapters, *step, Direction::Do, recorded.at, &recorded.event);
                continue;
            }
            Event::Undone { step, .. } | Event::UndoFailed { step, .. } => {
                end(&mut chapters, *step, Direction::Undo, recorded.at, &recorded.event);
                continue;
            }
            _ => continue,
        };
        let title = plan.steps.get(step).map_or_else(String::new, |step| step.action.title());
        chapters.push(Chapter { step, title, direction, began: recorded.at, took_us: None, end: End::Cut });
    }
    chapters
}

fn end(chapters: &mut [Chapter], step: StepIndex, direction: Direction, at: Timestamp, event: &Event) {
    let open =
        chapters.iter_mut().rev().find(|chapter| chapter.step == step && chapter.direction == direction);
    let Some(chapter) = open else { return };
    chapter.took_us = Some(between(chapter.began, at));
    chapter.end = match event {
        Event::Done { receipt, .. } | Event::Undone { receipt, .. } => End::Done { receipt: receipt.clone() },
        Event::Failed { error, .. } | Event::UndoFailed { error, .. } => End::Failed { error: error.clone() },
        _ => End::Cut,
    };
}

fn between(from: Timestamp, to: Timestamp) -> u64 {
    let passed: Duration = to.duration_since(from).unsigned_abs();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}

fn container_times(stored: &Stored, chapters: &[Chapter]) -> Vec<ContainerTimes> {
    let plan = stored.progress.plan();
    plan.containers
        .iter()
        .map(|planned| {
            let id = &planned.container.id;
            let find = |direction: Direction, wanted: &dyn Fn(&Action) -> bool| {
                chapters.iter().rev().find(|chapter| {
                    chapter.direction == direction
                        && plan
                            .steps
                            .get(chapter.step)
                            .is_some_and(|step| step.action.container() == Some(id) && wanted(&step.action))
                })
            };
            let took_down =
                |action: &Action| matches!(action, Action::Checkpoint { .. } | Action::Stop { .. });
            let down = find(Direction::Do, &took_down);
            let ended = |chapter: &Chapter| match (&chapter.end, chapter.took_us) {
                (End::Done { .. }, Some(took)) => chapter.began.checked_add(Duration::from_micros(took)).ok(),
                _ => None,
            };
            let until = |chapter: Option<&Chapter>| Some(between(down?.began, chapter.and_then(ended)?));
            let frozen_us = match down.map(|chapter| &chapter.end) {
                Some(End::Done { receipt }) => receipt.get("frozen_us").and_then(Value::as_u64),
                _ => None,
            };
            let started =
                |action: &Action| matches!(action, Action::Start { .. } | Action::RestoreRetained { .. });
            ContainerTimes {
                container: id.to_string(),
                frozen_us,
                down_us: until(find(Direction::Do, &started)),
                back_after_us: until(find(Direction::Undo, &took_down)),
            }
        })
        .collect()
}

fn livepatch_times(stored: &Stored, chapters: &[Chapter]) -> Vec<LivepatchTimes> {
    let plan = stored.progress.plan();
    chapters
        .iter()
        .filter(|chapter| chapter.direction == Direction::Do)
        .filter_map(|chapter| match &plan.steps.get(chapter.step)?.action {
            Action::AwaitTransition { module, .. } => {
                let report = match &chapter.end {
                    End::Done { receipt } => TransitionReport::deserialize(receipt).ok(),
                    _ => None,
                };
                Some(LivepatchTimes {
                    module: module.to_string(),
                    transition_ms: report.as_ref().and_then(|report| report.took.as_millis().try_into().ok()),
                    blockers: report.as_ref().map_or(0, |report| report.blockers.len()),
                    killed: report.map(|report| report.killed).unwrap_or_default(),
                })
            }
            _ => None,
        })
        .collect()
}
