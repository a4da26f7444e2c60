//! The command line: declares the subcommands and hands over to them.
//!
//! One file per subcommand; the doc comment of its `Args` is its help text. To add one: a `mod` line, a
//! variant of [`Command`], an arm in [`run`]. A subcommand returns the [`Exit`] it reached or a
//! [`Failure`]; it prints results to standard output itself and never calls `exit`.

mod build;
mod check;
mod diff;
pub(crate) mod file;
mod inspect;
mod lint;
mod output;
mod progress;
mod release;
mod sign;
mod sign_module;
mod summary;
mod verify;

use clap::{CommandFactory as _, Parser, Subcommand};

use system::exit::{Exit, Failure};

/// Look into, check, compare, build and sign kernel livepatch modules
#[derive(Debug, Parser)]
#[command(name = "patch-tools", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Check(check::Args),
    Sign(sign::Args),
    SignModule(sign_module::Args),
    Diff(diff::Args),
    Build(build::Args),
    Release(release::Args),
    Verify(verify::Args),
    Lint(lint::Args),
    #[command(flatten)]
    Manual(manual::Manual),
}

impl Arguments {
    /// Whether the caller is a program that reads JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::Inspect(args) => args.json,
            Command::Check(args) => args.json,
            Command::Sign(args) => args.json,
            Command::SignModule(args) => args.json,
            Command::Diff(args) => args.json,
            Command::Build(args) => args.json,
            Command::Release(args) => args.json,
            Command::Verify(args) => args.json,
            Command::Lint(args) => args.json,
            Command::Manual(_) => false,
        }
    }
}

/// Runs the chosen subcommand.
pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::SignModule(args) => sign_module::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Manual(manual) => manual.run(Arguments::command()).map(|()| Exit::Done),
    }
}
