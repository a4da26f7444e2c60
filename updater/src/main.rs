//! `update`: see [`updater::cli`].

use std::process::ExitCode;

use clap::Parser;
use system::exit::{Exit, Program, guard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use updater::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    system::logs::start(Targets::new().with_default(LevelFilter::WARN));
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
