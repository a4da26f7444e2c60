//! Whether a host takes it that a document is in a log.
//!
//! In this order, and to the first refusal:
//!
//! 1. there is a proof, and it can be read;
//! 2. its checkpoint is signed by a log of the policy and cosigned by the policy's quorum;
//! 3. the entry, made of the envelope that is looked at, is in the tree of that checkpoint;
//! 4. the checkpoint agrees with the newest one that this host has seen of that log.
//!
//! For the last, where the two are of different sizes, the log itself is asked ([`History`]): its hashes lead from one
//! checkpoint to the other, or show that they are of two different logs. Where the log is not at hand, a larger
//! checkpoint is taken on the word of the policy's witnesses, who have each followed the log from checkpoint to
//! checkpoint; without witnesses it is refused, and an earlier one always is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::TreeHead;
use super::checkpoint::Checkpoint;
use super::entry::LogEntry;
use super::note::{Note, NoteName};
use super::proof::{LogProof, ProofError};
use super::quorum::{CheckpointRefusal, Cosigner, LogPolicy};
use super::tree::{self, Frontier, Position};
use crate::digest::Sha256;

/// The hashes of a log, from whoever has them. Nothing that comes from here is believed: it proves itself or nothing.
pub trait History {
    /// The hashes of these full subtrees; nothing if one of them is not to be had.
    fn nodes(&self, wanted: &[Position]) -> Option<Vec<Sha256>>;
}

/// What came along with an envelope.
#[derive(Clone, Copy, Default)]
pub struct Publication<'a> {
    /// The proof that it is logged.
    pub proof: Option<&'a [u8]>,
    /// The log.
    pub history: Option<&'a dyn History>,
}

impl fmt::Debug for Publication<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (proof, history) = (self.proof.map(<[u8]>::len), self.history.is_some());
        write!(f, "Publication {{ proof: {proof:?}, history: {history} }}")
    }
}

/// The newest checkpoint that a host has seen of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCheckpoint {
    /// Size and root.
    pub head: TreeHead,
    /// The signed note, as it was: evidence, should the log fork.
    pub note: String,
}

/// That a document is in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// The log.
    pub origin: NoteName,
    /// The entry's number, from 0.
    pub index: u64,
    /// The tree that it is in.
    pub head: TreeHead,
    /// The witnesses of the policy that have seen that tree.
    pub cosigners: Vec<Cosigner>,
    /// The checkpoint with its signatures.
    #[serde(skip)]
    pub note: String,
}

impl Logged {
    /// What a host remembers of it.
    pub fn seen(&self) -> SeenCheckpoint {
        SeenCheckpoint { head: self.head, note: self.note.clone() }
    }
}

/// Why it is not taken that a document is in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogRefusal {
    /// Nobody has brought a proof.
    #[error("nothing proves that it was published in a log")]
    NoProof {
        /// The quorum, in words.
        needed: String,
    },
    /// What was brought is none.
    #[error("the proof of its publication cannot be read")]
    Proof(#[from] ProofError),
    /// The checkpoint of the proof is not one that the policy takes.
    #[error("the checkpoint of the proof of its publication is not accepted")]
    Checkpoint(#[from] CheckpointRefusal),
    /// The proof is of something else.
    #[error("the proof of its publication is not of this envelope")]
    NotIncluded {
        /// The log.
        origin: NoteName,
        /// Which entry the proof is of.
        index: u64,
        /// What the entry would have to be.
        entry: Box<LogEntry>,
    },
    /// The log shows different histories to different people: both checkpoints are signed by it.
    #[error("the log {origin} has forked: it has signed two histories")]
    Forked {
        /// The log.
        origin: NoteName,
        /// What was seen before: the signed note.
        seen: String,
        /// What is shown now: the signed note.
        shown: String,
    },
    /// It is older than what was seen, and nothing shows that it is the same log.
    #[error("the checkpoint of the log {origin} is older than one seen before")]
    Older {
        /// The log.
        origin: NoteName,
        /// The size seen before.
        seen: u64,
        /// Its size.
        found: u64,
    },
    /// It is newer than what was seen, and nothing shows that it is the same log.
    #[error("nothing shows that the log {origin} still begins as it did")]
    Unproven {
        /// The log.
        origin: NoteName,
        /// The size seen before.
        seen: u64,
        /// Its size.
        found: u64,
    },
}

impl LogRefusal {
    /// A word for each refusal, for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoProof { .. } => "not-logged",
            Self::Proof(_) => "malformed-log-proof",
            Self::Checkpoint(CheckpointRefusal::Quorum { .. }) => "too-few-witnesses",
            Self::Checkpoint(CheckpointRefusal::UnknownLog { .. }) => "unknown-log",
            Self::Checkpoint(_) => "bad-checkpoint",
            Self::NotIncluded { .. } => "not-in-log",
            Self::Forked { .. } => "log-forked",
            Self::Older { .. } => "log-rolled-back",
            Self::Unproven { .. } => "log-unproven",
        }
    }

    /// What should have been the case.
    pub fn expected(&self) -> String {
        match self {
            Self::NoProof { needed } => {
                format!("a proof that it is in a log of the policy, witnessed by {needed}")
            }
            Self::Proof(_) => "a C2SP tlog-proof".to_owned(),
            Self::Checkpoint(CheckpointRefusal::Quorum { needed, .. }) => format!("cosignatures of {needed}"),
            Self::Checkpoint(CheckpointRefusal::UnknownLog { expected, .. }) => {
                let names: Vec<&str> = expected.iter().map(NoteName::as_str).collect();
                format!("a checkpoint signed by {}", names.join(" or "))
            }
            Self::Checkpoint(_) => "a checkpoint as its log and its witnesses have signed it".to_owned(),
            Self::NotIncluded { entry, .. } => {
                format!(
                    "an entry for {}@{} with sha256 {} and its signers",
                    entry.name, entry.version, entry.sha256
                )
            }
            Self::Forked { seen, .. } => words(seen),
            Self::Older { seen, .. } => format!("{seen} entries or more"),
            Self::Unproven { seen, .. } => {
                format!("the log's hashes from {seen} entries on, or witnesses in the policy")
            }
        }
    }

    /// What was the case.
    pub fn found(&self) -> String {
        match self {
            Self::NoProof { .. } => "none".to_owned(),
            Self::Proof(error) => system_words(error),
            Self::Checkpoint(CheckpointRefusal::Quorum { cosigned, .. }) if cosigned.is_empty() => {
                "none".to_owned()
            }
            Self::Checkpoint(CheckpointRefusal::Quorum { cosigned, .. }) => cosigned.join(", "),
            Self::Checkpoint(CheckpointRefusal::UnknownLog { found, .. }) => {
                format!("one of {found} that none of them has signed")
            }
            Self::Checkpoint(error) => system_words(error),
            Self::NotIncluded { origin, index, .. } => format!("another entry as number {index} of {origin}"),
            Self::Forked { shown, .. } => words(shown),
            Self::Older { found, .. } | Self::Unproven { found, .. } => format!("{found} entries"),
        }
    }
}

