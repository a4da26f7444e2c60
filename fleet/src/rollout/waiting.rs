//! Why a rollout does not go on at this moment. In every stage but the last ones there is at least one reason.

use std::collections::BTreeMap;

use manifests::{GroupName, Summary, UtcTime};
use serde::Serialize;

use super::begin::{Action, Book, NotNow, Request, begin};
use super::health::Unanswered;
use super::state::{HostState, Plan, Progress, Stage};
use crate::assurance::later;
use crate::policy::calendar::Opening;
use manifests::Nonce;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "waits-for", rename_all = "kebab-case")]
pub enum Waiting {
    /// It has not been submitted.
    Submission,
    /// People have to agree.
    Approval {
        /// How many.
        needed: u32,
        /// How many do.
        have: u32,
    },
    /// It is too early.
    Start {
        /// When it begins.
        at: UtcTime,
    },
    /// No window is open.
    Window {
        /// When the next one opens.
        opens: Option<UtcTime>,
    },
    /// A freeze is on.
    Freeze {
        /// Until when.
        until: UtcTime,
        /// Why.
        reason: Summary,
    },
    /// People have to say that it goes on.
    People {
        /// Since it paused for this.
        cause: String,
    },
    /// Nobody can say how the changed do beside those held back.
    Health {
        /// By which metric.
        query: GroupName,
        /// Since when.
        since: UtcTime,
        /// Why.
        because: Unanswered,
    },
    /// People have to say that hosts go back.
    RollbackOrder,
    /// Hosts have begun and have not said how it went.
    Outcome {
        /// How many.
        hosts: u32,
    },
    /// Hosts are watched.
    Bake {
        /// How many.
        hosts: u32,
        /// When the first of them has been watched for long enough.
        first: UtcTime,
    },
    /// Hosts of the open waves have not said that they are ready.
    Readiness {
        /// How many.
        hosts: u32,
    },
    /// Hosts are busy and are asked again.
    Busy {
        /// How many.
        hosts: u32,
    },
    /// Hosts are ready, and may not begin.
    Turn {
        /// How many.
        hosts: u32,
        /// Why, for the first of them; nothing if it only has to ask.
        because: Option<NotNow>,
    },
    /// Hosts have not said that they are back.
    WayBack {
        /// How many.
        hosts: u32,
    },
    /// The next decision, which is due.
    Decision,
}

/// Every reason for which the rollout waits at `now`.
pub fn waiting(plan: &Plan, progress: &Progress, book: &Book, now: UtcTime) -> Vec<Waiting> {
    let mut reasons = Vec::new();
    match progress.stage() {
        Stage::Draft => reasons.push(Waiting::Submission),
        Stage::AwaitingApproval => {
            let (needed, have) = progress.approval(plan);
            reasons.push(Waiting::Approval { needed, have });
        }
        Stage::Waiting if now < plan.not_before => reasons.push(Waiting::Start { at: plan.not_before }),
        Stage::Waiting | Stage::Running => match plan.policy.calendar().at(now) {
            Opening::Open => {}
            Opening::Closed(opens) => reasons.push(Waiting::Window { opens }),
            Opening::Frozen { until, reason } => reasons.push(Waiting::Freeze { until, reason }),
        },
        Stage::Paused(cause) => reasons.push(Waiting::People { cause: cause.to_string() }),
        Stage::Halted(_) => reasons.push(Waiting::RollbackOrder),
        Stage::RollingBack => {
            let back =
                |host: &usize| progress.changed_since(*host).is_some() || progress.hosts()[*host].is_open();
            let hosts = (0..progress.hosts().len()).filter(back).count() as u32;
            reasons.push(Waiting::WayBack { hosts });
        }
        Stage::RolledBack | Stage::Stuck | Stage::Completed => {}
        Stage::Aborted | Stage::Expired | Stage::Superseded(_) => {}
    }
    if matches!(progress.stage(), Stage::Waiting | Stage::Running) && progress.holds_back() {
        reasons.extend(progress.unanswered().map(|(query, since, because)| Waiting::Health {
            query: query.clone(),
            since,
            because,
        }));
    }
    of_hosts(plan, progress, book, now, &mut reasons);
    let over = matches!(
        progress.stage(),
        Stage::RolledBack
            | Stage::Stuck
            | Stage::Completed
            | Stage::Aborted
            | Stage::Expired
            | Stage::Superseded(_)
    );
    if reasons.is_empty() && !over {
        reasons.push(Waiting::Decision);
    }
    reasons
}

fn of_hosts(plan: &Plan, progress: &Progress, book: &Book, now: UtcTime, reasons: &mut Vec<Waiting>) {
    let bake = i64::from(plan.policy.waves.bake.secs());
    let (mut granted, mut pending, mut busy, mut baking) = (0, 0, 0, 0);
    let mut first: Option<UtcTime> = None;
    let mut turns: BTreeMap<Option<NotNow>, u32> = BTreeMap::new();
    for (host, state) in progress.hosts().iter().enumerate() {
        match state {
            HostState::Granted { .. } => granted += 1,
            HostState::Offered => pending += 1,
            HostState::Busy { .. } => busy += 1,
            HostState::Applied { since, .. } => {
                baking += 1;
                let matures = later(*since, bake);
                first = Some(first.map_or(matures, |first| first.min(matures)));
            }
            HostState::Ready => {
                // Any nonce: no host that is ready has one.
                let nonce = Nonce::from_bytes([0; 16]);
                let request = Request { host, action: Action::Apply, nonce, epoch: book.epoch };
                *turns.entry(begin(plan, progress, book, &request, now).err()).or_default() += 1;
            }
            _ => {}
        }
    }
    if granted > 0 {
        reasons.push(Waiting::Outcome { hosts: granted });
    }
    if let Some(first) = first {
        reasons.push(Waiting::Bake { hosts: baking, first });
    }
    // Whoever has not begun does not begin any more.
    if !progress.stage().is_live() {
        return;
    }
    if pending > 0 {
        reasons.push(Waiting::Readiness { hosts: pending });
    }
    if busy > 0 {
        reasons.push(Waiting::Busy { hosts: busy });
    }
    reasons.extend(turns.into_iter().map(|(because, hosts)| Waiting::Turn { hosts, because }));
}
