//! `update-agent`: see [`update_agent::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use system::exit::{Exit, Program, guard};
use update_agent::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::log();
    match guard(&AGENT, || cli.run()) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.report(cli.json());
            failure.exit().into()
        }
    }
}

const AGENT: Program = Program {
    name: "update-agent",
    state_after_a_bug: "this host is as its journal says; the agent changes nothing by itself",
    next_after_a_bug: "start it again; please report the bug with the lines above",
};
