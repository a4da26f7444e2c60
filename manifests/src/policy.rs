//! The trust policy: whose word a host takes, and how many of them it wants to hear.
//!
//! A manifest is authentic when every role has as many signatures as its threshold, by keys that
//! the role lists, each key standing for one role only. [`Policy::parse`] refuses a policy that
//! does not mean what it seems to (a threshold that cannot be reached, one key under two names).
//! Judging signatures is in [`crate::verify`].

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::DocumentKind;
use crate::key::{KeyId, PublicKey};
use crate::matching::{self, Seats};
use crate::names::{KeyName, RoleName};
use crate::schema::SchemaVersion;
use crate::time::UtcTime;
use crate::yaml::{self, YamlError};

/// Whose signatures make a manifest authentic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    schema: SchemaVersion,
    keys: Vec<PolicyKey>,
    roles: Vec<Role>,
}

/// The document as written, before its parts are held against each other.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policy", description = "Whose signatures make a manifest authentic.")]
pub(crate) struct RawPolicy {
    /// Version of this format; always 1.
    schema: SchemaVersion,
    /// Every key that a role may name.
    #[schemars(length(min = 1, max = 256))]
    keys: Vec<PolicyKey>,
    /// What must be vouched for; all of them must be satisfied.
    #[schemars(length(min = 1, max = 32))]
    roles: Vec<Role>,
}

/// A key that a host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyKey {
    /// What people call it; roles name it by this.
    pub name: KeyName,
    /// The SHA-256 digest of its 32 raw bytes; checked against `public`.
    pub id: KeyId,
    /// The Ed25519 public key: 32 bytes in base64 or hexadecimal.
    #[schemars(with = "String")]
    pub public: PublicKey,
    /// After this time, its signatures no longer count, whenever they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<UtcTime>,
    /// From this time on, its signatures do not count, whenever they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<UtcTime>,
}

/// Something that must be vouched for, such as `build` or `security-review`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What it is called.
    pub name: RoleName,
    /// The keys that may vouch.
    #[schemars(length(min = 1))]
    pub keys: Vec<KeyName>,
    /// How many of them must; 1 or more.
    #[schemars(range(min = 1))]
    pub threshold: u32,
}

