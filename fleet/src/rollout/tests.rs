//! Stories of rollouts, told event by event.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{HostId, Nonce, Sha256, UtcTime};
use proptest::prelude::*;

use super::*;
use crate::host::Host;
use crate::policy::RolloutPolicy;
use crate::sample;
use crate::simulate::random::Random;

/// A rollout, its ledger and a clock.
struct Story {
    plan: Plan,
    progress: Progress,
    entries: Vec<Entry>,
    book: Book,
    now: UtcTime,
    silent: BTreeSet<Place>,
    came_back: BTreeSet<HostId>,
    successor: Option<Successor>,
    readings: BTreeMap<manifests::GroupName, Comparison>,
}

fn time(text: &str) -> UtcTime {
    text.parse().unwrap()
}

impl Story {
    fn new(hosts: usize, policy: &str) -> Self {
        let policy = format!("schema: 1\nselector: {{groups: [fleet]}}\n{policy}");
        Self::of(sample::inventory(hosts), &policy)
    }

    fn of(inventory: Vec<Host>, policy: &str) -> Self {
        let policy = RolloutPolicy::parse(policy.as_bytes()).unwrap();
        let (start, end) = (time("2026-11-02T00:00:00Z"), time("2027-02-01T00:00:00Z"));
        let plan = Plan::new(sample::rollout(), policy, &inventory, start, end);
        let mut story = Self {
            progress: Progress::new(&plan),
            book: Book::of(&inventory, 1),
            plan,
            entries: Vec::new(),
            now: start,
            silent: BTreeSet::new(),
            came_back: BTreeSet::new(),
            successor: None,
            readings: BTreeMap::new(),
        };
        story.record(Event::Submitted).unwrap();
        story.settle();
        story
    }

