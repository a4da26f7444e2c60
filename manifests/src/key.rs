//! Ed25519 keys (RFC 8032): signing, strict verification, and how keys are written.
//!
//! Invariants: a [`PublicKey`] is a canonical encoding of a point that is not of small order, so
//! that one key has one [`KeyId`]; a [`SecretKey`] never shows itself and is wiped when dropped.
//! Where key files lie and who may read them is the caller's concern.

mod encrypted;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::names::{KeyName, NameError};
use crate::scalar::as_string;
use crate::yaml::{self, YamlError};

/// What a key is known by: the SHA-256 digest of its 32 raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KeyId(Sha256);

impl KeyId {
    /// The digest.
    pub const fn digest(&self) -> &Sha256 {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self).map_err(|error: NameError| NameError { what: "key id", ..error })
    }
}

/// A signature algorithm. There is one; a key of another kind is refused by name, never misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// Ed25519 (RFC 8032).
    #[default]
    Ed25519,
}

impl KeyType {
    /// How long a signature is.
    pub const fn signature_bytes(self) -> usize {
        match self {
            Self::Ed25519 => 64,
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Why bytes are not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in base64 or hexadecimal.
    #[error(
        "not a public key: expected 32 bytes as 44 characters of base64 or 64 of hexadecimal, found {found:?}"
    )]
    NotAPublicKey {
        /// What was given, cut to its first 80 characters.
        found: String,
    },
    /// The bytes are not the canonical encoding of a point on the curve.
    #[error("not a public key: expected the canonical encoding of a curve point, found {found}")]
    NotAPoint {
        /// The bytes in hexadecimal.
        found: String,
    },
    /// Signatures under this key prove nothing.
    #[error("weak public key: expected a point of large order, found {found}")]
    Weak {
        /// The bytes in hexadecimal.
        found: String,
    },
    /// The key is under a passphrase.
    #[error("the private key is encrypted: expected its passphrase, found none")]
    Encrypted,
    /// It is another passphrase, or the file is damaged.
    #[error(
        "the private key does not open: expected its passphrase, found another one, or the file is damaged"
    )]
    Passphrase,
    /// Everybody knows the empty passphrase.
    #[error("expected a passphrase, found an empty one")]
    EmptyPassphrase,
    /// The key could not be encrypted.
    #[error("the private key was not encrypted: {problem}")]
    NotEncrypted {
        /// Why.
        problem: String,
    },
    /// Not a PEM file with an Ed25519 private key.
    #[error(
        "not a private key: expected Ed25519 in PKCS#8 PEM (-----BEGIN PRIVATE KEY-----), found {problem}"
    )]
    NotAPrivateKey {
        /// What is wrong with it; never any of its content.
        problem: String,
    },
}

/// A key that can check signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// A key from its 32 raw bytes (RFC 8032, 5.1.5).
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let found = || hex::encode(bytes);
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint { found: found() })?;
        // A second encoding of the same point would be a second id for one key.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotAPoint { found: found() });
        }
        if key.is_weak() { Err(KeyError::Weak { found: found() }) } else { Ok(Self(key)) }
    }

    /// The 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// What the key is known by.
    pub fn id(&self) -> KeyId {
        KeyId(Sha256::of(self.as_bytes()))
    }

    /// The signature algorithm.
    pub fn key_type(&self) -> KeyType {
        KeyType::Ed25519
    }

    /// Whether `signature` is this key's over `message`, by the strict rules: no key of small
    /// order, no second form of a signature, no other length than the key's type has.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = ed25519_dalek::Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

as_string!(PublicKey);

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        let read = match text.len() {
            64 => hex::decode_to_slice(text, &mut bytes).is_ok(),
            44 => STANDARD
                .decode(text)
                .ok()
                .and_then(|raw| raw.try_into().ok())
                .map(|raw| bytes = raw)
                .is_some(),
            _ => false,
        };
        match read {
            true => Self::from_bytes(&bytes),
            false => Err(KeyError::NotAPublicKey { found: text.chars().take(80).collect() }),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A key that can sign.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the operating system's random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed)?;
        Ok(Self::from_seed(*seed))
    }

    /// The key of a 32-byte seed (RFC 8032, 5.1.5, "private key").
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads PKCS#8 in PEM (RFC 8410), with or without the public key in it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if Self::is_encrypted(text) {
            return Err(KeyError::Encrypted);
        }
        SigningKey::from_pkcs8_pem(text.trim())
            .map(Self)
            .map_err(|error| KeyError::NotAPrivateKey { problem: error.to_string() })
    }

    /// Writes PKCS#8 version 1 in PEM (RFC 8410), which OpenSSL reads, too.
    pub fn to_pem(&self) -> zeroize::Zeroizing<String> {
        let pair = ed25519_dalek::pkcs8::KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF).expect("32 bytes always fit into PKCS#8")
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public().id())
    }
}

