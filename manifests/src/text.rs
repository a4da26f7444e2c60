//! Text that people wrote and terminals will show, and paths inside containers.
//!
//! Invariant: no control characters (a summary cannot move the cursor) and none of the
//! bidirectional overrides that make text read differently from its bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::names::NameError;

/// Whether a character can be shown as it is: no control, no bidirectional control
/// (Unicode 15, `Bidi_Control`), no byte order mark, no line or paragraph separator.
pub(crate) fn is_showable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, what: $what:literal, rule: $rule:literal, schema: $schema:tt, check: $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(NameError::new($what, $rule, &text)) }
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text! {
    /// One line for people.
    Summary,
    what: "summary",
    rule: "one line of 1 to 200 characters without control or direction characters",
    schema: { "type": "string", "minLength": 1, "maxLength": 200, "description": "One line for people, without control or direction characters." },
    check: |s| (1..=200).contains(&s.chars().count()) && s.chars().all(is_showable) && !s.trim().is_empty()
}

text! {
    /// The value of a label; may be empty.
    LabelValue,
    what: "label value",
    rule: "at most 1024 characters without control or direction characters",
    schema: { "type": "string", "maxLength": 1024, "description": "The value of an OCI annotation." },
    check: |s| s.chars().count() <= 1024 && s.chars().all(is_showable)
}

text! {
    /// An absolute path as a container's processes see it.
    ContainerPath,
    what: "container path",
    rule: "an absolute path of at most 4095 bytes without '.', '..' or empty components and without control characters",
    schema: { "type": "string", "pattern": "^/[^/]", "maxLength": 4095, "description": "An absolute path inside the container, without '.' or '..' components." },
    check: |s| {
        s.len() <= 4095
            && s.chars().all(is_showable)
            && s.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
    }
}

text! {
    /// One argument of a probe's command. May hold line breaks (a script), never a NUL.
    Argument,
    what: "command argument",
    rule: "at most 4096 bytes without NUL",
    schema: { "type": "string", "maxLength": 4096, "description": "One argument of a command." },
    check: |s| s.len() <= 4096 && !s.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_cannot_talk_to_the_terminal() {
        for bad in ["", "  ", "a\nb", "\u{1b}[2J", "a\u{202e}b", "a\u{85}b", "\u{feff}a"] {
            assert!(bad.parse::<Summary>().is_err(), "{bad:?} was taken");
        }
        assert!("Fix CVE-2026-0001: grüße".parse::<Summary>().is_ok());
    }

    #[test]
    fn container_paths_are_absolute_and_plain() {
        for bad in ["", "/", "a", "/a/../b", "/a//b", "/a/", "/./a", "/a\n"] {
            assert!(bad.parse::<ContainerPath>().is_err(), "{bad:?} was taken");
        }
        assert!("/usr/lib/libgreet.so.1".parse::<ContainerPath>().is_ok());
    }
}
