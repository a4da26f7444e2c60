//! Holds: an operator's word that this host stays as it is for a while.
//!
//! While one is in force nothing new begins: no apply, no rollback, whether by command or for the fleet. Four things go on,
//! because the host would be worse off without them, or is not changed by them:
//!
//! - what was under way when the hold began goes on to its end;
//! - a resume ends what was interrupted: half-way is not a state to stay in;
//! - what the host has committed to is in force again after a boot: without it the boot would be the change;
//! - looking, planning, policies, revocations, and collecting what nobody needs any more.
//!
//! An operator goes past a hold by saying so; who did is in the journal, with the transaction. The file [`FILE`] holds a host
//! in the same way, for as long as it is there: for those who manage files.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Timestamp, Unit};
use serde::Serialize;
use system::lock::{HostLock, Looked};

use crate::operations::{Engine, EngineError};
use crate::plan::Plan;
use crate::state::author::Author;
use crate::state::hold::{self, Hold, InForce, Moment, Passed};

/// While this file is there, the host is held.
pub const FILE: &str = "/etc/update/hold";

/// The longest hold. Whoever needs the host to stay as it is for longer says so again: a hold that is forgotten keeps fixes out.
pub const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// The most characters of a reason.
const LONGEST_REASON: usize = 300;

/// What a hold means to an operation that changes the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heeding {
    /// It is refused.
    Heed,
    /// It goes on, since an operator says so, and the journal keeps who.
    Despite,
}

/// When a hold is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At this time.
    At(Timestamp),
    /// After this long.
    For(Duration),
}

/// A text that is neither a time nor a duration.
#[derive(Debug, thiserror::Error)]
#[error("expected a time such as 2026-12-24T18:00:00Z, or how long, such as 4h or 7d")]
pub struct UntilError;

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Self, UntilError> {
        if let Ok(length) = humantime::parse_duration(text) {
            return Ok(Self::For(length));
        }
        text.parse().map(Self::At).map_err(|_| UntilError)
    }
}

/// Why a host is held: one line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

/// A text that is no reason.
#[derive(Debug, thiserror::Error)]
#[error("expected one line of 1 to {LONGEST_REASON} characters")]
pub struct ReasonError;

impl FromStr for Reason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Self, ReasonError> {
        let text = text.trim();
        let fits =
            (1..=LONGEST_REASON).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(ReasonError) }
    }
}

/// A hold that cannot be put on, or one that stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It would be over already.
    #[error("a hold until {until} would be over: it is {now}")]
    Over {
        /// When it was to end.
        until: Timestamp,
        /// The host's clock.
        now: Timestamp,
    },
    /// It would last longer than one may.
    #[error("a hold lasts at most {} days", LONGEST.as_secs() / 86_400)]
    TooLong {
        /// When it was to end; nothing if there is no such time.
        until: Option<Timestamp>,
    },
    /// The host is held.
    #[error("this host is held {0}")]
    Held(Held),
}

/// What holds a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The hold that `update hold` put on; `null` if there is none.
    pub hold: Option<HoldInForce>,
    /// The file that holds the host; `null` if it is not there.
    pub file: Option<PathBuf>,
}

/// A hold that is in force, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldInForce {
    /// The hold.
    #[serde(flatten)]
    pub hold: Hold,
    /// How long it lasts yet at most, in seconds.
    pub left_s: u64,
}

impl Held {
    /// Whether nothing does.
    pub fn is_free(&self) -> bool {
        self.hold.is_none() && self.file.is_none()
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(held) = &self.hold {
            write!(f, "{}", held.hold)?;
        }
        match (&self.file, self.hold.is_some()) {
            (Some(file), true) => write!(f, "; and for as long as {} is there", file.display()),
            (Some(file), false) => write!(f, "for as long as {} is there", file.display()),
            (None, _) => Ok(()),
        }
    }
}

impl HoldInForce {
    /// How long it lasts yet, for a person: in days and hours, or less.
    pub fn left(&self) -> String {
        let (days, hours, minutes) = (self.left_s / 86_400, self.left_s / 3600 % 24, self.left_s / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => format!("{}s", self.left_s),
            (0, 0, _) => format!("{minutes}min"),
            (0, ..) => format!("{hours}h {minutes}min"),
            _ => format!("{days}d {hours}h"),
        }
    }
}

/// What became of a hold that was put on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutOn {
    /// What holds the host now.
    #[serde(flatten)]
    pub held: Held,
    /// The hold in whose place it is.
    pub replaced: Option<Hold>,
    /// What had begun before, and goes on to its end.
    pub under_way: Option<String>,
}