    fn record(&mut self, event: Event) -> Result<(), Impossible> {
        let entry = Entry { at: self.now, event };
        self.progress.apply(&self.plan, &entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Decides until nothing is due.
    fn settle(&mut self) {
        loop {
            let (now, silent) = (self.now, self.silent.clone());
            let seen =
                move |host| (!silent.contains(&host)).then_some(now).or(Some(time("2026-11-02T00:00:00Z")));
            let facts = Facts {
                last_seen: &seen,
                listening_since: self.plan.not_before,
                readings: &self.readings,
                came_back: &self.came_back,
                successor: self.successor,
            };
            let events = decide(&self.plan, &self.progress, &facts, now);
            if events.is_empty() {
                return;
            }
            events.into_iter().for_each(|event| self.record(event).unwrap());
        }
    }

    fn after(&mut self, period: &str) -> &mut Self {
        let period: manifests::Period = period.parse().unwrap();
        self.now = crate::assurance::later(self.now, i64::from(period.secs()));
        self.settle();
        self
    }

    fn ask(&mut self, host: Place, action: Action) -> Result<Begin, NotNow> {
        let nonce = Nonce::from_bytes([host as u8; 16]);
        let request = Request { host, action, nonce, epoch: 1 };
        let answer = begin(&self.plan, &self.progress, &self.book, &request, self.now)?;
        if let Begin::Write(event) = &answer {
            let member = self.progress.member(&self.plan, host).unwrap().host.clone();
            self.record(event.clone()).unwrap();
            self.book.enter(&member);
        }
        Ok(answer)
    }

    fn tell(&mut self, event: Event) {
        if let Event::Applied { host } | Event::Failed { host, .. } | Event::Declined { host, .. } = event {
            let member = self.progress.member(&self.plan, host).unwrap().host.clone();
            self.book.strike(&member);
        }
        self.record(event).unwrap();
        self.settle();
    }

    /// A host that is offered the manifest becomes ready, begins, and is changed.
    fn apply(&mut self, host: Place) {
        self.grant(host);
        self.tell(Event::Applied { host });
    }

    fn grant(&mut self, host: Place) {
        self.tell(Event::Ready { host });
        self.ask(host, Action::Apply).unwrap();
    }

    fn fail(&mut self, host: Place, fault: Fault) {
        self.grant(host);
        self.tell(Event::Failed { host, fault });
    }

    fn stage(&self) -> &Stage {
        self.progress.stage()
    }
}

/// Waves of 60, 240, ...; all of a wave at once, watched for a day.
const AT_ONCE: &str = "waves: {start_over: 0s}\ncaps: {fleet: 100%, domain: 100%}\n";

/// Of three hosts, one goes first; each is a rack of its own.
const SMALL: &str = "waves: {start_over: 0s, largest: 100%}\ncaps: {fleet: 100%, domain: 100%}\n";

/// What takes their place.
const NEWER: Successor = Successor { rollout: Sha256::from_bytes([9; 32]), version: 2 };

fn signature() -> Author {
    Author { name: "anna".parse().unwrap(), proof: Proof::Signature }
}

fn token() -> Author {
    Author { name: "otto".parse().unwrap(), proof: Proof::Token }
}

#[test]
fn a_clean_rollout_goes_wave_by_wave_and_completes() {
    let mut story = Story::new(3, SMALL);
    assert_eq!((story.stage(), story.progress.opened()), (&Stage::Running, 1));
    assert_eq!(story.ask(1, Action::Apply), Err(NotNow::NotReady), "the second wave has not come");
    story.apply(0);
    story.after("23h");
    assert_eq!(story.progress.opened(), 1, "nothing of the second wave before the first was watched");
    story.after("1h");
    assert_eq!((story.progress.passed(), story.progress.opened()), (1, 2));
    story.apply(1);
    story.apply(2);
    story.after("24h");
    assert_eq!(story.stage(), &Stage::Completed);
}

#[test]
fn in_a_small_fleet_one_bad_host_halts_and_the_policy_goes_back() {
    let mut story = Story::new(3, SMALL);
    story.apply(0);
    story.after("24h");
    story.apply(1);
    story.fail(2, Fault::Restored);
    assert_eq!(story.stage(), &Stage::RollingBack);
    assert_eq!(story.ask(2, Action::Apply), Err(NotNow::Stage));
    for host in [0, 1] {
        assert!(matches!(story.ask(host, Action::Rollback), Ok(Begin::Write(_))));
        story.tell(Event::RolledBack { host });
    }
    // The third was restored by itself.
    assert_eq!(story.ask(2, Action::Rollback), Err(NotNow::Stage));
    assert_eq!(story.stage(), &Stage::RolledBack);
    assert_eq!(story.progress.failures().len(), 1, "a counted failure stays counted");
}

#[test]
fn in_a_small_fleet_a_silent_host_halts() {
    let mut story = Story::new(3, SMALL);
    story.grant(0);
    story.silent.insert(0);
    story.after("59m");
    assert_eq!(story.stage(), &Stage::Running);
    story.after("1m");
    assert_eq!(story.stage(), &Stage::RollingBack);
    assert_eq!(story.progress.failures()[0].fault, Fault::Silent);
}

#[test]
fn after_a_halt_nobody_begins_and_nobody_resumes() {
    let mut story = Story::new(3, &format!("{SMALL}rollback: {{authority: operator}}\n"));
    story.grant(0);
    story.record(Event::Halted { cause: Halt::Limit { limit: Limit::Splats } }).unwrap();
    assert!(matches!(story.stage(), Stage::Halted(_)));
    let nonce = Nonce::from_bytes([9; 16]);
    for event in [
        Event::Granted { host: 1, nonce, epoch: 1 },
        Event::Resumed { by: signature() },
        Event::CalendarOpened,
        Event::WaveOpened { wave: 1 },
        Event::WavePassed { wave: 0 },
        Event::Completed,
        Event::RollbackBegun { by: None },
    ] {
        let before = story.progress.clone();
        assert!(story.record(event.clone()).is_err(), "{event:?}");
        assert_eq!(story.progress, before, "{event:?}");
    }
    assert!(story.record(Event::RollbackBegun { by: Some(token()) }).is_ok());
}

#[test]
fn three_of_sixty_halt() {
    let mut story = Story::new(1000, AT_ONCE);
    (0..60).for_each(|host| story.grant(host));
    story.tell(Event::Failed { host: 0, fault: Fault::Restored });
    story.after("10m").tell(Event::Failed { host: 1, fault: Fault::Restored });
    story.after("10m").tell(Event::Failed { host: 2, fault: Fault::Restored });
    // Six strata and the whole, seven waves or fewer: the bar is higher than for one test, and three pass it.
    assert!(matches!(story.stage(), Stage::RollingBack), "{:?}", story.stage());
}

#[test]
fn hosts_hold_while_the_failures_outweigh_what_is_known() {
    let mut story = Story::new(1000, &format!("strata: []\n{AT_ONCE}"));
    (0..40).for_each(|host| story.grant(host));
    story.tell(Event::Failed { host: 0, fault: Fault::Restored });
    story.after("10m").tell(Event::Failed { host: 1, fault: Fault::Restored });
    assert_eq!(story.stage(), &Stage::Running);
    story.tell(Event::Ready { host: 40 });
    assert_eq!(story.ask(40, Action::Apply), Err(NotNow::Test));
    let reasons = waiting(&story.plan, &story.progress, &story.book, story.now);
    assert!(reasons.contains(&Waiting::Turn { hosts: 1, because: Some(NotNow::Test) }), "{reasons:?}");
}

#[test]
fn an_undecided_wave_takes_more_hosts_and_then_waits_for_people() {
    let mut story = Story::new(1000, &format!("strata: []\n{AT_ONCE}"));
    (1..60).for_each(|host| story.apply(host));
    story.fail(0, Fault::Restored);
    story.after("24h");
    // 59 are good, and 138 would pass with one failure.
    assert_eq!(story.progress.places(0), 0..60 + 138 - 59);
    (60..139).for_each(|host| story.apply(host));
    story.after("24h");
    assert_eq!((story.progress.passed(), story.progress.opened()), (1, 2));

    let mut story = Story::new(
        1000,
        "strata: []\nwaves: {start_over: 0s, top_ups: 0}\ncaps: {fleet: 100%, domain: 100%}\n",
    );
    (1..60).for_each(|host| story.apply(host));
    story.fail(0, Fault::Restored);
    story.after("24h");
    assert_eq!(story.stage(), &Stage::Paused(Pause::Inconclusive { wave: 0 }));
    assert!(story.record(Event::Resumed { by: token() }).is_err(), "a token does not make it go on");
    story.record(Event::Resumed { by: signature() }).unwrap();
    story.settle();
    assert_eq!((story.stage(), story.progress.opened()), (&Stage::Running, 2));
}

#[test]
fn a_rack_that_dies_counts_once_in_the_test_and_fully_in_the_hard_limit() {
    let mut inventory = sample::inventory(1000);
    inventory.iter_mut().for_each(|host| host.domain = "rack".parse().unwrap());
    let policy =
        format!("schema: 1\nselector: {{groups: [fleet]}}\nstrata: []\nbudgets: {{failed: 5}}\n{AT_ONCE}");
    let mut story = Story::of(inventory, &policy);
    (0..60).for_each(|host| story.grant(host));
    (0..5).for_each(|host| story.tell(Event::Failed { host, fault: Fault::Restored }));
    assert_eq!(story.progress.tally(&story.plan, 0, None).bad, 1);
    assert_eq!(story.stage(), &Stage::Running);
    story.record(Event::Failed { host: 5, fault: Fault::Restored }).unwrap();
    story.settle();
    assert_eq!(story.stage(), &Stage::RollingBack);
    let halted =
        |entry: &Entry| matches!(entry.event, Event::Halted { cause: Halt::Limit { limit: Limit::Failed } });
    assert!(story.entries.iter().any(halted));
}

#[test]
fn one_lying_host_can_at_most_pause() {
    let mut story = Story::new(1000, &format!("budgets: {{splats: 0, failed: 0}}\n{AT_ONCE}"));
    story.fail(0, Fault::Splat);
    assert!(matches!(story.stage(), Stage::Paused(Pause::OneHost { .. })), "{:?}", story.stage());
    // Whatever else it says.
    assert!(story.record(Event::Failed { host: 0, fault: Fault::Splat }).is_err());
    story.record(Event::Resumed { by: signature() }).unwrap();
    story.settle();
    // The other limit asks once more, and then it goes on.
    assert!(
        matches!(story.stage(), Stage::Paused(Pause::OneHost { limit: Limit::Splats })),
        "{:?}",
        story.stage()
    );
    story.record(Event::Resumed { by: signature() }).unwrap();
    story.settle();
    assert_eq!(story.stage(), &Stage::Running);
}

#[test]
fn hosts_that_were_not_touched_and_fell_silent_make_it_an_outage() {
    let mut story = Story::new(1000, AT_ONCE);
    (0..60).for_each(|host| story.grant(host));
    let domain = |story: &Story, host| story.progress.member(&story.plan, host).unwrap().host.domain.clone();
    let dark = domain(&story, 0);
    story.silent = (0..1000).filter(|host| domain(&story, *host) == dark).collect();
    (1..60).filter(|host| !story.silent.contains(host)).collect::<Vec<_>>().into_iter().for_each(|host| {
        story.tell(Event::Applied { host });
    });
    story.after("2h");
    assert!(matches!(story.stage(), Stage::Paused(Pause::Outage { .. })), "{:?}", story.stage());
    assert!(story.progress.failures().is_empty());
    // The others of the rack are back and say how it went; this one does not.
    let back: Vec<Place> = (1..60).filter(|host| story.silent.contains(host)).collect();
    back.into_iter().for_each(|host| story.record(Event::Applied { host }).unwrap());
    story.silent = [0].into();
    story.record(Event::Resumed { by: signature() }).unwrap();
    story.settle();
    assert_eq!(story.progress.failures().len(), 1);
}

#[test]
fn each_outcome_has_a_budget_of_its_own_and_none_is_a_failure() {
    for (outcome, hosts) in
        [(Outcome::Refused, 101), (Outcome::Busy, 251), (Outcome::Held, 251), (Outcome::NotAuthentic, 2)]
    {
        let mut story = Story::new(1000, "waves: {first: 400, start_over: 0s}\n");
        (0..hosts).for_each(|host| {
            assert_eq!(story.stage(), &Stage::Running, "{outcome:?} at {host}");
            story.tell(Event::Declined { host, outcome });
        });
        assert_eq!(story.stage(), &Stage::Paused(Pause::Declined { outcome }));
        assert!(story.progress.failures().is_empty());
    }
}

#[test]
fn where_nobody_needs_it_the_rollout_completes() {
    let mut story = Story::new(100, AT_ONCE);
    (0..100).for_each(|host| story.tell(Event::Declined { host, outcome: Outcome::NotNeeded }));
    assert_eq!(story.stage(), &Stage::Completed);
}

#[test]
fn a_busy_host_is_asked_again() {
    let mut story = Story::new(3, SMALL);
    story.tell(Event::Declined { host: 0, outcome: Outcome::Busy });
    story.after("14m");
    assert!(matches!(story.progress.hosts()[0], HostState::Busy { .. }));
    story.after("1m");
    assert_eq!(story.progress.hosts()[0], HostState::Offered);
}

#[test]
fn the_same_attempt_gets_the_same_grant_and_another_attempt_none() {
    let mut story = Story::new(3, SMALL);
    story.grant(0);
    assert_eq!(story.ask(0, Action::Apply), Ok(Begin::Again));
    let other = Request { host: 0, action: Action::Apply, nonce: Nonce::from_bytes([7; 16]), epoch: 1 };
    let answer = begin(&story.plan, &story.progress, &story.book, &other, story.now);
    assert_eq!(answer, Err(NotNow::OtherNonce));
    let stale = Request { epoch: 0, ..other };
    let answer = begin(&story.plan, &story.progress, &story.book, &stale, story.now);
    assert_eq!(answer, Err(NotNow::Epoch { current: 1, found: 0 }));
}

#[test]
fn caps_hold_over_all_rollouts_and_so_does_one_grant_for_a_host() {
    let mut story = Story::new(1000, "waves: {first: 100, start_over: 0s}\ncaps: {fleet: 3, domain: 1}\n");
    (0..100).for_each(|host| story.tell(Event::Ready { host }));
    let others: Vec<Host> =
        story.plan.layout.members[900..902].iter().map(|member| member.host.clone()).collect();
    others.iter().for_each(|host| story.book.enter(host));
    let id = story.plan.layout.members[0].host.id;
    story.book.open.insert(id);
    assert_eq!(story.ask(0, Action::Apply), Err(NotNow::Elsewhere));
    let rack = others[0].domain.clone();
    let begun = (1..100).filter(|host| story.ask(*host, Action::Apply).is_ok()).count();
    assert_eq!(begun, 1, "two of three are taken by another rollout");
    story.book.fleet.open = 0;
    let ready_there = |host: &Place| {
        let there = story.plan.layout.members[*host].host.domain == rack;
        there && story.progress.hosts()[*host] == HostState::Ready
    };
    let host = (1..100).find(ready_there).unwrap();
    assert_eq!(story.ask(host, Action::Apply), Err(NotNow::DomainCap { domain: rack }));
}

#[test]
fn a_wave_begins_evenly_over_its_time() {
    let mut story =
        Story::new(1000, "waves: {first: 60, start_over: 1h}\ncaps: {fleet: 100%, domain: 100%}\n");
    (0..60).for_each(|host| story.tell(Event::Ready { host }));
    assert!(story.ask(0, Action::Apply).is_ok());
    assert_eq!(story.ask(1, Action::Apply), Err(NotNow::Pace { next: time("2026-11-02T00:01:00Z") }));
    story.after("30m");
    let begun = (1..60).filter(|host| story.ask(*host, Action::Apply).is_ok()).count();
    assert_eq!(begun, 30);
}

#[test]
fn a_manifest_that_a_host_came_back_from_is_not_offered_to_it_again() {
    let mut story = Story::new(3, SMALL);
    let id = story.plan.layout.members[0].host.id;
    story.book.came_back.insert(id);
    story.tell(Event::Ready { host: 0 });
    assert_eq!(story.ask(0, Action::Apply), Err(NotNow::CameBack));
    story.came_back.insert(id);
    story.settle();
    assert_eq!(story.progress.hosts()[0], HostState::Withdrawn);
}

#[test]
fn a_host_that_came_back_may_have_it_again_when_people_sign_that() {
    let mut story = Story::new(80, AT_ONCE);
    story.fail(0, Fault::Restored);
    let id = story.plan.layout.members[0].host.id;
    story.came_back.insert(id);
    story.settle();
    assert!(story.record(Event::Retried { host: 0, by: token() }).is_err(), "a token is not enough");
    assert!(story.record(Event::Retried { host: 1, by: signature() }).is_err(), "it never came back");
    story.came_back.clear();
    story.tell(Event::Retried { host: 0, by: signature() });
    assert_eq!(story.progress.hosts()[0], HostState::Offered);
    assert_eq!(story.progress.failures().len(), 1, "what was counted stays counted");
    story.apply(0);
    let told = explain(&story.plan, &story.entries, id).unwrap();
    assert!(told.lines.iter().any(|line| line.text == "may have it again: anna said so"), "{told:?}");
    // Whose wave has not come is listed again.
    story.record(Event::Withdrawn { host: 70 }).unwrap();
    story.tell(Event::Retried { host: 70, by: signature() });
    assert_eq!(story.progress.hosts()[70], HostState::Listed);
}

#[test]
fn a_late_joiner_takes_the_last_wave_under_the_same_gates() {
    let mut inventory = sample::inventory(4);
    let late = inventory.pop().unwrap();
    let mut story = Story::of(inventory, &format!("schema: 1\nselector: {{groups: [fleet]}}\n{SMALL}"));
    story.record(Event::Joined { host: Box::new(late.clone()) }).unwrap();
    assert!(story.record(Event::Joined { host: Box::new(late) }).is_err(), "once");
    assert_eq!(story.progress.wave_of(3), 1);
    story.apply(0);
    story.after("24h");
    (1..4).for_each(|host| story.apply(host));
    story.after("24h");
    assert_eq!(story.stage(), &Stage::Completed);
    let later = crate::simulate::inventory::Synthetic { hosts: 1, seed: 9, ..Default::default() }.inventory();
    story.record(Event::Joined { host: Box::new(later[0].clone()) }).unwrap();
    story.apply(4);
    story.after("24h");
    assert!(matches!(story.progress.hosts()[4], HostState::Good { .. }), "what is completed is kept up");
}

#[test]
fn a_host_that_boots_another_kernel_takes_it_again_and_goes_back_with_all_of_it() {
    let mut story = Story::new(3, SMALL);
    let another = |story: &Story, host: Place, kernel: &str| {
        let mut into = story.plan.layout.members[host].host.clone();
        into.kernel = kernel.parse().unwrap();
        into
    };
    story.apply(0);
    story.after("24h");
    let into = another(&story, 0, "6.12.0-1");
    assert!(!story.progress.is_due_again(&story.plan, 0, &into), "the fleet does not have it yet");
    (1..3).for_each(|host| story.apply(host));
    story.after("24h");
    assert_eq!(story.stage(), &Stage::Completed);
    let same = story.plan.layout.members[0].host.clone();
    assert!(!story.progress.is_due_again(&story.plan, 0, &same));
    assert!(story.record(Event::Rebooted { host: 0, into: Box::new(same) }).is_err());
    story.tell(Event::Rebooted { host: 0, into: Box::new(into.clone()) });
    assert_eq!(story.progress.hosts()[0], HostState::Offered);
    assert!(!story.progress.is_due_again(&story.plan, 0, &into), "once");
    // Under the same caps as everybody.
    story.book.fleet.open = story.book.fleet.hosts;
    story.tell(Event::Ready { host: 0 });
    assert_eq!(story.ask(0, Action::Apply), Err(NotNow::FleetCap));
    story.book.fleet.open = 0;
    let since = story.progress.changed_since(0);
    assert!(since.is_some(), "what the first attempt brought may still be there");
    story.ask(0, Action::Apply).unwrap();
    story.tell(Event::Applied { host: 0 });
    story.after("24h");
    assert!(matches!(story.progress.hosts()[0], HostState::Good { .. }));
    // It boots once more, and the fix is built into that one.
    let into = another(&story, 0, "6.13.0-1");
    story.tell(Event::Rebooted { host: 0, into: Box::new(into) });
    story.tell(Event::Declined { host: 0, outcome: Outcome::NotNeeded });
    assert_eq!(story.stage(), &Stage::Completed);
    // A way back takes both, the later first.
    story.tell(Event::RollbackBegun { by: Some(token()) });
    for (host, changes) in [(0, 2), (1, 1), (2, 1)] {
        for change in 0..changes {
            let nonce = Nonce::from_bytes([100 + change; 16]);
            story.tell(Event::RollbackGranted { host, nonce, epoch: 1 });
            story.tell(Event::RolledBack { host });
        }
        assert_eq!(story.progress.hosts()[host], HostState::RolledBack);
    }
    assert_eq!(story.stage(), &Stage::RolledBack);
    let id = story.plan.layout.members[0].host.id;
    let told = explain(&story.plan, &story.entries, id).unwrap();
    assert!(told.lines.iter().any(|line| line.text == "runs kernel 6.12.0-1 now: offered again"));
}

#[test]
fn approvals_need_signatures_and_different_people() {
    let mut story = Story::new(3, &format!("{SMALL}approvals: {{start: 2, after_first_wave: 1}}\n"));
    assert_eq!(story.stage(), &Stage::AwaitingApproval);
    assert!(story.record(Event::Approved { by: token() }).is_err());
    story.tell(Event::Approved { by: signature() });
    story.tell(Event::Approved { by: signature() });
    assert_eq!(story.stage(), &Stage::AwaitingApproval, "one person counts once");
    let reasons = waiting(&story.plan, &story.progress, &story.book, story.now);
    assert_eq!(reasons, [Waiting::Approval { needed: 2, have: 1 }]);
    story.tell(Event::Approved { by: Author { name: "ben".parse().unwrap(), proof: Proof::Signature } });
    assert_eq!(story.stage(), &Stage::Running);
    story.apply(0);
    story.after("24h");
    assert_eq!(story.stage(), &Stage::AwaitingApproval);
    story.tell(Event::Approved { by: signature() });
    assert_eq!(story.progress.opened(), 2);
}

#[test]
fn a_window_that_closes_lets_nobody_begin_and_everybody_finish() {
    let window = "windows: [{zone: UTC, at: '00:00', for: 2h}]\n";
    let mut story = Story::new(3, &format!("{SMALL}{window}"));
    story.grant(0);
    story.after("3h");
    // The host owed its answer, and gave none.
    assert_eq!(story.stage(), &Stage::RollingBack);
    let mut story = Story::new(3, &format!("{SMALL}{window}"));
    story.tell(Event::Ready { host: 0 });
    story.after("3h");
    assert_eq!(story.stage(), &Stage::Waiting);
    assert_eq!(story.ask(0, Action::Apply), Err(NotNow::Stage));
    let reasons = waiting(&story.plan, &story.progress, &story.book, story.now);
    assert!(reasons.contains(&Waiting::Window { opens: Some(time("2026-11-03T00:00:00Z")) }), "{reasons:?}");
    story.after("21h");
    assert!(story.ask(0, Action::Apply).is_ok());
}

const FSYNC: &str = "health: [{name: fsync, query: 'p99(fsync)', worse: higher, ratio: 1.5}]\n";

impl Story {
    /// The query `fsync` finds these numbers, of hosts with the change and of the others.
    fn read(&mut self, changed: f64, held_back: f64) {
        let sides = self.sides().expect("there is something to compare");
        let number = |place| Some(if sides.changed.contains(&place) { changed } else { held_back });
        let comparison = sides.compare(&self.plan.policy.health[0], number);
        self.readings.insert("fsync".parse().unwrap(), comparison);
        self.settle();
    }

    fn read_nothing(&mut self, because: Unanswered) {
        self.readings.insert("fsync".parse().unwrap(), Comparison::Unanswered { because });
        self.settle();
    }

    fn sides(&self) -> Option<Sides> {
        let silent = &self.silent;
        let seen = |host| Some(if silent.contains(&host) { self.plan.not_before } else { self.now });
        let facts = Facts {
            last_seen: &seen,
            listening_since: self.plan.not_before,
            readings: &self.readings,
            came_back: &self.came_back,
            successor: None,
        };
        Sides::of(&self.plan, &self.progress, |host| facts.heard(host), self.now)
    }

    fn reasons(&self) -> Vec<Waiting> {
        waiting(&self.plan, &self.progress, &self.book, self.now)
    }

    fn compared(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.event, Event::Compared { .. })).count()
    }

