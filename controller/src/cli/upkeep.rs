//! `update-controller backup`, `restore` and `migrate`: the controller's directory.

use std::path::PathBuf;
use std::sync::Arc;

use manifests::KeyName;
use system::clock::SystemClock;
use system::exit::{Exit, Failure};
use system::output::{line, object};

use super::Global;
use super::serve::Directory;
use crate::backup::{self, Restore};
use crate::ledger::checkpoint;
use crate::store::Sqlite;

/// Copy the store, also while the controller runs
///
/// The directory's other files change only at the first start, but for `ledger.checkpoint`: keep a copy of them, too, in a safe
/// place. A store whose ledger was edited is not copied.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The controller's directory
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/update-controller")]
    directory: PathBuf,
    /// The copy; nothing may be there yet
    to: PathBuf,
}

/// Put a copy of the store back
///
/// Rollouts that could go on are paused, and epochs begin far above those of the copy: look at the hosts, then resume.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The controller's directory; it has no store yet
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/update-controller")]
    directory: PathBuf,
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
    /// The controller's directory
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/update-controller")]
    directory: PathBuf,
}

fn refuse(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Exit::Refused, error)
}

fn say(global: &Global, what: &str, path: &std::path::Path) {
    if global.json {
        object(&serde_json::json!({ what: path }));
    } else {
        line(&format!("{what}: {}", path.display()));
    }
}

pub(super) fn backup(args: &BackupArgs, global: &Global) -> Result<(), Failure> {
    let database = args.directory.join("controller.sqlite");
    if !database.is_file() {
        return Err(refuse(format!("there is no store in {}", args.directory.display())));
    }
    let store = Sqlite::open(&database, Arc::new(SystemClock)).map_err(refuse)?;
    // A copy of what was edited would be believed later.
    Directory(args.directory.clone()).refuse_edited(&store)?;
    backup::backup(&store, &args.to).map_err(refuse)?;
    say(global, "copied", &args.to);
    Ok(())
}

pub(super) fn restore(args: &RestoreArgs, global: &Global) -> Result<(), Failure> {
    let directory = Directory::open(&args.directory)?;
    let to = directory.database();
    let (key, origin) = (directory.key()?, directory.origin()?);
    let mut kept: Vec<_> = directory.head()?.into_iter().collect();
    if let Some(path) = &args.checkpoint {
        let text = std::fs::read_to_string(path).map_err(refuse)?;
        kept.push(checkpoint::open(&text, &origin, &key.public()).map_err(refuse)?);
    }
    let restore =
        Restore { from: &args.from, to: &to, above: args.above, signed: &kept, by: args.by.clone() };
    backup::restore(&restore, Arc::new(SystemClock), key, origin).map_err(refuse)?;
    // It is of a store that went on after the copy.
    let _ = std::fs::remove_file(directory.checkpoint());
    say(global, "restored", &to);
    if !global.json {
        line("next: serve, look at the hosts (hosts list), then resume each rollout with a signed order");
    }
    Ok(())
}

pub(super) fn migrate(args: &MigrateArgs, global: &Global) -> Result<(), Failure> {
    let database = args.directory.join("controller.sqlite");
    if !database.is_file() {
        return Err(refuse(format!("there is no store in {}", args.directory.display())));
    }
    drop(Sqlite::open(&database, Arc::new(SystemClock)).map_err(refuse)?);
    say(global, "migrated", &database);
    Ok(())
}
