//! Records that follow from one another: what a host's journal is held by, and how anybody checks it.
//!
//! Each record carries the SHA-256 of its content, the hash of the record before it and a hash of its own over all of
//! that, in the bytes of [`Record::canonical`]. So an edit, a removal or another order shows at the first record that
//! it touches. What a chain cannot show by itself is that its *end* was cut off: that takes a [`Head`] that somebody kept
//! elsewhere ([`Checker::expect`]).
//!
//! Pure: where records are kept, and what their contents are, is for others.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::names::NameError;
use crate::scalar::as_string;

/// What the first record follows.
pub const NOTHING: Sha256 = Sha256::from_bytes([0; 32]);

/// The first line of what is hashed: the version of these rules.
const RULES: &str = "update journal record v1";

/// The longest line of an exported record that is read. A plan may have hundreds of steps, an envelope a megabyte.
pub const MAX_LINE: usize = 16 << 20;

/// How far a chain goes: how many records, and the hash of the last one. Written `42:5f1c…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// The number of the last record, which is how many there are.
    pub seq: u64,
    /// Its hash; [`NOTHING`] of an empty chain.
    pub hash: Sha256,
}

impl Head {
    /// That of an empty chain.
    pub const EMPTY: Self = Self { seq: 0, hash: NOTHING };
}

as_string!(Head);

impl FromStr for Head {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse =
            || NameError::new("head of a journal", "a number, a colon and 64 digits of 0-9, a-f", text);
        let (seq, hash) = text.split_once(':').ok_or_else(refuse)?;
        let number: u64 = seq.parse().map_err(|_| refuse())?;
        // One head has one spelling.
        if number.to_string() != seq {
            return Err(refuse());
        }
        Ok(Self { seq: number, hash: hash.parse().map_err(|_| refuse())? })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({self})")
    }
}

/// A named value of a record's content; nothing where the host had none.
pub type Field = (String, Option<String>);

/// The digest of a content: of each field its name, its length in bytes (`-` for none) and the value, each line ended
/// by a line feed. The lengths keep bytes from moving from one field to the next.
pub fn content_digest(fields: &[Field]) -> Sha256 {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        match value {
            Some(value) => {
                bytes.extend_from_slice(format!("{name} {}\n{value}\n", value.len()).as_bytes());
            }
            None => bytes.extend_from_slice(format!("{name} -\n").as_bytes()),
        }
    }
    Sha256::of(&bytes)
}

/// One record of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number: 1, 2, 3, …
    pub seq: u64,
    /// When it was written, by the host's clock (RFC 3339).
    pub at: String,
    /// What it is of: `transaction`, `event`, …
    pub kind: String,
    /// Which of these.
    pub about: String,
    /// Who ran the program, as JSON; `null` of what was there before the chain.
    pub by: String,
    /// The digest of its content.
    pub content: Sha256,
    /// The hash of the record before it.
    pub previous: Sha256,
    /// Its own.
    pub hash: Sha256,
}

impl Record {
    /// The record that follows `head`, with its hash.
    pub fn following(head: Head, at: String, kind: &str, about: String, by: String, content: Sha256) -> Self {
        let (seq, kind, previous) = (head.seq.saturating_add(1), kind.to_owned(), head.hash);
        let mut record = Self { seq, at, kind, about, by, content, previous, hash: NOTHING };
        record.hash = record.computed();
        record
    }

    /// What its hash is of: these eight lines, each ended by a line feed: the rules' version, number, hash of the record
    /// before, time, kind, subject, who, digest of the content.
    pub fn canonical(&self) -> String {
        let Self { seq, at, kind, about, by, content, previous, hash: _ } = self;
        format!("{RULES}\n{seq}\n{previous}\n{at}\n{kind}\n{about}\n{by}\n{content}\n")
    }

    /// What its hash has to be.
    pub fn computed(&self) -> Sha256 {
        Sha256::of(self.canonical().as_bytes())
    }

    /// How far a chain goes that ends with it.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// Names the record as the one with this fault.
    pub fn broken(&self, fault: Fault) -> Broken {
        Broken { seq: self.seq, kind: self.kind.clone(), about: self.about.clone(), fault }
    }
}

