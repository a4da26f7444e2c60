//! Whom this host believes: reading envelope, policy and floors, and comparing payloads.
//!
//! The decisions are in `manifests::verify`; here are the files that they need. Documents are read
//! up to the size that they may have and no further. A policy that somebody else than its owner
//! could write is refused, since it decides what root loads into the kernel.
//!
//! [`authenticate`] is the way for whatever acts on a manifest; it raises no floor. Whoever begins a
//! transaction calls it under the host's lock and then raises them ([`crate::state::floors`]).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::bounded::{self, BoundedError};
use manifests::verify::AcceptedVersion;
use manifests::{
    Envelope, EnvelopeError, Manifest, Payload, Policy, PolicyError, Sha256, SuccessionError, TrustFloor,
    Verified, VerifyAt, VerifyError,
};
use serde::Serialize;

use crate::operations::publication::Beside;
use crate::state::floors::FloorError;
use crate::state::payloads::hash_while;

/// Why a manifest is not acted upon.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}")]
    Read {
        /// `manifest` or `policy`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than such a document may be; the rest was not read.
    #[error("the {what} {path} is too large")]
    TooLarge {
        /// `manifest` or `policy`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
        /// The size of the file in bytes, where it has one.
        found: Option<u64>,
    },
    /// The file is not JSON: most likely a manifest that was never put into an envelope.
    #[error("the manifest {path} is not signed")]
    NotAnEnvelope {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a well-formed envelope.
    #[error("the manifest {path} cannot be read")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// Somebody could change the policy who should not.
    #[error("the policy {path} is not safe from change")]
    PolicyUnsafe {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The policy is not valid.
    #[error("the policy {path} is not valid")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PolicyError,
    },
    /// The policy is not the edition that was installed last.
    #[error("the policy {path} is not the one that this host has accepted")]
    PolicyReplaced {
        /// The file.
        path: PathBuf,
        /// The edition that was accepted, and the fingerprint of its bytes.
        accepted: AcceptedVersion,
        /// The fingerprint of the file.
        found: Sha256,
        /// Its edition, if it has one.
        version: Option<u64>,
    },
    /// Nobody said which policy is expected.
    #[error("{path} would be this host's first signed policy, and nobody vouches for that")]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// Its fingerprint.
        fingerprint: Sha256,
    },
    /// The policy does not follow the one in force.
    #[error("the policy {path} does not become this host's")]
    Succession {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SuccessionError,
    },
    /// The floors cannot be read from the store.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The manifest is not authentic, or not any more.
    #[error("the manifest {path} is not authentic")]
    NotAuthentic {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
}

/// Reads a trust policy.
///
/// # Errors
/// [`TrustError`]; [`TrustError::PolicyUnsafe`] unless it belongs to root or the caller, and its
/// group and others cannot write it.
pub fn read_policy(path: &Path) -> Result<Policy, TrustError> {
    read_edition(path).map(|(policy, _)| policy)
}

/// Reads the policy that is in force: where a signed edition was installed, that very one.
///
/// # Errors
/// As [`read_policy`], and [`TrustError::PolicyReplaced`].
pub fn policy_in_force(path: &Path, floor: &TrustFloor) -> Result<Policy, TrustError> {
    let (policy, found) = read_edition(path)?;
    match floor.policy {
        Some(accepted) if accepted.manifest != found => Err(TrustError::PolicyReplaced {
            path: path.to_owned(),
            accepted,
            found,
            version: policy.edition().map(|edition| edition.version),
        }),
        _ => Ok(policy),
    }
}

/// A policy, and the fingerprint of its bytes.
///
/// # Errors
/// As [`read_policy`].
pub fn read_edition(path: &Path) -> Result<(Policy, Sha256), TrustError> {
    let (file, bytes) = read("policy", path, Policy::MAX_BYTES)?;
    let facts = file.metadata().map_err(read_error("policy", path))?;
    let owned = [0, nix::unistd::geteuid().as_raw()].contains(&facts.uid());
    if !owned || facts.mode() & 0o022 != 0 {
        let mode = facts.mode() & 0o7777;
        return Err(TrustError::PolicyUnsafe { path: path.to_owned(), owner: facts.uid(), mode });
    }
    let policy =
        Policy::parse(&bytes).map_err(|source| TrustError::Policy { path: path.to_owned(), source })?;
    Ok((policy, Sha256::of(&bytes)))
}

/// Reads an envelope; checks no signature.
///
/// # Errors
/// [`TrustError`].
pub fn read_envelope(path: &Path) -> Result<Envelope, TrustError> {
    let (_, bytes) = read("manifest", path, Envelope::MAX_BYTES)?;
    if !Envelope::looks_like_one(&bytes) {
        return Err(TrustError::NotAnEnvelope { path: path.to_owned() });
    }
    Envelope::parse(&bytes).map_err(|source| TrustError::Envelope { path: path.to_owned(), source })
}

/// Reads a manifest that this host may act upon.
///
/// # Errors
/// [`TrustError`]; nothing was changed.
pub fn authenticate(
    manifest: &Path,
    policy: &Path,
    floor: &TrustFloor,
    now: Timestamp,
) -> Result<Verified<Manifest>, TrustError> {
    let policy = policy_in_force(policy, floor)?;
    let mut floor = floor.clone();
    floor.see(&policy, now);
    authenticate_by(manifest, &policy, &floor, now)
}

/// As [`authenticate`], by a policy that was read, and by floors that have seen it.
///
/// # Errors
/// [`TrustError`]; nothing was changed.
pub fn authenticate_by(
    manifest: &Path,
    policy: &Policy,
    floor: &TrustFloor,
    now: Timestamp,
) -> Result<Verified<Manifest>, TrustError> {
    believe(manifest, &read_envelope(manifest)?, policy, floor, now, None)
}

/// As [`authenticate_by`], of an envelope that was read from that file; what proves that the manifest is in a log may be in `store`,
/// if it does not lie beside it.
///
/// # Errors
/// [`TrustError::NotAuthentic`], or a proof that cannot be read.
pub fn believe(
    manifest: &Path,
    envelope: &Envelope,
    policy: &Policy,
    floor: &TrustFloor,
    now: Timestamp,
    store: Option<&Path>,
) -> Result<Verified<Manifest>, TrustError> {
    Beside::wanted_by(policy, manifest, envelope, store)?
        .with(floor, |publication| policy.verify_published(envelope, publication, VerifyAt { now, floor }))
        .map_err(|source| TrustError::NotAuthentic { path: manifest.to_owned(), source })
}

fn read_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> TrustError + 'a {
    move |source| TrustError::Read { what, path: path.to_owned(), source }
}

