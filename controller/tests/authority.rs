//! Who may begin: the one authority, from the outside.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::Hand;
use common::scene::{Scene, begin, enrol, host, nonce, opened, person, take};
use controller::authority::facts::{Fact, of_rollout};
use controller::authority::{Denied, MAX_JUMP, Order};
use controller::ledger::{Position, audit, tree};
use controller::store::{
    Batch, Key, LeaseAnswer, LeaseRequest, LedgerEntry, Memory, Receipt, Record, Refused, Sqlite, Store,
    StoreError, Which,
};
use fleet::protocol::{BeginRequest, Version};
use fleet::rollout::{Action, Event, Fault, HostState, NotNow, Proof, Said, Stage};
use manifests::{Attempt, GrantedAction, Sha256};

fn not_now<T: std::fmt::Debug>(answer: Result<T, Denied>) -> NotNow {
    match answer {
        Err(Denied::NotNow(why)) => why,
        other => panic!("expected a reason not to begin, found {other:?}"),
    }
}

fn events(store: &dyn Store, rollout: Sha256) -> Vec<Event> {
    let all = store.entries(&Which::Stream(of_rollout(rollout)), usize::MAX).unwrap();
    let event = |(_, entry): &(u64, LedgerEntry)| match Fact::read(entry).unwrap() {
        Fact::Happened { event, .. } => Some(event),
        _ => None,
    };
    all.iter().filter_map(event).collect()
}

fn grants(store: &dyn Store, rollout: Sha256) -> usize {
    events(store, rollout).iter().filter(|event| matches!(event, Event::Granted { .. })).count()
}

#[test]
fn a_grant_is_what_the_host_asked_for_signed_and_its_own_last_entry_of_the_ledger() {
    let scene = Scene::new();
    let first = scene.ready()[0];
    let grant = opened(&scene.begin(first, nonce(1)).unwrap(), scene.store.now());
    let manifest = Sha256::of(b"manifest");
    let age = std::time::Duration::ZERO;
    let attempt =
        Attempt { host: host(first), rollout: scene.rollout, manifest, nonce: nonce(1), age, epoch: 1 };
    grant.refuse(&attempt).unwrap();
    assert_eq!((grant.action, grant.epoch, grant.wave), (GrantedAction::Apply, scene.authority.epoch(), 0));
    let number = grant.ledger.size - 1;
    let (_, entry) = scene.store.entries(&Which::From(number), 1).unwrap().pop().unwrap();
    let granted = Fact::read(&entry).unwrap();
    assert!(
        matches!(granted, Fact::Happened { event: Event::Granted { nonce: n, .. }, .. } if n == nonce(1))
    );
    let nodes = |wanted: &[Position]| scene.store.nodes(wanted);
    let proof = tree::prove_inclusion(number, grant.ledger.size, nodes).unwrap().unwrap();
    assert!(tree::includes(&grant.ledger, number, &entry.leaf_bytes(), &proof));
}

#[test]
fn the_same_attempt_gets_the_same_bytes_also_from_another_controller_and_another_attempt_none() {
    let scene = Scene::new();
    let first = scene.ready()[0];
    let bytes = scene.begin(first, nonce(1)).unwrap();
    let size = scene.store.size().unwrap();
    assert_eq!(scene.begin(first, nonce(1)).unwrap(), bytes);
    assert_eq!(not_now(scene.begin(first, nonce(2))), NotNow::OtherNonce);
    assert_eq!(scene.store.size().unwrap(), size, "nothing was written for either");
    scene.clock.pass(16);
    let two = take(&scene.store, &scene.clock, "two").unwrap();
    assert_eq!(begin(&two, scene.rollout, first, nonce(1)).unwrap(), bytes);
    assert_eq!(not_now(begin(&two, scene.rollout, first, nonce(2))), NotNow::OtherNonce);
    assert_eq!(grants(&*scene.store, scene.rollout), 1);
}

