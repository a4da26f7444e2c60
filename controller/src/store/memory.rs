//! The store in memory: what the contract says, in the fewest words. For tests and for trying things out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use manifests::Sha256;
use system::clock::Clock;

use super::lease::{fence, judge};
use super::{
    Batch, Key, Lease, LeaseAnswer, LeaseRequest, LedgerEntry, Receipt, Record, Refused, Store, StoreError,
    Which,
};
use crate::ledger::{Frontier, Position};

/// A store that ends with its process.
pub struct Memory {
    clock: Arc<dyn Clock + Send + Sync>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    lease: Option<Lease>,
    records: BTreeMap<Key, Record>,
    entries: Vec<LedgerEntry>,
    nodes: BTreeMap<Position, Sha256>,
    frontier: Frontier,
}

impl Memory {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock + Send + Sync>) -> Self {
        Self { clock, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Everything is checked before anything is changed: whoever panicked left it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn write(&mut self, batch: Batch, now: Timestamp) -> Result<Receipt, Refused> {
        fence(self.lease.as_ref(), batch.epoch, now)?;
        let size = self.entries.len() as u64;
        batch.refuse_ledger(size)?;
        for expect in &batch.expects {
            let found = self.records.get(&expect.key).map_or(0, |record| record.revision);
            expect.refuse(found)?;
        }
        for put in batch.puts {
            let record = self.records.entry(put.key).or_insert(Record { revision: 0, value: Vec::new() });
            *record = Record { revision: record.revision + 1, value: put.value };
        }
        for entry in batch.entries {
            self.nodes.extend(self.frontier.append(&entry.leaf_bytes()));
            self.entries.push(entry);
        }
        Ok(Receipt { head: self.frontier.head() })
    }
}

impl Store for Memory {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn commit(&self, group: Vec<Batch>) -> Result<Vec<Result<Receipt, Refused>>, StoreError> {
        let (mut held, now) = (self.held(), self.now());
        Ok(group.into_iter().map(|batch| held.write(batch, now)).collect())
    }

    fn lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, StoreError> {
        let mut held = self.held();
        let (after, answer) = judge(held.lease.as_ref(), &request, self.now());
        held.lease = after.or(held.lease.take());
        Ok(answer)
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        Ok(self.held().records.get(key).cloned())
    }

    fn room(&self, room: &str) -> Result<Vec<(Key, Record)>, StoreError> {
        let of = |(key, _): &(&Key, &Record)| key.as_str().split_once('/').is_some_and(|(of, _)| of == room);
        let held = self.held();
        Ok(held.records.iter().filter(of).map(|(key, record)| (key.clone(), record.clone())).collect())
    }

    fn entries(&self, which: &Which, limit: usize) -> Result<Vec<(u64, LedgerEntry)>, StoreError> {
        let held = self.held();
        let numbered = (0..).zip(&held.entries).filter(|(number, entry)| match which {
            Which::From(from) => number >= from,
            Which::Stream(stream) => entry.stream == *stream,
        });
        Ok(numbered.take(limit).map(|(number, entry)| (number, entry.clone())).collect())
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.held().entries.len() as u64)
    }

    fn nodes(&self, wanted: &[Position]) -> Result<Vec<Sha256>, StoreError> {
        let held = self.held();
        let node = |at: &Position| {
            let none =
                || StoreError::Damaged { what: format!("no subtree {} of level {}", at.index, at.level) };
            held.nodes.get(at).copied().ok_or_else(none)
        };
        wanted.iter().map(node).collect()
    }
}
