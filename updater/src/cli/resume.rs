//! `update resume`.

use system::exit::{Exit, Failure, State};
use system::lock::Turn;

use crate::cli::output::{Page, object, page};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::cli::{Global, failures};
use crate::operations::reports::{Changed, Marked, ResumeReport};
use crate::operations::resume::{Became, Resumed};
use crate::operations::{Engine, EngineError, Listeners};
use crate::transaction::driver::Reached;
use crate::transaction::state::Outcome;

/// Finish or undo what an interruption left, and re-apply what the host should have
///
/// A transaction that was not committed is rolled back, one that was is finished. Then missing
/// livepatches are loaded and committed root file systems mounted. Safe to repeat; update-resume.service
/// runs it at boot.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  update resume\n\nExit code 6 when something is left that only an operator can decide; it is named."
)]
pub(super) struct Args {
    /// Say that this is the run at boot: it waits for its turn if another command holds the host
    #[arg(long)]
    boot: bool,
    /// Only note that the host is shutting down in order
    #[arg(long, conflicts_with_all = ["boot", "survived"])]
    stopping: bool,
    /// Only clear the livepatches that the host has run for long enough
    #[arg(long, conflicts_with = "boot")]
    survived: bool,
    /// Only remove checkpoints and other files of updates that are past their retention
    #[arg(long, conflicts_with_all = ["boot", "survived", "stopping"])]
    collect: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    if args.stopping || args.survived {
        let marked = if args.stopping { engine.mark_stopping() } else { engine.mark_survived() };
        let marked = marked.map_err(failures::engine)?;
        if global.json {
            object(&Marked { marked });
        }
        return Ok(());
    }
    if args.collect {
        engine.collect().map_err(failures::engine)?;
        if global.json {
            object(&Changed::Collected);
        }
        return Ok(());
    }
    let progress = Progress::new(global.json);
    // A resume is not turned back: it only ever goes to the end that the journal says.
    let signals = Signals::ignore();
    let listeners = Listeners {
        event: &|heard| progress.hear(heard),
        told: &|told| progress.tell(told),
        boundaries: &signals,
    };
    // At boot others may come first, such as a timer that is due; an operator decides what to do about them.
    let turn = match args.boot {
        true => Turn::Wait {
            interrupt: &signals.before_anything_is_done(),
            told: &|holder| progress.waiting_for(holder),
        },
        false => Turn::Now,
    };
    let resumed = engine.resume(turn, &listeners).map_err(failures::engine)?;
    if global.json {
        object(&ResumeReport::of(&resumed));
    } else {
        page(&render(&resumed));
    }
    outcome(&engine, &resumed)
}

/// What is left that only an operator can decide.
fn outcome(engine: &Engine, resumed: &Resumed) -> Result<(), Failure> {
    if !resumed.needs_operator() {
        return Ok(());
    }
    let mut left: Vec<String> = Vec::new();
    for driven in &resumed.transactions {
        if let Reached::NeedsOperator(_) = driven.reached {
            let stored = engine
                .journal()
                .transaction(driven.id.as_str())
                .map_err(EngineError::from)
                .map_err(failures::engine)?;
            left.extend(stored.stuck().into_iter().map(|(title, error)| format!("{title}: {error}")));
        }
    }
    left.extend(resumed.baseline.iter().filter_map(|item| match &item.became {
        Became::Failed { why } => Some(format!("{}: {why}", item.what)),
        Became::Displaced { why } => Some(format!("{}: {why}", item.what)),
        Became::Quarantined { .. } => Some(format!("{} is in quarantine and not loaded", item.what)),
        Became::Revoked { since } => {
            Some(format!("{} was revoked at {since} and is not brought back", item.what))
        }
        _ => None,
    }));
    let any = |wanted: fn(&Became) -> bool| resumed.baseline.iter().any(|item| wanted(&item.became));
    let next = if any(|became| matches!(became, Became::Displaced { .. })) {
        DISPLACED
    } else if any(|became| matches!(became, Became::Quarantined { .. })) {
        QUARANTINED
    } else if any(|became| matches!(became, Became::Revoked { .. })) {
        REVOKED
    } else {
        "mend the cause, then update resume"
    };
    Err(Failure::new(Exit::NeedsOperator, "something is left that this program cannot decide")
        .state(State::Named(left.join("; ")))
        .next(next))
}

/// What to do about a container on other files.
pub(super) const DISPLACED: &str = "where it is a container: stop the container, unmount what is on its root file system, update resume, start it; update rollback gives the fix up; where it is a livepatch: unload the other module of its name, update resume; where it is a package: finish what dpkg has begun, or install the committed or a later version";

/// What to do about a livepatch in quarantine.
pub(super) const QUARANTINED: &str = "look into the crash; update apply --retry-quarantined loads the livepatch once more, update rollback gives it up";

/// What to do about something that was revoked.
pub(super) const REVOKED: &str =
    "update rollback gives it up; or update apply the manifest that takes its place";

/// For people: what was found, and what was done and why.
fn render(resumed: &Resumed) -> Page {
    let mut text = Page::default();
    if resumed.thawed > 0 {
        let _ =
            writeln!(text, "thawed {} control groups that an interrupted update had frozen", resumed.thawed);
    }
    for driven in &resumed.transactions {
        let became = match &driven.reached {
            Reached::Ended(Outcome::Committed) => "finished: the host is in the new state",
            Reached::Ended(Outcome::RolledBack) => "rolled back: the host is in the old state",
            Reached::NeedsOperator(_) => "NEEDS AN OPERATOR",
        };
        let _ = writeln!(text, "transaction {} {became}", driven.id);
    }
    let told = |module: &str| resumed.baseline.iter().any(|item| item.what == format!("livepatch {module}"));
    for entry in resumed.quarantined.iter().filter(|entry| !told(entry.module.as_str())) {
        let _ = writeln!(text, "QUARANTINED {}: {}", entry.module, entry.why);
    }
    for item in &resumed.baseline {
        let became = match &item.became {
            Became::Present => "present".to_owned(),
            Became::Reapplied => "re-applied".to_owned(),
            Became::LeftAlone { why } => format!("left alone: {why}"),
            Became::Quarantined { why } => format!("QUARANTINED: {why}"),
            Became::Revoked { since } => format!("NOT BROUGHT BACK: revoked since {since}"),
            Became::Displaced { why } => format!("NOT AS COMMITTED: {why}"),
            Became::Failed { why } => format!("FAILED: {why}"),
        };
        let _ = writeln!(text, "{}: {became}", item.what);
    }
    if resumed.transactions.is_empty() && resumed.baseline.is_empty() {
        let _ = writeln!(text, "nothing to resume");
    }
    text
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
