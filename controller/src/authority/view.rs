//! A rollout with all that its page shows: what it promises, where each host stands, how its test grew, what happened last,
//! and what an order would come to.

use std::collections::HashMap;

use fleet::assurance::Rule;
use fleet::rollout::{Fault, HostState, Pause, Stage, guarantee};
use manifests::{HostId, Rollout, Sha256, UtcTime};

use super::known::Running;
use super::standing::{Standing, word};
use super::told::Told;
use super::trace::Point;
use super::{Authority, Denied, known_rollout};

/// See [the module](self).
#[derive(Debug, Clone)]
pub struct View {
    /// Where it stands.
    pub standing: Standing,
    /// What people signed.
    pub document: Rollout,
    /// What it promises, a sentence each.
    pub guarantee: Vec<String>,
    /// The test of its waves; nothing if every host decides.
    pub test: Option<TestView>,
    /// Its hosts in their order and where they stand, by wave.
    pub waves: Vec<Vec<(HostId, &'static str)>>,
    /// What happened last, the newest first.
    pub events: Vec<Told>,
    /// What orders come to.
    pub reach: Reach,
    /// Whether a token is enough for it to go on after its pause; nothing if it is not paused.
    pub resumes_by_token: Option<bool>,
}

/// The test of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct TestView {
    /// What a hurt host weighs.
    pub failure: f64,
    /// What a good host weighs.
    pub success: f64,
    /// Where it halts, and lets nobody begin before more is known.
    pub halt_at: f64,
    /// Where it passes, below zero.
    pub pass_at: f64,
    /// How the evidence grew, by wave.
    pub points: Vec<Vec<Point>>,
}

/// How many hosts an order reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Hosts that have not begun.
    pub waits: u32,
    /// Hosts that were told to begin, and have not said how it went.
    pub under_way: u32,
    /// Hosts that are watched.
    pub watched: u32,
    /// Hosts on which something of the change is, or may be, and that may still go back.
    pub changed: u32,
    /// Hosts on which it is for too long to go back.
    pub too_late: u32,
}

impl Reach {
    fn of(running: &Running, now: UtcTime) -> Self {
        let (plan, progress) = (&running.plan, &running.progress);
        let within = plan.policy.rollback.within.min(running.document.rollback.within);
        let age = |since: UtcTime| now.timestamp().as_second() - since.timestamp().as_second();
        let mut reach = Self::default();
        for (place, state) in progress.hosts().iter().enumerate() {
            match state {
                HostState::Listed | HostState::Offered | HostState::Ready | HostState::Busy { .. } => {
                    reach.waits += 1;
                }
                HostState::Granted { .. } => reach.under_way += 1,
                HostState::Applied { .. } => reach.watched += 1,
                _ => {}
            }
            match progress.changed_since(place) {
                Some(since) if age(since) > i64::from(within.secs()) => reach.too_late += 1,
                Some(_) => reach.changed += 1,
                None => {}
            }
        }
        reach
    }
}

impl Authority {
    /// A rollout with all that its page shows.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`].
    pub fn view(&self, rollout: Sha256) -> Result<View, Denied> {
        let (turn, now) = (self.turn()?, self.now());
        let running = known_rollout(&turn.known, rollout)?;
        let (plan, progress) = (&running.plan, &running.progress);
        let waves = (0..progress.waves()).map(|wave| {
            let cell = |place| Some((running.host(place)?.id, word(progress.host(place)?)));
            progress.places(wave).filter_map(cell).collect()
        });
        let [failure, success, halt_at, pass_at] = plan.test.terms();
        let points = || (0..progress.waves()).map(|wave| running.trace.points(wave).to_vec());
        let test = (plan.rule == Rule::Test).then(|| TestView {
            failure,
            success,
            halt_at,
            pass_at,
            points: points().collect(),
        });
        let told = |(number, entry): &(u64, fleet::rollout::Entry)| {
            Told::event(*number, entry.at, rollout, Some(running), &entry.event)
        };
        Ok(View {
            standing: Standing::of(&turn.known, rollout, running, now),
            document: running.document.clone(),
            guarantee: guarantee(plan, progress),
            test,
            waves: waves.collect(),
            events: running.trace.events().map(told).collect(),
            reach: Reach::of(running, now),
            resumes_by_token: match progress.stage() {
                Stage::Paused(cause) => Some(matches!(cause, Pause::Operator { .. })),
                _ => None,
            },
        })
    }

    /// Where each host stands in a rollout, in one word.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`].
    pub fn states(&self, rollout: Sha256) -> Result<HashMap<HostId, &'static str>, Denied> {
        let turn = self.turn()?;
        let running = known_rollout(&turn.known, rollout)?;
        let hosts = running.progress.hosts().iter().enumerate();
        Ok(hosts.filter_map(|(place, state)| Some((running.host(place)?.id, word(state)))).collect())
    }
}

/// How a host was hurt, in words.
pub fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Restored => "the change failed, and everything was restored",
        Fault::Unrestored => "the change failed, and people have to look",
        Fault::Splat => "the kernel complained after the change",
        Fault::Unhealthy => "less well than before",
        Fault::Silent => "silent",
    }
}
