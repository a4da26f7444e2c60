//! The one way to a trusted document.
//!
//! [`Policy::examine`] goes through an envelope in this order, and stops at the first refusal:
//!
//! 1. the payload type is that of the document that was asked for, and the policy has a rule for it;
//! 2. every signature by a key of the policy holds, by the strict rules of Ed25519;
//! 3. of the rule's alternatives, one has every role at its threshold, with keys that are neither revoked
//!    nor past their time;
//! 4. the payload, until here only bytes, is parsed as such a document, and lies within the scope of
//!    every role of such an alternative;
//! 5. the host's clock is not behind the evidence, and lies between issue and expiry;
//! 6. nothing that the host remembers is against it: a later version, a revocation;
//! 7. where the policy wants it, it is published in a log that the policy knows, as its witnesses have seen it, and the
//!    log continues what the host remembers of it ([`crate::log::judge`]).
//!
//! Invariant: [`Verified`] is made here and nowhere else. Each rule stands once.
//!
//! - `signers`: what signatures are worth
//! - `floor`: what a host remembers
//! - `error`: the refusals

mod error;
mod floor;
mod signers;

use std::ops::Deref;

use jiff::{SignedDuration, Timestamp};

pub use error::VerifyError;
pub use floor::{AcceptedVersion, TrustFloor};
pub use signers::{RoleStanding, SignatureStanding, Signers, Standing};

use crate::digest::Sha256;
use crate::document::Document;
use crate::envelope::Envelope;
use crate::log::judge::judge;
use crate::log::{LogEntry, LogRefusal, Logged, Publication};
use crate::names::KeyName;
use crate::policy::{Policy, Role};
use crate::schema::Manifest;
use crate::time::UtcTime;

/// How far a host's clock may be behind the clock that issued a document, or the evidence of time.
pub const ALLOWED_SKEW: SignedDuration = SignedDuration::from_mins(5);

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
    logged: Option<Logged>,
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

    /// Where it is published, if the policy wants to know.
    pub fn logged(&self) -> Option<&Logged> {
        self.logged.as_ref()
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

/// What an envelope looks like to a policy, whether or not it is authentic.
#[derive(Debug)]
pub struct Examination<T = Manifest> {
    /// Who signed, and what each role still lacks.
    pub signers: Signers,
    /// The document, when its signatures satisfy the policy; time and version may still be refused.
    pub signed: Option<T>,
    /// The digest of the signed bytes.
    pub digest: Sha256,
    /// The verified document, or why there is none.
    pub outcome: Result<Verified<T>, VerifyError>,
}

impl Policy {
    /// Verifies an envelope; see the module for the rules and their order.
    pub fn verify<T: Document>(
        &self,
        envelope: &Envelope,
        at: VerifyAt<'_>,
    ) -> Result<Verified<T>, VerifyError> {
        self.examine(envelope, at).outcome
    }

    /// As [`Policy::verify`], with what came along to prove that the document is published in a log.
    pub fn verify_published<T: Document>(
        &self,
        envelope: &Envelope,
        publication: Publication<'_>,
        at: VerifyAt<'_>,
    ) -> Result<Verified<T>, VerifyError> {
        self.examine_published(envelope, publication, at).outcome
    }

    /// As [`Policy::verify`], and also tells who signed and what is missing.
    pub fn examine<T: Document>(&self, envelope: &Envelope, at: VerifyAt<'_>) -> Examination<T> {
        self.examine_published(envelope, Publication::default(), at)
    }

    /// As [`Policy::verify_published`], and also tells who signed and what is missing.
    pub fn examine_published<T: Document>(
        &self,
        envelope: &Envelope,
        publication: Publication<'_>,
        at: VerifyAt<'_>,
    ) -> Examination<T> {
        let now = UtcTime::floor(at.now);
        let digest = envelope.payload_digest();
        let reached = at.floor.reached(now);
        let signatures = self.weigh(envelope, at.floor, reached);
        let candidates: Vec<Candidate<'_>> = self
            .alternatives(T::KIND)
            .map(|roles| {
                let signers = self.seat_signers(&roles, signatures.clone(), at.floor, reached);
                Candidate { roles, signers }
            })
            .collect();
        let nearest = candidates.iter().min_by_key(|candidate| candidate.signers.missing());

        let read = refuse_signatures::<T>(envelope, nearest, now).and_then(|()| {
            let document = T::parse(envelope.unverified_payload())
                .map_err(|source| VerifyError::Malformed { kind: T::KIND, source: Box::new(source) })?;
            let signers = within_scope(&document, &candidates)?;
            Ok((document, signers))
        });
        let (document, signers) = match read {
            Ok(read) => read,
            Err(refusal) => {
                let unfilled = || Signers { signatures, roles: Vec::new() };
                let signers = nearest.map_or_else(unfilled, |nearest| nearest.signers.clone());
                return Examination { signers, signed: None, digest, outcome: Err(refusal) };
            }
        };
        let outcome = refuse_time(&document, now, at.floor)
            .and_then(|()| document.refuse(digest, at.floor))
            .and_then(|()| Ok(self.published(&document, envelope, publication, at.floor)?))
            .map(|logged| {
                let signers = signers.clone();
                Verified { value: document.clone(), digest, signers, at: now, logged }
            });
        Examination { signers, signed: Some(document), digest, outcome }
    }
}

impl Policy {
    /// Step 7.
    fn published<T: Document>(
        &self,
        document: &T,
        envelope: &Envelope,
        publication: Publication<'_>,
        floor: &TrustFloor,
    ) -> Result<Option<Logged>, LogRefusal> {
        let Some(policy) = self.transparency() else { return Ok(None) };
        let Some(entry) = LogEntry::of_document(document, envelope) else { return Ok(None) };
        judge(policy, &entry, publication, &floor.logs).map(Some)
    }
}

/// One alternative of a rule, and how far an envelope's signatures fill it.
struct Candidate<'p> {
    roles: Vec<&'p Role>,
    signers: Signers,
}

