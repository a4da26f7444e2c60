//! What is logged of a document: enough to find one's own name and key in it, and nothing that is secret.
//!
//! An entry is made of the envelope alone, so that a host makes the same bytes as the publisher did. Who signed is part
//! of it: a signature by a stolen key cannot count without standing in the log.

use serde::{Deserialize, Serialize};

use super::tree;
use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::envelope::Envelope;
use crate::error::ManifestError;
use crate::key::KeyId;
use crate::names::ManifestName;
use crate::schema::Manifest;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// What it is.
    pub document: DocumentKind,
    /// Its name.
    pub name: ManifestName,
    /// Its version.
    pub version: u64,
    /// The digest of the signed bytes.
    pub sha256: Sha256,
    /// The keys that the envelope's signatures are under, each once, by id.
    pub signers: Vec<KeyId>,
}

/// Why bytes are not an entry, or an envelope is not logged.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not the fields of an entry.
    #[error("not an entry of a log of manifests")]
    Json(#[source] serde_json::Error),
    /// Other bytes than an entry of this content has.
    #[error("not an entry of a log of manifests: expected the bytes that its content has when it is written")]
    Spelling,
    /// The envelope is around something else.
    #[error("expected a signed manifest, found payload type {found:.80?}")]
    Kind {
        /// The payload type.
        found: String,
    },
    /// What is signed is no manifest.
    #[error("what is signed is not a manifest")]
    Manifest(#[source] ManifestError),
}

impl LogEntry {
    /// The most bytes of an entry: what an entry bundle can hold.
    pub const MAX_BYTES: usize = u16::MAX as usize;

    /// What is logged of an envelope. Whether its signatures hold is not asked.
    ///
    /// # Errors
    /// [`EntryError::Kind`], [`EntryError::Manifest`].
    pub fn of(envelope: &Envelope) -> Result<Self, EntryError> {
        if envelope.kind() != Some(DocumentKind::Manifest) {
            return Err(EntryError::Kind { found: envelope.payload_type().to_owned() });
        }
        let manifest = Manifest::parse(envelope.unverified_payload()).map_err(EntryError::Manifest)?;
        Ok(Self::of_document(&manifest, envelope).unwrap_or_else(|| unreachable!("manifests are logged")))
    }

    /// The same of a document that was read; nothing if documents of its kind are not logged.
    pub(crate) fn of_document<T: Document>(document: &T, envelope: &Envelope) -> Option<Self> {
        let (name, version) = document.logged_as()?;
        let mut signers: Vec<KeyId> = envelope.signatures().iter().map(|signature| signature.key).collect();
        signers.sort_unstable();
        Some(Self { document: T::KIND, name, version, sha256: envelope.payload_digest(), signers })
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`EntryError::Json`], [`EntryError::Spelling`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry: Self = serde_json::from_slice(bytes).map_err(EntryError::Json)?;
        match entry.to_bytes() == bytes {
            true => Ok(entry),
            false => Err(EntryError::Spelling),
        }
    }

    /// The bytes that are logged: JSON in one line, without spaces, the fields in their order.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("words and numbers can be written")
    }

    /// The hash of the leaf that it is.
    pub fn leaf(&self) -> Sha256 {
        tree::leaf(&self.to_bytes())
    }
}
