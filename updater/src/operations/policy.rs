//! The host's trust policy over time: put in force, replaced, and what signed revocations take back.
//!
//! The policy in force is the file that the configuration names. Once a signed edition was installed its
//! fingerprint is among what this host remembers, and the file has to be that very edition: what puts an earlier
//! one back puts it out of force. A copy of every edition that was installed stays in the store, for the next one
//! to be judged by its rules whatever became of the file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use manifests::policy::{Edition, RevokedAtBoot};
use manifests::{
    Envelope, Policy, PolicyDocument, Revocation, Revoked, Sha256, TrustFloor, UtcTime, Verified, VerifyAt,
};
use serde::Serialize;
use system::durable;
use system::lock::Turn;

use crate::operations::trust::{TrustError, policy_in_force, read_envelope, read_policy};
use crate::operations::{Engine, EngineError};
use crate::plan::Action;
use crate::state::floors::{raise_floor, read_floor};
use crate::state::journal::{Origin, Stored};

/// A policy that is in force now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// The digest of its bytes, which people read to each other.
    pub fingerprint: Sha256,
    /// Which edition it is.
    pub version: u64,
    /// When it was issued.
    pub issued: UtcTime,
    /// The edition that it took the place of; `null` if there was none that was signed.
    pub replaced: Option<u64>,
}

/// A revocation that this host has taken up, and what it has itself of what is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenUp {
    /// Why, as the signers say.
    pub reason: String,
    /// When it was issued.
    pub issued: UtcTime,
    /// How many keys, manifests and payloads it names.
    pub keys: usize,
    /// As above.
    pub manifests: usize,
    /// As above.
    pub payloads: usize,
}

impl Engine {
    /// Put a signed policy in force.
    ///
    /// The first one, and one that follows a policy without an edition, is believed by `expected`, its fingerprint
    /// from a place that can be trusted; any later one because the one before agrees, and itself.
    ///
    /// # Errors
    /// [`EngineError::Trust`], [`EngineError::Lock`], [`EngineError::Journal`]: the policy in force is the one before.
    /// [`EngineError::PolicyFile`] when it was accepted and the file cannot be written: nothing is believed until the
    /// same command succeeds.
    pub fn install_policy(&self, file: &Path, expected: Option<Sha256>) -> Result<Installed, EngineError> {
        let _held = self.lock("policy install", Turn::Now)?;
        let envelope = read_envelope(file)?;
        let floor = read_floor(&self.journal())?;
        let now = self.host.clock.now();
        let at = VerifyAt { now, floor: &floor };
        let refused = |source| TrustError::Succession { path: file.to_owned(), source };
        let before = self.policy_before(&floor)?;
        let accepted = match (&before, expected) {
            (Some(before), _) => {
                let found = envelope.payload_digest();
                if let Some(expected) = expected.filter(|expected| *expected != found) {
                    Err(manifests::SuccessionError::Fingerprint { expected, found })
                } else {
                    before.successor(&envelope, at)
                }
            }
            (None, Some(expected)) => PolicyDocument::found(&envelope, expected, at),
            (None, None) => return Err(self.unexpected(file, &envelope, at)?.into()),
        }
        .map_err(refused)?;
        self.put_in_force(&accepted, envelope.unverified_payload())?;
        let Edition { version, issued } = accepted.edition();
        let replaced = before.and_then(|policy| policy.edition()).map(|edition| edition.version);
        Ok(Installed { fingerprint: accepted.digest(), version, issued, replaced })
    }

    /// Puts a policy in force that was accepted; the caller holds the host.
    pub(super) fn put_in_force(
        &self,
        accepted: &Verified<PolicyDocument>,
        bytes: &[u8],
    ) -> Result<(), EngineError> {
        let kept = self.kept_policy(accepted.digest());
        keep(&kept, bytes).map_err(|source| EngineError::PolicyFile { path: kept.clone(), source })?;
        raise_floor(&mut self.journal(), accepted)?;
        let path = &self.config.policy;
        // Everybody may know whom a host believes.
        durable::publish(path, bytes).map_err(|source| EngineError::PolicyFile { path: path.clone(), source })
    }

