//! The contract of `store`, held against every implementation.

mod common;
#[path = "common/server.rs"]
mod server;

use std::sync::Arc;

use common::{Hand, batch, entry, key, take};
use controller::ledger::{Frontier, audit};
use controller::store::lease::MAX_EPOCH;
use controller::store::postgres::Database;
use controller::store::{
    Batch, Expect, LeaseAnswer, LeaseRequest, Memory, Postgres, Put, Refused, Sqlite, Store, Which,
};
use proptest::prelude::*;
use server::Server;
use system::clock::Clock as _;

/// A store, the clock that it goes by, and what has to stay for as long as it is used.
struct Kept {
    store: Arc<dyn Store>,
    clock: Arc<Hand>,
    _directory: Option<tempfile::TempDir>,
    /// The server, and the schema in it whose clock is set by hand.
    server: Option<(Arc<Server>, String)>,
}

fn memory() -> Kept {
    let clock = Arc::new(Hand::new());
    Kept { store: Arc::new(Memory::new(clock.clone())), clock, _directory: None, server: None }
}

fn sqlite() -> Kept {
    let (clock, directory) = (Arc::new(Hand::new()), tempfile::tempdir().unwrap());
    let store = Sqlite::open(&directory.path().join("controller.sqlite"), clock.clone()).unwrap();
    Kept { store: Arc::new(store), clock, _directory: Some(directory), server: None }
}

fn postgres() -> Kept {
    schema_of(&Arc::new(Server::start()), "one")
}

/// A schema whose sessions find another clock in front of the server's.
fn schema_of(server: &Arc<Server>, name: &str) -> Kept {
    let clock = Arc::new(Hand::new());
    let address = server.schema(name, clock.now());
    let store = Postgres::open(Database::new(&address, None).unwrap(), clock.clone()).unwrap();
    Kept { store: Arc::new(store), clock, _directory: None, server: Some((server.clone(), name.to_owned())) }
}

impl Kept {
    fn pass(&self, seconds: u64) {
        self.clock.pass(seconds);
        self.set();
    }

    /// The store's clock alone.
    fn jump(&self, seconds: i64) {
        self.clock.jump(seconds);
        self.set();
    }

    fn set(&self) {
        if let Some((server, schema)) = &self.server {
            server.sql("postgres", &format!("UPDATE {schema}.clock SET now = '{}'", self.clock.now()));
        }
    }
}

/// One store as tests see it: everything that it says of itself.
fn all_of(store: &dyn Store) -> String {
    let (records, entries) = (store.room("thing").unwrap(), store.entries(&Which::From(0), 10_000).unwrap());
    let (size, lease) = (store.size().unwrap(), store.lease(LeaseRequest::Look).unwrap());
    let peaks = store.nodes(&Frontier::positions(size)).unwrap();
    format!("{records:?}\n{entries:?}\n{size} {peaks:?}\n{lease:?}")
}

fn a_batch_that_is_refused_changes_nothing(kept: &Kept) {
    let store = &*kept.store;
    let lease = take(store, "one", 0);
    let epoch = lease.epoch;
    store.commit(vec![batch(epoch, 0, "a", 0, "first")]).unwrap()[0].clone().unwrap();
    let before = all_of(store);
    let good = batch(epoch, 1, "a", 1, "second");
    let other = Expect { key: key("b"), revision: 1 };
    let refused = [
        (Batch { epoch: epoch + 1, ..good.clone() }, Refused::Epoch { current: epoch, found: epoch + 1 }),
        (Batch { epoch: 0, ..good.clone() }, Refused::Epoch { current: epoch, found: 0 }),
        (Batch { after: Some(0), ..good.clone() }, Refused::Ledger { expected: 0, found: 1 }),
        (Batch { after: Some(2), ..good.clone() }, Refused::Ledger { expected: 2, found: 1 }),
        (Batch { after: None, ..good.clone() }, Refused::Blind),
        (batch(epoch, 1, "a", 0, "x"), Refused::Revision { key: key("a"), expected: 0, found: 1 }),
        (batch(epoch, 1, "a", 2, "x"), Refused::Revision { key: key("a"), expected: 2, found: 1 }),
        // The second expectation does not hold: the first changes nothing either.
        (
            Batch { expects: vec![good.expects[0].clone(), other], ..good.clone() },
            Refused::Revision { key: key("b"), expected: 1, found: 0 },
        ),
    ];
    for (batch, expected) in refused {
        assert_eq!(store.commit(vec![batch]).unwrap(), [Err(expected.clone())]);
        assert_eq!(all_of(store), before, "{expected}");
    }
    store.commit(vec![good]).unwrap()[0].clone().unwrap();
    assert_ne!(all_of(store), before);
}

