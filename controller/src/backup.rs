//! A copy of the store that is whole, and the way back to it.
//!
//! A copy is a store in one file of SQLite, whatever it is a copy of. What hosts fetch is not in it: controllers have that in
//! their directories, and bring it into a database that lacks it when they start.
//!
//! A backup is a state that was; the controller and its hosts have gone on since. Whoever restores one must not repeat
//! epochs that hosts have seen, nor go on as if nothing had been granted since. So a restored store
//! - begins above every epoch that it knows of or is told of, by [`MARGIN`], and learns the rest from the hosts
//!   ([`MAX_JUMP`](crate::authority::MAX_JUMP));
//! - says in its ledger that it was restored, and from which size on: heads that hosts have seen above that have no
//!   proof, and that is why;
//! - has every rollout paused that could go on: people look at what hosts say before more of them begin.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet::rollout::{Author, Event, Pause, Proof, Stage};
use manifests::{KeyName, LedgerHead, SecretKey};
use system::clock::Clock;
use system::durable;

use crate::authority::facts::{Fact, of_store};
use crate::authority::{Authority, Denied};
use crate::ledger::{Finding, Origin, audit};
use crate::store::{Postgres, Sqlite, Store as _, StoreError};

/// So far above everything known a restored store begins: leases change when controllers restart, a few times a day.
pub const MARGIN: u64 = 1 << 16;

/// Why there is no backup, or no way back to it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already, and is left as it is.
    #[error("{path} is there already: expected a name that is free")]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store failed.
    #[error("the store cannot be copied")]
    Store(#[from] StoreError),
    /// The backup's ledger is not what its entries make, or not what was signed.
    #[error("the backup was changed: nothing was restored")]
    Changed(#[from] Finding),
    /// The restored store could not be made ready.
    #[error("the restored store could not be made ready: nothing was restored")]
    NotReady(#[source] Box<Denied>),
}

/// Writes a copy of a store that is in use to a new file; it is on disk when this returns.
///
/// # Errors
/// [`BackupError`]; there is no backup then.
pub fn backup(store: &Sqlite, to: &Path) -> Result<(), BackupError> {
    refuse_existing(to)?;
    let partial = partial(to);
    remove_partial(&partial)?;
    let name = partial.to_string_lossy().into_owned();
    store.read("copy all", |db| db.execute("VACUUM INTO ?1", [&name]))?;
    publish(&partial, to)
}

/// Writes a copy of a store in a server, in which controllers go on, to a new file; it is on disk when this returns.
///
/// # Errors
/// [`BackupError`]; there is no backup then.
pub fn backup_server(
    store: &Postgres,
    to: &Path,
    clock: Arc<dyn Clock + Send + Sync>,
) -> Result<(), BackupError> {
    refuse_existing(to)?;
    let partial = partial(to);
    remove_partial(&partial)?;
    let copy = Sqlite::open(&partial, clock)?;
    store.copy_to(&copy)?;
    copy.fold()?;
    drop(copy);
    publish(&partial, to)
}

/// How a backup is put back.
pub struct Restore<'r> {
    /// The backup.
    pub from: &'r Path,
    /// Where the store is to be; there must be none. With a server, it is only made here.
    pub to: &'r Path,
    /// The server in which the store is to be; it must be empty.
    pub server: Option<&'r Postgres>,
    /// The highest epoch that is known to have been in force, from a host or a log; 0 if nobody knows.
    pub above: u64,
    /// Heads that somebody has kept; the backup must begin with those that are not longer than itself.
    pub signed: &'r [LedgerHead],
    /// Who restores.
    pub by: KeyName,
}

/// Puts a backup back as a new store. It appears when it is ready, or not at all.
///
/// # Errors
/// [`BackupError`]; nothing was restored then.
pub fn restore(
    restore: &Restore<'_>,
    clock: Arc<dyn Clock + Send + Sync>,
    key: SecretKey,
    origin: Origin,
) -> Result<(), BackupError> {
    let Restore { from, to, server, above, signed, ref by } = *restore;
    refuse_existing(to)?;
    let partial = partial(to);
    remove_partial(&partial)?;
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Io { doing, path, source }
    };
    std::fs::copy(from, &partial).map_err(io("copy", from))?;
    let store = Arc::new(Sqlite::open(&partial, Arc::clone(&clock))?);
    let size = store.size()?;
    let older: Vec<LedgerHead> = signed.iter().filter(|head| head.size <= size).copied().collect();
    audit(&*store, &older)??;
    // Whoever held the lease when the backup was made holds it no more.
    store.end_lease()?;
    let not_ready = |denied| BackupError::NotReady(Box::new(denied));
    let epoch = store.epoch()?.max(above) + MARGIN;
    let holder = format!("restore by {by}");
    let authority = Authority::take(store.clone(), clock, key, origin, holder, epoch).map_err(not_ready)?;
    let paused = authority.settle(|decision| {
        decision.say(&Fact::Restored { at: decision.now, by: by.clone(), size }, of_store());
        for (rollout, stage) in decision.live() {
            if matches!(stage, Stage::Waiting | Stage::Running | Stage::Completed) {
                let by = Author { name: by.clone(), proof: Proof::Token };
                decision.happen(rollout, Event::Paused { cause: Pause::Operator { by } })?;
            }
        }
        Ok(())
    });
    paused.and_then(|()| authority.release()).map_err(not_ready)?;
    store.fold()?;
    if let Some(server) = server {
        server.fill_from(&store)?;
        drop(store);
        return remove_partial(&partial);
    }
    drop(store);
    publish(&partial, to)
}

fn refuse_existing(path: &Path) -> Result<(), BackupError> {
    if path.exists() { Err(BackupError::Exists { path: path.to_owned() }) } else { Ok(()) }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// What an earlier try left.
fn remove_partial(partial: &Path) -> Result<(), BackupError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = partial.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(BackupError::Io { doing: "remove", path, source }),
        }
    }
    Ok(())
}

/// Syncs what is whole, and gives it its name.
fn publish(partial: &Path, to: &Path) -> Result<(), BackupError> {
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Io { doing, path, source }
    };
    File::open(partial).and_then(|file| file.sync_all()).map_err(io("sync", partial))?;
    std::fs::rename(partial, to).map_err(io("name", to))?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    durable::sync_directory(directory).map_err(io("sync", directory))
}
