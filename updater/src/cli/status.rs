//! `update status`.

use manifests::UtcTime;
use system::exit::{Exit, Failure, State};

use crate::cli::output::{line, object};
use crate::cli::resume::{DISPLACED, QUARANTINED, REVOKED};
use crate::cli::{Global, failures};
use crate::operations::standing::Standing;
use crate::operations::status::Status;

/// Show what this host has, should have, and does not load again
///
/// Exits with 6 if something is not as it should be. A livepatch for another kernel and a container that
/// was removed are as they should be, and so is a host that is being changed at this moment.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update status --json")]
pub(super) struct Args {}

pub(super) fn run(_: &Args, global: &Global) -> Result<(), Failure> {
    let status = global.engine()?.status().map_err(failures::engine)?;
    if global.json {
        object(&status);
    } else {
        print(&status);
    }
    if status.is_sound() {
        return Ok(());
    }
    Err(Failure::new(Exit::NeedsOperator, "the host is not as it should be")
        .state(State::Named("as listed above".to_owned()))
        .next(next(&status)))
}

/// What a resume cannot bring back by itself comes first.
fn next(status: &Status) -> &'static str {
    if status.standings().any(|standing| matches!(standing, Standing::Displaced { .. })) {
        return DISPLACED;
    }
    if status.standings().any(|standing| matches!(standing, Standing::Quarantined { .. })) {
        return QUARANTINED;
    }
    if status.revoked().next().is_some() {
        return REVOKED;
    }
    "update resume"
}

fn print(status: &Status) {
    let uptime = humantime::format_duration(std::time::Duration::from_secs(status.uptime_s));
    line(&format!("kernel {}, up {uptime}, boot {}", status.kernel, status.boot_id));
    match &status.no_livepatch {
        Some(why) => line(&format!("note: {why}")),
        None if status.livepatches.is_empty() => line("no livepatches"),
        None => {}
    }
    for livepatch in &status.livepatches {
        let state = match &livepatch.standing {
            Standing::InForce => "live",
            Standing::OtherKernel { .. } => "not for this kernel",
            _ => "NOT LIVE",
        };
        let why = because(&livepatch.standing) + &revoked(livepatch.revoked);
        line(&format!("livepatch {:<24} {state}  sha256 {:.12}{why}", livepatch.module, livepatch.payload));
    }
    for foreign in &status.foreign {
        line(&format!("livepatch {:<24} loaded by somebody else, {}", foreign.module, foreign.identity));
    }
    for rootfs in &status.rootfs {
        let files = match &rootfs.standing {
            Standing::InForce => "as committed",
            Standing::Gone { .. } => "gone",
            Standing::Unreadable { .. } => "UNKNOWN",
            _ => "NOT AS COMMITTED",
        };
        let running = if rootfs.running.is_some() { "running" } else { "not running" };
        let why = because(&rootfs.standing) + &revoked(rootfs.revoked);
        line(&format!("container {:<24} {running}, files {files}{why}", rootfs.container));
    }
    for quarantined in &status.quarantined {
        line(&format!("QUARANTINED {}: {}", quarantined.module, quarantined.why));
    }
    for unfinished in &status.unfinished {
        let state = if status.in_progress.is_some() { "under way:" } else { "UNFINISHED" };
        line(&format!("{state} transaction {unfinished}"));
    }
    for why in &status.unreadable {
        line(&format!("note: {why}"));
    }
    if let Some(holder) = &status.in_progress {
        line(&format!("in progress: {holder}; what is listed may be the middle of it"));
    }
}

fn revoked(since: Option<UtcTime>) -> String {
    since.map(|since| format!("  REVOKED since {since}")).unwrap_or_default()
}

fn because(standing: &Standing) -> String {
    standing.why().map(|why| format!("  ({why})")).unwrap_or_default()
}
