//! Making a repository: drafts, signatures of several people on several machines, publication.
//!
//! ```text
//! DIR/public/metadata/    what is served: N.root.json, N.targets.json, N.ROLE.json, N.snapshot.json, timestamp.json
//! DIR/public/targets/     manifests and payloads, by their digests
//! DIR/staged/             drafts and files that are not published yet
//! ```
//!
//! `root`, `targets` and the roles below it are signed by people, offline, by threshold: each change makes a draft, which
//! is carried to who signs it and back, and is published when it has all its signatures. `snapshot` and `timestamp` are
//! signed by a key on the machine that publishes, which can vouch for nothing new.
//!
//! Invariants:
//! - Drafts are published all at once or not at all.
//! - What is served is complete after every single write: files, then roles, then root, snapshot and timestamp.
//! - Whether signatures suffice is judged by the verifier that clients use.
//!
//! - `metadata`: the documents
//! - `split`: which role lists what
//! - `logged`: the log of what was published, in `DIR/public/log`
//! - [`draft`]: adding, removing, delegating, rotating, signing
//! - [`publish`]: publication and the daily refresh
//! - [`status`]: what ends when, and whose signatures are missing

pub(crate) mod disk;
pub mod draft;
mod logged;
pub(crate) mod metadata;
pub mod publish;
mod split;
pub mod status;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use manifests::bounded::BoundedError;
use manifests::{EnvelopeError, KeyId, ManifestError, Sha256, UtcTime};
use nix::fcntl::{Flock, FlockArg};

use crate::client::ClientError;

/// How long documents are valid, by how often people come together to sign them.
const ROOT: SignedDuration = SignedDuration::from_hours(365 * 24);
const TARGETS: SignedDuration = SignedDuration::from_hours(180 * 24);
const ONLINE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// When their end is worth an alarm: people need weeks, and a timer that has failed for four days is broken.
const OFFLINE_ALARM: SignedDuration = SignedDuration::from_hours(30 * 24);
const ONLINE_ALARM: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Why a repository was not made, changed or published.
#[derive(Debug, thiserror::Error)]
pub enum AuthoringError {
    /// There is one already.
    #[error("{directory} is not empty")]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// There is none.
    #[error("{directory} is no repository")]
    NotARepository {
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
    /// Another command changes it.
    #[error("another command is changing {directory}")]
    Busy {
        /// The directory.
        directory: PathBuf,
    },
    /// A document is none.
    #[error("{what} is not what a repository has")]
    Malformed {
        /// Which.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file is too large.
    #[error("{path} is too large")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        source: BoundedError,
    },
    /// A manifest is not signed.
    #[error("{path} is not a signed manifest")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EnvelopeError,
    },
    /// What is signed is no manifest.
    #[error("what {path} says is not a manifest")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A version is listed with other bytes.
    #[error("{name}@{version} is in the repository with other bytes")]
    VersionTaken {
        /// The manifest.
        name: String,
        /// Its version.
        version: u64,
    },
    /// A payload is not the signed one.
    #[error("payload {path} is not the one that the manifest names: expected {expected}, found {found}")]
    Payload {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// It is not listed.
    #[error("the repository has no {what}")]
    Unlisted {
        /// What.
        what: String,
    },
    /// There are two names for one key, or one key in two places that must not meet.
    #[error("{key} is a key of {one} and of {other}: expected different keys")]
    KeyTwice {
        /// The key's id.
        key: String,
        /// Where it is.
        one: String,
        /// And where else.
        other: String,
    },
    /// A role that nobody, or anybody, can fill.
    #[error("role {role}: expected a threshold of 1 to {keys}, the number of its keys, found {threshold}")]
    Threshold {
        /// The role.
        role: String,
        /// How many keys it has.
        keys: usize,
        /// What was asked for.
        threshold: u32,
    },
    /// A key signs nothing of what is staged.
    #[error("key {key} signs nothing of what is staged")]
    NothingToSign {
        /// Its id.
        key: KeyId,
    },
    /// The other draft is another document.
    #[error("{path} is another draft of {role} than the one that is staged")]
    AnotherDraft {
        /// The file.
        path: PathBuf,
        /// The role.
        role: String,
    },
    /// Signatures are missing.
    #[error("signatures are missing: {}", .lacking.join("; "))]
    Unsigned {
        /// For each role, what is missing.
        lacking: Vec<String>,
    },
    /// The key that signs daily is not the root's.
    #[error("the root does not let this key sign {role}")]
    NotOnline {
        /// The role.
        role: &'static str,
        /// What the verifier says.
        source: sigstore_tuf::Error,
    },
    /// What is published does not pass its own client.
    #[error("what was to be published is not what clients accept")]
    NotAccepted(#[source] Box<ClientError>),
    /// The log of the repository is not continued.
    #[error("the log of the repository is not continued")]
    Log(#[source] Box<crate::log::LogError>),
    /// The repository has a log, and its key was not given.
    #[error("the repository has a log, and the key that signs it was not given")]
    NoLogKey {
        /// The log.
        directory: PathBuf,
    },
    /// A time beyond the calendar.
    #[error("the clock says {now}, and no document can be valid from there")]
    Clock {
        /// Now.
        now: Timestamp,
    },
}

/// A repository that is being made.
#[derive(Debug, Clone)]
pub struct Repository {
    directory: PathBuf,
}

impl Repository {
    /// The repository in a directory.
    ///
    /// # Errors
    /// [`AuthoringError::NotARepository`].
    pub fn open(directory: &Path) -> Result<Self, AuthoringError> {
        match directory.join("public/metadata").is_dir() && directory.join("staged").is_dir() {
            true => Ok(Self { directory: directory.to_owned() }),
            false => Err(AuthoringError::NotARepository { directory: directory.to_owned() }),
        }
    }

    fn metadata(&self) -> PathBuf {
        self.directory.join("public/metadata")
    }

    fn targets(&self) -> PathBuf {
        self.directory.join("public/targets")
    }

    fn staged(&self) -> PathBuf {
        self.directory.join("staged")
    }

    /// Keeps other commands from changing it.
    fn lock(&self) -> Result<Flock<File>, AuthoringError> {
        let path = self.directory.join("lock");
        let file = File::create(&path).map_err(io_error("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| AuthoringError::Busy { directory: self.directory.clone() })
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuthoringError {
    let path = path.to_owned();
    move |source| AuthoringError::Io { doing, path, source }
}

/// The end of what is signed now.
fn ends(now: Timestamp, valid: SignedDuration) -> Result<UtcTime, AuthoringError> {
    now.checked_add(valid).map(UtcTime::floor).map_err(|_| AuthoringError::Clock { now })
}

/// The path of a target below `targets/`: its file name begins with its digest.
fn placed(path: &str, digest: &Sha256) -> String {
    match path.rsplit_once('/') {
        Some((directory, file)) => format!("{directory}/{digest}.{file}"),
        None => format!("{digest}.{path}"),
    }
}

#[cfg(test)]
mod size_tests;
