//! `update apply`.

use std::path::{Path, PathBuf};

use system::exit::Failure;

use crate::cli::output::{line, object};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::cli::{Global, failures};
use crate::operations::apply::{Applied, Quarantine, Request};
use crate::operations::reports::Changed;
use crate::operations::{EngineError, Listeners};
use crate::state::payloads::PayloadDirectory;

/// Apply a signed manifest to this host
///
/// Verifies it, plans, and does it step by step. If a step or a probe fails, everything is undone.
/// So is an interruption (Ctrl-C, SIGTERM, SIGHUP) before the commit: waits end at once, a dump or
/// restore that is under way is finished first, and more signals change nothing. The payload files
/// are taken from the manifest's directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update apply greet-2026-001.manifest.json\n  update apply greet-2026-001.manifest.json --payloads /srv/updates --json\n\nExit codes: 0 in force, 1 failed or interrupted and everything is as before, 3 refused and nothing\ntouched, 4 not authentic, 5 another transaction holds the host, 6 an operator has to decide."
)]
pub(super) struct Args {
    #[command(flatten)]
    manifest: Signed,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Load a livepatch although this host may have crashed of it; only a commit ends its quarantine
    #[arg(long)]
    retry_quarantined: bool,
}

/// A signed manifest and what goes with it.
#[derive(Debug, clap::Args)]
pub(super) struct Signed {
    /// The signed manifest
    manifest: PathBuf,
    /// Take the payload files from this directory
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
}

impl Signed {
    /// Where the payload files are.
    pub(super) fn payloads(&self) -> PayloadDirectory {
        let beside = self.manifest.parent().unwrap_or(Path::new(""));
        let beside = if beside.as_os_str().is_empty() { Path::new(".") } else { beside };
        PayloadDirectory(self.payloads.as_deref().unwrap_or(beside).to_owned())
    }

    /// What is asked of the engine.
    pub(super) fn request<'a>(
        &'a self,
        payloads: &'a PayloadDirectory,
        quarantine: Quarantine,
    ) -> Request<'a> {
        Request { manifest: &self.manifest, payloads, quarantine }
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let quarantine = if args.retry_quarantined { Quarantine::Retry } else { Quarantine::Heed };
    if args.dry_run {
        return super::plan::show(&args.manifest, quarantine, global);
    }
    let engine = global.engine()?;
    let progress = Progress::new(global.json);
    let signals = Signals::catch();
    let listeners = Listeners {
        event: &|heard| progress.hear(heard),
        told: &|told| progress.tell(told),
        boundaries: &signals,
    };
    let payloads = args.manifest.payloads();
    let request = args.manifest.request(&payloads, quarantine);
    let applied =
        engine.apply(&request, &listeners, &|id, plan| progress.begun(id, plan)).map_err(failures::engine)?;
    if let Applied::Transaction { driven, .. } = &applied {
        let stored = engine
            .journal()
            .transaction(driven.id.as_str())
            .map_err(EngineError::from)
            .map_err(failures::engine)?;
        failures::driven(driven, &stored)?;
    }
    match &applied {
        Applied::Nothing(plan) => super::plan::print(plan, global),
        Applied::Transaction { origin, plan, driven } if !global.json => {
            line(&format!("done: {origin} is in force; update rollback undoes it"));
            for id in plan.skipped() {
                line(&format!("but container {id} was skipped, and goes on running what it replaces"));
            }
            for container in &driven.given_up {
                line(&format!(
                    "but container {} failed and went back alone: it goes on running what it replaces ({})",
                    container.container, container.why
                ));
            }
        }
        Applied::Transaction { .. } => {}
    }
    if global.json {
        object(&Changed::by_apply(&applied));
    }
    Ok(())
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