    fn resume(&mut self) {
        self.tell(Event::Resumed { by: signature() });
    }
}

fn fsync() -> manifests::GroupName {
    "fsync".parse().unwrap()
}

#[test]
fn a_metric_that_is_worse_than_that_of_the_held_back_pauses() {
    let mut story = Story::new(100, &format!("{AT_ONCE}{FSYNC}"));
    assert_eq!(story.sides(), None, "nobody is changed yet");
    story.apply(0);
    story.read(1.4, 1.0);
    assert_eq!(story.stage(), &Stage::Running);
    story.read(1.45, 1.0);
    assert_eq!(story.compared(), 1, "that it goes on as before is no news");
    story.read(1.6, 1.0);
    assert_eq!(story.stage(), &Stage::Paused(Pause::Veto { query: fsync() }));
    assert_eq!(story.compared(), 2);
    // People have seen it: it goes on, and does not pause for the same again.
    story.resume();
    story.read(1.7, 1.0);
    assert_eq!(story.stage(), &Stage::Running);
    story.apply(1);
    let told = explain(&story.plan, &story.entries, story.plan.layout.members[0].host.id).unwrap();
    let told: Vec<&str> = told.lines.iter().map(|line| line.text.as_str()).collect();
    assert!(told.contains(&"by fsync hosts with the change do worse: 1.6, beside 1"), "{told:?}");
}

