//! One policy after another: how a host comes to believe somebody else.
//!
//! The first policy is installed by hand, by who has its fingerprint from a place that can be trusted. From
//! then on a policy is replaced only by one that is signed under the rules of the one before *and* under its
//! own: the old holders agree, and the new ones are there. A host never goes back to an earlier edition.

use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::envelope::Envelope;
use crate::policy::scope::Excess;
use crate::policy::{Edition, Policy, PolicyError, Scope};
use crate::time::UtcTime;
use crate::verify::{AcceptedVersion, TrustFloor, Verified, VerifyAt, VerifyError};

/// A policy as a signed document: of schema 2, so that it has an edition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDocument {
    policy: Policy,
    edition: Edition,
}

impl PolicyDocument {
    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Which edition it is.
    pub fn edition(&self) -> Edition {
        self.edition
    }

    /// The first policy of a host: signed under its own rules, and the one that the installer expects.
    ///
    /// `expected` is the digest of the signed bytes ([`Envelope::payload_digest`]), which people read to each
    /// other.
    ///
    /// # Errors
    /// [`SuccessionError::Fingerprint`], [`SuccessionError::Unreadable`], [`SuccessionError::OwnRules`].
    pub fn found(
        envelope: &Envelope,
        expected: Sha256,
        at: VerifyAt<'_>,
    ) -> Result<Verified<Self>, SuccessionError> {
        let found = envelope.payload_digest();
        if found != expected {
            return Err(SuccessionError::Fingerprint { expected, found });
        }
        // Its rules are needed to verify it; nothing else is believed before they hold.
        let own = Self::parse(envelope.unverified_payload()).map_err(SuccessionError::Unreadable)?;
        own.policy.verify(envelope, at).map_err(SuccessionError::OwnRules)
    }
}

impl Policy {
    /// The policy that replaces this one, from its envelope.
    ///
    /// # Errors
    /// [`SuccessionError::RulesBefore`], [`SuccessionError::OwnRules`].
    pub fn successor(
        &self,
        envelope: &Envelope,
        at: VerifyAt<'_>,
    ) -> Result<Verified<PolicyDocument>, SuccessionError> {
        let next: Verified<PolicyDocument> =
            self.verify(envelope, at).map_err(SuccessionError::RulesBefore)?;
        if let Some(edition) = self.edition
            && next.edition.version < edition.version
        {
            let (floor, found) = (edition.version, next.edition.version);
            let (kind, name) = (DocumentKind::Policy, NAME.to_owned());
            return Err(SuccessionError::RulesBefore(VerifyError::VersionBelowFloor {
                kind,
                name,
                floor,
                found,
            }));
        }
        next.policy.verify(envelope, at).map_err(SuccessionError::OwnRules)
    }
}

/// Why a policy does not become a host's policy.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// It is another one than the installer expects.
    #[error("not the expected policy: expected fingerprint {expected}, found {found}")]
    Fingerprint {
        /// What the installer expects.
        expected: Sha256,
        /// The digest of the signed bytes.
        found: Sha256,
    },
    /// It is no policy that could be signed.
    #[error("the policy cannot be read")]
    Unreadable(#[source] PolicyError),
    /// The rules of the policy before do not let it follow.
    #[error("the policy is not signed under the rules of the one before")]
    RulesBefore(#[source] VerifyError),
    /// Its own rules do not let it in.
    #[error("the policy is not signed under its own rules")]
    OwnRules(#[source] VerifyError),
}

/// What errors call the one line of editions that a host has.
const NAME: &str = "policy";

impl Document for PolicyDocument {
    const KIND: DocumentKind = DocumentKind::Policy;

    type Error = PolicyError;

    fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let policy = Policy::parse(bytes)?;
        let edition = policy.edition.ok_or(PolicyError::NotVersioned)?;
        Ok(Self { policy, edition })
    }

    fn issued(&self) -> UtcTime {
        self.edition.issued
    }

    fn expires(&self) -> Option<UtcTime> {
        None
    }

    /// Roles with limits cannot stand in the rule for policies.
    fn excess(&self, _: &Scope) -> Option<Excess> {
        None
    }

    fn refuse(&self, digest: Sha256, floor: &TrustFloor) -> Result<(), VerifyError> {
        floor.policy.map_or(Ok(()), |accepted| accepted.refuse::<Self>(NAME, self.edition.version, digest))
    }

    fn raise(&self, digest: Sha256, floor: &mut TrustFloor) {
        let seen = AcceptedVersion { version: self.edition.version, manifest: digest };
        floor.policy = Some(floor.policy.map_or(seen, |accepted| accepted.or_higher(seen)));
        for key in &self.policy.keys {
            if let Some(since) = key.revoked.filter(|since| *since <= self.edition.issued) {
                floor.revoked.keys.entry(key.id).or_insert(since);
            }
        }
    }
}
