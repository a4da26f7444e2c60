//! The journal's chain: a record for each row that tells what happened, in the write that makes the row.
//!
//! What is chained: transactions, events, what operators did (`audit`), grants; and what was forgotten, so that a row that
//! somebody took away is told from one that is past its time. State that changes in place (baseline, floors, crash guards,
//! quarantine, hold) is not: it follows from what is chained, or from what the kernel shows.
//!
//! A database of before the chain gets one when it is first opened: its first record says how much was there, and a
//! record for each of those rows follows, as it was found, with no author.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use manifests::Sha256;
use manifests::chain::{Broken, Checker, Exported, Fault, Field, Head, NOTHING, Record, content_digest};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use system::clock::{Clock as _, SystemClock};

use crate::state::author::Actor;
use crate::state::journal::{Journal, JournalError, TransactionId, encode};

/// A kind of row that has records.
struct Kind {
    /// What its records are called.
    name: &'static str,
    table: &'static str,
    /// What its content is, in this order.
    columns: &'static [&'static str],
    /// SQL for the name of a row.
    about: &'static str,
    /// SQL for when it was written.
    at: &'static str,
}

const TRANSACTION: Kind = Kind {
    name: "transaction",
    table: "transactions",
    columns: &["id", "origin", "plan", "began", "despite", "manifest"],
    about: "id",
    at: "began",
};
const EVENT: Kind = Kind {
    name: "event",
    table: "events",
    columns: &["tx", "seq", "at", "boot_id", "userspace", "event"],
    about: "tx || '/' || seq",
    at: "at",
};
const AUDIT: Kind =
    Kind { name: "audit", table: "audit", columns: &["seq", "at", "who", "what"], about: "seq", at: "at" };
const GRANT: Kind = Kind {
    name: "grant",
    table: "grants",
    columns: &[
        "id",
        "rollout",
        "nonce",
        "action",
        "epoch",
        "ledger_size",
        "ledger_root",
        "taint",
        "boot_id",
        "taken",
        "tx",
    ],
    about: "id",
    at: "taken",
};

const KINDS: [&Kind; 4] = [&TRANSACTION, &EVENT, &AUDIT, &GRANT];

/// A transaction and its events are gone, since they were past their time.
const FORGOTTEN: &str = "forgotten";
/// The chain begins.
const START: &str = "start";

impl Kind {
    fn rows(&self, filter: &str) -> String {
        let Self { table, columns, about, at, .. } = self;
        format!("SELECT {at}, {about}, {} FROM {table} {filter}", columns.join(", "))
    }

    fn row(&self, row: &Row<'_>) -> rusqlite::Result<Found> {
        let fields = self.columns.iter().enumerate().map(|(index, name)| {
            let value = match row.get_ref(index + 2)? {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                other => {
                    return Err(rusqlite::Error::InvalidColumnType(
                        index,
                        (*name).to_owned(),
                        other.data_type(),
                    ));
                }
            };
            Ok(((*name).to_owned(), value))
        });
        let about = match row.get_ref(1)? {
            ValueRef::Integer(number) => number.to_string(),
            _ => row.get(1)?,
        };
        Ok(Found { at: row.get(0)?, about, fields: fields.collect::<rusqlite::Result<_>>()? })
    }
}

/// A row that has, or should have, a record.
struct Found {
    at: String,
    about: String,
    fields: Vec<Field>,
}

/// Who wrote the rows of one write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link<'a> {
    pub(crate) by: &'a Actor,
}

impl Link<'_> {
    /// Records the transaction that was just written.
    pub(crate) fn transaction(self, db: &Connection, id: &TransactionId) -> rusqlite::Result<()> {
        self.newest(db, &TRANSACTION, "WHERE id = ?1", [id.as_str()])
    }

    /// Records the last event of a transaction.
    pub(crate) fn event(self, db: &Connection, id: &TransactionId) -> rusqlite::Result<()> {
        self.newest(db, &EVENT, "WHERE tx = ?1 ORDER BY seq DESC LIMIT 1", [id.as_str()])
    }

    /// Records the last thing that operators did.
    pub(crate) fn audit(self, db: &Connection) -> rusqlite::Result<()> {
        self.newest(db, &AUDIT, "ORDER BY seq DESC LIMIT 1", [])
    }

    /// Records a grant.
    pub(crate) fn grant(self, db: &Connection, id: Sha256) -> rusqlite::Result<()> {
        self.newest(db, &GRANT, "WHERE id = ?1", [id.to_string()])
    }

    /// Records that a transaction is forgotten.
    pub(crate) fn forgotten(
        self,
        db: &Connection,
        id: &TransactionId,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let about = id.as_str();
        add(db, now.to_string(), FORGOTTEN, about.to_owned(), encode(self.by), Sha256::of(about.as_bytes()))
    }

    fn newest(
        self,
        db: &Connection,
        kind: &Kind,
        filter: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<()> {
        let Found { at, about, fields } =
            db.prepare_cached(&kind.rows(filter))?.query_row(values, |row| kind.row(row))?;
        add(db, at, kind.name, about, encode(self.by), content_digest(&fields))
    }
}

