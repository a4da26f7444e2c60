//! What a fleet has is kept up: hosts that come in, come in again, or boot another kernel. What hosts say of themselves,
//! and from when on their silence counts.

mod common;

use std::sync::Arc;

use common::Hand;
use common::scene::{Scene, begin, enrol, host, nonce, take};
use controller::authority::facts::Departure;
use controller::authority::{Authority, Surroundings};
use controller::presence::Presence;
use controller::store::Memory;
use fleet::facts::{Exposure, HostFacts, Standing};
use fleet::rollout::{HostState, Said, Stage};
use manifests::{CveId, Nonce, Sha256, UtcTime};

const ONE_WAVE: &str = "schema: 1\nselector: {groups: [fleet]}\n\
                        waves: {first: 80, start_over: 0s, bake: 1h}\ncaps: {fleet: 2, domain: 100%}\n";

fn facts(kernel: &str, standing: Option<Standing>) -> HostFacts {
    let exposure = |standing| Exposure { cve: cve(), manifest: "fix".parse().unwrap(), version: 1, standing };
    HostFacts {
        exposures: standing.map(exposure).into_iter().collect(),
        ..HostFacts::new("web-1".parse().unwrap(), kernel.parse().unwrap(), "epyc".parse().unwrap())
    }
}

fn cve() -> CveId {
    "CVE-2026-0001".parse().unwrap()
}

fn state(scene: &Scene, number: usize) -> Option<HostState> {
    scene.authority.host_state(scene.rollout, host(number)).unwrap()
}

fn pass(scene: &Scene, seconds: u64) {
    scene.clock.pass(seconds);
    scene.authority.retake().unwrap();
    scene.tick();
}

fn apply(scene: &Scene, number: usize, attempt: usize) {
    scene.say(scene.rollout, number, None, Said::Ready).unwrap();
    begin(&scene.authority, scene.rollout, number, nonce(attempt)).unwrap();
    scene.say(scene.rollout, number, Some(nonce(attempt)), Said::Applied).unwrap();
}

/// A fleet that has it.
fn completed() -> Scene {
    let clock = Arc::new(Hand::new());
    let scene = Scene::over(Arc::new(Memory::new(clock.clone())), clock, ONE_WAVE, 80);
    for number in 0..80 {
        begin(&scene.authority, scene.rollout, number, nonce(number)).unwrap();
        scene.say(scene.rollout, number, Some(nonce(number)), Said::Applied).unwrap();
    }
    pass(&scene, 3601);
    assert_eq!(scene.authority.standing(scene.rollout).unwrap().0, Stage::Completed);
    // Who comes later has its place in the part of the schedule that opens last.
    pass(&scene, 3 * 24 * 3600);
    scene
}

#[test]
fn who_comes_in_or_is_reinstalled_after_the_end_takes_it_under_the_same_caps() {
    let scene = completed();
    // A machine that was installed anew has a new key: a new host, and the old one is retired.
    scene.authority.dismiss(host(7), Departure::Retired, &"anna".parse().unwrap()).unwrap();
    for number in [100, 101, 102] {
        enrol(&scene.authority, number).unwrap();
    }
    scene.tick();
    for number in [100, 101, 102] {
        assert_eq!(state(&scene, number), Some(HostState::Offered));
        scene.say(scene.rollout, number, None, Said::Ready).unwrap();
    }
    for number in [100, 101] {
        begin(&scene.authority, scene.rollout, number, nonce(number)).unwrap();
    }
    assert!(begin(&scene.authority, scene.rollout, 102, nonce(102)).is_err(), "two at once");
    scene.say(scene.rollout, 100, Some(nonce(100)), Said::Applied).unwrap();
    begin(&scene.authority, scene.rollout, 102, nonce(102)).unwrap();
}

#[test]
fn a_host_that_boots_another_kernel_is_offered_it_again_once_and_a_controller_after_this_one_knows() {
    let scene = completed();
    scene.authority.describe(host(3), &facts("6.1.0", None)).unwrap();
    assert_eq!(scene.tick(), 0, "it is the same kernel");
    scene.authority.describe(host(3), &facts("6.12.0", None)).unwrap();
    assert_eq!(scene.tick(), 1);
    assert_eq!(state(&scene, 3), Some(HostState::Offered));
    let offers = scene.authority.outlook(host(3)).unwrap().offers;
    assert_eq!(offers.iter().map(|offer| offer.rollout).collect::<Vec<_>>(), [scene.rollout]);
    assert_eq!(scene.tick(), 0, "once");
    apply(&scene, 3, 500);
    pass(&scene, 3601);
    assert!(matches!(state(&scene, 3), Some(HostState::Good { .. })));
    scene.clock.pass(16);
    let two = take(&scene.store, &scene.clock, "two").unwrap();
    assert!(matches!(two.host_state(scene.rollout, host(3)).unwrap(), Some(HostState::Good { .. })));
    assert_eq!(two.standing(scene.rollout).unwrap().0, Stage::Completed);
}