/// What became of a hold that was taken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenOff {
    /// The hold that was in force.
    pub ended: Option<Hold>,
    /// What holds the host still.
    #[serde(flatten)]
    pub held: Held,
}

impl Engine {
    /// What holds this host.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn held(&self) -> Result<Held, EngineError> {
        let in_force = hold::in_force(&self.journal(), &self.moment())?;
        let hold = in_force.map(|InForce { hold, left }| HoldInForce { hold, left_s: left.as_secs() });
        let file = Some(&self.host.hold_file).filter(|file| file.exists()).cloned();
        Ok(Held { hold, file })
    }

    /// Puts a hold on this host, in the place of one that there may be. It does not wait for what is under way: who holds
    /// the host's lock now had looked before.
    ///
    /// # Errors
    /// [`HoldError::Over`], [`HoldError::TooLong`], [`EngineError::Journal`], [`EngineError::Lock`].
    pub fn put_hold(&self, until: Until, reason: &Reason) -> Result<PutOn, EngineError> {
        let moment = self.moment();
        // People write whole seconds, and read them.
        let now = moment.now.round(Unit::Second).unwrap_or(moment.now);
        let until = match until {
            Until::At(until) => until,
            Until::For(length) => now.checked_add(length).map_err(|_| HoldError::TooLong { until: None })?,
        };
        match Duration::try_from(until.duration_since(now)) {
            Ok(length) if length > LONGEST => return Err(HoldError::TooLong { until: Some(until) }.into()),
            Ok(length) if !length.is_zero() => {}
            _ => return Err(HoldError::Over { until, now }.into()),
        }
        let hold = Hold { until, since: now, reason: reason.0.clone(), by: Author::current() };
        let replaced = hold::put(&mut self.journal(), &hold, &moment)?;
        // In this order: whoever takes the lock from here on finds the hold.
        let under_way = match HostLock::look(&self.config.store)? {
            Looked::Held { holder } => Some(holder),
            Looked::Free(_) => None,
        };
        Ok(PutOn { held: self.held()?, replaced, under_way })
    }

    /// Ends the hold of this host; that there is none is as good.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn take_hold_off(&self) -> Result<TakenOff, EngineError> {
        let ended = hold::end(&mut self.journal(), &Author::current(), &self.moment())?;
        Ok(TakenOff { ended, held: self.held()? })
    }

    /// Nothing new begins on a host that is held; for whoever holds its lock. Gives what an operator went past.
    pub(super) fn expect_not_held(&self, heeding: Heeding) -> Result<Option<Passed>, EngineError> {
        self.count_hold();
        let held = self.held()?;
        match heeding {
            _ if held.is_free() => Ok(None),
            Heeding::Heed => Err(HoldError::Held(held).into()),
            Heeding::Despite => Ok(Some(Passed { held: held.to_string(), by: Author::current() })),
        }
    }

    /// A plan that says that it would be refused.
    pub(super) fn with_hold(&self, mut plan: Plan) -> Result<Plan, EngineError> {
        let held = self.held()?;
        if !held.is_free() {
            plan.notes.push(format!("this host is held {held}; only with --despite-hold is it done"));
        }
        Ok(plan)
    }

    /// Keeps how much of a hold is over. What cannot be kept now is counted again in this boot.
    pub(super) fn count_hold(&self) {
        if let Err(error) = hold::count(&mut self.journal(), &self.moment()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "how much of the hold is over was not kept"
            );
        }
    }

    fn moment(&self) -> Moment {
        let clock = &self.host.clock;
        Moment { now: clock.now(), boot: self.host.incarnation.boot_id.clone(), elapsed: clock.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_and_a_length_are_told_apart() {
        assert_eq!("4h".parse::<Until>().unwrap(), Until::For(Duration::from_secs(4 * 3600)));
        assert_eq!("7d".parse::<Until>().unwrap(), Until::For(Duration::from_secs(7 * 86_400)));
        let time = "2026-12-24T18:00:00Z".parse().unwrap();
        assert_eq!("2026-12-24T18:00:00Z".parse::<Until>().unwrap(), Until::At(time));
        assert_eq!("2026-12-24T19:00:00+01:00".parse::<Until>().unwrap(), Until::At(time));
        for neither in ["", "tomorrow", "4", "-4h", "2026-12-24", "2026-12-24T18:00:00"] {
            assert!(neither.parse::<Until>().is_err(), "{neither}");
        }
    }

    #[test]
    fn a_reason_is_a_line_that_says_something() {
        assert_eq!("  the fair ".parse::<Reason>().unwrap(), Reason("the fair".to_owned()));
        for none in ["", "  ", "two\nlines", "\u{1b}[2J", &"x".repeat(301)] {
            assert!(none.parse::<Reason>().is_err(), "{none:?}");
        }
    }
}
