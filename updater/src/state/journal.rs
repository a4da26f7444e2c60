//! The journal: what was planned and everything that happened, on disk before anything else is done.
//!
//! One SQLite database, `journal.sqlite` in the store, in WAL mode with `synchronous=FULL`: a write that
//! returned is on disk. Events are appended and never changed. The rows that say what the host *should* have
//! (`baseline`) change only in the same SQLite transaction as the event that makes them true, so after a
//! power cut the journal never says one thing and the baseline another.
//!
//! Each row that tells what happened has a record in a chain ([`crate::state::chain`]), made in the same write.
//!
//! It stores values; it decides nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use manifests::chain::Broken;
use manifests::{Manifest, Verified};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use system::boot::Incarnation;

use crate::plan::Plan;
use crate::state::author::{Actor, Author};
use crate::state::baseline::BaselineChange;
use crate::state::chain::Link;
use crate::state::grants::TakenGrant;
use crate::state::hold::Passed;
use crate::state::migrations::{self, LAYOUT};
use crate::transaction::state::{Event, Impossible, Outcome, Phase, Progress};

/// Another process may be reading (`update status`); a writer waits this long for it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A failure to read or write the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database cannot be opened or is not writable.
    #[error("open the journal {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A statement failed: disk full, I/O error, corruption.
    #[error("{doing} in the journal")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The room for a full disk cannot be taken.
    #[error("reserve room for the journal in {path}")]
    Reserve {
        /// The file that takes the room.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A stored value is not what this program writes.
    #[error("the journal's {what} cannot be read")]
    Damaged {
        /// Which value.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The stored events contradict each other.
    #[error("the journal of {transaction} contradicts itself")]
    Contradiction {
        /// Which transaction.
        transaction: TransactionId,
        /// How.
        source: Impossible,
    },
    /// A newer program wrote this journal.
    #[error("a newer program wrote the journal: it has layout {found}, this program knows up to {LAYOUT}")]
    Newer {
        /// The layout found.
        found: i64,
    },
    /// The chain does not hold: somebody changed the journal beside this program.
    #[error("the journal does not hold")]
    Broken(#[from] Broken),
    /// No transaction has this name.
    #[error("no transaction {wanted}")]
    Unknown {
        /// What was asked for.
        wanted: String,
    },
}

impl JournalError {
    fn is_full(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }
}

/// Name of a transaction: sorts by time, short enough to type. Example: `20261122-091102-03f9c`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId(String);

impl TransactionId {
    /// A new name for a transaction that begins now; `micros` are those of the second.
    pub fn new(now: Timestamp, micros: u32) -> Self {
        Self(format!("{}-{micros:05x}", now.strftime("%Y%m%d-%H%M%S")))
    }

    /// A name that the journal holds.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What began a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// `update apply` of a signed manifest.
    Apply {
        /// Manifest name.
        name: String,
        /// Manifest version.
        version: u64,
        /// SHA-256 of the signed bytes.
        digest: String,
        /// Who signed, one line a role.
        signed_by: Vec<String>,
    },
    /// `update rollback` of an earlier, committed transaction.
    Rollback {
        /// The transaction that is undone.
        of: TransactionId,
        /// Its manifest's name.
        name: String,
        /// Its manifest's version.
        version: u64,
    },
}

impl Origin {
    /// The origin of a transaction that applies this manifest.
    pub fn of(manifest: &Verified<Manifest>) -> Self {
        let signed_by = manifest.signers().roles.iter().map(|role| {
            let keys: Vec<String> = role.signed.iter().map(ToString::to_string).collect();
            format!("{} for {}", keys.join(", "), role.role)
        });
        Self::Apply {
            name: manifest.name.to_string(),
            version: manifest.version,
            digest: manifest.digest().to_string(),
            signed_by: signed_by.collect(),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Apply { name, version, .. } => write!(f, "apply {name} v{version}"),
            Self::Rollback { of, name, version } => write!(f, "rollback {name} v{version} ({of})"),
        }
    }
}

/// An event with when and in which boot it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Wall clock.
    pub at: Timestamp,
    /// The boot, and the start of userspace in it, that recorded it.
    #[serde(flatten)]
    pub during: Incarnation,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A transaction as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub id: TransactionId,
    /// What began it.
    pub origin: Origin,
    /// Who began it; nobody that is known where the journal's chain is younger.
    pub by: Option<Actor>,
    /// The hold that it was begun despite, and who said so.
    pub despite: Option<Passed>,
    /// When it began.
    pub began: Timestamp,
    /// Everything that happened, in order.
    pub events: Vec<Recorded>,
    /// The state that follows from plan and events.
    pub progress: Progress,
}

impl Stored {
    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.progress.phase() {
            Phase::Ended(outcome) => Some(*outcome),
            _ => None,
        }
    }
}

