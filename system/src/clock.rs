//! Time, as a trait, so that waiting can be simulated.
//!
//! [`Clock::elapsed`] never goes backwards and goes on while the machine is suspended; it is for
//! deadlines. [`Clock::now`] is the wall clock; it is for people and for expiry, and may jump.

use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Reads time and waits.
pub trait Clock {
    /// Time since an arbitrary fixed point of this boot (`CLOCK_BOOTTIME`).
    fn elapsed(&self) -> Duration;
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Waits at least this long.
    fn sleep(&self, duration: Duration);
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        // CLOCK_BOOTTIME exists since Linux 2.6.39 and reading a clock that exists cannot fail;
        // zero would merely make every deadline run out late.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else waits with")]
    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// Somebody who may want a wait to end before its time: an operator, by a signal.
pub trait Interrupt {
    /// Whether that was asked.
    fn asked(&self) -> bool;
}

/// Nobody: for ways back, which are walked to their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uninterrupted;

impl Interrupt for Uninterrupted {
    fn asked(&self) -> bool {
        false
    }
}

/// Waits that begin short and grow to a ceiling: nothing is lost when the answer comes at once, and
/// little is spent when it does not.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Begins at `first`, and grows by half each time up to `ceiling`.
    #[must_use]
    pub fn new(first: Duration, ceiling: Duration) -> Self {
        Self { next: first, ceiling }
    }

    /// Waits once.
    pub fn wait(&mut self, clock: &dyn Clock) {
        clock.sleep(self.step());
    }

    /// The next wait, without waiting.
    pub fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (now + now / 2).min(self.ceiling);
        now
    }
}

/// Serialises a [`Duration`] as a whole number of milliseconds.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes milliseconds, saturating.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_starts_short_and_stops_growing_at_its_ceiling() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
        let steps: Vec<Duration> = std::iter::repeat_with(|| backoff.step()).take(12).collect();
        assert_eq!(steps[0], Duration::from_millis(1));
        assert!(steps.is_sorted());
        assert_eq!(steps[11], Duration::from_millis(20));
    }

    #[test]
    fn the_machine_clock_does_not_go_backwards() {
        let first = SystemClock.elapsed();
        assert!(first > Duration::ZERO);
        assert!(SystemClock.elapsed() >= first);
    }
}
