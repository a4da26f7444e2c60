//! Points in time: UTC, whole seconds, RFC 3339 with `Z`, and nothing else.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::names::NameError;
use crate::scalar::as_string;

/// A second of UTC, written like `2026-11-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(Timestamp);

impl UtcTime {
    /// The second in which `time` lies.
    pub fn floor(time: Timestamp) -> Self {
        // A whole second inside jiff's range is always inside it.
        Self(Timestamp::from_second(time.as_second()).unwrap_or(time))
    }

    /// The time for arithmetic.
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }
}

as_string!(UtcTime);

impl FromStr for UtcTime {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
        let shaped = text.len() == SHAPE.len()
            && text
                .bytes()
                .zip(SHAPE)
                .all(|(c, want)| if *want == b'0' { c.is_ascii_digit() } else { c == *want });
        let refuse =
            || NameError::new("time", "a time of UTC in whole seconds, such as 2026-11-01T00:00:00Z", text);
        if !shaped {
            return Err(refuse());
        }
        let time: Timestamp = text.parse().map_err(|_| refuse())?;
        // A leap second is read as the second before it; one time has one spelling here.
        if time.to_string() == text { Ok(Self(time)) } else { Err(refuse()) }
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl JsonSchema for UtcTime {
    fn schema_name() -> Cow<'static, str> {
        "UtcTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
            "description": "A time of UTC in whole seconds, such as 2026-11-01T00:00:00Z."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_spelling() {
        let time: UtcTime = "2026-11-01T00:00:00Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-01T00:00:00Z");
        for bad in [
            "",
            "2026-11-01",
            "2026-11-01T00:00:00",
            "2026-11-01T00:00:00+00:00",
            "2026-11-01T00:00:00.5Z",
            "2026-11-01 00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-01T23:59:60Z",
            "2026-11-01t00:00:00z",
        ] {
            assert!(bad.parse::<UtcTime>().is_err(), "{bad:?} was taken");
        }
    }
}
