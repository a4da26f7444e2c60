//! Why a host got something, did not get it, or waits for it: told from the ledger alone.

use std::fmt;

use manifests::{HostId, UtcTime};
use serde::Serialize;

use super::apply::Impossible;
use super::event::{Entry, Event, Place, Successor};
use super::state::{HostState, Plan, Progress};

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Line {
    /// When.
    pub at: UtcTime,
    /// What.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.text)
    }
}

/// The story of a host in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Explanation {
    /// Where it stands in the order, from 0, and in which wave, from 0; nothing if the rollout never had it.
    pub place: Option<(Place, usize)>,
    /// What happened to it, and to the rollout while it was in it.
    pub lines: Vec<Line>,
}

/// Tells the story of `host` from the rollout's entries.
///
/// # Errors
/// [`Impossible`] if the entries are not those of this rollout.
pub fn explain(plan: &Plan, entries: &[Entry], host: HostId) -> Result<Explanation, Impossible> {
    let mut progress = Progress::new(plan);
    let mut lines = Vec::new();
    let mut place = find(plan, &progress, host, 0);
    for entry in entries {
        let before = place.and_then(|place| progress.host(place).copied());
        let known = progress.hosts().len();
        progress.apply(plan, entry)?;
        place = place.or_else(|| find(plan, &progress, host, known));
        let Some(place) = place else { continue };
        let after = progress.host(place).copied();
        if let Some(text) = line(&entry.event, place, before, after, &progress) {
            lines.push(Line { at: entry.at, text });
        }
    }
    Ok(Explanation { place: place.map(|place| (place, progress.wave_of(place))), lines })
}

/// What it means for a host that another rollout took this one's place.
fn superseded(by: Successor, state: Option<HostState>) -> String {
    let host = match state {
        Some(HostState::Granted { .. }) => "this host was told to begin, and finishes",
        Some(HostState::Applied { .. }) => "what is on this host stays, and is watched to its end",
        Some(HostState::Good { .. } | HostState::Bad { .. }) => "what is on this host stays",
        _ => "this host gets nothing of it any more",
    };
    format!("superseded by rollout {} with version {} of the manifest: {host}", by.rollout, by.version)
}

fn find(plan: &Plan, progress: &Progress, host: HostId, from: Place) -> Option<Place> {
    (from..progress.hosts().len())
        .find(|place| progress.member(plan, *place).is_some_and(|member| member.host.id == host))
}

fn line(
    event: &Event,
    place: Place,
    before: Option<HostState>,
    after: Option<HostState>,
    progress: &Progress,
) -> Option<String> {
    let wave = progress.wave_of(place) + 1;
    let text = match event {
        Event::WaveOpened { .. } | Event::ToppedUp { .. } if before != after => {
            format!("offered, with wave {wave}")
        }
        Event::Joined { .. } if before.is_none() => format!("joined, in wave {wave}"),
        Event::Offered { host } if *host == place => "offered again".to_owned(),
        Event::Ready { host } if *host == place => "ready".to_owned(),
        Event::Declined { host, outcome } if *host == place => format!("declined: {outcome}"),
        Event::Granted { host, epoch, .. } if *host == place => format!("told to begin, under epoch {epoch}"),
        Event::Applied { host } if *host == place => "changed; watched from now on".to_owned(),
        Event::Failed { host, fault } if *host == place => format!("hurt: {fault:?}"),
        Event::Silenced { host } if *host == place => "silent, and no outage explains it".to_owned(),
        Event::Matured { host } if *host == place => "watched for the whole bake, and good".to_owned(),
        Event::Withdrawn { host } if *host == place => {
            "gets nothing in this rollout any more: it came back from this manifest, or left the fleet"
                .to_owned()
        }
        Event::Rebooted { host, into } if *host == place => {
            format!("runs kernel {} now: offered again", into.kernel)
        }
        Event::Retried { host, by } if *host == place => format!("may have it again: {} said so", by.name),
        Event::RollbackGranted { host, .. } if *host == place => "told to go back".to_owned(),
        Event::RolledBack { host } if *host == place => "back".to_owned(),
        Event::RollbackFailed { host } if *host == place => "not back: people have to look".to_owned(),
        Event::Compared { query, comparison } => format!("by {query} {comparison}"),
        Event::Approved { by } => format!("the rollout was approved by {}", by.name),
        Event::CalendarClosed => "the rollout waits: the calendar closed".to_owned(),
        Event::CalendarOpened => "the rollout goes on: the calendar opened".to_owned(),
        Event::Paused { cause } => format!("the rollout paused: {cause}"),
        Event::Resumed { by } => format!("the rollout goes on: {} said so", by.name),
        Event::Halted { cause } => format!("the rollout halted: {cause}"),
        Event::RollbackBegun { .. } => "the rollout goes back".to_owned(),
        Event::Aborted { by } => format!("the rollout was given up by {}", by.name),
        Event::Expired => "the rollout's time was over".to_owned(),
        Event::Superseded { by } => superseded(*by, after),
        Event::Completed => "the rollout completed".to_owned(),
        _ => return None,
    };
    Some(text)
}
