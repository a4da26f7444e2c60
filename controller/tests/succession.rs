//! A newer rollout takes an older one's place.

mod common;

use common::scene::{POLICY, Scene, begin, enrol, host, issued, nonce, person, take};
use controller::authority::facts::Fact;
use controller::authority::{Denied, Order, Standing};
use controller::store::Which;
use fleet::protocol::AttemptReport;
use fleet::rollout::{Author, Fault, HostState, NotNow, Outdated, Proof, Said, Stage, Successor};
use manifests::{HostId, Sha256};

/// Everybody at once, so that one wave is all.
const ONE_WAVE: &str = "schema: 1\nselector: {groups: [fleet]}\n\
                        waves: {first: 80, start_over: 0s, bake: 1h}\ncaps: {fleet: 100%, domain: 100%}\n";

fn stage(scene: &Scene, rollout: Sha256) -> Stage {
    scene.authority.standing(rollout).unwrap().0
}

fn state(scene: &Scene, rollout: Sha256, number: usize) -> Option<HostState> {
    scene.authority.host_state(rollout, host(number)).unwrap()
}

fn standing(scene: &Scene, rollout: Sha256) -> Standing {
    let all = scene.authority.standings().unwrap();
    all.into_iter().find(|standing| standing.rollout == rollout).unwrap()
}

/// All hosts that are ready take it, are well, and have been watched.
fn take_all(scene: &Scene, rollout: Sha256) {
    scene.make_ready(rollout);
    for number in 0..scene.hosts {
        if state(scene, rollout, number) == Some(HostState::Ready) {
            begin(&scene.authority, rollout, number, nonce(number)).unwrap();
            scene.say(rollout, number, Some(nonce(number)), Said::Applied).unwrap();
        }
    }
    scene.clock.pass(3601);
    scene.authority.retake().unwrap();
    scene.tick();
}

#[test]
fn a_newer_version_ends_the_older_one_when_it_begins_and_no_host_has_two_grants() {
    let scene = Scene::new();
    let older = scene.rollout;
    let ready = scene.ready();
    let (granted, waiting) = (ready[0], ready[1]);
    scene.begin(granted, nonce(1)).unwrap();
    let newer = scene.hand_in("fix", "the next", 2, POLICY).unwrap();
    assert_eq!(standing(&scene, newer).supersedes, [older]);
    assert_eq!(stage(&scene, older), Stage::Running, "the newer one has not begun yet");
    scene.tick();
    let by = Successor { rollout: newer, version: 2 };
    assert_eq!(stage(&scene, older), Stage::Superseded(by));
    // Nothing more of the older one is offered, nor begun, nor given once more.
    for number in [granted, waiting] {
        let outlook = scene.authority.outlook(host(number)).unwrap();
        assert!(outlook.offers.iter().all(|offer| offer.rollout == newer));
        assert!(outlook.stop.is_empty(), "hosts in flight finish");
    }
    let refused = begin(&scene.authority, older, waiting, nonce(9));
    assert!(matches!(refused, Err(Denied::NotNow(NotNow::Stage))));
    // Who is in the middle of the older one waits with the newer one.
    scene.make_ready(newer);
    if state(&scene, newer, granted) == Some(HostState::Ready) {
        let refused = begin(&scene.authority, newer, granted, nonce(2));
        assert!(matches!(refused, Err(Denied::NotNow(NotNow::Elsewhere))), "{refused:?}");
    }
    scene.say(older, granted, Some(nonce(1)), Said::Applied).unwrap();
    scene.clock.pass(3601);
    scene.authority.retake().unwrap();
    scene.tick();
    assert!(matches!(state(&scene, older, granted), Some(HostState::Good { .. })));
    assert_eq!(stage(&scene, older), Stage::Superseded(by));
    let told = scene.authority.explain(older, host(waiting)).unwrap();
    let last = &told.lines.last().unwrap().text;
    assert!(last.contains(&newer.to_string()) && last.contains("gets nothing of it any more"), "{last}");
    // A controller that learns it from the ledger knows the same.
    scene.clock.pass(16);
    let two = take(&scene.store, &scene.clock, "two").unwrap();
    assert_eq!(two.standing(older).unwrap().0, Stage::Superseded(by));
}

#[test]
fn a_granted_host_of_a_superseded_rollout_that_says_nothing_is_not_left_hanging() {
    let policy = format!("{POLICY}deadline: {{host: 1h}}\n");
    let clock = std::sync::Arc::new(common::Hand::new());
    let store = std::sync::Arc::new(controller::store::Memory::new(clock.clone()));
    let scene = Scene::over(store, clock, &policy, 80);
    let granted = scene.ready()[0];
    scene.begin(granted, nonce(1)).unwrap();
    let newer = scene.hand_in("fix", "the next", 2, &policy).unwrap();
    scene.tick();
    scene.clock.pass(7200);
    scene.authority.retake().unwrap();
    scene.tick();
    assert!(matches!(state(&scene, scene.rollout, granted), Some(HostState::Bad { .. })));
    scene.make_ready(newer);
    let ready = (0..80).find(|number| state(&scene, newer, *number) == Some(HostState::Ready)).unwrap();
    begin(&scene.authority, newer, ready, nonce(3)).unwrap();
}

