//! Whom this host believes: reading envelope, policy and floors, and comparing payloads.
//!
//! The decisions are in `manifests::verify`; here are the files that they need. Documents are read
//! up to the size that they may have and no further. A policy that somebody else than its owner
//! could write is refused, since it decides what root loads into the kernel.
//!
//! [`authenticate`] is the way for whatever acts on a manifest; it raises no floor. Whoever begins a
//! transaction calls [`raise_floor`].

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::bounded::{self, BoundedError};
use manifests::verify::AcceptedVersion;
use manifests::{
    Envelope, EnvelopeError, Manifest, Payload, Policy, PolicyError, Sha256, TrustFloor, Verified, VerifyAt,
    VerifyError,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::Serialize;

use crate::store::hash_while;
use crate::transaction::journal::{Journal, JournalError};

/// Why a manifest is not acted upon.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}")]
    Read {
        /// `manifest` or `policy`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than such a document may be; the rest was not read.
    #[error("the {what} {path} is too large")]
    TooLarge {
        /// `manifest` or `policy`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
        /// The size of the file in bytes, where it has one.
        found: Option<u64>,
    },
    /// The file is not JSON: most likely a manifest that was never put into an envelope.
    #[error("the manifest {path} is not signed")]
    NotAnEnvelope {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a well-formed envelope.
    #[error("the manifest {path} cannot be read")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// Somebody could change the policy who should not.
    #[error("the policy {path} is not safe from change")]
    PolicyUnsafe {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The policy is not valid.
    #[error("the policy {path} is not valid")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PolicyError,
    },
    /// The floors cannot be read from the store.
    #[error("cannot read what this host has accepted before from {path}")]
    Floor {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The manifest is not authentic, or not any more.
    #[error("the manifest {path} is not authentic")]
    NotAuthentic {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
}

/// Reads a trust policy.
///
/// # Errors
/// [`TrustError`]; [`TrustError::PolicyUnsafe`] unless it belongs to root or the caller, and its
/// group and others cannot write it.
pub fn read_policy(path: &Path) -> Result<Policy, TrustError> {
    let (file, bytes) = read("policy", path, Policy::MAX_BYTES)?;
    let facts = file.metadata().map_err(read_error("policy", path))?;
    let owned = [0, nix::unistd::geteuid().as_raw()].contains(&facts.uid());
    if !owned || facts.mode() & 0o022 != 0 {
        let mode = facts.mode() & 0o7777;
        return Err(TrustError::PolicyUnsafe { path: path.to_owned(), owner: facts.uid(), mode });
    }
    Policy::parse(&bytes).map_err(|source| TrustError::Policy { path: path.to_owned(), source })
}

/// Reads an envelope; checks no signature.
///
/// # Errors
/// [`TrustError`].
pub fn read_envelope(path: &Path) -> Result<Envelope, TrustError> {
    let (_, bytes) = read("manifest", path, Envelope::MAX_BYTES)?;
    if !Envelope::looks_like_one(&bytes) {
        return Err(TrustError::NotAnEnvelope { path: path.to_owned() });
    }
    Envelope::parse(&bytes).map_err(|source| TrustError::Envelope { path: path.to_owned(), source })
}

/// Reads a manifest that this host may act upon.
///
/// # Errors
/// [`TrustError`]; nothing was changed.
pub fn authenticate(
    manifest: &Path,
    policy: &Path,
    floor: &TrustFloor,
    now: Timestamp,
) -> Result<Verified<Manifest>, TrustError> {
    let policy = read_policy(policy)?;
    let envelope = read_envelope(manifest)?;
    policy
        .verify(&envelope, VerifyAt { now, floor })
        .map_err(|source| TrustError::NotAuthentic { path: manifest.to_owned(), source })
}

fn read_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> TrustError + 'a {
    move |source| TrustError::Read { what, path: path.to_owned(), source }
}

fn read(what: &'static str, path: &Path, limit: usize) -> Result<(File, Vec<u8>), TrustError> {
    let error = read_error(what, path);
    let file = File::open(path).map_err(&error)?;
    let facts = file.metadata().map_err(&error)?;
    let too_large = |found| TrustError::TooLarge { what, path: path.to_owned(), limit, found };
    if facts.is_file() && facts.len() > limit as u64 {
        return Err(too_large(Some(facts.len())));
    }
    match bounded::read(&file, limit) {
        Ok(bytes) => Ok((file, bytes)),
        Err(BoundedError::TooLarge { .. }) => Err(too_large(None)),
        Err(BoundedError::Io(source)) => Err(error(source)),
    }
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
/// [`TrustError::Floor`] if the journal is there and readable, and is not a journal.
pub fn look_at_floor(store: &Path) -> Result<FloorSeen, TrustError> {
    let path = store.join("journal.sqlite");
    match File::open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(FloorSeen::Floor(TrustFloor::default()));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(FloorSeen::Unreadable),
        Err(source) => return Err(TrustError::Read { what: "journal", path, source }),
    }
    Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|db| query_floor(&db))
        .map(FloorSeen::Floor)
        .map_err(|source| TrustError::Floor { path, source })
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

/// What a payload file is, compared with what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PayloadState {
    /// It has the size and the digest.
    Matches,
    /// There is no such file.
    Missing,
    /// It has another size, in bytes.
    Size {
        /// Its size.
        found: u64,
    },
    /// It has other bytes.
    Digest {
        /// Their digest.
        found: Sha256,
    },
    /// It is not a regular file, or reading it failed.
    Unreadable {
        /// Why.
        problem: String,
    },
}

/// Compares a payload's file in `directory` with what the manifest says of it.
pub fn compare_payload(payload: &Payload, directory: &Path) -> PayloadState {
    let compare = || -> io::Result<PayloadState> {
        // Opening a named pipe without this flag would wait for its writer.
        let path = directory.join(payload.file.as_str());
        let file = match File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PayloadState::Missing),
            file => file?,
        };
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if facts.len() != payload.size {
            return Ok(PayloadState::Size { found: facts.len() });
        }
        // One byte more than expected is enough to know that it grew meanwhile.
        let (found, size) = hash_while(&mut file.take(payload.size.saturating_add(1)), |_| Ok(()))?;
        Ok(match (size == payload.size, found == payload.sha256) {
            (false, _) => PayloadState::Size { found: size },
            (true, false) => PayloadState::Digest { found },
            (true, true) => PayloadState::Matches,
        })
    };
    compare().unwrap_or_else(|error| PayloadState::Unreadable { problem: error.to_string() })
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
