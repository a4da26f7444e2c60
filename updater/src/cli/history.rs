//! `update history`.

use system::exit::Failure;

use crate::cli::output::{line, object};
use crate::cli::progress::short;
use crate::cli::{Global, failures};
use crate::operations::EngineError;
use crate::operations::reports::Entry;
use crate::state::journal::Stored;
use crate::transaction::state::Outcome;

/// List the transactions of this host, oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update history --json")]
pub(super) struct Args {}

pub(super) fn run(_: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let all = engine.journal().all().map_err(EngineError::from).map_err(failures::engine)?;
    if all.is_empty() && !global.json {
        line("no transactions");
    }
    for stored in &all {
        let entry = Entry::of(stored);
        if global.json {
            object(&entry);
        } else {
            let took = short(entry.until.duration_since(entry.began).unsigned_abs());
            let began = stored.began.strftime("%Y-%m-%d %H:%M:%S");
            line(&format!("{}  {began}  {:>8}  {:<11}  {}", stored.id, took, ended(stored), stored.origin));
        }
    }
    Ok(())
}

pub(super) fn ended(stored: &Stored) -> &'static str {
    match stored.outcome() {
        Some(Outcome::Committed) => "committed",
        Some(Outcome::RolledBack) => "rolled back",
        None => "UNFINISHED",
    }
}
