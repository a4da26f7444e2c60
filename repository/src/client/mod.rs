//! The client: what a host may learn of a repository, and how it gets it.
//!
//! TUF 1.0.x, 5 "Detailed client workflow", by `sigstore-tuf`, over [our transport](crate::transport) and
//! [our store](crate::store). Besides what it checks:
//! - a root or a delegation that lists one key under two ids is refused ([`keys`]): a threshold counts keys;
//! - what could not be kept on disk is not acted upon;
//! - a place that fails is followed by the next, and a refresh takes its metadata from one place;
//! - a delegated role whose digest the snapshot gives, and which is kept, is not fetched again ([`place`]).
//!
//! What a repository says of manifests ([`catalogue`]) selects what to fetch. Whether to believe a manifest is asked
//! of the host's own policy, as if it had come by post.

pub mod catalogue;
pub(crate) mod keys;
mod place;

use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use jiff::{SignedDuration, Timestamp};
use manifests::Sha256;
use sigstore_tuf::metadata::TargetFile;
use sigstore_tuf::{Error as TufError, TrustedMetadataSet, Updater};

use crate::client::place::Place;
use crate::crypto;
use crate::store::Store;
use crate::transport::FetchError;
use crate::transport::mirrors::{Mirrors, Target};

/// Why a repository tells nothing, or a target is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The pinned root is none.
    #[error("the pinned root is not a root that vouches for itself")]
    Root(#[source] TufError),
    /// No place gave metadata that holds.
    #[error("no place of the repository gives metadata that holds:{}", listed(.places))]
    Refresh {
        /// Each place, and why.
        places: Vec<(String, Refusal)>,
    },
    /// What was learnt cannot be kept.
    #[error("what the repository says cannot be kept at {path}")]
    Lost {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A role or a target cannot be looked up.
    #[error("{what} cannot be looked up")]
    Lookup {
        /// What.
        what: String,
        /// Why.
        source: TufError,
    },
    /// No role vouches for it.
    #[error("the repository has no {path}")]
    NoSuchTarget {
        /// Its path.
        path: String,
    },
    /// It is listed, but no place has it.
    #[error("no place has {path}, which the repository lists")]
    Missing {
        /// Its path.
        path: String,
    },
    /// It cannot be fetched.
    #[error("{path} cannot be fetched")]
    Fetch {
        /// Its path.
        path: String,
        /// Why.
        source: FetchError,
    },
    /// It cannot be read to its end.
    #[error("{path} cannot be read to its end")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Its bytes are not the listed ones.
    #[error("{path} is not what the repository lists: expected {expected}, found {found}")]
    Changed {
        /// Its path.
        path: String,
        /// What is listed.
        expected: String,
        /// What came.
        found: String,
    },
    /// It is listed without a digest that this program knows, or is larger than the caller can use.
    #[error("{path} cannot be used: {why}")]
    Unusable {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
}

/// Why the metadata of one place does not hold.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Refusal(#[from] TufError);

impl Refusal {
    /// Whether it is authentic, and past its time.
    pub fn is_expiry(&self) -> bool {
        matches!(self.0, TufError::Expired { .. })
    }

    /// Whether it is older than what is known here.
    pub fn is_rollback(&self) -> bool {
        matches!(self.0, TufError::Rollback { .. })
    }

    /// Whether it did not come at all, or only in part.
    pub fn is_transport(&self) -> bool {
        matches!(self.0, TufError::Transport { .. } | TufError::Io { .. })
    }
}

fn listed(places: &[(String, Refusal)]) -> String {
    places.iter().fold(String::new(), |mut text, (place, why)| {
        let _ = write!(text, "\n  {place}: {why}");
        for cause in system::error::causes(why) {
            let _ = write!(text, ": {cause}");
        }
        text
    })
}

/// A repository, refreshed: for as long as nothing in it expires.
pub struct Client {
    updater: Updater,
    /// The verified metadata, in which delegated roles are loaded that the updater has not met.
    trusted: TrustedMetadataSet,
    place: Place,
    store: Store,
    mirrors: Mirrors,
    now: Timestamp,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.updater)
    }
}

impl Client {
    /// Ask the places in turn; the first whose metadata holds is the repository.
    ///
    /// # Errors
    /// [`ClientError::Root`], [`ClientError::Refresh`], [`ClientError::Lost`].
    pub fn refresh(
        root: &[u8],
        mirrors: &Mirrors,
        store: &Store,
        now: Timestamp,
    ) -> Result<Self, ClientError> {
        crypto::install();
        // The specification wants the end later than now (5.3.10 and after); the verifier, no earlier.
        let now = now.checked_add(SignedDuration::from_nanos(1)).unwrap_or(now);
        keys::each_once(root).map_err(ClientError::Root)?;
        let mut places = Vec::new();
        for mirror in mirrors.places() {
            let place = Place::new(mirror.clone(), mirrors.clone(), store.clone());
            let mut updater =
                Updater::new(place.clone(), root).map_err(ClientError::Root)?.with_store(store.clone());
            let refreshed = now_or_never(updater.refresh(now));
            if let Some((path, source)) = store.lost() {
                return Err(ClientError::Lost { path, source });
            }
            match refreshed {
                Ok(()) => {
                    let (trusted, mirrors, store) =
                        (updater.trusted().clone(), mirrors.clone(), store.clone());
                    return Ok(Self { updater, trusted, place, store, mirrors, now });
                }
                Err(error) => places.push((mirror.metadata("").to_string(), Refusal(error))),
            }
        }
        Err(ClientError::Refresh { places })
    }

