//! The trust policy: whose word a host takes, for what, and how many of them it wants to hear.
//!
//! Schema 1 knows manifests only: a manifest is authentic when every role reaches its threshold. Schema 2
//! has a rule for each kind of document, a list of alternatives of which one must be filled, each a set of
//! roles; limits what a role may vouch for ([`scope`]); and is itself a signed, versioned document
//! ([`succession`]).
//!
//! [`Policy::parse`] refuses a policy that does not mean what it seems to (`check`): a threshold that cannot
//! be reached, one key under two names, a rule that nobody can fill. Judging signatures is in
//! [`crate::verify`].

mod check;
mod error;
pub mod scope;
pub mod succession;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use error::PolicyError;
use scope::Scope;

use crate::document::DocumentKind;
use crate::key::{KeyId, KeyType, PublicKey};
use crate::log::LogPolicy;
use crate::matching::{self, Seats};
use crate::names::{KeyName, RoleName};
use crate::time::UtcTime;
use crate::yaml;

/// Whose signatures make a document authentic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    schema: PolicySchema,
    #[serde(flatten)]
    edition: Option<Edition>,
    shared_keys: SharedKeys,
    revoked_at_boot: RevokedAtBoot,
    keys: Vec<PolicyKey>,
    roles: Vec<Role>,
    rules: Vec<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transparency: Option<LogPolicy>,
}

/// Which edition of a host's policy this is; schema 2 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Edition {
    /// Grows with each edition; a host refuses a lower one than it has had.
    pub version: u64,
    /// When it was issued.
    pub issued: UtcTime,
}

/// The document as written, before its parts are held against each other.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policy", description = "Whose signatures make a document authentic.")]
pub(crate) struct RawPolicy {
    /// Version of this format.
    schema: PolicySchema,
    /// Grows with each edition; a host refuses a lower one than it has had. Schema 2.
    #[schemars(range(min = 1, max = 9007199254740991_u64))]
    version: Option<u64>,
    /// When this edition was issued. Schema 2.
    issued: Option<UtcTime>,
    /// Whether a key may be in several roles. Schema 2.
    shared_keys: Option<SharedKeys>,
    /// What a boot does with what is applied and was revoked since. Schema 2.
    revoked_at_boot: Option<RevokedAtBoot>,
    /// Every key that a role may name.
    #[schemars(length(min = 1, max = 256))]
    keys: Vec<PolicyKey>,
    /// Who may vouch, and for what. In schema 1 all of them must, for every manifest.
    #[schemars(length(min = 1, max = 32))]
    roles: Vec<RawRole>,
    /// Which roles must sign which kind of document. Schema 2.
    #[schemars(length(min = 1, max = 7))]
    rules: Option<Vec<Rule>>,
    /// The logs of which one must have each manifest, and the witnesses that must have seen it: a C2SP `tlog-policy`.
    /// Left out: manifests need not be logged. Schema 2.
    #[schemars(with = "Option<String>", length(max = 65536))]
    transparency: Option<LogPolicy>,
}

/// The version of the policy format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicySchema {
    /// Manifests only, all roles together, unsigned.
    One,
    /// Rules, scopes, and signed editions.
    Two,
}

impl PolicySchema {
    const fn number(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

impl Serialize for PolicySchema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.number())
    }
}

impl<'de> Deserialize<'de> for PolicySchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            found => Err(de::Error::custom(format_args!(
                "schema {found} is not known to this program: expected 1 or 2"
            ))),
        }
    }
}

impl JsonSchema for PolicySchema {
    fn schema_name() -> Cow<'static, str> {
        "PolicySchema".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": [1, 2] })
    }
}

/// Whether a key may be in several roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SharedKeys {
    /// It may not: the policy is refused.
    #[default]
    Refuse,
    /// It may be, and stands for one of them at a time. So it is in schema 1.
    OneRole,
    /// It may be, and stands for all of them at once.
    EveryRole,
}

/// What a boot does with what is applied and was revoked since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RevokedAtBoot {
    /// It is not loaded again.
    #[default]
    Refuse,
    /// It is loaded, and told as revoked.
    Warn,
}

