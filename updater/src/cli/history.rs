//! `update history`: the transactions of this host, and the records that hold them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::chain::{ExportError as OfflineError, Exported, Head, check_exported};
use serde::Serialize;
use system::exit::{Exit, Failure};

use crate::cli::output::{line, object};
use crate::cli::progress::short;
use crate::cli::{Global, failures};
use crate::operations::export::{Cursor, Sender, Target, read_exported};
use crate::operations::reports::Entry;
use crate::operations::{Engine, EngineError};
use crate::state::chain::Sound;
use crate::state::journal::Stored;
use crate::transaction::state::Outcome;

/// How often --follow looks for more.
const LOOK: Duration = Duration::from_secs(1);

/// List the transactions of this host, oldest first; check the journal; hand its records to a log
///
/// Each record of the journal carries the hash of the one before it, and who ran the command. --verify names the first
/// record that was changed, taken away or put in another place, and exits with 4. That the end was cut off shows by a head
/// that was kept elsewhere: in a log, or in evidence of this host.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update history --json\n  update history --verify --head 42:5f1c…\n  update history --records --json >journal.jsonl\n  update history --verify --from journal.jsonl\n  update history --export journald --follow --cursor /var/lib/update/export.cursor"
)]
pub(super) struct Args {
    /// Check every record, and everything that the records are of
    #[arg(long, conflicts_with_all = ["records", "export"])]
    verify: bool,
    /// With --verify: the journal has to have had this head, which somebody kept
    #[arg(long = "head", value_name = "NUMBER:HASH", requires = "verify")]
    heads: Vec<Head>,
    /// With --verify: check exported records in this file, and not this host's journal; needs no root
    #[arg(long, value_name = "FILE", requires = "verify")]
    from: Option<PathBuf>,
    /// List the records and who wrote them; with --json also what they are of, to be kept elsewhere
    #[arg(long, conflicts_with = "export")]
    records: bool,
    /// Hand the records to journald, syslog (lines of RFC 5424), udp:ADDRESS:PORT, tcp:ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "TARGET")]
    export: Option<Target>,
    /// With --export: go on with what is recorded from now on
    #[arg(long, requires = "export")]
    follow: bool,
    /// With --export: keep in this file how far it came, and begin there
    #[arg(long, value_name = "FILE", requires = "export")]
    cursor: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    if let Some(from) = &args.from {
        return verify_exported(from, &args.heads, global);
    }
    let engine = global.engine()?;
    match &args.export {
        Some(target) => export(&engine, target, args),
        None if args.verify => verify(&engine, &args.heads, global),
        None if args.records => records(&engine, global),
        None => list(&engine, global),
    }
}

fn list(engine: &Engine, global: &Global) -> Result<(), Failure> {
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

fn verify(engine: &Engine, heads: &[Head], global: &Global) -> Result<(), Failure> {
    let checked = engine.journal().check_chain(heads);
    let sound = checked.map_err(EngineError::from).map_err(failures::engine)?;
    if global.json {
        object(&sound);
        return Ok(());
    }
    let Sound { head, since, begins, forgotten, adopted } = sound;
    line(&format!("the journal holds: {} records since {since}", head.seq));
    line(&format!("  began as {begins}"));
    if adopted > 0 {
        line(&format!(
            "  {adopted} rows are older than the chain; nothing is known of what became of them before"
        ));
    }
    if forgotten > 0 {
        line(&format!("  {forgotten} transactions were forgotten, past their time"));
    }
    line(&format!("head {head}"));
    if heads.is_empty() {
        line(
            "not proven: that its end was not cut off. Keep the head elsewhere, and give it with --head the next time",
        );
    }
    Ok(())
}

/// What a check of exported records came to.
#[derive(Debug, Serialize)]
struct Held {
    head: Head,
}

fn verify_exported(from: &Path, heads: &[Head], global: &Global) -> Result<(), Failure> {
    let bytes = read_exported(from).map_err(|error| {
        Failure::new(Exit::Refused, error).next("give a file that update history --records --json wrote")
    })?;
    let head = check_exported(&bytes, heads).map_err(|error| match error {
        OfflineError::Broken(broken) => failures::broken(broken),
        error @ OfflineError::Line { .. } => Failure::new(Exit::NotAuthentic, error)
            .next("get the records from the host anew: update history --records --json"),
    })?;
    match global.json {
        true => object(&Held { head }),
        false => line(&format!("the records hold; head {head}")),
    }
    Ok(())
}

fn records(engine: &Engine, global: &Global) -> Result<(), Failure> {
    let mut take = |exported: &Exported| {
        if global.json {
            object(exported);
        } else {
            let record = &exported.record;
            let who = serde_json::from_str::<Option<crate::state::author::Actor>>(&record.by).ok().flatten();
            let who = who.map_or_else(|| "before the chain".to_owned(), |who| who.to_string());
            let hash = record.hash;
            line(&format!(
                "{:>6}  {}  {:<11}  {}  {hash:.12}…  {who}",
                record.seq, record.at, record.kind, record.about
            ));
        }
        Ok(())
    };
    engine.export(Head::EMPTY, None, &mut take).map(drop).map_err(failures::engine)
}

fn export(engine: &Engine, target: &Target, args: &Args) -> Result<(), Failure> {
    let cursor = args.cursor.clone().map(Cursor);
    let kept =
        cursor.as_ref().map(Cursor::read).transpose().map_err(EngineError::from).map_err(failures::engine)?;
    let mut reached = kept.flatten().unwrap_or(Head::EMPTY);
    // What was handed on must still be so: the cursor is a head that lies outside of the journal.
    if reached != Head::EMPTY {
        engine.journal().check_chain(&[reached]).map_err(EngineError::from).map_err(failures::engine)?;
    }
    let mut sender = Sender::open(target.clone(), engine.host_name(), Box::new(line)).map_err(|error| {
        Failure::new(Exit::Refused, error)
            .because(format!("a log at {target}"), "none")
            .next("see that it listens there")
    })?;
    loop {
        let mut take = |exported: &Exported| sender.send(exported);
        reached = engine.export(reached, cursor.as_ref(), &mut take).map_err(failures::engine)?;
        if !args.follow {
            return Ok(());
        }
        engine.pause(LOOK);
    }
}
