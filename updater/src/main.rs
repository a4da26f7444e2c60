//! `update`: see [`updater::cli`].

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use system::exit::{Exit, Program, guard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use updater::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log();
    match guard(&UPDATE, || cli.run()) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.report(cli.json());
            failure.exit().into()
        }
    }
}

const UPDATE: Program = Program {
    name: "update",
    state_after_a_bug: "unknown; the journal holds every step that was begun",
    next_after_a_bug: "update status, then update resume; please report the bug with the lines above",
};

/// Logs go to the journal under systemd, else to stderr; `UPDATE_LOG` sets what, like `debug` or
/// `updater::operations=trace` (default: warnings).
#[expect(clippy::disallowed_methods, reason = "what is logged does not change what is done")]
fn log() {
    let asked = std::env::var("UPDATE_LOG").ok().and_then(|words| words.parse().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let journald = under_systemd.then(tracing_journald::layer).and_then(Result::ok);
    let stderr = journald.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
    });
    tracing_subscriber::registry()
        .with(journald.map(|layer| layer.with_filter(filter.clone())))
        .with(stderr.map(|layer| layer.with_filter(filter)))
        .init();
}