/// How far the chain goes.
pub(crate) fn head(db: &Connection) -> rusqlite::Result<Head> {
    let last = db
        .prepare_cached("SELECT seq, hash FROM chain ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    Ok(last.map_or(Head::EMPTY, |(seq, hash)| Head {
        seq: seq.cast_unsigned(),
        // What is no hash is followed by nothing: the check tells.
        hash: hash.parse().unwrap_or(NOTHING),
    }))
}

fn add(
    db: &Connection,
    at: String,
    kind: &str,
    about: String,
    by: String,
    content: Sha256,
) -> rusqlite::Result<()> {
    let record = Record::following(head(db)?, at, kind, about, by, content);
    let Record { seq, at, kind, about, by, content, previous, hash } = record;
    db.prepare_cached(
        "INSERT INTO chain (seq, at, kind, about, by, content, previous, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        seq.cast_signed(),
        at,
        kind,
        about,
        by,
        content.to_string(),
        previous.to_string(),
        hash.to_string()
    ])
    .map(drop)
}

/// Begins the chain of a database, as part of the migration that makes its table: what is there already gets records
/// without an author, in the order in which it can have come about.
pub(super) fn begin(db: &Connection) -> rusqlite::Result<()> {
    let count = |table: &str| -> rusqlite::Result<i64> {
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
    };
    let rows: i64 = KINDS.iter().map(|kind| count(kind.table)).sum::<rusqlite::Result<i64>>()?;
    let about = match rows {
        0 => "a new journal".to_owned(),
        rows => format!("a journal with {rows} rows of before, taken as they were found"),
    };
    let content = Sha256::of(about.as_bytes());
    add(db, SystemClock.now().to_string(), START, about, encode(&None::<Actor>), content)?;
    let adopt = |kind: &Kind, filter: &str, values: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<()> {
        let found: Vec<Found> = db
            .prepare(&kind.rows(filter))?
            .query_map(values, |row| kind.row(row))?
            .collect::<rusqlite::Result<_>>()?;
        for Found { at, about, fields } in found {
            add(db, at, kind.name, about, encode(&None::<Actor>), content_digest(&fields))?;
        }
        Ok(())
    };
    adopt(&AUDIT, "ORDER BY seq", &[])?;
    adopt(&GRANT, "ORDER BY rowid", &[])?;
    let ids: Vec<String> = db
        .prepare("SELECT id FROM transactions ORDER BY rowid")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in ids {
        adopt(&TRANSACTION, "WHERE id = ?1", &[&id])?;
        adopt(&EVENT, "WHERE tx = ?1 ORDER BY seq", &[&id])?;
    }
    Ok(())
}

/// What a check of the whole journal came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sound {
    /// How far the chain goes.
    pub head: Head,
    /// When it begins.
    pub since: String,
    /// What its first record says.
    pub begins: String,
    /// Transactions that were forgotten, since they were past their time.
    pub forgotten: usize,
    /// Rows of before the chain, which were taken as they were found.
    pub adopted: usize,
}

impl Journal {
    /// How far the chain goes.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`].
    pub fn head(&self) -> Result<Head, JournalError> {
        self.read("read the head of the journal", head)
    }

    /// The records after one, with their contents, at most so many.
    ///
    /// # Errors
    /// [`JournalError::Sqlite`].
    pub fn records(&self, after: u64, most: usize) -> Result<Vec<Exported>, JournalError> {
        self.read("read the records of the journal", |db| {
            let records = records(db, after, most)?;
            records.into_iter().map(|record| with_content(db, record)).collect()
        })
    }

