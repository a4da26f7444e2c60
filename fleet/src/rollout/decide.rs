//! What follows from a rollout's state and the facts of the moment: the next events to write down.
//!
//! Deciding grants nothing; hosts ask for that themselves ([`super::begin`]). What is decided here is what no
//! host asks for: that a wave opens or passes, that a host was watched for long enough or is silent, that it is
//! time to pause, halt or go back. Whoever calls writes the events down, applies them, and asks again until
//! there are none.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{DomainName, GroupName, HostId, Period, UtcTime};

use super::apply::allowed;
use super::event::{Event, Halt, Limit, Outcome, Pause, Place, Successor, Wave};
use super::health::{Comparison, Sides};
use super::state::{HostState, Plan, Progress, Stage};
use crate::assurance::{Rule, later};
use crate::policy::RollbackAuthority;
use crate::policy::calendar::Opening;
use crate::test::Verdict;
use crate::test::silence::{self, Group};

/// What is known besides the ledger.
pub struct Facts<'f> {
    /// When a host was last heard of; nothing if never.
    pub last_seen: &'f dyn Fn(Place) -> Option<UtcTime>,
    /// Since when some controller has been listening without a break. Nobody is silent while nobody listens.
    pub listening_since: UtcTime,
    /// What came out of the health queries just now; nothing of one that was not asked.
    pub readings: &'f BTreeMap<GroupName, Comparison>,
    /// Hosts that once came back from this manifest.
    pub came_back: &'f BTreeSet<HostId>,
    /// A rollout that takes this one's place, and has begun.
    pub successor: Option<Successor>,
}

impl Facts<'_> {
    /// When a host was heard of last, or could have been: nobody is silent while nobody listens.
    pub(super) fn heard(&self, host: Place) -> Option<UtcTime> {
        (self.last_seen)(host).max(Some(self.listening_since))
    }
}

/// So long before `now`; what happened then or before is that old.
pub(super) fn earlier(now: UtcTime, age: Period) -> UtcTime {
    later(now, -i64::from(age.secs()))
}

/// The events that are due. Empty: there is nothing to do but wait.
pub fn decide(plan: &Plan, progress: &Progress, facts: &Facts<'_>, now: UtcTime) -> Vec<Event> {
    let deadline = &plan.policy.deadline;
    let (long_ago, overdue) = (earlier(now, deadline.silence), earlier(now, deadline.host));
    let deciding = Deciding { plan, progress, long_ago, overdue };
    // What stops comes before what goes on.
    if let Some(event) = deciding.stop(facts, now) {
        return vec![event];
    }
    let hosts = deciding.hosts(facts, now);
    if !hosts.is_empty() {
        return hosts;
    }
    deciding.go_on(facts, now).into_iter().collect()
}

struct Deciding<'d> {
    plan: &'d Plan,
    progress: &'d Progress,
    /// Who was last heard of then, or before, is silent.
    long_ago: UtcTime,
    /// Who was told then, or before, to begin, owes the answer.
    overdue: UtcTime,
}

