//! Playing a policy before it is let at a fleet: the real state machine, with hosts that are made up.
//!
//! [`play`] lets one release go through one fleet: [`crate::rollout::decide`] and [`crate::rollout::begin`] decide
//! as they would for real; only hosts and time are simulated. [`forecast`] plays many and sums up. The same seed
//! gives the same play, on every machine.
//!
//! - [`inventory`]: a fleet that does not exist
//! - [`random`]: the dice

pub mod inventory;
pub mod random;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use manifests::{GroupName, Nonce, Period, UtcTime};
use serde::Serialize;

use crate::assurance::later;
use crate::rollout::{
    Action, Begin, Book, Comparison, Entry, Event, Facts, Fault, Figure, HostState, NotNow, Place, Plan,
    Progress, Request, Stage, begin, decide,
};
use crate::test::bounds;
use random::Random;

/// What is assumed of the release and of the hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumptions {
    /// The part of hosts that the release hurts.
    pub failure_rate: f64,
    /// How long a host takes.
    pub transaction: Period,
    /// A hurt host shows it within this time after it was changed, evenly; `0s`: in the transaction itself.
    pub shows_within: Period,
    /// How often the controller looks.
    pub look: Period,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            failure_rate: 0.0,
            transaction: Period::from_secs(120),
            shows_within: Period::from_secs(0),
            look: Period::from_secs(300),
        }
    }
}

/// How a play ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// All waves passed.
    Completed,
    /// It halted by itself.
    Halted,
    /// It waits for people.
    Paused,
    /// Its time was over.
    Expired,
}

/// One play.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Play {
    /// How it ended.
    pub end: End,
    /// Hosts that were hurt.
    pub hurt: u32,
    /// Hosts that had begun.
    pub begun: u32,
    /// Waves that had opened.
    pub waves: usize,
    /// From the start to the end, in seconds.
    pub seconds: u64,
}

/// Plays one release through the fleet of `plan`.
pub fn play(plan: &Plan, assumptions: &Assumptions, seed: u64) -> Play {
    Player::new(plan, assumptions, seed).run()
}

/// Something that will happen to a host, the earliest first.
type Coming = std::cmp::Reverse<(UtcTime, Place, Happening)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Applied,
    Hurt,
}

fn well() -> Option<Comparison> {
    let alike = Figure::new(1.0)?;
    Some(Comparison::Well { changed: alike, held_back: alike })
}

struct Player<'p> {
    plan: &'p Plan,
    assumptions: &'p Assumptions,
    random: Random,
    now: UtcTime,
    progress: Progress,
    book: Book,
    coming: BinaryHeap<Coming>,
    ready: BTreeSet<Place>,
    offered: usize,
    /// What metrics say is not played: by them all is well.
    readings: BTreeMap<GroupName, Comparison>,
}

impl<'p> Player<'p> {
    fn new(plan: &'p Plan, assumptions: &'p Assumptions, seed: u64) -> Self {
        Self {
            plan,
            assumptions,
            random: Random::new(seed),
            now: plan.not_before,
            progress: Progress::new(plan),
            book: Book::of(plan.layout.members.iter().map(|member| &member.host), 1),
            coming: BinaryHeap::new(),
            ready: BTreeSet::new(),
            offered: 0,
            readings: plan
                .policy
                .health
                .iter()
                .filter_map(|query| Some((query.name.clone(), well()?)))
                .collect(),
        }
    }

    fn run(mut self) -> Play {
        self.record(Event::Submitted);
        loop {
            self.happen();
            self.settle();
            if let Some(end) = self.end() {
                return self.summary(end);
            }
            self.ask();
            self.now = self.next_look();
        }
    }

    /// Writes an event down. The machine allows what it decided, and hosts here do nothing else.
    fn record(&mut self, event: Event) {
        let entry = Entry { at: self.now, event };
        self.progress.apply(self.plan, &entry).expect("what was decided can happen");
    }

