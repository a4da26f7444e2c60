//! Digests and build ids: what identifies bytes.
//!
//! Invariant: written as lowercase hexadecimal, and only so, that one digest has one spelling.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sha2::Digest;

use crate::names::NameError;
use crate::scalar::as_string;

/// A SHA-256 digest (FIPS 180-4), written as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

as_string!(Sha256);

impl FromStr for Sha256 {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut bytes = [0; 32];
        match is_lower_hex(text) && hex::decode_to_slice(text, &mut bytes).is_ok() {
            true => Ok(Self(bytes)),
            false => Err(NameError::new("SHA-256 digest", "64 digits of 0-9, a-f", text)),
        }
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl JsonSchema for Sha256 {
    fn schema_name() -> Cow<'static, str> {
        "Sha256".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "A SHA-256 digest: 64 digits of 0-9, a-f." })
    }
}

/// The digest of an image's configuration or manifest, as container engines and OCI documents write it: `sha256:` and 64
/// digits (OCI image-spec, `descriptor.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageDigest(Sha256);

impl ImageDigest {
    /// The digest itself.
    pub const fn sha256(&self) -> &Sha256 {
        &self.0
    }
}

impl From<Sha256> for ImageDigest {
    fn from(digest: Sha256) -> Self {
        Self(digest)
    }
}

as_string!(ImageDigest);

impl FromStr for ImageDigest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digest = text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        let rule = "sha256: and 64 digits of 0-9, a-f";
        digest.map(Self).ok_or_else(|| NameError::new("digest of an image", rule, text))
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("sha256:{}", self.0))
    }
}

impl JsonSchema for ImageDigest {
    fn schema_name() -> Cow<'static, str> {
        "ImageDigest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-f]{64}$", "description": "A digest of an image: sha256: and 64 digits of 0-9, a-f." })
    }
}

/// The content of an ELF file's `NT_GNU_BUILD_ID` note: 8 to 32 bytes, usually 20.
///
/// Linkers write 8 (`--build-id=fast`), 16, 20 or as many as the user gives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// A build id from the note's description bytes; `None` unless there are 8 to 32 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (8..=32).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// The bytes of the note's description.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

as_string!(BuildId);

impl FromStr for BuildId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        is_lower_hex(text)
            .then(|| hex::decode(text).ok())
            .flatten()
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or_else(|| NameError::new("build id", "an even number of 16 to 64 digits of 0-9, a-f", text))
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

impl JsonSchema for BuildId {
    fn schema_name() -> Cow<'static, str> {
        "BuildId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9a-f]{2}){8,32}$", "description": "A GNU build id: 16 to 64 digits of 0-9, a-f." })
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = Sha256::of(b"abc");
        // FIPS 180-4, example B.1.
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Sha256>(), Ok(digest));
        assert!(digest.to_string().to_uppercase().parse::<Sha256>().is_err());
        assert!(digest.to_string()[2..].parse::<Sha256>().is_err());
    }

    #[test]
    fn a_digest_of_an_image_says_its_algorithm() {
        let text = format!("sha256:{}", Sha256::of(b"abc"));
        assert_eq!(text.parse::<ImageDigest>().unwrap().to_string(), text);
        for bad in [&text[7..], "sha256:", "sha512:00", &text.to_uppercase(), &text[..70]] {
            assert!(bad.parse::<ImageDigest>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn build_ids_have_8_to_32_bytes() {
        assert!("0123456789abcdef".parse::<BuildId>().is_ok());
        assert!("0123456789abcde".parse::<BuildId>().is_err());
        assert!("0123456789abcd".parse::<BuildId>().is_err());
        assert!("00".repeat(33).parse::<BuildId>().is_err());
    }
}