    /// Remember for good what a signed revocation names.
    ///
    /// # Errors
    /// [`EngineError::Trust`], [`EngineError::Lock`], [`EngineError::Journal`]: nothing was taken up.
    pub fn revoke(&self, file: &Path) -> Result<TakenUp, EngineError> {
        let _held = self.lock("policy revoke", Turn::Now)?;
        let envelope = read_envelope(file)?;
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let revocation: Verified<Revocation> = policy
            .verify(&envelope, VerifyAt { now, floor: &floor })
            .map_err(|source| TrustError::NotAuthentic { path: file.to_owned(), source })?;
        raise_floor(&mut self.journal(), &revocation)?;
        Ok(TakenUp {
            reason: revocation.reason.to_string(),
            issued: revocation.issued,
            keys: revocation.keys.len(),
            manifests: revocation.manifests.len(),
            payloads: revocation.payloads.len(),
        })
    }

    /// The payloads that must not be in force any more, and since when: those that are revoked themselves, and those
    /// that a revoked manifest brought.
    pub(super) fn revoked_payloads(&self) -> Result<BTreeMap<Sha256, UtcTime>, EngineError> {
        let journal = self.journal();
        let Revoked { manifests, mut payloads, .. } = read_floor(&journal)?.revoked;
        if manifests.is_empty() {
            return Ok(payloads);
        }
        for stored in journal.all()? {
            let Origin::Apply { digest, .. } = &stored.origin else { continue };
            let Some(since) = digest.parse().ok().and_then(|digest: Sha256| manifests.get(&digest)) else {
                continue;
            };
            for payload in brought(&stored) {
                payloads.entry(payload).or_insert(*since);
            }
        }
        Ok(payloads)
    }

    /// What a boot does with what is revoked: what the policy says, and where it says nothing, not load it.
    pub(super) fn revoked_at_boot(&self) -> Result<RevokedAtBoot, EngineError> {
        let floor = read_floor(&self.journal())?;
        let policy = self.policy_before(&floor).ok().flatten();
        Ok(policy.map_or(RevokedAtBoot::Refuse, |policy| policy.revoked_at_boot()))
    }

    /// Where a copy of an edition is kept.
    fn kept_policy(&self, fingerprint: Sha256) -> PathBuf {
        self.config.store.join("policies").join(format!("{fingerprint}.yaml"))
    }

    /// The policy whose rules the next one has to follow; none if a person has to vouch for it.
    fn policy_before(&self, floor: &TrustFloor) -> Result<Option<Policy>, EngineError> {
        let path = &self.config.policy;
        if let Some(accepted) = floor.policy {
            let in_force = policy_in_force(path, floor);
            return match in_force {
                Ok(policy) => Ok(Some(policy)),
                // The file was lost or changed; what was accepted was not.
                Err(_) => Ok(Some(read_policy(&self.kept_policy(accepted.manifest))?)),
            };
        }
        match read_policy(path) {
            Ok(policy) => Ok(policy.edition().is_some().then_some(policy)),
            Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What to tell who did not say what is expected: the fingerprint, of something that could be installed.
    fn unexpected(
        &self,
        file: &Path,
        envelope: &Envelope,
        at: VerifyAt<'_>,
    ) -> Result<TrustError, EngineError> {
        let fingerprint = envelope.payload_digest();
        PolicyDocument::found(envelope, fingerprint, at)
            .map_err(|source| TrustError::Succession { path: file.to_owned(), source })?;
        Ok(TrustError::Fingerprint { path: file.to_owned(), fingerprint })
    }
}

/// The payloads that a transaction's plan brings.
fn brought(stored: &Stored) -> impl Iterator<Item = Sha256> {
    stored.progress.plan().steps.iter().filter_map(|step| match step.action {
        Action::LoadLivepatch { payload, .. } => Some(payload),
        Action::UnpackLayer { layer, .. } => Some(layer),
        Action::LoadImage { payload, .. } => Some(payload),
        _ => None,
    })
}

fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        durable::make_directory(directory)?;
    }
    match fs::read(path) {
        Ok(known) if known == bytes => Ok(()),
        _ => durable::replace(path, bytes),
    }
}
