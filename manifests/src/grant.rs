//! The grant: a controller's word to one host, for one attempt, now.
//!
//! It is JSON, signed by a controller's key that the host's policy lets sign grants. It carries the nonce that the
//! host's executor made for this very attempt, and counts for [`Grant::VALID`] from when the nonce was made, by the
//! host's own monotonic clock: neither side's wall clock matters, and a grant that was delayed, kept or sent twice
//! begins nothing. It names the rollout by its digest; what that lets a controller ask, the host judges by itself
//! ([`Rollout::refuse`](crate::Rollout::refuse)).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::host::{HostId, Nonce};
use crate::policy::scope::{Excess, Scope};
use crate::schema::SchemaVersion;
use crate::time::UtcTime;
use crate::verify::{TrustFloor, VerifyError};

/// A controller's word to one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Version of this format; always 1.
    pub schema: SchemaVersion,
    /// This grant and no other; a host takes it once.
    pub id: Sha256,
    /// The digest of the signed rollout document.
    pub rollout: Sha256,
    /// The host.
    pub host: HostId,
    /// What it may begin.
    pub action: GrantedAction,
    /// The digest of the signed manifest.
    pub manifest: Sha256,
    /// The wave that the host begins in, from 0.
    pub wave: u32,
    /// Under which lease it was given; a host that has seen a higher one refuses.
    #[schemars(range(min = 1, max = 9007199254740991_u64))]
    pub epoch: u64,
    /// What the host's executor made for this attempt.
    pub nonce: Nonce,
    /// When it was given.
    pub issued: UtcTime,
    /// From when on nobody takes it, whatever the nonce's age; at most a day after `issued`.
    pub expires: UtcTime,
    /// The head of the controller's ledger, so that hosts notice a ledger that was rewritten.
    pub ledger: LedgerHead,
}

/// What a host may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GrantedAction {
    /// The manifest.
    Apply,
    /// The way back from what this rollout began.
    Rollback,
}

/// The head of a ledger: an RFC 6962 tree of so many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerHead {
    /// Its number of entries.
    #[schemars(range(max = 9007199254740991_u64))]
    pub size: u64,
    /// Its root hash.
    pub root: Sha256,
}

/// Why bytes are not a grant.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// More bytes than a grant needs.
    #[error("too large: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// Not the JSON of a grant.
    #[error("not a grant")]
    Json(#[from] serde_json::Error),
    /// A number that not every reader holds exactly, or no epoch.
    #[error("{field}: expected {min} to 2^53 - 1, found {found}")]
    Number {
        /// The field.
        field: &'static str,
        /// The least.
        min: u64,
        /// The number.
        found: u64,
    },
    /// It expires before it was given, or long after.
    #[error("expires: expected after {issued} and at most a day later, found {expires}")]
    Expires {
        /// When it was given.
        issued: UtcTime,
        /// When it expires.
        expires: UtcTime,
    },
}

/// Why a grant is not for this host, now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// It is for another host.
    #[error("the grant is for another host: expected {expected}, found {found}")]
    Host {
        /// This host.
        expected: HostId,
        /// The grant's.
        found: HostId,
    },
    /// It is of another rollout.
    #[error("the grant is of another rollout: expected {expected}, found {found}")]
    Rollout {
        /// The rollout at hand.
        expected: Sha256,
        /// The grant's.
        found: Sha256,
    },
    /// It is for another manifest than its rollout.
    #[error("the grant is for another manifest: expected {expected}, found {found}")]
    Manifest {
        /// The rollout's.
        expected: Sha256,
        /// The grant's.
        found: Sha256,
    },
    /// It is for another attempt, or this host waits for none.
    #[error("the grant is for another attempt")]
    Nonce,
    /// The attempt was begun too long ago.
    #[error("the grant came {} s after it was asked for: expected at most {} s", .age.as_secs(), Grant::VALID.as_secs())]
    Late {
        /// How old the nonce is.
        age: Duration,
    },
    /// This host has seen a later lease.
    #[error("the grant is of an old lease: expected epoch {seen} or later, found {found}")]
    Epoch {
        /// The highest epoch that this host has seen.
        seen: u64,
        /// The grant's.
        found: u64,
    },
}

/// What a host's executor holds a grant against.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// This host.
    pub host: HostId,
    /// The digest of the rollout document at hand.
    pub rollout: Sha256,
    /// The digest of the manifest that this names.
    pub manifest: Sha256,
    /// The nonce that it has made and not used.
    pub nonce: Nonce,
    /// How long ago it made it, by the monotonic clock.
    pub age: Duration,
    /// The highest epoch that it has seen.
    pub epoch: u64,
}

impl Grant {
    /// How long a grant counts after the host made the nonce in it.
    pub const VALID: Duration = Duration::from_secs(120);

    /// Refuses a grant that is not for this attempt. Whether its rollout lets a controller give it is
    /// [`Rollout::refuse`](crate::Rollout::refuse)'s to say.
    pub fn refuse(&self, attempt: &Attempt) -> Result<(), GrantRefusal> {
        let Attempt { host, rollout, manifest, nonce, age, epoch } = *attempt;
        if self.host != host {
            return Err(GrantRefusal::Host { expected: host, found: self.host });
        }
        if self.rollout != rollout {
            return Err(GrantRefusal::Rollout { expected: rollout, found: self.rollout });
        }
        if self.manifest != manifest {
            return Err(GrantRefusal::Manifest { expected: manifest, found: self.manifest });
        }
        if self.nonce != nonce {
            return Err(GrantRefusal::Nonce);
        }
        if age > Self::VALID {
            return Err(GrantRefusal::Late { age });
        }
        if self.epoch < epoch {
            return Err(GrantRefusal::Epoch { seen: epoch, found: self.epoch });
        }
        Ok(())
    }
}

impl Document for Grant {
    const KIND: DocumentKind = DocumentKind::Grant;

    type Error = GrantError;

    fn parse(bytes: &[u8]) -> Result<Self, GrantError> {
        const MAX: u64 = (1 << 53) - 1;
        let limit = Self::KIND.max_bytes();
        if bytes.len() > limit {
            return Err(GrantError::TooLarge { limit, found: bytes.len() });
        }
        let grant: Self = serde_json::from_slice(bytes)?;
        for (field, min, found) in [("epoch", 1, grant.epoch), ("ledger.size", 0, grant.ledger.size)] {
            if !(min..=MAX).contains(&found) {
                return Err(GrantError::Number { field, min, found });
            }
        }
        let (issued, expires) = (grant.issued, grant.expires);
        let length = expires.timestamp().as_second() - issued.timestamp().as_second();
        if (1..=24 * 3600).contains(&length) {
            Ok(grant)
        } else {
            Err(GrantError::Expires { issued, expires })
        }
    }

    fn issued(&self) -> UtcTime {
        self.issued
    }

    fn expires(&self) -> Option<UtcTime> {
        Some(self.expires)
    }

    /// A grant says nothing beyond its rollout, which people signed within their scope.
    fn excess(&self, _: &Scope) -> Option<Excess> {
        None
    }

    fn refuse(&self, digest: Sha256, floor: &TrustFloor) -> Result<(), VerifyError> {
        let _ = digest;
        match floor.revoked.manifests.get(&self.manifest) {
            Some(since) if self.action == GrantedAction::Apply => {
                Err(VerifyError::ManifestRevoked { digest: self.manifest, since: *since })
            }
            _ => Ok(()),
        }
    }

    /// Which grants were taken stands in the journal, beside what they began.
    fn raise(&self, _: Sha256, _: &mut TrustFloor) {}
}
