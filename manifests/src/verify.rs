//! The one way to a trusted manifest.
//!
//! [`Policy::examine`] goes through an envelope in this order, and stops at the first refusal:
//!
//! 1. the payload type is a manifest's;
//! 2. every signature by a key of the policy holds, by the strict rules of Ed25519;
//! 3. every role reaches its threshold with keys that are neither revoked nor past their time,
//!    each key standing for one role only;
//! 4. the payload, until here only bytes, is parsed as a manifest;
//! 5. the host's clock is not behind the evidence, and lies between `issued` and `expires`;
//! 6. the version is not below, and not another document than, the one accepted before.
//!
//! What time proves, and what it does not: a host's clock is a claim. It can be ahead (a dead battery, a
//! wrong server) and be put right again, and it can be set back by who wants an old key or an expired
//! manifest to count. So nothing that lasts is made of it. The clock floor moves by *evidence* only, the
//! issue times of authentic documents, which no host's clock can raise; from where the evidence is, time
//! does not go back. And what a clock cannot take back at all, a revocation, is not kept as a time: a key
//! that this host has once seen revoked is in [`TrustFloor::revoked`] and never counts again.
//!
//! Invariant: [`Verified`] is made here and nowhere else. Each rule stands once; the report that
//! people read ([`Signers`]) is the calculation that decides, not a second one.

use std::collections::BTreeMap;
use std::ops::Deref;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::envelope::{Envelope, MANIFEST_TYPE, Signature};
use crate::error::ManifestError;
use crate::key::KeyId;
use crate::names::{KeyName, ManifestName, RoleName};
use crate::policy::{Policy, PolicyKey};
use crate::schema::Manifest;
use crate::time::UtcTime;

/// How far a host's clock may be behind the clock that issued a manifest, or its own past.
pub const ALLOWED_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What a host remembers, so that nobody can show it the past.
///
/// A value: the caller loads it, gives it to [`VerifyAt`], and stores what [`TrustFloor::see`] made of it
/// whenever it has read its policy, and [`TrustFloor::raise`] once a manifest is acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrustFloor {
    /// The latest time of which there is evidence: when an authentic, accepted document was issued.
    pub clock: Option<UtcTime>,
    /// The highest version accepted of each name, and which document that was.
    pub versions: BTreeMap<ManifestName, AcceptedVersion>,
    /// Every key that this host has seen revoked, and since when it was, by the policy of that time.
    #[serde(default)]
    pub revoked: BTreeMap<KeyId, UtcTime>,
}

/// A version that a host has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedVersion {
    /// The version.
    pub version: u64,
    /// The digest of the manifest's bytes.
    pub manifest: Sha256,
}

impl TrustFloor {
    /// Takes up what `accepted` shows: its version, and that time has reached its `issued`. When this
    /// host's clock says that it was verified is no evidence.
    pub fn raise(&mut self, accepted: &Verified<Manifest>) {
        self.clock = self.clock.max(Some(accepted.issued));
        let seen = AcceptedVersion { version: accepted.version, manifest: accepted.digest };
        self.versions
            .entry(accepted.name.clone())
            .and_modify(|floor| {
                if seen.version > floor.version {
                    *floor = seen;
                }
            })
            .or_insert(seen);
    }

    /// Takes up the keys of `policy` that are revoked by now. They stay so whatever the clock, or a later
    /// policy, says. Whether there was a new one.
    pub fn see(&mut self, policy: &Policy, now: Timestamp) -> bool {
        let now = self.reached(UtcTime::floor(now));
        let before = self.revoked.len();
        for key in policy.keys() {
            if let Some(since) = key.revoked.filter(|since| *since <= now) {
                self.revoked.entry(key.id).or_insert(since);
            }
        }
        self.revoked.len() > before
    }

