//! Durations as manifests write them: a whole number and one unit, `500ms`, `5s`, `2m`, `1h`.
//!
//! One unit only, so that one duration is read one way. Limits of single fields are in `validate`.
//!
//! - [`Span`]: what a host waits for, at most a day
//! - [`Period`]: what a fleet waits for, at most a year

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::names::NameError;
use crate::scalar::as_string;

/// A span of time in whole milliseconds, at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// The longest span: a day.
    pub const MAX: Span = Span(Duration::from_secs(24 * 3600));

    /// A span of whole seconds; more than a day becomes a day.
    pub const fn from_secs(seconds: u32) -> Self {
        if seconds > 24 * 3600 { Self::MAX } else { Self(Duration::from_secs(seconds as u64)) }
    }

    /// A span of whole milliseconds; more than a day becomes a day.
    pub const fn from_millis(millis: u32) -> Self {
        if millis > 24 * 3600 * 1000 { Self::MAX } else { Self(Duration::from_millis(millis as u64)) }
    }

    /// The span for timers.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whether it is `0s`.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

as_string!(Span);

impl FromStr for Span {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || {
            NameError::new(
                "duration",
                "a whole number and one of ms, s, m, h, at most a day, such as 500ms",
                text,
            )
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refuse()),
        };
        if number.len() > 1 && number.starts_with('0') {
            return Err(refuse());
        }
        let span = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(millis))
            .map(Duration::from_millis)
            .ok_or_else(refuse)?;
        if span > Self::MAX.0 { Err(refuse()) } else { Ok(Self(span)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let text = match millis {
            0 => "0s".to_owned(),
            n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
            n if n % 60_000 == 0 => format!("{}m", n / 60_000),
            n if n % 1_000 == 0 => format!("{}s", n / 1_000),
            n => format!("{n}ms"),
        };
        f.pad(&text)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(0|[1-9][0-9]*)(ms|s|m|h)$",
            "description": "A whole number and one unit of ms, s, m, h; at most a day.",
            "examples": ["500ms", "5s", "2m"]
        })
    }
}

/// A span of time in whole seconds, at most 366 days: `90s`, `30m`, `6h`, `7d`. A day has 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u32);

impl Period {
    /// The longest: 366 days.
    pub const MAX: Period = Period(366 * 24 * 3600);

    /// A period of whole seconds; more than the longest becomes the longest.
    pub const fn from_secs(seconds: u32) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// Its length in seconds.
    pub const fn secs(self) -> u32 {
        self.0
    }

    /// Whether it is `0s`.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

as_string!(Period);

impl FromStr for Period {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || {
            NameError::new("period", "a whole number and one of s, m, h, d, at most 366d, such as 6h", text)
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let seconds: u32 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(refuse()),
        };
        if number.len() > 1 && number.starts_with('0') {
            return Err(refuse());
        }
        let period = number.parse::<u32>().ok().and_then(|n| n.checked_mul(seconds)).ok_or_else(refuse)?;
        if period > Self::MAX.0 { Err(refuse()) } else { Ok(Self(period)) }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0 => "0s".to_owned(),
            n if n % 86_400 == 0 => format!("{}d", n / 86_400),
            n if n % 3_600 == 0 => format!("{}h", n / 3_600),
            n if n % 60 == 0 => format!("{}m", n / 60),
            n => format!("{n}s"),
        };
        f.pad(&text)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(0|[1-9][0-9]*)(s|m|h|d)$",
            "description": "A whole number and one unit of s, m, h, d; at most 366 days.",
            "examples": ["90s", "6h", "7d"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_and_print_the_same_and_end_at_a_year() {
        for text in ["0s", "59s", "30m", "6h", "1d", "366d"] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.to_string(), text);
        }
        for bad in ["", "d", "1w", "01d", "1d12h", "367d", "500ms", "99999999999d"] {
            assert!(bad.parse::<Period>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn durations_read_and_print_the_same() {
        for text in ["0s", "1ms", "500ms", "5s", "90s", "2m", "24h"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>(), Ok(span), "{text}");
        }
        assert_eq!("120s".parse::<Span>().unwrap().to_string(), "2m");
    }

    #[test]
    fn durations_need_a_unit_and_stay_below_a_day() {
        for bad in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "5 s",
            "05s",
            "1m30s",
            "25h",
            "86401s",
            "99999999999999999999h",
            "5S",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?} was taken");
        }
    }
}
