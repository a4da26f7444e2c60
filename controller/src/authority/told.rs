//! What the ledger says, in words for people: one line for each entry.

use fleet::rollout::Event;
use manifests::{HostId, Sha256, UtcTime};

use super::facts::{Departure, Fact};
use super::known::Running;
use super::{Authority, Denied};
use crate::store::Which;

/// An entry of the ledger, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its number.
    pub number: u64,
    /// When.
    pub at: UtcTime,
    /// Of which rollout.
    pub rollout: Option<Sha256>,
    /// Of which host.
    pub host: Option<HostId>,
    /// What, without the name of the host.
    pub words: String,
}

impl Told {
    fn new(number: u64, at: UtcTime, words: impl Into<String>) -> Self {
        Self { number, at, rollout: None, host: None, words: words.into() }
    }

    fn of_host(self, host: HostId) -> Self {
        Self { host: Some(host), ..self }
    }

    /// An event of a rollout.
    pub(super) fn event(
        number: u64,
        at: UtcTime,
        rollout: Sha256,
        running: Option<&Running>,
        event: &Event,
    ) -> Self {
        let host = match event {
            Event::Joined { host } => Some(host.id),
            other => other.host().zip(running).and_then(|(place, running)| Some(running.host(place)?.id)),
        };
        Self { number, at, rollout: Some(rollout), host, words: words(event) }
    }
}

impl Authority {
    /// At most `most` entries before number `before`, the newest first; without, the last ones. And how many there are.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn told(&self, before: Option<u64>, most: usize) -> Result<(Vec<Told>, u64), Denied> {
        let size = self.store.size()?;
        let before = before.unwrap_or(size).min(size);
        let from = before.saturating_sub(most as u64);
        let entries = self.store.entries(&Which::From(from), (before - from) as usize)?;
        let turn = self.turn()?;
        let mut told = Vec::with_capacity(entries.len());
        for (number, entry) in entries {
            let rollout = entry.stream.as_str().strip_prefix("rollout/").and_then(|id| id.parse().ok());
            let fact = Fact::read(&entry)?;
            told.push(match (fact, rollout) {
                (Fact::Happened { at, event }, Some(rollout)) => {
                    Told::event(number, at, rollout, turn.known.rollouts.get(&rollout), &event)
                }
                (fact, rollout) => Told { rollout, ..of_fact(number, fact) },
            });
        }
        told.reverse();
        Ok((told, size))
    }
}

fn of_fact(number: u64, fact: Fact) -> Told {
    let told = |at, words: String| Told::new(number, at, words);
    match fact {
        Fact::Accepted { at, manifest, .. } => told(at, format!("accepted: manifest {manifest}")),
        Fact::Happened { at, event } => told(at, words(&event)),
        Fact::TokenMade { at, by, groups, domain, role, hosts, expires, .. } => told(
            at,
            format!(
                "{by} made a token for {hosts} host(s) of {}, domain {domain}, role {role}, until {expires}",
                groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        ),
        Fact::Enrolled { at, host, .. } => told(at, "came into the fleet".to_owned()).of_host(host),
        Fact::Described { at, host, .. } => told(at, "said what it is like".to_owned()).of_host(host),
        Fact::Moved { at, host, by, groups, domain, role } => told(
            at,
            format!(
                "moved by {by}: groups {}, domain {domain}, role {role}",
                groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        )
        .of_host(host),
        Fact::Retried { at, manifest, hosts, by } => {
            told(at, format!("{} let {} host(s) have manifest {manifest} again", by.name, hosts.len()))
        }
        Fact::Left { at, host, how, by } => {
            let how = match how {
                Departure::Retired => "retired",
                Departure::Revoked => "revoked",
            };
            told(at, format!("{how} by {by}")).of_host(host)
        }
        Fact::Admitted { at, name, role, by } => {
            let by = by.map_or("the first start".to_owned(), |by| by.to_string());
            told(at, format!("{name} may ask, as {role}: {by} let them in"))
        }
        Fact::LeaseTaken { at, holder, epoch } => told(at, format!("{holder} leads, under epoch {epoch}")),
        Fact::Restored { at, by, size } => {
            told(at, format!("restored from a backup of {size} entries by {by}"))
        }
    }
}

/// An event in words; of a host, without its name.
fn words(event: &Event) -> String {
    match event {
        Event::Submitted => "handed in".to_owned(),
        Event::Approved { by } => format!("{} agrees", by.name),
        Event::ApprovalAsked => "people have to agree before the next wave".to_owned(),
        Event::CalendarOpened => "the calendar lets hosts begin".to_owned(),
        Event::CalendarClosed => "the calendar lets no more hosts begin".to_owned(),
        Event::WaveOpened { wave } => format!("wave {} opens", wave + 1),
        Event::ToppedUp { wave, hosts } => format!("wave {} takes {hosts} more hosts", wave + 1),
        Event::WavePassed { wave } => format!("wave {} has passed", wave + 1),
        Event::Offered { .. } => "offered again".to_owned(),
        Event::Ready { .. } => "ready".to_owned(),
        Event::Declined { outcome, .. } => format!("declined: {outcome}"),
        Event::Granted { epoch, .. } => format!("told to begin, under epoch {epoch}"),
        Event::Applied { .. } => "changed; watched from now on".to_owned(),
        Event::Failed { fault, .. } => format!("hurt: {}", super::view::fault(*fault)),
        Event::Matured { .. } => "watched for the whole bake, and good".to_owned(),
        Event::Silenced { .. } => "silent, and no outage explains it".to_owned(),
        Event::Withdrawn { .. } => "gets nothing in this rollout any more".to_owned(),
        Event::Retried { by, .. } => format!("may have it again: {} said so", by.name),
        Event::Rebooted { into, .. } => format!("runs kernel {} now: offered again", into.kernel),
        Event::Joined { .. } => "joined".to_owned(),
        Event::Compared { query, comparison } => format!("by {query} {comparison}"),
        Event::Paused { cause } => format!("paused: {cause}"),
        Event::Resumed { by } => format!("goes on: {} said so", by.name),
        Event::Halted { cause } => format!("halted: {cause}"),
        Event::RollbackBegun { by: Some(by) } => format!("goes back: {} said so", by.name),
        Event::RollbackBegun { by: None } => "goes back, by its policy".to_owned(),
        Event::RollbackGranted { epoch, .. } => format!("told to go back, under epoch {epoch}"),
        Event::RolledBack { .. } => "back".to_owned(),
        Event::RollbackFailed { .. } => "not back: people have to look".to_owned(),
        Event::RollbackEnded => "the way back has ended".to_owned(),
        Event::Completed => "completed".to_owned(),
        Event::Aborted { by } => format!("given up by {}", by.name),
        Event::Expired => "its time was over".to_owned(),
        Event::Superseded { by } => format!("superseded by rollout {} (version {})", by.rollout, by.version),
    }
}
