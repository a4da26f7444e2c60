//! The signature appended to a module: who signed, with which algorithms.
//!
//! Format: the module, then PKCS#7 data, then `struct module_signature`, then a magic line
//! (`include/linux/module_signature.h`, `scripts/sign-file.c`). The PKCS#7 data is a CMS `SignedData` without
//! certificates (RFC 5652, clause 5). Nothing is verified here: which keys are trusted, the running kernel
//! alone knows.

use serde::Serialize;

use super::der::{INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, SET, Value};
use crate::elf::{Malformed, Rule};

const MAGIC: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`: algorithm, hash, type, two lengths, three bytes of padding, big-endian length.
const TRAILER: usize = 12;
/// `PKEY_ID_PKCS7`; the two older types carried the signer in fields of their own and are no longer used.
const PKCS7: u8 = 2;
/// `SignedData` of RFC 5652.
const SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
/// `commonName` of X.520.
const COMMON_NAME: &str = "2.5.4.3";
/// A signature may name several signers; the kernel's own have one.
const MAX_SIGNERS: usize = 16;

/// An appended signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Signature {
    /// Bytes of PKCS#7 data.
    pub size: usize,
    /// Each signer, in the order of the data.
    pub signers: Vec<Signer>,
}

/// One signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Signer {
    /// How the signer's key is identified.
    #[serde(flatten)]
    pub identity: SignerIdentity,
    /// Digest algorithm, by name where it is a known one.
    pub digest: String,
    /// Signature algorithm, by name where it is a known one.
    pub algorithm: String,
}

/// `SignerIdentifier` of RFC 5652.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SignerIdentity {
    /// The certificate's issuer and serial number.
    Certificate {
        /// Common name of the issuer.
        issuer: String,
        /// Serial number in hex.
        serial: String,
    },
    /// The subject key identifier in hex.
    Key {
        /// The identifier.
        key_id: String,
    },
}

/// Splits a file into module and signature.
pub(super) fn split(data: &[u8]) -> Result<(&[u8], Option<Signature>), Malformed> {
    let Some(before) = data.strip_suffix(MAGIC) else { return Ok((data, None)) };
    let end = before.len() as u64;
    let broken = |found: String| Malformed::new(end.saturating_sub(TRAILER as u64), Rule::Signature, found);
    let (rest, trailer) =
        before.split_last_chunk::<TRAILER>().ok_or_else(|| broken("a file of the magic alone".to_owned()))?;
    let [algorithm, hash, kind, signer, key, pad @ .., s0, s1, s2, s3] = *trailer;
    if kind != PKCS7 {
        return Err(broken(format!("signature type {kind}")));
    }
    if [algorithm, hash, signer, key] != [0; 4] || pad != [0; 3] {
        return Err(broken("fields set that PKCS#7 signatures leave zero".to_owned()));
    }
    let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let split = rest
        .len()
        .checked_sub(size)
        .ok_or_else(|| broken(format!("a signature of {size} bytes in a file of {}", data.len())))?;
    let (module, pkcs7) = rest.split_at(split);
    let signers = signers(pkcs7, split as u64)?;
    Ok((module, Some(Signature { size, signers })))
}

fn signers(pkcs7: &[u8], offset: u64) -> Result<Vec<Signer>, Malformed> {
    let mut content = Reader::new(pkcs7, offset).expect(SEQUENCE)?.reader();
    let kind = content.expect(OBJECT_IDENTIFIER)?;
    let oid = kind.oid()?;
    if oid != SIGNED_DATA {
        return Err(Malformed::new(kind.offset, Rule::Signature, format!("content type {oid}")));
    }
    // [0] EXPLICIT SignedData: version, digestAlgorithms, encapContentInfo, [0] certificates, [1] crls,
    // signerInfos.
    let mut data = content.expect(0xa0)?.reader().expect(SEQUENCE)?.reader();
    data.expect(INTEGER)?;
    data.expect(SET)?;
    data.expect(SEQUENCE)?;
    while matches!(data.peek(), Some(0xa0 | 0xa1)) {
        data.value()?;
    }
    let set = data.expect(SET)?;
    let mut infos = set.reader();
    let mut signers = Vec::new();
    while !infos.is_empty() {
        if signers.len() == MAX_SIGNERS {
            let found = format!("more than {MAX_SIGNERS} signers");
            return Err(Malformed::new(set.offset, Rule::Signature, found));
        }
        signers.push(signer(infos.expect(SEQUENCE)?)?);
    }
    Ok(signers)
}

/// `SignerInfo`: version, sid, digestAlgorithm, [0] signedAttrs, signatureAlgorithm, signature.
fn signer(info: Value<'_>) -> Result<Signer, Malformed> {
    let mut fields = info.reader();
    fields.expect(INTEGER)?;
    let sid = fields.value()?;
    let identity = match sid.tag {
        SEQUENCE => {
            let mut sid = sid.reader();
            let issuer = common_name(sid.expect(SEQUENCE)?)?;
            let serial = hex::encode(sid.expect(INTEGER)?.data);
            SignerIdentity::Certificate { issuer, serial }
        }
        // [0] IMPLICIT OCTET STRING
        0x80 => SignerIdentity::Key { key_id: hex::encode(sid.data) },
        tag => {
            return Err(Malformed::new(sid.offset, Rule::Signature, format!("signer identifier {tag:#04x}")));
        }
    };
    let digest = algorithm(fields.expect(SEQUENCE)?)?;
    if fields.peek() == Some(0xa0) {
        fields.value()?;
    }
    let signature = algorithm(fields.expect(SEQUENCE)?)?;
    fields.expect(OCTET_STRING)?;
    Ok(Signer { identity, digest, algorithm: signature })
}

/// `Name`: a sequence of sets of (type, value) pairs.
fn common_name(name: Value<'_>) -> Result<String, Malformed> {
    let mut sets = name.reader();
    while !sets.is_empty() {
        let mut pairs = sets.expect(SET)?.reader();
        while !pairs.is_empty() {
            let mut pair = pairs.expect(SEQUENCE)?.reader();
            let kind = pair.expect(OBJECT_IDENTIFIER)?.oid()?;
            let value = pair.value()?;
            if kind == COMMON_NAME {
                return Ok(String::from_utf8_lossy(value.data).into_owned());
            }
        }
    }
    Ok(String::new())
}

/// `AlgorithmIdentifier`, by name where known.
fn algorithm(value: Value<'_>) -> Result<String, Malformed> {
    let oid = value.reader().expect(OBJECT_IDENTIFIER)?.oid()?;
    let name = match oid.as_str() {
        "1.3.14.3.2.26" => "sha1",
        "2.16.840.1.101.3.4.2.4" => "sha224",
        "2.16.840.1.101.3.4.2.1" => "sha256",
        "2.16.840.1.101.3.4.2.2" => "sha384",
        "2.16.840.1.101.3.4.2.3" => "sha512",
        "1.2.840.113549.1.1.1" => "rsa",
        "1.2.840.113549.1.1.11" => "rsa-sha256",
        "1.2.840.113549.1.1.12" => "rsa-sha384",
        "1.2.840.113549.1.1.13" => "rsa-sha512",
        "1.2.840.10045.4.3.2" => "ecdsa-sha256",
        "1.2.840.10045.4.3.3" => "ecdsa-sha384",
        "1.2.840.10045.4.3.4" => "ecdsa-sha512",
        "1.3.101.112" => "ed25519",
        _ => return Ok(oid),
    };
    Ok(name.to_owned())
}
