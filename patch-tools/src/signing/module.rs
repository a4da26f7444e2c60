//! The signature that a kernel under lockdown wants of a module: CMS (RFC 5652) over the module's bytes, appended.
//!
//! What comes out is what the kernel's own `scripts/sign-file -k` writes, bit for bit where the key is RSA: `SignedData`
//! without content, certificates and signed attributes, its signer named by the subject key identifier, or, where the
//! certificate has none, by issuer and serial number. Whether a kernel trusts the certificate is for that kernel to say
//! ([`crate::check`] looks at its keyrings).

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use cms::cert::IssuerAndSerialNumber;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use manifests::bounded;
use pkcs8::der::SecretDocument;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, RsaEncoding, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _};
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{Passphrase, SigningError, ask, owner_alone_reads, read_private, readings};
use crate::module::signature::{MAGIC, split, trailer};

/// A key of 8192 bits in PEM, encrypted, has some 6,500 bytes; a certificate with it a third of that.
const MAX_FILE: usize = 64 << 10;

/// The longest signature, in bytes: RSA with 8192 bits; in hexadecimal, with room for line feeds.
const MAX_SAID: u64 = 2 * 1024 + 128;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// The digest that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Digest {
    /// What Debian's own modules carry.
    #[default]
    Sha256,
    /// SHA-384; the one for ECDSA on P-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Digest {
    fn identifier(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::Sha256 => "2.16.840.1.101.3.4.2.1",
            Self::Sha384 => "2.16.840.1.101.3.4.2.2",
            Self::Sha512 => "2.16.840.1.101.3.4.2.3",
        })
    }
}

/// What signs, as the certificate's public key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rsa(Digest),
    /// ECDSA on P-384 over SHA-384, the kernel's other kind of module key.
    Ecdsa,
}

impl Algorithm {
    fn digest(self) -> Digest {
        match self {
            Self::Rsa(digest) => digest,
            Self::Ecdsa => Digest::Sha384,
        }
    }

    /// The signature algorithm as `sign-file` names it: RSA without its digest, ECDSA with it.
    fn identifier(self) -> AlgorithmIdentifierOwned {
        match self {
            Self::Rsa(_) => AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Any::null()) },
            Self::Ecdsa => AlgorithmIdentifierOwned {
                oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
                parameters: None,
            },
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rsa(Digest::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rsa(Digest::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rsa(Digest::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ecdsa => &signature::ECDSA_P384_SHA384_ASN1,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA with 2048 to 8192 bits",
            Self::Ecdsa => "ECDSA on P-384",
        })
    }
}

/// Why a module was not signed.
#[derive(Debug, thiserror::Error)]
pub enum ModuleSigningError {
    /// A file cannot be read, a passphrase not asked for, a command not run.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// No certificate.
    #[error("{} is no X.509 certificate in PEM or DER: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key that no kernel signs modules with.
    #[error(
        "the certificate's key cannot sign modules: expected RSA with 2048 to 8192 bits, or ECDSA on P-384; found algorithm {found}"
    )]
    Algorithm {
        /// Its object identifier, with that of its curve.
        found: String,
    },
    /// ECDSA on P-384 goes with SHA-384 alone.
    #[error("ECDSA on P-384 signs SHA-384: expected --digest sha384, or none, found another")]
    Digest,
    /// No private key of the certificate's kind.
    #[error("{} is no private key that can be used: expected {expected} in PKCS#8 PEM: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the certificate's key is.
        expected: String,
        /// What is wrong.
        reason: String,
    },
    /// The signature does not verify with the certificate.
    #[error(
        "the signature is not of the certificate's key: expected one that {subject} verifies, found another key's"
    )]
    Mismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// It has a signature.
    #[error("the module is signed already, by {by}")]
    AlreadySigned {
        /// The signers.
        by: String,
    },
}

/// A certificate whose key signs modules.
#[derive(Debug)]
pub struct ModuleCertificate {
    certificate: Certificate,
    algorithm: Algorithm,
}