/// The first record at which a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("record {seq} ({kind} {about}): {fault}")]
pub struct Broken {
    /// Its number.
    pub seq: u64,
    /// What it is of.
    pub kind: String,
    /// Which of these.
    pub about: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// Another number should come here: records are missing, doubled or in another order.
    #[error("expected record {expected} here, found {found}")]
    Number {
        /// The number that should come.
        expected: u64,
        /// The one that comes.
        found: u64,
    },
    /// It does not follow the record before it.
    #[error("it follows a record with hash {found}, and the one before it has {expected}")]
    Previous {
        /// The hash of the record before.
        expected: Sha256,
        /// The one that it gives.
        found: Sha256,
    },
    /// It was changed after it was written.
    #[error("its hash should be {expected}, and is {found}")]
    Hash {
        /// By its own fields.
        expected: Sha256,
        /// The one that it gives.
        found: Sha256,
    },
    /// A field has a line break, so that two records could be hashed alike.
    #[error("its {field} has a line break in it")]
    LineBreak {
        /// Which.
        field: String,
    },
    /// A field of its content has a name that no journal has.
    #[error("its content has a field {name:?}: expected letters a-z and _")]
    FieldName {
        /// The name.
        name: String,
    },
    /// What it is of was changed.
    #[error("its content was changed: expected the digest {expected}, found {found}")]
    Content {
        /// As recorded.
        expected: Sha256,
        /// Of what is there.
        found: Sha256,
    },
    /// What it is of is not there any more, and no record says that it was forgotten.
    #[error("its content is gone, and no record says that the journal forgot it")]
    Gone,
    /// Something is there that no record is of.
    #[error("it is in the journal, and no record of the chain is of it")]
    Unrecorded,
    /// The chain does not go as far as somebody has seen it go.
    #[error("the journal ends with record {found}, and had record {expected}: its end was cut off")]
    Truncated {
        /// How far it went.
        expected: u64,
        /// How far it goes.
        found: u64,
    },
    /// The record was another one when somebody saw it.
    #[error("it had the hash {expected} when it was seen, and has {found}: the journal was written anew")]
    Rewritten {
        /// As seen.
        expected: Sha256,
        /// As it is.
        found: Sha256,
    },
    /// The first record does not begin a chain.
    #[error("expected the record that begins the chain, found another kind")]
    NoStart,
}

/// Goes through a chain, record by record.
#[derive(Debug, Clone)]
pub struct Checker {
    head: Head,
    seen: BTreeMap<u64, Sha256>,
}

impl Default for Checker {
    fn default() -> Self {
        Self { head: Head::EMPTY, seen: BTreeMap::new() }
    }
}

impl Checker {
    /// Goes on from `head`, which somebody has checked or kept.
    pub fn after(head: Head) -> Self {
        Self { head, seen: BTreeMap::new() }
    }

    /// The chain has to have had this head: somebody has seen it.
    #[must_use]
    pub fn expect(mut self, seen: Head) -> Self {
        self.seen.insert(seen.seq, seen.hash);
        self
    }

    /// How far it has come.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The next record.
    ///
    /// # Errors
    /// [`Broken`]: what comes after it proves nothing any more.
    pub fn take(&mut self, record: &Record) -> Result<(), Broken> {
        let lines = [
            ("time", &record.at),
            ("kind", &record.kind),
            ("subject", &record.about),
            ("author", &record.by),
        ];
        if let Some((field, _)) = lines.iter().find(|(_, text)| text.contains('\n')) {
            return Err(record.broken(Fault::LineBreak { field: (*field).to_owned() }));
        }
        // There is no record after the last number.
        let expected = self.head.seq.checked_add(1).unwrap_or(0);
        if record.seq != expected {
            return Err(record.broken(Fault::Number { expected, found: record.seq }));
        }
        if record.previous != self.head.hash {
            let (expected, found) = (self.head.hash, record.previous);
            return Err(record.broken(Fault::Previous { expected, found }));
        }
        let (expected, found) = (record.computed(), record.hash);
        if expected != found {
            return Err(record.broken(Fault::Hash { expected, found }));
        }
        if let Some(expected) = self.seen.get(&record.seq).filter(|seen| **seen != found) {
            return Err(record.broken(Fault::Rewritten { expected: *expected, found }));
        }
        self.head = record.head();
        Ok(())
    }