/// A key that a host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyKey {
    /// What people call it; roles name it by this.
    pub name: KeyName,
    /// The signature algorithm.
    #[serde(rename = "type", default, skip_serializing_if = "KeyType::is_default")]
    pub key_type: KeyType,
    /// The SHA-256 digest of its raw bytes; checked against `public`.
    pub id: KeyId,
    /// The public key: for Ed25519, 32 bytes in base64 or hexadecimal.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Role {
    /// What it is called.
    pub name: RoleName,
    /// The keys that may vouch.
    pub keys: Vec<KeyName>,
    /// How many of them must; 1 or more.
    pub threshold: u32,
    /// What it may vouch for; in schema 1 everything.
    #[serde(skip_serializing_if = "Scope::is_everything")]
    pub scope: Scope,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "Role",
    description = "Something that must be vouched for, such as `build` or `security-review`."
)]
struct RawRole {
    /// What it is called.
    name: RoleName,
    /// The keys that may vouch.
    #[schemars(length(min = 1))]
    keys: Vec<KeyName>,
    /// How many of them must; 1 or more.
    #[schemars(range(min = 1))]
    threshold: u32,
    /// What it may vouch for. Schema 2; left out: everything but programs on the host.
    scope: Option<Scope>,
}

impl RawRole {
    fn with(self, default: fn() -> Scope) -> Role {
        let Self { name, keys, threshold, scope } = self;
        Role { name, keys, threshold, scope: scope.unwrap_or_else(default) }
    }
}

/// Who must sign a kind of document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The kind of document.
    pub document: DocumentKind,
    /// Sets of roles, of which one must be complete: every role of it at its threshold.
    #[schemars(length(min = 1, max = 16))]
    pub any_of: Vec<Vec<RoleName>>,
}

impl Policy {
    /// The most bytes that a policy may have.
    pub const MAX_BYTES: usize = DocumentKind::Policy.max_bytes();