#[test]
fn a_wave_passes_by_an_answer_and_never_for_want_of_one() {
    let mut story = Story::new(3, &format!("{SMALL}{FSYNC}"));
    assert_eq!(story.progress.places(0), 0..1);
    story.apply(0);
    story.after("30h");
    assert_eq!(story.progress.passed(), 0, "nobody has asked yet");
    story.read_nothing(Unanswered::Unreachable);
    story.after("10m");
    assert_eq!((story.progress.passed(), story.stage()), (0, &Stage::Running));
    let since = story.entries.last().unwrap().at;
    let owed = Waiting::Health { query: fsync(), since, because: Unanswered::Unreachable };
    assert_eq!(story.reasons(), [owed]);
    story.read(1.0, 1.0);
    assert_eq!(story.progress.passed(), 1);
    // The last hosts: once they all have it, there is nothing to compare, and nothing to wait for.
    story.apply(1);
    story.tell(Event::Ready { host: 2 });
    story.read_nothing(Unanswered::Late);
    assert_eq!(story.ask(2, Action::Apply), Err(NotNow::Health { query: fsync() }));
    story.read(1.0, 1.0);
    story.ask(2, Action::Apply).unwrap();
    story.tell(Event::Applied { host: 2 });
    assert_eq!(story.sides(), None);
    story.readings.clear();
    story.after("30h");
    assert_eq!(story.stage(), &Stage::Completed);
}

