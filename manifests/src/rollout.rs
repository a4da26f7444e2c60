//! The rollout document: what people allow a controller to do with a manifest, and how fast at most.
//!
//! A controller decides when; never what, for whom, or earlier than this says. Each host enforces that by itself, from
//! this document alone: it knows its own id and groups, computes its [`Share`], and refuses a grant before its time. So
//! a stolen controller can be slower than people signed, and never faster.
//!
//! The schedule: the first wave by the ids of its hosts (they were picked, so that each kind is among them), then
//! growing parts of the fleet with the earliest time of each. They are what the fastest clean rollout would need.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::duration::Period;
use crate::grant::GrantedAction;
use crate::host::{HostId, Share};
use crate::names::{GroupName, ManifestName};
use crate::policy::scope::{Excess, Scope};
use crate::schema::SchemaVersion;
use crate::text::Summary;
use crate::time::UtcTime;
use crate::verify::{TrustFloor, VerifyError};
use crate::yaml::{self, YamlError};

/// What people allow a controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Version of this format; always 1.
    pub schema: SchemaVersion,
    /// The name of the manifest, for people and for scopes; the digest decides.
    pub name: ManifestName,
    /// The digest of the signed manifest.
    pub manifest: Sha256,
    /// The digest of the rollout policy's bytes, by which the controller goes.
    pub policy: Sha256,
    /// When it was issued.
    pub issued: UtcTime,
    /// From when on nobody begins; at most 366 days after `issued`.
    pub expires: UtcTime,
    /// One line for people: what, and why so.
    pub summary: Summary,
    /// Which profile of the policy it goes by.
    #[serde(default)]
    pub profile: Profile,
    /// The groups of hosts that it is for; a host in none of them refuses.
    #[schemars(length(min = 1, max = 64))]
    pub groups: Vec<GroupName>,
    /// Rollouts that end when this one begins, by their digests, besides those of the same manifest's earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub supersedes: Vec<Sha256>,
    /// How early at most.
    pub schedule: Schedule,
    /// The ways back.
    pub rollback: RollbackAllowed,
}

/// Which profile of the policy a rollout goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The policy as it is.
    #[default]
    Ordinary,
    /// The policy's `emergency`.
    Emergency,
}

/// How early each host may begin at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// When the first wave may begin.
    pub not_before: UtcTime,
    /// The hosts of the first wave.
    #[schemars(length(min = 1, max = 8192))]
    pub first: Vec<HostId>,
    /// The fleet's parts after that: later ones are larger and not earlier. A host that lies in none of them and is
    /// not in the first wave never begins.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub then: Vec<Part>,
}

/// A part of the fleet, and when it may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Hosts whose share lies within so many millionths.
    #[schemars(range(min = 1, max = 1000000))]
    pub millionths: u32,
    /// When they may begin.
    pub not_before: UtcTime,
}

/// The ways back that a controller may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackAllowed {
    /// How long after a host was changed; `0s`: never. Longer ways back would reopen what people rely on being closed.
    pub within: Period,
}

/// Why bytes are not a rollout.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The YAML is outside of the strict form, or does not follow the schema.
    #[error("the rollout cannot be read")]
    Yaml(#[from] YamlError),
    /// A list is too short or too long.
    #[error("{field}: expected {min} to {max} entries, found {found}")]
    Count {
        /// The list.
        field: &'static str,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// An entry stands twice.
    #[error("{field}: expected each entry once, found one twice")]
    Twice {
        /// The list.
        field: &'static str,
    },
    /// It expires before it was issued, or more than 366 days later.
    #[error("expires: expected after {issued} and at most 366 days later, found {expires}")]
    Expires {
        /// When it was issued.
        issued: UtcTime,
        /// When it expires.
        expires: UtcTime,
    },
    /// A part that is not of the fleet, no larger than the one before, or earlier.
    #[error("schedule.then[{index}]: expected 1 to 1000000 millionths, more than before and not earlier")]
    Part {
        /// Which, from 0.
        index: usize,
    },
}

/// Why a host does not do what a controller asks in the name of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The host is in none of the groups.
    #[error("the rollout is not for this host: expected a group of {expected:?}, found {found:?}")]
    Groups {
        /// The rollout's groups.
        expected: Vec<GroupName>,
        /// The host's.
        found: Vec<GroupName>,
    },
    /// The schedule never lets this host begin.
    #[error("the schedule has no place for this host: its share is within {millionths} millionths")]
    NoPlace {
        /// Its share.
        millionths: u32,
    },
    /// It is too early.
    #[error("too early: expected {earliest} or later, found {now}")]
    TooEarly {
        /// When the host may begin.
        earliest: UtcTime,
        /// Its clock.
        now: UtcTime,
    },
    /// The host was not changed by this rollout.
    #[error("nothing that this rollout began is on this host")]
    NothingBegun,
    /// The time of the way back is over.
    #[error("the way back was open until {until}, and it is {now}")]
    WayBackOver {
        /// Until when.
        until: UtcTime,
        /// The host's clock.
        now: UtcTime,
    },
}

