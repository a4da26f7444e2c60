//! The store in one SQLite file: what a controller uses unless it is told otherwise.
//!
//! One thread writes. It takes all that waits for it ([`queue`](super::queue)), opens one transaction (`BEGIN IMMEDIATE`), tries each
//! batch under a savepoint of its own, and commits once: the disk is waited for once for all of them. WAL with `synchronous=FULL`:
//! whoever got a receipt can lose the power at once. Reads go by a second connection and see what was committed.

mod copy;
mod layout;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use manifests::Sha256;
use rusqlite::{Connection, OptionalExtension as _, params};
use system::clock::Clock;

use self::layout::{MIGRATIONS, migrate};
use self::writer::Writer;
use super::queue::Queue;
use super::{
    Batch, Key, LeaseAnswer, LeaseRequest, LedgerEntry, Receipt, Record, Refused, Store, StoreError, Which,
};
use crate::ledger::Position;

/// Another process may write: a command beside the running controller.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A store in a file.
pub struct Sqlite {
    clock: Arc<dyn Clock + Send + Sync>,
    path: PathBuf,
    reader: Mutex<Connection>,
    queue: Queue,
}

/// A connection whose commits are on disk when they return.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

impl Sqlite {
    /// Opens a store, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Open`], or [`StoreError::Newer`] if this program is too old for it.
    pub fn open(path: &Path, clock: Arc<dyn Clock + Send + Sync>) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source: Arc::new(source) };
        let mut db = connect(path).map_err(failed)?;
        let found = migrate(&mut db, MIGRATIONS).map_err(failed)?;
        found.refuse_newer(MIGRATIONS)?;
        let reader = Mutex::new(connect(path).map_err(failed)?);
        let mut writer = Writer::new(db, Arc::clone(&clock));
        let queue =
            Queue::start(move |all| writer.write(all).map_err(|source| StoreError::sqlite("write", source)));
        Ok(Self { clock, path: path.to_owned(), reader, queue })
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a query of this module's.
    pub(crate) fn read<T>(
        &self,
        doing: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        query(&self.reader()).map_err(|source| StoreError::sqlite(doing, source))
    }

    /// The highest epoch that any lease had.
    pub(crate) fn epoch(&self) -> Result<u64, StoreError> {
        self.read("read the epoch", |db| {
            db.query_row("SELECT coalesce(max(epoch), 0) FROM lease", [], |row| row.get::<_, i64>(0))
        })
        .map(|epoch| epoch as u64)
    }

    /// Ends whatever lease there is, in a copy that nobody uses yet.
    pub(crate) fn end_lease(&self) -> Result<(), StoreError> {
        let past = Timestamp::UNIX_EPOCH.to_string();
        self.read("end the lease", |db| db.execute("UPDATE lease SET until = ?1", [past]).map(drop))
    }

    /// Moves everything into the one file, so that it can get another name.
    pub(crate) fn fold(&self) -> Result<(), StoreError> {
        self.read("fold the log", |db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        // Every read is one statement: whoever panicked left nothing behind.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreError {
    fn sqlite(doing: &'static str, source: rusqlite::Error) -> Self {
        Self::Sqlite { doing, source: Arc::new(source) }
    }
}

impl Store for Sqlite {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn commit(&self, group: Vec<Batch>) -> Result<Vec<Result<Receipt, Refused>>, StoreError> {
        self.queue.commit(group)
    }

    fn lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, StoreError> {
        self.queue.lease(request)
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.read("read a record", |db| {
            db.prepare_cached("SELECT revision, value FROM records WHERE key = ?1")?
                .query_row(params![key.as_str()], |row| {
                    Ok(Record { revision: row.get::<_, i64>(0)? as u64, value: row.get(1)? })
                })
                .optional()
        })
    }

    fn room(&self, room: &str) -> Result<Vec<(Key, Record)>, StoreError> {
        // '0' is the character after '/'.
        let (from, to) = (format!("{room}/"), format!("{room}0"));
        self.read("read records", |db| {
            db.prepare_cached(
                "SELECT key, revision, value FROM records WHERE key > ?1 AND key < ?2 ORDER BY key",
            )?
            .query_map(params![from, to], |row| {
                let record = Record { revision: row.get::<_, i64>(1)? as u64, value: row.get(2)? };
                Ok((Key::stored(row.get(0)?), record))
            })?
            .collect()
        })
    }

    fn entries(&self, which: &Which, limit: usize) -> Result<Vec<(u64, LedgerEntry)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let entry = |row: &rusqlite::Row<'_>| {
            let entry = LedgerEntry { stream: Key::stored(row.get(1)?), body: row.get(2)? };
            Ok((row.get::<_, i64>(0)? as u64, entry))
        };
        self.read("read the ledger", |db| match which {
            Which::From(from) => db
                .prepare_cached(
                    "SELECT number, stream, body FROM ledger WHERE number >= ?1 ORDER BY number LIMIT ?2",
                )?
                .query_map(params![i64::try_from(*from).unwrap_or(i64::MAX), limit], entry)?
                .collect(),
            Which::Stream(stream) => db
                .prepare_cached(
                    "SELECT number, stream, body FROM ledger WHERE stream = ?1 ORDER BY number LIMIT ?2",
                )?
                .query_map(params![stream.as_str(), limit], entry)?
                .collect(),
        })
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.read("read the ledger's size", writer::size)
    }

    fn nodes(&self, wanted: &[Position]) -> Result<Vec<Sha256>, StoreError> {
        self.read("read the ledger's tree", |db| writer::nodes(db, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let db = connect(&directory.path().join("c.sqlite")).unwrap();
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, String>(0));
        assert_eq!(pragma("journal_mode").unwrap(), "wal");
        let synchronous = db.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(synchronous, 2, "FULL");
    }

    #[test]
    fn a_store_of_a_program_that_contracted_it_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.sqlite");
        let clock = Arc::new(system::clock::SystemClock);
        drop(Sqlite::open(&path, clock.clone()).unwrap());
        let db = connect(&path).unwrap();
        db.execute("UPDATE layout SET version = 8, oldest = 1", []).unwrap();
        drop(Sqlite::open(&path, clock.clone()).unwrap());
        db.execute("UPDATE layout SET oldest = 8", []).unwrap();
        assert!(matches!(Sqlite::open(&path, clock), Err(StoreError::Newer { oldest: 8, known: 1 })));
        let layout =
            db.query_row("SELECT version, oldest FROM layout", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(layout.unwrap(), (8, 8));
    }
}