fn each_batch_of_a_group_sees_those_before_it_and_falls_alone(kept: &Kept) {
    let store = &*kept.store;
    let epoch = take(store, "one", 0).epoch;
    let group = vec![
        batch(epoch, 0, "a", 0, "1"),
        batch(epoch, 0, "b", 0, "decided on the same state"),
        batch(epoch, 1, "a", 1, "2"),
        batch(epoch, 2, "a", 1, "a lost update"),
        batch(epoch, 2, "b", 0, "3"),
    ];
    let receipts = store.commit(group).unwrap();
    let good: Vec<bool> = receipts.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, false, true]);
    let bodies: Vec<_> = store.entries(&Which::From(0), 10).unwrap();
    let bodies: Vec<_> = bodies.iter().map(|(number, entry)| (*number, &entry.body[..])).collect();
    assert_eq!(bodies, [(0, &b"1"[..]), (1, b"2"), (2, b"3")]);
    assert_eq!(store.record(&key("a")).unwrap().unwrap().revision, 2);
    let mut frontier = Frontier::default();
    for (id, body) in [("a", "1"), ("a", "2"), ("b", "3")] {
        frontier.append(&entry(id, body).leaf_bytes());
    }
    assert_eq!(receipts[4].as_ref().unwrap().head, frontier.head());
    assert_eq!(audit(store, &[frontier.head()]).unwrap().unwrap(), frontier.head());
}

fn a_lease_that_ran_out_writes_nothing_whether_or_not_another_came(kept: &Kept) {
    let store = &*kept.store;
    let first = take(store, "one", 0);
    kept.pass(14);
    store.commit(vec![batch(first.epoch, 0, "a", 0, "in time")]).unwrap()[0].clone().unwrap();
    kept.pass(1);
    let late = batch(first.epoch, 1, "a", 1, "late");
    assert_eq!(store.commit(vec![late.clone()]).unwrap(), [Err(Refused::RanOut { until: first.until })]);
    let renew = LeaseRequest::Renew { epoch: first.epoch };
    assert_eq!(store.lease(renew.clone()).unwrap(), LeaseAnswer::Nobodys, "it cannot be brought back");
    let second = take(store, "two", 0);
    assert!(second.epoch > first.epoch);
    let current = second.epoch;
    assert_eq!(store.commit(vec![late]).unwrap(), [Err(Refused::Epoch { current, found: first.epoch })]);
    assert_eq!(store.lease(renew).unwrap(), LeaseAnswer::Others(second.clone()));
    assert_eq!(store.size().unwrap(), 1);
    // Nor does the clock that was set back bring it back.
    kept.jump(-3600);
    let found = first.epoch;
    let old = store.commit(vec![batch(found, 1, "a", 1, "late")]).unwrap();
    assert_eq!(old, [Err(Refused::Epoch { current, found })]);
    // Nobody waits for an hour because of that; whoever comes is above the one before.
    let third = take(store, "three", 0);
    assert!(third.epoch > second.epoch);
    kept.jump(-2);
    store.commit(vec![batch(third.epoch, 1, "a", 1, "a clock that is corrected")]).unwrap()[0]
        .clone()
        .unwrap();
}