/// What a host knows of itself when a controller asks something of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who it is.
    pub host: HostId,
    /// Its groups, by its own configuration or token.
    pub groups: &'a [GroupName],
    /// When it took what this rollout began; nothing if it has nothing of it.
    pub changed: Option<UtcTime>,
    /// Its clock.
    pub now: UtcTime,
}

impl Schedule {
    /// The earliest time at which a host may begin; nothing if it never may.
    pub fn earliest(&self, rollout: Sha256, host: HostId) -> Option<UtcTime> {
        if self.first.contains(&host) {
            return Some(self.not_before);
        }
        let share = Share::of(rollout, host);
        self.then.iter().find(|part| share.is_within(part.millionths)).map(|part| part.not_before)
    }
}

impl Rollout {
    /// Refuses what this document does not allow a controller to ask. `digest` is that of its signed bytes.
    pub fn refuse(&self, digest: Sha256, action: GrantedAction, asked: &Asked<'_>) -> Result<(), NotAllowed> {
        let Asked { host, groups, changed, now } = *asked;
        if !groups.iter().any(|group| self.groups.contains(group)) {
            return Err(NotAllowed::Groups { expected: self.groups.clone(), found: groups.to_vec() });
        }
        match action {
            GrantedAction::Apply => {
                let millionths = Share::of(digest, host).millionths();
                let earliest =
                    self.schedule.earliest(digest, host).ok_or(NotAllowed::NoPlace { millionths })?;
                if now < earliest { Err(NotAllowed::TooEarly { earliest, now }) } else { Ok(()) }
            }
            GrantedAction::Rollback => {
                let changed = changed.ok_or(NotAllowed::NothingBegun)?;
                let within = jiff::SignedDuration::from_secs(i64::from(self.rollback.within.secs()));
                let until = changed.timestamp().saturating_add(within).map_or(changed, UtcTime::floor);
                if now > until { Err(NotAllowed::WayBackOver { until, now }) } else { Ok(()) }
            }
        }
    }

    /// Reads a rollout from YAML, and checks what needs no host.
    pub fn parse(bytes: &[u8]) -> Result<Self, RolloutError> {
        let rollout: Self = yaml::from_slice(bytes, DocumentKind::Rollout.max_bytes())?;
        let Self { issued, expires, groups, schedule, .. } = &rollout;
        let length = expires.timestamp().as_second() - issued.timestamp().as_second();
        if !(1..=i64::from(Period::MAX.secs())).contains(&length) {
            return Err(RolloutError::Expires { issued: *issued, expires: *expires });
        }
        distinct("groups", groups, 1, 64)?;
        distinct("supersedes", &rollout.supersedes, 0, 16)?;
        distinct("schedule.first", &schedule.first, 1, 8192)?;
        if schedule.then.len() > 64 {
            let (field, found) = ("schedule.then", schedule.then.len());
            return Err(RolloutError::Count { field, min: 0, max: 64, found });
        }
        let mut before = Part { millionths: 0, not_before: schedule.not_before };
        for (index, part) in schedule.then.iter().enumerate() {
            let grows = part.millionths > before.millionths && part.millionths <= Share::WHOLE;
            if !grows || part.not_before < before.not_before {
                return Err(RolloutError::Part { index });
            }
            before = *part;
        }
        Ok(rollout)
    }
}

fn distinct<T: Ord>(field: &'static str, items: &[T], min: usize, max: usize) -> Result<(), RolloutError> {
    if !(min..=max).contains(&items.len()) {
        return Err(RolloutError::Count { field, min, max, found: items.len() });
    }
    let mut seen = BTreeSet::new();
    if items.iter().all(|item| seen.insert(item)) { Ok(()) } else { Err(RolloutError::Twice { field }) }
}

impl Document for Rollout {
    const KIND: DocumentKind = DocumentKind::Rollout;

    type Error = RolloutError;

    fn parse(bytes: &[u8]) -> Result<Self, RolloutError> {
        Self::parse(bytes)
    }

    fn issued(&self) -> UtcTime {
        self.issued
    }

    fn expires(&self) -> Option<UtcTime> {
        Some(self.expires)
    }

    /// Names and groups are those of the manifest's scope; what the manifest itself may do, its own signers vouch for.
    fn excess(&self, scope: &Scope) -> Option<Excess> {
        scope.excess_of_rollout(&self.name, &self.groups)
    }

    fn refuse(&self, _: Sha256, floor: &TrustFloor) -> Result<(), VerifyError> {
        match floor.revoked.manifests.get(&self.manifest) {
            Some(since) => Err(VerifyError::ManifestRevoked { digest: self.manifest, since: *since }),
            None => Ok(()),
        }
    }

    /// A rollout forbids nothing: which manifest counts, the manifest's own version says.
    fn raise(&self, _: Sha256, _: &mut TrustFloor) {}
}
