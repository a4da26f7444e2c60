//! Trust floors: the versions that this host has acted upon, and how far its clock was.
//!
//! They only rise. Whoever begins a transaction raises them, under the host's lock and before the first step.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use manifests::verify::AcceptedVersion;
use manifests::{Manifest, TrustFloor, Verified};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::state::journal::{Journal, JournalError};

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

/// Remembers that this host acts upon `accepted`, as one synced write.
///
/// # Errors
/// [`JournalError::Sqlite`]; the floors are then what they were.
pub fn raise_floor(journal: &mut Journal, accepted: &Verified<Manifest>) -> Result<(), JournalError> {
    journal.write("raise the trust floors", |write| {
        let mut floor = query_floor(write)?;
        floor.raise(accepted);
        for (name, seen) in &floor.versions {
            write.execute(
                "INSERT OR REPLACE INTO version_floors (name, version, manifest) VALUES (?1, ?2, ?3)",
                params![name.as_str(), seen.version as i64, seen.manifest.to_string()],
            )?;
        }
        if let Some(clock) = floor.clock {
            write.execute(
                "INSERT OR REPLACE INTO clock_floor (only, at) VALUES (1, ?1)",
                params![clock.to_string()],
            )?;
        }
        Ok(())
    })
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
    Ok(TrustFloor { clock, versions, ..TrustFloor::default() })
}

fn parsed<T>(text: String, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}
