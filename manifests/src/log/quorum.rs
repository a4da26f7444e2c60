//! The logs and witnesses that somebody believes, as C2SP's `tlog-policy` writes it.
//!
//! ```text
//! log updates.example.org/log+…
//! witness w1 witness1.example.org+…
//! witness w2 witness2.example.org+…
//! witness w3 witness3.example.org+…
//! group company 2 w1 w2 w3
//! quorum company
//! ```
//!
//! A checkpoint is accepted when one of the logs has signed it, and the quorum's witnesses have cosigned it. A signature
//! in the name of a known key that does not hold refuses the whole of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::{Forged, Note, NoteKey, NoteKeyError, NoteKeyKind, NoteName};
use crate::scalar::as_string;

/// The most logs, witnesses and groups: twice what the specification wants to be supported at least.
const MOST: usize = 64;

/// The quorum that needs no witness.
const NONE: &str = "none";

/// Whom somebody believes about logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    text: String,
    logs: Vec<NoteKey>,
    witnesses: Vec<(String, NoteKey)>,
    groups: Vec<Group>,
    /// The name of a witness or a group; none if no witness is needed.
    quorum: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<String>,
}

/// Why a text is not such a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct LogPolicyError {
    /// The line, from 1; none if something is missing.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: LogPolicyProblem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogPolicyProblem {
    /// More than anybody writes.
    #[error("expected at most {max} bytes, found {found}")]
    TooLarge {
        /// The limit.
        max: usize,
        /// The size.
        found: usize,
    },
    /// A character that no line may have.
    #[error("expected no control characters but tabs and line feeds")]
    Character,
    /// No such line.
    #[error("expected log, witness, group or quorum with what follows it, found {found:.80?}")]
    Line {
        /// The line.
        found: String,
    },
    /// A key that is none.
    #[error(transparent)]
    Key(#[from] NoteKeyError),
    /// A log's key where a witness's has to be, or the other way round.
    #[error("{name} is {}: expected {}", kind_words(*found), kind_words(other(*found)))]
    Kind {
        /// The key's name.
        name: NoteName,
        /// What it is.
        found: NoteKeyKind,
    },
    /// One key twice: who holds it would count twice, or watch over himself.
    #[error("expected each key once, found that of {name} again")]
    KeyTwice {
        /// Its second name.
        name: NoteName,
    },
    /// A name twice, or the one that means nobody.
    #[error("expected a name of its own, found {name:?} again")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A name that no line before has.
    #[error("expected a witness or a group of an earlier line, found {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A witness or group that would count in two ways.
    #[error("expected each witness and group in one group at most, found {name:?} again")]
    MemberTwice {
        /// The name.
        name: String,
    },
    /// A group that nobody, or anybody, fills.
    #[error("expected all, any or a number from 1 to {members}, found {found:.80?}")]
    Threshold {
        /// How many members there are.
        members: usize,
        /// What was given.
        found: String,
    },
    /// More of something than there may be.
    #[error("expected at most {MOST} logs, witnesses and groups each")]
    TooMany,
    /// Not exactly one quorum.
    #[error("expected one quorum line, found {found}")]
    Quorum {
        /// How many there are.
        found: usize,
    },
    /// Nobody's log.
    #[error("expected a log line, found none")]
    NoLog,
}

fn kind_words(kind: NoteKeyKind) -> &'static str {
    match kind {
        NoteKeyKind::Log => "the key of a log (0x01)",
        NoteKeyKind::Witness => "the key of a witness (0x04)",
    }
}

fn other(kind: NoteKeyKind) -> NoteKeyKind {
    match kind {
        NoteKeyKind::Log => NoteKeyKind::Witness,
        NoteKeyKind::Witness => NoteKeyKind::Log,
    }
}

/// A witness that has cosigned.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cosigner {
    /// What the policy calls it.
    pub name: String,
    /// When, in seconds since 1970, as it says.
    pub time: u64,
}