/// Steps 1 to 3.
fn refuse_signatures<T: Document>(
    envelope: &Envelope,
    candidate: Option<&Candidate<'_>>,
    now: UtcTime,
) -> Result<(), VerifyError> {
    let kind = T::KIND;
    if envelope.payload_type() != kind.payload_type() {
        return Err(VerifyError::PayloadType { kind, found: envelope.payload_type().to_owned() });
    }
    let Some(Candidate { roles, signers }) = candidate else { return Err(VerifyError::NoRule { kind }) };
    let known: Vec<(&KeyName, &SignatureStanding)> = signers
        .signatures
        .iter()
        .filter_map(|signature| Some((signature.name.as_ref()?, signature)))
        .collect();
    if let Some((key, bad)) =
        known.iter().find(|(_, signature)| signature.standing == Standing::DoesNotVerify)
    {
        return Err(VerifyError::BadSignature { kind, key: (*key).clone(), id: bad.key });
    }
    let Some(lacking) = signers.roles.iter().find(|role| role.missing > 0) else { return Ok(()) };

    if signers.signatures.is_empty() {
        return Err(VerifyError::Unsigned { kind, needed: signers.needed() });
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
    Err(shared_keys(roles, signers).unwrap_or_else(|| VerifyError::Threshold {
        role: lacking.role.clone(),
        threshold: lacking.threshold,
        signed: lacking.signed.clone(),
    }))
}

/// Who signed, of the first complete alternative whose every role may vouch for `document`.
fn within_scope<T: Document>(document: &T, candidates: &[Candidate<'_>]) -> Result<Signers, VerifyError> {
    let mut first = None;
    for candidate in candidates.iter().filter(|candidate| candidate.signers.missing() == 0) {
        let excess = |role: &&Role| Some((role.name.clone(), document.excess(&role.scope)?));
        match candidate.roles.iter().find_map(excess) {
            None => return Ok(candidate.signers.clone()),
            Some(excess) => first = first.or(Some(excess)),
        }
    }
    match first {
        Some((role, excess)) => Err(VerifyError::ScopeExceeded { kind: T::KIND, role, excess }),
        // Not reached: step 3 has seen a complete alternative.
        None => Err(VerifyError::NoRule { kind: T::KIND }),
    }
}

/// The refusal of keys that would have to stand for several roles: every role has enough
/// signatures that hold when it is looked at alone, and not all of them have together.
fn shared_keys(roles: &[&Role], signers: &Signers) -> Option<VerifyError> {
    let holding = signers.holding();
    let own = |role: &Role| role.keys.iter().filter(|key| holding.contains(key)).count();
    if roles.iter().any(|role| own(role) < role.threshold as usize) {
        return None;
    }
    Some(VerifyError::OneKeyForTwoRoles {
        keys: holding.into_iter().cloned().collect(),
        roles: roles.iter().map(|role| role.name.clone()).collect(),
        needed: signers.needed(),
    })
}

/// Step 5.
fn refuse_time<T: Document>(document: &T, now: UtcTime, floor: &TrustFloor) -> Result<(), VerifyError> {
    let kind = T::KIND;
    let latest = now.timestamp().saturating_add(ALLOWED_SKEW).unwrap_or(Timestamp::MAX);
    if let Some(floor) = floor.clock.filter(|floor| floor.timestamp() > latest) {
        return Err(VerifyError::ClockBehind { floor, now });
    }
    let issued = document.issued();
    if issued.timestamp() > latest {
        return Err(VerifyError::FromTheFuture { kind, issued, now });
    }
    // Within the skew, the later of the two decides what has expired.
    match document.expires().filter(|expires| floor.reached(now) >= *expires) {
        Some(expires) => Err(VerifyError::Expired { kind, expires, now }),
        None => Ok(()),
    }
}
