//! Strict YAML: one document, one reading.
//!
//! [`from_slice`] accepts the part of YAML in which what a person reads is what every program
//! reads: UTF-8 without a byte order mark, one document, no anchors, aliases, tags or directives,
//! no duplicate key at any depth, no nulls, bounded size and depth. Unknown fields are refused by
//! the types that are read (`deny_unknown_fields`).
//!
//! The check walks the event stream of libyaml, the parser that `yaml_serde` itself builds on, so
//! the check and the reading cannot disagree about where a scalar ends. Size is checked before
//! anything is parsed.

mod events;
mod strict;

use serde::de::DeserializeOwned;

pub use events::Place;

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
    Schema(#[source] serde_yaml::Error),
}

/// Reads a value from strict YAML of at most `limit` bytes.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, YamlError> {
    strict::check(bytes, limit)?;
    serde_yaml::from_slice(bytes).map_err(YamlError::Schema)
}
