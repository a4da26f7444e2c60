//! How the thread that writes does it: one transaction for all that waits, decided here and written in whole arrays.
//!
//! READ COMMITTED is enough, in this order. The row of the lease is taken first: shared by who writes, alone by who changes it. So
//! nobody takes the lease between the look at its epoch and the commit, and whoever takes it waits for batches that are under way. Then the row of
//! the ledger's size, alone: writers are one after the other, and each statement after that sees all that those before have committed.
//! Then every batch of the group is decided in memory, and what they come to is written at once. An `UPDATE` of a record names the revision that
//! was found: only somebody who writes past the locks could have changed it, and then nothing is written.
//!
//! **What is tried again.** Whatever goes wrong before `COMMIT` is sent has written nothing, whoever noticed it first: the whole group is
//! tried again for some seconds. From then on nobody knows, and it is not tried again: the caller is told so ([`DatabaseError::InDoubt`]) and
//! reads. Should it try by itself, the revisions and the ledger's size that its batch names refuse a second time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::{try_join4, try_join5};
use jiff::Timestamp;
use manifests::Sha256;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::database::Database;
use super::error::DatabaseError;
use super::session::{PATIENCE, Time, Tries, in_time};
use crate::ledger::{Frontier, Position};
use crate::store::lease::{fence, judge};
use crate::store::queue::{Asked, Done};
use crate::store::{Batch, Key, Lease, Receipt, Refused, Revision};

pub(super) struct Writer {
    database: Arc<Database>,
    time: Arc<Time>,
    db: Option<Client>,
    /// The ledger's right edge as this session left it; another controller may have appended since.
    frontier: Frontier,
}

impl Writer {
    pub(super) fn new(database: Arc<Database>, time: Arc<Time>, db: Client) -> Self {
        Self { database, time, db: Some(db), frontier: Frontier::default() }
    }

    /// All of it in one transaction; an error undoes it.
    pub(super) async fn write(&mut self, all: &[Asked]) -> Result<Vec<Done>, DatabaseError> {
        let mut tries = Tries::new();
        loop {
            let error = match self.write_once(all).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // Whatever the session was in the middle of ends with it. The next one may be of another server, which lost the ledger's end.
            self.db = None;
            self.frontier = Frontier::default();
            if !error.passes() || !tries.again().await {
                return Err(error);
            }
            tracing::info!(
                error = system::error::with_causes(&error),
                "nothing was written; it is tried again"
            );
        }
    }

    async fn write_once(&mut self, all: &[Asked]) -> Result<Vec<Done>, DatabaseError> {
        let db = match self.db.take() {
            Some(db) if !db.is_closed() => db,
            _ => {
                self.frontier = Frontier::default();
                self.database.connect().await?
            }
        };
        let (done, end) = in_time(PATIENCE, async {
            let mut draft = Draft::begin(&db, &self.frontier, &self.time, all).await?;
            let done = all.iter().map(|asked| draft.decide(asked)).collect();
            let end = if draft.write(&db).await? { Some(draft.frontier) } else { None };
            Ok((done, end))
        })
        .await?;
        match end {
            // Every statement before it has succeeded: of a transaction that failed, the server would "commit" nothing, and not complain.
            Some(frontier) => {
                let committed = in_time(PATIENCE, async { Ok(db.batch_execute("COMMIT").await?) }).await;
                committed.map_err(|error| DatabaseError::InDoubt(Box::new(error)))?;
                self.frontier = frontier;
            }
            None => in_time(PATIENCE, async { Ok(db.batch_execute("ROLLBACK").await?) }).await?,
        }
        self.db = Some(db);
        Ok(done)
    }
}

/// What a group changes.
struct Draft<'a> {
    now: Timestamp,
    lease: Option<Lease>,
    leased: bool,
    frontier: Frontier,
    size: u64,
    /// Records as they are stored.
    found: HashMap<&'a Key, Revision>,
    /// Records as they will be.
    puts: BTreeMap<&'a Key, (Revision, &'a [u8])>,
    /// Numbers, streams and bodies of entries.
    entries: Vec<(u64, &'a str, &'a [u8])>,
    nodes: Vec<(Position, Sha256)>,
}

