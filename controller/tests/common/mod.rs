//! What the tests of stores begin with.

#![allow(dead_code, reason = "each test program takes what it needs")]

pub(crate) mod scene;
pub(crate) mod served;

use std::sync::Mutex;
use std::time::Duration;

use controller::store::{Batch, Expect, Key, Lease, LeaseAnswer, LeaseRequest, LedgerEntry, Put, Store};
use jiff::{SignedDuration, Timestamp};
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
