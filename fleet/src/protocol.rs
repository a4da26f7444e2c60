//! What hosts and controllers say to each other: five questions and their answers, as JSON over mutual TLS.
//!
//! - **enrol**: a token against a certificate, once
//! - **renew**: a certificate against a new one; signed by the host's key, so that it needs no valid certificate
//! - **poll**: is there something for me? The answer is a hint: stage this, look whether you could
//! - **report**: what became of an attempt, and what changed on the host
//! - **begin**: I am about to; the answer is the grant, or why not now
//!
//! Only `begin`'s answer lets a host change anything, and only after the host has verified it by its own policy. Every
//! message names the version of this protocol; a field that a reader does not know is refused, so that nothing is
//! half understood, and a newer side speaks the older version to an older one. Sizes are bounded before anything is
//! parsed.

use std::borrow::Cow;

use manifests::{GroupName, HostId, LabelValue, Nonce, Period, Sha256, UtcTime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::facts::HostFacts;
use crate::rollout::{Action, NotNow, Said};

/// The version of the protocol: 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version;

impl Version {
    /// The version that this program speaks.
    pub const CURRENT: u32 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(Self::CURRENT)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            Self::CURRENT => Ok(Self),
            found => Err(D::Error::custom(format_args!(
                "protocol version {found} is not known to this program: expected {}",
                Self::CURRENT
            ))),
        }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "const": Self::CURRENT, "description": "The version of the protocol."})
    }
}

/// Where the controller listens for each question: `POST`, but for what is fetched.
pub mod paths {
    /// [`Enrol`](super::Enrol), without a certificate; [`Certificate`](super::Certificate).
    pub const ENROL: &str = "/v1/enrol";
    /// `GET`, without a certificate; [`Challenge`](super::Challenge).
    pub const CHALLENGE: &str = "/v1/challenge";
    /// [`Renew`](super::Renew), without a certificate; [`Certificate`](super::Certificate).
    pub const RENEW: &str = "/v1/renew";
    /// [`Poll`](super::Poll); [`Hint`](super::Hint).
    pub const POLL: &str = "/v1/poll";
    /// [`Report`](super::Report); [`Heard`](super::Heard).
    pub const REPORT: &str = "/v1/report";
    /// [`BeginRequest`](super::BeginRequest); [`BeginAnswer`](super::BeginAnswer).
    pub const BEGIN: &str = "/v1/begin";
    /// `GET`, a digest follows: the envelope of a rollout document or a manifest by the digest of what it carries, a
    /// payload by its own. `Range` is heeded.
    pub const CONTENT: &str = "/v1/content/";
}

/// A message with its bound.
pub trait Message: Serialize + DeserializeOwned {
    /// The most bytes that such a message has.
    const MAX_BYTES: usize;

    /// What it is called in errors and paths.
    const NAME: &'static str;

    /// Its lists: what each is called, the most entries that it has, and how many it has.
    fn lists(&self) -> Vec<(&'static str, usize, usize)> {
        Vec::new()
    }
}

macro_rules! message {
    ($name:ident, $word:literal, $max:expr $(, $lists:expr)?) => {
        impl Message for $name {
            const MAX_BYTES: usize = $max;
            const NAME: &'static str = $word;
            $(
                fn lists(&self) -> Vec<(&'static str, usize, usize)> {
                    let lists: fn(&Self) -> Vec<(&'static str, usize, usize)> = $lists;
                    lists(self)
                }
            )?
        }
    };
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// More bytes than such a message has; nothing was parsed.
    #[error("{message}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The message.
        message: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// Not the JSON of such a message, or of another version.
    #[error("{message}: not such a message")]
    Json {
        /// The message.
        message: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A list is longer than such a message has.
    #[error("{message}: {field}: expected at most {limit} entries, found {found}")]
    TooMany {
        /// The message.
        message: &'static str,
        /// The list.
        field: &'static str,
        /// The limit.
        limit: usize,
        /// How many there are.
        found: usize,
    },
}

/// Reads a message; its size is looked at first, the length of its lists last.
///
/// # Errors
/// [`ProtocolError`]; the connection that it came over is not worth keeping.
pub fn read<M: Message>(bytes: &[u8]) -> Result<M, ProtocolError> {
    if bytes.len() > M::MAX_BYTES {
        let (message, limit, found) = (M::NAME, M::MAX_BYTES, bytes.len());
        return Err(ProtocolError::TooLarge { message, limit, found });
    }
    let read: M =
        serde_json::from_slice(bytes).map_err(|source| ProtocolError::Json { message: M::NAME, source })?;
    match read.lists().into_iter().find(|(_, limit, found)| found > limit) {
        Some((field, limit, found)) => Err(ProtocolError::TooMany { message: M::NAME, field, limit, found }),
        None => Ok(read),
    }
}

/// Asks for a certificate. Group, failure domain and role come with the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// The version of the protocol.
    pub version: Version,
    /// 128 bits in hexadecimal, from an operator.
    pub token: Nonce,
    /// A PKCS #10 request in PEM (RFC 2986); only its key is taken, and only if that is an Ed25519 key.
    pub request: String,
    /// What the host is like.
    pub facts: HostFacts,
}

message!(Enrol, "enrol", 16 << 10, |enrol| enrol.facts.lists().to_vec());

/// Asks for a new certificate for a key that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The version of the protocol.
    pub version: Version,
    /// As in [`Enrol`], signed by the same key.
    pub request: String,
    /// From a [`Challenge`], so that an old request is not worth keeping.
    pub nonce: Nonce,
    /// The key's signature over the nonce's text, in hexadecimal.
    pub signature: String,
}

