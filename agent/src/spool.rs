//! Documents and payloads that were fetched, a directory for each rollout, each file named by its digest.
//!
//! They are hashed while they come, so that nothing whole is wrong; the executor hashes them once more. What was half
//! fetched is gone on with.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fleet::local::Papers;
use manifests::{DocumentKind, Envelope, Manifest, Payload, Sha256};
use sha2::Digest as _;
use system::durable::{self, Partial};

use crate::client::{Client, ClientError};

/// Why something is not there.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The controller does not give it.
    #[error("fetch {digest}")]
    Fetch {
        /// What.
        digest: Sha256,
        /// Why.
        source: ClientError,
    },
    /// It broke off.
    #[error("fetch {digest}")]
    Broken {
        /// What.
        digest: Sha256,
        /// Why.
        source: reqwest::Error,
    },
    /// It is something else.
    #[error("expected {expected}, found {found}")]
    Other {
        /// What was asked for.
        expected: Sha256,
        /// What came.
        found: String,
    },
    /// It cannot be kept.
    #[error("keep {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether something is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is.
    Yes,
    /// It is as it was.
    No,
}

/// A directory of directories.
#[derive(Debug, Clone)]
pub struct Spool(pub PathBuf);

impl Spool {
    fn directory(&self, rollout: Sha256) -> PathBuf {
        self.0.join(rollout.to_string())
    }

    /// Rollouts of which something is there.
    pub fn rollouts(&self) -> Vec<Sha256> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Removes what was fetched for a rollout.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn forget(&self, rollout: Sha256) -> Result<(), SpoolError> {
        let path = self.directory(rollout);
        durable::remove(&path).map_err(|source| SpoolError::Io { path, source })
    }

    /// Where manifests of the fleet lie by which this host says what it is exposed to.
    pub fn manifests(&self) -> PathBuf {
        self.0.with_file_name("manifests")
    }

    /// Fetches these manifests as far as they are not there, and removes the others; whether there are new ones.
    ///
    /// # Errors
    /// [`SpoolError`]; what came so far stays.
    pub async fn keep_manifests(&self, client: &Client, wanted: &[Sha256]) -> Result<Changed, SpoolError> {
        let directory = self.manifests();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Io { path, source }
        };
        durable::make_directory(&directory).map_err(failed(&directory))?;
        let mut known = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed(&directory))? {
            let path = entry.map_err(failed(&directory))?.path();
            match path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                Some(digest) if wanted.contains(&digest) => known.push(digest),
                _ => durable::remove(&path).map_err(failed(&path))?,
            }
        }
        let missing: Vec<Sha256> = wanted.iter().filter(|digest| !known.contains(digest)).copied().collect();
        for digest in &missing {
            self.document(client, &directory, *digest).await?;
        }
        Ok(if missing.is_empty() { Changed::No } else { Changed::Yes })
    }

    /// Everything that a rollout needs, fetched as far as it is not there.
    ///
    /// # Errors
    /// [`SpoolError`]; what came so far stays.
    pub async fn fetch(
        &self,
        client: &Client,
        rollout: Sha256,
        manifest: Sha256,
    ) -> Result<Papers, SpoolError> {
        let directory = self.directory(rollout);
        durable::make_directory(&directory)
            .map_err(|source| SpoolError::Io { path: directory.clone(), source })?;
        let rollout = self.document(client, &directory, rollout).await?;
        let (manifest, text) = {
            let envelope = self.document(client, &directory, manifest).await?;
            let text = envelope.to_json();
            let parsed = Manifest::parse(envelope.unverified_payload())
                .map_err(|error| SpoolError::Other { expected: manifest, found: error.to_string() })?;
            (parsed, text)
        };
        for payload in manifest.payloads() {
            payload_into(client, &directory, payload).await?;
        }
        Ok(Papers { rollout: rollout.to_json(), manifest: text, spool: directory })
    }

    async fn document(
        &self,
        client: &Client,
        directory: &Path,
        digest: Sha256,
    ) -> Result<Envelope, SpoolError> {
        let path = directory.join(digest.to_string());
        // Base64, and room for signatures.
        let limit = 2 * DocumentKind::MAX_BYTES;
        let bytes = match std::fs::File::open(&path) {
            Ok(file) => manifests::bounded::read(file, limit)
                .map_err(|error| SpoolError::Io { path: path.clone(), source: io::Error::other(error) })?,
            Err(_) => {
                client.document(digest, limit).await.map_err(|source| SpoolError::Fetch { digest, source })?
            }
        };
        let envelope = Envelope::parse(&bytes)
            .map_err(|error| SpoolError::Other { expected: digest, found: error.to_string() })?;
        let found = envelope.payload_digest();
        if found != digest {
            return Err(SpoolError::Other { expected: digest, found: found.to_string() });
        }
        if !path.exists() {
            durable::replace(&path, &bytes).map_err(|source| SpoolError::Io { path, source })?;
        }
        Ok(envelope)
    }
}

async fn payload_into(client: &Client, directory: &Path, payload: &Payload) -> Result<(), SpoolError> {
    let digest = payload.sha256;
    let path = directory.join(digest.to_string());
    let failed = |source| SpoolError::Io { path: path.clone(), source };
    if path.exists() {
        return Ok(());
    }
    let Some(partial) = Partial::of(&path).map_err(failed)? else {
        return Err(failed(io::Error::other("somebody else fetches it")));
    };
    let mut hash = sha2::Sha256::new();
    let mut have = hash_all(partial.file(), &mut hash).map_err(failed)?;
    let (mut response, begins) =
        client.content(digest, have).await.map_err(|source| SpoolError::Fetch { digest, source })?;
    if begins != have {
        partial.file().set_len(0).map_err(failed)?;
        (&mut partial.file()).seek(SeekFrom::Start(0)).map_err(failed)?;
        (hash, have) = (sha2::Sha256::new(), 0);
    }
    while let Some(chunk) = response.chunk().await.map_err(|source| SpoolError::Broken { digest, source })? {
        have += chunk.len() as u64;
        if have > payload.size {
            partial.discard().map_err(failed)?;
            return Err(SpoolError::Other {
                expected: digest,
                found: format!("more than {} bytes", payload.size),
            });
        }
        hash.update(&chunk);
        (&mut partial.file()).write_all(&chunk).map_err(failed)?;
    }
    let found = Sha256::from_bytes(hash.finalize().into());
    if found != digest {
        partial.discard().map_err(failed)?;
        return Err(SpoolError::Other { expected: digest, found: found.to_string() });
    }
    partial.replace().map_err(failed)
}

fn hash_all(mut file: &std::fs::File, hash: &mut sha2::Sha256) -> io::Result<u64> {
    let mut chunk = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(size);
        }
        hash.update(&chunk[..read]);
        size += read as u64;
    }
}
