//! `update hold` and `update unhold`.

use system::exit::Failure;

use crate::cli::output::{line, object};
use crate::cli::{Global, failures};
use crate::operations::hold::{Heeding, Held, PutOn, Reason, TakenOff, Until};

/// Keep this host as it is for a while, or show what keeps it so
///
/// Until it ends nothing new begins here: no apply and no rollback, by command or for the fleet, which is told that the
/// host is held. What is under way goes on to its end, update resume ends what was interrupted, and a boot brings back
/// what is in force. A hold ends by itself, lasts at most 90 days, and outlives boots; another one takes its place.
/// --despite-hold of apply and rollback goes past it, and the journal keeps who did. A file /etc/update/hold holds a
/// host in the same way, for as long as it is there.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update hold --until 4h --reason 'the fair'\n  update hold --until 2026-12-27T08:00:00Z --reason 'end of year, ticket 4711'\n  update hold"
)]
pub(super) struct Args {
    /// When it ends: a time (RFC 3339), or after how long (4h, 7d)
    #[arg(long, value_name = "TIME", requires = "reason")]
    until: Option<Until>,
    /// Why, in a line, for whoever finds the host held
    #[arg(long, value_name = "TEXT", requires = "until")]
    reason: Option<Reason>,
}

/// End the hold of this host before its time
///
/// Who did is kept in the journal. That there is none is as good.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update unhold")]
pub(super) struct Unhold {}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let (Some(until), Some(reason)) = (args.until, &args.reason) else {
        let held = engine.held().map_err(failures::engine)?;
        if global.json {
            object(&held);
        } else {
            lines(&held).iter().for_each(|text| line(text));
        }
        return Ok(());
    };
    let put_on = engine.put_hold(until, reason).map_err(failures::engine)?;
    if global.json {
        object(&put_on);
        return Ok(());
    }
    let PutOn { held, replaced, under_way } = put_on;
    lines(&held).iter().for_each(|text| line(text));
    if let Some(replaced) = replaced {
        line(&format!("in place of the hold {replaced}"));
    }
    if let Some(holder) = under_way {
        line(&format!("note: {holder} had begun, and goes on to its end"));
    }
    Ok(())
}

pub(super) fn unhold(_: &Unhold, global: &Global) -> Result<(), Failure> {
    let taken_off = global.engine()?.take_hold_off().map_err(failures::engine)?;
    if global.json {
        object(&taken_off);
        return Ok(());
    }
    let TakenOff { ended, held } = taken_off;
    line(&ended.map_or_else(|| "there was no hold".to_owned(), |hold| format!("ended the hold {hold}")));
    if !held.is_free() {
        lines(&held).iter().for_each(|text| line(text));
    }
    Ok(())
}

/// What a hold means, by `--despite-hold`.
pub(super) fn heeding(despite_hold: bool) -> Heeding {
    if despite_hold { Heeding::Despite } else { Heeding::Heed }
}

/// What holds a host, for a person.
pub(super) fn lines(held: &Held) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(in_force) = &held.hold {
        lines.push(format!("HELD {}", in_force.hold));
        lines.push(format!("     {} left; update unhold ends it", in_force.left()));
    }
    if let Some(file) = &held.file {
        lines.push(format!("HELD for as long as {} is there", file.display()));
    }
    if lines.is_empty() {
        lines.push("not held".to_owned());
    }
    lines
}
