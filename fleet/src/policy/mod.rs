//! The policy of a rollout: who gets it, how fast, when, and what makes it stop.
//!
//! One YAML file, strict as manifests are, written by people and kept beside their manifests. It says nothing
//! of any one manifest. [`RolloutPolicy::parse`] checks what can be seen without a fleet; whether it can ever
//! finish, and ever pass its own test, depends on the fleet's size: see [`crate::assurance`].
//!
//! - [`amount`]: hosts, or percent of them
//! - [`calendar`]: maintenance windows and freezes in the time zones where people live
//! - [`error`]: the refusals

pub mod amount;
pub mod calendar;
pub mod error;

use std::collections::BTreeSet;

use manifests::schema::SchemaVersion;
use manifests::{DomainName, GroupName, HostId, Label, Period, yaml};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use amount::Amount;
pub use calendar::{Calendar, Freeze, Window};
pub use error::PolicyError;

use crate::host::{Host, Trait};
use crate::test::Parameters;

/// The most bytes that a policy may have.
pub const MAX_BYTES: usize = 256 << 10;

/// How a manifest goes through a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// Version of this format; always 1.
    pub schema: SchemaVersion,
    /// Who gets it.
    pub selector: Selector,
    /// By what hosts are told apart, so that each kind is in the first wave.
    #[serde(default = "default_strata")]
    #[schemars(length(max = 3))]
    pub strata: Vec<Trait>,
    /// How many at a time, and how long each wave is watched.
    #[serde(default)]
    pub waves: Waves,
    /// How many at once at most, by what they have in common.
    #[serde(default)]
    pub caps: Caps,
    /// When hosts may begin. Empty: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub windows: Vec<Window>,
    /// When none may, whatever the windows say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub freezes: Vec<Freeze>,
    /// How many people must agree.
    #[serde(default)]
    pub approvals: Approvals,
    /// How long a host may take.
    #[serde(default)]
    pub deadline: Deadline,
    /// How much of what is too much, apart from the test.
    #[serde(default)]
    pub budgets: Budgets,
    /// What the test tells apart, and how sure it is.
    #[serde(default)]
    pub test: Parameters,
    /// What hosts are compared by with those held back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub health: Vec<HealthQuery>,
    /// What follows a halt.
    #[serde(default)]
    pub rollback: RollbackRule,
    /// What is different when people sign for an emergency. Left out: there is no emergency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Emergency>,
}

fn default_strata() -> Vec<Trait> {
    vec![Trait::Kernel, Trait::Cpu, Trait::Role]
}

/// Who gets it: hosts that are in one of the groups, and in one of the domains if any are named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Groups of hosts.
    #[schemars(length(min = 1, max = 64))]
    pub groups: Vec<GroupName>,
    /// Failure domains. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub domains: Vec<DomainName>,
    /// Hosts that get nothing all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub except: Vec<HostId>,
}

impl Selector {
    /// Whether `host` is meant. A host that no group names gets nothing.
    pub fn selects(&self, host: &Host) -> bool {
        host.groups.iter().any(|group| self.groups.contains(group))
            && (self.domains.is_empty() || self.domains.contains(&host.domain))
            && !self.except.contains(&host.id)
    }

    /// Whether there may be a host that both mean.
    pub fn meets(&self, other: &Self) -> bool {
        fn share<T: PartialEq>(ours: &[T], theirs: &[T]) -> bool {
            ours.iter().any(|one| theirs.contains(one))
        }
        let everywhere = self.domains.is_empty() || other.domains.is_empty();
        share(&self.groups, &other.groups) && (everywhere || share(&self.domains, &other.domains))
    }
}

/// How many at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Waves {
    /// Hosts in the first wave. 60 clean hosts are the least that pass the default test.
    #[schemars(range(min = 1))]
    pub first: u32,
    /// Each wave has this many times the hosts of all before it together.
    #[schemars(range(min = 1, max = 100))]
    pub growth: u32,
    /// The most hosts of a wave.
    pub largest: Amount,
    /// How long a host is watched before it counts as good. One time for all: a host that was watched for
    /// less would prove less.
    pub bake: Period,
    /// A wave's hosts begin evenly over this time. What goes wrong at once then stops the rest of the wave.
    pub start_over: Period,
    /// How often a wave that came out undecided may take more hosts.
    #[schemars(range(max = 10))]
    pub top_ups: u32,
}

impl Default for Waves {
    fn default() -> Self {
        Self {
            first: 60,
            growth: 4,
            largest: Amount::Percent(25),
            bake: Period::from_secs(24 * 3600),
            start_over: Period::from_secs(4 * 3600),
            top_ups: 2,
        }
    }
}