impl<'a> Draft<'a> {
    /// Takes the locks, and reads all that the group may depend on.
    async fn begin(
        db: &Client,
        frontier: &Frontier,
        time: &Time,
        all: &'a [Asked],
    ) -> Result<Self, DatabaseError> {
        // Never shared first and alone later: two who did that would wait for one another.
        let takes = all.iter().any(|asked| matches!(asked, Asked::Lease(_)));
        let how = if takes { "UPDATE" } else { "SHARE" };
        let lease = format!("SELECT holder, epoch, until FROM lease FOR {how}");
        // Sent together, and done in this order; the clock is read after the locks were waited for.
        let (_, lease, size, now) = try_join4(
            db.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"),
            db.query_typed_one(&lease, &[]),
            db.query_typed_one("SELECT size FROM ledger_size FOR UPDATE", &[]),
            db.query_typed_one("SELECT clock_timestamp()", &[]),
        )
        .await?;
        let (lease, size, now) = (read_lease(&lease), size.get::<_, i64>(0) as u64, now.get(0));
        time.hear(now);
        let frontier =
            if frontier.size() == size { frontier.clone() } else { read_frontier(db, size).await? };
        let keys: Vec<&Key> = all
            .iter()
            .flat_map(|asked| match asked {
                Asked::Commit(group) => group.as_slice(),
                Asked::Lease(_) => &[],
            })
            .flat_map(|batch| {
                batch.expects.iter().map(|e| &e.key).chain(batch.puts.iter().map(|put| &put.key))
            })
            .collect();
        let found = read_revisions(db, &keys).await?;
        let (puts, entries, nodes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { now, lease, leased: false, frontier, size, found, puts, entries, nodes })
    }

    fn decide(&mut self, asked: &'a Asked) -> Done {
        match asked {
            Asked::Commit(group) => Done::Commit(group.iter().map(|batch| self.batch(batch)).collect()),
            Asked::Lease(request) => {
                let (after, answer) = judge(self.lease.as_ref(), request, self.now);
                if let Some(after) = after {
                    self.lease = Some(after);
                    self.leased = true;
                }
                Done::Lease(answer)
            }
        }
    }

    fn revision(&self, key: &Key) -> Revision {
        let put = self.puts.get(key).map(|(revision, _)| *revision);
        put.or_else(|| self.found.get(key).copied()).unwrap_or(0)
    }

    fn batch(&mut self, batch: &'a Batch) -> Result<Receipt, Refused> {
        fence(self.lease.as_ref(), batch.epoch, self.now)?;
        batch.refuse_ledger(self.frontier.size())?;
        for expect in &batch.expects {
            expect.refuse(self.revision(&expect.key))?;
        }
        for put in &batch.puts {
            let revision = self.revision(&put.key) + 1;
            self.puts.insert(&put.key, (revision, &put.value));
        }
        for entry in &batch.entries {
            self.entries.push((self.frontier.size(), entry.stream.as_str(), &entry.body));
            self.nodes.extend(self.frontier.append(&entry.leaf_bytes()));
        }
        Ok(Receipt { head: self.frontier.head() })
    }

    /// Writes it; false if there is nothing to write.
    async fn write(&self, db: &Client) -> Result<bool, DatabaseError> {
        if self.puts.is_empty() && self.entries.is_empty() && !self.leased {
            return Ok(false);
        }
        // Sent together: none needs the answer of another.
        try_join5(
            self.make_records(db),
            self.change_records(db),
            append(db, &self.entries),
            plant(db, &self.nodes),
            async { self.keep_lease(db).await.and(self.keep_size(db).await) },
        )
        .await?;
        Ok(true)
    }

