//! `patch-tools`: look into, check, compare, build and sign kernel livepatch modules.
//!
//! This file only turns a result into output and an exit code; the subcommands are in [`cli`].

mod cli;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;

use cli::exit::{Exit, Failure};
use manifests::text::shown;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let json = arguments.json();
    // The panic hook has already printed where; the caller's script needs the code for "bug".
    let outcome = catch_unwind(AssertUnwindSafe(|| cli::run(arguments)));
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => {
            report(&failure);
            // Who reads JSON gets one object in any case; the lines above are for the log.
            if json && let Err(failure) = cli::print_json_failure(&failure) {
                report(&failure);
            }
            failure.exit.into()
        }
        Err(_) => {
            eprintln!("error: this is a bug in patch-tools; nothing was installed or loaded");
            Exit::Bug.into()
        }
    }
}

/// Prints the failure, its causes in order, and what to do next.
fn report(failure: &Failure) {
    eprintln!("error: {}", shown(&failure.error.to_string()));
    for cause in system::error::causes(&*failure.error) {
        eprintln!("  because: {}", shown(&cause.to_string()));
    }
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
}
