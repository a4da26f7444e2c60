//! `update status`.

use super::progress::{line, object};
use super::{Global, failures};
use crate::engine::status::Status;
use crate::exit::{Exit, Failure, State};

/// Show what this host has, should have, and does not load again
///
/// Exits with 6 if something is not as it should be.
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
        .next("update resume"))
}

fn print(status: &Status) {
    let uptime = humantime::format_duration(std::time::Duration::from_secs(status.uptime_s));
    line(&format!("kernel {}, up {uptime}, boot {}", status.kernel, status.boot_id));
    if status.livepatches.is_empty() {
        line("no livepatches");
    }
    for livepatch in &status.livepatches {
        let state = if livepatch.live { "live" } else { "NOT LIVE" };
        line(&format!("livepatch {:<24} {state}  sha256 {:.12}", livepatch.module, livepatch.payload));
    }
    for foreign in &status.foreign {
        line(&format!("livepatch {:<24} loaded by somebody else", foreign.module));
    }
    for rootfs in &status.rootfs {
        let mounted = if rootfs.mounted { "as committed" } else { "NOT AS COMMITTED" };
        let running = if rootfs.running.is_some() { "running" } else { "not running" };
        line(&format!("container {:<24} {running}, files {mounted}", rootfs.container));
    }
    for quarantined in &status.quarantined {
        line(&format!("QUARANTINED {}: {}", quarantined.module, quarantined.why));
    }
    for unfinished in &status.unfinished {
        line(&format!("UNFINISHED transaction {unfinished}"));
    }
}
