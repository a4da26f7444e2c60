//! The command line: one file for each subcommand; this file only declares and dispatches.
//!
//! A subcommand's `Args` is its grammar and its help, its `run` does it. Results go to stdout, for a person
//! or with `--json` as one JSON object a line; errors are values of [`Failure`], printed once by `main`.

mod apply;
mod bundle;
mod check;
mod companions;
mod evidence;
mod executor;
pub(crate) mod failures;
mod history;
mod hold;
mod kernel;
mod key;
mod log;
mod plan;
mod policy;
#[cfg(feature = "power-cuts")]
pub(crate) mod power_cuts;
mod progress;
mod repo;
mod resume;
mod rollback;
mod scan;
mod show;
mod signals;
mod status;
mod verify;
mod verify_text;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use fleet::local::Membership;
use manual::Manual;
use system::exit::Failure;
use system::output;

use crate::config::{self, Config};
use crate::operations::Engine;

/// Fix a running Linux host without a reboot
///
/// A signed manifest says what changes. update proves who signed it, loads kernel livepatches,
/// installs packages, restarts the affected services, and containers under a checkpoint, and can undo
/// all of it.
///
/// Exit codes: 0 done, 1 failed and everything was restored, 2 usage, 3 refused with nothing
/// touched, 4 not authentic, 5 busy, 6 needs an operator, 70 bug.
#[derive(Debug, Parser)]
#[command(name = "update", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
pub struct Global {
    /// Print JSON, one object a line, instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Read the configuration from this file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Args),
    Evidence(evidence::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Check(check::Args),
    Rollback(rollback::Args),
    Status(status::Args),
    History(history::Args),
    Show(show::Args),
    Scan(scan::Args),
    Resume(resume::Args),
    Hold(hold::Args),
    Unhold(hold::Unhold),
    Kernel(kernel::Args),
    Key(key::Args),
    Policy(policy::Args),
    Repo(repo::Args),
    Log(log::Args),
    Bundle(bundle::Args),
    Executor(executor::Args),
    /// Talk with this fleet's controllers (update-agent run)
    #[command(disable_help_flag = true)]
    Agent(companions::Args),
    /// Bring this host into a fleet (update-agent enrol)
    #[command(disable_help_flag = true)]
    Enrol(companions::Args),
    /// Take a manifest through a fleet in waves (update-controller rollout)
    #[command(disable_help_flag = true)]
    Rollout(companions::Args),
    /// Serve a fleet and say who is in it (update-controller)
    #[command(disable_help_flag = true)]
    Controller(companions::Args),
    #[command(flatten)]
    Manual(Manual),
}

impl Cli {
    /// Whether errors go out as JSON.
    pub fn json(&self) -> bool {
        self.global.json
    }

    /// Do what was asked.
    ///
    /// # Errors
    /// A [`Failure`] with its exit code, and what to do next.
    pub fn run(&self) -> Result<(), Failure> {
        let global = &self.global;
        match &self.command {
            Command::Verify(args) => verify::run(args, global),
            Command::Evidence(args) => evidence::run(args, global),
            Command::Plan(args) => plan::run(args, global),
            Command::Apply(args) => apply::run(args, global),
            Command::Check(args) => check::run(args, global),
            Command::Rollback(args) => rollback::run(args, global),
            Command::Status(args) => status::run(args, global),
            Command::History(args) => history::run(args, global),
            Command::Show(args) => show::run(args, global),
            Command::Scan(args) => scan::run(args, global),
            Command::Resume(args) => resume::run(args, global),
            Command::Hold(args) => hold::run(args, global),
            Command::Unhold(args) => hold::unhold(args, global),
            Command::Kernel(args) => kernel::run(args, global),
            Command::Key(args) => key::run(args, global),
            Command::Policy(args) => policy::run(args, global),
            Command::Repo(args) => repo::run(args, global),
            Command::Log(args) => log::run(args, global),
            Command::Bundle(args) => bundle::run(args, global),
            Command::Executor(args) => executor::run(args, global),
            Command::Agent(args) => companions::run("update-agent", &["run"], args, global),
            Command::Enrol(args) => companions::run("update-agent", &["enrol"], args, global),
            Command::Rollout(args) => companions::run("update-controller", &["rollout"], args, global),
            Command::Controller(args) => companions::run("update-controller", &[], args, global),
            Command::Manual(pages @ Manual::Man { .. }) => pages.run(companions::left_out(Self::command())),
            Command::Manual(completions) => completions.run(Self::command()),
        }
    }
}

impl Global {
    /// The settings in force. A host that is in a fleet is in the groups of its token, too.
    pub(crate) fn settings(&self) -> Result<Config, Failure> {
        let config = Config::load(self.config.as_deref()).map_err(failures::config)?;
        let membership = config::membership(Path::new(Membership::PATH)).map_err(failures::config)?;
        Ok(config.and_in(membership.as_ref().map_or(&[], |membership| &membership.groups)))
    }

    /// The host's engine.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        Engine::open(self.settings()?).map_err(failures::engine)
    }
}

#[cfg(test)]
mod grammar_tests;
#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
