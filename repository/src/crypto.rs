//! The signature algorithms of TUF, behind the verifier that we use.
//!
//! Ed25519 goes through [`manifests::PublicKey`], by the strict rules, as everything else that this project
//! believes; digests through `sha2`, which reaches SHA-NI speed. ECDSA and RSA-PSS, which other people's
//! repositories use, are ring's. What is none of these is refused by name.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256, Sha384, Sha512};
use sigstore_crypto::provider::{CryptoProvider, HashContext};
use sigstore_crypto::{Error, SigningScheme, install_default_provider};
use sigstore_types::HashAlgorithm;

#[derive(Debug)]
struct Provider;

/// Makes the verifier use the algorithms of this crate; any number of times.
pub(crate) fn install() {
    // It is in the way of itself only: whoever comes second finds the same one.
    let _ = install_default_provider(&Provider);
}

struct Hash<D>(D);

impl<D: Digest + Send> HashContext for Hash<D> {
    fn update(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Provider {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>, Error> {
        match algorithm {
            HashAlgorithm::Sha2256 => Ok(Box::new(Hash(Sha256::new()))),
            HashAlgorithm::Sha2384 => Ok(Box::new(Hash(Sha384::new()))),
            HashAlgorithm::Sha2512 => Ok(Box::new(Hash(Sha512::new()))),
            _ => Err(Error::UnsupportedAlgorithm(format!("{algorithm} digests"))),
        }
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        let algorithm: &'static dyn VerificationAlgorithm = match scheme {
            SigningScheme::Ed25519 => return ed25519(key, data, signature),
            SigningScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            SigningScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            SigningScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            SigningScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            SigningScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
            other => return Err(Error::UnsupportedAlgorithm(format!("signatures by {}", other.name()))),
        };
        UnparsedPublicKey::new(algorithm, key).verify(data, signature).map_err(|_| refused(scheme))
    }

    fn verify_prehashed(&self, scheme: SigningScheme, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), Error> {
        // TUF signs bytes, never digests.
        Err(Error::UnsupportedAlgorithm(format!("signatures by {} over a digest", scheme.name())))
    }
}

fn ed25519(key: &[u8], data: &[u8], signature: &[u8]) -> Result<(), Error> {
    let refused = || refused(SigningScheme::Ed25519);
    let key: &[u8; 32] = key.try_into().map_err(|_| refused())?;
    let key = manifests::PublicKey::from_bytes(key).map_err(|_| refused())?;
    if key.verifies(data, signature) { Ok(()) } else { Err(refused()) }
}

fn refused(scheme: SigningScheme) -> Error {
    Error::Verification(format!("the {} signature does not hold", scheme.name()))
}
