//! A number of hosts: as such (`60`), or as a part of something (`25%`).

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many hosts, or so many of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Hosts.
    Hosts(u32),
    /// Percent of the whole, 0 to 100.
    Percent(u8),
}

impl Amount {
    /// In hosts, of a whole of `all`; a part is rounded down.
    pub fn of(self, all: u32) -> u32 {
        match self {
            Self::Hosts(hosts) => hosts,
            // At most `all`, since there are at most 100 percent.
            Self::Percent(percent) => (u64::from(all) * u64::from(percent) / 100) as u32,
        }
    }

    /// As [`Amount::of`], with a part rounded up: a budget of 1 % of sixty hosts is one host, and one of 0 % is none.
    pub fn rounded_up_of(self, all: u32) -> u32 {
        match self {
            Self::Hosts(hosts) => hosts,
            Self::Percent(percent) => (u64::from(all) * u64::from(percent)).div_ceil(100) as u32,
        }
    }

    /// As [`Amount::of`], and at least one: a cap of 10 % of a rack of six lets one host through, not none.
    pub fn at_least_one_of(self, all: u32) -> u32 {
        self.of(all).max(1)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(hosts) => write!(f, "{hosts}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Hosts(hosts) => serializer.serialize_u32(*hosts),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of hosts, such as 60, or a part, such as 25%")
            }

            fn visit_u64<E: Error>(self, hosts: u64) -> Result<Amount, E> {
                let out_of_range = |_| E::invalid_value(Unexpected::Unsigned(hosts), &self);
                u32::try_from(hosts).map(Amount::Hosts).map_err(out_of_range)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
                text.strip_suffix('%')
                    .filter(|number| digits(number) && (number.len() == 1 || !number.starts_with('0')))
                    .and_then(|number| number.parse().ok())
                    .filter(|percent| *percent <= 100)
                    .map(Amount::Percent)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of hosts, or a part of them: 60, 25%.",
            "oneOf": [
                { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                { "type": "string", "pattern": "^(0|[1-9][0-9]?|100)%$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_number_or_a_part_and_nothing_else() {
        let read = |json: &str| serde_json::from_str::<Amount>(json);
        assert_eq!(read("60").unwrap(), Amount::Hosts(60));
        assert_eq!(read("\"25%\"").unwrap(), Amount::Percent(25));
        assert_eq!(read("\"0%\"").unwrap(), Amount::Percent(0));
        for bad in ["-1", "1.5", "4294967296", "\"101%\"", "\"60\"", "\"%\"", "\"05%\"", "\"+5%\"", "\"2 %\""]
        {
            assert!(read(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_part_is_rounded_down_and_a_cap_never_to_nothing() {
        assert_eq!(Amount::Percent(10).of(9_999), 999);
        assert_eq!(Amount::Percent(10).of(6), 0);
        assert_eq!(Amount::Percent(10).at_least_one_of(6), 1);
        assert_eq!(Amount::Percent(1).rounded_up_of(60), 1);
        assert_eq!(Amount::Percent(0).rounded_up_of(60), 0);
        assert_eq!(Amount::Percent(100).of(u32::MAX), u32::MAX);
    }
}
