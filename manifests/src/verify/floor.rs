//! What a host remembers of the documents that it has accepted, so that nobody can show it the past.
//!
//! What time proves, and what it does not: a host's clock is a claim. It can be ahead (a dead battery, a
//! wrong server) and be put right again, and it can be set back by who wants an old key or an expired
//! manifest to count. So nothing that lasts is made of it. The clock floor moves by *evidence* only, the
//! issue times of authentic documents, which no host's clock can raise; from where the evidence is, time
//! does not go back. And what a clock cannot take back at all, a revocation, is not kept as a time: what
//! this host has once seen revoked never counts again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Verified, VerifyError};
use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::error::ManifestError;
use crate::log::{NoteName, SeenCheckpoint};
use crate::names::ManifestName;
use crate::policy::Policy;
use crate::policy::scope::{Excess, Scope};
use crate::revocation::{Revoked, Withdrawn};
use crate::schema::Manifest;
use crate::time::UtcTime;

/// What a host remembers.
///
/// A value: the caller loads it, gives it to [`super::VerifyAt`], and stores what [`TrustFloor::see`] made of
/// it whenever it has read its policy, and [`TrustFloor::raise`] once a document is acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrustFloor {
    /// The latest time of which there is evidence: when an authentic, accepted document was issued.
    pub clock: Option<UtcTime>,
    /// The highest version accepted of each name, and which document that was.
    pub versions: BTreeMap<ManifestName, AcceptedVersion>,
    /// The latest edition of its policy that this host has had.
    #[serde(default)]
    pub policy: Option<AcceptedVersion>,
    /// What this host has seen revoked.
    #[serde(default)]
    pub revoked: Revoked,
    /// The newest checkpoint that this host has acted upon, of each log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logs: BTreeMap<NoteName, SeenCheckpoint>,
}

/// A version that a host has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedVersion {
    /// The version.
    pub version: u64,
    /// The digest of the document's bytes.
    pub manifest: Sha256,
}

impl AcceptedVersion {
    /// Refuses a version below this one, and another document of the same version. `name` is for people.
    pub(crate) fn refuse<T: Document>(
        &self,
        name: &str,
        version: u64,
        digest: Sha256,
    ) -> Result<(), VerifyError> {
        let (kind, name) = (T::KIND, name.to_owned());
        if version < self.version {
            return Err(VerifyError::VersionBelowFloor { kind, name, floor: self.version, found: version });
        }
        if version == self.version && digest != self.manifest {
            let accepted = self.manifest;
            return Err(VerifyError::VersionReused { kind, name, version, accepted, found: digest });
        }
        Ok(())
    }

    /// The higher of the two versions; of equal ones, this.
    pub(crate) fn or_higher(self, other: Self) -> Self {
        if other.version > self.version { other } else { self }
    }
}

impl TrustFloor {
    /// Takes up what `accepted` shows: that time has reached its `issued`, and what it itself forbids from
    /// now on. When this host's clock says that it was verified is no evidence.
    pub fn raise<T: Document>(&mut self, accepted: &Verified<T>) {
        self.clock = self.clock.max(Some(accepted.issued()));
        if let Some(logged) = accepted.logged() {
            let seen = self.logs.get(&logged.origin);
            // An earlier one was shown to be the beginning of what was seen.
            if seen.is_none_or(|seen| seen.head.size < logged.head.size) {
                self.logs.insert(logged.origin.clone(), logged.seen());
            }
        }
        Document::raise(&**accepted, accepted.digest(), self);
    }

    /// Takes up the keys of `policy` that are revoked by now. They stay so whatever the clock, or a later
    /// policy, says. Whether there was a new one.
    pub fn see(&mut self, policy: &Policy, now: Timestamp) -> bool {
        let now = self.reached(UtcTime::floor(now));
        let before = self.revoked.keys.len();
        for key in policy.keys() {
            if let Some(since) = key.revoked.filter(|since| *since <= now) {
                self.revoked.keys.entry(key.id).or_insert(since);
            }
        }
        self.revoked.keys.len() > before
    }

    /// Forgets the evidence of time, and gives what it was; for an operator who knows that a signer's clock
    /// was wrong. Versions and revocations stay.
    pub fn reset_clock(&mut self) -> Option<UtcTime> {
        self.clock.take()
    }

    /// The time that counts at `now`: not before the evidence.
    pub(super) fn reached(&self, now: UtcTime) -> UtcTime {
        self.clock.map_or(now, |floor| floor.max(now))
    }
}

/// A manifest's versions count within its name.
impl Document for Manifest {
    const KIND: DocumentKind = DocumentKind::Manifest;

    type Error = ManifestError;

    fn parse(bytes: &[u8]) -> Result<Self, Self::Error> {
        Manifest::parse(bytes)
    }

    fn issued(&self) -> UtcTime {
        self.issued
    }

    fn expires(&self) -> Option<UtcTime> {
        Some(self.expires)
    }

    fn logged_as(&self) -> Option<(ManifestName, u64)> {
        Some((self.name.clone(), self.version))
    }

    fn excess(&self, scope: &Scope) -> Option<Excess> {
        scope.excess(self)
    }

    fn refuse(&self, digest: Sha256, floor: &TrustFloor) -> Result<(), VerifyError> {
        match floor.revoked.withdrawn(self, digest) {
            Some(Withdrawn::Manifest { since }) => {
                return Err(VerifyError::ManifestRevoked { digest, since });
            }
            Some(Withdrawn::Payload { file, sha256, since }) => {
                return Err(VerifyError::PayloadRevoked { file, sha256, since });
            }
            None => {}
        }
        let accepted = floor.versions.get(&self.name);
        accepted.map_or(Ok(()), |accepted| accepted.refuse::<Self>(self.name.as_str(), self.version, digest))
    }

    fn raise(&self, digest: Sha256, floor: &mut TrustFloor) {
        let seen = AcceptedVersion { version: self.version, manifest: digest };
        let accepted = floor.versions.entry(self.name.clone()).or_insert(seen);
        *accepted = accepted.or_higher(seen);
    }
}