fn read(what: &'static str, path: &Path, limit: usize) -> Result<(File, Vec<u8>), TrustError> {
    let error = read_error(what, path);
    let file = File::open(path).map_err(&error)?;
    let facts = file.metadata().map_err(&error)?;
    let too_large = |found| TrustError::TooLarge { what, path: path.to_owned(), limit, found };
    if facts.is_file() && facts.len() > limit as u64 {
        return Err(too_large(Some(facts.len())));
    }
    match bounded::read(&file, limit) {
        Ok(bytes) => Ok((file, bytes)),
        Err(BoundedError::TooLarge { .. }) => Err(too_large(None)),
        Err(BoundedError::Io(source)) => Err(error(source)),
    }
}

/// What a payload file is, compared with what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PayloadState {
    /// It has the size and the digest.
    Matches,
    /// There is no such file.
    Missing,
    /// It has another size, in bytes.
    Size {
        /// Its size.
        found: u64,
    },
    /// It has other bytes.
    Digest {
        /// Their digest.
        found: Sha256,
    },
    /// It is not a regular file, or reading it failed.
    Unreadable {
        /// Why.
        problem: String,
    },
}

/// Compares a payload's file in `directory` with what the manifest says of it.
pub fn compare_payload(payload: &Payload, directory: &Path) -> PayloadState {
    let compare = || -> io::Result<PayloadState> {
        // Opening a named pipe without this flag would wait for its writer.
        let path = directory.join(payload.file.as_str());
        let file = match File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PayloadState::Missing),
            file => file?,
        };
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if facts.len() != payload.size {
            return Ok(PayloadState::Size { found: facts.len() });
        }
        // One byte more than expected is enough to know that it grew meanwhile.
        let (found, size) = hash_while(&mut file.take(payload.size.saturating_add(1)), |_| Ok(()))?;
        Ok(match (size == payload.size, found == payload.sha256) {
            (false, _) => PayloadState::Size { found: size },
            (true, false) => PayloadState::Digest { found },
            (true, true) => PayloadState::Matches,
        })
    };
    compare().unwrap_or_else(|error| PayloadState::Unreadable { problem: error.to_string() })
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