    /// What has come due of hosts.
    fn happen(&mut self) {
        while self.coming.peek().is_some_and(|std::cmp::Reverse((at, ..))| *at <= self.now) {
            let Some(std::cmp::Reverse((_, host, happening))) = self.coming.pop() else { return };
            if let Some(HostState::Granted { .. }) = self.progress.host(host)
                && let Some(member) = self.plan.layout.members.get(host)
            {
                self.book.strike(&member.host);
            }
            self.record(match happening {
                Happening::Applied => Event::Applied { host },
                Happening::Hurt => Event::Failed { host, fault: Fault::Restored },
            });
        }
    }

    /// Decides until there is nothing more to decide; hosts that are offered the manifest are ready at once, and
    /// people agree whenever they are asked.
    fn settle(&mut self) {
        loop {
            let now = self.now;
            let came_back = BTreeSet::new();
            let seen = |_| Some(now);
            let facts = Facts {
                last_seen: &seen,
                listening_since: self.plan.not_before,
                readings: &self.readings,
                came_back: &came_back,
                successor: None,
            };
            let mut events = decide(self.plan, &self.progress, &facts, now);
            if events.is_empty() && self.progress.stage() == &Stage::AwaitingApproval {
                let (_, have) = self.progress.approval(self.plan);
                events.push(Event::Approved { by: approver(have) });
            }
            if events.is_empty() || self.end().is_some() {
                return;
            }
            events.into_iter().for_each(|event| self.record(event));
            self.get_ready();
        }
    }

    fn get_ready(&mut self) {
        let Some(last) = self.progress.opened().checked_sub(1) else { return };
        for host in self.offered..self.progress.places(last).end {
            self.record(Event::Ready { host });
            self.ready.insert(host);
            self.offered = host + 1;
        }
    }

    /// Lets hosts ask, in their order, until the rollout as a whole says no.
    fn ask(&mut self) {
        let hosts: Vec<Place> = self.ready.iter().copied().collect();
        for host in hosts {
            let nonce = Nonce::from_bytes([0; 16]);
            let request = Request { host, action: Action::Apply, nonce, epoch: 1 };
            match begin(self.plan, &self.progress, &self.book, &request, self.now) {
                Ok(Begin::Write(event)) => {
                    self.record(event);
                    self.ready.remove(&host);
                    self.book.enter(&self.plan.layout.members[host].host);
                    self.plan_ahead(host);
                }
                Err(NotNow::DomainCap { .. } | NotNow::ServiceCap { .. }) | Ok(Begin::Again) => {}
                Err(_) => return,
            }
        }
    }

    fn plan_ahead(&mut self, host: Place) {
        let applied = later(self.now, i64::from(self.assumptions.transaction.secs()));
        let hurt = self.random.happens(self.assumptions.failure_rate);
        let shows = i64::from(self.assumptions.shows_within.secs());
        let push = |coming: &mut BinaryHeap<Coming>, at, happening| {
            coming.push(std::cmp::Reverse((at, host, happening)));
        };
        if !hurt {
            push(&mut self.coming, applied, Happening::Applied);
        } else if shows == 0 {
            push(&mut self.coming, applied, Happening::Hurt);
        } else {
            push(&mut self.coming, applied, Happening::Applied);
            let delay = 1 + self.random.below(shows as u64) as i64;
            push(&mut self.coming, later(applied, delay), Happening::Hurt);
        }
    }

    fn end(&self) -> Option<End> {
        match self.progress.stage() {
            Stage::Completed => Some(End::Completed),
            Stage::Halted(_) | Stage::RollingBack => Some(End::Halted),
            Stage::Paused(_) => Some(End::Paused),
            Stage::Expired => Some(End::Expired),
            _ => None,
        }
    }