#[test]
fn nothing_is_granted_once_a_stop_was_written_however_many_ask() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand::new());
    let store = Sqlite::open(&directory.path().join("c.sqlite"), clock.clone()).unwrap();
    let policy = common::scene::POLICY.replace("fleet: 3", "fleet: 100%");
    let scene = Scene::over(Arc::new(store), clock, &policy, 80);
    let ready = scene.ready();
    let stopped = AtomicBool::new(false);
    let late = std::thread::scope(|scope| {
        let ask = |side: usize| {
            let (scene, ready, stopped) = (&scene, &ready, &stopped);
            move || {
                let mut late = 0;
                for number in ready.iter().skip(side).step_by(4) {
                    let was_stopped = stopped.load(Ordering::SeqCst);
                    late += usize::from(scene.begin(*number, nonce(*number)).is_ok() && was_stopped);
                }
                late
            }
        };
        let sides: Vec<_> = (0..4).map(|side| scope.spawn(ask(side))).collect();
        while grants(&*scene.store, scene.rollout) < 5 {
            std::thread::yield_now();
        }
        scene.authority.order(scene.rollout, &Order::Abort, &person("ben", Proof::Token)).unwrap();
        stopped.store(true, Ordering::SeqCst);
        sides.into_iter().map(|side| side.join().unwrap()).sum::<usize>()
    });
    assert_eq!(late, 0);
    let events = events(&*scene.store, scene.rollout);
    let stop = events.iter().position(|event| matches!(event, Event::Aborted { .. })).unwrap();
    assert!(!events[stop..].iter().any(|event| matches!(event, Event::Granted { .. })));
    // Nor does who had a grant get its bytes once more.
    let Some(Event::Granted { nonce, host: place, .. }) =
        events.iter().find(|event| matches!(event, Event::Granted { .. }))
    else {
        panic!("somebody had begun");
    };
    let _ = place;
    let number = ready.iter().find(|number| common::scene::nonce(**number) == *nonce).unwrap();
    assert_eq!(not_now(scene.begin(*number, *nonce)), NotNow::Stage);
}

#[test]
fn hurt_hosts_halt_a_rollout_and_only_ways_back_are_granted() {
    let scene = Scene::new();
    let mut begun = Vec::new();
    let three: Vec<_> = scene.ready().into_iter().take(3).collect();
    three.iter().for_each(|number| drop(scene.begin(*number, nonce(*number)).unwrap()));
    for number in three {
        let said = Said::Hurt { fault: Fault::Unrestored };
        scene.say(scene.rollout, number, Some(nonce(number)), said).unwrap();
        begun.push(number);
    }
    scene.tick();
    let next = scene.ready()[0];
    assert_eq!(not_now(scene.begin(next, nonce(next))), NotNow::Stage);
    let (stage, _) = scene.authority.standing(scene.rollout).unwrap();
    assert!(matches!(stage, Stage::Halted(_) | Stage::RollingBack), "{stage:?}");
    if stage != Stage::RollingBack {
        scene.authority.order(scene.rollout, &Order::RollBack, &person("ben", Proof::Token)).unwrap();
    }
    let (rollout, action) = (scene.rollout, Action::Rollback);
    let back = BeginRequest { version: Version, rollout, action, nonce: nonce(1000), epoch: 0 };
    let grant = opened(&scene.authority.begin(host(begun[0]), back).unwrap(), scene.store.now());
    assert_eq!(grant.action, GrantedAction::Rollback);
    scene.say(scene.rollout, begun[0], Some(nonce(1000)), Said::RolledBack).unwrap();
    // And this digest is not given to that host again, by any rollout.
    let policy = format!("{}# once more\n", common::scene::POLICY);
    let again = scene.submit("manifest", &policy);
    scene.make_ready(again);
    let answer = begin(&scene.authority, again, begun[0], nonce(2000));
    assert!(matches!(not_now(answer), NotNow::CameBack | NotNow::NotReady));
}

