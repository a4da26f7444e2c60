//! The store in a PostgreSQL server, for any number of controllers of one fleet.
//!
//! Two sessions: one writes, in a thread of its own ([`queue`](super::queue), `writer`), one reads. Questions to the second are sent without waiting
//! for one another's answers, so a pool of more would only cost the server memory.
//!
//! - **Time is the server's.** A lease is judged by its clock, read in the transaction that writes after the locks were waited for. Between two
//!   questions [`Store::now`] goes on from the last answer by the clock that does not jump.
//! - **Epochs do not come back.** A server that lost its end (a failover to a standby that was behind, an old backup) may know lower
//!   ones than this controller has seen: it never takes one that is not above all of them. What only hosts have seen, they say.
//! - **What may have been written is not tried again**; see `writer`. Reads are tried again for some seconds.
//! - There is no NOTIFY. Only the holder of the lease has anything to say, and whoever waits for the lease looks each second: a notification
//!   would make all commits of the server wait for one another, for less than a second.
//!
//! Rooms: `database` the address and TLS, `session` connections, `layout` migrations, `writer` transactions, `content` what hosts fetch,
//! `copy` backups, `error` what goes wrong.

mod content;
mod copy;
mod database;
mod error;
mod layout;
mod session;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use manifests::Sha256;
use system::clock::Clock;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

pub use content::ShelfError;
pub use database::Database;
pub use error::DatabaseError;

use self::layout::{MIGRATIONS, migrate};
use self::session::{PATIENCE, Time, Tries, in_time, look_over, refuse_pooler};
use self::writer::{Writer, read_lease, read_nodes};
use super::lease::judge;
use super::queue::Queue;
use super::{
    Batch, Key, Lease, LeaseAnswer, LeaseRequest, LedgerEntry, Receipt, Record, Refused, Store, StoreError,
    Which,
};
use crate::ledger::Position;

/// How long a read may take: a whole ledger is read when a controller begins.
const READING: Duration = Duration::from_secs(60);

/// A store in a server.
pub struct Postgres {
    time: Arc<Time>,
    reader: Arc<Reader>,
    /// The highest epoch that any lease was seen to have.
    seen: AtomicU64,
    // Before the runtime, which its thread uses.
    queue: Option<Queue>,
    runtime: Option<Runtime>,
}

/// The session that reads.
struct Reader {
    database: Arc<Database>,
    db: Mutex<Option<Arc<Client>>>,
}

impl Postgres {
    /// Opens a store, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Postgres`], or [`StoreError::Newer`] if this program is too old for it.
    pub fn open(database: Database, clock: Arc<dyn Clock + Send + Sync>) -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|source| StoreError::Threads { source: Arc::new(source) })?;
        let (database, time) = (Arc::new(database), Arc::new(Time::new(clock)));
        let opening = open(Arc::clone(&database), Arc::clone(&time));
        let (layout, reads, writes) = wait(&runtime, "open the store", opening)?;
        layout.refuse_newer(MIGRATIONS)?;
        let mut writer = Writer::new(Arc::clone(&database), Arc::clone(&time), writes);
        let handle = runtime.handle().clone();
        let queue = Queue::start(move |all| {
            handle.block_on(writer.write(all)).map_err(|error| StoreError::postgres("write", error))
        });
        let reader = Arc::new(Reader { database, db: Mutex::new(Some(Arc::new(reads))) });
        Ok(Self { time, reader, seen: AtomicU64::new(0), queue: Some(queue), runtime: Some(runtime) })
    }

    fn queue(&self) -> Result<&Queue, StoreError> {
        self.queue.as_ref().ok_or(StoreError::Ended)
    }

    fn runtime(&self) -> Result<&Runtime, StoreError> {
        self.runtime.as_ref().ok_or(StoreError::Ended)
    }

    /// Asks in the session that reads; again when the server went away, so only for what may be done twice.
    fn ask<T, Q, A>(&self, doing: &'static str, query: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: Fn(Arc<Client>) -> A + Send + 'static,
        A: Future<Output = Result<T, DatabaseError>> + Send,
    {
        let reader = Arc::clone(&self.reader);
        wait(self.runtime()?, doing, async move { reader.read(query).await })
    }

    /// The lease that is stored, and the server's time.
    fn stored_lease(&self) -> Result<(Option<Lease>, Timestamp), StoreError> {
        let (lease, now) = self.ask("read the lease", async |db: Arc<Client>| {
            let row =
                db.query_typed_one("SELECT holder, epoch, until, clock_timestamp() FROM lease", &[]).await?;
            Ok((read_lease(&row), row.get(3)))
        })?;
        self.time.hear(now);
        self.seen.fetch_max(lease.as_ref().map_or(0, |lease| lease.epoch), Ordering::Relaxed);
        Ok((lease, now))
    }
}

impl Drop for Postgres {
    /// What was handed in before is written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for work of the runtime, also where the caller is a task of another one.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    doing: &'static str,
    work: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = mpsc::sync_channel(1);
    runtime.spawn(async move { answer.send(work.await) });
    answered.recv().map_err(|_| StoreError::Ended)?.map_err(|error| StoreError::postgres(doing, error))
}

/// The layout, and the two sessions.
async fn open(
    database: Arc<Database>,
    time: Arc<Time>,
) -> Result<(super::layout::Layout, Client, Client), DatabaseError> {
    let mut tries = Tries::new();
    loop {
        let opened = async {
            let (reads, writes) = (database.connect().await?, database.connect().await?);
            time.hear(in_time(PATIENCE, look_over(&reads)).await?);
            in_time(PATIENCE, refuse_pooler(&reads, &writes)).await?;
            Ok((migrate(&writes, MIGRATIONS).await?, reads, writes))
        };
        match opened.await {
            Err(error) if DatabaseError::passes(&error) && tries.again().await => {}
            opened => return opened,
        }
    }
}

