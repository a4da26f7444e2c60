//! The log of what was published: whether a manifest stands in it, and who has seen that it is one log for all.
//!
//! The formats are C2SP's: `signed-note`, `tlog-checkpoint`, `tlog-cosignature`, `tlog-proof`, `tlog-policy`; the tree is
//! RFC 6962's. Bytes in, values out, as everywhere in this crate: how a log is made and read is `repository::log`.
//!
//! - [`note`]: signed texts and the keys that sign them
//! - [`checkpoint`]: a log's head in such a text
//! - [`quorum`]: the logs and witnesses that somebody believes
//! - [`tree`]: roots and proofs
//! - [`entry`]: what is logged of a document
//! - [`proof`]: that an entry is in a log, in one file
//! - [`judge`]: all of it together, as a host asks it

pub mod checkpoint;
pub mod entry;
pub mod judge;
pub mod note;
pub mod proof;
pub mod quorum;
pub mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{EntryError, LogEntry};
pub use judge::{History, LogRefusal, Logged, Publication, Relation, SeenCheckpoint, relate};
pub use note::{Note, NoteError, NoteKey, NoteKeyError, NoteKeyKind, NoteName, NoteSignature, NoteSigner};
pub use proof::{LogProof, ProofError};
pub use quorum::{Accepted, CheckpointRefusal, Cosigner, LogPolicy, LogPolicyError};

/// Size and root of a tree. A controller's ledger has one, too.
pub type TreeHead = crate::grant::LedgerHead;