message!(Renew, "renew", 16 << 10);

/// A nonce to sign a [`Renew`] with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The version of the protocol.
    pub version: Version,
    /// Counts once, for minutes.
    pub nonce: Nonce,
}

message!(Challenge, "challenge", 1 << 10);

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The version of the protocol.
    pub version: Version,
    /// The certificate and those above it, in PEM.
    pub chain: String,
    /// Who the host is.
    pub host: HostId,
    /// The groups that the token put it into.
    pub groups: Vec<GroupName>,
    /// When to ask for the next one; jitter is the host's.
    pub renew_at: UtcTime,
}

message!(Certificate, "certificate", 64 << 10);

/// Is there something for me?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// The version of the protocol.
    pub version: Version,
    /// The kernel's id of this boot; two that alternate under one key are a clone.
    pub boot: Nonce,
    /// The highest epoch that the host has seen; a controller goes above it.
    pub epoch: u64,
    /// The digest of the facts that the host sent last; the controller asks for them if it has others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Sha256>,
}

message!(Poll, "poll", 4 << 10);

/// The answer to a poll. A hint: nothing in it lets a host change anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    /// The version of the protocol.
    pub version: Version,
    /// When to ask again: 5 s in a transaction, else 1 to 10 minutes, as told; jitter is the host's.
    pub again: Period,
    /// What could be done.
    pub offers: Vec<Offer>,
    /// Rollouts of which nothing more may begin; what runs turns back at its next boundary.
    pub stop: Vec<Sha256>,
    /// Whether the host should send its facts.
    pub facts: FactsWanted,
    /// Manifests of the fleet, by their digests: a host says what it is to the vulnerabilities that they fix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Sha256>,
}

message!(Hint, "hint", 64 << 10);

impl Hint {
    /// The most manifests that a hint names.
    pub const MAX_MANIFESTS: usize = 64;
}

/// Whether a controller lacks a host's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FactsWanted {
    /// It has them.
    No,
    /// It does not.
    Yes,
}

/// Something that a host could do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The rollout, by its document's digest.
    pub rollout: Sha256,
    /// The manifest, by its digest; both are fetched by digest.
    pub manifest: Sha256,
    /// What.
    pub action: Action,
    /// Before that it would be refused by the document's own schedule.
    pub earliest: UtcTime,
}

/// What became of an attempt, or what a host is like now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The version of the protocol.
    pub version: Version,
    /// The host's number of this report: grows by one; what was lost is missed, and what comes twice is known.
    pub number: u64,
    /// What became of attempts.
    pub attempts: Vec<AttemptReport>,
    /// What the host is like, if that is new to the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<HostFacts>,
}

message!(Report, "report", 1 << 20, |report| {
    let attempts = ("attempts", Report::MAX_ATTEMPTS, report.attempts.len());
    report.facts.iter().flat_map(HostFacts::lists).chain([attempts]).collect()
});

impl Report {
    /// The most attempts that one report speaks of.
    pub const MAX_ATTEMPTS: usize = 64;
}

/// A report was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// The version of the protocol.
    pub version: Version,
    /// Whether each attempt said something new, in their order.
    pub news: Vec<bool>,
}

message!(Heard, "report's answer", 16 << 10);

/// Why a controller does not answer a question, with a status of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// The version of the protocol.
    pub version: Version,
    /// Why, in words, for the log of a host.
    pub error: String,
}

message!(Denial, "denial", 16 << 10);

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptReport {
    /// The rollout.
    pub rollout: Sha256,
    /// Which attempt; nothing before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// What the host says.
    pub said: Said,
    /// The transaction in the host's journal, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<LabelValue>,
    /// Why, in one line; failures of one fingerprint have one cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Sha256>,
}

