//! A policy and revocations that come along with a manifest: judged with it as if they were in force, and put in force
//! with it or not at all.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::{Envelope, Policy, PolicyDocument, Revocation, TrustFloor, Verified, VerifyAt};

use crate::operations::trust::TrustError;
use crate::operations::{Engine, EngineError};
use crate::state::floors::raise_floor;

/// What comes along with a manifest. Nobody has looked at who signed it.
#[derive(Debug, Clone, Default)]
pub struct Along {
    /// Where it came from, for people.
    pub from: PathBuf,
    /// A policy.
    pub policy: Option<Envelope>,
    /// Revocations.
    pub revocations: Vec<Envelope>,
}

/// What came along and holds.
#[derive(Debug, Default)]
pub struct Taken {
    /// A policy that follows the one in force, and the bytes of it.
    pub policy: Option<(Verified<PolicyDocument>, Vec<u8>)>,
    /// Revocations.
    pub revocations: Vec<Verified<Revocation>>,
}

/// The policy and the floors with what comes along: what a host would believe that has taken it up.
///
/// A policy that is in force already is nothing new; an earlier one is refused, as wherever it comes from.
///
/// # Errors
/// [`TrustError::Succession`], [`TrustError::Fingerprint`], [`TrustError::NotAuthentic`].
pub fn with(
    policy: Policy,
    floor: TrustFloor,
    along: &Along,
    now: Timestamp,
) -> Result<(Policy, TrustFloor, Taken), TrustError> {
    let (mut policy, mut floor, mut taken) = (policy, floor, Taken::default());
    let in_force = floor.policy.map(|accepted| accepted.manifest);
    let next = along.policy.as_ref().filter(|next| Some(next.payload_digest()) != in_force);
    if let Some(envelope) = next {
        let path = part(&along.from, "policy.json");
        if policy.edition().is_none() {
            // The first signed policy is believed by its fingerprint, which a bundle cannot tell.
            let fingerprint = envelope.payload_digest();
            return Err(TrustError::Fingerprint { path, fingerprint });
        }
        let successor = policy
            .successor(envelope, VerifyAt { now, floor: &floor })
            .map_err(|source| TrustError::Succession { path, source })?;
        floor.raise(&successor);
        policy = successor.policy().clone();
        floor.see(&policy, now);
        taken.policy = Some((successor, envelope.unverified_payload().to_vec()));
    }
    for (number, envelope) in (1..).zip(&along.revocations) {
        let path = part(&along.from, &format!("revocations/{number:04}.json"));
        let revocation: Verified<Revocation> = policy
            .verify(envelope, VerifyAt { now, floor: &floor })
            .map_err(|source| TrustError::NotAuthentic { path, source })?;
        floor.raise(&revocation);
        taken.revocations.push(revocation);
    }
    Ok((policy, floor, taken))
}

fn part(of: &Path, name: &str) -> PathBuf {
    of.join(name)
}

impl Engine {
    /// Takes up for good what came along; the caller holds the host.
    pub(super) fn take_along(&self, taken: &Taken) -> Result<(), EngineError> {
        if let Some((policy, bytes)) = &taken.policy {
            self.put_in_force(policy, bytes)?;
        }
        for revocation in &taken.revocations {
            raise_floor(&mut self.journal(), revocation)?;
        }
        Ok(())
    }
}
