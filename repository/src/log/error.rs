//! Why a log was not made, read or continued.

use std::io;
use std::path::PathBuf;

use manifests::Sha256;
use manifests::bounded::BoundedError;
use manifests::log::{CheckpointError, CheckpointRefusal, EntryError, NoteName};

use crate::authoring::AuthoringError;
use crate::transport::FetchError;

/// Why a log was not made, read or continued.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is something already.
    #[error("{directory} is not empty")]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// There is none.
    #[error("{place} is no log: it has no checkpoint")]
    NotALog {
        /// Where it was looked for.
        place: String,
    },
    /// Another command changes it.
    #[error("another command is changing {directory}")]
    Busy {
        /// The directory.
        directory: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{path} is too large")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        source: BoundedError,
    },
    /// A file cannot be fetched.
    #[error("a file of the log cannot be fetched")]
    Fetch(#[from] FetchError),
    /// Its checkpoint is none.
    #[error("the checkpoint of {place} cannot be read")]
    Checkpoint {
        /// Whose.
        place: String,
        /// Why.
        source: CheckpointError,
    },
    /// Its checkpoint is not signed by whom it should be.
    #[error("the checkpoint of {place} is not accepted")]
    NotAccepted {
        /// Whose.
        place: String,
        /// Why.
        source: CheckpointRefusal,
    },
    /// The key is not the log's.
    #[error("this key does not sign the log {origin}")]
    AnotherKey {
        /// The log.
        origin: NoteName,
    },
    /// A tile or an entry bundle is missing.
    #[error("{place} lacks {path}, which a tree of {size} entries has")]
    Missing {
        /// Whose.
        place: String,
        /// The file.
        path: String,
        /// The size of the tree.
        size: u64,
    },
    /// A tile or an entry bundle has another form.
    #[error("{path} is not what a log has there: expected {expected}")]
    Malformed {
        /// The file.
        path: String,
        /// What it should be.
        expected: String,
    },
    /// The hashes are not those that the checkpoint is of.
    #[error("{path} is not what the checkpoint of {size} entries is of: expected {expected}, found {found}")]
    Changed {
        /// The file.
        path: String,
        /// The size of the tree.
        size: u64,
        /// The hash that it should have.
        expected: Sha256,
        /// The hash that it has.
        found: Sha256,
    },
    /// An envelope cannot be logged.
    #[error("{what} cannot be logged")]
    Entry {
        /// The file.
        what: String,
        /// Why.
        source: EntryError,
    },
    /// A file is no signed manifest.
    #[error("{path} is not a signed manifest")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why.
        source: manifests::EnvelopeError,
    },
    /// It is not in the log.
    #[error("{what} is not in the log")]
    Unlogged {
        /// What.
        what: String,
    },
    /// Cosignatures of another checkpoint.
    #[error("{path} is a checkpoint of {found}, and the log's newest is of {expected}")]
    AnotherCheckpoint {
        /// The file.
        path: PathBuf,
        /// The log's, in words.
        expected: String,
        /// The file's, in words.
        found: String,
    },
    /// Two histories, both signed by the log.
    #[error("the log {origin} has forked: it has signed two histories")]
    Forked {
        /// The log.
        origin: NoteName,
        /// What was seen before, in words.
        seen: String,
        /// What is shown now, in words.
        shown: String,
        /// Where both checkpoints are kept.
        evidence: Vec<PathBuf>,
    },
    /// An earlier checkpoint than the one seen before.
    #[error("the log {origin} shows an earlier checkpoint than before")]
    RolledBack {
        /// The log.
        origin: NoteName,
        /// The size seen before.
        seen: u64,
        /// The size that it shows.
        found: u64,
    },
    /// The log's hashes do not lead from one checkpoint to the other.
    #[error("the hashes of the log {origin} do not lead from {seen} to {found} entries")]
    Unproven {
        /// The log.
        origin: NoteName,
        /// The size seen before.
        seen: u64,
        /// The size that it shows.
        found: u64,
    },
}

impl LogError {
    pub(super) fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// What the files of a repository are written by has its own errors.
impl From<AuthoringError> for LogError {
    fn from(error: AuthoringError) -> Self {
        match error {
            AuthoringError::Io { doing, path, source } => Self::Io { doing, path, source },
            AuthoringError::TooLarge { path, source } => Self::TooLarge { path, source },
            AuthoringError::Busy { directory } => Self::Busy { directory },
            AuthoringError::Log(error) => *error,
            other => {
                Self::Io { doing: "write", path: PathBuf::new(), source: io::Error::other(other.to_string()) }
            }
        }
    }
}
