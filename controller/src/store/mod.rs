//! The store: one contract, and who keeps it.
//!
//! A [`Batch`] is everything that one decision changes: what it expects to find, the records that it puts, the entries
//! that it appends to the ledger, and the epoch of the lease by which it may. **All of it happens, or nothing.** What a
//! receipt was given for is on disk.
//!
//! The contract, which one suite of tests holds against every implementation (`tests/store_contract.rs`):
//! - A batch is refused ([`Refused`]) if its epoch is not that of the lease in force or the lease has run out, if the
//!   ledger is not of the size that its entries follow, or if a record is not at the revision that it expects.
//! - A record is at revision 0 before it is there, and one higher after each put. Records are never removed.
//! - Batches of one group are tried in their order, each against what those before it left; one that is refused leaves
//!   nothing, and those after it are tried all the same.
//! - Of batches and leases that come from several sides at once, the result is that of some order of them.
//! - Every lease has an epoch above all epochs before it, and above what its holder asks; epochs never come back.
//! - Time is the store's own ([`Store::now`]), so that holders need not agree on it.
//! - An error is no refusal: after it, nobody knows whether the group was written. Whoever gets one reads again.
//!
//! What follows from events (a rollout's state, caps, open grants) needs no revision of its own: a batch with entries
//! names the ledger's size, and so whoever decided on an older state is refused. That is the compare-and-swap of `begin`.

mod layout;
pub mod lease;
mod memory;
pub mod postgres;
mod queue;
pub mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use manifests::{LedgerHead, Sha256};

pub use lease::{Lease, LeaseAnswer, LeaseRequest};
pub use memory::Memory;
pub use postgres::Postgres;
pub use sqlite::Sqlite;

use self::postgres::DatabaseError;
use crate::ledger::Position;

/// The name of a record or of a stream of entries: words with slashes between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The name in `room` of what is known by `id`, both without slashes and line ends.
    pub fn new(room: &str, id: impl fmt::Display) -> Self {
        Self(format!("{room}/{id}"))
    }

    /// A name that a store kept.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How often a record has been put.
pub type Revision = u64;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How often it has been put.
    pub revision: Revision,
    /// What was put last.
    pub value: Vec<u8>,
}

/// A record as a batch expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Which.
    pub key: Key,
    /// Its revision; 0: it is not there.
    pub revision: Revision,
}

/// A record as a batch leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Which.
    pub key: Key,
    /// What it says from then on.
    pub value: Vec<u8>,
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// What it belongs to: one rollout, or the fleet.
    pub stream: Key,
    /// What it says.
    pub body: Vec<u8>,
}

impl LedgerEntry {
    /// The bytes that the tree is made of: the stream is among them, so that an entry cannot be moved to another.
    pub fn leaf_bytes(&self) -> Vec<u8> {
        [self.stream.as_str().as_bytes(), b"\n", &self.body].concat()
    }
}

/// Everything that one decision changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The epoch of the lease by which it may.
    pub epoch: u64,
    /// The ledger's size that the decision was made on. Without, there must be no entries.
    pub after: Option<u64>,
    /// Records that it was made on.
    pub expects: Vec<Expect>,
    /// Records that it changes.
    pub puts: Vec<Put>,
    /// What it says to the ledger.
    pub entries: Vec<LedgerEntry>,
}

/// Why a batch changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not of the lease in force.
    #[error("the lease is another's: expected epoch {current}, found {found}")]
    Epoch {
        /// The epoch in force; 0 if there never was one.
        current: u64,
        /// The batch's.
        found: u64,
    },
    /// The lease has run out, and nobody has renewed it.
    #[error("the lease ran out at {until}")]
    RanOut {
        /// When.
        until: Timestamp,
    },
    /// The ledger has grown since the decision.
    #[error("the ledger has another size: expected {expected}, found {found}")]
    Ledger {
        /// The size that the decision was made on.
        expected: u64,
        /// The size that it has.
        found: u64,
    },
    /// Entries come without the size that they follow.
    #[error("expected the ledger's size with entries, found none")]
    Blind,
    /// A record has changed since the decision.
    #[error("{key} has another revision: expected {expected}, found {found}")]
    Revision {
        /// Which record.
        key: Key,
        /// The revision that the decision was made on.
        expected: Revision,
        /// The revision that it has.
        found: Revision,
    },
}

/// A batch is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The ledger's head after it.
    pub head: LedgerHead,
}

/// The store failed. Whether what was asked is written, nobody knows; the next thing to do is to read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("open the store {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Arc<rusqlite::Error>,
    },
    /// A statement failed: disk full, I/O error, corruption.
    #[error("{doing} in the store")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why; whoever waited for the same write has the same reason.
        source: Arc<rusqlite::Error>,
    },
    /// The database server did not do it.
    #[error("{doing} in the database")]
    Postgres {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Arc<DatabaseError>,
    },
    /// A program that knows more has changed the layout in a way that this one would misread.
    #[error("a newer program wrote the store: it asks for layout {oldest}, this program knows up to {known}")]
    Newer {
        /// The oldest layout that a program must know.
        oldest: i64,
        /// The layout that this one knows.
        known: i64,
    },
    /// What is stored is not what this program writes.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// The operating system gives no threads.
    #[error("the store needs threads of its own")]
    Threads {
        /// Why there are none.
        source: Arc<std::io::Error>,
    },
    /// The writer is gone.
    #[error("the store's writer has ended")]
    Ended,
}

/// Which entries to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All, from this number on.
    From(u64),
    /// Those of one stream.
    Stream(Key),
}

/// The contract; see [the module](self).
pub trait Store: Send + Sync {
    /// The store's clock.
    fn now(&self) -> Timestamp;

    /// Writes a group, each batch all or nothing, and returns when all of it is on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    fn commit(&self, group: Vec<Batch>) -> Result<Vec<Result<Receipt, Refused>>, StoreError>;

    /// Asks for the lease, or gives it back.
    ///
    /// # Errors
    /// [`StoreError`].
    fn lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, StoreError>;

    /// A record.
    ///
    /// # Errors
    /// [`StoreError`].
    fn record(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// All records of a room, by their names.
    ///
    /// # Errors
    /// [`StoreError`].
    fn room(&self, room: &str) -> Result<Vec<(Key, Record)>, StoreError>;

    /// Entries in their order with their numbers, at most so many.
    ///
    /// # Errors
    /// [`StoreError`].
    fn entries(&self, which: &Which, limit: usize) -> Result<Vec<(u64, LedgerEntry)>, StoreError>;

    /// The number of the ledger's entries.
    ///
    /// # Errors
    /// [`StoreError`].
    fn size(&self) -> Result<u64, StoreError>;

    /// The hashes of full subtrees, in the order asked for.
    ///
    /// # Errors
    /// [`StoreError`]; also if one of them is not full yet.
    fn nodes(&self, wanted: &[Position]) -> Result<Vec<Sha256>, StoreError>;
}

impl Batch {
    /// Whether the ledger is of the size that the decision was made on.
    fn refuse_ledger(&self, found: u64) -> Result<(), Refused> {
        match self.after {
            Some(expected) if expected != found => Err(Refused::Ledger { expected, found }),
            None if !self.entries.is_empty() => Err(Refused::Blind),
            _ => Ok(()),
        }
    }
}

impl Expect {
    /// Whether the record is at the revision that the decision was made on.
    fn refuse(&self, found: Revision) -> Result<(), Refused> {
        if self.revision == found {
            return Ok(());
        }
        Err(Refused::Revision { key: self.key.clone(), expected: self.revision, found })
    }
}
