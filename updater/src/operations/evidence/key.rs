//! The key that signs what this host says of itself.
//!
//! It is made here, when it is first needed, lies in the store (root's alone, mode 0600) and never leaves it. It is no
//! key of the agent's, which root does not need to believe: whoever speaks with a network holds none of this.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use manifests::bounded::{self, BoundedError};
use manifests::key::KeyError;
use manifests::{KeyName, PublicKeyFile, SecretKey};
use system::durable::Unnamed;
use zeroize::Zeroizing;

use crate::operations::{Engine, EngineError};
use crate::state::author::Author;
use crate::state::hold::note;

/// Its file, in the store.
const FILE: &str = "evidence.key";

/// PKCS#8 of an Ed25519 key has 119 bytes in PEM.
const MAX_BYTES: usize = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceKeyError {
    /// It cannot be read or written.
    #[error("the key of this host's evidence, {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could have read or changed it.
    #[error("the key of this host's evidence, {path}, is not its owner's alone")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The file has no key in it.
    #[error("the key of this host's evidence, {path}, cannot be used")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// There are no random numbers.
    #[error("make the key of this host's evidence: {why}")]
    Random {
        /// Why not.
        why: String,
    },
}

/// The public half, under the host's name where that can be one.
pub(super) fn public(host: &str, key: &SecretKey) -> PublicKeyFile {
    let name = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let name: KeyName = name.parse().unwrap_or_else(|_| "host".parse().expect("a name of letters"));
    PublicKeyFile::new(name, key.public())
}

impl Engine {
    pub(super) fn secret_evidence_key(&self) -> Result<SecretKey, EngineError> {
        let path = self.config.store.join(FILE);
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        let key =
            SecretKey::generate().map_err(|error| EvidenceKeyError::Random { why: error.to_string() })?;
        match write(&path, &key) {
            // Another command made one at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read(&path)? {
                Some(key) => return Ok(key),
                None => return Err(EvidenceKeyError::Io { path, source: error }.into()),
            },
            written => written.map_err(|source| EvidenceKeyError::Io { path, source })?,
        }
        let (now, what) =
            (self.host.clock.now(), format!("made the key of this host's evidence, {}", key.public().id()));
        self.journal().write("say that a key was made", |write, link| {
            note(write, link, now, &Author::current(), &what)
        })?;
        Ok(key)
    }
}

fn write(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut file = Unnamed::beside(path)?;
    file.write_all(key.to_pem().as_bytes())?;
    file.create()
}

fn read(path: &Path) -> Result<Option<SecretKey>, EvidenceKeyError> {
    let failed = |source| EvidenceKeyError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let found = file.metadata().map_err(failed)?;
    if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        return Err(EvidenceKeyError::Open { path: path.to_owned(), owner, mode });
    }
    let bytes = Zeroizing::new(bounded::read(file, MAX_BYTES).map_err(|error| match error {
        BoundedError::Io(source) => failed(source),
        BoundedError::TooLarge { .. } => failed(io::Error::other(error)),
    })?);
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    let key = SecretKey::from_pem(&text);
    key.map(Some).map_err(|source| EvidenceKeyError::Key { path: path.to_owned(), source })
}
