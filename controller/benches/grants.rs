//! Grants a second: each decided, signed, on disk in SQLite or PostgreSQL (on this machine, over its socket), and answered.
//! `cargo bench -p controller --bench grants`.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::scene::{Scene, nonce};
use common::{Hand, batch, take};
use controller::store::postgres::Database;
use controller::store::{Postgres, Sqlite, Store};
use server::Server;
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

/// A store, and what it needs.
struct Kept {
    name: &'static str,
    store: Arc<dyn Store>,
    clock: Arc<Hand>,
    _server: Option<Server>,
    _directory: tempfile::TempDir,
}

fn sqlite() -> Kept {
    let (clock, directory) = (Arc::new(Hand::new()), directory());
    let store = Arc::new(Sqlite::open(&directory.path().join("c.sqlite"), clock.clone()).unwrap());
    Kept { name: "SQLite", store, clock, _server: None, _directory: directory }
}

/// Its commits wait for the disk, too.
fn postgres() -> Kept {
    let server = Server::start_with(|_| "fsync = on\n".to_owned());
    let clock = Arc::new(Hand::new());
    let database = Database::new(&server.schema("fleet", clock.now()), None).unwrap();
    let store = Arc::new(Postgres::open(database, clock.clone()).unwrap());
    Kept { name: "PostgreSQL", store, clock, _server: Some(server), _directory: directory() }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn grants(kept: &Kept, sides: usize) {
    let policy = common::scene::POLICY
        .replace("fleet: 3", "fleet: 100%")
        .replace("start_over", "first: 2900, largest: 100%, start_over");
    let scene = Scene::over(kept.store.clone(), kept.clock.clone(), &policy, HOSTS);
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
    let (name, rate) = (kept.name, rate(given, took));
    println!("{name:10} {given:5} grants, {sides:3} hosts asking at once: {rate:8.0} a second");
}

fn batches(kept: &Kept, group: usize, groups: usize) {
    let store = &*kept.store;
    let epoch = take(store, "one", 0).epoch;
    let took = took(|| {
        for number in 0..groups {
            let one = |at: usize| {
                batch(epoch, (number * group + at) as u64, &format!("h{at}"), number as u64, "value")
            };
            assert!(store.commit((0..group).map(one).collect()).unwrap().iter().all(Result::is_ok));
        }
    });
    println!(
        "{:10} {:5} batches in groups of {group:3}: {:8.0} a second",
        kept.name,
        group * groups,
        rate(group * groups, took)
    );
}

fn main() {
    for make in [sqlite, postgres] {
        for (group, groups) in [(1, 500), (10, 200), (100, 100)] {
            batches(&make(), group, groups);
        }
        for sides in [1, 8, 64, 256] {
            grants(&make(), sides);
        }
    }
}