impl Reader {
    async fn read<T, Q, A>(&self, query: Q) -> Result<T, DatabaseError>
    where
        Q: Fn(Arc<Client>) -> A,
        A: Future<Output = Result<T, DatabaseError>>,
    {
        let mut tries = Tries::new();
        loop {
            let answer = match self.session().await {
                Ok(db) => in_time(READING, query(db)).await,
                Err(error) => Err(error),
            };
            let Err(error) = answer else { return answer };
            *self.db.lock().await = None;
            if !error.passes() || !tries.again().await {
                return Err(error);
            }
        }
    }

    async fn session(&self) -> Result<Arc<Client>, DatabaseError> {
        let mut kept = self.db.lock().await;
        match &*kept {
            Some(db) if !db.is_closed() => Ok(Arc::clone(db)),
            _ => Ok(Arc::clone(kept.insert(Arc::new(self.database.connect().await?)))),
        }
    }
}

impl StoreError {
    fn postgres(doing: &'static str, source: DatabaseError) -> Self {
        Self::Postgres { doing, source: Arc::new(source) }
    }
}

fn record(row: &Row, from: usize) -> Record {
    Record { revision: row.get::<_, i64>(from) as u64, value: row.get(from + 1) }
}

impl Store for Postgres {
    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn commit(&self, group: Vec<Batch>) -> Result<Vec<Result<Receipt, Refused>>, StoreError> {
        self.queue()?.commit(group)
    }

    fn lease(&self, mut request: LeaseRequest) -> Result<LeaseAnswer, StoreError> {
        let (stored, now) = self.stored_lease()?;
        if let LeaseRequest::Take { above, .. } = &mut request {
            *above = (*above).max(self.seen.load(Ordering::Relaxed));
        }
        // Whoever only waits for the lease locks nothing.
        let (after, answer) = judge(stored.as_ref(), &request, now);
        if after.is_none() {
            return Ok(answer);
        }
        let answer = self.queue()?.lease(request)?;
        if let LeaseAnswer::Yours(lease) | LeaseAnswer::Others(lease) = &answer {
            self.seen.fetch_max(lease.epoch, Ordering::Relaxed);
        }
        Ok(answer)
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let key = key.clone();
        self.ask("read a record", move |db: Arc<Client>| {
            let key = key.clone();
            async move {
                let sql = "SELECT revision, value FROM records WHERE key = $1";
                let row = db.query_typed_opt(sql, &[(&key.as_str(), Type::TEXT)]).await?;
                Ok(row.map(|row| record(&row, 0)))
            }
        })
    }

    fn room(&self, room: &str) -> Result<Vec<(Key, Record)>, StoreError> {
        // '0' is the character after '/'.
        let (from, to) = (format!("{room}/"), format!("{room}0"));
        self.ask("read records", move |db: Arc<Client>| {
            let (from, to) = (from.clone(), to.clone());
            async move {
                let sql = "SELECT key, revision, value FROM records WHERE key > $1 AND key < $2 ORDER BY key";
                let rows = db.query_typed(sql, &[(&from, Type::TEXT), (&to, Type::TEXT)]).await?;
                Ok(rows.iter().map(|row| (Key::stored(row.get(0)), record(row, 1))).collect())
            }
        })
    }

    fn entries(&self, which: &Which, limit: usize) -> Result<Vec<(u64, LedgerEntry)>, StoreError> {
        let (which, limit) = (which.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        self.ask("read the ledger", move |db: Arc<Client>| {
            let which = which.clone();
            async move {
                let rows = match which {
                    Which::From(from) => {
                        let from = i64::try_from(from).unwrap_or(i64::MAX);
                        let sql =
                            "SELECT number, stream, body FROM ledger WHERE number >= $1 ORDER BY number LIMIT $2";
                        db.query_typed(sql, &[(&from, Type::INT8), (&limit, Type::INT8)]).await?
                    }
                    Which::Stream(stream) => {
                        let sql =
                            "SELECT number, stream, body FROM ledger WHERE stream = $1 ORDER BY number LIMIT $2";
                        db.query_typed(sql, &[(&stream.as_str(), Type::TEXT), (&limit, Type::INT8)]).await?
                    }
                };
                let entry = |row: &Row| {
                    let entry = LedgerEntry { stream: Key::stored(row.get(1)), body: row.get(2) };
                    (row.get::<_, i64>(0) as u64, entry)
                };
                Ok(rows.iter().map(entry).collect())
            }
        })
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.ask("read the ledger's size", async |db: Arc<Client>| {
            let row = db.query_typed_one("SELECT size FROM ledger_size", &[]).await?;
            Ok(row.get::<_, i64>(0) as u64)
        })
    }

    fn nodes(&self, wanted: &[Position]) -> Result<Vec<Sha256>, StoreError> {
        let positions = wanted.to_vec();
        let found = self.ask("read the ledger's tree", move |db: Arc<Client>| {
            let positions = positions.clone();
            async move { read_nodes(&db, &positions).await }
        })?;
        let hash = |(at, hash): (&Position, Option<Sha256>)| {
            let none =
                || StoreError::Damaged { what: format!("no subtree {} of level {}", at.index, at.level) };
            hash.ok_or_else(none)
        };
        wanted.iter().zip(found).map(hash).collect()
    }
}
