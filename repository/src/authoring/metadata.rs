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
pub(super) struct Signed<T> {
    /// Each by another key.
    pub(super) signatures: Vec<Signature>,
    /// What is signed.
    pub(super) signed: T,
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signature {
    /// The key's id.
    pub(super) keyid: String,
    /// Hexadecimal.
    pub(super) sig: String,
}

/// What all documents begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    /// Grows by one with each publication.
    pub(super) version: u64,
    /// From when on clients refuse it.
    pub(super) expires: UtcTime,
}

impl Head {
    pub(super) fn new(kind: &str, version: u64, expires: UtcTime) -> Self {
        Self { kind: kind.to_owned(), spec_version: SPECIFICATION.to_owned(), version, expires }
    }
}

/// A document of TUF.
pub(super) trait Document: Serialize + DeserializeOwned + Clone {}

impl Document for Root {}
impl Document for Targets {}
impl Document for Meta {}

/// Keys as people know them, by the ids that `update key` shows; TUF's own ids are of other bytes.
pub(super) fn known_as(keys: &BTreeMap<String, Key>, ids: &[String]) -> String {
    let own = |id: &String| {
        keys.get(id).and_then(Key::public).map_or_else(|| id.clone(), |key| key.id().to_string())
    };
    ids.iter().map(own).collect::<Vec<_>>().join(", ")
}

/// A public key (4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
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
    pub(super) fn new(key: &PublicKey) -> Self {
        let kind = "ed25519".to_owned();
        Self { keytype: kind.clone(), scheme: kind, keyval: KeyValue { public: hex::encode(key.as_bytes()) } }
    }

    /// The digest of its canonical form (4.2).
    pub(super) fn id(&self) -> String {
        Sha256::of(&canonical(self)).to_string()
    }

    /// The key, if it is one of those that we write.
    pub(super) fn public(&self) -> Option<PublicKey> {
        (self.scheme == "ed25519").then(|| self.keyval.public.parse().ok()).flatten()
    }
}

/// Who signs for a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyholders {
    /// The keys' ids.
    pub(super) keyids: Vec<String>,
    /// How many of them it takes.
    pub(super) threshold: u32,
}

/// 4.3 `root.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) consistent_snapshot: bool,
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) roles: BTreeMap<String, Keyholders>,
}

/// 4.5 `targets.json`, and every role that it delegates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Targets {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) targets: BTreeMap<String, TargetFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delegations: Option<Delegations>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetFile {
    pub(super) length: u64,
    pub(super) hashes: Hashes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) custom: Option<Value>,
}

/// Digests of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hashes {
    pub(super) sha256: Sha256,
}

/// Whom `targets` leaves what to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delegations {
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) roles: Vec<Delegated>,
}

/// A role that `targets` delegates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delegated {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) holders: Keyholders,
    pub(super) terminating: bool,
    pub(super) paths: Vec<String>,
}

/// 4.4 `snapshot.json` and 4.6 `timestamp.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) meta: BTreeMap<String, Pin>,
}

/// Which version of a document, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    pub(super) version: u64,
    pub(super) length: u64,
    pub(super) hashes: Hashes,
}

impl Pin {
    pub(super) fn of(version: u64, bytes: &[u8]) -> Self {
        Self { version, length: bytes.len() as u64, hashes: Hashes { sha256: Sha256::of(bytes) } }
    }
}

/// The bytes that are signed.
pub(super) fn canonical(document: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(document).expect("these documents are maps of text and numbers");
    canonical_json::to_canonical_bytes(&value).expect("and the numbers are whole ones")
}

impl<T: Document> Signed<T> {
    /// A document that nobody has signed.
    pub(super) fn unsigned(signed: T) -> Self {
        Self { signatures: Vec::new(), signed }
    }

    /// Reads one.
    pub(super) fn parse(what: &str, bytes: &[u8]) -> Result<Self, AuthoringError> {
        serde_json::from_slice(bytes)
            .map_err(|source| AuthoringError::Malformed { what: what.to_owned(), source })
    }

    /// Its bytes in a file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("these documents are maps of text and numbers")
    }

    /// Adds a signature, in place of an earlier one by the same key.
    pub(super) fn sign(&mut self, key: &SecretKey) {
        let keyid = Key::new(&key.public()).id();
        self.signatures.retain(|signature| signature.keyid != keyid);
        let sig = hex::encode(key.sign(&canonical(&self.signed)));
        self.signatures.push(Signature { keyid, sig });
    }

    /// The ids of those of `keys` whose signatures hold.
    pub(super) fn signers(&self, keys: &BTreeMap<String, Key>) -> Vec<String> {
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
