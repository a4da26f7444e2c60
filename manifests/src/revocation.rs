//! What must not count any more: keys, manifests and payloads, by a signed document.
//!
//! A host remembers every revocation that it has accepted, for good; so the order in which revocations
//! come, and whether an old one comes again, makes no difference, and they need no versions. There is no
//! document that takes one back: what is right after all is signed anew, by other keys or as other bytes.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::key::KeyId;
use crate::names::FileName;
use crate::policy::scope::{Excess, Scope};
use crate::schema::{Manifest, SchemaVersion};
use crate::text::Summary;
use crate::time::UtcTime;
use crate::verify::{TrustFloor, VerifyError};
use crate::yaml::{self, YamlError};

/// The most entries of each list.
const MAX_ENTRIES: usize = 1024;

/// A signed list of what must not count any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Version of this format; always 1.
    pub schema: SchemaVersion,
    /// When it was issued; what it names is revoked since then.
    pub issued: UtcTime,
    /// One line for people: why.
    pub reason: Summary,
    /// Keys, by their ids: their signatures do not count, whenever they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub keys: Vec<KeyId>,
    /// Manifests, by the digests of their signed bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub manifests: Vec<Sha256>,
    /// Payload files, by their digests: no manifest with one of them is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub payloads: Vec<Sha256>,
}

/// Why bytes are not a revocation.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The YAML is outside of the strict form, or does not follow the schema.
    #[error("the revocation cannot be read")]
    Yaml(#[from] YamlError),
    /// It names nothing.
    #[error("expected keys, manifests or payloads, found none")]
    Empty,
    /// A list is too long.
    #[error("{field}: expected at most {MAX_ENTRIES} entries, found {found}")]
    Count {
        /// The list.
        field: &'static str,
        /// How many there are.
        found: usize,
    },
    /// An entry stands twice in a list.
    #[error("{field}: expected each entry once, found {entry} twice")]
    Twice {
        /// The list.
        field: &'static str,
        /// The entry.
        entry: String,
    },
}

/// What a host has seen revoked, and since when. Only ever grows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Revoked {
    /// Keys, by revocations and by policies.
    pub keys: BTreeMap<KeyId, UtcTime>,
    /// Manifests, by the digests of their signed bytes.
    pub manifests: BTreeMap<Sha256, UtcTime>,
    /// Payload files, by their digests.
    pub payloads: BTreeMap<Sha256, UtcTime>,
}

/// What of a manifest is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "revoked", rename_all = "kebab-case")]
pub enum Withdrawn {
    /// The manifest itself.
    Manifest {
        /// Since when.
        since: UtcTime,
    },
    /// One of its payloads.
    Payload {
        /// The file.
        file: FileName,
        /// Its digest.
        sha256: Sha256,
        /// Since when.
        since: UtcTime,
    },
}

impl Revoked {
    /// What of `manifest` is revoked, if anything; `digest` is that of its signed bytes. For what is to be
    /// applied and for what is in force alike.
    pub fn withdrawn(&self, manifest: &Manifest, digest: Sha256) -> Option<Withdrawn> {
        if let Some(since) = self.manifests.get(&digest) {
            return Some(Withdrawn::Manifest { since: *since });
        }
        manifest.payloads().find_map(|payload| {
            let since = *self.payloads.get(&payload.sha256)?;
            Some(Withdrawn::Payload { file: payload.file.clone(), sha256: payload.sha256, since })
        })
    }
}

impl Revocation {
    /// Reads a revocation from YAML.
    pub fn parse(bytes: &[u8]) -> Result<Self, RevocationError> {
        let revocation: Self = yaml::from_slice(bytes, DocumentKind::Revocation.max_bytes())?;
        let Self { keys, manifests, payloads, .. } = &revocation;
        if keys.is_empty() && manifests.is_empty() && payloads.is_empty() {
            return Err(RevocationError::Empty);
        }
        distinct("keys", keys)?;
        distinct("manifests", manifests)?;
        distinct("payloads", payloads)?;
        Ok(revocation)
    }
}

fn distinct<T: Ord + ToString>(field: &'static str, entries: &[T]) -> Result<(), RevocationError> {
    if entries.len() > MAX_ENTRIES {
        return Err(RevocationError::Count { field, found: entries.len() });
    }
    let mut seen = BTreeSet::new();
    match entries.iter().find(|entry| !seen.insert(*entry)) {
        Some(entry) => Err(RevocationError::Twice { field, entry: entry.to_string() }),
        None => Ok(()),
    }
}

impl Document for Revocation {
    const KIND: DocumentKind = DocumentKind::Revocation;

    type Error = RevocationError;

    fn parse(bytes: &[u8]) -> Result<Self, RevocationError> {
        Self::parse(bytes)
    }

    fn issued(&self) -> UtcTime {
        self.issued
    }

    fn expires(&self) -> Option<UtcTime> {
        None
    }

    /// Roles with limits cannot stand in the rule for revocations.
    fn excess(&self, _: &Scope) -> Option<Excess> {
        None
    }

    fn refuse(&self, _: Sha256, _: &TrustFloor) -> Result<(), VerifyError> {
        Ok(())
    }

    fn raise(&self, _: Sha256, floor: &mut TrustFloor) {
        let Revoked { keys, manifests, payloads } = &mut floor.revoked;
        for key in &self.keys {
            keys.entry(*key).or_insert(self.issued);
        }
        for manifest in &self.manifests {
            manifests.entry(*manifest).or_insert(self.issued);
        }
        for payload in &self.payloads {
            payloads.entry(*payload).or_insert(self.issued);
        }
    }
}