/// A public key file: a key, its id and what people call it. The same three fields stand in a
/// trust policy, so a file's text can be pasted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKeyFile {
    /// What people call it.
    pub name: KeyName,
    /// What it is known by; checked against `public`.
    pub id: KeyId,
    /// The key.
    pub public: PublicKey,
}

/// Why a public key file was not read.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyFileError {
    /// Not the three fields.
    #[error("the public key file cannot be read")]
    Yaml(#[from] YamlError),
    /// The id belongs to another key.
    #[error("the id is not the key's: expected {expected}, found {found}")]
    WrongId {
        /// The id of the key in the file.
        expected: KeyId,
        /// The id that the file gives.
        found: KeyId,
    },
}

impl PublicKeyFile {
    /// The most bytes that such a file may have.
    pub const MAX_BYTES: usize = 4096;

    /// The file of a key.
    pub fn new(name: KeyName, public: PublicKey) -> Self {
        Self { name, id: public.id(), public }
    }

    /// Reads a public key file.
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicKeyFileError> {
        let file: Self = yaml::from_slice(bytes, Self::MAX_BYTES)?;
        let expected = file.public.id();
        match file.id == expected {
            true => Ok(file),
            false => Err(PublicKeyFileError::WrongId { expected, found: file.id }),
        }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        format!("name: {}\nid: {}\npublic: {}\n", self.name, self.id, self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, TEST 2.
    #[test]
    fn signs_as_rfc_8032_says() {
        let mut seed = [0; 32];
        hex::decode_to_slice("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", &mut seed)
            .unwrap();
        let key = SecretKey::from_seed(seed);
        assert_eq!(
            hex::encode(key.public().as_bytes()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = key.sign(&[0x72]);
        assert_eq!(
            hex::encode(signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(key.public().verifies(&[0x72], &signature));
        assert!(!key.public().verifies(&[0x73], &signature));
    }

    #[test]
    fn a_private_key_reads_back_from_its_pem() {
        let key = SecretKey::from_seed([7; 32]);
        let pem = key.to_pem();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(SecretKey::from_pem(&pem).unwrap().public(), key.public());
        assert!(SecretKey::from_pem(&pem[..pem.len() - 30]).is_err());
        assert!(SecretKey::from_pem("").is_err());
    }

    #[test]
    fn a_private_key_does_not_show_itself() {
        let seed = [7; 32];
        assert!(!format!("{:?}", SecretKey::from_seed(seed)).contains(&hex::encode(seed)));
    }

    #[test]
    fn weak_and_second_encodings_are_no_keys() {
        // The identity (y = 1) has order 1; p + 1 is a second encoding of it; y = 2 is off the curve.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(matches!(PublicKey::from_bytes(&identity), Err(KeyError::Weak { .. })));
        let mut second = [0xff; 32];
        (second[0], second[31]) = (0xee, 0x7f);
        assert!(matches!(PublicKey::from_bytes(&second), Err(KeyError::NotAPoint { .. })));
        let mut off = [0; 32];
        off[0] = 2;
        assert!(matches!(PublicKey::from_bytes(&off), Err(KeyError::NotAPoint { .. })));
    }

    #[test]
    fn a_public_key_is_written_in_base64_or_hexadecimal() {
        let key = SecretKey::from_seed([7; 32]).public();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        assert_eq!(hex::encode(key.as_bytes()).parse::<PublicKey>().unwrap(), key);
        for bad in ["", "abc", &key.to_string()[1..], &format!("{key}=")] {
            assert!(
                matches!(bad.parse::<PublicKey>(), Err(KeyError::NotAPublicKey { .. })),
                "{bad:?} was taken"
            );
        }
    }

    #[test]
    fn a_public_key_file_with_the_id_of_another_key_is_refused() {
        let file = PublicKeyFile::new("build".parse().unwrap(), SecretKey::from_seed([7; 32]).public());
        assert_eq!(PublicKeyFile::parse(file.to_text().as_bytes()).unwrap(), file);
        let other = PublicKeyFile { id: SecretKey::from_seed([8; 32]).public().id(), ..file };
        assert!(matches!(
            PublicKeyFile::parse(other.to_text().as_bytes()),
            Err(PublicKeyFileError::WrongId { .. })
        ));
    }
}