    /// When the controller looks again: regularly while hosts begin, else when something is due.
    fn next_look(&self) -> UtcTime {
        let look = later(self.now, i64::from(self.assumptions.look.secs()));
        if !self.ready.is_empty() && self.progress.stage() == &Stage::Running {
            return look;
        }
        let happens = self.coming.peek().map(|std::cmp::Reverse((at, ..))| *at);
        let opens = (self.progress.stage() == &Stage::Waiting)
            .then(|| self.plan.policy.calendar().opens(later(self.now, 1)))
            .flatten();
        let matures = self.first_to_mature();
        let next = [happens, opens, matures].into_iter().flatten().min();
        next.map_or(look, |next| next.max(later(self.now, 1)))
    }

    fn first_to_mature(&self) -> Option<UtcTime> {
        let wave = self.progress.passed().min(self.progress.opened().checked_sub(1)?);
        let applied =
            self.progress.hosts()[self.progress.places(wave)].iter().filter_map(|host| match host {
                HostState::Applied { since, .. } => Some(*since),
                _ => None,
            });
        applied.min().map(|since| later(since, i64::from(self.plan.policy.waves.bake.secs())))
    }

    fn summary(&self, end: End) -> Play {
        let begun = |host: &&HostState| {
            matches!(
                host,
                HostState::Granted { .. }
                    | HostState::Applied { .. }
                    | HostState::Good { .. }
                    | HostState::Bad { .. }
            )
        };
        Play {
            end,
            hurt: self.progress.failures().len() as u32,
            begun: self.progress.hosts().iter().filter(begun).count() as u32,
            waves: self.progress.opened(),
            seconds: (self.now.timestamp().as_second() - self.plan.not_before.timestamp().as_second()) as u64,
        }
    }
}

fn approver(number: u32) -> crate::rollout::Author {
    let name = format!("approver-{number}").parse().expect("a key name");
    crate::rollout::Author { name, proof: crate::rollout::Proof::Signature }
}

/// What many plays come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// How many were played.
    pub plays: u32,
    /// How many completed.
    pub completed: u32,
    /// How many halted.
    pub halted: u32,
    /// How many paused.
    pub paused: u32,
    /// How many ran out of time.
    pub expired: u32,
    /// Hosts hurt: the median, and what 95 % of the plays do not pass.
    pub hurt: (u32, u32),
    /// Seconds: the median, and what 95 % of the plays do not pass.
    pub seconds: (u64, u64),
    /// What no play can show.
    pub undetectable: Undetectable,
}

/// What is not seen, however well it goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Undetectable {
    /// For each wave: rates of hurt hosts below this pass it unseen more often than once in twenty times.
    pub rates: Vec<f64>,
    /// For each wave: the same, for failures that come with time, per host and day.
    pub rates_per_day: Vec<f64>,
}

/// Plays `plays` releases, with the seeds from `seed` on, and sums up.
pub fn forecast(plan: &Plan, assumptions: &Assumptions, plays: u32, seed: u64) -> Forecast {
    let played: Vec<Play> =
        (0..plays).map(|number| play(plan, assumptions, seed.wrapping_add(u64::from(number)))).collect();
    let ended = |end: End| played.iter().filter(|play| play.end == end).count() as u32;
    Forecast {
        plays,
        completed: ended(End::Completed),
        halted: ended(End::Halted),
        paused: ended(End::Paused),
        expired: ended(End::Expired),
        hurt: median_and_most(played.iter().map(|play| play.hurt)),
        seconds: median_and_most(played.iter().map(|play| play.seconds)),
        undetectable: undetectable(plan),
    }
}

/// What the waves of `plan` cannot show.
pub fn undetectable(plan: &Plan) -> Undetectable {
    let days = f64::from(plan.policy.waves.bake.secs()) / 86_400.0;
    let cumulative = || plan.layout.ends.iter().map(|end| *end as u32);
    Undetectable {
        rates: cumulative().map(|hosts| bounds::upper(0, hosts)).collect(),
        rates_per_day: cumulative().map(|hosts| bounds::slowest_seen(hosts, days)).collect(),
    }
}

fn median_and_most<T: Ord + Copy + Default>(values: impl Iterator<Item = T>) -> (T, T) {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
    (at(50).copied().unwrap_or_default(), at(95).copied().unwrap_or_default())
}
