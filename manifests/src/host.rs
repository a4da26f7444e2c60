//! Which host of a fleet is meant, and what its place in a rollout is.
//!
//! A host is known by its key and by nothing that it, or a controller, could choose freely: names and machine
//! ids are labels. From the same id and a rollout's digest everybody computes the same [`Share`], so that a
//! host knows by itself how early it may be asked, whatever a controller says.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::digest::Sha256;
use crate::names::NameError;
use crate::scalar::as_string;

/// A host's id: the SHA-256 digest of its public key as a `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(Sha256);

impl HostId {
    /// The id that is this digest.
    pub const fn new(digest: Sha256) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn digest(self) -> Sha256 {
        self.0
    }
}

as_string!(HostId);

impl FromStr for HostId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({self})")
    }
}

impl JsonSchema for HostId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostId".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Sha256::json_schema(generator);
        schema.insert("description".into(), "A host: the SHA-256 digest of its public key.".into());
        schema
    }
}

/// A number that a host's executor made for one attempt, and that no grant but the one for it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// The nonce with these bytes, which must not have been used before.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

as_string!(Nonce);

impl FromStr for Nonce {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut bytes = [0; 16];
        let lower = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        match lower && hex::decode_to_slice(text, &mut bytes).is_ok() {
            true => Ok(Self(bytes)),
            false => Err(NameError::new("nonce", "32 digits of 0-9, a-f", text)),
        }
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

impl JsonSchema for Nonce {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Nonce".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{32}$", "description": "128 bits, used once." })
    }
}

/// A host's place in one rollout, as a part of 2^64: uniform over any set of hosts that was chosen without
/// knowing the rollout, and another one in each rollout, so that it is not always the same hosts that go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u64);

impl Share {
    /// In these parts a schedule counts.
    pub const WHOLE: u32 = 1_000_000;

    /// The first 8 bytes, big-endian, of SHA-256 over the rollout's digest and the host's id, 32 bytes each.
    pub fn of(rollout: Sha256, host: HostId) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(rollout.as_bytes());
        bytes[32..].copy_from_slice(host.0.as_bytes());
        let digest = Sha256::of(&bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        Self(u64::from_be_bytes(first))
    }

    /// Whether it lies in the first `millionths` of a fleet.
    pub fn is_within(self, millionths: u32) -> bool {
        u128::from(self.0) * u128::from(Self::WHOLE) < u128::from(millionths) << 64
    }

    /// The least number of millionths within which it lies; 1 to [`Share::WHOLE`].
    pub fn millionths(self) -> u32 {
        // Below WHOLE, since the share is below 2^64.
        (((u128::from(self.0) * u128::from(Self::WHOLE)) >> 64) + 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lies_within_its_own_millionths_and_not_within_fewer() {
        for (share, millionths) in [(0, 1), (u64::MAX, 1_000_000), (u64::MAX / 2, 500_000)] {
            let share = Share(share);
            assert_eq!(share.millionths(), millionths);
            assert!(share.is_within(millionths) && !share.is_within(millionths - 1));
        }
    }

    #[test]
    fn a_share_is_of_the_rollout_and_of_the_host() {
        let (one, two) = (Sha256::of(b"1"), Sha256::of(b"2"));
        assert_ne!(Share::of(one, HostId::new(two)), Share::of(two, HostId::new(one)));
        // By Python's hashlib: sha256(sha256(b"1").digest() + sha256(b"2").digest()).
        assert_eq!(Share::of(one, HostId::new(two)), Share(0x4295f72eeb1e3507));
    }
}