#[test]
fn a_question_that_stays_unanswered_pauses_and_people_may_go_on_without_it() {
    let mut story = Story::new(3, &format!("{SMALL}{FSYNC}"));
    story.apply(0);
    story.read_nothing(Unanswered::Status { code: 500 });
    story.after("29m");
    assert_eq!(story.stage(), &Stage::Running);
    story.after("1m");
    assert_eq!(story.stage(), &Stage::Paused(Pause::Unanswered { query: fsync() }));
    let by = Author { name: "tom".parse().unwrap(), proof: Proof::Token };
    assert!(story.record(Event::Resumed { by }).is_err(), "a token only slows down");
    story.resume();
    story.after("30h");
    assert_eq!((story.progress.passed(), story.stage()), (1, &Stage::Running));
    story.apply(1);
    // What is worse is no less worse for that.
    story.read(3.0, 1.0);
    assert_eq!(story.stage(), &Stage::Paused(Pause::Veto { query: fsync() }));
}

#[test]
fn silent_and_declining_hosts_are_not_compared_with() {
    let mut story = Story::new(4, &format!("{SMALL}{FSYNC}"));
    story.apply(0);
    story.read(1.0, 1.0);
    story.after("30h");
    assert_eq!(story.progress.places(1), 1..4);
    story.tell(Event::Declined { host: 1, outcome: Outcome::Refused });
    story.silent.insert(2);
    assert_eq!(story.sides().unwrap().held_back, [3]);
    story.silent.insert(3);
    assert_eq!(story.sides(), None, "nobody is there to compare with");
}

