//! DSSE envelopes: signatures over raw bytes and their type.
//!
//! The format is the Dead Simple Signing Envelope, version 1 (secure-systems-lab/dsse,
//! `envelope.md` and `protocol.md`), read more strictly than it asks: unknown and duplicate fields,
//! other base64 than the padded standard alphabet, and two signatures of one key are refused.
//!
//! Invariant: the payload is kept as the very bytes that were signed; nothing is ever serialised
//! again. An [`Envelope`] in hand is well formed, and no more: see [`crate::verify`].

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Sha256;
use crate::document::DocumentKind;
use crate::key::{KeyId, PublicKey, SecretKey};
use crate::names::NameError;

/// The payload type of a manifest.
pub const MANIFEST_TYPE: &str = DocumentKind::Manifest.payload_type();

/// Bytes of some type, and signatures over both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// A signature, and the key that it claims to be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key's id. A claim, until the signature is checked with that key.
    pub key: KeyId,
    /// The signature; how long it has to be is a matter of the key's type, which is not known here.
    pub bytes: Vec<u8>,
}

/// Why bytes are not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// More bytes than allowed; nothing was parsed.
    #[error("the envelope is too large: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// Not the JSON of an envelope.
    #[error("not a signed envelope: expected DSSE JSON with payload, payloadType and signatures")]
    Json(#[source] serde_json::Error),
    /// A field is not canonical base64.
    #[error("{field}: expected padded standard base64 in one line")]
    Base64 {
        /// The field.
        field: String,
        /// What is wrong.
        #[source]
        source: base64::DecodeError,
    },
    /// The payload is larger than a document of its kind may be.
    #[error("payload: expected at most {limit} bytes, found {found}")]
    PayloadTooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// More signatures than any policy needs.
    #[error("signatures: expected at most {limit}, found {found}")]
    TooManySignatures {
        /// The limit.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// A key id is not a SHA-256 digest.
    #[error("signatures[{index}].keyid: expected the SHA-256 digest of a public key")]
    KeyId {
        /// Which signature, from 0.
        index: usize,
        /// What is wrong.
        #[source]
        source: NameError,
    },
    /// A signature is empty, or longer than any algorithm makes one.
    #[error("signatures[{index}].sig: expected 1 to {most} bytes, found {found}", most = Envelope::MAX_SIGNATURE_BYTES)]
    SignatureLength {
        /// Which signature, from 0.
        index: usize,
        /// How many bytes it has.
        found: usize,
    },
    /// One key stands at two signatures.
    #[error("signatures: expected each key once, found {key} twice")]
    KeyTwice {
        /// The key.
        key: KeyId,
    },
}

/// A key has signed this envelope already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a key that has not signed this envelope yet, found a signature of {key}")]
pub struct AlreadySigned {
    /// The key.
    pub key: KeyId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawEnvelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Object<RawSignature>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    keyid: String,
    sig: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonEnvelope<'a> {
    payload_type: &'a str,
    payload: String,
    signatures: Vec<JsonSignature>,
}

#[derive(Serialize)]
struct JsonSignature {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// The longest signature, in bytes; the largest of ML-DSA (FIPS 204) has 4,627.
    pub const MAX_SIGNATURE_BYTES: usize = 8 << 10;
    /// The most signatures that an envelope may have.
    pub const MAX_SIGNATURES: usize = 64;

    /// The most bytes that an envelope may have: the largest document in base64, and room for the rest.
    pub const MAX_BYTES: usize = DocumentKind::MAX_BYTES.div_ceil(3) * 4 + 64 * 1024;

    /// An unsigned envelope around a document's bytes. Whether they are such a document is not asked.
    pub fn new(kind: DocumentKind, bytes: Vec<u8>) -> Self {
        Self { payload_type: kind.payload_type().to_owned(), payload: bytes, signatures: Vec::new() }
    }

    /// An unsigned envelope around a manifest's bytes.
    pub fn of_manifest(bytes: Vec<u8>) -> Self {
        Self::new(DocumentKind::Manifest, bytes)
    }

    /// Reads an envelope; checks no signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(EnvelopeError::TooLarge { limit: Self::MAX_BYTES, found: bytes.len() });
        }
        let Object(raw): Object<RawEnvelope> = serde_json::from_slice(bytes).map_err(EnvelopeError::Json)?;
        let payload = decode("payload", &raw.payload)?;
        let kind = DocumentKind::of_payload_type(&raw.payload_type);
        let limit = kind.map_or(DocumentKind::MAX_BYTES, DocumentKind::max_bytes);
        if payload.len() > limit {
            return Err(EnvelopeError::PayloadTooLarge { limit, found: payload.len() });
        }
        if raw.signatures.len() > Self::MAX_SIGNATURES {
            let found = raw.signatures.len();
            return Err(EnvelopeError::TooManySignatures { limit: Self::MAX_SIGNATURES, found });
        }
        let mut keys = BTreeSet::new();
        let mut signatures = Vec::with_capacity(raw.signatures.len());
        for (index, Object(signature)) in raw.signatures.iter().enumerate() {
            let key: KeyId =
                signature.keyid.parse().map_err(|source| EnvelopeError::KeyId { index, source })?;
            let bytes = decode(&format!("signatures[{index}].sig"), &signature.sig)?;
            if !(1..=Self::MAX_SIGNATURE_BYTES).contains(&bytes.len()) {
                return Err(EnvelopeError::SignatureLength { index, found: bytes.len() });
            }
            if !keys.insert(key) {
                return Err(EnvelopeError::KeyTwice { key });
            }
            signatures.push(Signature { key, bytes });
        }
        Ok(Self { payload_type: raw.payload_type, payload, signatures })
    }

    /// Whether a file's bytes are meant to be an envelope and not a bare manifest: JSON starts with `{`.
    pub fn looks_like_one(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().starts_with(b"{")
    }

    /// Adds a signature by `key`.
    pub fn sign(&mut self, key: &SecretKey) -> Result<KeyId, AlreadySigned> {
        let bytes = key.sign(&self.signed_bytes());
        self.add(&key.public(), bytes)
    }

    /// Adds a signature that somebody else made with the private part of `key`. That it holds is for the caller to see.
    pub fn add(&mut self, key: &PublicKey, bytes: impl Into<Vec<u8>>) -> Result<KeyId, AlreadySigned> {
        let id = key.id();
        if self.signatures.iter().any(|signature| signature.key == id) {
            return Err(AlreadySigned { key: id });
        }
        self.signatures.push(Signature { key: id, bytes: bytes.into() });
        Ok(id)
    }

    /// What is signed: DSSE's pre-authentication encoding (`protocol.md`, PAE), which gives type and
    /// payload with their lengths, so that bytes cannot move from one to the other.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("DSSEv1 {} {} {} ", self.payload_type.len(), self.payload_type, self.payload.len())
                .into_bytes();
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The envelope as JSON, for a file.
    pub fn to_json(&self) -> String {
        let json = JsonEnvelope {
            payload_type: &self.payload_type,
            payload: STANDARD.encode(&self.payload),
            signatures: self
                .signatures
                .iter()
                .map(|signature| JsonSignature {
                    keyid: signature.key,
                    sig: STANDARD.encode(&signature.bytes),
                })
                .collect(),
        };
        let mut text = serde_json::to_string_pretty(&json).expect("strings and lists always serialise");
        text.push('\n');
        text
    }

    /// What the payload claims to be; nothing if it is of no known kind.
    pub fn kind(&self) -> Option<DocumentKind> {
        DocumentKind::of_payload_type(&self.payload_type)
    }

    /// The type that the payload claims to be of.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload, for whom it is in order to look at something that nobody vouches for yet: a
    /// signer. Everything else asks [`crate::Policy::verify`].
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The digest of the payload.
    pub fn payload_digest(&self) -> Sha256 {
        Sha256::of(&self.payload)
    }

    /// The signatures, none of them checked.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, EnvelopeError> {
    STANDARD.decode(text).map_err(|source| EnvelopeError::Base64 { field: field.to_owned(), source })
}

/// A value read from a JSON object only: serde's derived structs would also be read from an array.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FromMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for FromMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(FromMap(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Envelope {
        let mut envelope = Envelope::of_manifest(b"schema: 1\n".to_vec());
        envelope.sign(&SecretKey::from_seed([1; 32])).unwrap();
        envelope
    }

    #[test]
    fn what_is_signed_is_the_pre_authentication_encoding() {
        // protocol.md's own example.
        let envelope = Envelope {
            payload_type: "http://example.com/HelloWorld".to_owned(),
            payload: b"hello world".to_vec(),
            signatures: vec![],
        };
        assert_eq!(envelope.signed_bytes(), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn an_envelope_reads_back_from_its_json() {
        let envelope = signed();
        assert_eq!(Envelope::parse(envelope.to_json().as_bytes()).unwrap(), envelope);
    }

    #[test]
    fn one_key_signs_once() {
        let mut envelope = signed();
        assert!(envelope.sign(&SecretKey::from_seed([1; 32])).is_err());
        assert!(envelope.sign(&SecretKey::from_seed([2; 32])).is_ok());
        assert_eq!(envelope.signatures().len(), 2);
    }
}
