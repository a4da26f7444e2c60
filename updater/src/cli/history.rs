//! `update history`.

use serde_json::json;
use system::exit::Failure;

use crate::cli::progress::{line, object, short};
use crate::cli::{Global, failures};
use crate::operations::EngineError;
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
        let until = stored.events.last().map_or(stored.began, |recorded| recorded.at);
        if global.json {
            object(&json!({
                "id": stored.id, "origin": stored.origin, "began": stored.began, "until": until,
                "outcome": stored.outcome(),
            }));
        } else {
            let took = short(until.duration_since(stored.began).unsigned_abs());
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
