//! `update status`.

use manifests::UtcTime;
use serde::Serialize;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure, State};

use crate::cli::output::{line, object};
use crate::cli::resume::{DISPLACED, QUARANTINED, REVOKED};
use crate::cli::{Global, failures, hold};
use crate::operations::Engine;
use crate::operations::repository::{self, Checked, Judge, News};
use crate::operations::standing::Standing;
use crate::operations::status::Status;

/// Show what this host has, should have, and does not load again
///
/// Exits with 6 if something is not as it should be. A livepatch for another kernel and a container that
/// was removed are as they should be, and so is a host that is being changed at this moment. Manifests that it
/// knows of by an earlier update check and that nobody applied are mentioned; nobody is asked for new ones.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update status --json")]
pub(super) struct Args {
    /// Only say whether anything here still needs this program, and exit with 3 if so: its package asks before it is removed
    #[arg(long)]
    removal: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    if args.removal {
        return removal(&engine, global);
    }
    let status = engine.status().map_err(failures::engine)?;
    let not_applied = not_applied(&engine);
    if global.json {
        object(&Report { status: &status, not_applied });
    } else {
        print(&status);
        not_applied.iter().for_each(|text| line(&mention(text)));
    }
    if status.is_sound() {
        return Ok(());
    }
    Err(Failure::new(Exit::NeedsOperator, "the host is not as it should be")
        .state(State::Named("as listed above".to_owned()))
        .next(next(&status)))
}

/// What would come of a removal, and whether it may be.
fn removal(engine: &Engine, global: &Global) -> Result<(), Failure> {
    let removal = engine.removal().map_err(failures::engine)?;
    if global.json {
        object(&removal);
    } else {
        let until_boot = removal.until_boot.iter();
        until_boot.for_each(|what| {
            line(&format!("note: {what} stays until the next boot, and is not loaded after it"))
        });
    }
    if removal.needed_by.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "this host still needs update")
        .because("nothing that needs it", removal.needed_by.join("; "))
        .next("update resume finishes what is open, update rollback gives a fix up; then remove it again"))
}

/// What is told to a program.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// Manifests that this host knows of, could take, and has not.
    not_applied: Vec<Checked>,
}

/// What this host knows of a repository, as far as that can be judged: what cannot stands in the way of no look.
fn not_applied(engine: &Engine) -> Vec<Checked> {
    let config = engine.config();
    let (Some(_), Ok(floor)) = (&config.repository, engine.floor()) else { return Vec::new() };
    let (store, policy, kernel) = (&config.store, &config.policy, engine.kernel());
    let judge = Judge { store, policy, floor: &floor, kernel, now: SystemClock.now() };
    repository::known(&judge).unwrap_or_default()
}

fn mention(Checked { name, version, accepted, severity, fixes, news }: &Checked) -> String {
    let severity = severity.map_or("", |severity| severity.as_str());
    let fixes: String = fixes.iter().flat_map(|cve| [" ", cve.as_str()]).collect();
    let since = match news {
        News::Lacking { exposed_since, .. } => format!(", issued {exposed_since}"),
        _ => String::new(),
    };
    let had = accepted.map_or_else(String::new, |had| format!("; this host has had @{had}"));
    format!("note: {name}@{version} ({severity}{fixes}{since}) is known here and was not applied{had}")
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
    if !status.held.is_free() {
        hold::lines(&status.held).iter().for_each(|text| line(text));
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
    for image in &status.images {
        let made = match &image.standing {
            Standing::InForce => "made from",
            Standing::Unreadable { .. } => "UNKNOWN whether made from",
            _ => "not made any more from",
        };
        let running = if image.running { "running" } else { "not running" };
        let why = because(&image.standing) + &revoked(image.revoked);
        let digest = image.image.sha256().to_string();
        line(&format!("container {:<24} {running}, {made} image {digest:.12}{why}", image.container));
    }
    for package in &status.packages {
        let state = match &package.standing {
            Standing::InForce => "as committed",
            Standing::Superseded { .. } => "later than committed",
            Standing::Gone { .. } => "gone",
            Standing::Unreadable { .. } => "UNKNOWN",
            _ => "NOT AS COMMITTED",
        };
        let why = because(&package.standing) + &revoked(package.revoked);
        line(&format!("package   {:<24} {} {state}{why}", package.package, package.version));
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
