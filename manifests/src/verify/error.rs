//! Why a document does not count: every refusal with its own words.

use crate::digest::Sha256;
use crate::document::DocumentKind;
use crate::key::KeyId;
use crate::log::LogRefusal;
use crate::names::{FileName, KeyName, RoleName};
use crate::policy::scope::Excess;
use crate::time::UtcTime;

/// Why an envelope is not an authentic, timely document. Every refusal has its own variant.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The payload is something else than what was asked for.
    #[error("the signed payload is not a {kind}")]
    PayloadType {
        /// What it should be.
        kind: DocumentKind,
        /// Its type.
        found: String,
    },
    /// The policy lets nobody sign such a document.
    #[error("the policy lets nobody sign a {kind}")]
    NoRule {
        /// The kind of document.
        kind: DocumentKind,
    },
    /// There is no signature.
    #[error("the {kind} is not signed")]
    Unsigned {
        /// What it is.
        kind: DocumentKind,
        /// How many signatures the policy asks, over all roles.
        needed: u32,
    },
    /// A signature that claims a known key is not that key's over these bytes.
    #[error("a signature does not hold: the {kind} or the signature was changed")]
    BadSignature {
        /// What is signed.
        kind: DocumentKind,
        /// The key.
        key: KeyName,
        /// Its id.
        id: KeyId,
    },
    /// No signature is by a key of the policy.
    #[error("no signature is by a key of this policy")]
    UnknownSigners {
        /// The ids that the signatures claim.
        found: Vec<KeyId>,
    },
    /// A role lacks what a revoked key has signed.
    #[error("a key that signed is revoked")]
    KeyRevoked {
        /// The key.
        key: KeyName,
        /// Since when.
        since: UtcTime,
    },
    /// A role lacks what a key past its time has signed.
    #[error("a key that signed is past its time")]
    KeyExpired {
        /// The key.
        key: KeyName,
        /// The last second at which it counted.
        not_after: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// Each role has enough signatures, and one key would have to stand for two roles.
    #[error("one key cannot sign for two roles")]
    OneKeyForTwoRoles {
        /// The keys that signed.
        keys: Vec<KeyName>,
        /// The roles that they would all have to fill.
        roles: Vec<RoleName>,
        /// How many signatures those roles need together.
        needed: u32,
    },
    /// A role has too few signatures.
    #[error("role {role} has too few signatures")]
    Threshold {
        /// The role.
        role: RoleName,
        /// How many it needs.
        threshold: u32,
        /// The keys that signed for it.
        signed: Vec<KeyName>,
    },
    /// The roles that signed may not vouch for what stands in it.
    #[error("role {role} may not vouch for this {kind}")]
    ScopeExceeded {
        /// What it is.
        kind: DocumentKind,
        /// The role.
        role: RoleName,
        /// How it goes beyond the role's scope.
        excess: Excess,
    },
    /// A signed revocation names the manifest.
    #[error("the manifest is revoked")]
    ManifestRevoked {
        /// The digest of its bytes.
        digest: Sha256,
        /// Since when.
        since: UtcTime,
    },
    /// A signed revocation names one of its payloads.
    #[error("a payload of the manifest is revoked")]
    PayloadRevoked {
        /// The file.
        file: FileName,
        /// Its digest.
        sha256: Sha256,
        /// Since when.
        since: UtcTime,
    },
    /// It is not in a log as the policy wants it.
    #[error(transparent)]
    NotLogged(#[from] LogRefusal),
    /// The signed bytes are not such a document.
    #[error("the signed payload is not a valid {kind}")]
    Malformed {
        /// What they should be.
        kind: DocumentKind,
        /// What is wrong with them.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host's clock is behind a time that has come, as a signed document shows.
    #[error("the clock of this host has gone back")]
    ClockBehind {
        /// The latest time at which an accepted document was issued.
        floor: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// It was issued in the future.
    #[error("the {kind} is from the future")]
    FromTheFuture {
        /// What it is.
        kind: DocumentKind,
        /// When it says that it was issued.
        issued: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// Its time is over.
    #[error("the {kind} has expired")]
    Expired {
        /// What it is.
        kind: DocumentKind,
        /// Until when it was valid.
        expires: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
    /// A later version was accepted before.
    #[error("the {kind} is older than one accepted before")]
    VersionBelowFloor {
        /// What it is.
        kind: DocumentKind,
        /// The document's name.
        name: String,
        /// The version accepted before.
        floor: u64,
        /// Its version.
        found: u64,
    },
    /// The same version was accepted before, and was another document.
    #[error("two different {} have one version", plural(*kind))]
    VersionReused {
        /// What they are.
        kind: DocumentKind,
        /// The document's name.
        name: String,
        /// The version.
        version: u64,
        /// The digest of the document accepted before.
        accepted: Sha256,
        /// The digest of this one.
        found: Sha256,
    },
}

impl VerifyError {
    /// A word for each refusal, for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PayloadType { .. } => "payload-type",
            Self::Unsigned { .. } => "unsigned",
            Self::BadSignature { .. } => "bad-signature",
            Self::UnknownSigners { .. } => "unknown-signers",
            Self::KeyRevoked { .. } => "key-revoked",
            Self::KeyExpired { .. } => "key-expired",
            Self::OneKeyForTwoRoles { .. } => "one-key-for-two-roles",
            Self::Threshold { .. } => "threshold",
            Self::Malformed { kind: DocumentKind::Manifest, .. } => "malformed-manifest",
            Self::Malformed { .. } => "malformed-document",
            Self::NoRule { .. } => "no-rule",
            Self::ScopeExceeded { .. } => "scope-exceeded",
            Self::ManifestRevoked { .. } => "manifest-revoked",
            Self::PayloadRevoked { .. } => "payload-revoked",
            Self::NotLogged(refusal) => refusal.kind(),
            Self::ClockBehind { .. } => "clock-behind",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::Expired { .. } => "expired",
            Self::VersionBelowFloor { .. } => "version-below-floor",
            Self::VersionReused { .. } => "version-reused",
        }
    }

    /// What should have been the case.
    pub fn expected(&self) -> String {
        match self {
            Self::PayloadType { kind, .. } => format!("payload type {}", kind.payload_type()),
            Self::NoRule { kind } => format!("a rule for {kind} documents in the policy"),
            Self::Unsigned { needed, .. } => format!("{needed} signatures"),
            Self::BadSignature { key, .. } => format!("a signature of {key} over exactly these bytes"),
            Self::UnknownSigners { .. } => "signatures by keys of the policy".to_owned(),
            Self::KeyRevoked { .. } => "keys that are not revoked".to_owned(),
            Self::KeyExpired { key, not_after, .. } => format!("{key} to be used until {not_after}"),
            Self::OneKeyForTwoRoles { roles, needed, .. } => {
                format!("{needed} distinct keys for roles {}", list(roles))
            }
            Self::Threshold { role, threshold, .. } => format!("{threshold} distinct keys for role {role}"),
            Self::ScopeExceeded { role, excess, .. } => {
                format!("{} within what {role} may vouch for: {}", excess.limit, excess.allowed)
            }
            Self::ManifestRevoked { .. } => "a manifest that is not revoked".to_owned(),
            Self::PayloadRevoked { .. } => "payloads that are not revoked".to_owned(),
            Self::NotLogged(refusal) => refusal.expected(),
            Self::Malformed { kind: DocumentKind::Manifest, .. } => "a valid manifest of schema 1".to_owned(),
            Self::Malformed { kind, .. } => format!("a valid {kind}"),
            Self::ClockBehind { floor, .. } => format!("a clock at {floor} or later"),
            Self::FromTheFuture { .. } => "issued at most 5 minutes after this host's clock".to_owned(),
            Self::Expired { now, .. } => format!("valid at {now}"),
            Self::VersionBelowFloor { name, floor, .. } => format!("{name} version {floor} or later"),
            Self::VersionReused { name, version, accepted, .. } => {
                format!("{name} version {version} with digest {accepted}")
            }
        }
    }

    /// What was the case.
    pub fn found(&self) -> String {
        match self {
            Self::PayloadType { found, .. } => format!("payload type {found:.80?}"),
            Self::Unsigned { .. } | Self::NoRule { .. } => "none".to_owned(),
            Self::BadSignature { key, id, .. } => {
                format!("a signature under the name of {key} ({id}) that does not hold")
            }
            Self::UnknownSigners { found } => format!("signatures by {}", list(found)),
            Self::KeyRevoked { key, since } => format!("{key}, revoked since {since}"),
            Self::KeyExpired { now, .. } => format!("it is {now}"),
            Self::OneKeyForTwoRoles { keys, .. } => format!("{} ({})", keys.len(), list(keys)),
            Self::Threshold { signed, .. } if signed.is_empty() => "none".to_owned(),
            Self::Threshold { signed, .. } => format!("{} ({})", signed.len(), list(signed)),
            Self::ScopeExceeded { excess, .. } => excess.found.clone(),
            Self::ManifestRevoked { digest, since } => format!("{digest}, revoked since {since}"),
            Self::PayloadRevoked { file, sha256, since } => {
                format!("{file} ({sha256}), revoked since {since}")
            }
            Self::NotLogged(refusal) => refusal.found(),
            Self::Malformed { source, .. } => innermost(&**source),
            Self::ClockBehind { now, .. } => format!("it is {now}"),
            Self::FromTheFuture { issued, now, .. } => format!("issued {issued}, and it is {now}"),
            Self::Expired { expires, .. } => format!("expired at {expires}"),
            Self::VersionBelowFloor { found, .. } => format!("version {found}"),
            Self::VersionReused { found, .. } => format!("digest {found}"),
        }
    }
}

fn plural(kind: DocumentKind) -> String {
    match kind {
        DocumentKind::Policy => "policies".to_owned(),
        DocumentKind::Evidence => "pieces of evidence".to_owned(),
        kind => format!("{kind}s"),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The last cause of an error: for a malformed document, the rule and the place.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