    async fn make_records(&self, db: &Client) -> Result<(), DatabaseError> {
        let new = self.puts.iter().filter(|(key, _)| !self.found.contains_key(*key));
        let (keys, (revisions, values)): (Vec<_>, (Vec<_>, Vec<_>)) =
            new.map(|(key, (revision, value))| (key.as_str(), (*revision as i64, *value))).unzip();
        let sql = "INSERT INTO records (key, revision, value)
                   SELECT * FROM unnest($1::text[], $2::int8[], $3::bytea[])";
        let arrays: [Array<'_>; 3] =
            [(&keys, Type::TEXT_ARRAY), (&revisions, Type::INT8_ARRAY), (&values, Type::BYTEA_ARRAY)];
        change(db, sql, &arrays, keys.len()).await
    }

    async fn change_records(&self, db: &Client) -> Result<(), DatabaseError> {
        let (mut keys, mut before, mut after, mut values) = (vec![], vec![], vec![], vec![]);
        for (key, (revision, value)) in &self.puts {
            if let Some(found) = self.found.get(*key) {
                keys.push(key.as_str());
                before.push(*found as i64);
                after.push(*revision as i64);
                values.push(*value);
            }
        }
        let sql = "UPDATE records SET revision = new.revision, value = new.value
                   FROM unnest($1::text[], $2::int8[], $3::int8[], $4::bytea[]) AS new (key, before, revision, value)
                   WHERE records.key = new.key AND records.revision = new.before";
        let arrays: [Array<'_>; 4] = [
            (&keys, Type::TEXT_ARRAY),
            (&before, Type::INT8_ARRAY),
            (&after, Type::INT8_ARRAY),
            (&values, Type::BYTEA_ARRAY),
        ];
        change(db, sql, &arrays, keys.len()).await
    }

    async fn keep_size(&self, db: &Client) -> Result<(), DatabaseError> {
        let (before, after) = (self.size as i64, self.frontier.size() as i64);
        let sql = "UPDATE ledger_size SET size = $2 WHERE size = $1";
        change(db, sql, &[(&before, Type::INT8), (&after, Type::INT8)], usize::from(before != after)).await
    }

    async fn keep_lease(&self, db: &Client) -> Result<(), DatabaseError> {
        let Some(lease) = self.lease.as_ref().filter(|_| self.leased) else { return Ok(()) };
        // Below 2^53 by the rule of leases.
        let epoch = lease.epoch as i64;
        let sql = "UPDATE lease SET holder = $1, epoch = $2, until = $3";
        let values: [Array<'_>; 3] =
            [(&lease.holder, Type::TEXT), (&epoch, Type::INT8), (&lease.until, Type::TIMESTAMPTZ)];
        change(db, sql, &values, 1).await
    }
}

pub(super) type Array<'a> = (&'a (dyn ToSql + Sync), Type);

/// Runs a statement that has to change exactly so many rows; nothing at all for none.
async fn change(db: &Client, sql: &str, values: &[Array<'_>], rows: usize) -> Result<(), DatabaseError> {
    if rows == 0 {
        return Ok(());
    }
    let changed = db.execute_typed(sql, values).await?;
    if changed == rows as u64 { Ok(()) } else { Err(DatabaseError::Elsewhere) }
}

/// Appends entries to the ledger.
pub(super) async fn append(db: &Client, entries: &[(u64, &str, &[u8])]) -> Result<(), DatabaseError> {
    let numbers: Vec<i64> = entries.iter().map(|(number, ..)| *number as i64).collect();
    let (streams, bodies): (Vec<&str>, Vec<&[u8]>) =
        entries.iter().map(|(_, stream, body)| (*stream, *body)).unzip();
    let sql =
        "INSERT INTO ledger (number, stream, body) SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[])";
    let arrays: [Array<'_>; 3] =
        [(&numbers, Type::INT8_ARRAY), (&streams, Type::TEXT_ARRAY), (&bodies, Type::BYTEA_ARRAY)];
    change(db, sql, &arrays, entries.len()).await
}

/// Keeps full subtrees of the ledger's tree.
pub(super) async fn plant(db: &Client, nodes: &[(Position, Sha256)]) -> Result<(), DatabaseError> {
    let (levels, numbers) = positions(nodes.iter().map(|(at, _)| at));
    let hashes: Vec<&[u8]> = nodes.iter().map(|(_, hash)| hash.as_bytes().as_slice()).collect();
    let sql =
        "INSERT INTO nodes (level, number, hash) SELECT * FROM unnest($1::int4[], $2::int8[], $3::bytea[])";
    let arrays: [Array<'_>; 3] =
        [(&levels, Type::INT4_ARRAY), (&numbers, Type::INT8_ARRAY), (&hashes, Type::BYTEA_ARRAY)];
    change(db, sql, &arrays, nodes.len()).await
}

fn positions<'p>(wanted: impl Iterator<Item = &'p Position>) -> (Vec<i32>, Vec<i64>) {
    // A tree has at most 64 levels.
    wanted.map(|at| (at.level as i32, at.index as i64)).unzip()
}

/// The hashes of full subtrees, in the order asked for; nothing for one that is not there.
pub(super) async fn read_nodes(
    db: &Client,
    wanted: &[Position],
) -> Result<Vec<Option<Sha256>>, DatabaseError> {
    let (levels, numbers) = positions(wanted.iter());
    let sql =
        "SELECT hash FROM unnest($1::int4[], $2::int8[]) WITH ORDINALITY AS wanted (level, number, place)
               LEFT JOIN nodes USING (level, number) ORDER BY place";
    let rows = db.query_typed(sql, &[(&levels, Type::INT4_ARRAY), (&numbers, Type::INT8_ARRAY)]).await?;
    let hash = |row: &Row| row.get::<_, Option<&[u8]>>(0)?.try_into().ok().map(Sha256::from_bytes);
    Ok(rows.iter().map(hash).collect())
}

async fn read_frontier(db: &Client, size: u64) -> Result<Frontier, DatabaseError> {
    let peaks: Option<Vec<Sha256>> = read_nodes(db, &Frontier::positions(size)).await?.into_iter().collect();
    peaks.and_then(|peaks| Frontier::new(size, peaks)).ok_or(DatabaseError::Elsewhere)
}

async fn read_revisions<'k>(
    db: &Client,
    keys: &[&'k Key],
) -> Result<HashMap<&'k Key, Revision>, DatabaseError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    let sql = "SELECT key, revision FROM records WHERE key = ANY ($1)";
    let rows = db.query_typed(sql, &[(&names, Type::TEXT_ARRAY)]).await?;
    let found: HashMap<&str, Revision> =
        rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect();
    Ok(keys.iter().filter_map(|key| Some((*key, *found.get(key.as_str())?))).collect())
}

/// A row of holder, epoch and end; the row is there from the beginning.
pub(super) fn read_lease(row: &Row) -> Option<Lease> {
    let epoch = row.get::<_, i64>(1) as u64;
    (epoch > 0).then(|| Lease { holder: row.get(0), epoch, until: row.get(2) })
}
