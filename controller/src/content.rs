//! What hosts fetch: documents and payloads, each a file named by the SHA-256 digest of what it carries.
//!
//! Whoever hands something in names its digest; it is hashed while it comes, and appears whole or not at all. Hosts hash
//! once more: this place is believed by nobody.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use manifests::{DocumentKind, Envelope, Sha256};
use sha2::Digest as _;
use system::durable;

/// The largest payload that is taken.
pub const MAX_PAYLOAD: u64 = 16 << 30;

/// A directory of content.
#[derive(Debug, Clone)]
pub struct Content {
    directory: PathBuf,
}

/// Why something was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It cannot be written.
    #[error("keep {digest}")]
    Io {
        /// What.
        digest: Sha256,
        /// Why.
        source: io::Error,
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
    /// The directory, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        durable::make_directory(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, digest: Sha256) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// Whether it is there.
    pub fn has(&self, digest: Sha256) -> bool {
        self.path(digest).is_file()
    }

    /// Its file and its size in bytes; nothing if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn get(&self, digest: Sha256) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(digest)) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some((file, size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a document by the digest of what its envelope carries.
    ///
    /// # Errors
    /// [`ContentError::Io`].
    pub fn keep_document(&self, envelope: &Envelope) -> Result<(), ContentError> {
        let digest = envelope.payload_digest();
        let failed = |source| ContentError::Io { digest, source };
        durable::replace(&self.path(digest), envelope.to_json().as_bytes()).map_err(failed)
    }

    /// Begins to keep a payload.
    ///
    /// # Errors
    /// [`ContentError::Io`].
    pub fn begin(&self, digest: Sha256) -> Result<Arriving, ContentError> {
        let path = self.path(digest);
        let file = durable::Unnamed::beside(&path).map_err(|source| ContentError::Io { digest, source })?;
        Ok(Arriving { file, digest, hash: sha2::Sha256::new(), size: 0 })
    }
}

/// A payload on its way.
pub struct Arriving {
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
    /// [`ContentError::Other`]; nothing is kept.
    pub fn end(self) -> Result<(), ContentError> {
        let (expected, found) = (self.digest, Sha256::from_bytes(self.hash.finalize().into()));
        if found != expected {
            return Err(ContentError::Other { expected, found });
        }
        self.file.replace().map_err(|source| ContentError::Io { digest: expected, source })
    }
}

/// The largest document that is read from a person.
pub const MAX_DOCUMENT: usize = DocumentKind::MAX_BYTES * 2;

impl AsRef<Path> for Content {
    fn as_ref(&self) -> &Path {
        &self.directory
    }
}