/// A checkpoint that somebody's policy takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The witnesses of the policy that cosigned it.
    pub cosigners: Vec<Cosigner>,
}

/// Why a checkpoint is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointRefusal {
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] CheckpointError),
    /// A signature in the name of a known key is not its own.
    #[error(transparent)]
    Forged(#[from] Forged),
    /// No log of the policy has signed it.
    #[error("no log of the policy has signed the checkpoint")]
    UnknownLog {
        /// The logs of the policy.
        expected: Vec<NoteName>,
        /// The log that it is of.
        found: NoteName,
    },
    /// Too few witnesses.
    #[error("too few witnesses have cosigned the checkpoint")]
    Quorum {
        /// The quorum, in words.
        needed: String,
        /// Those that have.
        cosigned: Vec<String>,
    },
}

impl LogPolicy {
    /// The most bytes of such a policy.
    pub const MAX_BYTES: usize = 64 << 10;

    /// The logs.
    pub fn logs(&self) -> &[NoteKey] {
        &self.logs
    }

    /// The witnesses, by what the policy calls them.
    pub fn witnesses(&self) -> impl Iterator<Item = (&str, &NoteKey)> {
        self.witnesses.iter().map(|(name, key)| (name.as_str(), key))
    }

    /// Whether it takes witnesses to have a checkpoint accepted.
    pub fn needs_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A policy of one log, without witnesses.
    pub fn of_log(log: &NoteKey) -> Self {
        let text = format!("log {log}\nquorum none\n");
        Self { text, logs: vec![log.clone()], witnesses: Vec::new(), groups: Vec::new(), quorum: None }
    }

    /// Whether a note is a checkpoint of one of the logs that enough witnesses have cosigned.
    ///
    /// # Errors
    /// [`CheckpointRefusal`].
    pub fn accept(&self, note: &Note) -> Result<Accepted, CheckpointRefusal> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let mut signed = false;
        for log in self.logs.iter().filter(|log| *log.name() == checkpoint.origin) {
            signed |= note.signed_by(log)?.is_some();
        }
        if !signed {
            let expected = self.logs.iter().map(|log| log.name().clone()).collect();
            return Err(CheckpointRefusal::UnknownLog { expected, found: checkpoint.origin });
        }
        let mut cosigners = Vec::new();
        for (name, key) in &self.witnesses {
            if let Some(time) = note.signed_by(key)?.and_then(|attested| attested.time) {
                cosigners.push(Cosigner { name: name.clone(), time });
            }
        }
        let cosigned: BTreeSet<&str> = cosigners.iter().map(|one| one.name.as_str()).collect();
        if self.quorum.as_ref().is_some_and(|quorum| !self.reached(&cosigned).contains(quorum.as_str())) {
            let cosigned = cosigned.into_iter().map(str::to_owned).collect();
            return Err(CheckpointRefusal::Quorum { needed: self.needed(), cosigned });
        }
        Ok(Accepted { checkpoint, cosigners })
    }

    /// The witnesses and groups that are filled when these witnesses have cosigned. A group's members stand before it.
    fn reached<'a>(&'a self, cosigned: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let mut reached = cosigned.clone();
        for group in &self.groups {
            let has = group.members.iter().filter(|member| reached.contains(member.as_str())).count();
            if has >= group.threshold {
                reached.insert(&group.name);
            }
        }
        reached
    }

    /// The quorum in words.
    pub fn needed(&self) -> String {
        let Some(quorum) = &self.quorum else { return "no witness".to_owned() };
        match self.groups.iter().find(|group| group.name == *quorum) {
            Some(Group { threshold, members, .. }) => format!("{threshold} of {}", members.join(", ")),
            None => quorum.clone(),
        }
    }
}

as_string!(LogPolicy);

impl fmt::Display for LogPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for LogPolicy {
    type Err = LogPolicyError;

