//! What the tests of stores begin with.

#![allow(dead_code, reason = "each test program takes what it needs")]

pub(crate) mod scene;
pub(crate) mod served;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use controller::ledger::{Frontier, Position};
use controller::store::{Batch, Expect, Key, Lease, LeaseAnswer, LeaseRequest, LedgerEntry, Put, Store};
use jiff::{SignedDuration, Timestamp};
use manifests::LedgerHead;
use rusqlite::{Connection, params};
use system::clock::Clock;

/// A clock that stands still until it is told.
pub(crate) struct Hand(Mutex<(Timestamp, Duration)>);

impl Hand {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(("2026-11-02T00:00:00Z".parse().unwrap(), Duration::from_secs(1000))))
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.jump(seconds as i64);
        self.0.lock().unwrap().1 += Duration::from_secs(seconds);
    }

    /// The wall clock alone.
    pub(crate) fn jump(&self, seconds: i64) {
        self.0.lock().unwrap().0 += SignedDuration::from_secs(seconds);
    }
}

impl Clock for Hand {
    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap().1
    }

    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn sleep(&self, duration: Duration) {
        self.pass(duration.as_secs());
    }
}

pub(crate) fn key(id: &str) -> Key {
    Key::new("thing", id)
}

pub(crate) fn entry(stream: &str, body: &str) -> LedgerEntry {
    LedgerEntry { stream: Key::new("stream", stream), body: body.as_bytes().to_vec() }
}

pub(crate) fn take(store: &dyn Store, holder: &str, above: u64) -> Lease {
    match store.lease(LeaseRequest::Take { holder: holder.to_owned(), above }).unwrap() {
        LeaseAnswer::Yours(lease) => lease,
        other => panic!("{holder} was not given the lease: {other:?}"),
    }
}

/// A batch with one entry that follows `after`, and one put of `id` from `revision` on.
pub(crate) fn batch(epoch: u64, after: u64, id: &str, revision: u64, value: &str) -> Batch {
    Batch {
        epoch,
        after: Some(after),
        expects: vec![Expect { key: key(id), revision }],
        puts: vec![Put { key: key(id), value: value.as_bytes().to_vec() }],
        entries: vec![entry(id, value)],
    }
}

/// Edits a ledger well: entries, every hash above them, and all.
pub(crate) fn rewrite(path: &Path, change: impl Fn(u64, &mut LedgerEntry) -> bool) -> LedgerHead {
    let db = Connection::open(path).unwrap();
    let mut query = db.prepare("SELECT stream, body FROM ledger ORDER BY number").unwrap();
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let rows: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>().unwrap();
    db.execute_batch("DELETE FROM ledger; DELETE FROM nodes").unwrap();
    let mut frontier = Frontier::default();
    for (number, (stream, body)) in (0..).zip(rows) {
        let (room, id) = stream.split_once('/').unwrap();
        let mut entry = LedgerEntry { stream: Key::new(room, id), body };
        if !change(number, &mut entry) {
            continue;
        }
        let at = frontier.size() as i64;
        db.execute("INSERT INTO ledger VALUES (?1, ?2, ?3)", params![at, entry.stream.as_str(), entry.body])
            .unwrap();
        for (Position { level, index }, hash) in frontier.append(&entry.leaf_bytes()) {
            db.execute(
                "INSERT INTO nodes VALUES (?1, ?2, ?3)",
                params![level, index as i64, hash.as_bytes()],
            )
            .unwrap();
        }
    }
    frontier.head()
}
