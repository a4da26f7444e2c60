//! `update rollback`.

use system::exit::Failure;

use crate::cli::hold::heeding;
use crate::cli::output::{line, object};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::cli::{Global, failures};
use crate::operations::Listeners;
use crate::operations::reports::Changed;
use crate::operations::rollback::Back;

/// Undo the last committed transaction, or the named one
///
/// Livepatches are unloaded, old packages are installed again and services restarted on them,
/// containers are restarted on their old files and keep their data. The rollback is a transaction of
/// its own: if it fails, the host goes back to where it was before it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update rollback\n  update rollback 20261122-091102 --restore-checkpoint\n\nExit codes are those of update apply."
)]
pub(super) struct Args {
    /// Its name, or the beginning of it, as `update history` lists it
    transaction: Option<String>,
    /// Bring containers back from their checkpoints; memory and files since then are lost
    #[arg(long)]
    restore_checkpoint: bool,
    /// Do it although this host is held (update hold); the journal keeps who
    #[arg(long)]
    despite_hold: bool,
    /// Show what would be done and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let back = if args.restore_checkpoint { Back::Checkpoint } else { Back::Files };
    let wanted = args.transaction.as_deref();
    if args.dry_run {
        let of = engine.rollback_target(wanted).map_err(failures::engine)?;
        let plan = engine.plan_rollback(&of, back).map_err(failures::engine)?;
        super::plan::print(&plan, global);
        return Ok(());
    }
    let progress = Progress::new(global.json);
    let signals = Signals::catch();
    let listeners = Listeners {
        event: &|heard| progress.hear(heard),
        told: &|told| progress.tell(told),
        boundaries: &signals,
    };
    let driven = engine
        .rollback(wanted, back, heeding(args.despite_hold), &listeners, &|id, plan| progress.begun(id, plan))
        .map_err(failures::engine)?;
    let stored = engine
        .journal()
        .transaction(driven.id.as_str())
        .map_err(crate::operations::EngineError::from)
        .map_err(failures::engine)?;
    failures::driven(&driven, &stored)?;
    if global.json {
        object(&Changed::RolledBack { transaction: driven.id });
    } else {
        line(&format!("done: {}", stored.origin));
    }
    Ok(())
}
