//! Strict YAML: one document, one reading.
//!
//! [`from_slice`] accepts the part of YAML in which what a person reads is what every program
//! reads: UTF-8 without a byte order mark, one document, no anchors, aliases, tags or directives,
//! no duplicate key at any depth, no nulls, bounded size and depth. Unknown fields are refused by
//! the types that are read (`deny_unknown_fields`).
//!
//! The text is parsed once: `strict` refuses what is outside of that part while it makes a
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
    /// A character that YAML does not allow, or that not all programs read alike (line breaks other
    /// than those of ASCII, a byte order mark in the text).
    #[error("character: expected printable text and ASCII line breaks, found {} at {at}", .character.escape_unicode())]
    Character {
        /// The character.
        character: char,
        /// Where it stands.
        at: Place,
    },
    /// A word without quotes that starts with a mark of YAML's own: some programs take it for that mark.
    #[error("unquoted: expected quotes around a text that starts with {}, found none at {at}", .mark.escape_debug())]
    Unquoted {
        /// The mark.
        mark: char,
        /// Where it stands.
        at: Place,
    },
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
    /// A key is a list, a mapping or nothing.
    #[error("key: expected a word, found {found} at {at}")]
    KeyNotScalar {
        /// What it is.
        found: &'static str,
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

    /// A small document with most of what YAML has, to be damaged.
    const DOCUMENT: &str = concat!(
        "# c\na: b\nc: [d, 'e f', \"g\\th\"]\nk: {l: m, n: [o]}\np:\n  q: |\n    r\n     s\n\n  t: >-\n    u\n    v\n",
        "  w:\n  - x: 1\n    y: z\n  -\n    - 2\n    - 3\n? long\n: 'it''s'\nplain: two\n  lines\n\"quoted\": 4\n",
    );

    /// Pieces that YAML gives a meaning to.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "- ",
            "-",
            "? ",
            "?",
            ": ",
            ":",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\n",
            "\r",
            "\r\n",
            " ",
            "  ",
            "\t",
            "|\n",
            "|-\n",
            "|+\n",
            "|2\n",
            ">\n",
            ">-\n",
            "'",
            "\"",
            "\\",
            "\\\n",
            "\\x41",
            "\\u0085",
            "&a ",
            "*a",
            "!t ",
            "! ",
            "%YAML 1.1\n",
            "---\n",
            "--- ",
            "...\n",
            "...",
            "#",
            " #",
            "# c\n",
            "<<: ",
            "~",
            "null",
            "0x1",
            "1",
            "x",
            "x: y\n",
            "\n  ",
            "\n    ",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "\u{2029}",
            "\u{a0}",
            "\u{3000}",
            "\0",
            "\u{7f}",
            "é",
            "@",
            "`",
            "=",
        ])
    }

    /// The document with pieces put in, over or in place of some of its characters.
    fn damaged() -> impl Strategy<Value = String> {
        let damage = (any::<prop::sample::Index>(), 0usize..3, piece());
        prop::collection::vec(damage, 1..5).prop_map(|damages| {
            let mut text: Vec<char> = DOCUMENT.chars().collect();
            for (at, over, piece) in damages {
                let at = at.index(text.len());
                text.splice(at..text.len().min(at + over), piece.chars());
            }
            text.into_iter().collect()
        })
    }

    fn loose() -> impl Strategy<Value = String> {
        prop::collection::vec(piece(), 0..16).prop_map(|pieces| pieces.concat())
    }

    /// What is read here has the same value for libyaml, the parser under most other programs, if it
    /// reads it at all (it allows fewer tabs and end marks than YAML 1.2).
    fn one_reading(text: &str) -> Result<(), TestCaseError> {
        let theirs = serde_yaml::from_str::<Value>(text);
        if let (Ok(ours), Ok(theirs)) = (from_slice::<Value>(text.as_bytes(), 1 << 16), theirs) {
            prop_assert_eq!(ours, theirs, "{:?}", text);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_accepted_means_what_another_reader_makes_of_it(text in document()) {
            one_reading(&text)?;
        }

        #[test]
        fn a_damaged_document_is_refused_or_read_as_by_another_reader(text in damaged()) {
            one_reading(&text)?;
        }

        #[test]
        fn loose_pieces_are_refused_or_read_as_by_another_reader(text in loose()) {
            one_reading(&text)?;
        }
    }

    #[test]
    fn the_document_that_is_damaged_is_read() {
        from_slice::<Value>(DOCUMENT.as_bytes(), 1 << 16).unwrap();
    }
}
