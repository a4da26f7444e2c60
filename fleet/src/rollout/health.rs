//! Hosts that have the change beside hosts that wait for it, by what a policy's health queries say.
//!
//! A query is one question about all hosts at one moment, so both sides are of that moment; nothing is compared with
//! yesterday. Who is on which side follows from the rollout, and whoever asks only says what number each host has.
//! What came out is written down when it comes out otherwise than before ([`Event::Compared`](super::Event)); from
//! then on it is the ledger's, and a rollout that is owed an answer waits, whoever looks at it.
//!
//! - changed: whoever may have something of the change on it
//! - held back: whoever the rollout has not come to, or has and was not yet told to begin, and that is not silent. Not
//!   whoever declined: those are no sample of the fleet
//! - each side is the mean of its hosts' numbers, of which at least half have to be there: a change that kills what
//!   tells the number would else go unseen
//! - no side: nothing is compared, and nothing is waited for. So it is before the first host is changed, and when the
//!   last wave has begun

use std::fmt;

use manifests::{Period, UtcTime};
use serde::{Deserialize, Serialize};

use super::decide::earlier;
use super::event::Place;
use super::state::{Plan, Progress, Stage};
use crate::policy::{HealthQuery, RolloutPolicy};

/// The longest and the shortest time between two questions.
const LONGEST: u32 = 60;
const SHORTEST: u32 = 1;

/// So often is asked while a host is watched.
const OFTEN: u32 = 20;

/// A number of hosts: finite, and to four digits, which is what people compare.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Figure(f64);

impl Figure {
    /// Nothing if it is no number.
    pub fn new(number: f64) -> Option<Self> {
        let rounded = format!("{number:.3e}").parse().ok().filter(|rounded: &f64| rounded.is_finite());
        number.is_finite().then(|| Self(rounded.unwrap_or(number)))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

// What is no number never gets in, so each is equal to itself.
impl Eq for Figure {}

impl std::hash::Hash for Figure {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Both zeros are one.
        (self.0 + 0.0).to_bits().hash(state);
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            size if size != 0.0 && !(1e-4..1e9).contains(&size) => write!(f, "{:e}", self.0),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// What came out of a health query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Comparison {
    /// The changed do no worse than the policy lets them.
    Well {
        /// Of the changed.
        changed: Figure,
        /// Of those held back.
        held_back: Figure,
    },
    /// They do.
    Worse {
        /// Of the changed.
        changed: Figure,
        /// Of those held back.
        held_back: Figure,
    },
    /// Nobody knows: neither health nor sickness.
    Unanswered {
        /// Why.
        because: Unanswered,
    },
}

impl Comparison {
    /// Whether both came out alike, whatever their numbers.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Why a health query has no answer.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    thiserror::Error,
    schemars::JsonSchema,
)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Unanswered {
    /// The controller knows nobody whom it could ask.
    #[error("the controller that leads has nobody to ask: serve it with --prometheus")]
    NobodyToAsk,
    /// The server cannot be reached, or is another one than its certificate would have to be of.
    #[error("the server cannot be reached")]
    Unreachable,
    /// It did not answer in time.
    #[error("the server did not answer in time")]
    Late,
    /// It answers with a status that is none of an answer.
    #[error("the server answers with status {code}")]
    Status {
        /// Which.
        code: u16,
    },
    /// Its answer has too many bytes.
    #[error("its answer has more than {limit} bytes: let the query give one series for each host")]
    TooLarge {
        /// How many it may have.
        limit: u64,
    },
    /// What it says is not what a server of this interface says.
    #[error("what it says is no answer of Prometheus")]
    Strange,
    /// It does not take the query.
    #[error("the server refuses the query: is it PromQL?")]
    Refused,
    /// The query gives something else than one number for each series.
    #[error("the query gives no instant vector: expected one number for each host")]
    NotAVector,
    /// None of its series names a host.
    #[error(
        "no series names a host: expected the label of --prometheus-label, as in `max by (instance) (...)`"
    )]
    Nameless,
    /// A host has several series.
    #[error("a host has several series: aggregate them, as in `max by (instance) (...)`")]
    Twice,
    /// Too few hosts of a side have a number.
    #[error("{seen} of {hosts} {side} have a number: expected at least half of them")]
    TooFew {
        /// Which side.
        side: Side,
        /// How many hosts of it have one.
        seen: u32,
        /// How many it has.
        hosts: u32,
    },
    /// A side is negative: nothing is so many times that.
    #[error("the {side} have a negative number: nothing is so many times that")]
    Negative {
        /// Which.
        side: Side,
    },
}