    /// Reads a policy from YAML, and checks that it means something.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let raw: RawPolicy = yaml::from_slice(bytes, Self::MAX_BYTES)?;
        let policy = match raw.schema {
            PolicySchema::One => Self::of_schema_1(raw)?,
            PolicySchema::Two => Self::of_schema_2(raw)?,
        };
        policy.check()?;
        Ok(policy)
    }

    fn of_schema_1(raw: RawPolicy) -> Result<Self, PolicyError> {
        let given = [
            ("version", raw.version.is_some()),
            ("issued", raw.issued.is_some()),
            ("shared_keys", raw.shared_keys.is_some()),
            ("revoked_at_boot", raw.revoked_at_boot.is_some()),
            ("rules", raw.rules.is_some()),
            ("transparency", raw.transparency.is_some()),
            ("scope", raw.roles.iter().any(|role| role.scope.is_some())),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(PolicyError::NotInSchema1 { field });
        }
        let roles: Vec<Role> = raw.roles.into_iter().map(|role| role.with(Scope::everything)).collect();
        let all = roles.iter().map(|role| role.name.clone()).collect();
        Ok(Self {
            schema: raw.schema,
            edition: None,
            shared_keys: SharedKeys::OneRole,
            revoked_at_boot: RevokedAtBoot::default(),
            keys: raw.keys,
            roles,
            rules: vec![Rule { document: DocumentKind::Manifest, any_of: vec![all] }],
            transparency: None,
        })
    }

    fn of_schema_2(raw: RawPolicy) -> Result<Self, PolicyError> {
        let missing = |field| PolicyError::Missing { field };
        let version = raw.version.ok_or(missing("version"))?;
        let issued = raw.issued.ok_or(missing("issued"))?;
        Ok(Self {
            schema: raw.schema,
            edition: Some(Edition { version, issued }),
            shared_keys: raw.shared_keys.unwrap_or_default(),
            revoked_at_boot: raw.revoked_at_boot.unwrap_or_default(),
            keys: raw.keys,
            roles: raw.roles.into_iter().map(|role| role.with(Scope::default)).collect(),
            rules: raw.rules.ok_or(missing("rules"))?,
            transparency: raw.transparency,
        })
    }

    /// The version of the format that it is written in.
    pub fn schema(&self) -> PolicySchema {
        self.schema
    }

    /// Which edition this is; nothing in schema 1.
    pub fn edition(&self) -> Option<Edition> {
        self.edition
    }

    /// Whether a key may be in several roles.
    pub fn shared_keys(&self) -> SharedKeys {
        self.shared_keys
    }

    /// What a boot does with what is applied and was revoked since.
    pub fn revoked_at_boot(&self) -> RevokedAtBoot {
        self.revoked_at_boot
    }

    /// Every key, as written.
    pub fn keys(&self) -> &[PolicyKey] {
        &self.keys
    }

    /// Every role, as written.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The rule of each kind of document that somebody may sign.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The logs of which one must have each manifest, and the witnesses that must have seen it; nothing if none need.
    pub fn transparency(&self) -> Option<&LogPolicy> {
        self.transparency.as_ref()
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<&PolicyKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Whether a document of this kind could be authentic at `now`, if every key still in force signs.
    pub fn fillable_at(&self, kind: DocumentKind, now: UtcTime) -> bool {
        self.alternatives(kind).any(|roles| self.lacking(&roles, now).is_empty())
    }

    /// The roles that cannot be filled at `now`, if every key still in force signs, and how many
    /// signatures each lacks then, for the alternative that is nearest to a manifest.
    pub fn lacking_at(&self, now: UtcTime) -> Vec<(&Role, u32)> {
        let all = self.alternatives(DocumentKind::Manifest).map(|roles| self.lacking(&roles, now));
        all.min_by_key(|lacking| lacking.iter().map(|(_, missing)| *missing).sum::<u32>()).unwrap_or_default()
    }

    fn lacking<'p>(&self, roles: &[&'p Role], now: UtcTime) -> Vec<(&'p Role, u32)> {
        let seated = self.seat(roles, |key| key.counts_at(now));
        let missing = |(role, seated): (&&'p Role, &Vec<usize>)| {
            (*role, role.threshold.saturating_sub(seated.len() as u32))
        };
        roles.iter().zip(&seated).map(missing).filter(|(_, missing)| *missing > 0).collect()
    }

    /// The sets of roles of which one must sign a document of this kind. None: nobody can.
    pub(crate) fn alternatives(&self, kind: DocumentKind) -> impl Iterator<Item = Vec<&Role>> {
        let rule = self.rules.iter().find(move |rule| rule.document == kind);
        let named = |names: &Vec<RoleName>| {
            // Every name was found when the policy was checked.
            names.iter().filter_map(|name| self.roles.iter().find(|role| role.name == *name)).collect()
        };
        rule.into_iter().flat_map(|rule| &rule.any_of).map(named)
    }

    fn key_index(&self, name: &KeyName) -> Option<usize> {
        self.keys.iter().position(|key| key.name == *name)
    }

    /// Puts the keys that `present` accepts into the roles' seats, so that as many seats as possible are
    /// taken; each key into one seat at most, unless keys stand for every role. One list of key indices per
    /// role.
    pub(crate) fn seat(&self, roles: &[&Role], present: impl Fn(&PolicyKey) -> bool) -> Vec<Vec<usize>> {
        let seats: Vec<Seats> = roles
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
        match self.shared_keys {
            SharedKeys::Refuse | SharedKeys::OneRole => matching::assign(&seats, self.keys.len()),
            SharedKeys::EveryRole => {
                let alone = |seats: Seats| seats.eligible.into_iter().take(seats.count).collect();
                seats.into_iter().map(alone).collect()
            }
        }
    }
}

impl PolicyKey {
    /// Whether its signatures count at `now`, as far as the key is concerned.
    pub fn counts_at(&self, now: UtcTime) -> bool {
        self.revoked.is_none_or(|from| now < from) && self.not_after.is_none_or(|last| now <= last)
    }
}
