//! The kinds of documents that people and machines sign, and what verification asks of each.
//!
//! The kind is signed along with the bytes, as DSSE's payload type, so that a signature for one kind never
//! counts for another: a policy may trust a key with rollouts and with nothing else. Each kind has a size
//! that no such document needs to pass; more is refused before it is parsed.
//!
//! What stands in a document is its own type's business: [`Document`] is how [`crate::Policy::verify`] asks.

use std::error::Error;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::names::ManifestName;
use crate::policy::scope::{Excess, Scope};
use crate::time::UtcTime;
use crate::verify::{TrustFloor, VerifyError};

/// What a signed document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocumentKind {
    /// What changes on a host.
    Manifest,
    /// Which hosts of a fleet take a manifest, when, and how fast at most.
    Rollout,
    /// Whom a host believes.
    Policy,
    /// A controller's word to one host: now.
    Grant,
    /// What a host or a builder has seen, for others to check.
    Evidence,
    /// Keys, manifests and payloads that must not count any more.
    Revocation,
    /// People's word to a controller about a rollout that is under way.
    Order,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Manifest,
        Self::Rollout,
        Self::Policy,
        Self::Grant,
        Self::Evidence,
        Self::Revocation,
        Self::Order,
    ];

    /// The payload type that is signed along.
    pub const fn payload_type(self) -> &'static str {
        match self {
            Self::Manifest => "application/vnd.update.manifest.v1+yaml",
            Self::Rollout => "application/vnd.update.rollout.v1+yaml",
            Self::Policy => "application/vnd.update.policy.v1+yaml",
            Self::Grant => "application/vnd.update.grant.v1+json",
            // An in-toto statement, for whoever else reads those.
            Self::Evidence => crate::statement::PAYLOAD_TYPE,
            Self::Revocation => "application/vnd.update.revocation.v1+yaml",
            Self::Order => "application/vnd.update.order.v1+yaml",
        }
    }

    /// The kind with this payload type.
    pub fn of_payload_type(payload_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.payload_type() == payload_type)
    }

    /// The most bytes that such a document may have. Manifests and rollouts name files and hosts one by one;
    /// a grant or an order is
    /// one sentence.
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Manifest | Self::Rollout | Self::Evidence => 1 << 20,
            Self::Policy | Self::Revocation => 256 << 10,
            Self::Grant | Self::Order => 16 << 10,
        }
    }

    /// The most bytes that a document of any kind may have.
    pub const MAX_BYTES: usize = Self::Manifest.max_bytes();

    /// The word as policies write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Rollout => "rollout",
            Self::Policy => "policy",
            Self::Grant => "grant",
            Self::Evidence => "evidence",
            Self::Revocation => "revocation",
            Self::Order => "order",
        }
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A document of one kind, as verification sees it.
pub trait Document: Clone {
    /// Its kind; a signature for another kind does not count.
    const KIND: DocumentKind;

    /// Why bytes are not such a document.
    type Error: Error + Send + Sync + 'static;

    /// Reads the signed bytes, and checks all that needs no host.
    fn parse(bytes: &[u8]) -> Result<Self, Self::Error>;

    /// When it was issued; evidence that this time has come.
    fn issued(&self) -> UtcTime;

    /// From when on it is refused; nothing if it counts for good.
    fn expires(&self) -> Option<UtcTime>;

    /// Its name and version, if documents of its kind are published in logs.
    fn logged_as(&self) -> Option<(ManifestName, u64)> {
        None
    }

    /// How it goes beyond what a role may vouch for, if it does.
    fn excess(&self, scope: &Scope) -> Option<Excess>;

    /// Refuses what `floor` has something against: an earlier version, a revoked payload. `digest` is that
    /// of the signed bytes.
    fn refuse(&self, digest: Sha256, floor: &TrustFloor) -> Result<(), VerifyError>;

    /// Takes up into `floor` what this document, once verified and acted upon, forbids from then on.
    fn raise(&self, digest: Sha256, floor: &mut TrustFloor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_payload_type_of_its_own() {
        for kind in DocumentKind::ALL {
            assert_eq!(DocumentKind::of_payload_type(kind.payload_type()), Some(kind));
            let named = kind.payload_type().contains(kind.as_str());
            assert!(named || kind == DocumentKind::Evidence);
            assert!(kind.max_bytes() <= DocumentKind::MAX_BYTES);
        }
        assert_eq!(DocumentKind::of_payload_type("application/vnd.update.manifest.v1+yaml "), None);
        assert_eq!(DocumentKind::of_payload_type(""), None);
    }
}
