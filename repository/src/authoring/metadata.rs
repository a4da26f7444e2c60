//! TUF metadata as it is written: TUF 1.0.x, 4 "Document formats".
//!
//! Field names and their meaning are the specification's. Written without spaces, since hosts fetch it daily; what is
//! signed is the canonical form (OLPC), which the verifier's own encoder makes, so that both sides agree.

use std::collections::BTreeMap;

use manifests::{PublicKey, SecretKey, Sha256, UtcTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sigstore_tuf::canonical_json;

use crate::authoring::AuthoringError;

/// The version of the specification that is followed.
const SPECIFICATION: &str = "1.0.31";

/// A document and its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed<T> {
    /// Each by another key.
    pub(crate) signatures: Vec<Signature>,
    /// What is signed.
    pub(crate) signed: T,
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    /// The key's id.
    pub(crate) keyid: String,
    /// Hexadecimal.
    pub(crate) sig: String,
}

/// What all documents begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    /// Grows by one with each publication.
    pub(crate) version: u64,
    /// From when on clients refuse it.
    pub(crate) expires: UtcTime,
}

impl Head {
    pub(crate) fn new(kind: &str, version: u64, expires: UtcTime) -> Self {
        Self { kind: kind.to_owned(), spec_version: SPECIFICATION.to_owned(), version, expires }
    }
}

/// A document of TUF.
pub(crate) trait Document: Serialize + DeserializeOwned + Clone {}

impl Document for Root {}
impl Document for Targets {}
impl Document for Meta {}

/// Keys as people know them, by the ids that `update key` shows; TUF's own ids are of other bytes.
pub(crate) fn known_as(keys: &BTreeMap<String, Key>, ids: &[String]) -> String {
    let own = |id: &String| {
        keys.get(id).and_then(Key::public).map_or_else(|| id.clone(), |key| key.id().to_string())
    };
    ids.iter().map(own).collect::<Vec<_>>().join(", ")
}

/// A public key (4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyValue {
    public: String,
}

impl Key {
    /// An Ed25519 key.
    pub(crate) fn new(key: &PublicKey) -> Self {
        let kind = "ed25519".to_owned();
        Self { keytype: kind.clone(), scheme: kind, keyval: KeyValue { public: hex::encode(key.as_bytes()) } }
    }

    /// The digest of its canonical form (4.2).
    pub(crate) fn id(&self) -> String {
        Sha256::of(&canonical(self)).to_string()
    }

    /// The key, if it is one of those that we write.
    pub(crate) fn public(&self) -> Option<PublicKey> {
        (self.scheme == "ed25519").then(|| self.keyval.public.parse().ok()).flatten()
    }
}

/// Who signs for a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keyholders {
    /// The keys' ids.
    pub(crate) keyids: Vec<String>,
    /// How many of them it takes.
    pub(crate) threshold: u32,
}

/// 4.3 `root.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) consistent_snapshot: bool,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) roles: BTreeMap<String, Keyholders>,
}

/// 4.5 `targets.json`, and every role that it delegates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Targets {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) targets: BTreeMap<String, TargetFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delegations: Option<Delegations>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetFile {
    pub(crate) length: u64,
    pub(crate) hashes: Hashes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) custom: Option<Value>,
}

/// Digests of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hashes {
    pub(crate) sha256: Sha256,
}

/// Whom `targets` leaves what to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delegations {
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) roles: Vec<Delegated>,
}

/// A role that `targets` delegates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delegated {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) holders: Keyholders,
    pub(crate) terminating: bool,
    pub(crate) paths: Vec<String>,
}

/// 4.4 `snapshot.json` and 4.6 `timestamp.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) meta: BTreeMap<String, Pin>,
}

/// Which version of a document, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) version: u64,
    pub(crate) length: u64,
    pub(crate) hashes: Hashes,
}

impl Pin {
    pub(crate) fn of(version: u64, bytes: &[u8]) -> Self {
        Self { version, length: bytes.len() as u64, hashes: Hashes { sha256: Sha256::of(bytes) } }
    }
}

/// The bytes that are signed; of what [`Signed::parse`] has read or this crate has made there are some.
pub(crate) fn canonical(document: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(document).expect("these documents are maps of text and numbers");
    canonical_json::to_canonical_bytes(&value).expect("and the numbers are whole ones")
}

impl<T: Document> Signed<T> {
    /// A document that nobody has signed.
    pub(crate) fn unsigned(signed: T) -> Self {
        Self { signatures: Vec::new(), signed }
    }

    /// Reads one. What has no canonical form, as numbers with fractions have none, could not be signed, and is refused.
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self, AuthoringError> {
        let malformed = |source| AuthoringError::Malformed { what: what.to_owned(), source };
        let document: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        let value = serde_json::to_value(&document.signed).map_err(malformed)?;
        canonical_json::to_canonical_bytes(&value)
            .map_err(|error| malformed(serde::de::Error::custom(error)))?;
        Ok(document)
    }

    /// Its bytes in a file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("these documents are maps of text and numbers")
    }

    /// Adds a signature, in place of an earlier one by the same key.
    pub(crate) fn sign(&mut self, key: &SecretKey) {
        let keyid = Key::new(&key.public()).id();
        self.signatures.retain(|signature| signature.keyid != keyid);
        let sig = hex::encode(key.sign(&canonical(&self.signed)));
        self.signatures.push(Signature { keyid, sig });
    }

    /// The ids of those of `keys` whose signatures hold.
    pub(crate) fn signers(&self, keys: &BTreeMap<String, Key>) -> Vec<String> {
        let bytes = canonical(&self.signed);
        let holds = |signature: &&Signature| {
            let key = keys.get(&signature.keyid).and_then(Key::public);
            let mut raw = [0; 64];
            hex::decode_to_slice(&signature.sig, &mut raw).is_ok()
                && key.is_some_and(|key| key.verifies(&bytes, &raw))
        };
        self.signatures.iter().filter(holds).map(|signature| signature.keyid.clone()).collect()
    }
}