#[test]
fn caps_hold_over_all_who_ask_at_once_and_over_all_rollouts() {
    let scene = Scene::new();
    let other = scene.hand_in("another", "another manifest", 1, common::scene::POLICY).unwrap();
    scene.tick();
    scene.make_ready(other);
    let ready = scene.ready();
    let granted: usize = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let (scene, rollout) = (&scene, if number.is_multiple_of(2) { scene.rollout } else { other });
            move || begin(&scene.authority, rollout, number, nonce(number)).is_ok()
        };
        let all: Vec<_> = ready.iter().map(|number| scope.spawn(ask(*number))).collect();
        all.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
    });
    assert_eq!(granted, 3);
    assert_eq!(grants(&*scene.store, scene.rollout) + grants(&*scene.store, other), 3);
    // A controller that learns it from the ledger counts the same.
    scene.clock.pass(16);
    let two = take(&scene.store, &scene.clock, "two").unwrap();
    let is_ready =
        |number: &&usize| two.host_state(scene.rollout, host(**number)).unwrap() == Some(HostState::Ready);
    let next = *ready.iter().rfind(is_ready).unwrap();
    let answer = not_now(begin(&two, scene.rollout, next, nonce(next)));
    assert!(matches!(answer, NotNow::FleetCap | NotNow::Elsewhere), "{answer:?}");
}

#[test]
fn a_host_has_one_open_grant_over_all_rollouts() {
    let scene = Scene::new();
    let other = scene.hand_in("another", "another manifest", 1, common::scene::POLICY).unwrap();
    scene.tick();
    scene.make_ready(other);
    let state = |number: &usize| scene.authority.host_state(other, host(*number)).unwrap();
    let both = scene.ready().into_iter().find(|number| state(number) == Some(HostState::Ready)).unwrap();
    scene.begin(both, nonce(1)).unwrap();
    assert_eq!(not_now(begin(&scene.authority, other, both, nonce(2))), NotNow::Elsewhere);
    scene.say(scene.rollout, both, Some(nonce(1)), Said::Applied).unwrap();
    begin(&scene.authority, other, both, nonce(2)).unwrap();
}

#[test]
fn who_lost_the_lease_grants_nothing_and_gives_no_old_bytes_out() {
    let scene = Scene::new();
    let ready = scene.ready();
    scene.begin(ready[0], nonce(1)).unwrap();
    // The wall clock jumped, so the first does not notice that its time is over.
    scene.clock.jump(16);
    let two = take(&scene.store, &scene.clock, "two").unwrap();
    assert!(two.epoch() > scene.authority.epoch());
    assert!(matches!(scene.begin(ready[1], nonce(2)), Err(Denied::NoLease)));
    assert!(matches!(scene.begin(ready[0], nonce(1)), Err(Denied::NoLease)));
    assert!(matches!(scene.authority.renew(), Err(Denied::NoLease)));
    let order = scene.authority.order(scene.rollout, &Order::Pause, &person("ben", Proof::Token));
    assert!(matches!(order, Err(Denied::NoLease)));
    assert_eq!(grants(&*scene.store, scene.rollout), 1);
    let grant = opened(&begin(&two, scene.rollout, ready[1], nonce(3)).unwrap(), scene.store.now());
    assert_eq!(grant.epoch, two.epoch());
}

#[test]
fn a_controller_goes_above_what_a_host_has_seen_and_not_above_a_lie() {
    let scene = Scene::new();
    let ready = scene.ready();
    let before = scene.authority.epoch();
    let claim = |number: usize, epoch: u64| {
        let (rollout, action) = (scene.rollout, Action::Apply);
        let request = BeginRequest { version: Version, rollout, action, nonce: nonce(number), epoch };
        scene.authority.begin(host(number), request)
    };
    let grant = opened(&claim(ready[0], before + 500).unwrap(), scene.store.now());
    assert!(grant.epoch > before + 500 && grant.epoch == scene.authority.epoch());
    for lie in [scene.authority.epoch() + MAX_JUMP + 1, (1 << 53) - 1, u64::MAX] {
        assert!(matches!(claim(ready[1], lie), Err(Denied::FarAhead { .. })), "{lie}");
    }
    assert_eq!(scene.authority.epoch(), grant.epoch);
    claim(ready[1], 0).unwrap();
}

