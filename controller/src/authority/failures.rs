//! Why hosts were hurt, or would not begin, by their own word: failures with one fingerprint have one cause.
//!
//! Kept beside the event, in a record for each host and rollout, and no part of the ledger: nothing follows from it.

use std::collections::BTreeMap;

use fleet::protocol::AttemptReport;
use fleet::rollout::{Event, Fault, Outcome};
use manifests::{HostId, LabelValue, Sha256, UtcTime};
use serde::{Deserialize, Serialize};

use super::facts::{decode, encode};
use super::{Authority, Denied};
use crate::store::{Key, Put};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "wrong", content = "of", rename_all = "kebab-case")]
pub enum Wrong {
    /// The host was hurt.
    Hurt(Fault),
    /// It would not begin.
    Declined(Outcome),
    /// It cannot go back.
    NotBack,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureRecord {
    at: UtcTime,
    host: HostId,
    rollout: Sha256,
    wrong: Wrong,
    transaction: Option<LabelValue>,
    fingerprint: Option<Sha256>,
}

/// Failures of one kind that have one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// By what they are known to have one; nothing if hosts did not say.
    pub fingerprint: Option<Sha256>,
    /// What went wrong.
    pub wrong: Wrong,
    /// Where, the last first.
    pub failures: Vec<FailedHost>,
}

/// One host that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedHost {
    /// When it was known.
    pub at: UtcTime,
    /// Which.
    pub host: HostId,
    /// In which rollout.
    pub rollout: Sha256,
    /// The transaction in its journal, if there is one.
    pub transaction: Option<LabelValue>,
}

/// What is to be kept of a report that came to this event.
pub(super) fn record(host: HostId, report: &AttemptReport, event: &Event, at: UtcTime) -> Option<Put> {
    let wrong = match event {
        Event::Failed { fault, .. } => Wrong::Hurt(*fault),
        Event::Declined { outcome, .. } if *outcome != Outcome::NotNeeded => Wrong::Declined(*outcome),
        Event::RollbackFailed { .. } => Wrong::NotBack,
        _ => return None,
    };
    let AttemptReport { rollout, transaction, fingerprint, .. } = report.clone();
    let key = Key::new("failure", format_args!("{rollout}-{host}"));
    Some(Put { key, value: encode(&FailureRecord { at, host, rollout, wrong, transaction, fingerprint }) })
}

impl Authority {
    /// Every failure that hosts told of, the last of each host in each rollout, by cause; the cause of the most hosts first.
    ///
    /// # Errors
    /// [`Denied::Store`].
    pub fn causes(&self) -> Result<Vec<Cause>, Denied> {
        let mut causes = BTreeMap::<(Wrong, Option<Sha256>), Vec<FailedHost>>::new();
        for (_, kept) in self.store.room("failure")? {
            let FailureRecord { at, host, rollout, wrong, transaction, fingerprint } =
                decode("a failure", &kept.value)?;
            causes.entry((wrong, fingerprint)).or_default().push(FailedHost {
                at,
                host,
                rollout,
                transaction,
            });
        }
        let cause = |((wrong, fingerprint), mut failures): (_, Vec<FailedHost>)| {
            failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
            Cause { fingerprint, wrong, failures }
        };
        let mut causes: Vec<Cause> = causes.into_iter().map(cause).collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.failures.len()));
        Ok(causes)
    }
}