impl Deciding<'_> {
    /// Whether it stops: halted, superseded, expired, paused.
    fn stop(&self, facts: &Facts<'_>, now: UtcTime) -> Option<Event> {
        let Self { plan, progress, .. } = self;
        if !progress.stage().is_live() {
            return None;
        }
        if let Some(cause) = self.halt() {
            return Some(Event::Halted { cause });
        }
        if let Some(by) = facts.successor {
            return Some(Event::Superseded { by });
        }
        // What is completed has done what its document was for.
        if now >= plan.expires && progress.stage() != &Stage::Completed {
            return Some(Event::Expired);
        }
        if let Some(event) = self.compared(facts, now) {
            return Some(event);
        }
        let can = matches!(progress.stage(), Stage::Waiting | Stage::Running | Stage::Completed);
        let cause = if can { self.pause(facts, now) } else { None };
        cause.map(|cause| Event::Paused { cause })
    }

    fn halt(&self) -> Option<Halt> {
        let Self { plan, progress, .. } = self;
        let first = progress.failures().first()?;
        if plan.rule == Rule::EveryHost {
            return Some(Halt::EveryHost { host: first.host });
        }
        let halts = |wave: Wave| match progress.verdict(plan, wave) {
            (Verdict::Halt, stratum) => Some(Halt::Test { wave, stratum }),
            _ => None,
        };
        (0..progress.opened()).filter(|wave| progress.is_held(plan, *wave)).find_map(halts).or_else(|| {
            let over = |limit: &Limit| {
                let hosts = progress.at_limit(*limit);
                hosts > 1 && hosts > allowed(plan, progress, *limit)
            };
            Limit::ALL.into_iter().find(over).map(|limit| Halt::Limit { limit })
        })
    }

    /// A health query that came out otherwise than what is written down.
    fn compared(&self, facts: &Facts<'_>, now: UtcTime) -> Option<Event> {
        let Self { plan, progress, .. } = self;
        let news = |query: &&GroupName| {
            let known = progress.compared.get(*query);
            facts
                .readings
                .get(*query)
                .is_some_and(|read| known.is_none_or(|(_, before)| !before.is_like(read)))
        };
        let query = plan.policy.health.iter().map(|query| &query.name).find(news)?;
        Sides::of(plan, progress, |host| facts.heard(host), now)?;
        Some(Event::Compared { query: query.clone(), comparison: facts.readings[query] })
    }

    /// Whether all health queries let a wave pass: there is nothing to compare, or the changed do well now, or people
    /// have seen that they do not, or that nobody can say.
    fn is_well(&self, facts: &Facts<'_>, now: UtcTime) -> bool {
        let Self { plan, progress, .. } = self;
        let is_well = |query: &GroupName| match facts.readings.get(query) {
            Some(Comparison::Well { .. }) => true,
            Some(Comparison::Worse { .. }) => progress.seen_vetoes.contains(query),
            Some(Comparison::Unanswered { .. }) | None => progress.seen_unanswered.contains(query),
        };
        plan.policy.health.iter().all(|query| is_well(&query.name))
            || Sides::of(plan, progress, |host| facts.heard(host), now).is_none()
    }

    fn pause(&self, facts: &Facts<'_>, now: UtcTime) -> Option<Pause> {
        let Self { plan, progress, .. } = self;
        let one = |limit: &Limit| progress.at_limit(*limit) == 1 && allowed(plan, progress, *limit) == 0;
        if let Some(limit) = Limit::ALL.into_iter().find(one) {
            return Some(Pause::OneHost { limit });
        }
        let hosts = progress.hosts().len() as u32;
        let budgets = &plan.policy.budgets;
        let over = |outcome: &Outcome| {
            let amount = match outcome {
                Outcome::NotNeeded => budgets.not_needed,
                Outcome::Refused => budgets.refused,
                Outcome::Busy => budgets.busy,
                Outcome::Held => budgets.held,
                Outcome::NotAuthentic => budgets.not_authentic,
            };
            let seen = progress.seen_declined[*outcome as usize];
            progress.declined(*outcome) > amount.rounded_up_of(hosts).max(seen)
        };
        if let Some(outcome) = Outcome::ALL.into_iter().find(over) {
            return Some(Pause::Declined { outcome });
        }
        let vetoes = |query: &&GroupName| {
            matches!(facts.readings.get(*query), Some(Comparison::Worse { .. }))
                && !progress.seen_vetoes.contains(*query)
        };
        let veto = plan.policy.health.iter().map(|query| &query.name).find(vetoes);
        let owed = || progress.unanswered().find(|(_, since, _)| *since <= self.long_ago);
        let cause = match (veto, owed()) {
            (Some(query), _) => Pause::Veto { query: query.clone() },
            (None, Some((query, ..))) => Pause::Unanswered { query: query.clone() },
            (None, None) => return None,
        };
        Sides::of(plan, progress, |host| facts.heard(host), now).map(|_| cause)
    }

    /// What is due of single hosts.
    fn hosts(&self, facts: &Facts<'_>, now: UtcTime) -> Vec<Event> {
        let Self { plan, progress, .. } = self;
        let mut events = Vec::new();
        if matches!(progress.stage(), Stage::Draft | Stage::RolledBack) {
            return events;
        }
        // Applied at this time or before: watched for long enough by now.
        let matured = earlier(now, plan.policy.waves.bake);
        let mut domains = BTreeMap::new();
        for wave in 0..progress.opened() {
            let count = progress.count(wave);
            let moving = count.granted + count.baking + count.busy > 0;
            let denied = count.pending > 0 && !facts.came_back.is_empty();
            if !moving && !denied {
                continue;
            }
            for host in progress.places(wave) {
                match progress.hosts()[host] {
                    HostState::Busy { until } if now >= until && progress.stage().is_live() => {
                        events.push(Event::Offered { host });
                    }
                    HostState::Offered | HostState::Ready if denied && self.came_back(host, facts) => {
                        events.push(Event::Withdrawn { host });
                    }
                    HostState::Granted { .. } | HostState::Applied { .. } => {
                        match self.silence(host, facts, &mut domains) {
                            Some(silence::Cause::Release) => events.push(Event::Silenced { host }),
                            Some(silence::Cause::Outage) => {
                                // Once: a rollout that is paused, or over, waits for the hosts to come back.
                                if matches!(
                                    progress.stage(),
                                    Stage::Waiting | Stage::Running | Stage::Completed
                                ) {
                                    return vec![Event::Paused { cause: Pause::Outage { host } }];
                                }
                            }
                            None => {
                                if let HostState::Applied { since, .. } = progress.hosts()[host]
                                    && since <= matured
                                {
                                    events.push(Event::Matured { host });
                                }
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        if progress.stage() == &Stage::RollingBack {
            self.late_ways_back(now, &mut events);
        }
        events
    }

    fn came_back(&self, host: Place, facts: &Facts<'_>) -> bool {
        let member = self.progress.member(self.plan, host);
        member.is_some_and(|member| facts.came_back.contains(&member.host.id))
    }

    /// Whose doing it is that a host owes an answer; nothing if it does not.
    fn silence<'p>(
        &'p self,
        host: Place,
        facts: &Facts<'_>,
        domains: &mut BTreeMap<&'p DomainName, silence::Cause>,
    ) -> Option<silence::Cause> {
        if let HostState::Granted { since, .. } = self.progress.hosts()[host] {
            if since.max(facts.listening_since) > self.overdue {
                return None;
            }
            if !self.is_silent(host, facts) {
                // It talks, and does not say what became of it.
                return Some(silence::Cause::Release);
            }
        } else if !self.is_silent(host, facts) {
            return None;
        }
        let domain = &self.progress.member(self.plan, host)?.host.domain;
        if let Some(known) = domains.get(domain) {
            return Some(*known);
        }
        let cause = self.cause_in(domain, facts);
        domains.insert(domain, cause);
        Some(cause)
    }

    fn is_silent(&self, host: Place, facts: &Facts<'_>) -> bool {
        let since = match self.progress.hosts()[host] {
            HostState::Granted { since, .. } | HostState::Applied { since, .. } => Some(since),
            _ => None,
        };
        let heard = facts.heard(host).max(since);
        heard.is_some_and(|heard| heard <= self.long_ago)
    }

    fn cause_in(&self, domain: &DomainName, facts: &Facts<'_>) -> silence::Cause {
        let (mut changed, mut held_back) = (Group { silent: 0, hosts: 0 }, Group { silent: 0, hosts: 0 });
        for (host, state) in self.progress.hosts().iter().enumerate() {
            let member = self.progress.member(self.plan, host);
            if member.is_none_or(|member| member.host.domain != *domain) {
                continue;
            }
            let group = match state {
                HostState::Granted { .. } | HostState::Applied { .. } | HostState::Good { .. } => {
                    &mut changed
                }
                // Who was never heard of tells nothing.
                HostState::Listed
                | HostState::Offered
                | HostState::Ready
                | HostState::Busy { .. }
                | HostState::Declined(_)
                    if (facts.last_seen)(host).is_some() =>
                {
                    &mut held_back
                }
                _ => continue,
            };
            group.hosts += 1;
            group.silent += u32::from(self.is_silent(host, facts));
        }
        silence::cause(changed, held_back)
    }

    /// Hosts that did not say that they are back, and those that may not be told any more.
    fn late_ways_back(&self, now: UtcTime, events: &mut Vec<Event>) {
        let too_old = earlier(now, self.plan.policy.rollback.within);
        for (host, state) in self.progress.hosts().iter().enumerate() {
            let late = match state {
                HostState::RollbackGranted { since, .. } => *since <= self.overdue,
                _ => self.progress.changed_since(host).is_some_and(|since| since < too_old),
            };
            if late {
                events.push(Event::RollbackFailed { host });
            }
        }
    }

    /// What goes on by itself.
    fn go_on(&self, facts: &Facts<'_>, now: UtcTime) -> Option<Event> {
        let Self { plan, progress, .. } = self;
        match progress.stage() {
            Stage::Halted(_) => (plan.policy.rollback.authority == RollbackAuthority::Automatic)
                .then_some(Event::RollbackBegun { by: None }),
            Stage::RollingBack => self.way_back_is_over().then_some(Event::RollbackEnded),
            Stage::Waiting => {
                let open = now >= plan.not_before && plan.policy.calendar().at(now) == Opening::Open;
                self.wave(facts, now).or(open.then_some(Event::CalendarOpened))
            }
            Stage::Running => match plan.policy.calendar().at(now) {
                Opening::Open => self.wave(facts, now),
                _ => Some(Event::CalendarClosed),
            },
            _ => None,
        }
    }

    fn way_back_is_over(&self) -> bool {
        let hosts = self.progress.hosts();
        let stuck = hosts.iter().filter(|host| **host == HostState::Stuck).count() as u32;
        let all = hosts.len() as u32;
        stuck > self.plan.policy.rollback.stuck.rounded_up_of(all)
            || !(0..hosts.len())
                .any(|host| hosts[host].is_open() || self.progress.changed_since(host).is_some())
    }

    /// What becomes of the open wave, or that the next one opens.
    fn wave(&self, facts: &Facts<'_>, now: UtcTime) -> Option<Event> {
        let Self { plan, progress, .. } = self;
        let (opened, passed, waves) = (progress.opened(), progress.passed(), progress.ends.len());
        if opened == passed {
            let asks = plan.policy.approvals.after_first_wave > 0 && opened == 1;
            let agreed = progress.agreed > u32::from(plan.policy.approvals.start > 0);
            return match () {
                () if opened == waves => Some(Event::Completed),
                () if asks && !agreed => Some(Event::ApprovalAsked),
                () if progress.stage() == &Stage::Running => Some(Event::WaveOpened { wave: opened }),
                () => None,
            };
        }
        let wave = passed;
        if !self.is_settled(wave, facts, now) {
            return None;
        }
        if self.passes(wave) || progress.accepted == Some(wave) {
            return self.is_well(facts, now).then_some(Event::WavePassed { wave });
        }
        match self.top_up(wave) {
            0 => (progress.stage() == &Stage::Running)
                .then_some(Event::Paused { cause: Pause::Inconclusive { wave } }),
            hosts => Some(Event::ToppedUp { wave, hosts }),
        }
    }

    /// Whether all hosts of a wave that can be waited for have come out.
    fn is_settled(&self, wave: Wave, facts: &Facts<'_>, now: UtcTime) -> bool {
        let Self { plan, progress, .. } = self;
        let count = progress.count(wave);
        if count.granted + count.baking > 0 {
            return false;
        }
        if count.pending + count.busy == 0 {
            return true;
        }
        let waves = &plan.policy.waves;
        let patience = i64::from(waves.start_over.secs()) + i64::from(plan.policy.deadline.host.secs());
        let impatient = now >= later(progress.opened[wave].at, patience);
        progress.places(wave).all(|host| match progress.hosts()[host] {
            // Who is away begins when it is back, in this wave or behind it.
            HostState::Ready => self.is_silent(host, facts),
            HostState::Offered | HostState::Busy { .. } => impatient || self.is_silent(host, facts),
            _ => true,
        })
    }

    fn passes(&self, wave: Wave) -> bool {
        let Self { plan, progress, .. } = self;
        let tally = progress.tally(plan, wave, None);
        let all_good = tally.bad == 0 && tally.granted == tally.good;
        let is_last = wave + 1 == progress.ends.len();
        let small = plan.rule == Rule::EveryHost || (is_last && tally.granted < plan.test.least());
        // Where nobody needs it there is nothing to test.
        let idle = progress.places(wave).all(|host| {
            let state = progress.hosts()[host];
            matches!(state, HostState::Declined(Outcome::NotNeeded) | HostState::Withdrawn)
        });
        idle || (small && all_good && tally.good > 0)
            || (plan.rule == Rule::Test && progress.verdict(plan, wave).0 == Verdict::Pass)
    }

    /// How many more hosts would let an undecided wave pass if they all were good; 0 if there are none, or it
    /// may take no more.
    fn top_up(&self, wave: Wave) -> usize {
        let Self { plan, progress, .. } = self;
        if progress.top_ups[wave] >= plan.policy.waves.top_ups {
            return 0;
        }
        let tally = progress.tally(plan, wave, None);
        let wanted = match plan.rule {
            Rule::Test => plan.test.needed(tally.bad).saturating_sub(tally.good).max(1) as usize,
            Rule::EveryHost => 1,
        };
        wanted.min(progress.hosts().len() - progress.places(wave).end)
    }
}
