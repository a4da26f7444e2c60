//! SIGINT, SIGTERM and SIGHUP become a rollback at the next step boundary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::transaction::driver::{Boundaries, Boundary, Onward};

/// Whether somebody asked to stop.
pub(super) struct Signals {
    asked: Arc<AtomicBool>,
    answer: Onward,
}

impl Signals {
    /// Turn back when asked.
    pub(super) fn catch() -> Self {
        Self::register(Onward::TurnBack)
    }

    /// Do not die of a signal, and do not turn back either.
    pub(super) fn ignore() -> Self {
        Self::register(Onward::Continue)
    }

    fn register(answer: Onward) -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&asked)) {
                tracing::warn!(signal, %error, "a signal will end the program at once; update resume cleans up");
            }
        }
        Self { asked, answer }
    }
}

impl Boundaries for Signals {
    fn reached(&self, boundary: &Boundary<'_>) -> Onward {
        #[cfg(feature = "power-cuts")]
        super::power_cuts::reached(boundary);
        let _ = boundary;
        if self.asked.load(Ordering::Relaxed) { self.answer } else { Onward::Continue }
    }
}