#[test]
fn what_keeps_the_fleet_up_afterwards_is_the_newer_one_and_the_floor_is_its_version() {
    let clock = std::sync::Arc::new(common::Hand::new());
    let store = std::sync::Arc::new(controller::store::Memory::new(clock.clone()));
    let scene = Scene::over(store, clock, ONE_WAVE, 80);
    take_all(&scene, scene.rollout);
    assert_eq!(stage(&scene, scene.rollout), Stage::Completed);
    let newer = scene.hand_in("fix", "the next", 2, ONE_WAVE).unwrap();
    scene.tick();
    take_all(&scene, newer);
    assert_eq!(stage(&scene, newer), Stage::Completed);
    assert!(matches!(stage(&scene, scene.rollout), Stage::Superseded(_)));
    // Who comes in now gets the newer one alone.
    enrol(&scene.authority, 500).unwrap();
    scene.tick();
    assert_eq!(state(&scene, scene.rollout, 500), None);
    let offers = scene.authority.outlook(host(500)).unwrap().offers;
    assert_eq!(offers.iter().map(|offer| offer.rollout).collect::<Vec<_>>(), [newer]);
    // An older version does not begin any more, nor another manifest of this one.
    let late = scene.hand_in("fix", "an older", 1, &format!("{ONE_WAVE}# later\n")).unwrap_err();
    assert!(matches!(late, Denied::Outdated(Outdated::Version { floor: 2, found: 1, through: true, .. })));
    let said = late.to_string();
    assert!(said.contains("version 1 of fix is below 2") && said.contains("expected at least 2"), "{said}");
    let other = scene.hand_in("fix", "another of two", 2, ONE_WAVE).unwrap_err();
    assert!(matches!(other, Denied::Outdated(Outdated::Reused { .. })), "{other}");
}

#[test]
fn an_old_document_of_the_same_manifest_is_not_brought_out_again() {
    let scene = Scene::new();
    let hand_in = |at: &str, policy: &str| {
        let (envelope, document) = issued(at, "fix", "manifest", policy, 80);
        scene.authority.submit(&envelope, &document, policy, 1)
    };
    let faster = format!("{POLICY}# faster\n");
    let refused = hand_in("2026-10-30T00:00:00Z", &faster).unwrap_err();
    assert!(matches!(refused, Denied::Outdated(Outdated::Document { .. })), "{refused}");
    // One that is newer takes the other's place.
    let accepted = hand_in("2026-11-01T12:00:00Z", &faster).unwrap();
    assert_eq!(accepted.supersedes, [scene.rollout]);
}

#[test]
fn a_host_that_came_back_gets_the_manifest_again_only_when_people_sign_that() {
    let scene = Scene::new();
    let back = scene.ready()[0];
    scene.begin(back, nonce(1)).unwrap();
    scene.say(scene.rollout, back, Some(nonce(1)), Said::Hurt { fault: Fault::Restored }).unwrap();
    scene.tick();
    assert!(scene.authority.came_back(scene.rollout, host(back)).unwrap());
    // A newer document of the same manifest gives it to that host no more than this one.
    let (envelope, document) = issued("2026-11-01T12:00:00Z", "fix", "manifest", ONE_WAVE, 80);
    scene.authority.submit(&envelope, &document, ONE_WAVE, 1).unwrap();
    let again = document.digest();
    scene.tick();
    scene.tick();
    assert_eq!(state(&scene, again, back), Some(HostState::Withdrawn));
    let (anna, other) = (person("anna", Proof::Signature), host(scene.ready()[1]));
    let retry =
        |hosts: &[HostId], by: &Author| scene.authority.order(again, &Order::Retry(hosts.to_vec()), by);
    assert!(matches!(retry(&[], &person("ben", Proof::Token)), Err(Denied::Unsigned { .. })));
    assert!(matches!(retry(&[other], &anna), Err(Denied::NeverCameBack { .. })));
    let size = scene.store.size().unwrap();
    retry(&[host(back)], &anna).unwrap();
    let entry = scene.store.entries(&Which::From(size), 1).unwrap().pop().unwrap().1;
    let Fact::Retried { hosts, by, .. } = Fact::read(&entry).unwrap() else { panic!("{entry:?}") };
    assert_eq!((hosts, by), (vec![host(back)], anna.clone()));
    assert!(matches!(retry(&[], &anna), Err(Denied::NobodyCameBack { .. })), "told twice it changes nothing");
    scene.tick();
    assert_eq!(state(&scene, again, back), Some(HostState::Offered));
    let told = scene.authority.explain(again, host(back)).unwrap();
    assert!(told.lines.iter().any(|line| line.text == "may have it again: anna said so"), "{told:?}");
    // Nor does a controller that learns it from the ledger hold it against the host; but what comes later, it does.
    scene.clock.pass(16);
    let two = take(&scene.store, &scene.clock, "two").unwrap();
    assert!(!two.came_back(again, host(back)).unwrap());
    let say = |nonce, said| {
        let report = AttemptReport { rollout: again, nonce, said, transaction: None, fingerprint: None };
        two.report(host(back), report).unwrap();
    };
    say(None, Said::Ready);
    begin(&two, again, back, nonce(2)).unwrap();
    say(Some(nonce(2)), Said::Hurt { fault: Fault::Restored });
    assert!(two.came_back(again, host(back)).unwrap());
    scene.clock.pass(16);
    let three = take(&scene.store, &scene.clock, "three").unwrap();
    assert!(three.came_back(again, host(back)).unwrap());
}

#[test]
fn a_newer_one_that_never_begins_ends_nothing() {
    let scene = Scene::new();
    let policy = format!("{POLICY}approvals: {{start: 1}}\n");
    let newer = scene.hand_in("fix", "the next", 2, &policy).unwrap();
    scene.tick();
    scene.authority.order(newer, &Order::Abort, &person("ben", Proof::Token)).unwrap();
    scene.tick();
    assert_eq!(stage(&scene, scene.rollout), Stage::Running);
}
