//! Two controllers on one store, whatever they and their hosts do, and whatever their clocks say.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::Hand;
use common::scene::{POLICY, Scene, begin, host, nonce, person, take};
use controller::authority::Order;
use controller::authority::facts::{Fact, of_rollout};
use controller::authority::{Authority, Denied, Surroundings};
use controller::ledger::audit;
use controller::store::{Memory, Store, Which};
use fleet::protocol::AttemptReport;
use fleet::rollout::{Event, Fault, Proof, Said};
use manifests::{Sha256, UtcTime};
use proptest::prelude::*;

const HOSTS: usize = 8;
const CAP: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Begin { host: usize, nonce: usize },
    Say { host: usize, nonce: usize, said: Said },
    Order(Order),
    Tick,
    Renew,
    Retake,
    Pass(u64),
    Jump(i64),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let said = prop_oneof![
        4 => Just(Said::Applied),
        1 => Just(Said::Hurt { fault: Fault::Restored }),
        1 => Just(Said::Ready),
        1 => Just(Said::RolledBack),
    ];
    let order = prop_oneof![
        3 => Just(Order::Pause),
        3 => Just(Order::Resume),
        1 => Just(Order::Abort),
        1 => Just(Order::RollBack),
    ];
    let step = prop_oneof![
        8 => (0..HOSTS, 0..3_usize).prop_map(|(host, nonce)| Step::Begin { host, nonce }),
        5 => (0..HOSTS, 0..3_usize, said).prop_map(|(host, nonce, said)| Step::Say { host, nonce, said }),
        1 => order.prop_map(Step::Order),
        2 => Just(Step::Tick),
        2 => Just(Step::Renew),
        4 => Just(Step::Retake),
        2 => (0..20_u64).prop_map(Step::Pass),
        1 => (-30..30_i64).prop_map(Step::Jump),
    ];
    (0..2_usize, step)
}

/// What one answered grant was.
type Given = BTreeMap<(usize, usize), String>;

fn do_step(scene: &Scene, controller: &Authority, step: &Step, given: &mut Given) {
    let attempt = |host: usize, number: usize| nonce(10 * host + number);
    match *step {
        Step::Begin { host, nonce } => {
            if let Ok(bytes) = begin(controller, scene.rollout, host, attempt(host, nonce)) {
                let first = given.entry((host, nonce)).or_insert_with(|| bytes.clone());
                assert_eq!(*first, bytes, "one attempt, one grant");
            }
        }
        Step::Say { host: number, nonce, said } => {
            let nonce = Some(attempt(number, nonce));
            let (rollout, transaction, fingerprint) = (scene.rollout, None, None);
            // Whatever becomes of it: reports may be late, and come to the wrong one.
            let _ = controller
                .report(host(number), AttemptReport { rollout, nonce, said, transaction, fingerprint });
        }
        Step::Order(ref order) => {
            drop(controller.order(scene.rollout, order, &person("anna", Proof::Signature)))
        }
        Step::Tick => {
            let now = UtcTime::floor(scene.store.now());
            let since = "2026-11-02T00:00:00Z".parse().unwrap();
            let readings = BTreeMap::new();
            let around =
                Surroundings { last_seen: &|_| Some(now), listening_since: since, readings: &readings };
            let _ = controller.tick(&around);
        }
        Step::Renew => drop(controller.renew()),
        Step::Retake => drop(controller.retake()),
        Step::Pass(seconds) => scene.clock.pass(seconds),
        Step::Jump(seconds) => scene.clock.jump(seconds),
    }
}

/// Holds the promises against the ledger alone; the nonces that it granted.
fn promises(store: &dyn Store, rollout: Sha256) -> BTreeSet<String> {
    let (mut open, mut nonces) = (BTreeSet::new(), BTreeSet::new());
    let (mut epochs, mut over) = (0, false);
    for (_, entry) in store.entries(&Which::Stream(of_rollout(rollout)), usize::MAX).unwrap() {
        let Fact::Happened { event, .. } = Fact::read(&entry).unwrap() else { continue };
        match event {
            Event::Granted { host, nonce, epoch } => {
                assert!(!over, "nobody begins after the end");
                assert!(open.insert(host), "one open grant");
                assert!(open.len() <= CAP, "the cap");
                assert!(epoch >= epochs, "an old lease grants nothing");
                assert!(nonces.insert(nonce.to_string()), "no attempt is granted twice");
                epochs = epoch;
            }
            Event::RollbackGranted { host, .. } => drop(open.insert(host)),
            Event::Applied { host }
            | Event::Failed { host, .. }
            | Event::Declined { host, .. }
            | Event::Silenced { host }
            | Event::RolledBack { host }
            | Event::RollbackFailed { host } => drop(open.remove(&host)),
            Event::Halted { .. } | Event::Aborted { .. } | Event::RollbackBegun { .. } => over = true,
            _ => {}
        }
    }
    nonces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_controllers_on_one_store_keep_every_promise(steps in proptest::collection::vec(step(), 1..60)) {
        let clock = Arc::new(Hand::new());
        let store: Arc<dyn Store> = Arc::new(Memory::new(clock.clone()));
        let policy = POLICY.replace("fleet: 3", &format!("fleet: {CAP}"));
        let scene = Scene::over(store.clone(), clock.clone(), &policy, HOSTS);
        // The second comes when the first has stopped for long enough.
        clock.pass(16);
        let second = take(&store, &clock, "two").unwrap();
        let mut given = Given::new();
        for (who, step) in &steps {
            let controller = if *who == 0 { &scene.authority } else { &second };
            do_step(&scene, controller, step, &mut given);
        }
        let granted = promises(&*store, scene.rollout);
        for (host, number) in given.keys() {
            prop_assert!(granted.contains(&nonce(10 * host + number).to_string()), "what was said was written");
        }
        prop_assert!(audit(&*store, &[]).unwrap().is_ok());
        // What the last holder has in its memory is what anybody would make of the ledger.
        let mut third = None;
        while third.is_none() {
            clock.pass(16);
            third = take(&store, &clock, "three").ok();
        }
        let third = third.unwrap();
        let states = |controller: &Authority| -> Result<Vec<_>, Denied> {
            (0..HOSTS).map(|number| controller.host_state(scene.rollout, host(number))).collect()
        };
        let third = states(&third).unwrap();
        clock.pass(31);
        scene.authority.retake().unwrap();
        prop_assert_eq!(states(&scene.authority).unwrap(), third);
    }
}