fn system_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// A checkpoint in words.
fn words(note: &str) -> String {
    let text = note.split_once("\n\n").map_or(note, |(text, _)| text);
    match Checkpoint::parse(&format!("{text}\n")) {
        Ok(Checkpoint { head, .. }) => format!("{} entries with root {}", head.size, head.root),
        Err(_) => "a checkpoint that cannot be read".to_owned(),
    }
}

/// How two checkpoints of one log stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The smaller is the beginning of the larger, or they are the same.
    Consistent,
    /// They are of two histories, which is proven.
    Forked,
    /// It cannot be told: the hashes are not to be had, or are not those of the larger one.
    Unproven,
}

/// How two heads stand to each other, by the log's own hashes.
pub fn relate(one: &TreeHead, other: &TreeHead, history: Option<&dyn History>) -> Relation {
    let (old, new) = if one.size <= other.size { (one, other) } else { (other, one) };
    if old.size == new.size {
        return if old.root == new.root { Relation::Consistent } else { Relation::Forked };
    }
    if old.size == 0 {
        // Every tree begins with nothing, and the root of nothing is looked at when a checkpoint is read.
        return Relation::Consistent;
    }
    let Some(history) = history else { return Relation::Unproven };
    let nodes = |wanted: &[Position]| history.nodes(wanted).ok_or(());
    // What the larger tree has in the place of the smaller one. It is only a claim of whoever gave the hashes, until
    // the proof shows that it is a part of the larger tree.
    let begins = || {
        let peaks = nodes(&Frontier::positions(old.size)).ok()?;
        let head = Frontier::new(old.size, peaks)?.head();
        let proof = tree::prove_consistency(old.size, new.size, nodes).ok()??;
        tree::extends(new, &head, &proof).then_some(head)
    };
    match begins() {
        Some(head) if head == *old => Relation::Consistent,
        Some(_) => Relation::Forked,
        None => Relation::Unproven,
    }
}

/// Judges what came along with an envelope; see the module for the rules and their order.
///
/// # Errors
/// [`LogRefusal`].
pub(crate) fn judge(
    policy: &LogPolicy,
    entry: &LogEntry,
    publication: Publication<'_>,
    seen: &BTreeMap<NoteName, SeenCheckpoint>,
) -> Result<Logged, LogRefusal> {
    let proof = publication.proof.ok_or_else(|| LogRefusal::NoProof { needed: policy.needed() })?;
    let proof = LogProof::parse(proof)?;
    let accepted = policy.accept(&proof.note)?;
    let Checkpoint { origin, head } = accepted.checkpoint;
    if !proof.holds(&entry.to_bytes()) {
        let (index, entry) = (proof.index, Box::new(entry.clone()));
        return Err(LogRefusal::NotIncluded { origin, index, entry });
    }
    let logged = Logged {
        origin: origin.clone(),
        index: proof.index,
        head,
        cosigners: accepted.cosigners,
        note: note(&proof.note),
    };
    let Some(before) = seen.get(&origin) else { return Ok(logged) };
    match relate(&before.head, &head, publication.history) {
        Relation::Consistent => Ok(logged),
        Relation::Forked => Err(LogRefusal::Forked { origin, seen: before.note.clone(), shown: logged.note }),
        Relation::Unproven if head.size < before.head.size => {
            Err(LogRefusal::Older { origin, seen: before.head.size, found: head.size })
        }
        Relation::Unproven if policy.needs_witnesses() => Ok(logged),
        Relation::Unproven => Err(LogRefusal::Unproven { origin, seen: before.head.size, found: head.size }),
    }
}

fn note(note: &Note) -> String {
    note.to_string()
}