/// Room on the disk that a running transaction can fall back on: a full disk must not keep it from recording
/// how far it came. Its events take a few hundred bytes each.
const RESERVE: u64 = 4 << 20;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    reserve: PathBuf,
    /// Who writes.
    by: Actor,
}

/// What the journal is told when a transaction begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grounds<'a> {
    /// The grant that lets it begin, if it is the fleet's doing; it is taken in the same write.
    pub grant: Option<&'a TakenGrant>,
    /// The hold that an operator goes past.
    pub despite: Option<&'a Passed>,
    /// The envelope of the manifest, as it was signed; none of a rollback.
    pub manifest: Option<&'a str>,
}

impl Journal {
    /// Open for writing, creating the database if there is none.
    ///
    /// # Errors
    /// [`JournalError::Open`] if the store is not writable; [`JournalError::Newer`] if a newer program wrote it.
    pub fn open(store: &Path) -> Result<Self, JournalError> {
        let path = store.join("journal.sqlite");
        let open = |path: &Path| -> rusqlite::Result<Connection> {
            let db = Connection::open(path)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            db.pragma_update(None, "foreign_keys", "ON")?;
            Ok(db)
        };
        let reserve = store.join("journal.reserve");
        let mut db = open(&path).map_err(|source| JournalError::Open { path, source })?;
        let found = migrations::migrate(&mut db)
            .map_err(|source| JournalError::Sqlite { doing: "bring the tables up to date", source })?;
        if found > LAYOUT {
            return Err(JournalError::Newer { found });
        }
        Ok(Self { db, reserve, by: Actor { author: Author::current(), grant: None } })
    }

