//! What operations came to, as a program reads it: the types behind `--json` and the agent's answers.

use jiff::Timestamp;
use serde::Serialize;
use workloads::model::WorkloadId;

use crate::operations::apply::Applied;
use crate::operations::resume::{Reapplied, Resumed};
use crate::operations::story::GivenUp;
use crate::plan::Plan;
use crate::state::author::Actor;
use crate::state::crash_guard::Quarantined;
use crate::state::journal::{Origin, Stored, TransactionId};
use crate::transaction::driver::Reached;
use crate::transaction::state::{Outcome, StepIndex};

/// What an operation that changes the host came to, when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Changed {
    /// The manifest is in force.
    Committed {
        /// The transaction.
        transaction: TransactionId,
        /// Affected containers that the manifest leaves alone.
        skipped: Vec<WorkloadId>,
        /// Containers that failed and went back alone, as the manifest says: they run what they ran before.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        given_up: Vec<GivenUp>,
    },
    /// The host had all of it.
    NothingToDo {
        /// None.
        skipped: Vec<WorkloadId>,
    },
    /// This host does not need it: its kernel has the fixes, and nothing else is affected.
    NotNeeded {
        /// Why, one sentence each.
        why: Vec<String>,
    },
    /// Nothing was done, since all that is affected is skipped.
    Skipped {
        /// The containers.
        skipped: Vec<WorkloadId>,
    },
    /// An earlier transaction was undone.
    RolledBack {
        /// The transaction that undid it.
        transaction: TransactionId,
    },
    /// Old files were removed.
    Collected,
}

impl Changed {
    /// Of an apply that was driven to its commit, or had nothing to do.
    pub fn by_apply(applied: &Applied) -> Self {
        match applied {
            Applied::Nothing(plan) => Self::nothing(plan),
            Applied::Transaction { plan, driven, .. } => {
                let skipped = plan.skipped().cloned().collect();
                Self::Committed { transaction: driven.id.clone(), skipped, given_up: driven.given_up.clone() }
            }
        }
    }

    pub(crate) fn nothing(plan: &Plan) -> Self {
        if !plan.not_needed.is_empty() {
            return Self::NotNeeded { why: plan.not_needed.clone() };
        }
        let skipped: Vec<WorkloadId> = plan.skipped().cloned().collect();
        if skipped.is_empty() { Self::NothingToDo { skipped } } else { Self::Skipped { skipped } }
    }
}

/// A plan that was asked for.
#[derive(Debug, Serialize)]
pub struct Planned<'a> {
    /// The plan.
    pub plan: &'a Plan,
}

/// How many livepatch loads were marked.
#[derive(Debug, Serialize)]
pub struct Marked {
    /// The number.
    pub marked: usize,
}

/// What a resume came to.
#[derive(Debug, Serialize)]
pub struct ResumeReport<'a> {
    /// Whether something is left that only an operator can decide.
    pub result: ResumeResult,
    /// Control groups that were thawed.
    pub thawed: usize,
    /// Transactions that were open.
    pub transactions: Vec<Closed>,
    /// Livepatches that went into quarantine now.
    pub quarantined: &'a [Quarantined],
    /// What the host should have, and what became of it.
    pub baseline: &'a [Reapplied],
}

/// Whether a resume came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResumeResult {
    /// It did.
    Resumed,
    /// Something is left.
    NeedsOperator,
}

/// A transaction that was open, and how it stands now.
#[derive(Debug, Serialize)]
pub struct Closed {
    /// The transaction.
    pub id: TransactionId,
    /// How it ended; `null` if it did not.
    pub outcome: Option<Outcome>,
    /// Steps that failed, or whose undo did.
    pub stuck: Vec<StepIndex>,
}

impl<'a> ResumeReport<'a> {
    /// The report of a resume.
    pub fn of(resumed: &'a Resumed) -> Self {
        let transactions = resumed.transactions.iter().map(|driven| {
            let (outcome, stuck) = match &driven.reached {
                Reached::Ended(outcome) => (Some(*outcome), Vec::new()),
                Reached::NeedsOperator(steps) => (None, steps.clone()),
            };
            Closed { id: driven.id.clone(), outcome, stuck }
        });
        let result =
            if resumed.needs_operator() { ResumeResult::NeedsOperator } else { ResumeResult::Resumed };
        Self {
            result,
            thawed: resumed.thawed,
            transactions: transactions.collect(),
            quarantined: &resumed.quarantined,
            baseline: &resumed.baseline,
        }
    }
}

/// A transaction in a line.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// Its name.
    pub id: &'a TransactionId,
    /// What began it.
    pub origin: &'a Origin,
    /// Who began it; `null` where that was not kept.
    pub by: Option<&'a Actor>,
    /// When it began.
    pub began: Timestamp,
    /// When the last of its events was.
    pub until: Timestamp,
    /// How it ended; `null` if it did not.
    pub outcome: Option<Outcome>,
}

impl<'a> Entry<'a> {
    /// The line of a transaction.
    pub fn of(stored: &'a Stored) -> Self {
        let until = stored.events.last().map_or(stored.began, |recorded| recorded.at);
        let Stored { id, origin, by, began, .. } = stored;
        Self { id, origin, by: by.as_ref(), began: *began, until, outcome: stored.outcome() }
    }
}