    fn from_str(text: &str) -> Result<Self, LogPolicyError> {
        let whole = |problem| LogPolicyError { line: None, problem };
        if text.len() > Self::MAX_BYTES {
            return Err(whole(LogPolicyProblem::TooLarge { max: Self::MAX_BYTES, found: text.len() }));
        }
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(text.split('\n')) {
            reader.line(line).map_err(|problem| LogPolicyError { line: Some(number), problem })?;
        }
        let Reader { logs, witnesses, groups, quorums, .. } = reader;
        if quorums.len() != 1 {
            return Err(whole(LogPolicyProblem::Quorum { found: quorums.len() }));
        }
        if logs.is_empty() {
            return Err(whole(LogPolicyProblem::NoLog));
        }
        let quorum = quorums.into_iter().next().filter(|name| name != NONE);
        Ok(Self { text: text.to_owned(), logs, witnesses, groups, quorum })
    }
}

/// The lines so far.
#[derive(Default)]
struct Reader {
    logs: Vec<NoteKey>,
    witnesses: Vec<(String, NoteKey)>,
    groups: Vec<Group>,
    quorums: Vec<String>,
    /// Witnesses and groups, and whether they are in a group already.
    names: BTreeMap<String, bool>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), LogPolicyProblem> {
        if line.chars().any(|c| c.is_ascii_control() && c != '\t') {
            return Err(LogPolicyProblem::Character);
        }
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] | ["log", key, _] => {
                let key = self.key(key, NoteKeyKind::Log)?;
                self.logs.push(key);
                Ok(())
            }
            ["witness", name, key] | ["witness", name, key, _] => {
                let key = self.key(key, NoteKeyKind::Witness)?;
                self.name(name)?;
                self.witnesses.push((name.to_owned(), key));
                Ok(())
            }
            ["group", name, threshold, ref members @ ..] if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            ["quorum", name] => {
                if name != NONE && !self.names.contains_key(name) {
                    return Err(LogPolicyProblem::Unknown { name: name.to_owned() });
                }
                self.quorums.push(name.to_owned());
                Ok(())
            }
            _ => Err(LogPolicyProblem::Line { found: line.to_owned() }),
        }
    }

    fn key(&self, text: &str, kind: NoteKeyKind) -> Result<NoteKey, LogPolicyProblem> {
        let key: NoteKey = text.parse()?;
        if key.kind() != kind {
            return Err(LogPolicyProblem::Kind { name: key.name().clone(), found: key.kind() });
        }
        // A log that is its own witness has none.
        let known = self.logs.iter().chain(self.witnesses.iter().map(|(_, key)| key));
        if known.into_iter().any(|known| known.public() == key.public()) {
            return Err(LogPolicyProblem::KeyTwice { name: key.name().clone() });
        }
        if self.logs.len() == MOST || self.witnesses.len() == MOST {
            return Err(LogPolicyProblem::TooMany);
        }
        Ok(key)
    }

    fn name(&mut self, name: &str) -> Result<(), LogPolicyProblem> {
        if name == NONE || self.names.insert(name.to_owned(), false).is_some() {
            return Err(LogPolicyProblem::NameTwice { name: name.to_owned() });
        }
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), LogPolicyProblem> {
        if self.groups.len() == MOST {
            return Err(LogPolicyProblem::TooMany);
        }
        for member in members {
            match self.names.get_mut(*member) {
                None => return Err(LogPolicyProblem::Unknown { name: (*member).to_owned() }),
                Some(true) => return Err(LogPolicyProblem::MemberTwice { name: (*member).to_owned() }),
                Some(used) => *used = true,
            }
        }
        let count = match threshold {
            "all" => members.len(),
            "any" => 1,
            number => number.parse().ok().filter(|_| number.bytes().all(|c| c.is_ascii_digit())).unwrap_or(0),
        };
        if !(1..=members.len()).contains(&count) {
            return Err(LogPolicyProblem::Threshold { members: members.len(), found: threshold.to_owned() });
        }
        self.name(name)?;
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.groups.push(Group { name: name.to_owned(), threshold: count, members });
        Ok(())
    }
}