/// Why a document is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The YAML is outside of the strict form, or does not follow the schema.
    #[error("the policy cannot be read")]
    Yaml(#[from] YamlError),
    /// A list is empty or too long.
    #[error("{field}: expected 1 to {max} entries, found {found}")]
    Count {
        /// The list.
        field: &'static str,
        /// The most allowed.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// An id belongs to another key.
    #[error("key {key}: expected id {expected}, found {found}")]
    WrongId {
        /// The key's name.
        key: KeyName,
        /// The digest of its public key.
        expected: KeyId,
        /// What the policy says.
        found: KeyId,
    },
    /// Two keys have one name.
    #[error("keys: expected each name once, found {key} twice")]
    NameTwice {
        /// The name.
        key: KeyName,
    },
    /// One key has two names, and could seem to be two people.
    #[error("keys: expected each public key once, found one as {first} and as {second}")]
    KeyTwice {
        /// Its first name.
        first: KeyName,
        /// Its second name.
        second: KeyName,
    },
    /// Two roles have one name.
    #[error("roles: expected each name once, found {role} twice")]
    RoleTwice {
        /// The name.
        role: RoleName,
    },
    /// A role names a key that is not there.
    #[error("role {role}: expected the name of a key of this policy, found {key}")]
    UnknownKey {
        /// The role.
        role: RoleName,
        /// The name.
        key: KeyName,
    },
    /// A role names a key twice.
    #[error("role {role}: expected each key once, found {key} twice")]
    RoleKeyTwice {
        /// The role.
        role: RoleName,
        /// The key.
        key: KeyName,
    },
    /// A threshold is 0 (everybody would be believed) or more than the role has keys.
    #[error("role {role}: expected a threshold from 1 to its {keys} keys, found {threshold}")]
    Threshold {
        /// The role.
        role: RoleName,
        /// How many keys it has.
        keys: usize,
        /// What the policy asks.
        threshold: u32,
    },
    /// Each role could be satisfied alone, and not all of them together with a key for each signature.
    #[error("roles: expected enough distinct keys for all thresholds together ({needed}), found {reachable}")]
    TooFewKeys {
        /// Signatures that all roles together ask.
        needed: usize,
        /// How many of them distinct keys can give at best.
        reachable: usize,
    },
}

impl Policy {
    /// The most bytes that a policy may have.
    pub const MAX_BYTES: usize = DocumentKind::Policy.max_bytes();
    /// The most keys and roles.
    const MAX_KEYS: usize = 256;
    const MAX_ROLES: usize = 32;

    /// Reads a policy from YAML, and checks that it means something.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let RawPolicy { schema, keys, roles } = yaml::from_slice(bytes, Self::MAX_BYTES)?;
        let policy = Self { schema, keys, roles };
        policy.check_keys()?;
        policy.check_roles()?;
        Ok(policy)
    }

    fn check_keys(&self) -> Result<(), PolicyError> {
        count("keys", self.keys.len(), Self::MAX_KEYS)?;
        let mut names = BTreeSet::new();
        let mut ids: BTreeMap<KeyId, &KeyName> = BTreeMap::new();
        for key in &self.keys {
            let expected = key.public.id();
            if key.id != expected {
                return Err(PolicyError::WrongId { key: key.name.clone(), expected, found: key.id });
            }
            if !names.insert(&key.name) {
                return Err(PolicyError::NameTwice { key: key.name.clone() });
            }
            if let Some(first) = ids.insert(key.id, &key.name) {
                return Err(PolicyError::KeyTwice { first: first.clone(), second: key.name.clone() });
            }
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<(), PolicyError> {
        count("roles", self.roles.len(), Self::MAX_ROLES)?;
        let mut names = BTreeSet::new();
        for Role { name, keys, threshold } in &self.roles {
            if !names.insert(name) {
                return Err(PolicyError::RoleTwice { role: name.clone() });
            }
            let mut own = BTreeSet::new();
            for key in keys {
                if self.key_index(key).is_none() {
                    return Err(PolicyError::UnknownKey { role: name.clone(), key: key.clone() });
                }
                if !own.insert(key) {
                    return Err(PolicyError::RoleKeyTwice { role: name.clone(), key: key.clone() });
                }
            }
            if *threshold == 0 || *threshold as usize > keys.len() {
                return Err(PolicyError::Threshold {
                    role: name.clone(),
                    keys: keys.len(),
                    threshold: *threshold,
                });
            }
        }
        let all: Vec<&Role> = self.roles.iter().collect();
        let needed = self.roles.iter().map(|role| role.threshold as usize).sum();
        let reachable = self.seat(&all, |_| true).iter().map(Vec::len).sum();
        if reachable < needed { Err(PolicyError::TooFewKeys { needed, reachable }) } else { Ok(()) }
    }

    /// Every key, as written.
    pub fn keys(&self) -> &[PolicyKey] {
        &self.keys
    }

    /// Every role, as written.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<&PolicyKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The roles that cannot be filled at `now`, if every key still in force signs, and how many
    /// signatures each lacks then. Not empty means that no manifest can be authentic.
    pub fn lacking_at(&self, now: UtcTime) -> Vec<(&Role, u32)> {
        let all: Vec<&Role> = self.roles.iter().collect();
        let seated = self.seat(&all, |key| key.counts_at(now));
        let lacking = |(role, seated): (_, &Vec<usize>)| {
            let role: &Role = role;
            let missing = role.threshold.saturating_sub(seated.len() as u32);
            (missing > 0).then_some((role, missing))
        };
        self.roles.iter().zip(&seated).filter_map(lacking).collect()
    }

    fn key_index(&self, name: &KeyName) -> Option<usize> {
        self.keys.iter().position(|key| key.name == *name)
    }

    /// The sets of roles of which one must sign a document of this kind. None: nobody can.
    pub(crate) fn alternatives(&self, kind: DocumentKind) -> impl Iterator<Item = Vec<&Role>> {
        // Schema 1 knows manifests only, and all of its roles must sign.
        (kind == DocumentKind::Manifest).then(|| self.roles.iter().collect()).into_iter()
    }

    /// Puts the keys that `present` accepts into the roles' seats, each key into one seat at most,
    /// so that as many seats as possible are taken. One list of key indices per role.
    pub(crate) fn seat(&self, roles: &[&Role], present: impl Fn(&PolicyKey) -> bool) -> Vec<Vec<usize>> {
        let roles: Vec<Seats> = roles
            .iter()
            .map(|role| Seats {
                count: role.threshold as usize,
                eligible: role
                    .keys
                    .iter()
                    .filter_map(|name| self.key_index(name))
                    .filter(|index| present(&self.keys[*index]))
                    .collect(),
            })
            .collect();
        matching::assign(&roles, self.keys.len())
    }
}

impl PolicyKey {
    /// Whether its signatures count at `now`, as far as the key is concerned.
    pub fn counts_at(&self, now: UtcTime) -> bool {
        self.revoked.is_none_or(|from| now < from) && self.not_after.is_none_or(|last| now <= last)
    }
}

fn count(field: &'static str, found: usize, max: usize) -> Result<(), PolicyError> {
    if (1..=max).contains(&found) { Ok(()) } else { Err(PolicyError::Count { field, max, found }) }
}
