//! `update show`.

use std::time::Duration;

use system::exit::Failure;

use crate::cli::history::ended;
use crate::cli::output::{line, object};
use crate::cli::progress::{killed, short};
use crate::cli::{Global, failures};
use crate::operations::EngineError;
use crate::operations::story::{Direction, End, Story};

/// Tell the whole story of a transaction, with times
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  update show\n  update show 20261122-0911")]
pub(super) struct Args {
    /// Its name, or the beginning of it, as `update history` lists it; the last one by default
    transaction: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let found = match &args.transaction {
        Some(wanted) => engine.journal().transaction(wanted).map(Some),
        None => engine.journal().last(),
    };
    let Some(stored) = found.map_err(EngineError::from).map_err(failures::engine)? else {
        if global.json {
            object(&serde_json::Value::Null);
        } else {
            line("no transactions");
        }
        return Ok(());
    };
    let story = Story::of(&stored);
    if global.json {
        object(&story);
        return Ok(());
    }
    line(&format!("transaction {}: {}", story.id, story.origin));
    if let crate::state::journal::Origin::Apply { signed_by, digest, .. } = &story.origin {
        signed_by.iter().for_each(|who| line(&format!("  signed by {who}")));
        line(&format!("  manifest sha256 {digest}"));
    }
    line(&format!("  began {}, {}", story.began, ended(&stored)));
    if let Some(by) = &story.by {
        line(&format!("  begun by {by}"));
    }
    if let Some(passed) = &story.despite_hold {
        line(&format!("  begun by {} although this host was held {}", passed.by, passed.held));
    }
    if let Some(cause) = &story.cause {
        line(&format!("  went back: {cause}"));
    }
    for container in &story.given_up {
        line(&format!("  container {} went back alone: {}", container.container, container.why));
    }
    for chapter in &story.steps {
        let took = chapter.took_us.map_or_else(|| "-".to_owned(), |took| short(Duration::from_micros(took)));
        let direction = match chapter.direction {
            Direction::Do => "",
            Direction::Undo => "undo: ",
        };
        let end = match &chapter.end {
            End::Done { receipt } => receipt
                .get("note")
                .and_then(|note| note.as_str())
                .map(|note| format!("  ({note})"))
                .unwrap_or_default(),
            End::Failed { error } => format!("  FAILED: {error}"),
            End::Cut => "  CUT".to_owned(),
        };
        line(&format!("  {:>8}  {direction}{}{end}", took, chapter.title));
    }
    let micros = |value: Option<u64>| {
        value.map_or_else(|| "-".to_owned(), |value| short(Duration::from_micros(value)))
    };
    for times in &story.containers {
        line(&format!(
            "  container {}: frozen {}, down {}, back from its checkpoint after {}",
            times.container,
            micros(times.frozen_us),
            micros(times.down_us),
            micros(times.back_after_us)
        ));
    }
    for times in &story.livepatches {
        let transition =
            times.transition_ms.map_or_else(|| "-".to_owned(), |ms| short(Duration::from_millis(ms)));
        line(&format!(
            "  livepatch {}: transition {transition}, {} tasks held it back",
            times.module, times.blockers
        ));
        times.killed.iter().for_each(|blocker| line(&format!("    {}", killed(blocker))));
    }
    Ok(())
}