/// How many hosts may be in the middle of it at once, over all rollouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// Of the fleet.
    pub fleet: Amount,
    /// Of each failure domain; at least one.
    pub domain: Amount,
    /// Of the hosts with a service; at least one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub services: Vec<ServiceCap>,
}

impl Default for Caps {
    fn default() -> Self {
        Self { fleet: Amount::Percent(5), domain: Amount::Percent(10), services: Vec::new() }
    }
}

/// How many of the hosts with a service may be in the middle of it at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceCap {
    /// The service.
    pub label: Label,
    /// How many; at least one.
    pub at_once: Amount,
}

/// How many people must agree, besides those who signed the rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// Before the first wave.
    #[schemars(range(max = 16))]
    pub start: u32,
    /// Once more before the second wave, when the first has passed.
    #[schemars(range(max = 16))]
    pub after_first_wave: u32,
}

/// How long a host may take before it counts as silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deadline {
    /// From the grant to the outcome.
    pub host: Period,
    /// Without a word while it is watched. Above twice the longest poll interval, which is 10 minutes.
    pub silence: Period,
    /// After which a host that was busy is asked again.
    pub busy: Period,
}

impl Default for Deadline {
    fn default() -> Self {
        Self {
            host: Period::from_secs(3600),
            silence: Period::from_secs(30 * 60),
            busy: Period::from_secs(15 * 60),
        }
    }
}

/// Hard limits over the whole rollout. `failed`, `lost` and `splats` halt it, the others pause it; what only
/// one host says never does more than pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Hosts that failed, all of them, however they hang together.
    pub failed: Amount,
    /// Hosts that fell silent after they had been told to begin.
    pub lost: Amount,
    /// Hosts whose kernel complained (oops, warning, lockup) after it was changed.
    pub splats: Amount,
    /// Hosts on which a precondition did not hold; nothing was touched there.
    pub refused: Amount,
    /// Hosts that were occupied with something else, at one time.
    pub busy: Amount,
    /// Hosts that their operators hold back.
    pub held: Amount,
    /// Hosts for which the documents were not authentic.
    pub not_authentic: Amount,
    /// Hosts that have the fix already. More than expected means that the wrong manifest was sent.
    pub not_needed: Amount,
    /// Failures in one domain within this time of each other count once in the test: one cause, such as a
    /// switch. In `failed` they count all.
    pub correlated: Period,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            failed: Amount::Percent(1),
            lost: Amount::Percent(1),
            splats: Amount::Hosts(1),
            refused: Amount::Percent(10),
            busy: Amount::Percent(25),
            held: Amount::Percent(25),
            not_authentic: Amount::Hosts(1),
            not_needed: Amount::Percent(100),
            correlated: Period::from_secs(5 * 60),
        }
    }
}

/// A metric by which hosts that were changed are compared with hosts that are held back, at the same time and
/// not with yesterday.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthQuery {
    /// What reports call it.
    pub name: GroupName,
    /// The question, in the language of whoever answers it; not looked at here.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// Which way is worse.
    pub worse: Worse,
    /// A veto from this ratio of the changed to the held back on (`worse: higher`), or down to it (`lower`).
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub ratio: f64,
}

/// Which way a metric gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Worse {
    /// Latency, errors.
    Higher,
    /// Throughput.
    Lower,
}

impl HealthQuery {
    /// Whether the changed hosts do so much worse that the rollout has to wait for people. Where those held back have
    /// none of it (no error, say), any is too much, and less there cannot be.
    pub fn vetoes(&self, changed: f64, held_back: f64) -> bool {
        match self.worse {
            Worse::Higher => changed > 0.0 && changed >= self.ratio * held_back,
            Worse::Lower => held_back > 0.0 && changed <= self.ratio * held_back,
        }
    }
}

/// What follows a halt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackRule {
    /// Who begins it.
    pub authority: RollbackAuthority,
    /// How long after a host was changed it may still be told to go back. After that the way back would
    /// reopen a hole that people rely on being closed.
    pub within: Period,
    /// Hosts that may fail to go back before people have to look.
    pub stuck: Amount,
}

impl Default for RollbackRule {
    fn default() -> Self {
        Self {
            authority: RollbackAuthority::Automatic,
            within: Period::from_secs(7 * 24 * 3600),
            stuck: Amount::Hosts(3),
        }
    }
}

/// Who begins to roll back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RollbackAuthority {
    /// The rollout, as soon as it halts.
    Automatic,
    /// A person.
    Operator,
}

/// What an emergency changes; the rest of the policy stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// Instead of `waves`.
    pub waves: Waves,
    /// Instead of `approvals`.
    pub approvals: Approvals,
    /// Whether windows and freezes still count.
    pub calendar: EmergencyCalendar,
}

/// Whether windows and freezes count in an emergency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmergencyCalendar {
    /// They do.
    Keep,
    /// They do not.
    Ignore,
}

