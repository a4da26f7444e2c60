//! `update-controller`: see [`controller::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use controller::cli::Cli;
use system::exit::{Program, guard};

fn main() -> ExitCode {
    let cli = Cli::parse();
    controller::cli::log();
    match guard(&CONTROLLER, || cli.run()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report(cli.json());
            failure.exit().into()
        }
    }
}

const CONTROLLER: Program = Program {
    name: "update-controller",
    state_after_a_bug: "what was decided is in the ledger; hosts begin nothing that was not granted",
    next_after_a_bug: "start it again; please report the bug with the lines above",
};
