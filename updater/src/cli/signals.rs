//! SIGINT, SIGTERM and SIGHUP become a rollback at the next step boundary.
//!
//! Waits (for a transition, a probe, the settle time) end at once, and what is frozen for the
//! transition is thawed; a dump, a restore or a start is carried to its end. More signals change
//! nothing: the way back has begun. Who cannot wait for it kills the process, and `update resume`
//! takes up from the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use system::clock::Interrupt;

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

impl Signals {
    /// While nothing is done yet, a signal ends the program even where it would not turn a transaction back.
    pub(super) fn before_anything_is_done(&self) -> impl Interrupt + use<> {
        BeforeAnything { asked: Arc::clone(&self.asked) }
    }
}

struct BeforeAnything {
    asked: Arc<AtomicBool>,
}

impl Interrupt for BeforeAnything {
    fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Interrupt for Signals {
    fn asked(&self) -> bool {
        self.answer == Onward::TurnBack && self.asked.load(Ordering::Relaxed)
    }
}

impl Boundaries for Signals {
    fn reached(&self, boundary: &Boundary<'_>) -> Onward {
        #[cfg(feature = "power-cuts")]
        super::power_cuts::reached(boundary);
        let _ = boundary;
        if self.asked() { self.answer } else { Onward::Continue }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;
    use crate::transaction::driver::Moment;
    use crate::transaction::state::Event;

    #[test]
    fn a_signal_asks_to_turn_back_and_more_of_them_change_nothing() {
        let (catching, ignoring) = (Signals::catch(), Signals::ignore());
        let boundary = Boundary { moment: Moment::AfterRecord, event: &Event::RetryDecided };
        assert!(!catching.asked());
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            raise(signal).unwrap();
            assert!(catching.asked() && !ignoring.asked(), "{signal}");
            assert_eq!(catching.reached(&boundary), Onward::TurnBack);
            assert_eq!(ignoring.reached(&boundary), Onward::Continue, "a resume goes to its end");
        }
    }
}