    /// There are no more records.
    ///
    /// # Errors
    /// [`Fault::Truncated`] if the chain was seen to go further.
    pub fn end(self) -> Result<Head, Broken> {
        match self.seen.last_key_value() {
            Some((expected, _)) if *expected > self.head.seq => Err(Broken {
                seq: self.head.seq.saturating_add(1),
                kind: "none".to_owned(),
                about: "the end".to_owned(),
                fault: Fault::Truncated { expected: *expected, found: self.head.seq },
            }),
            _ => Ok(self.head),
        }
    }
}

/// A record with its content, as a journal is exported: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// The record.
    pub record: Record,
    /// Its content; nothing where the journal forgot it.
    pub fields: Option<Vec<Field>>,
}

/// Why exported lines are no sound journal.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A line is no record.
    #[error("line {line} is no record of a journal")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The chain does not hold.
    #[error("the journal does not hold")]
    Broken(#[from] Broken),
}

/// Checks an exported journal: bytes of lines, one record in each, in their order. Gives how far it goes.
///
/// A part of a journal begins with another record than the first: then what came before it is not checked, and the
/// records that are there have to follow from one another.
///
/// # Errors
/// [`ExportError`], with the first line or record that is wrong.
pub fn check_exported(bytes: &[u8], seen: &[Head]) -> Result<Head, ExportError> {
    let mut checker = None;
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let exported: Exported =
            serde_json::from_slice(text).map_err(|source| ExportError::Line { line, source })?;
        let Exported { record, fields } = exported;
        let checker: &mut Checker = checker.get_or_insert_with(|| {
            let before = Head { seq: record.seq.saturating_sub(1), hash: record.previous };
            let start = if record.seq == 1 { Checker::default() } else { Checker::after(before) };
            seen.iter().fold(start, |checker, seen| checker.expect(*seen))
        });
        checker.take(&record)?;
        let strange = |(name, _): &&Field| !name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'_'));
        if let Some((name, _)) = fields.iter().flatten().find(strange) {
            return Err(record.broken(Fault::FieldName { name: name.clone() }).into());
        }
        if let Some(found) =
            fields.map(|fields| content_digest(&fields)).filter(|found| *found != record.content)
        {
            return Err(record.broken(Fault::Content { expected: record.content, found }).into());
        }
    }
    let checker = checker.unwrap_or_else(|| seen.iter().fold(Checker::default(), |c, seen| c.expect(*seen)));
    Ok(checker.end()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.to_owned(), Some(value.to_owned()))
    }

    fn chain(count: u64) -> Vec<Exported> {
        let mut head = Head::EMPTY;
        (1..=count)
            .map(|number| {
                let fields = vec![field("id", &number.to_string()), ("despite".to_owned(), None)];
                let record = Record::following(
                    head,
                    "2026-11-01T00:00:00Z".to_owned(),
                    if number == 1 { "start" } else { "event" },
                    format!("tx/{number}"),
                    r#"{"uid":0}"#.to_owned(),
                    content_digest(&fields),
                );
                head = record.head();
                Exported { record, fields: Some(fields) }
            })
            .collect()
    }

    fn lines(records: &[Exported]) -> Vec<u8> {
        records.iter().map(|one| serde_json::to_string(one).unwrap() + "\n").collect::<String>().into_bytes()
    }

    fn fault(records: &[Exported], seen: &[Head]) -> (u64, Fault) {
        match check_exported(&lines(records), seen) {
            Err(ExportError::Broken(broken)) => (broken.seq, broken.fault),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_hashed_is_these_bytes() {
        let record = &chain(1)[0].record;
        let zeros = "0".repeat(64);
        let content = Sha256::of(b"id 1\n1\ndespite -\n");
        assert_eq!(record.content, content);
        assert_eq!(
            record.canonical(),
            format!(
                "update journal record v1\n1\n{zeros}\n2026-11-01T00:00:00Z\nstart\ntx/1\n{{\"uid\":0}}\n{content}\n"
            )
        );
        assert_eq!(record.hash, Sha256::of(record.canonical().as_bytes()));
    }

    #[test]
    fn a_chain_holds_from_its_beginning_and_from_a_record_on() {
        let records = chain(5);
        let head = records[4].record.head();
        assert_eq!(check_exported(&lines(&records), &[]).unwrap(), head);
        assert_eq!(check_exported(&lines(&records), &[records[2].record.head(), head]).unwrap(), head);
        assert_eq!(check_exported(&lines(&records[2..]), &[]).unwrap(), head);
        assert_eq!(check_exported(b"", &[]).unwrap(), Head::EMPTY);
    }

    #[test]
    fn each_way_to_tamper_is_told_with_the_first_record_that_it_touches() {
        let records = chain(5);
        let mut edited = records.clone();
        edited[2].record.about = "tx/other".to_owned();
        assert!(matches!(fault(&edited, &[]), (3, Fault::Hash { .. })));

        let mut content = records.clone();
        content[2].fields.as_mut().unwrap()[0].1 = Some("4".to_owned());
        assert!(matches!(fault(&content, &[]), (3, Fault::Content { .. })));

        // Whoever writes the hash anew breaks the record after it.
        edited[2].record.hash = edited[2].record.computed();
        assert!(matches!(fault(&edited, &[]), (4, Fault::Previous { .. })));

        let mut removed = records.clone();
        removed.remove(2);
        assert_eq!(fault(&removed, &[]), (4, Fault::Number { expected: 3, found: 4 }));

        let mut reordered = records.clone();
        reordered.swap(1, 3);
        assert_eq!(fault(&reordered, &[]), (4, Fault::Number { expected: 2, found: 4 }));

        let mut doubled = records.clone();
        doubled.insert(2, records[1].clone());
        assert_eq!(fault(&doubled, &[]), (2, Fault::Number { expected: 3, found: 2 }));

        let mut broken = records.clone();
        broken[1].record.by = "{}\n{}".to_owned();
        assert!(matches!(fault(&broken, &[]), (2, Fault::LineBreak { .. })));
    }

    #[test]
    fn an_end_that_was_cut_off_shows_by_a_head_that_somebody_kept() {
        let records = chain(5);
        let head = records[4].record.head();
        assert!(check_exported(&lines(&records[..3]), &[]).is_ok(), "by itself it shows nothing");
        assert_eq!(fault(&records[..3], &[head]), (4, Fault::Truncated { expected: 5, found: 3 }));
        assert!(matches!(fault(&[], &[head]), (1, Fault::Truncated { .. })));

        // Cut off, and other records written in their place.
        let mut anew = records[..3].to_vec();
        for number in 4..=6 {
            let last = anew.last().unwrap().record.head();
            let content = content_digest(&[]);
            let about = format!("tx/{number}");
            let record = Record::following(last, String::new(), "event", about, "null".to_owned(), content);
            anew.push(Exported { record, fields: Some(Vec::new()) });
        }
        assert!(check_exported(&lines(&anew), &[]).is_ok());
        assert!(matches!(fault(&anew, &[head]), (5, Fault::Rewritten { .. })));
    }

    #[test]
    fn bytes_do_not_move_from_one_field_to_the_next() {
        let one = [field("a", "x\nb 1\ny"), field("c", "")];
        let two = [field("a", "x"), field("b", "y"), field("c", "")];
        assert_ne!(content_digest(&one), content_digest(&two));
        assert_ne!(content_digest(&[("a".to_owned(), None)]), content_digest(&[field("a", "")]));
        assert_ne!(content_digest(&[field("a", "-")]), content_digest(&[("a".to_owned(), None)]));
    }

    #[test]
    fn a_head_has_one_spelling() {
        let head = chain(1)[0].record.head();
        assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
        let hash = head.hash;
        for bad in
            [String::new(), ":".to_owned(), format!("01:{hash}"), format!("+1:{hash}"), format!("1:{hash}0")]
        {
            assert!(bad.parse::<Head>().is_err(), "{bad:?} was taken");
        }
    }
}
