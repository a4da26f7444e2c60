//! The hold that an operator puts on this host: nothing new begins here until it ends.
//!
//! It ends by itself, by whichever comes first: the wall clock reaches its end, or the host has run for as long as the
//! hold was to last, by the clock that nobody sets. So a clock that is set back does not lengthen it. What the host ran
//! under it is counted in each boot, and kept whenever somebody [counts](count) it; an orderly shutdown does.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use system::boot::BootId;
use system::clock::millis;

use crate::state::author::Author;
use crate::state::chain::Link;
use crate::state::journal::{Journal, JournalError, encode};

/// A hold on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When it ends at the latest.
    pub until: Timestamp,
    /// When it was put on.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: Author,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "until {}, since {} ({}): {}", self.until, self.since, self.by, self.reason)
    }
}

/// A hold that somebody went past, and who that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// What held the host, in words.
    pub held: String,
    /// Who went past it.
    pub by: Author,
}

/// A moment, by both clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub now: Timestamp,
    /// The boot.
    pub boot: BootId,
    /// Since it began.
    pub elapsed: Duration,
}

/// The row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    hold: Hold,
    /// How long the host had run under it when that was last counted.
    #[serde(with = "millis")]
    ran_ms: Duration,
    /// In which boot that was.
    boot: BootId,
    /// And how long after its beginning.
    #[serde(with = "millis")]
    elapsed_ms: Duration,
}

impl Kept {
    /// How long the host has run under it. A boot that began meanwhile ran under it from its beginning.
    fn ran(&self, moment: &Moment) -> Duration {
        let before = if moment.boot == self.boot { self.elapsed_ms } else { Duration::ZERO };
        self.ran_ms + moment.elapsed.saturating_sub(before)
    }

    /// How long it lasts yet.
    fn left(&self, moment: &Moment) -> Duration {
        let between = |from: Timestamp, to: Timestamp| {
            Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
        };
        let length = between(self.hold.since, self.hold.until);
        between(moment.now, self.hold.until).min(length.saturating_sub(self.ran(moment)))
    }
}

/// A hold that is in force, and how long it lasts yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The hold.
    pub hold: Hold,
    /// How long it lasts yet, at most.
    pub left: Duration,
}

fn query(db: &Connection) -> rusqlite::Result<Option<Kept>> {
    let value: Option<String> = db.query_row("SELECT value FROM hold", [], |row| row.get(0)).optional()?;
    value.map(|value| serde_json::from_str(&value)).transpose().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// Writes down what an operator did.
pub(crate) fn note(
    write: &Connection,
    link: Link<'_>,
    at: Timestamp,
    by: &Author,
    what: &str,
) -> rusqlite::Result<()> {
    write
        .execute(
            "INSERT INTO audit (at, who, what) VALUES (?1, ?2, ?3)",
            params![at.to_string(), by.to_string(), what],
        )
        .and_then(|_| link.audit(write))
}

/// The hold that is in force; none once its time is over.
///
/// # Errors
/// [`JournalError::Sqlite`].
pub fn in_force(journal: &Journal, moment: &Moment) -> Result<Option<InForce>, JournalError> {
    let kept = journal.read("read the hold", query)?;
    Ok(kept.and_then(|kept| {
        let left = kept.left(moment);
        (!left.is_zero()).then_some(InForce { hold: kept.hold, left })
    }))
}

/// Puts a hold on the host, in place of the one that there may be, as one synced write; gives the one it replaced if that
/// was in force.
///
/// # Errors
/// [`JournalError::Sqlite`]; nothing has changed then.
pub fn put(journal: &mut Journal, hold: &Hold, moment: &Moment) -> Result<Option<Hold>, JournalError> {
    let kept = Kept {
        hold: hold.clone(),
        ran_ms: Duration::ZERO,
        boot: moment.boot.clone(),
        elapsed_ms: moment.elapsed,
    };
    journal.write("hold this host", |write, link| {
        let before = query(write)?.filter(|before| !before.left(moment).is_zero());
        write.execute("INSERT OR REPLACE INTO hold (only, value) VALUES (1, ?1)", [encode(&kept)])?;
        note(write, link, hold.since, &hold.by, &format!("held until {}: {}", hold.until, hold.reason))?;
        Ok(before.map(|before| before.hold))
    })
}

/// Ends the hold, as one synced write; gives it if it was in force.
///
/// # Errors
/// [`JournalError::Sqlite`]; nothing has changed then.
pub fn end(journal: &mut Journal, by: &Author, moment: &Moment) -> Result<Option<Hold>, JournalError> {
    journal.write("end the hold of this host", |write, link| {
        let before = query(write)?.filter(|before| !before.left(moment).is_zero());
        write.execute("DELETE FROM hold", [])?;
        if let Some(Kept { hold, .. }) = &before {
            note(write, link, moment.now, by, &format!("hold ended, which was {hold}"))?;
        }
        Ok(before.map(|before| before.hold))
    })
}

/// Keeps how long the host has run under its hold, and forgets one whose time is over: what ended stays ended, whatever
/// becomes of the clock.
///
/// # Errors
/// [`JournalError::Sqlite`].
pub fn count(journal: &mut Journal, moment: &Moment) -> Result<(), JournalError> {
    let Some(kept) = journal.read("read the hold", query)? else { return Ok(()) };
    journal.write("count the time of the hold", |write, _| {
        if kept.left(moment).is_zero() {
            return write.execute("DELETE FROM hold", []).map(drop);
        }
        let counted = Kept {
            ran_ms: kept.ran(moment),
            boot: moment.boot.clone(),
            elapsed_ms: moment.elapsed,
            hold: kept.hold,
        };
        write.execute("UPDATE hold SET value = ?1", [encode(&counted)]).map(drop)
    })
}