impl RolloutPolicy {
    /// Reads a policy from YAML, and checks what can be checked without a fleet.
    ///
    /// # Errors
    /// [`PolicyError`] with the field, what was expected and what was found.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let policy: Self = yaml::from_slice(bytes, MAX_BYTES)?;
        policy.check()?;
        Ok(policy)
    }

    /// The policy as it is in an emergency, if it knows one.
    pub fn in_emergency(&self) -> Option<Self> {
        let emergency = self.emergency.as_ref()?;
        let mut policy = Self {
            waves: emergency.waves.clone(),
            approvals: emergency.approvals,
            emergency: None,
            ..self.clone()
        };
        if emergency.calendar == EmergencyCalendar::Ignore {
            policy.windows.clear();
            policy.freezes.clear();
        }
        Some(policy)
    }

    /// When hosts may begin.
    pub fn calendar(&self) -> Calendar<'_> {
        Calendar { windows: &self.windows, freezes: &self.freezes }
    }

    fn check(&self) -> Result<(), PolicyError> {
        count("selector.groups", self.selector.groups.len(), 1, 64)?;
        count("selector.domains", self.selector.domains.len(), 0, 1024)?;
        count("selector.except", self.selector.except.len(), 0, 1024)?;
        count("windows", self.windows.len(), 0, 32)?;
        count("freezes", self.freezes.len(), 0, 128)?;
        count("caps.services", self.caps.services.len(), 0, 256)?;
        count("health", self.health.len(), 0, 32)?;
        distinct("strata", &self.strata)?;
        distinct("selector.groups", &self.selector.groups)?;
        distinct("caps.services", self.caps.services.iter().map(|cap| &cap.label))?;
        distinct("health", self.health.iter().map(|query| &query.name))?;
        self.test.check()?;
        check_waves("waves", &self.waves)?;
        if let Some(emergency) = &self.emergency {
            check_waves("emergency.waves", &emergency.waves)?;
        }
        at_least("deadline.host", self.deadline.host, 60)?;
        // Twice the longest poll interval of an idle host.
        at_least("deadline.silence", self.deadline.silence, 20 * 60)?;
        at_least("deadline.busy", self.deadline.busy, 60)?;
        at_least("rollback.within", self.rollback.within, 3600)?;
        for window in &self.windows {
            window.check()?;
        }
        for freeze in &self.freezes {
            freeze.check()?;
        }
        for query in &self.health {
            let field = || format!("health: {}", query.name);
            if query.query.is_empty() || query.query.len() > 4096 {
                return Err(PolicyError::Query { field: field(), found: query.query.len() });
            }
            let sensible = match query.worse {
                Worse::Higher => query.ratio > 1.0 && query.ratio <= 1000.0,
                Worse::Lower => query.ratio > 0.0 && query.ratio < 1.0,
            };
            if !sensible {
                return Err(PolicyError::Ratio { field: field(), worse: query.worse, found: query.ratio });
            }
        }
        Ok(())
    }
}

fn check_waves(field: &'static str, waves: &Waves) -> Result<(), PolicyError> {
    let range = |part: &str, found: u32, min: u32, max: u32| match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(PolicyError::Range { field: format!("{field}.{part}"), min, max, found }),
    };
    range("first", waves.first, 1, 1_000_000)?;
    range("growth", waves.growth, 1, 100)?;
    range("top_ups", waves.top_ups, 0, 10)?;
    if waves.largest.of(u32::MAX) == 0 {
        return Err(PolicyError::Range {
            field: format!("{field}.largest"),
            min: 1,
            max: u32::MAX,
            found: 0,
        });
    }
    if waves.bake.is_zero() {
        return Err(PolicyError::TooShort {
            field: format!("{field}.bake"),
            min: Period::from_secs(1),
            found: waves.bake,
        });
    }
    Ok(())
}

fn at_least(field: &'static str, found: Period, min: u32) -> Result<(), PolicyError> {
    match found.secs() >= min {
        true => Ok(()),
        false => Err(PolicyError::TooShort { field: field.to_owned(), min: Period::from_secs(min), found }),
    }
}

fn count(field: &'static str, found: usize, min: usize, max: usize) -> Result<(), PolicyError> {
    match (min..=max).contains(&found) {
        true => Ok(()),
        false => Err(PolicyError::Count { field, min, max, found }),
    }
}

fn distinct<T: Ord>(field: &'static str, items: impl IntoIterator<Item = T>) -> Result<(), PolicyError> {
    let mut seen = BTreeSet::new();
    match items.into_iter().all(|item| seen.insert(item)) {
        true => Ok(()),
        false => Err(PolicyError::Twice { field }),
    }
}

/// The JSON Schema (draft 2020-12) of the rollout policy; shipped as `fleet/rollout-policy.schema.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(RolloutPolicy).to_value()
}