    /// Checks every record and every row; the chain has to have had these heads.
    ///
    /// # Errors
    /// [`JournalError::Broken`] with the first record that does not hold, [`JournalError::Sqlite`].
    pub fn check_chain(&self, seen: &[Head]) -> Result<Sound, JournalError> {
        // One snapshot: what is written meanwhile is not there.
        let judged = self.read("check the journal", |db| {
            let snapshot = db.unchecked_transaction()?;
            let judged = check(&snapshot, seen)?;
            snapshot.finish()?;
            Ok(judged)
        })?;
        Ok(judged?)
    }
}

fn records(db: &Connection, after: u64, most: usize) -> rusqlite::Result<Vec<Record>> {
    let mut query = db.prepare_cached(
        "SELECT seq, at, kind, about, by, content, previous, hash FROM chain WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let found = query.query_map(params![after, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        // What is no digest is none that anything can have: the check tells, and names the record.
        let digest =
            |index: usize| Ok::<_, rusqlite::Error>(row.get::<_, String>(index)?.parse().unwrap_or(NOTHING));
        Ok(Record {
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            at: row.get(1)?,
            kind: row.get(2)?,
            about: row.get(3)?,
            by: row.get(4)?,
            content: digest(5)?,
            previous: digest(6)?,
            hash: digest(7)?,
        })
    })?;
    found.collect()
}

fn with_content(db: &Connection, record: Record) -> rusqlite::Result<Exported> {
    let Some(kind) = KINDS.iter().find(|kind| kind.name == record.kind) else {
        return Ok(Exported { record, fields: None });
    };
    let (filter, values) = match record.about.rsplit_once('/').filter(|_| kind.name == EVENT.name) {
        Some((transaction, number)) => ("WHERE tx = ?1 AND seq = ?2".to_owned(), vec![transaction, number]),
        None => (format!("WHERE {} = ?1", kind.about), vec![record.about.as_str()]),
    };
    let found = db
        .prepare_cached(&kind.rows(&filter))?
        .query_row(rusqlite::params_from_iter(values), |row| kind.row(row))
        .optional()?;
    Ok(Exported { record, fields: found.map(|found| found.fields) })
}

fn check(db: &Connection, seen: &[Head]) -> rusqlite::Result<Result<Sound, Broken>> {
    let mut rows: BTreeMap<(&str, String), Sha256> = BTreeMap::new();
    for kind in KINDS {
        let mut query = db.prepare(&kind.rows(""))?;
        for found in query.query_map([], |row| kind.row(row))? {
            let Found { about, fields, .. } = found?;
            rows.insert((kind.name, about), content_digest(&fields));
        }
    }
    let records = records(db, 0, usize::MAX)?;
    let forgotten: BTreeSet<&str> = records
        .iter()
        .filter(|record| record.kind == FORGOTTEN)
        .map(|record| record.about.as_str())
        .collect();
    let mut checker = seen.iter().fold(Checker::default(), |checker, seen| checker.expect(*seen));
    let mut adopted = 0;
    for record in &records {
        if let Err(broken) = checker.take(record) {
            return Ok(Err(broken));
        }
        if (record.seq == 1) != (record.kind == START) {
            return Ok(Err(record.broken(Fault::NoStart)));
        }
        let Some(kind) = KINDS.iter().find(|kind| kind.name == record.kind) else { continue };
        adopted += usize::from(record.by == "null");
        match rows.remove(&(kind.name, record.about.clone())) {
            Some(found) if found != record.content => {
                return Ok(Err(record.broken(Fault::Content { expected: record.content, found })));
            }
            Some(_) => {}
            None => {
                let transaction = record.about.split('/').next().unwrap_or_default();
                let may_be_gone =
                    [TRANSACTION.name, EVENT.name].contains(&kind.name) && forgotten.contains(transaction);
                if !may_be_gone {
                    return Ok(Err(record.broken(Fault::Gone)));
                }
            }
        }
    }
    let end = checker.end();
    if let (Ok(head), Some(((kind, about), _))) = (end.as_ref(), rows.into_iter().next()) {
        let (kind, fault) = (kind.to_owned(), Fault::Unrecorded);
        return Ok(Err(Broken { seq: head.seq.saturating_add(1), kind, about, fault }));
    }
    let first = records.first();
    Ok(end.map(|head| Sound {
        head,
        since: first.map(|first| first.at.clone()).unwrap_or_default(),
        begins: first.map(|first| first.about.clone()).unwrap_or_default(),
        forgotten: forgotten.len(),
        adopted,
    }))
}
