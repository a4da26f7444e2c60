//! Grants a second: each decided, signed, on disk in SQLite, and answered. `cargo bench -p controller --bench grants`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::scene::{Scene, nonce};
use common::{Hand, batch, take};
use controller::store::{Sqlite, Store};
use system::clock::{Clock as _, SystemClock};

const HOSTS: usize = 3000;

fn took(work: impl FnOnce()) -> Duration {
    let begun = SystemClock.elapsed();
    work();
    SystemClock.elapsed() - begun
}

fn rate(number: usize, took: Duration) -> f64 {
    number as f64 / took.as_secs_f64()
}

fn store(directory: &tempfile::TempDir) -> (Arc<Sqlite>, Arc<Hand>) {
    let clock = Arc::new(Hand::new());
    (Arc::new(Sqlite::open(&directory.path().join("c.sqlite"), clock.clone()).unwrap()), clock)
}

fn grants(sides: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, clock) = store(&directory);
    let policy = common::scene::POLICY
        .replace("fleet: 3", "fleet: 100%")
        .replace("start_over", "first: 2900, largest: 100%, start_over");
    let scene = Scene::over(store, clock, &policy, HOSTS);
    let ready = scene.ready();
    let ready = &ready[..if sides == 1 { 300 } else { ready.len() }];
    let (next, given) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let took = took(|| {
        std::thread::scope(|scope| {
            for _ in 0..sides {
                scope.spawn(|| {
                    while let Some(number) = ready.get(next.fetch_add(1, Ordering::SeqCst)) {
                        given.fetch_add(
                            usize::from(scene.begin(*number, nonce(*number)).is_ok()),
                            Ordering::SeqCst,
                        );
                    }
                });
            }
        });
    });
    let given = given.into_inner();
    println!("{given:5} grants, {sides:3} hosts asking at once: {:8.0} a second", rate(given, took));
}

fn batches(group: usize, groups: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, _) = store(&directory);
    let epoch = take(&*store, "one", 0).epoch;
    let took = took(|| {
        for number in 0..groups {
            let one = |at: usize| {
                batch(epoch, (number * group + at) as u64, &format!("h{at}"), number as u64, "value")
            };
            assert!(store.commit((0..group).map(one).collect()).unwrap().iter().all(Result::is_ok));
        }
    });
    println!(
        "{:5} batches in groups of {group:3}: {:8.0} a second",
        group * groups,
        rate(group * groups, took)
    );
}

fn main() {
    for (group, groups) in [(1, 500), (10, 200), (100, 100)] {
        batches(group, groups);
    }
    for sides in [1, 8, 64, 256] {
        grants(sides);
    }
}
