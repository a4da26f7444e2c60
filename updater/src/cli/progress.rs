//! What is printed while a transaction runs: a line a step for people, an object a line for programs.

use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::output::{line, line_over, object, under_way};
use crate::kernel::livepatch::Blocker;
use crate::kernel::transition::TransitionEvent;
use crate::plan::Plan;
use crate::state::journal::TransactionId;
use crate::steps::Told;
use crate::transaction::driver::Heard;
use crate::transaction::state::{Cause, Event, StepIndex};

/// Prints progress to stdout.
pub(super) struct Progress {
    style: Style,
    began: Mutex<Vec<(StepIndex, Timestamp)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// The step under way is shown and rewritten when it ends.
    Terminal,
    /// One line when a step has ended.
    Plain,
    /// One JSON object for each event.
    Json,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        let style = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal,
            (false, false) => Style::Plain,
        };
        Self { style, began: Mutex::new(Vec::new()) }
    }

    pub(super) fn begun(&self, id: &TransactionId, plan: &Plan) {
        match self.style {
            Style::Json => object(&json!({ "transaction": id, "steps": plan.steps.len() })),
            Style::Terminal | Style::Plain => line(&format!("transaction {id}, {} steps", plan.steps.len())),
        }
    }

    /// Somebody else holds the host, and is waited for.
    pub(super) fn waiting_for(&self, holder: &str) {
        match self.style {
            Style::Json => object(&json!({ "waiting_for": holder })),
            Style::Terminal | Style::Plain => line(&format!("waiting for {}", holder)),
        }
    }

    pub(super) fn hear(&self, heard: &Heard<'_>) {
        let Heard::Event(recorded, progress) = heard;
        if self.style == Style::Json {
            object(recorded);
            return;
        }
        let steps = &progress.plan().steps;
        let title = |step: StepIndex| {
            let title = steps.get(step).map_or_else(String::new, |step| step.action.title());
            format!("[{:>2}/{}] {title}", step + 1, steps.len())
        };
        match &recorded.event {
            Event::Intended { step } => self.under_way(*step, recorded.at, &title(*step)),
            Event::Done { step, receipt } => {
                let took = self.took(*step, recorded.at);
                self.say(&format!("{} ({took}{})", title(*step), highlights(receipt)));
            }
            Event::Failed { step, error } => self.say(&format!("{} FAILED: {error}", title(*step))),
            Event::GivenUp { step } => {
                let container = steps.get(*step).and_then(|step| step.action.container());
                let container = container.map_or_else(String::new, ToString::to_string);
                self.say(&format!("container {container} goes back alone, the rest goes on"));
            }
            Event::RollbackDecided { cause: Cause::Operator } => {
                self.say("asked to stop: going back to the old state");
            }
            Event::RollbackDecided { .. } => self.say("going back to the old state"),
            Event::UndoIntended { step } => {
                self.under_way(*step, recorded.at, &format!("undo {}", title(*step)));
            }
            Event::Undone { step, receipt } => {
                let note = receipt.get("note").and_then(Value::as_str);
                let note = note.map(|note| format!("; {note}")).unwrap_or_default();
                let took = self.took(*step, recorded.at);
                self.say(&format!("undo {} ({took}{note}{})", title(*step), highlights(receipt)));
            }
            Event::UndoFailed { step, error } => self.say(&format!("undo {} FAILED: {error}", title(*step))),
            Event::RebootPlanned { step } => self.say(&format!("{}: booting", title(*step))),
            Event::Booted { step } => self.say(&format!("{}: booted, going on", title(*step))),
            Event::RetryDecided => self.say("trying once more"),
            Event::Ended { .. } => {}
        }
    }

    pub(super) fn tell(&self, told: &Told<'_>) {
        let Told::Transition(event) = told;
        if self.style == Style::Json {
            object(&json!({ "transition": event }));
            return;
        }
        match event {
            TransitionEvent::Blocked { after, blockers } => {
                for blocker in blockers {
                    let function = blocker.held_in.as_deref().or(blocker.stack.first().map(String::as_str));
                    self.say(&format!(
                        "        after {after:.1?}: held back by {} (task {}, {}{})",
                        blocker.comm,
                        blocker.tid,
                        blocker.owner,
                        function.map(|name| format!(", in {name}")).unwrap_or_default()
                    ));
                }
            }
            TransitionEvent::Unblocked { after, freeze } => self.say(&format!(
                "        after {after:.1?}: froze {} for {:.1?} and thawed it",
                freeze.owner, freeze.held
            )),
            TransitionEvent::Killed { after, blocker } => {
                self.say(&format!("        after {after:.1?}: {}", killed(blocker)));
            }
            TransitionEvent::LeftAlone { after, owner, why, .. } => {
                self.say(&format!("        after {after:.1?}: {owner} is left alone: {why}"));
            }
            TransitionEvent::Reversing { after } => {
                self.say(&format!("        after {after:.1?}: past the deadline, turning back"));
            }
        }
    }

    fn under_way(&self, step: StepIndex, at: Timestamp, text: &str) {
        {
            let mut began = self.began();
            began.retain(|(known, _)| *known != step);
            began.push((step, at));
        }
        if self.style == Style::Terminal {
            under_way(&format!("{text} …"));
        }
    }

    fn say(&self, text: &str) {
        if self.style == Style::Terminal { line_over(text) } else { line(text) }
    }

    fn took(&self, step: StepIndex, at: Timestamp) -> String {
        let since = self.began().iter().find(|(known, _)| *known == step).map(|(_, since)| *since);
        since.map_or_else(String::new, |since| short(at.duration_since(since).unsigned_abs()))
    }

    fn began(&self) -> MutexGuard<'_, Vec<(StepIndex, Timestamp)>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of a receipt that people want to see at once.
fn highlights(receipt: &Value) -> String {
    let number = |name: &str| receipt.get(name).and_then(Value::as_u64);
    let mut text = String::new();
    if let Some(frozen) = number("frozen_us") {
        text.push_str(&format!(", frozen {}", short(Duration::from_micros(frozen))));
    }
    if let Some(connections) = number("connections") {
        text.push_str(&format!(", {connections} connections"));
    }
    if let Some(reset) = number("reset") {
        text.push_str(&format!(", {reset} peers told"));
    }
    text
}

/// What became of a task that was stuck.
pub(super) fn killed(blocker: &Blocker) -> String {
    format!("killed {} (process {}, {}), which was stuck for good", blocker.comm, blocker.pid, blocker.owner)
}

/// A duration for people: `12 ms`, `3.4 s`, `2m 5s`.
pub(super) fn short(duration: Duration) -> String {
    match duration.as_millis() {
        0..1_000 => format!("{} ms", duration.as_millis()),
        1_000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{}m {}s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}