    /// The verified metadata.
    pub fn trusted(&self) -> &TrustedMetadataSet {
        &self.trusted
    }

    /// How many bytes of metadata were fetched.
    pub fn fetched(&self) -> u64 {
        self.place.fetched()
    }

    /// What the repository lists under a path.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTarget`], [`ClientError::Lookup`].
    pub fn target(&mut self, path: &str) -> Result<Listed, ClientError> {
        let found = now_or_never(self.updater.get_target_info(path, self.now));
        if let Some((path, source)) = self.store.lost() {
            return Err(ClientError::Lost { path, source });
        }
        match found {
            Ok(Some(target)) => Listed::new(path, &target, self.trusted.root().consistent_snapshot),
            Ok(None) => Err(ClientError::NoSuchTarget { path: path.to_owned() }),
            Err(source) => Err(ClientError::Lookup { what: path.to_owned(), source }),
        }
    }

    /// The bytes of a target from `from` on; they are not checked, but there are no more than are listed.
    ///
    /// # Errors
    /// [`ClientError::Missing`], [`ClientError::Fetch`].
    pub fn open(&self, target: &Listed, from: u64) -> Result<Target, ClientError> {
        match self.mirrors.target(&target.place, from, target.length) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(ClientError::Missing { path: target.path.clone() }),
            Err(source) => Err(ClientError::Fetch { path: target.path.clone(), source }),
        }
    }

    /// The checked bytes of a small target.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(&self, target: &Listed, most: usize) -> Result<Vec<u8>, ClientError> {
        if target.length > most as u64 {
            let why = format!("expected at most {most} bytes, found {}", target.length);
            return Err(ClientError::Unusable { path: target.path.clone(), why });
        }
        let mut bytes = Vec::new();
        self.open(target, 0)?
            .read_to_end(&mut bytes)
            .map_err(|source| ClientError::Read { path: target.path.clone(), source })?;
        target.check(&bytes)?;
        Ok(bytes)
    }
}

/// A target as the repository lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path in the repository.
    pub path: String,
    /// Its path below `targets/` of a place.
    place: String,
    /// Its size in bytes.
    pub length: u64,
    digest: Digest,
}

/// How a target is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Digest {
    Sha256(Sha256),
    Sha512(String),
}

impl Listed {
    fn new(path: &str, target: &TargetFile, consistent: bool) -> Result<Self, ClientError> {
        let unusable = || ClientError::Unusable {
            path: path.to_owned(),
            why: "expected a SHA-256 or SHA-512 digest".to_owned(),
        };
        let (digest, name) = match (target.hashes.get("sha256"), target.hashes.get("sha512")) {
            (Some(hex), _) => {
                (Digest::Sha256(hex.to_ascii_lowercase().parse().map_err(|_| unusable())?), hex.clone())
            }
            (None, Some(hex)) if hex.len() == 128 => (Digest::Sha512(hex.to_ascii_lowercase()), hex.clone()),
            _ => return Err(unusable()),
        };
        let place = match (consistent, path.rsplit_once('/')) {
            (false, _) => path.to_owned(),
            (true, Some((directory, file))) => format!("{directory}/{name}.{file}"),
            (true, None) => format!("{name}.{path}"),
        };
        Ok(Self { path: path.to_owned(), place, length: target.length, digest })
    }

    /// Its path below `targets/` of a place.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Its SHA-256, where it is listed by that.
    pub fn sha256(&self) -> Option<Sha256> {
        match self.digest {
            Digest::Sha256(digest) => Some(digest),
            Digest::Sha512(_) => None,
        }
    }

    /// Whether these are its bytes.
    ///
    /// # Errors
    /// [`ClientError::Changed`].
    pub fn check(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let (expected, found) = match &self.digest {
            Digest::Sha256(digest) => (digest.to_string(), Sha256::of(bytes).to_string()),
            Digest::Sha512(digest) => {
                (digest.clone(), hex::encode(<sha2::Sha512 as sha2::Digest>::digest(bytes)))
            }
        };
        if bytes.len() as u64 == self.length && expected == found {
            return Ok(());
        }
        let path = self.path.clone();
        let (expected, found) =
            (format!("{expected}, {} bytes", self.length), format!("{found}, {} bytes", bytes.len()));
        Err(ClientError::Changed { path, expected, found })
    }
}

/// The result of a future that waits for nothing: [`Place`] answers at once, so the verifier's do, too.
fn now_or_never<T>(future: impl Future<Output = Result<T, TufError>>) -> Result<T, TufError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(TufError::Malformed("the verifier waits for something of its own".to_owned())),
    }
}
