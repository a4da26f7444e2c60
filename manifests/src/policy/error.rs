//! Why a document is not a policy.

use crate::document::DocumentKind;
use crate::key::KeyId;
use crate::names::{KeyName, RoleName};
use crate::yaml::YamlError;

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
    /// A part of schema 2 in a policy of schema 1.
    #[error("{field}: expected in schema 2 only, found it in schema 1")]
    NotInSchema1 {
        /// The field.
        field: &'static str,
    },
    /// A part that schema 2 asks for is missing.
    #[error("{field}: expected in schema 2, found nothing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A version outside of its limits.
    #[error("version: expected 1 to {max}, found {found}")]
    Version {
        /// The largest allowed.
        max: u64,
        /// What it is.
        found: u64,
    },
    /// Only a versioned policy can be signed.
    #[error("schema: expected 2 in a signed policy, found 1")]
    NotVersioned,
    /// A scope limits a role to nothing, or to too much to be told.
    #[error(
        "role {role}: scope.{field}: expected 1 to {max} entries (leave it out for no limit), found {found}"
    )]
    Scope {
        /// The role.
        role: RoleName,
        /// The list.
        field: &'static str,
        /// The most allowed.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// A key is in two roles, and the policy does not say that it may be.
    #[error(
        "roles: expected each key in one role (or shared_keys to say otherwise), found {key} in {first} and {second}"
    )]
    KeyInTwoRoles {
        /// The key.
        key: KeyName,
        /// The one role.
        first: RoleName,
        /// The other.
        second: RoleName,
    },
    /// Two rules are for one kind of document.
    #[error("rules: expected one for each kind of document, found two for {document}")]
    RuleTwice {
        /// The kind.
        document: DocumentKind,
    },
    /// Nobody could replace the policy.
    #[error("rules: expected one for {document} documents, found none")]
    NoRule {
        /// The kind.
        document: DocumentKind,
    },
    /// A rule names a role that is not there, or names it twice.
    #[error("rule for {document}: expected each alternative to name roles of this policy once, found {role}")]
    RuleRole {
        /// The kind of document.
        document: DocumentKind,
        /// The name.
        role: RoleName,
    },
    /// A role that is limited could sign itself free of its limits.
    #[error("rule for {document}: expected roles without limits in their scope, found {role}")]
    ScopedRole {
        /// The kind of document.
        document: DocumentKind,
        /// The role.
        role: RoleName,
    },
    /// An alternative that nobody can fill, even if every key that still counts signs.
    #[error(
        "rule for {document}: expected enough distinct keys for {} together ({needed}), found {reachable}",
        roles.iter().map(RoleName::as_str).collect::<Vec<_>>().join(", ")
    )]
    Unsatisfiable {
        /// The kind of document.
        document: DocumentKind,
        /// The roles.
        roles: Vec<RoleName>,
        /// Signatures that they need together.
        needed: usize,
        /// How many of them can be given at best.
        reachable: usize,
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