#[test]
fn exposure_is_counted_by_hosts_and_by_their_hours() {
    let scene = Scene::new();
    assert_eq!(scene.authority.outlook(host(0)).unwrap().manifests, [Sha256::of(b"manifest")]);
    let describe = |number, standing| {
        scene.authority.describe(host(number), &facts("6.1.0", standing)).unwrap();
    };
    describe(0, Some(Standing::Exposed));
    describe(1, Some(Standing::Exposed));
    describe(2, Some(Standing::Unknown));
    describe(3, Some(Standing::Clear));
    pass(&scene, 2 * 3600);
    describe(0, Some(Standing::Fixed));
    pass(&scene, 3600);
    let fleet = scene.authority.exposures(Some(&cve())).unwrap().pop().unwrap();
    assert_eq!(fleet.exposed, [host(1)]);
    assert_eq!((fleet.unknown, fleet.fixed, fleet.clear, fleet.host_hours), (1, 1, 1, 2 + 3));
    let portrait = scene.authority.portrait(host(0)).unwrap();
    assert_eq!(portrait.exposed_hours[&cve()], 2);
    assert_eq!(portrait.facts.unwrap().exposures[0].standing, Standing::Fixed);
    // What a host does not name any more is no exposure, and stays in the account.
    describe(1, None);
    pass(&scene, 3600);
    let fleet = scene.authority.exposures(None).unwrap().pop().unwrap();
    assert_eq!((fleet.exposed.len(), fleet.fixed, fleet.host_hours), (0, 1, 5));
}

/// A controller that listens: what its service does each second.
fn listen(authority: &Authority, presence: &Presence, clock: &Hand, heard: &[usize]) {
    let now = UtcTime::floor(authority.store().now());
    heard.iter().for_each(|number| presence.heard(host(*number), Nonce::from_bytes([1; 16]), now));
    let around = Surroundings {
        last_seen: &|host| presence.silent_since(host),
        listening_since: presence.since(),
        readings: &Default::default(),
    };
    authority.tick(&around).unwrap();
    let elapsed = system::clock::Clock::elapsed(clock);
    let puts = presence.due(now, elapsed, || authority.in_flight()).unwrap();
    if !puts.is_empty() {
        authority.keep(puts).unwrap();
    }
}

/// Another process begins: `away` seconds after the last one ended.
fn restart(scene: &Scene, away: u64, holder: &str) -> (Authority, Presence) {
    scene.clock.pass(away.max(16));
    let authority = take(&scene.store, &scene.clock, holder).unwrap();
    let now = UtcTime::floor(scene.store.now());
    let presence = Presence::new(now);
    presence.resume(&*scene.store, now).unwrap();
    (authority, presence)
}

#[test]
fn silence_counts_while_a_controller_listens_and_over_its_restarts() {
    let policy = format!("{}deadline: {{host: 1h, silence: 1h}}\n", common::scene::POLICY);
    let clock = Arc::new(Hand::new());
    let scene = Scene::over(Arc::new(Memory::new(clock.clone())), clock, &policy, 80);
    let silent = scene.ready()[0];
    scene.begin(silent, nonce(1)).unwrap();
    let others: Vec<usize> = (0..80).filter(|number| *number != silent).collect();
    let (mut authority, mut presence) = restart(&scene, 16, "one");
    presence.heard(host(silent), Nonce::from_bytes([1; 16]), UtcTime::floor(scene.store.now()));
    let is_silent = |authority: &Authority| {
        let state = authority.host_state(scene.rollout, host(silent)).unwrap();
        matches!(state, Some(HostState::Bad { .. }))
    };
    // Three controllers, each for 25 minutes, with half a day between them.
    for (holder, minutes, expected) in [("two", 25, false), ("three", 25, false), ("four", 25, true)] {
        for _ in 0..minutes {
            scene.clock.pass(60);
            authority.retake().unwrap();
            listen(&authority, &presence, &scene.clock, &others);
        }
        assert_eq!(is_silent(&authority), expected, "before {holder} begins");
        drop(authority);
        (authority, presence) = restart(&scene, 12 * 3600, holder);
        listen(&authority, &presence, &scene.clock, &others);
        assert_eq!(is_silent(&authority), expected, "nobody is silent while nobody listens");
    }
}
