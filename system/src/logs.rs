//! Where logs go: to the journal under systemd, else to stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging. `UPDATE_LOG` sets what, like `debug` or `updater::operations=trace`; else it is `usual`.
#[expect(clippy::disallowed_methods, reason = "what is logged does not change what is done")]
pub fn start(usual: Targets) {
    let asked = std::env::var("UPDATE_LOG").ok().and_then(|words| words.parse().ok());
    let filter: Targets = asked.unwrap_or(usual);
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let journald = under_systemd.then(tracing_journald::layer).and_then(Result::ok);
    let stderr = journald.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
    });
    tracing_subscriber::registry()
        .with(journald.map(|layer| layer.with_filter(filter.clone())))
        .with(stderr.map(|layer| layer.with_filter(filter)))
        .init();
}
