//! Why something is not done, or not known to be.

use std::sync::Arc;

use fleet::assurance::Unfit;
use fleet::rollout::{Impossible, NotNow, Outdated, Stale};
use manifests::{HostId, Ordered, Sha256};

use crate::enrolment::TokenError;
use crate::store::StoreError;

/// Why something was not done. Nothing was changed, unless it says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Denied {
    /// The host may not begin now.
    #[error(transparent)]
    NotNow(NotNow),
    /// The report says nothing new.
    #[error(transparent)]
    Stale(Stale),
    /// This controller does not hold the lease; another one may.
    #[error("this controller does not hold the lease")]
    NoLease,
    /// No rollout with this digest was accepted.
    #[error("no rollout {rollout}")]
    NoSuchRollout {
        /// The digest.
        rollout: Sha256,
    },
    /// The host is not in the fleet, or not any more.
    #[error("no host {host} in this fleet")]
    NoSuchHost {
        /// Which.
        host: HostId,
    },
    /// Somebody else may have the host's key.
    #[error("the key of host {host} was revoked: expected one that was made anew")]
    Revoked {
        /// Which.
        host: HostId,
    },
    /// Two machines have the same key.
    #[error("two boots of host {host} alternate: two machines have its key, and neither may begin")]
    Clone {
        /// Which.
        host: HostId,
    },
    /// The rollout is known already.
    #[error("rollout {rollout} was accepted before")]
    Known {
        /// The digest.
        rollout: Sha256,
    },
    /// The policy is not the one that people signed.
    #[error("the policy is not the document's: expected {expected}, found {found}")]
    Policy {
        /// What the document names.
        expected: Sha256,
        /// What was given.
        found: Sha256,
    },
    /// The rollout could never end well.
    #[error("the policy does not fit this fleet: {}", .why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unfit {
        /// Why.
        why: Vec<Unfit>,
    },
    /// This order lets hosts begin: a token is not enough.
    #[error("{order:?} lets hosts begin: expected a signed order, found a token")]
    Unsigned {
        /// Which order.
        order: Ordered,
    },
    /// The host may have the manifest as it is.
    #[error("host {host} did not come back from manifest {manifest}, or may have it again already")]
    NeverCameBack {
        /// Which host.
        host: HostId,
        /// Which manifest.
        manifest: Sha256,
    },
    /// All hosts may have the manifest as it is.
    #[error("no host came back from manifest {manifest}, but such as may have it again already")]
    NobodyCameBack {
        /// Which manifest.
        manifest: Sha256,
    },
    /// It comes too late.
    #[error(transparent)]
    Outdated(Outdated),
    /// The event cannot follow.
    #[error(transparent)]
    Impossible(Impossible),
    /// The host claims to have seen an epoch that no lease will reach soon: a lie, or another fleet's host.
    #[error(
        "the host claims epoch {claimed}, and this fleet is at {current}: expected at most {most}; if that is true, restore with --above {claimed}"
    )]
    FarAhead {
        /// What it claims.
        claimed: u64,
        /// The epoch in force.
        current: u64,
        /// The most that is believed.
        most: u64,
    },
    /// The token lets nobody in.
    #[error(transparent)]
    Token(TokenError),
    /// Others wrote in between, again and again.
    #[error("the store changed while this was decided, each time: expected a turn within {tries} tries")]
    Busy {
        /// How often it was tried.
        tries: u32,
    },
    /// Whoever was to answer this together with others failed; asking again is safe.
    #[error("the question got lost: ask again")]
    Lost,
    /// The store failed; whether it was done, nobody knows before the store can be read again.
    #[error("the store failed")]
    Store(#[source] Arc<StoreError>),
}

impl From<StoreError> for Denied {
    fn from(source: StoreError) -> Self {
        Self::Store(Arc::new(source))
    }
}