#[test]
fn what_is_compared_is_the_mean_of_at_least_half_of_each_side() {
    let query = |worse: &str, ratio: &str| {
        let health = format!("health: [{{name: q, query: q, worse: {worse}, ratio: {ratio}}}]\n");
        Story::new(3, &format!("{SMALL}{health}")).plan.policy.health[0].clone()
    };
    let sides = Sides { changed: vec![0, 1, 2], held_back: vec![3, 4, 5, 6] };
    let ask = |query: &crate::policy::HealthQuery, numbers: &[f64]| {
        sides.compare(query, |place| numbers.get(place).copied())
    };
    let (higher, lower) = (query("higher", "2"), query("lower", "0.5"));
    let well = |changed, held_back| Comparison::Well {
        changed: Figure::new(changed).unwrap(),
        held_back: Figure::new(held_back).unwrap(),
    };
    let worse = |changed, held_back| Comparison::Worse {
        changed: Figure::new(changed).unwrap(),
        held_back: Figure::new(held_back).unwrap(),
    };
    let unanswered = |because| Comparison::Unanswered { because };
    assert_eq!(ask(&higher, &[1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 2.0]), well(2.0, 1.25));
    assert_eq!(ask(&higher, &[1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0]), worse(2.0, 1.0));
    assert_eq!(ask(&lower, &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]), worse(1.0, 2.0));
    assert_eq!(ask(&lower, &[1.1, 1.1, 1.1, 2.0, 2.0, 2.0, 2.0]), well(1.1, 2.0));
    // None of it: what could be divided by nothing is not.
    assert_eq!(ask(&higher, &[0.0; 7]), well(0.0, 0.0));
    assert_eq!(ask(&higher, &[0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), worse(0.1, 0.0));
    assert_eq!(ask(&lower, &[0.0; 7]), well(0.0, 0.0));
    // What is no number is none: of three at least two are wanted, of four as well.
    let nan = f64::NAN;
    assert_eq!(ask(&higher, &[nan, 2.0, 2.0, 2.0, 2.0, f64::INFINITY, nan]), well(2.0, 2.0));
    let few = |side, seen, hosts| unanswered(Unanswered::TooFew { side, seen, hosts });
    assert_eq!(ask(&higher, &[nan, nan, 2.0, 2.0, 2.0, 2.0, 2.0]), few(Side::Changed, 1, 3));
    assert_eq!(ask(&higher, &[2.0, 2.0, 2.0, nan, nan, nan, 2.0]), few(Side::HeldBack, 1, 4));
    let side = Side::HeldBack;
    assert_eq!(
        ask(&higher, &[1.0, 1.0, 1.0, -9.0, 1.0, 1.0, 1.0]),
        unanswered(Unanswered::Negative { side })
    );
    assert_eq!(ask(&higher, &[f64::MAX; 7]), well(f64::MAX, f64::MAX));
}

