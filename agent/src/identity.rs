//! The host's key, and certificates for it.
//!
//! The key is made here and never leaves. Who the host is follows from it alone; its certificate only shows that a
//! controller of its fleet knows it.

use std::io;
use std::path::{Path, PathBuf};

use manifests::{HostId, Nonce, Sha256};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use system::durable;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key cannot be made or read.
    #[error("the key {path} cannot be used")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// The key cannot sign.
    #[error("the key does not sign")]
    Sign(#[source] rcgen::Error),
}

/// The agent's directory.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

impl Directory {
    /// The key, PKCS #8 in PEM.
    pub fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// The certificate, and those above it.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("certificate.pem")
    }

    /// The authority of the fleet.
    pub fn authority(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// A file of it.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn read(&self, path: &Path) -> Result<String, IdentityError> {
        let failed = |source| IdentityError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let bytes =
            manifests::bounded::read(file, 1 << 20).map_err(|error| failed(io::Error::other(error)))?;
        String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error)))
    }

    /// Keeps a file of it, durably, for its owner alone.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn keep(&self, path: &Path, content: &str) -> Result<(), IdentityError> {
        durable::replace(path, content.as_bytes())
            .map_err(|source| IdentityError::Io { path: path.to_owned(), source })
    }
}

/// The host's key.
pub struct Identity {
    key: KeyPair,
}

impl Identity {
    /// The key in the directory; made if there is none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn open(directory: &Directory) -> Result<Self, IdentityError> {
        let path = directory.key();
        if !path.exists() {
            return Self::make(directory);
        }
        let key = KeyPair::from_pem(&directory.read(&path)?)
            .map_err(|source| IdentityError::Key { path: path.clone(), source })?;
        if !key.is_compatible(&PKCS_ED25519) {
            return Err(IdentityError::Key { path, source: rcgen::Error::UnsupportedSignatureAlgorithm });
        }
        Ok(Self { key })
    }

    /// A new key, in place of what is there.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn make(directory: &Directory) -> Result<Self, IdentityError> {
        let path = directory.key();
        let key = KeyPair::generate_for(&PKCS_ED25519)
            .map_err(|source| IdentityError::Key { path: path.clone(), source })?;
        directory.keep(&path, &key.serialize_pem())?;
        Ok(Self { key })
    }

    /// Who this is.
    pub fn host(&self) -> HostId {
        HostId::new(Sha256::of(&self.key.subject_public_key_info()))
    }

    /// A request for a certificate (PKCS #10 in PEM).
    ///
    /// # Errors
    /// [`IdentityError::Sign`].
    pub fn request(&self) -> Result<String, IdentityError> {
        let request =
            CertificateParams::default().serialize_request(&self.key).map_err(IdentityError::Sign)?;
        request.pem().map_err(IdentityError::Sign)
    }

    /// The key's signature over a challenge, in hexadecimal.
    ///
    /// # Errors
    /// [`IdentityError::Sign`].
    pub fn sign(&self, challenge: &Nonce) -> Result<String, IdentityError> {
        let signature = self.key.sign(challenge.to_string().as_bytes()).map_err(IdentityError::Sign)?;
        Ok(hex::encode(signature))
    }

    /// Key and certificate, as TLS takes them.
    pub fn with(&self, certificate: &str) -> String {
        self.key.serialize_pem() + certificate
    }
}
