//! The command line: `update-agent enrol` and `update-agent run`, also as `update enrol` and `update agent`.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use fleet::local::Membership;
use manifests::{Nonce, Sha256};
use system::exit::{Exit, Failure, State};
use system::output::{line, object};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::client::ClientError;
use crate::enrol::{EnrolError, Invitation, enrol};
use crate::executor::Executor;
use crate::identity::{Directory, Identity};
use crate::run::Agent;

/// Talk with the controllers of this host's fleet
///
/// It may do nothing: what grants let this host do, the executor verifies and does (update executor).
#[derive(Debug, Parser)]
#[command(name = "update-agent", version, max_term_width = 100)]
pub struct Cli {
    /// Print JSON, one object a line, instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Places {
    /// Where key, certificate and what was fetched are kept
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = "/var/lib/update-agent")]
    directory: PathBuf,
    /// What this host is in its fleet
    #[arg(long, global = true, value_name = "FILE", default_value = Membership::PATH)]
    settings: PathBuf,
    /// The executor's socket
    #[arg(long, global = true, value_name = "PATH", default_value = fleet::local::SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    Enrol(EnrolArgs),
    /// Poll, fetch, and tell, until it is ended
    Run,
}

/// Bring this host into a fleet
///
/// The controller's operator says all of this line: update-controller token. Run it as root.
#[derive(Debug, clap::Args)]
struct EnrolArgs {
    /// The controller, https://NAME:PORT
    controller: String,
    /// What lets this host in
    #[arg(long)]
    token: Nonce,
    /// The digest of the authority's certificate
    #[arg(long, value_name = "SHA256")]
    ca_fingerprint: Sha256,
    /// Make a new key although there is one
    #[arg(long)]
    new_key: bool,
}

impl Cli {
    /// Whether errors go out as JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Do what was asked.
    ///
    /// # Errors
    /// A [`Failure`] with its exit code, and what to do next.
    pub fn run(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Refused, error))?;
        match &self.command {
            Command::Enrol(args) => runtime.block_on(self.enrol(args)),
            Command::Run => runtime.block_on(self.poll()),
        }
    }

    fn executor(&self) -> Executor {
        Executor { socket: self.places.socket.clone() }
    }

    async fn enrol(&self, args: &EnrolArgs) -> Result<(), Failure> {
        let refuse = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Exit::Refused, error);
        let places = &self.places;
        system::durable::make_directory(&places.directory).map_err(|error| refuse(error.into()))?;
        let directory = Directory(places.directory.clone());
        let identity = if args.new_key { Identity::make(&directory) } else { Identity::open(&directory) };
        let identity = identity.map_err(|error| refuse(error.into()))?;
        let invitation =
            Invitation { controller: &args.controller, token: args.token, fingerprint: args.ca_fingerprint };
        let membership = enrol(&invitation, &directory, &identity, &self.executor(), &places.settings)
            .await
            .map_err(not_enrolled)?;
        hand_over(&directory).map_err(|error| refuse(error.into()))?;
        if self.json {
            object(&membership);
        } else {
            let groups: Vec<String> = membership.groups.iter().map(ToString::to_string).collect();
            line(&format!("this host is {} in {}", membership.host, groups.join(", ")));
            line("next: systemctl enable --now update-executor.socket update-agent.service");
        }
        Ok(())
    }

    async fn poll(&self) -> Result<(), Failure> {
        let refuse = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Exit::Refused, error);
        let path = &self.places.settings;
        let file = std::fs::File::open(path).map_err(|error| {
            refuse(format!("{}: {error}", path.display()).into())
                .next("update enrol: see update-controller token")
        })?;
        let bytes =
            manifests::bounded::read(file, Membership::MAX_BYTES).map_err(|error| refuse(error.into()))?;
        let membership = Membership::parse(&bytes).map_err(|error| refuse(error.into()))?;
        let agent = Agent::new(self.places.directory.clone(), membership, self.executor())
            .map_err(|error| refuse(error.into()).next("update enrol"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| refuse(error.into()))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| refuse(error.into()))?;
        agent
            .run(async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            })
            .await;
        Ok(())
    }
}

fn not_enrolled(error: EnrolError) -> Failure {
    let next = match &error {
        EnrolError::Client(ClientError::Reach { .. }) => {
            "see that the address is the controller's, and that --ca-fingerprint is what update-controller token says"
        }
        EnrolError::Client(ClientError::Limited { .. }) => "run the same line again after that time",
        EnrolError::Client(ClientError::Refused { .. }) => {
            "ask the operator for a new token: update-controller token"
        }
        EnrolError::Executor(_) => "start it: systemctl start update-executor.socket, or: update executor",
        _ => "mend that, and run the same line again",
    };
    let exit = match &error {
        EnrolError::Client(ClientError::Refused { .. }) => Exit::NotAuthentic,
        EnrolError::Client(ClientError::Limited { .. }) => Exit::Busy,
        _ => Exit::Refused,
    };
    Failure::new(exit, error)
        .state(State::Named("this host is in no other fleet than before; its key stays".to_owned()))
        .next(next)
}

/// Who runs the agent gets its directory, and what was written into it just now. Nothing else: whoever has the directory could
/// have put other names of root's files into it.
fn hand_over(directory: &Directory) -> Result<(), std::io::Error> {
    let Ok(Some(user)) = nix::unistd::User::from_name("update-agent") else { return Ok(()) };
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let memory = directory.0.join(crate::run::MEMORY);
    let written = [directory.key(), directory.certificate(), directory.authority(), memory];
    for path in written.iter().chain([&directory.0]) {
        let facts = std::fs::symlink_metadata(path)?;
        if facts.is_file() && facts.nlink() > 1 {
            return Err(std::io::Error::other(format!("{} has other names", path.display())));
        }
        std::os::unix::fs::lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(())
}

/// Starts logging.
pub fn log() {
    let usual = Targets::new().with_default(LevelFilter::WARN).with_target("update_agent", LevelFilter::INFO);
    system::logs::start(usual);
}
