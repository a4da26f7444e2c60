//! The command line of the controller: serve one, and ask one.
//!
//! `serve`, `backup`, `restore` and `migrate` work on the controller's directory, and on its database if it has one; all else asks a controller that runs, as the person whose
//! account is given. `update rollout …`, `update controller …` and `update apply --fleet` come in here, too.

mod draft;
mod first_start;
mod hosts;
mod rollout;
mod serve;
mod simulate;
mod store;
mod upkeep;

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use reqwest::StatusCode;
use system::exit::{Exit, Failure, State};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::client::{Account, Client, ClientError};

/// Take a fleet through updates in waves that stop by themselves
///
/// A controller tells hosts when; what they change, for whom and how early at most, people sign and hosts verify by
/// themselves.
///
/// Exit codes: 0 done, 1 halted and rolled back, 2 usage, 3 refused with nothing changed, 4 not authentic, 5 busy,
/// 6 paused or stuck: needs an operator, 70 bug.
#[derive(Debug, Parser)]
#[command(name = "update-controller", version, max_term_width = 100)]
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
    /// Ask as this person: the file that the controller's first start, or `person`, has written
    #[arg(long = "as", global = true, value_name = "FILE", env = "UPDATE_ACCOUNT")]
    pub account: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Token(hosts::TokenArgs),
    Person(hosts::PersonArgs),
    #[command(subcommand)]
    Hosts(hosts::Hosts),
    #[command(subcommand)]
    Rollout(rollout::Command),
    Apply(rollout::ApplyArgs),
    /// Show the ledger's head, signed: keep it elsewhere now and then
    Checkpoint,
    /// Print the description of the controller's HTTP API: an OpenAPI document
    Openapi,
    Backup(upkeep::BackupArgs),
    Restore(upkeep::RestoreArgs),
    Migrate(upkeep::MigrateArgs),
    #[command(flatten)]
    Manual(manual::Manual),
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
    pub fn run(&self) -> Result<Exit, Failure> {
        let global = &self.global;
        let done = |()| Exit::Done;
        match &self.command {
            Command::Serve(args) => serve::run(args, global).map(done),
            Command::Token(args) => hosts::token(args, global).map(done),
            Command::Person(args) => hosts::person(args, global).map(done),
            Command::Hosts(command) => hosts::run(command, global).map(done),
            Command::Rollout(command) => rollout::run(command, global),
            Command::Apply(args) => rollout::apply(args, global),
            Command::Checkpoint => {
                global
                    .client()?
                    .text("/v1/checkpoint")
                    .map_err(asked)?
                    .lines()
                    .for_each(system::output::line);
                Ok(Exit::Done)
            }
            Command::Openapi => {
                crate::server::description().lines().for_each(system::output::line);
                Ok(Exit::Done)
            }
            Command::Backup(args) => upkeep::backup(args, global).map(done),
            Command::Restore(args) => upkeep::restore(args, global).map(done),
            Command::Migrate(args) => upkeep::migrate(args, global).map(done),
            Command::Manual(manual) => manual.run(Self::command()).map(done),
        }
    }
}

impl Global {
    /// A connection as the person whose account is given.
    fn client(&self) -> Result<Client, Failure> {
        let path = self.account.clone().ok_or_else(|| {
            Failure::new(Exit::Usage, "nobody asks").because("--as FILE or UPDATE_ACCOUNT", "neither").next(
                "update-controller … --as DIRECTORY/admin.yaml, which the controller's first start wrote",
            )
        })?;
        Client::new(&Account::read(&path).map_err(asked)?).map_err(asked)
    }
}

/// Why a controller did not do what was asked.
fn asked(error: ClientError) -> Failure {
    let exit = match &error {
        ClientError::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED => Exit::NotAuthentic,
        ClientError::Refused {
            status: StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS,
            ..
        } => Exit::Busy,
        ClientError::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, .. } => Exit::NeedsOperator,
        ClientError::Account { .. } | ClientError::Yaml { .. } | ClientError::Unusable { .. } => Exit::Usage,
        _ => Exit::Refused,
    };
    let needs_operator = exit == Exit::NeedsOperator;
    let unknown = matches!(error, ClientError::Reach { .. } | ClientError::Answer(_));
    let failure = Failure::new(exit, error);
    if needs_operator {
        return failure.next("look at the controller: its log, and docs/controller.md");
    }
    if unknown {
        return failure
            .state(State::Named("what was asked may have been done or not".to_owned()))
            .next("ask again; what was done once is refused, or done no second time");
    }
    failure
}

/// Starts logging.
pub fn log() {
    let usual = Targets::new().with_default(LevelFilter::WARN).with_target("controller", LevelFilter::INFO);
    system::logs::start(usual);
}