impl ModuleCertificate {
    /// Reads a certificate, in PEM or DER.
    ///
    /// # Errors
    /// If it is none, or its key or the digest are not for modules.
    pub fn read(path: &Path, digest: Option<Digest>) -> Result<Self, ModuleSigningError> {
        let read = || bounded::read(File::open(path)?, MAX_FILE);
        let bytes = read().map_err(|source| SigningError::Read { path: path.to_owned(), source })?;
        let parsed = match bytes.starts_with(b"-----BEGIN") {
            true => Certificate::from_pem(&bytes),
            false => Certificate::from_der(&bytes),
        };
        let certificate = parsed.map_err(|error| ModuleSigningError::Certificate {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let key = &certificate.tbs_certificate.subject_public_key_info.algorithm;
        let curve = key.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
        let algorithm = match (key.oid, curve, digest) {
            (RSA_ENCRYPTION, _, digest) => Algorithm::Rsa(digest.unwrap_or_default()),
            (EC_PUBLIC_KEY, Some(P384), None | Some(Digest::Sha384)) => Algorithm::Ecdsa,
            (EC_PUBLIC_KEY, Some(P384), Some(_)) => return Err(ModuleSigningError::Digest),
            (oid, curve, _) => {
                let curve = curve.map(|curve| format!(" on {curve}")).unwrap_or_default();
                return Err(ModuleSigningError::Algorithm { found: format!("{oid}{curve}") });
            }
        };
        Ok(Self { certificate, algorithm })
    }

    /// Whom it is of, as RFC 4514 writes it.
    pub fn subject(&self) -> String {
        self.certificate.tbs_certificate.subject.to_string()
    }

    /// Its subject key identifier, if it has one.
    fn key_id(&self) -> Option<SubjectKeyIdentifier> {
        self.certificate.tbs_certificate.get().ok().flatten().map(|(_, id)| id)
    }

    fn signer_identifier(&self) -> SignerIdentifier {
        match self.key_id() {
            Some(id) => SignerIdentifier::SubjectKeyIdentifier(id),
            None => SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: self.certificate.tbs_certificate.issuer.clone(),
                serial_number: self.certificate.tbs_certificate.serial_number.clone(),
            }),
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = &self.certificate.tbs_certificate.subject_public_key_info.subject_public_key;
        UnparsedPublicKey::new(self.algorithm.verification(), key.raw_bytes())
            .verify(message, signature)
            .is_ok()
    }

    /// The module with its signature behind it.
    ///
    /// # Errors
    /// If it has one already, the key cannot be used, or is not that of the certificate.
    pub fn sign(&self, module: &[u8], key: &ModuleKey) -> Result<Vec<u8>, ModuleSigningError> {
        if let Ok((_, Some(signature))) = split(module) {
            let by: Vec<String> =
                signature.signers.iter().map(|signer| signer.identity.to_string()).collect();
            return Err(ModuleSigningError::AlreadySigned { by: by.join(", ") });
        }
        let signature = key.sign(module, self.algorithm, |signature| self.verifies(module, signature))?;
        let Some(signature) = signature else {
            return Err(ModuleSigningError::Mismatch { subject: self.subject() });
        };
        let pkcs7 = self.pkcs7(&signature).expect("names and numbers that were read from DER can be written");
        let length = u32::try_from(pkcs7.len()).expect("a signature and a name have few bytes");
        Ok([module, &pkcs7, &trailer(length), MAGIC].concat())
    }

    fn pkcs7(&self, signature: &[u8]) -> Result<Vec<u8>, x509_cert::der::Error> {
        let digest = AlgorithmIdentifierOwned { oid: self.algorithm.digest().identifier(), parameters: None };
        let sid = self.signer_identifier();
        // RFC 5652, 5.1 and 5.3: 3 where a key identifier names the signer.
        let version = match sid {
            SignerIdentifier::SubjectKeyIdentifier(_) => CmsVersion::V3,
            SignerIdentifier::IssuerAndSerialNumber(_) => CmsVersion::V1,
        };
        let signer = SignerInfo {
            version,
            sid,
            digest_alg: digest.clone(),
            signed_attrs: None,
            signature_algorithm: self.algorithm.identifier(),
            signature: OctetString::new(signature)?,
            unsigned_attrs: None,
        };
        let data = SignedData {
            version,
            digest_algorithms: SetOfVec::try_from(vec![digest])?,
            encap_content_info: EncapsulatedContentInfo { econtent_type: DATA, econtent: None },
            certificates: None,
            crls: None,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![signer])?),
        };
        ContentInfo { content_type: SIGNED_DATA, content: Any::encode_from(&data)? }.to_der()
    }
}

