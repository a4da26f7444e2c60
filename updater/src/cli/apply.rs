//! `update apply`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use repository::bundle::Bundle;
use system::clock::{Clock as _, SystemClock};
use system::exit::Failure;

use crate::cli::hold::heeding;
use crate::cli::output::{line, object};
use crate::cli::progress::Progress;
use crate::cli::signals::Signals;
use crate::cli::{Global, failures};
use crate::operations::apply::{Applied, Quarantine, Request};
use crate::operations::carried::Carried;
use crate::operations::hold::Heeding;
use crate::operations::reports::Changed;
use crate::operations::repository::{self as by_name, Wanted};
use crate::operations::trust;
use crate::operations::{Engine, EngineError, Listeners};
use crate::state::payloads::{PayloadDirectory, PayloadSource};

/// Apply a signed manifest to this host
///
/// Verifies it, plans, and does it step by step. If a step or a probe fails, everything is undone.
/// So is an interruption (Ctrl-C, SIGTERM, SIGHUP) before the commit: waits end at once, a dump or
/// restore that is under way is finished first, and more signals change nothing. The payload files
/// are taken from the manifest's directory, or from the repository that it came from.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update apply greet-2026-001.manifest.json\n  update apply greet-2026-001@2\n  update apply greet-2026-001.upd\n  update apply greet-2026-001.manifest.json --payloads /srv/updates --json\n\nExit codes: 0 in force, 1 failed or interrupted and everything is as before, 3 refused and nothing\ntouched, 4 not authentic, 5 another transaction holds the host, 6 an operator has to decide."
)]
pub(super) struct Args {
    #[command(flatten)]
    manifest: Signed,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take it through a fleet: everything after this is update-controller apply's (--policy, --key, --as; see there)
    #[arg(long, num_args = 0.., allow_hyphen_values = true, value_name = "ARGUMENTS", conflicts_with_all = ["dry_run", "retry_quarantined", "despite_hold"])]
    fleet: Option<Vec<std::ffi::OsString>>,
    /// Load a livepatch although this host may have crashed of it; only a commit ends its quarantine
    #[arg(long)]
    retry_quarantined: bool,
    /// Do it although this host is held (update hold); the journal keeps who
    #[arg(long)]
    despite_hold: bool,
}

/// A signed manifest and what goes with it.
#[derive(Debug, clap::Args)]
pub(super) struct Signed {
    /// The signed manifest: a file, a bundle (update bundle), or its name in the repository (NAME or NAME@VERSION)
    manifest: PathBuf,
    /// Take the payload files from this directory
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
}

/// A signed manifest that was found, and where its payloads come from.
pub(super) struct Found {
    manifest: PathBuf,
    payloads: Box<dyn PayloadSource>,
    carried: Option<Arc<Carried>>,
}

impl Signed {
    /// Finds the file, or fetches it from the repository. A file that is there is meant, whatever it is called.
    pub(super) fn find(&self, engine: &Engine) -> Result<Found, Failure> {
        if self.manifest.exists() && Bundle::is_meant(&self.manifest) {
            return self.unpack(engine);
        }
        let wanted = self.manifest.to_str().and_then(|text| text.parse::<Wanted>().ok());
        if let (Some(wanted), Some(settings), false) =
            (wanted, &engine.config().repository, self.manifest.exists())
        {
            let fetched = by_name::fetch(settings, &engine.config().store, &wanted, SystemClock.now())
                .map_err(failures::repository)?;
            let floor = engine.floor().map_err(failures::engine)?;
            let policy = trust::policy_in_force(&engine.config().policy, &floor).map_err(failures::trust)?;
            by_name::fetch_proof(settings, &policy, &floor, &fetched.manifest)
                .map_err(failures::repository)?;
            if let Some(newer) = fetched.newer {
                line(&format!("note: the repository has {}@{newer}", wanted.name));
            }
            let payloads: Box<dyn PayloadSource> = match &self.payloads {
                Some(directory) => Box::new(PayloadDirectory(directory.clone())),
                None => Box::new(fetched.payloads),
            };
            return Ok(Found { manifest: fetched.manifest, payloads, carried: None });
        }
        let beside = self.manifest.parent().unwrap_or(Path::new(""));
        let beside = if beside.as_os_str().is_empty() { Path::new(".") } else { beside };
        let payloads = PayloadDirectory(self.payloads.as_deref().unwrap_or(beside).to_owned());
        Ok(Found { manifest: self.manifest.clone(), payloads: Box::new(payloads), carried: None })
    }

    fn unpack(&self, engine: &Engine) -> Result<Found, Failure> {
        let config = engine.config();
        let carried = Carried::open(&self.manifest, config, &config.store, SystemClock.now())
            .map_err(failures::carried)?;
        let carried = Arc::new(carried);
        let payloads: Box<dyn PayloadSource> = match &self.payloads {
            Some(directory) => Box::new(PayloadDirectory(directory.clone())),
            None => Box::new(carried.clone()),
        };
        Ok(Found { manifest: carried.manifest().to_owned(), payloads, carried: Some(carried) })
    }
}

impl Found {
    /// What is asked of the engine.
    pub(super) fn request(&self, quarantine: Quarantine, heeding: Heeding) -> Request<'_> {
        let along = self.carried.as_ref().map(|carried| carried.along());
        Request { manifest: &self.manifest, payloads: &*self.payloads, quarantine, heeding, along }
    }

    /// What was applied came in a bundle: what that shows of its repository is remembered.
    fn remember(&self, engine: &Engine) {
        let Some(carried) = &self.carried else { return };
        if let Err(error) = carried.remember(&engine.config().store, SystemClock.now()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the bundle's repository is not remembered"
            );
        }
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    if let Some(rest) = &args.fleet {
        return super::companions::apply(&args.manifest.manifest, rest, global);
    }
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
    let found = args.manifest.find(&engine)?;
    let request = found.request(quarantine, heeding(args.despite_hold));
    let applied =
        engine.apply(&request, &listeners, &|id, plan| progress.begun(id, plan)).map_err(failures::engine)?;
    found.remember(&engine);
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