#[test]
fn a_token_slows_down_and_only_a_signature_goes_on_after_the_test() {
    let scene = Scene::new();
    let token = person("ben", Proof::Token);
    scene.authority.order(scene.rollout, &Order::Pause, &token).unwrap();
    let next = scene.ready()[0];
    assert_eq!(not_now(scene.begin(next, nonce(1))), NotNow::Stage);
    let approve = scene.authority.order(scene.rollout, &Order::Approve, &token);
    assert!(matches!(approve, Err(Denied::Impossible(_))));
    scene.authority.order(scene.rollout, &Order::Resume, &token).unwrap();
    scene.tick();
    scene.begin(next, nonce(1)).unwrap();
}

#[test]
fn a_rollout_goes_through_and_the_ledger_explains_it() {
    let scene = Scene::new();
    let mut attempt = 0;
    for _ in 0..20 {
        scene.make_ready(scene.rollout);
        while let Some(number) = scene.ready().first().copied() {
            attempt += 1;
            scene.begin(number, nonce(attempt)).unwrap();
            scene.say(scene.rollout, number, Some(nonce(attempt)), Said::Applied).unwrap();
        }
        scene.clock.pass(3600);
        assert!(matches!(scene.authority.renew(), Err(Denied::NoLease)));
        scene.authority.retake().unwrap();
        scene.tick();
        if scene.authority.standing(scene.rollout).unwrap().0 == Stage::Completed {
            break;
        }
    }
    assert_eq!(scene.authority.standing(scene.rollout).unwrap(), (Stage::Completed, vec![]));
    let story = scene.authority.explain(scene.rollout, host(0)).unwrap();
    let lines: Vec<_> = story.lines.iter().map(|line| line.text.as_str()).collect();
    assert!(lines.contains(&"watched for the whole bake, and good"), "{lines:?}");
    // A host that comes later takes it under the same gates.
    enrol(&scene.authority, 500).unwrap();
    assert!(scene.tick() > 0);
    let state = scene.authority.host_state(scene.rollout, host(500)).unwrap();
    assert_eq!(state, Some(HostState::Offered));
    assert!(audit(&*scene.store, &[]).unwrap().is_ok());
}

#[test]
fn a_policy_that_people_did_not_sign_or_that_can_never_pass_is_refused() {
    let scene = Scene::new();
    let (envelope, document) = common::scene::document("m", common::scene::POLICY, 80);
    let other = scene.authority.submit(&envelope, &document, &format!("{}\n", common::scene::POLICY), 1);
    assert!(matches!(other, Err(Denied::Policy { .. })));
    let nobody = common::scene::POLICY.replace("[fleet]", "[nobody]");
    let (envelope, document) = common::scene::document("m", &nobody, 80);
    assert!(matches!(scene.authority.submit(&envelope, &document, &nobody, 1), Err(Denied::Unfit { .. })));
    let (envelope, document) = common::scene::document("manifest", common::scene::POLICY, 80);
    let twice = scene.authority.submit(&envelope, &document, common::scene::POLICY, 1);
    assert!(matches!(twice, Err(Denied::Known { .. })));
    scene.begin(scene.ready()[0], nonce(1)).unwrap();
}

#[test]
fn a_stop_that_somebody_else_wrote_under_the_same_lease_is_learned_before_anything_is_granted() {
    let scene = Scene::new();
    let ready = scene.ready();
    let by = person("ben", Proof::Token);
    let at = "2026-11-02T00:00:00Z".parse().unwrap();
    let stop = Fact::Happened { at, event: Event::Aborted { by } };
    let after = Some(scene.store.size().unwrap());
    let entries = vec![stop.entry(of_rollout(scene.rollout))];
    let batch = Batch { epoch: scene.authority.epoch(), after, entries, ..Batch::default() };
    scene.store.commit(vec![batch]).unwrap()[0].clone().unwrap();
    assert_eq!(not_now(scene.begin(ready[0], nonce(1))), NotNow::Stage);
    assert_eq!(grants(&*scene.store, scene.rollout), 0);
}

