//! That an entry is in a log, in one file: C2SP `tlog-proof`.
//!
//! Index, path and checkpoint with all its signatures. The entry itself is not in it: who asks has it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::TreeHead;
use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::Note;
use super::tree;
use crate::digest::Sha256;

/// The first line.
const MAGIC: &str = "c2sp.org/tlog-proof@v1";

/// The most hashes of a path: those of a tree of 2^48 leaves.
const LONGEST: usize = 48;

/// A proof that nobody has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// Which entry, from 0.
    pub index: u64,
    /// The hashes beside the way from the entry to the root, from the leaf up.
    pub path: Vec<Sha256>,
    /// The log's checkpoint.
    pub checkpoint: Checkpoint,
    /// The same with its signatures.
    pub note: Note,
}

/// Why bytes are not a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Other lines than a proof has.
    #[error("not a proof of a log: expected {expected}")]
    Form {
        /// What was not there.
        expected: &'static str,
    },
    /// What it ends with is no checkpoint.
    #[error("the checkpoint in the proof cannot be read")]
    Checkpoint(#[source] CheckpointError),
}

impl LogProof {
    /// The most bytes of a proof.
    pub const MAX_BYTES: usize = Note::MAX_BYTES + (64 << 10);

    /// How the names of files with proofs end; before it stands the name of the file that is proven.
    pub const EXTENSION: &str = ".tlog-proof";

    /// Reads a proof; checks nothing of it. Extra data, which nobody signs, is left out.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let form = |expected| ProofError::Form { expected };
        if bytes.len() > Self::MAX_BYTES {
            return Err(form("at most 128 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| form("UTF-8"))?;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(form("an empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(MAGIC) {
            return Err(form("a first line c2sp.org/tlog-proof@v1"));
        }
        let mut line = lines.next();
        if let Some(extra) = line.and_then(|line| line.strip_prefix("extra ")) {
            STANDARD.decode(extra).map_err(|_| form("extra data in base64"))?;
            line = lines.next();
        }
        let index = line.and_then(|line| line.strip_prefix("index ")).ok_or(form("a line index NUMBER"))?;
        let number: u64 = index.parse().map_err(|_| form("a line index NUMBER"))?;
        if number.to_string() != index {
            return Err(form("an index without signs and zeros in front"));
        }
        let mut path = Vec::new();
        for line in lines {
            let hash = STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok());
            path.push(Sha256::from_bytes(hash.ok_or(form("hashes of 32 bytes in base64"))?));
            if path.len() > LONGEST {
                return Err(form("at most 48 hashes"));
            }
        }
        let (checkpoint, note) = Checkpoint::of(checkpoint.as_bytes()).map_err(ProofError::Checkpoint)?;
        Ok(Self { index: number, path, checkpoint, note })
    }

    /// Whether it leads from an entry to the root of its checkpoint.
    pub fn holds(&self, entry: &[u8]) -> bool {
        let TreeHead { size, .. } = self.checkpoint.head;
        self.index < size && tree::includes(&self.checkpoint.head, self.index, entry, &self.path)
    }
}

impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MAGIC}\nindex {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash.as_bytes())))?;
        write!(f, "\n{}", self.note)
    }
}