fn one_holds_the_lease_and_every_lease_has_a_higher_epoch(kept: &Kept) {
    let store = &*kept.store;
    assert_eq!(store.lease(LeaseRequest::Look).unwrap(), LeaseAnswer::Nobodys);
    let first = take(store, "one", 0);
    let by_two = LeaseRequest::Take { holder: "two".to_owned(), above: 1000 };
    assert_eq!(store.lease(by_two.clone()).unwrap(), LeaseAnswer::Others(first.clone()));
    kept.pass(10);
    let LeaseAnswer::Yours(renewed) = store.lease(LeaseRequest::Renew { epoch: first.epoch }).unwrap() else {
        panic!("it was not renewed");
    };
    assert_eq!(renewed.epoch, first.epoch);
    kept.pass(10);
    assert_eq!(store.lease(by_two.clone()).unwrap(), LeaseAnswer::Others(renewed.clone()));
    // Whoever takes it once more, after a restart or since a host has seen more, loses the old one.
    let again = take(store, "one", 41);
    assert_eq!(again.epoch, 42);
    assert_eq!(
        store.lease(LeaseRequest::Renew { epoch: first.epoch }).unwrap(),
        LeaseAnswer::Others(again.clone())
    );
    assert_eq!(store.lease(LeaseRequest::Release { epoch: 42 }).unwrap(), LeaseAnswer::Nobodys);
    let LeaseAnswer::Yours(two) = store.lease(by_two).unwrap() else { panic!("it was given back") };
    assert_eq!(two.epoch, 1001);
    kept.pass(20);
    let last = LeaseRequest::Take { holder: "liar".to_owned(), above: MAX_EPOCH };
    assert_eq!(store.lease(last).unwrap(), LeaseAnswer::Nobodys, "numbers do not run out by a lie");
    assert_eq!(take(store, "one", 0).epoch, 1002);
}