    /// Forgets the evidence of time, and gives what it was; for an operator who knows that a signer's clock
    /// was wrong. Versions and revoked keys stay.
    pub fn reset_clock(&mut self) -> Option<UtcTime> {
        self.clock.take()
    }

    /// The time that counts at `now`: not before the evidence.
    fn reached(&self, now: UtcTime) -> UtcTime {
        self.clock.map_or(now, |floor| floor.max(now))
    }
}

/// The circumstances of a verification.
#[derive(Debug, Clone, Copy)]
pub struct VerifyAt<'a> {
    /// The host's clock.
    pub now: Timestamp,
    /// What the host remembers.
    pub floor: &'a TrustFloor,
}

/// A value whose signatures, time and version hold for one policy at one time.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    digest: Sha256,
    signers: Signers,
    at: UtcTime,
}

impl<T> Verified<T> {
    /// The digest of the signed bytes.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Who signed, and for which role.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// The time at which it was verified.
    pub fn verified_at(&self) -> UtcTime {
        self.at
    }

    /// The value without its proof.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Who signed, and what each role still lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signers {
    /// Every signature of the envelope, in its order.
    pub signatures: Vec<SignatureStanding>,
    /// Every role of the policy, in its order.
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

/// Why an envelope is not an authentic, timely manifest. Every refusal has its own variant.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The payload is something else than a manifest.
    #[error("the signed payload is not a manifest")]
    PayloadType {
        /// Its type.
        found: String,
    },
    /// There is no signature.
    #[error("the manifest is not signed")]
    Unsigned {
        /// How many signatures the policy asks, over all roles.
        needed: u32,
    },
    /// A signature that claims a known key is not that key's over these bytes.
    #[error("a signature does not hold: the manifest or the signature was changed")]
    BadSignature {
        /// The key.
        key: KeyName,
        /// Its id.
        id: KeyId,
    },
    /// No signature is by a key of the policy.
    #[error("no signature is by a key of this policy")]
    UnknownSigners {
        /// The ids that the signatures claim.
        found: Vec<KeyId>,
    },
    /// A role lacks what a revoked key has signed.
    #[error("a key that signed is revoked")]
    KeyRevoked {
        /// The key.
        key: KeyName,
        /// Since when.
        since: UtcTime,
    },
    /// A role lacks what a key past its time has signed.
    #[error("a key that signed is past its time")]
    KeyExpired {
        /// The key.
        key: KeyName,
        /// The last second at which it counted.
        not_after: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// Each role has enough signatures, and one key would have to stand for two roles.
    #[error("one key cannot sign for two roles")]
    OneKeyForTwoRoles {
        /// The keys that signed.
        keys: Vec<KeyName>,
        /// The roles that they would all have to fill.
        roles: Vec<RoleName>,
        /// How many signatures those roles need together.
        needed: u32,
    },
    /// A role has too few signatures.
    #[error("role {role} has too few signatures")]
    Threshold {
        /// The role.
        role: RoleName,
        /// How many it needs.
        threshold: u32,
        /// The keys that signed for it.
        signed: Vec<KeyName>,
    },
    /// The signed bytes are not a manifest.
    #[error("the signed payload is not a valid manifest")]
    Manifest(#[from] ManifestError),
    /// The host's clock is behind a time that has come, as a signed document shows.
    #[error("the clock of this host has gone back")]
    ClockBehind {
        /// The latest time at which an accepted document was issued.
        floor: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// It was issued in the future.
    #[error("the manifest is from the future")]
    FromTheFuture {
        /// When it says that it was issued.
        issued: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// Its time is over.
    #[error("the manifest has expired")]
    Expired {
        /// Until when it was valid.
        expires: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// A later version was accepted before.
    #[error("the manifest is older than one accepted before")]
    VersionBelowFloor {
        /// The manifest's name.
        name: ManifestName,
        /// The version accepted before.
        floor: u64,
        /// Its version.
        found: u64,
    },
    /// The same version was accepted before, and was another document.
    #[error("two different manifests have one version")]
    VersionReused {
        /// The manifest's name.
        name: ManifestName,
        /// The version.
        version: u64,
        /// The digest of the document accepted before.
        accepted: Sha256,
        /// The digest of this one.
        found: Sha256,
    },
}

/// What an envelope looks like to a policy, whether or not it is authentic.
#[derive(Debug)]
pub struct Examination {
    /// Who signed, and what each role still lacks.
    pub signers: Signers,
    /// The manifest, when its signatures satisfy the policy; time and version may still be refused.
    pub signed: Option<Manifest>,
    /// The digest of the signed bytes.
    pub digest: Sha256,
    /// The verified manifest, or why there is none.
    pub outcome: Result<Verified<Manifest>, VerifyError>,
}

impl Policy {
    /// Verifies an envelope; see the module for the rules and their order.
    pub fn verify(&self, envelope: &Envelope, at: VerifyAt<'_>) -> Result<Verified<Manifest>, VerifyError> {
        self.examine(envelope, at).outcome
    }

    /// As [`Policy::verify`], and also tells who signed and what is missing.
    pub fn examine(&self, envelope: &Envelope, at: VerifyAt<'_>) -> Examination {
        let now = UtcTime::floor(at.now);
        let digest = envelope.payload_digest();
        let signers = self.signers(envelope, at.floor, now);
        let signed = self
            .refuse_signatures(envelope, &signers, now)
            .and_then(|()| Ok(Manifest::parse(envelope.unverified_payload())?));
        let (signed, outcome) = match signed {
            Err(refusal) => (None, Err(refusal)),
            Ok(manifest) => {
                let outcome = refuse_time(&manifest, now, at.floor)
                    .and_then(|()| refuse_version(&manifest, digest, at.floor))
                    .map(|()| Verified {
                        value: manifest.clone(),
                        digest,
                        signers: signers.clone(),
                        at: now,
                    });
                (Some(manifest), outcome)
            }
        };
        Examination { signers, signed, digest, outcome }
    }

    /// Checks every signature and seats the keys that count.
    fn signers(&self, envelope: &Envelope, floor: &TrustFloor, now: UtcTime) -> Signers {
        let now = floor.reached(now);
        let message = envelope.signed_bytes();
        let mut standings: Vec<SignatureStanding> = envelope
            .signatures()
            .iter()
            .map(|signature| {
                let key = self.key(signature.key);
                let standing =
                    key.map_or(Standing::UnknownKey, |key| stand(key, signature, &message, floor, now));
                SignatureStanding { key: signature.key, name: key.map(|key| key.name.clone()), standing }
            })
            .collect();

        let holds =
            |key: &PolicyKey| standings.iter().any(|s| s.key == key.id && s.standing == Standing::NotNeeded);
        let seated = self.seat(holds);
        let roles = self
            .roles()
            .iter()
            .zip(&seated)
            .map(|(role, seated)| {
                let unsigned = |key: &PolicyKey| !standings.iter().any(|s| s.key == key.id);
                let could_sign = self.keys().iter().filter(|key| {
                    let counts = key.counts_at(now) && !floor.revoked.contains_key(&key.id);
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
        for (role, seated) in self.roles().iter().zip(&seated) {
            for key in seated {
                let id = self.keys()[*key].id;
                if let Some(signature) = standings.iter_mut().find(|signature| signature.key == id) {
                    signature.standing = Standing::Counts { role: role.name.clone() };
                }
            }
        }
        Signers { signatures: standings, roles }
    }

    /// Steps 1 to 3.
    fn refuse_signatures(
        &self,
        envelope: &Envelope,
        signers: &Signers,
        now: UtcTime,
    ) -> Result<(), VerifyError> {
        if envelope.payload_type() != MANIFEST_TYPE {
            return Err(VerifyError::PayloadType { found: envelope.payload_type().to_owned() });
        }
        let known: Vec<(&KeyName, &SignatureStanding)> = signers
            .signatures
            .iter()
            .filter_map(|signature| Some((signature.name.as_ref()?, signature)))
            .collect();
        if let Some((key, bad)) =
            known.iter().find(|(_, signature)| signature.standing == Standing::DoesNotVerify)
        {
            return Err(VerifyError::BadSignature { key: (*key).clone(), id: bad.key });
        }
        let Some(lacking) = signers.roles.iter().find(|role| role.missing > 0) else { return Ok(()) };

        if signers.signatures.is_empty() {
            return Err(VerifyError::Unsigned {
                needed: self.roles().iter().map(|role| role.threshold).sum(),
            });
        }
        if known.is_empty() {
            let found = signers.signatures.iter().map(|signature| signature.key).collect();
            return Err(VerifyError::UnknownSigners { found });
        }
        for (key, signature) in &known {
            let key = (*key).clone();
            match signature.standing {
                Standing::Revoked { since } => return Err(VerifyError::KeyRevoked { key, since }),
                Standing::KeyExpired { not_after } => {
                    return Err(VerifyError::KeyExpired { key, not_after, now });
                }
                _ => {}
            }
        }
        Err(self.shared_keys(signers).unwrap_or_else(|| VerifyError::Threshold {
            role: lacking.role.clone(),
            threshold: lacking.threshold,
            signed: lacking.signed.clone(),
        }))
    }

    /// The refusal of keys that would have to stand for several roles: every role has enough
    /// signatures that hold when it is looked at alone, and not all of them have together.
    fn shared_keys(&self, signers: &Signers) -> Option<VerifyError> {
        let holds: Vec<&KeyName> = signers
            .signatures
            .iter()
            .filter(|signature| matches!(signature.standing, Standing::Counts { .. } | Standing::NotNeeded))
            .filter_map(|signature| signature.name.as_ref())
            .collect();
        let own = |keys: &[KeyName]| keys.iter().filter(|key| holds.contains(key)).count();
        if self.roles().iter().any(|role| own(&role.keys) < role.threshold as usize) {
            return None;
        }
        Some(VerifyError::OneKeyForTwoRoles {
            keys: holds.into_iter().cloned().collect(),
            roles: self.roles().iter().map(|role| role.name.clone()).collect(),
            needed: self.roles().iter().map(|role| role.threshold).sum(),
        })
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
    if let Some(since) = floor.revoked.get(&key.id) {
        return Standing::Revoked { since: *since };
    }
    match (key.revoked, key.not_after) {
        (Some(since), _) if since <= now => Standing::Revoked { since },
        (_, Some(not_after)) if not_after < now => Standing::KeyExpired { not_after },
        _ => Standing::NotNeeded,
    }
}

/// Step 5.
fn refuse_time(manifest: &Manifest, now: UtcTime, floor: &TrustFloor) -> Result<(), VerifyError> {
    let latest = now.timestamp().saturating_add(ALLOWED_SKEW).unwrap_or(Timestamp::MAX);
    if let Some(floor) = floor.clock.filter(|floor| floor.timestamp() > latest) {
        return Err(VerifyError::ClockBehind { floor, now });
    }
    if manifest.issued.timestamp() > latest {
        return Err(VerifyError::FromTheFuture { issued: manifest.issued, now });
    }
    // Within the skew, the later of the two decides what has expired.
    if floor.reached(now) >= manifest.expires {
        return Err(VerifyError::Expired { expires: manifest.expires, now });
    }
    Ok(())
}

/// Step 6.
fn refuse_version(manifest: &Manifest, digest: Sha256, floor: &TrustFloor) -> Result<(), VerifyError> {
    let Some(accepted) = floor.versions.get(&manifest.name) else { return Ok(()) };
    let name = manifest.name.clone();
    if manifest.version < accepted.version {
        return Err(VerifyError::VersionBelowFloor {
            name,
            floor: accepted.version,
            found: manifest.version,
        });
    }
    if manifest.version == accepted.version && digest != accepted.manifest {
        let version = manifest.version;
        return Err(VerifyError::VersionReused { name, version, accepted: accepted.manifest, found: digest });
    }
    Ok(())
}

impl VerifyError {
    /// A word for each refusal, for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PayloadType { .. } => "payload-type",
            Self::Unsigned { .. } => "unsigned",
            Self::BadSignature { .. } => "bad-signature",
            Self::UnknownSigners { .. } => "unknown-signers",
            Self::KeyRevoked { .. } => "key-revoked",
            Self::KeyExpired { .. } => "key-expired",
            Self::OneKeyForTwoRoles { .. } => "one-key-for-two-roles",
            Self::Threshold { .. } => "threshold",
            Self::Manifest(_) => "malformed-manifest",
            Self::ClockBehind { .. } => "clock-behind",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::Expired { .. } => "expired",
            Self::VersionBelowFloor { .. } => "version-below-floor",
            Self::VersionReused { .. } => "version-reused",
        }
    }

    /// What should have been the case.
    pub fn expected(&self) -> String {
        match self {
            Self::PayloadType { .. } => format!("payload type {MANIFEST_TYPE}"),
            Self::Unsigned { needed } => format!("{needed} signatures"),
            Self::BadSignature { key, .. } => format!("a signature of {key} over exactly these bytes"),
            Self::UnknownSigners { .. } => "signatures by keys of the policy".to_owned(),
            Self::KeyRevoked { .. } => "keys that are not revoked".to_owned(),
            Self::KeyExpired { key, not_after, .. } => format!("{key} to be used until {not_after}"),
            Self::OneKeyForTwoRoles { roles, needed, .. } => {
                format!("{needed} distinct keys for roles {}", list(roles))
            }
            Self::Threshold { role, threshold, .. } => format!("{threshold} distinct keys for role {role}"),
            Self::Manifest(_) => "a valid manifest of schema 1".to_owned(),
            Self::ClockBehind { floor, .. } => format!("a clock at {floor} or later"),
            Self::FromTheFuture { .. } => "issued at most 5 minutes after this host's clock".to_owned(),
            Self::Expired { now, .. } => format!("valid at {now}"),
            Self::VersionBelowFloor { name, floor, .. } => format!("{name} version {floor} or later"),
            Self::VersionReused { name, version, accepted, .. } => {
                format!("{name} version {version} with digest {accepted}")
            }
        }
    }

    /// What was the case.
    pub fn found(&self) -> String {
        match self {
            Self::PayloadType { found } => format!("payload type {found:.80?}"),
            Self::Unsigned { .. } => "none".to_owned(),
            Self::BadSignature { key, id } => {
                format!("a signature under the name of {key} ({id}) that does not hold")
            }
            Self::UnknownSigners { found } => format!("signatures by {}", list(found)),
            Self::KeyRevoked { key, since } => format!("{key}, revoked since {since}"),
            Self::KeyExpired { now, .. } => format!("it is {now}"),
            Self::OneKeyForTwoRoles { keys, .. } => format!("{} ({})", keys.len(), list(keys)),
            Self::Threshold { signed, .. } if signed.is_empty() => "none".to_owned(),
            Self::Threshold { signed, .. } => format!("{} ({})", signed.len(), list(signed)),
            Self::Manifest(error) => innermost(error),
            Self::ClockBehind { now, .. } => format!("it is {now}"),
            Self::FromTheFuture { issued, now } => format!("issued {issued}, and it is {now}"),
            Self::Expired { expires, .. } => format!("expired at {expires}"),
            Self::VersionBelowFloor { found, .. } => format!("version {found}"),
            Self::VersionReused { found, .. } => format!("digest {found}"),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The last cause of an error: for a malformed manifest, the rule and the place.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