/// The sides of a comparison.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Hosts with the change.
    Changed,
    /// Hosts that wait for it.
    HeldBack,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Changed => "hosts with the change",
            Self::HeldBack => "hosts that wait for it",
        })
    }
}

/// Who is compared with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// Hosts with the change; at least one.
    pub changed: Vec<Place>,
    /// Hosts that wait for it; at least one.
    pub held_back: Vec<Place>,
}

impl Sides {
    /// The sides of a rollout at `now`, by when a host was heard of last; nothing if there is nothing to compare, or nothing
    /// hangs on it any more.
    pub fn of(
        plan: &Plan,
        progress: &Progress,
        heard: impl Fn(Place) -> Option<UtcTime>,
        now: UtcTime,
    ) -> Option<Self> {
        let goes_on = matches!(progress.stage(), Stage::Waiting | Stage::Running | Stage::Paused(_));
        if plan.policy.health.is_empty() || !goes_on || progress.is_through() {
            return None;
        }
        let long_ago = earlier(now, plan.policy.deadline.silence);
        let is_there = |host| heard(host) > Some(long_ago);
        let all = || 0..progress.hosts().len();
        let changed: Vec<Place> = all().filter(|host| progress.changed_since(*host).is_some()).collect();
        if changed.is_empty() {
            return None;
        }
        // Who came out with another kernel and waits for it anew has the change already.
        let held_back = |host: &Place| {
            progress.hosts()[*host].waits() && progress.changed_since(*host).is_none() && is_there(*host)
        };
        let held_back: Vec<Place> = all().filter(held_back).collect();
        (!held_back.is_empty()).then_some(Self { changed, held_back })
    }

    /// Compares them by the numbers that hosts have. What is no number is none.
    pub fn compare(&self, query: &HealthQuery, number: impl Fn(Place) -> Option<f64>) -> Comparison {
        let mean = |side: Side, hosts: &[Place]| {
            let numbers: Vec<f64> =
                hosts.iter().filter_map(|host| number(*host)).filter(|number| number.is_finite()).collect();
            let (seen, hosts) = (numbers.len() as u32, hosts.len() as u32);
            if 2 * seen < hosts {
                return Err(Unanswered::TooFew { side, seen, hosts });
            }
            // Divided before they are added, and what is rounded beyond the largest number is that.
            let mean: f64 = numbers.iter().map(|number| number / f64::from(seen)).sum();
            let mean = mean.clamp(f64::MIN, f64::MAX);
            match Figure::new(mean) {
                Some(figure) if mean >= 0.0 => Ok((mean, figure)),
                _ => Err(Unanswered::Negative { side }),
            }
        };
        let both = mean(Side::Changed, &self.changed)
            .and_then(|changed| Ok((changed, mean(Side::HeldBack, &self.held_back)?)));
        match both {
            Err(because) => Comparison::Unanswered { because },
            Ok(((mean, changed), (beside, held_back))) if query.vetoes(mean, beside) => {
                Comparison::Worse { changed, held_back }
            }
            Ok(((_, changed), (_, held_back))) => Comparison::Well { changed, held_back },
        }
    }
}

impl RolloutPolicy {
    /// How often its health queries are asked: so that the time for which a host is watched has many answers in it.
    pub fn asks_every(&self) -> Period {
        Period::from_secs((self.waves.bake.secs() / OFTEN).clamp(SHORTEST, LONGEST))
    }
}
