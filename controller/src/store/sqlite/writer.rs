//! The one thread that writes.

use std::sync::{Arc, mpsc};

use jiff::Timestamp;
use manifests::Sha256;
use rusqlite::{Connection, OptionalExtension as _, Savepoint, TransactionBehavior, params};
use system::clock::Clock;

use crate::ledger::{Frontier, Position};
use crate::store::lease::{fence, judge};
use crate::store::{Batch, Lease, LeaseAnswer, LeaseRequest, Receipt, Refused, StoreError};

/// So many batches share one wait for the disk at most, that the first of them does not wait for the last for long.
const MAX_GROUP: usize = 4096;

/// What a group of batches came to.
type Receipts = Result<Vec<Result<Receipt, Refused>>, StoreError>;

/// What is asked of the thread.
pub(super) enum Job {
    Commit { group: Vec<Batch>, answer: mpsc::SyncSender<Receipts> },
    Lease { request: LeaseRequest, answer: mpsc::SyncSender<Result<LeaseAnswer, StoreError>> },
}

impl Job {
    fn weight(&self) -> usize {
        match self {
            Self::Commit { group, .. } => group.len(),
            Self::Lease { .. } => 1,
        }
    }
}

/// What a job came to, before it is on disk.
enum Done {
    Commit(Vec<Result<Receipt, Refused>>),
    Lease(LeaseAnswer),
}

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

    /// Until nobody can ask any more.
    pub(super) fn run(mut self, waiting: &mpsc::Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut weight = first.weight();
            let mut jobs = vec![first];
            while weight < MAX_GROUP
                && let Ok(next) = waiting.try_recv()
            {
                weight += next.weight();
                jobs.push(next);
            }
            self.serve(jobs);
        }
    }

    fn serve(&mut self, jobs: Vec<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut asked = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Commit { group, answer } => {
                    asked.push(Asked::Commit(group));
                    answers.push(Answer::Commit(answer));
                }
                Job::Lease { request, answer } => {
                    asked.push(Asked::Lease(request));
                    answers.push(Answer::Lease(answer));
                }
            }
        }
        // Whoever does not wait for the answer any more reads it from the store.
        match self.write(asked) {
            Ok(done) => {
                for (answer, done) in answers.into_iter().zip(done) {
                    match (answer, done) {
                        (Answer::Commit(answer), Done::Commit(receipts)) => drop(answer.send(Ok(receipts))),
                        (Answer::Lease(answer), Done::Lease(lease)) => drop(answer.send(Ok(lease))),
                        // Each job was answered in its own kind, in order.
                        (Answer::Commit(_), Done::Lease(_)) | (Answer::Lease(_), Done::Commit(_)) => {}
                    }
                }
            }
            Err(source) => {
                let source = Arc::new(source);
                let failed = || StoreError::Sqlite { doing: "write", source: Arc::clone(&source) };
                for answer in answers {
                    match answer {
                        Answer::Commit(answer) => drop(answer.send(Err(failed()))),
                        Answer::Lease(answer) => drop(answer.send(Err(failed()))),
                    }
                }
            }
        }
    }

    /// All jobs in one transaction; an error undoes all of them.
    fn write(&mut self, jobs: Vec<Asked>) -> rusqlite::Result<Vec<Done>> {
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
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            done.push(match job {
                Asked::Commit(group) => {
                    let mut receipts = Vec::with_capacity(group.len());
                    for batch in group {
                        let point = all.savepoint()?;
                        // Taken only if the savepoint is kept.
                        let mut grown = frontier.clone();
                        let receipt = write_batch(&point, &mut grown, lease.as_ref(), &batch, now)?;
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
                    let (after, answer) = judge(lease.as_ref(), &request, now);
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

enum Asked {
    Commit(Vec<Batch>),
    Lease(LeaseRequest),
}

enum Answer {
    Commit(mpsc::SyncSender<Receipts>),
    Lease(mpsc::SyncSender<Result<LeaseAnswer, StoreError>>),
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

fn keep_lease(db: &Connection, lease: &Lease) -> rusqlite::Result<()> {
    // Below 2^53 by the rule of leases.
    db.prepare_cached("INSERT OR REPLACE INTO lease (only, holder, epoch, until) VALUES (1, ?1, ?2, ?3)")?
        .execute(params![lease.holder, lease.epoch as i64, lease.until.to_string()])?;
    Ok(())
}