#[test]
fn no_host_is_told_to_begin_before_the_time_that_people_signed_for_it() {
    let scene = Scene::new();
    let (envelope, document) =
        common::scene::issued("2026-11-01T00:00:00Z", "another", "another", common::scene::POLICY, 1);
    scene.authority.submit(&envelope, &document, common::scene::POLICY, 1).unwrap();
    scene.tick();
    scene.make_ready(document.digest());
    let state = |number: &usize| scene.authority.host_state(document.digest(), host(*number)).unwrap();
    let later = (1..80).find(|number| state(number) == Some(HostState::Ready)).unwrap();
    let until = "2026-11-05T00:00:00Z".parse().unwrap();
    let answer = begin(&scene.authority, document.digest(), later, nonce(1));
    assert_eq!(not_now(answer), NotNow::NotBefore { until });
}

/// A store whose answer to a commit gets lost, whether or not it was written.
struct Lossy {
    inner: Memory,
    lose: AtomicBool,
    write: AtomicBool,
}

impl Store for Lossy {
    fn now(&self) -> jiff::Timestamp {
        self.inner.now()
    }

    fn commit(&self, group: Vec<Batch>) -> Result<Vec<Result<Receipt, Refused>>, StoreError> {
        if !self.lose.swap(false, Ordering::SeqCst) {
            return self.inner.commit(group);
        }
        if self.write.load(Ordering::SeqCst) {
            self.inner.commit(group)?;
        }
        Err(StoreError::Ended)
    }

    fn lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, StoreError> {
        self.inner.lease(request)
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.inner.record(key)
    }

    fn room(&self, room: &str) -> Result<Vec<(Key, Record)>, StoreError> {
        self.inner.room(room)
    }

    fn entries(&self, which: &Which, limit: usize) -> Result<Vec<(u64, LedgerEntry)>, StoreError> {
        self.inner.entries(which, limit)
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }

    fn nodes(&self, wanted: &[Position]) -> Result<Vec<Sha256>, StoreError> {
        self.inner.nodes(wanted)
    }
}

#[test]
fn an_answer_of_the_store_that_got_lost_costs_no_grant_and_gives_none_twice() {
    for write in [true, false] {
        let clock = Arc::new(Hand::new());
        let inner = Memory::new(clock.clone());
        let lossy = Arc::new(Lossy { inner, lose: AtomicBool::new(false), write: AtomicBool::new(write) });
        let scene = Scene::over(lossy.clone(), clock, common::scene::POLICY, 80);
        let ready = scene.ready();
        lossy.lose.store(true, Ordering::SeqCst);
        assert!(matches!(scene.begin(ready[0], nonce(1)), Err(Denied::Store(_))));
        assert_eq!(grants(&*scene.store, scene.rollout), usize::from(write));
        let grant = scene.begin(ready[0], nonce(1)).unwrap();
        assert_eq!(scene.begin(ready[0], nonce(1)).unwrap(), grant);
        assert_eq!(grants(&*scene.store, scene.rollout), 1);
        assert_eq!(
            ready[1..].iter().filter(|number| scene.begin(**number, nonce(**number)).is_ok()).count(),
            2
        );
    }
}

#[test]
fn a_holder_that_could_not_renew_stops_by_itself_before_another_may_come() {
    let scene = Scene::new();
    let ready = scene.ready();
    scene.clock.pass(9);
    scene.begin(ready[0], nonce(1)).unwrap();
    // Ten seconds are over: it renews before it grants, and can.
    scene.clock.pass(2);
    scene.begin(ready[1], nonce(2)).unwrap();
    let until = scene.store.now() + controller::store::lease::TERM;
    assert!(
        matches!(scene.store.lease(LeaseRequest::Look).unwrap(), LeaseAnswer::Others(lease) if lease.until == until)
    );
    scene.clock.pass(16);
    assert!(matches!(scene.begin(ready[2], nonce(3)), Err(Denied::NoLease)), "it ran out meanwhile");
    assert_eq!(grants(&*scene.store, scene.rollout), 2);
}
