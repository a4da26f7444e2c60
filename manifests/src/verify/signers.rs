//! Who signed, what each signature is worth, and what the roles still lack.
//!
//! The report that people read is the calculation that decides, not a second one.

use serde::Serialize;

use super::TrustFloor;
use crate::envelope::{Envelope, Signature};
use crate::key::KeyId;
use crate::names::{KeyName, RoleName};
use crate::policy::{Policy, PolicyKey, Role};
use crate::time::UtcTime;

/// Who signed, and what each role still lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signers {
    /// Every signature of the envelope, in its order.
    pub signatures: Vec<SignatureStanding>,
    /// Every role that must sign; of several alternatives, those of the one that is nearest.
    pub roles: Vec<RoleStanding>,
}

/// What one signature is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignatureStanding {
    /// The key that it claims to be of.
    pub key: KeyId,
    /// What the policy calls that key.
    pub name: Option<KeyName>,
    /// Whether it counts.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Whether a signature counts, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// It holds and fills a seat of this role.
    Counts {
        /// The role.
        role: RoleName,
    },
    /// It holds, and no role needs it.
    NotNeeded,
    /// The policy has no such key, so it says nothing.
    UnknownKey,
    /// It is not that key's signature over these bytes.
    DoesNotVerify,
    /// It holds; the key is revoked.
    Revoked {
        /// Since when.
        since: UtcTime,
    },
    /// It holds; the key is past its time.
    KeyExpired {
        /// The last second at which it counted.
        not_after: UtcTime,
    },
}

/// How far a role is satisfied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleStanding {
    /// The role.
    pub role: RoleName,
    /// How many keys must sign for it.
    pub threshold: u32,
    /// The keys that signed for it.
    pub signed: Vec<KeyName>,
    /// How many signatures it lacks.
    pub missing: u32,
    /// Keys that could still give them: in time, not revoked, without a signature.
    pub could_sign: Vec<KeyName>,
}

impl Policy {
    /// What each signature is worth, before roles are looked at. `now` is not before the evidence.
    pub(super) fn weigh(
        &self,
        envelope: &Envelope,
        floor: &TrustFloor,
        now: UtcTime,
    ) -> Vec<SignatureStanding> {
        let message = envelope.signed_bytes();
        let weighed = envelope.signatures().iter().map(|signature| {
            let key = self.key(signature.key);
            let standing =
                key.map_or(Standing::UnknownKey, |key| stand(key, signature, &message, floor, now));
            SignatureStanding { key: signature.key, name: key.map(|key| key.name.clone()), standing }
        });
        weighed.collect()
    }

    /// Seats the keys whose signatures hold in the roles of one alternative.
    pub(super) fn seat_signers(
        &self,
        roles: &[&Role],
        mut signatures: Vec<SignatureStanding>,
        floor: &TrustFloor,
        now: UtcTime,
    ) -> Signers {
        let holds =
            |key: &PolicyKey| signatures.iter().any(|s| s.key == key.id && s.standing == Standing::NotNeeded);
        let seated = self.seat(roles, holds);
        let standings = roles
            .iter()
            .zip(&seated)
            .map(|(role, seated)| {
                let unsigned = |key: &PolicyKey| !signatures.iter().any(|s| s.key == key.id);
                let could_sign = self.keys().iter().filter(|key| {
                    let counts = key.counts_at(now) && !floor.revoked.keys.contains_key(&key.id);
                    role.keys.contains(&key.name) && unsigned(key) && counts
                });
                RoleStanding {
                    role: role.name.clone(),
                    threshold: role.threshold,
                    signed: seated.iter().map(|key| self.keys()[*key].name.clone()).collect(),
                    missing: role.threshold.saturating_sub(seated.len() as u32),
                    could_sign: could_sign.map(|key| key.name.clone()).collect(),
                }
            })
            .collect();
        for (role, seated) in roles.iter().zip(&seated) {
            for key in seated {
                let id = self.keys()[*key].id;
                if let Some(signature) = signatures.iter_mut().find(|signature| signature.key == id) {
                    signature.standing = Standing::Counts { role: role.name.clone() };
                }
            }
        }
        Signers { signatures, roles: standings }
    }
}

impl Signers {
    /// How many signatures all roles together lack.
    pub fn missing(&self) -> u32 {
        self.roles.iter().map(|role| role.missing).sum()
    }

    /// How many signatures all roles together need.
    pub(super) fn needed(&self) -> u32 {
        self.roles.iter().map(|role| role.threshold).sum()
    }

    /// The keys of the policy whose signatures hold and count as far as the key is concerned.
    pub(super) fn holding(&self) -> Vec<&KeyName> {
        self.signatures
            .iter()
            .filter(|signature| matches!(signature.standing, Standing::Counts { .. } | Standing::NotNeeded))
            .filter_map(|signature| signature.name.as_ref())
            .collect()
    }
}

/// What one signature by `key` is worth, before roles are looked at.
fn stand(
    key: &PolicyKey,
    signature: &Signature,
    message: &[u8],
    floor: &TrustFloor,
    now: UtcTime,
) -> Standing {
    if !key.public.verifies(message, &signature.bytes) {
        return Standing::DoesNotVerify;
    }
    if let Some(since) = floor.revoked.keys.get(&key.id) {
        return Standing::Revoked { since: *since };
    }
    match (key.revoked, key.not_after) {
        (Some(since), _) if since <= now => Standing::Revoked { since },
        (_, Some(not_after)) if not_after < now => Standing::KeyExpired { not_after },
        _ => Standing::NotNeeded,
    }
}
