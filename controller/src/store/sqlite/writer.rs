//! How the thread that writes does it.

use std::sync::Arc;

use jiff::Timestamp;
use manifests::Sha256;
use rusqlite::{Connection, OptionalExtension as _, Savepoint, TransactionBehavior, params};
use system::clock::Clock;

use crate::ledger::{Frontier, Position};
use crate::store::lease::{fence, judge};
use crate::store::queue::{Asked, Done};
use crate::store::{Batch, Lease, Receipt, Refused};

pub(super) struct Writer {
    db: Connection,
    clock: Arc<dyn Clock + Send + Sync>,
    /// The ledger's right edge as this thread left it; another process may have appended since.
    frontier: Frontier,
}

impl Writer {
    pub(super) fn new(db: Connection, clock: Arc<dyn Clock + Send + Sync>) -> Self {
        Self { db, clock, frontier: Frontier::default() }
    }

    /// All of it in one transaction; an error undoes it.
    pub(super) fn write(&mut self, all_asked: &[Asked]) -> rusqlite::Result<Vec<Done>> {
        let mut all = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Under the write lock: nobody moves the ledger, the lease or the clock's verdict on it any more.
        let now = self.clock.now();
        let mut frontier = self.frontier.clone();
        let found = size(&all)?;
        if frontier.size() != found {
            let peaks = nodes(&all, &Frontier::positions(found))?;
            frontier = Frontier::new(found, peaks).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        }
        let mut lease = read_lease(&all)?;
        let mut done = Vec::with_capacity(all_asked.len());
        for asked in all_asked {
            done.push(match asked {
                Asked::Commit(group) => {
                    let mut receipts = Vec::with_capacity(group.len());
                    for batch in group {
                        let point = all.savepoint()?;
                        // Taken only if the savepoint is kept.
                        let mut grown = frontier.clone();
                        let receipt = write_batch(&point, &mut grown, lease.as_ref(), batch, now)?;
                        if receipt.is_ok() {
                            point.commit()?;
                            frontier = grown;
                        } else {
                            point.finish()?;
                        }
                        receipts.push(receipt);
                    }
                    Done::Commit(receipts)
                }
                Asked::Lease(request) => {
                    let (after, answer) = judge(lease.as_ref(), request, now);
                    if let Some(after) = after {
                        keep_lease(&all, &after)?;
                        lease = Some(after);
                    }
                    Done::Lease(answer)
                }
            });
        }
        all.commit()?;
        self.frontier = frontier;
        Ok(done)
    }
}

fn write_batch(
    db: &Savepoint<'_>,
    frontier: &mut Frontier,
    lease: Option<&Lease>,
    batch: &Batch,
    now: Timestamp,
) -> rusqlite::Result<Result<Receipt, Refused>> {
    if let Err(refused) = fence(lease, batch.epoch, now).and_then(|()| batch.refuse_ledger(frontier.size())) {
        return Ok(Err(refused));
    }
    for expect in &batch.expects {
        let found: Option<i64> = db
            .prepare_cached("SELECT revision FROM records WHERE key = ?1")?
            .query_row(params![expect.key.as_str()], |row| row.get(0))
            .optional()?;
        if let Err(refused) = expect.refuse(found.unwrap_or(0) as u64) {
            return Ok(Err(refused));
        }
    }
    for put in &batch.puts {
        db.prepare_cached(
            "INSERT INTO records (key, revision, value) VALUES (?1, 1, ?2)
             ON CONFLICT (key) DO UPDATE SET revision = revision + 1, value = excluded.value",
        )?
        .execute(params![put.key.as_str(), put.value])?;
    }
    for entry in &batch.entries {
        db.prepare_cached("INSERT INTO ledger (number, stream, body) VALUES (?1, ?2, ?3)")?
            .execute(params![frontier.size() as i64, entry.stream.as_str(), entry.body])?;
        for (position, hash) in frontier.append(&entry.leaf_bytes()) {
            db.prepare_cached("INSERT INTO nodes (level, number, hash) VALUES (?1, ?2, ?3)")?
                .execute(params![position.level, position.index as i64, hash.as_bytes()])?;
        }
    }
    Ok(Ok(Receipt { head: frontier.head() }))
}

pub(super) fn size(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT coalesce(max(number) + 1, 0) FROM ledger")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(|size| size as u64)
}

pub(super) fn nodes(db: &Connection, wanted: &[Position]) -> rusqlite::Result<Vec<Sha256>> {
    let mut query = db.prepare_cached("SELECT hash FROM nodes WHERE level = ?1 AND number = ?2")?;
    wanted
        .iter()
        .map(|at| {
            query.query_row(params![at.level, at.index as i64], |row| row.get(0)).map(Sha256::from_bytes)
        })
        .collect()
}

fn read_lease(db: &Connection) -> rusqlite::Result<Option<Lease>> {
    db.prepare_cached("SELECT holder, epoch, until FROM lease")?
        .query_row([], |row| {
            let until: String = row.get(2)?;
            let until = until.parse().map_err(|error: jiff::Error| {
                rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok(Lease { holder: row.get(0)?, epoch: row.get::<_, i64>(1)? as u64, until })
        })
        .optional()
}

pub(super) fn keep_lease(db: &Connection, lease: &Lease) -> rusqlite::Result<()> {
    // Below 2^53 by the rule of leases.
    db.prepare_cached("INSERT OR REPLACE INTO lease (only, holder, epoch, until) VALUES (1, ?1, ?2, ?3)")?
        .execute(params![lease.holder, lease.epoch as i64, lease.until.to_string()])?;
    Ok(())
}