/// What signs modules: a private key at hand, or a command that asks one.
#[derive(Debug)]
pub enum ModuleKey {
    /// PKCS#8, in DER.
    Key {
        /// Where it was read, for messages.
        path: PathBuf,
        /// The key.
        document: SecretDocument,
    },
    /// A command for `sh -c`: it finds the module on its standard input, and writes the signature.
    Command(String),
}

impl ModuleKey {
    /// Reads a private key in PKCS#8 PEM; one under a passphrase is opened by it.
    ///
    /// # Errors
    /// If it cannot be read or opened, or others could read it.
    pub fn read(path: &Path, passphrase: &Passphrase) -> Result<Self, ModuleSigningError> {
        let (mode, bytes) = read_private(path, MAX_FILE)?;
        let unusable = |reason: String| ModuleSigningError::Key {
            path: path.to_owned(),
            expected: "a private key".to_owned(),
            reason,
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| unusable(error.to_string()))?;
        let (label, document) =
            SecretDocument::from_pem(text).map_err(|error| unusable(error.to_string()))?;
        let document = match label {
            "PRIVATE KEY" => document,
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase.of(path)?;
                EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
                    .map_err(|error| unusable(error.to_string()))?
                    .decrypt(passphrase.as_bytes())
                    .map_err(|error| unusable(format!("{error}; is the passphrase right?")))?
            }
            other => {
                let mend = "openssl pkcs8 -topk8 -in KEY -out NEW writes it as PKCS#8";
                return Err(unusable(format!("found {other:?}; {mend}")));
            }
        };
        owner_alone_reads(path, mode)?;
        Ok(Self::Key { path: path.to_owned(), document })
    }

    /// The signature, or `None` if it does not hold.
    fn sign(
        &self,
        module: &[u8],
        algorithm: Algorithm,
        holds: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, ModuleSigningError> {
        match self {
            Self::Key { path, document } => {
                let signature = sign(document.as_bytes(), module, algorithm).map_err(|reason| {
                    ModuleSigningError::Key { path: path.clone(), expected: algorithm.to_string(), reason }
                })?;
                Ok(Some(signature).filter(|signature| holds(signature)))
            }
            Self::Command(command) => {
                let said = ask(command, module, MAX_SAID)?;
                Ok(readings(&said).find(|signature| holds(signature)))
            }
        }
    }
}

fn sign(pkcs8: &[u8], message: &[u8], algorithm: Algorithm) -> Result<Vec<u8>, String> {
    PrivateKeyInfoRef::try_from(pkcs8).map_err(|error| error.to_string())?;
    let random = SystemRandom::new();
    match algorithm {
        Algorithm::Rsa(digest) => {
            let encoding: &dyn RsaEncoding = match digest {
                Digest::Sha256 => &signature::RSA_PKCS1_SHA256,
                Digest::Sha384 => &signature::RSA_PKCS1_SHA384,
                Digest::Sha512 => &signature::RSA_PKCS1_SHA512,
            };
            let key = RsaKeyPair::from_pkcs8(pkcs8).map_err(|error| error.to_string())?;
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(encoding, &random, message, &mut signature).map_err(|error| error.to_string())?;
            Ok(signature)
        }
        Algorithm::Ecdsa => {
            let signing: &EcdsaSigningAlgorithm = &signature::ECDSA_P384_SHA384_ASN1_SIGNING;
            let key = EcdsaKeyPair::from_pkcs8(signing, pkcs8, &random).map_err(|error| error.to_string())?;
            Ok(key.sign(&random, message).map_err(|error| error.to_string())?.as_ref().to_vec())
        }
    }
}
