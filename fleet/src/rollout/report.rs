//! What a host says, and what it means: reports may come twice, late, and in any order.
//!
//! A report speaks of one attempt. One of an earlier attempt must not be taken for one of this: a late "I have not
//! begun" would close a grant that the host may still use, and its place under the caps would be given away. (The model
//! of all orders found that.)

use manifests::Nonce;
use serde::{Deserialize, Serialize};

use super::event::{Event, Fault, Outcome, Place};
use super::state::{HostState, Progress};

/// What a host says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(tag = "said", rename_all = "kebab-case")]
pub enum Said {
    /// It has everything it needs.
    Ready,
    /// Nothing was touched.
    Declined {
        /// Why.
        outcome: Outcome,
    },
    /// The change is on it.
    Applied,
    /// It was hurt.
    Hurt {
        /// How.
        fault: Fault,
    },
    /// It is back.
    RolledBack,
    /// It cannot go back.
    NotRolledBack,
}

/// A host's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Report {
    /// Which host, known by its key.
    pub host: Place,
    /// The attempt that it speaks of; nothing before the first.
    pub nonce: Option<Nonce>,
    /// What it says.
    pub said: Said,
}

/// Why a report changes nothing. No fault of the host: it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// There is no such host.
    #[error("the rollout has no such host")]
    NoSuchHost,
    /// It speaks of another attempt.
    #[error("the report is of another attempt")]
    OtherAttempt,
    /// It does not follow from where the host stands: said before, or overtaken.
    #[error("the report was said before, or is overtaken")]
    Overtaken,
}

/// The event that a report is, if it is any.
///
/// # Errors
/// Why it changes nothing.
pub fn hear(progress: &Progress, report: &Report) -> Result<Event, Stale> {
    use HostState as H;
    let Report { host, nonce, said } = *report;
    let state = progress.host(host).ok_or(Stale::NoSuchHost)?;
    if let Some(attempt) = state.attempt()
        && nonce != Some(attempt)
    {
        return Err(Stale::OtherAttempt);
    }
    let event = match (said, state) {
        (Said::Ready, H::Offered) => Event::Ready { host },
        (
            Said::Declined { outcome },
            H::Offered | H::Ready | H::Granted { .. } | H::Bad { fault: Fault::Silent, .. },
        ) => Event::Declined { host, outcome },
        (Said::Applied, H::Granted { .. }) => Event::Applied { host },
        (
            Said::Hurt { fault },
            H::Granted { .. } | H::Applied { .. } | H::Good { .. } | H::Bad { fault: Fault::Silent, .. },
        ) => Event::Failed { host, fault },
        (Said::RolledBack, H::RollbackGranted { .. } | H::Stuck) => Event::RolledBack { host },
        (Said::NotRolledBack, H::RollbackGranted { .. }) => Event::RollbackFailed { host },
        _ => return Err(Stale::Overtaken),
    };
    Ok(event)
}