#[test]
fn what_is_superseded_or_expired_lets_nobody_begin() {
    let mut story = Story::new(3, SMALL);
    story.tell(Event::Ready { host: 0 });
    story.successor = Some(NEWER);
    story.settle();
    assert_eq!(story.stage(), &Stage::Superseded(NEWER));
    assert_eq!(story.ask(0, Action::Apply), Err(NotNow::Stage));
    let reasons = waiting(&story.plan, &story.progress, &story.book, story.now);
    assert_eq!(reasons, [], "nobody is waited for");
    let mut story = Story::new(3, SMALL);
    story.tell(Event::Ready { host: 0 });
    story.now = time("2027-02-01T00:00:00Z");
    assert_eq!(story.ask(0, Action::Apply), Err(NotNow::Expired));
    story.settle();
    assert_eq!(story.stage(), &Stage::Expired);
}

#[test]
fn what_is_superseded_lets_hosts_in_flight_finish_and_leaves_none_hanging() {
    let mut story = Story::new(80, AT_ONCE);
    [0, 1, 2, 3, 4].into_iter().for_each(|host| story.grant(host));
    story.tell(Event::Applied { host: 0 });
    story.tell(Event::Ready { host: 5 });
    story.tell(Event::Declined { host: 4, outcome: Outcome::Busy });
    story.successor = Some(NEWER);
    story.settle();
    // One says that it went well, one that it did not, one that it never began; the last says nothing.
    story.tell(Event::Applied { host: 1 });
    story.tell(Event::Failed { host: 2, fault: Fault::Restored });
    let reasons = waiting(&story.plan, &story.progress, &story.book, story.now);
    assert!(
        matches!(reasons[..], [Waiting::Outcome { hosts: 1 }, Waiting::Bake { hosts: 2, .. }]),
        "{reasons:?}"
    );
    story.silent.insert(3);
    story.after("24h");
    assert_eq!(story.stage(), &Stage::Superseded(NEWER));
    let states = story.progress.hosts();
    assert!(matches!(states[0], HostState::Good { .. }) && matches!(states[1], HostState::Good { .. }));
    assert!(matches!(states[3], HostState::Bad { fault: Fault::Silent, .. }));
    assert!(!states.iter().any(HostState::is_open));
    assert!(matches!(states[4], HostState::Busy { .. }), "nobody asks it again");
    for (host, words) in [(0, "is watched to its end"), (3, "finishes"), (5, "gets nothing of it any more")] {
        let id = story.plan.layout.members[host].host.id;
        let told = explain(&story.plan, &story.entries, id).unwrap();
        assert!(told.lines.iter().any(|line| line.text.contains(words)), "{host}: {told:?}");
    }
}

#[test]
fn a_halt_that_is_due_comes_before_what_supersedes() {
    let mut story = Story::new(3, SMALL);
    story.grant(0);
    story.successor = Some(NEWER);
    story.record(Event::Failed { host: 0, fault: Fault::Unrestored }).unwrap();
    story.settle();
    assert_eq!(story.stage(), &Stage::RollingBack);
}

#[test]
fn a_way_back_is_open_for_so_long_and_hosts_that_miss_it_are_stuck() {
    let mut story = Story::new(3, &format!("{SMALL}rollback: {{authority: operator, within: 2d}}\n"));
    story.apply(0);
    story.after("24h");
    story.record(Event::RollbackBegun { by: Some(token()) }).unwrap();
    story.after("23h");
    assert_eq!(story.stage(), &Stage::RollingBack);
    story.now = crate::assurance::later(story.now, 2 * 3600);
    assert_eq!(story.ask(0, Action::Rollback), Err(NotNow::TooLate));
    story.settle();
    assert_eq!(story.stage(), &Stage::Stuck);
    // Late is better than never.
    assert!(story.record(Event::RolledBack { host: 0 }).is_ok());
}

#[test]
fn a_silent_host_that_comes_back_untouched_is_still_counted() {
    let mut story = Story::new(1000, AT_ONCE);
    story.grant(0);
    story.silent.insert(0);
    story.after("2h");
    assert_eq!(story.progress.failures().len(), 1);
    story.tell(Event::Declined { host: 0, outcome: Outcome::Refused });
    assert_eq!(story.progress.tally(&story.plan, 0, None).bad, 1);
    assert_eq!(story.progress.hosts()[0].changed_since(), None);
}

#[test]
fn the_story_of_a_host_is_told_from_the_ledger() {
    let mut story = Story::new(3, SMALL);
    story.apply(0);
    story.after("24h");
    story.fail(1, Fault::Splat);
    let id = story.plan.layout.members[1].host.id;
    let told = explain(&story.plan, &story.entries, id).unwrap();
    let lines: Vec<&str> = told.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(told.place, Some((1, 1)));
    assert_eq!(
        lines,
        [
            "the rollout goes on: the calendar opened",
            "offered, with wave 2",
            "ready",
            "told to begin, under epoch 1",
            "hurt: Splat",
            "the rollout halted: a host was hurt, and the fleet is too small for the test",
            "the rollout goes back",
        ]
    );
    let nobody = explain(&story.plan, &story.entries, HostId::new(Sha256::of(b"nobody"))).unwrap();
    assert_eq!(nobody, Explanation { place: None, lines: vec![] });
}

