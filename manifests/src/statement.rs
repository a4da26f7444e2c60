//! in-toto statements: what somebody says of something that is known by its digests.
//!
//! The format is version 1 of the in-toto attestation framework (`spec/v1/statement.md`): subjects, the type of what is
//! said, and what is said. In an envelope a statement's payload type is [`PAYLOAD_TYPE`]. It is read more strictly than the
//! framework asks: no unknown fields, and no key twice in a set of digests, of which two readers may take different ones.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Sha256;

/// The payload type of an envelope around a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What a statement of version 1 calls itself.
pub const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";

/// The most subjects that a statement may have.
pub const MAX_SUBJECTS: usize = 1024;

/// Why bytes are not such a statement.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not the JSON of a statement, or what is said has not the fields of its type.
    #[error("not a statement of this type")]
    Json(#[from] serde_json::Error),
    /// Another version of the framework.
    #[error("_type: expected {STATEMENT_V1}, found {found:?}")]
    Type {
        /// What it calls itself.
        found: String,
    },
    /// It says something else.
    #[error("predicateType: expected {expected}, found {found:?}")]
    Predicate {
        /// What was asked for.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// It speaks of nothing, or of too much.
    #[error("subject: expected 1 to {MAX_SUBJECTS} entries, found {found}")]
    Subjects {
        /// How many there are.
        found: usize,
    },
}

/// What a statement speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// Its digests, by algorithm.
    pub digest: Digests,
}

impl Subject {
    /// Something with a SHA-256 digest.
    pub fn of(name: impl Into<String>, sha256: Sha256) -> Self {
        Self { name: name.into(), digest: Digests([("sha256".to_owned(), sha256.to_string())].into()) }
    }

    /// Its SHA-256 digest, if it gives a well-formed one.
    pub fn sha256(&self) -> Option<Sha256> {
        self.digest.0.get("sha256")?.parse().ok()
    }
}

/// Digests by algorithm, each algorithm once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Digests(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Digests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("digests by algorithm")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Digests, A::Error> {
                let mut digests = BTreeMap::new();
                while let Some((algorithm, digest)) = map.next_entry::<String, String>()? {
                    if digests.contains_key(&algorithm) {
                        return Err(A::Error::custom(format_args!(
                            "the algorithm {algorithm:?} stands there twice"
                        )));
                    }
                    digests.insert(algorithm, digest);
                }
                Ok(Digests(digests))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

/// What somebody says of its subjects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement<P> {
    #[serde(rename = "_type")]
    statement_type: String,
    /// What it speaks of.
    pub subject: Vec<Subject>,
    /// The type of what is said.
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

impl<P> Statement<P> {
    /// A statement.
    pub fn new(subject: Vec<Subject>, predicate_type: &str, predicate: P) -> Self {
        let statement_type = STATEMENT_V1.to_owned();
        Self { statement_type, subject, predicate_type: predicate_type.to_owned(), predicate }
    }
}

impl<P: DeserializeOwned> Statement<P> {
    /// Reads a statement that says this.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn parse(bytes: &[u8], expected: &'static str) -> Result<Self, StatementError> {
        let found = predicate_type(bytes)?;
        if found != expected {
            return Err(StatementError::Predicate { expected, found });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl<P: Serialize> Statement<P> {
    /// The bytes to sign.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("statements have no maps with keys that JSON cannot hold")
    }
}

/// What a statement says, by its type; whether it says it well is not asked.
///
/// # Errors
/// [`StatementError`] if it is no statement.
pub fn predicate_type(bytes: &[u8]) -> Result<String, StatementError> {
    let read: Statement<IgnoredAny> = serde_json::from_slice(bytes)?;
    if read.statement_type != STATEMENT_V1 {
        return Err(StatementError::Type { found: read.statement_type });
    }
    match read.subject.len() {
        1..=MAX_SUBJECTS => Ok(read.predicate_type),
        found => Err(StatementError::Subjects { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "urn:example:said";

    fn statement() -> Statement<Vec<u8>> {
        Statement::new(vec![Subject::of("module.ko", Sha256::of(b"module"))], SAID, vec![1, 2])
    }

    #[test]
    fn a_statement_reads_back_as_it_was_written() {
        let written = statement();
        let bytes = written.to_json();
        assert_eq!(Statement::<Vec<u8>>::parse(&bytes, SAID).unwrap(), written);
        assert_eq!(written.subject[0].sha256(), Some(Sha256::of(b"module")));
        assert!(
            String::from_utf8(bytes)
                .unwrap()
                .starts_with(r#"{"_type":"https://in-toto.io/Statement/v1","subject":["#)
        );
    }

    #[test]
    fn what_is_no_statement_of_that_type_is_refused() {
        let text = String::from_utf8(statement().to_json()).unwrap();
        let parse = |text: &str| Statement::<Vec<u8>>::parse(text.as_bytes(), SAID);
        assert!(matches!(
            parse(&text.replace("Statement/v1", "Statement/v0.1")),
            Err(StatementError::Type { .. })
        ));
        assert!(matches!(parse(&text.replace("said", "heard")), Err(StatementError::Predicate { .. })));
        for (what, other) in [
            (r#""sha256":"#, r#""sha256":"0","sha256":"#),
            (r#""predicateType""#, r#""more":1,"predicateType""#),
            ("[1,2]", "[1,300]"),
            (r#""_type""#, r#""_type":"x","_type""#),
        ] {
            let changed = text.replace(what, other);
            assert_ne!(changed, text);
            assert!(matches!(parse(&changed), Err(StatementError::Json(_))), "{changed}");
        }
        let none = Statement::new(Vec::new(), SAID, vec![1_u8]);
        assert!(matches!(
            Statement::<Vec<u8>>::parse(&none.to_json(), SAID),
            Err(StatementError::Subjects { found: 0 })
        ));
    }
}