fn writes_from_many_sides_are_in_some_order(kept: &Kept) {
    const SIDES: usize = 8;
    const EACH: usize = 25;
    let store = &*kept.store;
    let epoch = take(store, "one", 0).epoch;
    let side = |side: usize| {
        for number in 0..EACH {
            // Compare and swap until it holds, as whoever decides on a state does.
            loop {
                let after = store.size().unwrap();
                let revision = store.record(&key("sum")).unwrap().map_or(0, |record| record.revision);
                let text = format!("{side} {number}");
                if store.commit(vec![batch(epoch, after, "sum", revision, &text)]).unwrap()[0].is_ok() {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..SIDES {
            scope.spawn(move || side(number));
        }
    });
    let all = store.entries(&Which::From(0), 10_000).unwrap();
    assert_eq!(all.len(), SIDES * EACH);
    for side in 0..SIDES {
        let own: Vec<_> =
            all.iter().filter(|(_, e)| e.body.starts_with(format!("{side} ").as_bytes())).collect();
        let expected: Vec<_> = (0..EACH).map(|number| format!("{side} {number}").into_bytes()).collect();
        assert!(own.iter().map(|(_, entry)| &entry.body).eq(&expected), "side {side}");
    }
    let record = store.record(&key("sum")).unwrap().unwrap();
    assert_eq!((record.revision as usize, &record.value), (all.len(), &all.last().unwrap().1.body));
    assert_eq!(audit(store, &[]).unwrap().unwrap().size as usize, all.len());
}

fn rooms_and_streams_are_apart(kept: &Kept) {
    let store = &*kept.store;
    let epoch = take(store, "one", 0).epoch;
    let put = |room: &str, id: &str| Put { key: controller::store::Key::new(room, id), value: vec![] };
    let puts =
        vec![put("thing", "a"), put("things", "b"), put("thin", "c"), put("thing0", "d"), put("thing", "")];
    let entries = vec![entry("a", "1"), entry("b", "2"), entry("a", "3"), entry("aa", "4")];
    let batch = Batch { epoch, after: Some(0), puts, entries, ..Batch::default() };
    store.commit(vec![batch]).unwrap()[0].clone().unwrap();
    let names: Vec<_> = store.room("thing").unwrap().into_iter().map(|(key, _)| key.to_string()).collect();
    assert!(names.contains(&"thing/a".to_owned()));
    assert!(names.iter().all(|name| name.starts_with("thing/")), "{names:?}");
    let stream = |id: &str| {
        let which = Which::Stream(controller::store::Key::new("stream", id));
        store.entries(&which, 10).unwrap().into_iter().map(|(number, _)| number).collect::<Vec<_>>()
    };
    assert_eq!((stream("a"), stream("b"), stream("c")), (vec![0, 2], vec![1], vec![]));
    assert_eq!(
        store.entries(&Which::From(1), 2).unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(store.nodes(&[controller::ledger::Position { level: 3, index: 0 }]).is_err(), "not full yet");
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod memory_keeps {
            $(#[test] fn $name() { super::$name(&super::memory()) })*
        }
        mod sqlite_keeps {
            $(#[test] fn $name() { super::$name(&super::sqlite()) })*
        }
        mod postgres_keeps {
            $(#[test] fn $name() { super::$name(&super::postgres()) })*
        }
    };
}

contract![
    a_batch_that_is_refused_changes_nothing,
    each_batch_of_a_group_sees_those_before_it_and_falls_alone,
    a_lease_that_ran_out_writes_nothing_whether_or_not_another_came,
    one_holds_the_lease_and_every_lease_has_a_higher_epoch,
    writes_from_many_sides_are_in_some_order,
    rooms_and_streams_are_apart,
];

/// One thing that is done to two stores alike.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(u64, u64, u8, u64)>),
    Lease(LeaseRequest),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0..5_u64, 0..6_u64, 0..3_u8, 0..4_u64);
    let lease = prop_oneof![
        (0..2_u8, 0..4_u64).prop_map(|(who, above)| LeaseRequest::Take { holder: who.to_string(), above }),
        (0..6_u64).prop_map(|epoch| LeaseRequest::Renew { epoch }),
        (0..6_u64).prop_map(|epoch| LeaseRequest::Release { epoch }),
    ];
    prop_oneof![
        3 => proptest::collection::vec(one, 1..5).prop_map(Step::Commit),
        2 => lease.prop_map(Step::Lease),
        1 => (0..20_u64).prop_map(Step::Pass),
    ]
}

/// Does the steps to stores that have to answer alike, and to be alike after each.
fn alike(stores: &[Kept], steps: &[Step]) -> Result<(), TestCaseError> {
    for kept in stores {
        take(&*kept.store, "0", 0);
    }
    for step in steps {
        let answer = |kept: &Kept| match step {
            Step::Commit(group) => {
                let size = kept.store.size().unwrap();
                // Mostly the size that it has: else next to nothing would ever be written.
                let after = |given: u64| if given < 4 { size + given / 3 } else { given };
                let batches = group.iter().map(|(epoch, given, id, revision)| {
                    batch(*epoch, after(*given), &id.to_string(), *revision, "value")
                });
                format!("{:?}", kept.store.commit(batches.collect()).unwrap())
            }
            Step::Lease(request) => format!("{:?}", kept.store.lease(request.clone()).unwrap()),
            Step::Pass(seconds) => {
                kept.pass(*seconds);
                String::new()
            }
        };
        let (first, others) = stores.split_first().unwrap();
        let (answered, left) = (answer(first), all_of(&*first.store));
        for other in others {
            prop_assert_eq!(&answer(other), &answered);
            prop_assert_eq!(&all_of(&*other.store), &left);
        }
    }
    Ok(())
}

#[test]
fn all_stores_answer_alike_whatever_is_asked() {
    let server = Arc::new(Server::start());
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let number = std::sync::atomic::AtomicUsize::new(0);
    let steps = proptest::collection::vec(step(), 1..25);
    let result = proptest::test_runner::TestRunner::new(config).run(&steps, |steps| {
        let name = format!("case{}", number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        alike(&[memory(), sqlite(), schema_of(&server, &name)], &steps)
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
