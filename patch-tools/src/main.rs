//! `patch-tools`: look into, check, compare, build and sign kernel livepatch modules.
//!
//! This file only turns a result into output and an exit code; the subcommands are in [`cli`].

mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use system::exit::{Program, guard};

const PATCH_TOOLS: Program = Program {
    name: "patch-tools",
    state_after_a_bug: "nothing was installed or loaded",
    next_after_a_bug: "please report the bug with the lines above",
};

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let json = arguments.json();
    match guard(&PATCH_TOOLS, || cli::run(arguments)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report(json);
            failure.exit().into()
        }
    }
}
