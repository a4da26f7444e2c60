//! Trust floors: the versions that this host has acted upon, the time of which there is evidence, what it has seen
//! revoked, and the newest checkpoint of each log.
//!
//! They only rise, but for the time, which an operator can have forgotten. Whoever begins a transaction raises them, under the host's lock and before the first step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::log::{NoteName, SeenCheckpoint};
use manifests::revocation::Revoked;
use manifests::verify::AcceptedVersion;
use manifests::{Document, DocumentKind, Policy, TrustFloor, UtcTime, Verified};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::state::hold::note;
use crate::state::journal::{Journal, JournalError, encode};

/// Why the floors cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The journal cannot be opened.
    #[error("cannot read the journal {path}")]
    Read {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal is not one, or is damaged.
    #[error("cannot read what this host has accepted before from {path}")]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// What a caller without the host's lock can see of its floors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FloorSeen {
    /// The floors; empty on a host that has accepted nothing yet.
    Floor(TrustFloor),
    /// The store is not for this user to read.
    Unreadable,
}

/// Looks at the floors in a store, without a lock and without changing anything.
///
/// # Errors
/// [`FloorError::Damaged`] if the journal is there and readable, and is not a journal.
pub fn look_at_floor(store: &Path) -> Result<FloorSeen, FloorError> {
    let path = store.join("journal.sqlite");
    match File::open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(FloorSeen::Floor(TrustFloor::default()));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(FloorSeen::Unreadable),
        Err(source) => return Err(FloorError::Read { path, source }),
    }
    Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|db| query_floor(&db))
        .map(FloorSeen::Floor)
        .map_err(|source| FloorError::Damaged { path, source })
}

/// The floors of an open journal.
///
/// # Errors
/// [`JournalError::Sqlite`].
pub fn read_floor(journal: &Journal) -> Result<TrustFloor, JournalError> {
    journal.read("read the trust floors", query_floor)
}

/// `floor`, which was read before, with what `policy` revokes by now; that is remembered for good, as one synced write where it is new.
///
/// # Errors
/// [`JournalError::Sqlite`]; the floors are then what they were.
pub fn see_policy(
    journal: &mut Journal,
    mut floor: TrustFloor,
    policy: &Policy,
    now: Timestamp,
) -> Result<TrustFloor, JournalError> {
    if floor.see(policy, now) {
        journal.write("remember what is revoked", |write, _| keep(write, &floor))?;
    }
    Ok(floor)
}

/// Remembers that this host acts upon `accepted`, as one synced write.
///
/// # Errors
/// [`JournalError::Sqlite`]; the floors are then what they were.
pub fn raise_floor<T: Document>(journal: &mut Journal, accepted: &Verified<T>) -> Result<(), JournalError> {
    journal.write("raise the trust floors", |write, link| {
        let mut floor = query_floor(write)?;
        floor.raise(accepted);
        // What a manifest does here, its transaction tells.
        if T::KIND != DocumentKind::Manifest {
            let what = format!("{} with SHA-256 {} taken up", T::KIND, accepted.digest());
            note(write, link, accepted.verified_at().timestamp(), &link.by.author, &what)?;
        }
        keep(write, &floor)
    })
}

/// Forgets the evidence of time, for an operator who knows that a signer's clock was ahead; who did and why is kept.
/// Versions and revocations stay. Gives what the evidence was.
///
/// # Errors
/// [`JournalError::Sqlite`]; the floors are then what they were.
pub fn reset_clock(
    journal: &mut Journal,
    now: Timestamp,
    who: &str,
    why: &str,
) -> Result<Option<UtcTime>, JournalError> {
    journal.write("forget the evidence of time", |write, link| {
        let mut floor = query_floor(write)?;
        let was = floor.reset_clock();
        let said = was.map_or_else(|| "none".to_owned(), |was| was.to_string());
        write.execute(
            "INSERT INTO audit (at, who, what) VALUES (?1, ?2, ?3)",
            params![now.to_string(), who, format!("evidence of time forgotten, which was {said}: {why}")],
        )?;
        link.audit(write)?;
        keep(write, &floor)?;
        Ok(was)
    })
}

/// What operators made this host forget, oldest first: when, who, what.
///
/// # Errors
/// [`JournalError::Sqlite`].
pub fn audit(journal: &Journal) -> Result<Vec<(String, String, String)>, JournalError> {
    journal.read("read what operators did", |db| {
        db.prepare("SELECT at, who, what FROM audit ORDER BY seq")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    })
}

/// The part of the floors that is no row of its own.
#[derive(Default, Serialize, Deserialize)]
struct Memory {
    policy: Option<AcceptedVersion>,
    revoked: Revoked,
    /// Absent in what an earlier program wrote.
    #[serde(default)]
    logs: BTreeMap<NoteName, SeenCheckpoint>,
}

fn keep(write: &Connection, floor: &TrustFloor) -> rusqlite::Result<()> {
    for (name, seen) in &floor.versions {
        write.execute(
            "INSERT OR REPLACE INTO version_floors (name, version, manifest) VALUES (?1, ?2, ?3)",
            params![name.as_str(), seen.version as i64, seen.manifest.to_string()],
        )?;
    }
    write.execute("DELETE FROM clock_floor", [])?;
    if let Some(clock) = floor.clock {
        write.execute("INSERT INTO clock_floor (only, at) VALUES (1, ?1)", params![clock.to_string()])?;
    }
    let memory = Memory { policy: floor.policy, revoked: floor.revoked.clone(), logs: floor.logs.clone() };
    let value = encode(&memory);
    write.execute("INSERT OR REPLACE INTO trust_memory (only, value) VALUES (1, ?1)", params![value])?;
    Ok(())
}

fn query_floor(db: &Connection) -> rusqlite::Result<TrustFloor> {
    let clock = db.query_row("SELECT at FROM clock_floor", [], |row| parsed(row.get(0)?, 0)).optional()?;
    let versions = db
        .prepare("SELECT name, version, manifest FROM version_floors")?
        .query_map([], |row| {
            let version: i64 = row.get(1)?;
            let seen = AcceptedVersion {
                // Written from a manifest's version, which stays below 2^53.
                version: u64::try_from(version).unwrap_or(u64::MAX),
                manifest: parsed(row.get(2)?, 2)?,
            };
            Ok((parsed(row.get(0)?, 0)?, seen))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let Memory { policy, revoked, logs } = memory(db)?;
    Ok(TrustFloor { clock, versions, policy, revoked, logs })
}

fn memory(db: &Connection) -> rusqlite::Result<Memory> {
    // Whoever only looks may find the layout of an older program.
    let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'trust_memory'";
    if db.query_row(known, [], |_| Ok(())).optional()?.is_none() {
        return Ok(Memory::default());
    }
    let value: Option<String> =
        db.query_row("SELECT value FROM trust_memory", [], |row| row.get(0)).optional()?;
    value.map_or(Ok(Memory::default()), |value| {
        serde_json::from_str(&value).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
        })
    })
}

fn parsed<T>(text: String, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}