/// I am about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginRequest {
    /// The version of the protocol.
    pub version: Version,
    /// The rollout.
    pub rollout: Sha256,
    /// What.
    pub action: Action,
    /// Made by the host's executor for this attempt.
    pub nonce: Nonce,
    /// The highest epoch that the host has seen.
    pub epoch: u64,
}

message!(BeginRequest, "begin", 4 << 10);

/// The answer to `begin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BeginAnswer {
    /// The grant, in its envelope. The same attempt gets the same bytes again.
    Granted {
        /// The version of the protocol.
        version: Version,
        /// A DSSE envelope of a [`manifests::Grant`].
        grant: String,
    },
    /// Not now.
    NotNow {
        /// The version of the protocol.
        version: Version,
        /// Why, in words.
        because: String,
        /// When to ask again.
        again: Period,
    },
}

message!(BeginAnswer, "begin's answer", 64 << 10);

impl BeginAnswer {
    /// The answer that says why not, and when to ask again.
    pub fn not_now(reason: &NotNow, again: Period) -> Self {
        Self::NotNow { version: Version, because: reason.to_string(), again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Fault, Outcome};
    use crate::sample;

    fn round<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let bytes = serde_json::to_vec(message).unwrap();
        assert!(bytes.len() <= M::MAX_BYTES);
        assert_eq!(&read::<M>(&bytes).unwrap(), message);
    }

    fn begin() -> BeginRequest {
        BeginRequest {
            version: Version,
            rollout: sample::rollout(),
            action: Action::Apply,
            nonce: Nonce::from_bytes([1; 16]),
            epoch: 3,
        }
    }

    fn attempt(said: Said) -> AttemptReport {
        let nonce = Some(Nonce::from_bytes([1; 16]));
        AttemptReport { rollout: sample::rollout(), nonce, said, transaction: None, fingerprint: None }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        round(&begin());
        round(&BeginAnswer::not_now(&NotNow::FleetCap, Period::from_secs(60)));
        round(&Poll { version: Version, boot: Nonce::from_bytes([2; 16]), epoch: 0, facts: None });
        let said = [
            Said::Ready,
            Said::Declined { outcome: Outcome::NotNeeded },
            Said::Applied,
            Said::Hurt { fault: Fault::Splat },
            Said::RolledBack,
            Said::NotRolledBack,
        ];
        let facts = sample::inventory(1).pop().map(|host| HostFacts {
            kernel_build_id: Some("aabbccddeeff00112233445566778899aabbccdd".parse().unwrap()),
            services: host.services,
            workloads: vec!["runc:web".parse().unwrap()],
            ..HostFacts::new(host.role, host.kernel, host.cpu)
        });
        round(&Report { version: Version, number: 1, attempts: said.map(attempt).to_vec(), facts });
        let offer = Offer {
            rollout: sample::rollout(),
            manifest: Sha256::of(b"m"),
            action: Action::Rollback,
            earliest: "2026-11-02T00:00:00Z".parse().unwrap(),
        };
        let again = Period::from_secs(5);
        let (facts, manifests) = (FactsWanted::Yes, vec![Sha256::of(b"m")]);
        round(&Hint { version: Version, again, offers: vec![offer], stop: vec![], facts, manifests });
    }

    #[test]
    fn what_is_not_understood_whole_is_not_understood() {
        let good = serde_json::to_string(&begin()).unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1,", ""),
            ("\"epoch\":3", "\"epoch\":3,\"force\":true"),
            ("\"epoch\":3", "\"epoch\":3,\"epoch\":4"),
            ("\"epoch\":3", "\"epoch\":-3"),
            ("\"apply\"", "\"reboot\""),
        ] {
            let changed = good.replace(from, to);
            assert_ne!(changed, good, "{from}");
            assert!(read::<BeginRequest>(changed.as_bytes()).is_err(), "{from} -> {to} was taken");
        }
    }

    #[test]
    fn an_oversized_message_is_refused_before_it_is_parsed() {
        let mut bytes = serde_json::to_vec(&begin()).unwrap();
        bytes.resize(BeginRequest::MAX_BYTES + 1, b' ');
        assert!(matches!(read::<BeginRequest>(&bytes), Err(ProtocolError::TooLarge { .. })));
        bytes.pop();
        assert!(read::<BeginRequest>(&bytes).is_ok());
        let attempts = vec![attempt(Said::Applied); Report::MAX_ATTEMPTS + 1];
        let report = Report { version: Version, number: 1, attempts, facts: None };
        let bytes = serde_json::to_vec(&report).unwrap();
        assert!(matches!(read::<Report>(&bytes), Err(ProtocolError::TooMany { .. })));
    }
}
