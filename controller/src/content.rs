//! What hosts fetch: documents and payloads, each a file named by the SHA-256 digest of what it carries.
//!
//! Whoever hands something in names its digest; it is hashed while it comes, and appears whole or not at all. Hosts hash
//! once more: this place is believed by nobody.
//!
//! Where several controllers share a database, what one was given is in the database, too, and comes from there into the directory of another
//! when it is asked for.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::{DocumentKind, Envelope, Sha256};
use sha2::Digest as _;
use system::durable;

use crate::store::Postgres;
use crate::store::postgres::ShelfError;

/// The largest payload that is taken.
pub const MAX_PAYLOAD: u64 = 16 << 30;

/// A directory of content.
#[derive(Clone)]
pub struct Content {
    directory: PathBuf,
    shared: Option<Arc<Postgres>>,
}

/// Why something was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// There is no directory for it.
    #[error("keep content in {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("keep {digest}")]
    Io {
        /// What.
        digest: Sha256,
        /// Why.
        source: io::Error,
    },
    /// It does not get to the other controllers, or not from there.
    #[error("share {digest}")]
    Shared {
        /// What.
        digest: Sha256,
        /// Why.
        source: ShelfError,
    },
    /// It is something else than it was said to be.
    #[error("expected content with the digest {expected}, found {found}")]
    Other {
        /// What was said.
        expected: Sha256,
        /// What it is.
        found: Sha256,
    },
    /// It is larger than anything that is taken.
    #[error("expected at most {limit} bytes, found more")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
}

impl Content {
    /// The directory, made if it is not there; what is in it gets into the database that controllers share, if they do.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn open(directory: PathBuf, shared: Option<Arc<Postgres>>) -> Result<Self, ContentError> {
        let failed = |source| ContentError::Directory { path: directory.clone(), source };
        durable::make_directory(&directory).map_err(failed)?;
        let content = Self { directory: directory.clone(), shared };
        if content.shared.is_some() {
            for entry in std::fs::read_dir(&directory).map_err(failed)? {
                // What has another name is on its way, or nobody's.
                if let Some(Ok(digest)) = entry.map_err(failed)?.file_name().to_str().map(str::parse) {
                    content.share(digest)?;
                }
            }
        }
        Ok(content)
    }

    fn path(&self, digest: Sha256) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// [`ContentError::Shared`] if only the database could say.
    pub fn has(&self, digest: Sha256) -> Result<bool, ContentError> {
        let shared = |source| ContentError::Shared { digest, source: ShelfError::Store(source) };
        match &self.shared {
            Some(database) => database.has_content(digest).map_err(shared),
            None => Ok(self.path(digest).is_file()),
        }
    }

    /// Its file and its size in bytes; nothing if it is not there.
    ///
    /// # Errors
    /// [`ContentError`] if it cannot be opened, or fetched.
    pub fn get(&self, digest: Sha256) -> Result<Option<(File, u64)>, ContentError> {
        let failed = |source| ContentError::Io { digest, source };
        let open = || match File::open(self.path(digest)) {
            Ok(file) => file.metadata().map(|data| Some((file, data.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let found = open().map_err(failed)?;
        if found.is_some() || !self.fetch(digest)? {
            return Ok(found);
        }
        open().map_err(failed)
    }

    /// Brings it here; false if it is nowhere.
    fn fetch(&self, digest: Sha256) -> Result<bool, ContentError> {
        let Some(database) = &self.shared else { return Ok(false) };
        let failed = |source| ContentError::Io { digest, source };
        let mut file = durable::Unnamed::beside(&self.path(digest)).map_err(failed)?;
        let fetched = database.fetch_content(digest, &mut file);
        if !fetched.map_err(|source| ContentError::Shared { digest, source })? {
            return Ok(false);
        }
        file.replace().map_err(failed)?;
        Ok(true)
    }

    /// Lets the other controllers have it.
    fn share(&self, digest: Sha256) -> Result<(), ContentError> {
        let Some(database) = &self.shared else { return Ok(()) };
        if self.has(digest)? {
            return Ok(());
        }
        let file = File::open(self.path(digest)).map_err(|source| ContentError::Io { digest, source })?;
        database.keep_content(digest, file).map_err(|source| ContentError::Shared { digest, source })
    }

    /// Keeps a document by the digest of what its envelope carries.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn keep_document(&self, envelope: &Envelope) -> Result<(), ContentError> {
        let digest = envelope.payload_digest();
        let (failed, text) = (|source| ContentError::Io { digest, source }, envelope.to_json());
        durable::replace(&self.path(digest), text.as_bytes()).map_err(failed)?;
        let Some(database) = &self.shared else { return Ok(()) };
        // Also if one is there: this one may have other signatures.
        let kept = database.keep_content(digest, text.as_bytes());
        kept.map_err(|source| ContentError::Shared { digest, source })
    }

    /// Begins to keep a payload.
    ///
    /// # Errors
    /// [`ContentError::Io`].
    pub fn begin(&self, digest: Sha256) -> Result<Arriving, ContentError> {
        let path = self.path(digest);
        let file = durable::Unnamed::beside(&path).map_err(|source| ContentError::Io { digest, source })?;
        Ok(Arriving { content: self.clone(), file, digest, hash: sha2::Sha256::new(), size: 0 })
    }
}

/// A payload on its way.
pub struct Arriving {
    content: Content,
    file: durable::Unnamed,
    digest: Sha256,
    hash: sha2::Sha256,
    size: u64,
}

impl Arriving {
    /// More of it.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn more(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        self.size += bytes.len() as u64;
        if self.size > MAX_PAYLOAD {
            return Err(ContentError::TooLarge { limit: MAX_PAYLOAD });
        }
        self.hash.update(bytes);
        let digest = self.digest;
        self.file.write_all(bytes).map_err(|source| ContentError::Io { digest, source })
    }

    /// All of it is there.
    ///
    /// # Errors
    /// [`ContentError`]; nothing is kept, or not where other controllers find it: it can be handed in again.
    pub fn end(self) -> Result<(), ContentError> {
        let (expected, found) = (self.digest, Sha256::from_bytes(self.hash.finalize().into()));
        if found != expected {
            return Err(ContentError::Other { expected, found });
        }
        self.file.replace().map_err(|source| ContentError::Io { digest: expected, source })?;
        self.content.share(expected)
    }
}

/// The largest document that is read from a person.
pub const MAX_DOCUMENT: usize = DocumentKind::MAX_BYTES * 2;

impl AsRef<Path> for Content {
    fn as_ref(&self) -> &Path {
        &self.directory
    }
}