#[test]
fn exit_codes_are_six_outcomes() {
    assert_eq!(verdict_of_exit(0), Ok(()));
    assert_eq!(verdict_of_exit(3), Err(Ok(Outcome::Refused)));
    assert_eq!(verdict_of_exit(4), Err(Ok(Outcome::NotAuthentic)));
    assert_eq!(verdict_of_exit(5), Err(Ok(Outcome::Busy)));
    assert_eq!(verdict_of_exit(1), Err(Err(Fault::Restored)));
    for code in [6, 70, 2, 137] {
        assert_eq!(verdict_of_exit(code), Err(Err(Fault::Unrestored)));
    }
}

/// Any event at all, of a rollout of `hosts` hosts.
fn any_event(random: &mut Random, hosts: usize) -> Event {
    let host = random.below(hosts as u64 + 1) as usize;
    let nonce = Nonce::from_bytes([random.below(3) as u8; 16]);
    let by = if random.happens(0.5) { signature() } else { token() };
    match random.below(32) {
        0 => Event::Approved { by },
        1 => Event::CalendarOpened,
        2 => Event::CalendarClosed,
        3 | 4 => Event::WaveOpened { wave: random.below(3) as usize },
        5 => Event::ToppedUp { wave: random.below(3) as usize, hosts: random.below(3) as usize },
        6 => Event::WavePassed { wave: random.below(3) as usize },
        7 => Event::Offered { host },
        8..=11 => Event::Ready { host },
        12 => Event::Declined { host, outcome: Outcome::ALL[random.below(5) as usize] },
        13..=16 => Event::Granted { host, nonce, epoch: 1 },
        17..=19 => Event::Applied { host },
        20 => Event::Failed { host, fault: Fault::Splat },
        21 => Event::Failed { host, fault: Fault::Restored },
        22 | 23 => Event::Matured { host },
        24 => Event::Silenced { host },
        25 => Event::Paused { cause: Pause::Operator { by } },
        26 => Event::Resumed { by },
        27 if random.happens(0.2) => Event::Halted { cause: Halt::EveryHost { host } },
        28 => Event::RollbackBegun { by: Some(by) },
        29 => Event::RollbackGranted { host, nonce, epoch: 1 },
        30 => Event::RolledBack { host },
        31 => Event::RollbackFailed { host },
        _ => Event::Withdrawn { host },
    }
}

proptest! {
    /// Whatever comes, in whatever order: what cannot follow changes nothing, every counter is what the hosts'
    /// states add up to, failures only grow, and a rollout that is not over says why it waits.
    #[test]
    fn whatever_is_said_in_whatever_order_the_invariants_hold(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let mut story = Story::new(12, SMALL);
        let mut failures = 0;
        let mut halted = false;
        for _ in 0..120 {
            let event = any_event(&mut random, 12);
            let before = story.progress.clone();
            let begins = matches!(event, Event::Granted { .. });
            if story.record(event).is_err() {
                prop_assert_eq!(&story.progress, &before);
                continue;
            }
            prop_assert!(!(halted && begins), "a grant after a halt");
            halted |= matches!(story.stage(), Stage::Halted(_));
            let progress = &story.progress;
            prop_assert!(progress.failures().len() >= failures);
            failures = progress.failures().len();
            prop_assert!(progress.opened() <= progress.passed() + 1);
            let mut counted = Count::default();
            for wave in 0..progress.ends.len() {
                for count in &progress.counts[wave] {
                    counted.pending += count.pending;
                    counted.busy += count.busy;
                    counted.granted += count.granted;
                    counted.baking += count.baking;
                    counted.good += count.good;
                    counted.hurt += count.hurt;
                }
            }
            let number = |of: fn(&HostState) -> bool| progress.hosts().iter().filter(|host| of(host)).count() as u32;
            prop_assert_eq!(counted.pending, number(|host| matches!(host, HostState::Offered | HostState::Ready)));
            prop_assert_eq!(counted.busy, number(|host| matches!(host, HostState::Busy { .. })));
            prop_assert_eq!(counted.granted, number(|host| matches!(host, HostState::Granted { .. })));
            prop_assert_eq!(counted.baking, number(|host| matches!(host, HostState::Applied { .. })));
            prop_assert_eq!(counted.good, number(|host| matches!(host, HostState::Good { .. })));
            prop_assert_eq!(counted.hurt as usize, failures);
            for outcome in Outcome::ALL {
                let there = |host: &&HostState| match host {
                    HostState::Declined(found) => *found == outcome,
                    HostState::Busy { .. } => outcome == Outcome::Busy,
                    _ => false,
                };
                prop_assert_eq!(progress.declined(outcome) as usize, progress.hosts().iter().filter(there).count());
            }
            let reasons = waiting(&story.plan, progress, &story.book, story.now);
            let over = matches!(
                progress.stage(),
                Stage::RolledBack | Stage::Stuck | Stage::Completed | Stage::Aborted | Stage::Expired | Stage::Superseded(_)
            );
            prop_assert!(over || !reasons.is_empty());
        }
        let replayed = Progress::replay(&story.plan, &story.entries).unwrap();
        prop_assert_eq!(replayed, story.progress);
    }
}
