//! Private keys at rest under a passphrase: PKCS#8 with PBES2, scrypt and AES-256-CBC (RFC 5958, RFC 8018,
//! RFC 7914), which OpenSSL reads and writes, too (`openssl pkcs8 -topk8 -scrypt`).
//!
//! Where the passphrase comes from is the caller's concern.

use ed25519_dalek::SigningKey;
use pkcs8::der::pem::PemLabel as _;
use pkcs8::{
    DecodePrivateKey as _, EncodePrivateKey as _, EncryptedPrivateKeyInfoRef, LineEnding, SecretDocument,
};
use zeroize::Zeroizing;

use super::{KeyError, SecretKey};

/// The most memory that a key file may ask scrypt for, in bytes. Usual ones ask for 16 MiB.
const MAX_MEMORY: u64 = 256 << 20;

impl SecretKey {
    /// Whether a key file's text is of a key under a passphrase.
    pub fn is_encrypted(text: &str) -> bool {
        let label = format!("-----BEGIN {}-----", EncryptedPrivateKeyInfoRef::PEM_LABEL);
        text.trim_start().starts_with(&label)
    }

    /// Reads PKCS#8 in PEM that is encrypted under `passphrase`. Takes the time that scrypt is meant to take.
    pub fn from_encrypted_pem(text: &str, passphrase: &str) -> Result<Self, KeyError> {
        let problem = |problem: String| KeyError::NotAPrivateKey { problem };
        if !Self::is_encrypted(text) {
            return Err(problem("no encrypted key".to_owned()));
        }
        let (_, document) =
            SecretDocument::from_pem(text.trim()).map_err(|error| problem(error.to_string()))?;
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|error| problem(error.to_string()))?;
        let scrypt = encrypted.encryption_algorithm.pbes2().and_then(|scheme| scheme.kdf.scrypt());
        let asked = scrypt.map_or(0, |scrypt| {
            scrypt.cost_parameter.saturating_mul(128).saturating_mul(u64::from(scrypt.block_size))
        });
        if asked > MAX_MEMORY {
            return Err(problem(format!("a passphrase check that needs {asked} bytes of memory")));
        }
        let key = encrypted.decrypt(passphrase).map_err(|_| KeyError::Passphrase)?;
        SigningKey::from_pkcs8_der(key.as_bytes()).map(Self).map_err(|_| KeyError::Passphrase)
    }

    /// Writes PKCS#8 in PEM, encrypted under `passphrase`.
    ///
    /// # Errors
    /// [`KeyError::EmptyPassphrase`], and [`KeyError::NotEncrypted`] without random numbers.
    pub fn to_encrypted_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, KeyError> {
        if passphrase.is_empty() {
            return Err(KeyError::EmptyPassphrase);
        }
        let pair = ed25519_dalek::pkcs8::KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF)
            .map_err(|error| KeyError::NotEncrypted { problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl pkcs8 -topk8 -scrypt`, with the passphrase `correct-horse`.
    const OF_OPENSSL: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGTME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAhVo4GSfVUjywICQAAC
AQgCAQEwHQYJYIZIAWUDBAEqBBBGmKWYED0Dm2D2s5M0H1BiBEAa9V1KNX0TFWDl
XISPW4qV2dkR5ZI54A7har1wjxdPgcWgL+WAOUBGLAYFBh6dSLujjeBIy9jTiAeE
acE3Wkbd
-----END ENCRYPTED PRIVATE KEY-----
";

    #[test]
    fn a_key_that_openssl_encrypted_is_read() {
        assert!(SecretKey::is_encrypted(OF_OPENSSL));
        let key = SecretKey::from_encrypted_pem(OF_OPENSSL, "correct-horse").unwrap();
        assert_eq!(
            hex::encode(key.public().as_bytes()),
            "077ad348bf2b758e6f4487058adae467ba09b87bce94f202dc4189e5fe1012b1"
        );
    }

    #[test]
    fn an_encrypted_key_reads_back_with_its_passphrase_and_with_no_other() {
        let key = SecretKey::from_seed([7; 32]);
        let pem = key.to_encrypted_pem("correct horse").unwrap();
        assert_ne!(pem, key.to_encrypted_pem("correct horse").unwrap(), "a salt of its own each time");
        let same = SecretKey::from_encrypted_pem(&pem, "correct horse").unwrap();
        assert_eq!(same.public(), key.public());
        for wrong in ["", "correct-horse", "correct horse "] {
            let error = SecretKey::from_encrypted_pem(&pem, wrong).unwrap_err();
            assert_eq!(error, KeyError::Passphrase, "{wrong:?}");
        }
    }

    #[test]
    fn each_form_of_key_file_is_read_as_what_it_is() {
        let key = SecretKey::from_seed([7; 32]);
        assert!(!SecretKey::is_encrypted(&key.to_pem()));
        assert_eq!(SecretKey::from_pem(OF_OPENSSL).unwrap_err(), KeyError::Encrypted);
        let plain = SecretKey::from_encrypted_pem(&key.to_pem(), "x").unwrap_err();
        assert!(matches!(plain, KeyError::NotAPrivateKey { .. }), "{plain}");
        assert_eq!(key.to_encrypted_pem("").unwrap_err(), KeyError::EmptyPassphrase);
        let cut = SecretKey::from_encrypted_pem(&OF_OPENSSL[..150], "correct-horse").unwrap_err();
        assert!(matches!(cut, KeyError::NotAPrivateKey { .. }), "{cut}");
    }

    #[test]
    fn a_file_that_asks_for_all_memory_is_refused_before_it_gets_any() {
        let (_, document) = SecretDocument::from_pem(OF_OPENSSL).unwrap();
        let mut bytes = document.as_bytes().to_vec();
        // cost parameter, block size, parallelization: 16384, 8, 1
        let at = bytes.windows(10).position(|window| window == [2, 2, 0x40, 0, 2, 1, 8, 2, 1, 1]).unwrap();
        bytes[at + 2..at + 4].copy_from_slice(&[0x7f, 0]);
        bytes[at + 6] = 0x7f;
        let greedy = SecretDocument::try_from(bytes).unwrap();
        let pem = greedy.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).unwrap();
        let error = SecretKey::from_encrypted_pem(&pem, "x").unwrap_err().to_string();
        assert!(error.contains("needs 528515072 bytes of memory"), "{error}");
    }
}
