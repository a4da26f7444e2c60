//! Strict YAML: one document, one reading.
//!
//! [`from_slice`] accepts the part of YAML in which what a person reads is what every program
//! reads: UTF-8 without a byte order mark, one document, no anchors, aliases, tags or directives,
//! no duplicate key at any depth, no nulls, bounded size and depth. Unknown fields are refused by
//! the types that are read (`deny_unknown_fields`).
//!
//! The text is parsed once, by libyaml: `strict` refuses what is outside of that part while it makes a
//! tree of the events, and `schema` lets serde read the tree. What was checked and what is read cannot
//! differ. Size is checked before anything is parsed.

mod events;
mod schema;
mod strict;

use serde::de::DeserializeOwned;

pub use events::Place;
pub use schema::SchemaError;

/// Why YAML was not read. Lines and columns count from 1.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// More bytes than allowed; nothing was parsed.
    #[error("too large: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// The bytes are not UTF-8.
    #[error("not UTF-8: expected UTF-8 text, found a wrong byte at offset {offset}")]
    NotUtf8 {
        /// Where the text stops being UTF-8, in bytes from 0.
        offset: usize,
    },
    /// The text starts with a byte order mark.
    #[error("byte order mark: expected text, found U+FEFF at its start")]
    ByteOrderMark,
    /// Nothing but white space and comments.
    #[error("empty: expected a mapping, found no document")]
    Empty,
    /// The document is not a mapping.
    #[error("not a mapping: expected `key: value` lines, found something else at {at}")]
    NotAMapping {
        /// Where the document starts.
        at: Place,
    },
    /// `&name`: the value could be repeated elsewhere.
    #[error("anchor: expected plain values, found `&` at {at}")]
    Anchor {
        /// Where the anchored value stands.
        at: Place,
    },
    /// `*name`: the value stands elsewhere.
    #[error("alias: expected plain values, found `*` at {at}")]
    Alias {
        /// Where the alias stands.
        at: Place,
    },
    /// `!tag`: the value would be read in a way of its own.
    #[error("tag: expected plain values, found `!` at {at}")]
    Tag {
        /// Where the tagged value stands.
        at: Place,
    },
    /// `%YAML` or `%TAG`.
    #[error("directive: expected the document, found `%` at {at}")]
    Directive {
        /// Where the document starts.
        at: Place,
    },
    /// A second document follows.
    #[error("several documents: expected one, found another at {at}")]
    SecondDocument {
        /// Where it starts.
        at: Place,
    },
    /// A key stands twice in one mapping.
    #[error("duplicate key: expected `{key}` once, found it again at {at}")]
    DuplicateKey {
        /// The key, escaped for a terminal and cut.
        key: String,
        /// Where it stands the second time.
        at: Place,
    },
    /// A key is a list or a mapping.
    #[error("key: expected a word, found a list or mapping at {at}")]
    KeyNotScalar {
        /// Where the key stands.
        at: Place,
    },
    /// A key without a value, or an explicit null: a field is given or left out, never both.
    #[error("null: expected a value, found none at {at}")]
    Null {
        /// Where the value should stand.
        at: Place,
    },
    /// Lists and mappings in one another, deeper than any manifest needs.
    #[error("too deep: expected at most {limit} levels, found more at {at}")]
    TooDeep {
        /// The limit in levels.
        limit: usize,
        /// Where the limit is passed.
        at: Place,
    },
    /// Not YAML.
    #[error("not YAML: {problem} at {at}")]
    Syntax {
        /// The parser's words.
        problem: String,
        /// Where it gave up.
        at: Place,
    },
    /// YAML, but not of the expected types: a field is unknown, missing or malformed.
    #[error("does not follow the schema")]
    Schema(#[source] SchemaError),
}

/// Reads a value from strict YAML of at most `limit` bytes.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, YamlError> {
    let document = strict::read(bytes, limit)?;
    T::deserialize(&document).map_err(YamlError::Schema)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Scalars that programs read in different ways, or nearly.
    fn scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            "[-+]?[0-9]{1,18}",
            "[-+]?0[xob][0-9a-f]{1,15}",
            "[-+]?[0-9.]{1,6}([eE][-+]?[0-9]{1,4})?",
            "[-+]?[.](inf|Inf|nan|NaN|NAN)",
            "(true|True|TRUE|false|yes|no|on|off|y|n|null|~|infinity|nan|1_000|12:30|0777|0b1)",
            "'[a-z0-9 ]{0,8}'",
            "[a-z][a-z0-9-]{0,8}",
        ]
    }

    fn document() -> impl Strategy<Value = String> {
        prop::collection::vec(("[a-f0-9]{1,2}", prop::collection::vec(scalar(), 1..4)), 1..6).prop_map(
            |pairs| {
                pairs
                    .iter()
                    .map(|(key, values)| match &values[..] {
                        [value] => format!("{key}: {value}\n"),
                        values => format!("{key}:\n- {}\n", values.join("\n- ")),
                    })
                    .collect()
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_accepted_means_what_another_reader_makes_of_it(text in document()) {
            if let Ok(ours) = from_slice::<Value>(text.as_bytes(), 1 << 16) {
                let theirs: Value = serde_yaml::from_str(&text).unwrap();
                prop_assert_eq!(ours, theirs, "{}", text);
            }
        }
    }
}
