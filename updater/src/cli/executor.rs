//! `update executor`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use system::clock::SystemClock;
use system::exit::{Exit, Failure};

use super::Global;
use crate::executor::{Executor, Surroundings, serve, socket};

/// Do for the agent of this host what grants of its fleet let it do
///
/// Started by systemd when the agent asks (update-executor.socket). It answers over a Unix socket, verifies everything by this
/// host's own policy, and parses nothing else that came over a network. While /etc/update/hold is there, nothing
/// of the fleet begins.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Make this socket, unless systemd passes one
    #[arg(long, value_name = "PATH", default_value = fleet::local::SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Exit::Refused, error);
    let config = global.settings()?;
    let listener = socket(&args.socket).map_err(|error| refuse(error.into()))?;
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, ending.clone()).map_err(|error| refuse(error.into()))?;
    }
    let executor = Arc::new(Executor::new(Surroundings::of(config, Arc::new(SystemClock)), ending));
    serve(&executor, &listener).map_err(|error| refuse(error.into()))
}