    /// Record that a transaction begins, and on what grounds, as one synced write.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`]; nothing is recorded then.
    pub fn begin(
        &mut self,
        id: &TransactionId,
        origin: &Origin,
        plan: &Plan,
        began: Timestamp,
        Grounds { grant, despite, manifest }: Grounds<'_>,
    ) -> Result<(), JournalError> {
        self.keep_reserve()?;
        // What follows is done by its word, until something else begins.
        self.by.grant = grant.map(|grant| grant.grant.id);
        self.write("begin a transaction", |db, link| {
            db.execute(
                "INSERT INTO transactions (id, origin, plan, began, despite, manifest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    id.as_str(),
                    encode(origin),
                    encode(plan),
                    began.to_string(),
                    despite.map(encode),
                    manifest
                ],
            )?;
            link.transaction(db, id)?;
            grant.map_or(Ok(()), |grant| grant.write(db, Some(id), link))
        })
    }

    /// Append an event, and change the baseline with it, as one synced write.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`]; nothing is recorded then.
    pub fn append(
        &mut self,
        id: &TransactionId,
        recorded: &Recorded,
        changes: &[BaselineChange],
    ) -> Result<(), JournalError> {
        match self.try_append(id, recorded, changes) {
            Err(error) if error.is_full() && std::fs::remove_file(&self.reserve).is_ok() => {
                self.try_append(id, recorded, changes)
            }
            result => result,
        }
    }

    /// Take the room that [`Journal::append`] gives back when the disk is full.
    fn keep_reserve(&self) -> Result<(), JournalError> {
        let io = |source| JournalError::Reserve { path: self.reserve.clone(), source };
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.reserve)
            .map_err(io)?;
        let size = nix::libc::off_t::try_from(RESERVE).unwrap_or(nix::libc::off_t::MAX);
        nix::fcntl::posix_fallocate(file, 0, size).map_err(|errno| io(errno.into()))
    }

    fn try_append(
        &mut self,
        id: &TransactionId,
        recorded: &Recorded,
        changes: &[BaselineChange],
    ) -> Result<(), JournalError> {
        self.write("append an event", |write, link| {
            write.execute(
                "INSERT INTO events (tx, seq, at, boot_id, userspace, event)
                 SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5 FROM events WHERE tx = ?1",
                params![
                    id.as_str(),
                    recorded.at.to_string(),
                    recorded.during.boot_id.to_string(),
                    recorded.during.userspace.as_ref().map(ToString::to_string),
                    encode(&recorded.event)
                ],
            )?;
            link.event(write, id)?;
            changes.iter().try_for_each(|change| change.write(write, id))
        })
    }

    /// Forget these transactions and their events, as one synced write.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`]; nothing is forgotten then.
    pub fn forget(&mut self, ids: &[&TransactionId], now: Timestamp) -> Result<(), JournalError> {
        self.write("forget old transactions", |db, link| {
            for id in ids {
                link.forgotten(db, id, now)?;
                db.execute("DELETE FROM events WHERE tx = ?1", params![id.as_str()])?;
                db.execute("DELETE FROM transactions WHERE id = ?1", params![id.as_str()])?;
            }
            Ok(())
        })
    }

    /// Change rows as one synced write; what is told of what happened is recorded by the link.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`].
    pub(crate) fn write<T>(
        &mut self,
        doing: &'static str,
        change: impl FnOnce(&Transaction<'_>, Link<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let sqlite = |source| JournalError::Sqlite { doing, source };
        // At once, not at the first change: the chain's end is read before it is written on.
        let write = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let value = change(&write, Link { by: &self.by }).map_err(sqlite)?;
        write.commit().map_err(sqlite)?;
        Ok(value)
    }

    /// Read with a statement of the caller.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`].
    pub fn read<T>(
        &self,
        doing: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        query(&self.db).map_err(|source| JournalError::Sqlite { doing, source })
    }

    /// A transaction by its name or an unambiguous beginning of it.
    ///
    /// # Errors
    /// [`JournalError::Unknown`] if none or several match.
    pub fn transaction(&self, wanted: &str) -> Result<Stored, JournalError> {
        let mut found = self.ids("WHERE substr(id, 1, length(?1)) = ?1", params![wanted])?;
        match (found.pop(), found.is_empty()) {
            (Some(id), true) => self.load(&id),
            _ => Err(JournalError::Unknown { wanted: wanted.to_owned() }),
        }
    }

    /// Every transaction, oldest first.
    ///
    /// # Errors
    /// [`JournalError`] if any of them cannot be read.
    pub fn all(&self) -> Result<Vec<Stored>, JournalError> {
        self.ids("", params![])?.iter().map(|id| self.load(id)).collect()
    }

    /// The transaction that began last; `None` if there is none.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    pub fn last(&self) -> Result<Option<Stored>, JournalError> {
        self.ids("", params![])?.last().map(|id| self.load(id)).transpose()
    }

    /// The transactions that have not ended, oldest first.
    ///
    /// # Errors
    /// [`JournalError`] if any of them cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Stored>, JournalError> {
        let open = "WHERE NOT EXISTS (SELECT 1 FROM events WHERE tx = id AND event ->> '$.event' = 'ended')";
        self.ids(open, params![])?.iter().map(|id| self.load(id)).collect()
    }

    /// The envelope of the manifest that a transaction applied; none of a rollback, or of a time when it was not kept.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`].
    pub fn manifest_of(&self, id: &TransactionId) -> Result<Option<String>, JournalError> {
        self.read("read the manifest of a transaction", |db| {
            db.query_row("SELECT manifest FROM transactions WHERE id = ?1", [id.as_str()], |row| row.get(0))
        })
    }

    fn ids(&self, filter: &str, values: impl rusqlite::Params) -> Result<Vec<TransactionId>, JournalError> {
        self.read("list transactions", |db| {
            db.prepare(&format!("SELECT id FROM transactions {filter} ORDER BY rowid"))?
                .query_map(values, |row| row.get(0).map(TransactionId))?
                .collect()
        })
    }

    fn load(&self, id: &TransactionId) -> Result<Stored, JournalError> {
        type Row = (String, String, String, Option<String>, Option<String>);
        let (origin, plan, began, despite, by): Row = self
            .read("read a transaction", |db| {
                db.query_row(
                    "SELECT origin, plan, began, despite,
                            (SELECT by FROM chain WHERE kind = 'transaction' AND about = ?1)
                     FROM transactions WHERE id = ?1",
                    params![id.as_str()],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
                )
                .optional()
            })?
            .ok_or_else(|| JournalError::Unknown { wanted: id.to_string() })?;
        let rows: Vec<(String, String, Option<String>, String)> = self.read("read events", |db| {
            db.prepare("SELECT at, boot_id, userspace, event FROM events WHERE tx = ?1 ORDER BY seq")?
                .query_map(params![id.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        let mut events = Vec::with_capacity(rows.len());
        for (at, boot_id, userspace, event) in rows {
            let during = Incarnation {
                boot_id: decode_text("boot id", &boot_id)?,
                userspace: userspace.map(|text| decode_text("start of userspace", &text)).transpose()?,
            };
            events.push(Recorded {
                at: decode_text("event time", &at)?,
                during,
                event: decode("event", &event)?,
            });
        }
        let plan: Plan = decode("plan", &plan)?;
        let progress = Progress::replay(plan, events.iter().map(|recorded| &recorded.event))
            .map_err(|source| JournalError::Contradiction { transaction: id.clone(), source })?;
        Ok(Stored {
            id: id.clone(),
            origin: decode("origin", &origin)?,
            by: by.map_or(Ok(None), |text| decode("author of a transaction", &text))?,
            despite: despite.map(|text| decode("passed hold", &text)).transpose()?,
            began: decode_text("begin time", &began)?,
            events,
            progress,
        })
    }
}

/// JSON text of a value made by this program, whose types have no maps with keys that JSON cannot hold.
pub(crate) fn encode<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("journal types serialise to JSON")
}

/// The value of a JSON text that this program wrote.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|source| JournalError::Damaged { what, source })
}

fn decode_text<T>(what: &'static str, text: &str) -> Result<T, JournalError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    use serde::de::Error;
    text.parse().map_err(|error| JournalError::Damaged { what, source: serde_json::Error::custom(error) })
}
