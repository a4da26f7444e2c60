//! `update-controller backup`, `restore` and `migrate`: the controller's store.

use std::path::PathBuf;
use std::sync::Arc;

use manifests::KeyName;
use system::clock::SystemClock;
use system::exit::{Exit, Failure};
use system::output::{line, object};

use super::Global;
use super::serve::Directory;
use super::store::{Kept, StoreArgs, failed};
use crate::backup::{self, BackupError, Restore};
use crate::ledger::checkpoint;

/// Copy the store, also while controllers run
///
/// The copy is one file, whatever the store is, and can be restored into either kind. The directory's other files change only at
/// the first start, but for `ledger.checkpoint`: keep a copy of them, too, in a safe place. A store whose ledger was edited is not copied.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The copy; nothing may be there yet
    to: PathBuf,
}

/// Put a copy of the store back
///
/// Rollouts that could go on are paused, and epochs begin far above those of the copy: look at the hosts, then resume.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    // There is no store in the directory yet, or nothing in the database.
    #[command(flatten)]
    store: StoreArgs,
    /// The copy
    from: PathBuf,
    /// The highest epoch that a host says it has seen
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    above: u64,
    /// A checkpoint that somebody kept: the copy has to agree with it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Who does it
    #[arg(long, value_name = "NAME", default_value = "admin")]
    by: KeyName,
}

/// Bring the store to the layout of this program
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    store: StoreArgs,
}

fn refuse(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Exit::Refused, error)
}

fn say(global: &Global, what: &str, where_to: &str) {
    if global.json {
        object(&serde_json::json!({ what: where_to }));
    } else {
        line(&format!("{what}: {where_to}"));
    }
}

fn not_done(error: BackupError) -> Failure {
    match error {
        BackupError::Store(error) => failed(error),
        error => refuse(error),
    }
}

pub(super) fn backup(args: &BackupArgs, global: &Global) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock);
    let kept = args.store.open_existing()?;
    // A copy of what was edited would be believed later.
    Directory(args.store.directory.clone()).refuse_edited(&*kept.store())?;
    match kept {
        Kept::File(store) => backup::backup(&store, &args.to),
        Kept::Server(store) => backup::backup_server(&store, &args.to, clock),
    }
    .map_err(not_done)?;
    say(global, "copied", &args.to.display().to_string());
    Ok(())
}

pub(super) fn restore(args: &RestoreArgs, global: &Global) -> Result<(), Failure> {
    let directory = Directory::open(&args.store.directory)?;
    let server = args.store.server()?;
    let to = if server.is_some() { directory.0.join("restored.sqlite") } else { directory.database() };
    let (key, origin) = (directory.key()?, directory.origin()?);
    let mut kept: Vec<_> = directory.head()?.into_iter().collect();
    if let Some(path) = &args.checkpoint {
        let text = std::fs::read_to_string(path).map_err(refuse)?;
        kept.push(checkpoint::open(&text, &origin, &key.public()).map_err(refuse)?);
    }
    let restore = Restore {
        from: &args.from,
        to: &to,
        server: server.as_deref(),
        above: args.above,
        signed: &kept,
        by: args.by.clone(),
    };
    backup::restore(&restore, Arc::new(SystemClock), key, origin).map_err(not_done)?;
    // It is of a store that went on after the copy.
    let _ = std::fs::remove_file(directory.checkpoint());
    say(global, "restored", &args.store.name());
    if !global.json {
        line("next: serve, look at the hosts (hosts list), then resume each rollout with a signed order");
    }
    Ok(())
}

pub(super) fn migrate(args: &MigrateArgs, global: &Global) -> Result<(), Failure> {
    drop(args.store.open_existing()?);
    say(global, "migrated", &args.store.name());
    Ok(())
}
