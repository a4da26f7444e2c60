//! Why a policy of a rollout is refused before it is held against any fleet.

use manifests::yaml::YamlError;
use manifests::{Period, ZoneName};

use super::Worse;

/// Bytes that are not a policy of a rollout, or one that contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The YAML is outside of the strict form, or does not follow the schema.
    #[error("the rollout policy cannot be read")]
    Yaml(#[from] YamlError),
    /// A list is too short or too long.
    #[error("{field}: expected {min} to {max} entries, found {found}")]
    Count {
        /// The list.
        field: &'static str,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// An entry stands twice in a list.
    #[error("{field}: expected each entry once, found one twice")]
    Twice {
        /// The list.
        field: &'static str,
    },
    /// A number is out of its range.
    #[error("{field}: expected {min} to {max}, found {found}")]
    Range {
        /// The field.
        field: String,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
        /// The number.
        found: u32,
    },
    /// A probability is out of its range.
    #[error("{field}: expected {expected}, found {found}")]
    Probability {
        /// The field.
        field: &'static str,
        /// The range in words.
        expected: &'static str,
        /// The number.
        found: f64,
    },
    /// A period is too short to mean anything.
    #[error("{field}: expected at least {min}, found {found}")]
    TooShort {
        /// The field.
        field: String,
        /// The least.
        min: Period,
        /// The period.
        found: Period,
    },
    /// A time zone that the IANA database does not have.
    #[error("{field}: expected a time zone of the IANA database, found {zone}")]
    Zone {
        /// The field.
        field: &'static str,
        /// The zone.
        zone: ZoneName,
    },
    /// A local time that no calendar has.
    #[error("{field}: expected {expected}, found {found:?}")]
    LocalTime {
        /// The field.
        field: &'static str,
        /// The form.
        expected: &'static str,
        /// The text.
        found: String,
    },
    /// A window longer than the time from one to the next.
    #[error("windows.for: expected at most {max}, found {found}")]
    WindowTooLong {
        /// The longest.
        max: Period,
        /// Its length.
        found: Period,
    },
    /// A freeze that ends before it begins.
    #[error("freezes: expected an end after the beginning, found {from} to {until} in {zone}")]
    FreezeBackwards {
        /// Its beginning, local.
        from: String,
        /// Its end, local.
        until: String,
        /// The zone.
        zone: ZoneName,
    },
    /// A health query without a question, or with too long a one.
    #[error("{field}: expected a query of 1 to 4096 bytes, found {found}")]
    Query {
        /// Which.
        field: String,
        /// Its length.
        found: usize,
    },
    /// A ratio that vetoes what is no worse, or never.
    #[error("{field}: expected a ratio {}, found {found}", match .worse { Worse::Higher => "above 1 and at most 1000", Worse::Lower => "above 0 and below 1" })]
    Ratio {
        /// Which.
        field: String,
        /// Which way is worse.
        worse: Worse,
        /// The ratio.
        found: f64,
    },
}
