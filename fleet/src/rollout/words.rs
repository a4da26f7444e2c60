//! How what a rollout is and waits for reads to people: one line each.

use std::fmt;

use super::event::{Halt, Limit, Outcome, Pause};
use super::health::Comparison;
use super::state::Stage;
use super::waiting::Waiting;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotNeeded => "they have the fix already",
            Self::Refused => "a precondition does not hold there",
            Self::Busy => "they are busy",
            Self::Held => "their operators hold them back",
            Self::NotAuthentic => "they do not believe the documents",
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failed => "hurt hosts",
            Self::Lost => "silent hosts",
            Self::Splats => "hosts whose kernel complained",
        })
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { by } => write!(f, "{} paused it", by.name),
            Self::Inconclusive { wave } => write!(f, "wave {} ended undecided", wave + 1),
            Self::Veto { query } => write!(f, "changed hosts do worse by {query}"),
            Self::Unanswered { query } => {
                write!(f, "for too long nobody could say how hosts with the change do by {query}")
            }
            Self::Outage { .. } => f.write_str("hosts that were not touched fell silent, too"),
            Self::Declined { outcome } => write!(f, "too many hosts declined: {outcome}"),
            Self::OneHost { limit } => write!(f, "one host alone reached a hard limit: {limit}"),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test { wave, stratum: None } => write!(f, "the test of wave {} says so", wave + 1),
            Self::Test { wave, stratum: Some(stratum) } => {
                write!(f, "the test of wave {} says so for stratum {}", wave + 1, stratum + 1)
            }
            Self::EveryHost { .. } => f.write_str("a host was hurt, and the fleet is too small for the test"),
            Self::Limit { limit } => write!(f, "the budget of {limit} is used up"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well { changed, held_back } => {
                write!(f, "hosts with the change do well: {changed}, beside {held_back}")
            }
            Self::Worse { changed, held_back } => {
                write!(f, "hosts with the change do worse: {changed}, beside {held_back}")
            }
            Self::Unanswered { because } => write!(f, "nobody can say: {because}"),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draft => f.write_str("draft"),
            Self::AwaitingApproval => f.write_str("awaiting approval"),
            Self::Waiting => f.write_str("waiting"),
            Self::Running => f.write_str("running"),
            Self::Paused(cause) => write!(f, "paused: {cause}"),
            Self::Halted(cause) => write!(f, "halted: {cause}"),
            Self::RollingBack => f.write_str("rolling back"),
            Self::RolledBack => f.write_str("rolled back"),
            Self::Stuck => f.write_str("stuck: some hosts are not back"),
            Self::Completed => f.write_str("completed"),
            Self::Aborted => f.write_str("aborted"),
            Self::Expired => f.write_str("expired"),
            Self::Superseded(by) => {
                write!(f, "superseded by rollout {} (version {})", by.rollout, by.version)
            }
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submission => f.write_str("it has not been submitted"),
            Self::Approval { needed, have } => write!(f, "{have} of {needed} people have agreed"),
            Self::Start { at } => write!(f, "it begins at {at}"),
            Self::Window { opens: Some(opens) } => write!(f, "the next window opens at {opens}"),
            Self::Window { opens: None } => f.write_str("no window ever opens"),
            Self::Freeze { until, reason } => write!(f, "frozen until {until}: {reason}"),
            Self::People { cause } => write!(f, "people have to say that it goes on: {cause}"),
            Self::Health { query, since, because } => {
                write!(f, "nobody can say how hosts with the change do by {query}, since {since}: {because}")
            }
            Self::RollbackOrder => f.write_str("people have to say that hosts go back"),
            Self::Outcome { hosts } => write!(f, "{hosts} begun and not said how it went"),
            Self::Bake { hosts, first } => write!(f, "{hosts} watched, the first until {first}"),
            Self::Readiness { hosts } => write!(f, "{hosts} not said that they are ready"),
            Self::Busy { hosts } => write!(f, "{hosts} busy, and asked again"),
            Self::Turn { hosts, because: Some(because) } => write!(f, "{hosts} ready: {because}"),
            Self::Turn { hosts, because: None } => write!(f, "{hosts} ready, and about to ask"),
            Self::WayBack { hosts } => write!(f, "{hosts} not said that they are back"),
            Self::Decision => f.write_str("the next decision is due"),
        }
    }
}
