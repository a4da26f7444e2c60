//! `update executor`.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use system::clock::SystemClock;
use system::exit::{Exit, Failure};

use super::Global;
use crate::executor::{Executor, Listener, Surroundings, serve};

/// Do for the agent of this host what grants of its fleet let it do
///
/// Started by systemd when the agent asks (update-executor.socket). It answers over a Unix socket, verifies everything by this
/// host's own policy, and parses nothing else that came over a network. While this host is held (update hold), nothing of
/// the fleet begins.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Make this socket, unless systemd passes one
    #[arg(long, value_name = "PATH", default_value = fleet::local::SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Exit::Refused, error);
    let config = global.settings()?;
    let listener = Listener::open(&args.socket).map_err(|error| refuse(error.into()))?;
    let ending = Arc::new(AtomicBool::new(false));
    let (wake, waker) = UnixStream::pair().map_err(|error| refuse(error.into()))?;
    for signal in [SIGTERM, SIGINT] {
        let waker = waker.try_clone().map_err(|error| refuse(error.into()))?;
        // In this order: who is woken finds the flag.
        signal_hook::flag::register(signal, ending.clone())
            .and_then(|_| signal_hook::low_level::pipe::register(signal, waker))
            .map_err(|error| refuse(error.into()))?;
    }
    let executor = Arc::new(Executor::new(Surroundings::of(config, Arc::new(SystemClock)), ending));
    if let Err(error) = executor.take_up() {
        tracing::warn!(error, "what an earlier one left half-way is still so: update resume");
    }
    serve(&executor, &listener, &wake).map_err(|error| refuse(error.into()))
}
