//! The signature appended to a module: who signed, with which algorithms.
//!
//! Format: the module, then PKCS#7 data, then `struct module_signature`, then a magic line
//! (`include/linux/module_signature.h`, `scripts/sign-file.c`). The PKCS#7 data is a CMS `SignedData` without
//! certificates (RFC 5652, clause 5). Nothing is verified here: which keys are trusted, the running kernel
//! alone knows.

use std::fmt;

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Header, Length, Reader, SliceReader, Tag, TagNumber};
use serde::Serialize;

use crate::elf::{Malformed, Rule};

pub(crate) const MAGIC: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`: algorithm, hash, type, two lengths, three bytes of padding, big-endian length.
const TRAILER: usize = 12;
/// `PKEY_ID_PKCS7`; the two older types carried the signer in fields of their own and are no longer used.
const PKCS7: u8 = 2;
/// `SignedData` of RFC 5652.
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `commonName` of X.520.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
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

impl Signature {
    /// One by RSA over SHA-256, by this signer.
    pub fn by(signer: SignerIdentity) -> Self {
        let (digest, algorithm) = ("sha256".to_owned(), "rsa".to_owned());
        Self { size: 0, signers: vec![Signer { identity: signer, digest, algorithm }] }
    }
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

impl fmt::Display for SignerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { issuer, serial } => {
                write!(f, "the certificate {serial} of {}", issuer.escape_debug())
            }
            Self::Key { key_id } => write!(f, "the key {key_id}"),
        }
    }
}

/// The twelve bytes between so much PKCS#7 data and [`MAGIC`].
pub(crate) fn trailer(pkcs7: u32) -> [u8; TRAILER] {
    let [s0, s1, s2, s3] = pkcs7.to_be_bytes();
    [0, 0, PKCS7, 0, 0, 0, 0, 0, s0, s1, s2, s3]
}

/// Splits a file into module and signature.
pub(crate) fn split(data: &[u8]) -> Result<(&[u8], Option<Signature>), Malformed> {
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

/// What is wrong with the PKCS#7 data; offsets count from its start.
enum Fault {
    /// It is not DER, or not nested as it should be.
    Der(der::Error),
    /// It is DER, and no signature that is known here.
    Signature { at: Length, found: String },
}

impl From<der::Error> for Fault {
    fn from(error: der::Error) -> Self {
        Self::Der(error)
    }
}

impl Fault {
    fn at(self, start: u64) -> Malformed {
        let offset = |at: Length| start + u64::from(u32::from(at));
        match self {
            Self::Der(error) => {
                let at = error.position().unwrap_or(Length::ZERO);
                Malformed::new(offset(at), Rule::Der, error.kind().to_string())
            }
            Self::Signature { at, found } => Malformed::new(offset(at), Rule::Signature, found),
        }
    }
}

/// `[number]`, holding other values.
const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

/// Reads the next value, which must have this tag, from the inside; passes over what `read` leaves.
fn inside<'r, R: Reader<'r>, T>(
    reader: &mut R,
    tag: Tag,
    read: impl FnOnce(&mut R) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let header = Header::decode(reader)?;
    header.tag().assert_eq(tag).map_err(|error| reader.error(error.kind()))?;
    reader.read_nested(header.length(), |inner| {
        let value = read(inner)?;
        while !inner.is_finished() {
            AnyRef::decode(inner)?;
        }
        Ok(value)
    })
}

/// The bytes of the next value, which must have this tag.
fn bytes<'r, R: Reader<'r>>(reader: &mut R, tag: Tag) -> Result<&'r [u8], Fault> {
    let header = Header::decode(reader)?;
    header.tag().assert_eq(tag).map_err(|error| reader.error(error.kind()))?;
    Ok(reader.read_slice(header.length())?)
}

fn signers(pkcs7: &[u8], offset: u64) -> Result<Vec<Signer>, Malformed> {
    let read = || {
        let mut reader = SliceReader::new(pkcs7)?;
        inside(&mut reader, Tag::Sequence, |content| {
            let at = content.position();
            let kind: ObjectIdentifier = content.decode()?;
            if kind != SIGNED_DATA {
                return Err(Fault::Signature { at, found: format!("content type {kind}") });
            }
            inside(content, context(0), |explicit| inside(explicit, Tag::Sequence, signed_data))
        })
    };
    read().map_err(|fault: Fault| fault.at(offset))
}

/// `SignedData`: version, digestAlgorithms, encapContentInfo, [0] certificates, [1] crls, signerInfos.
fn signed_data<'r, R: Reader<'r>>(data: &mut R) -> Result<Vec<Signer>, Fault> {
    bytes(data, Tag::Integer)?;
    bytes(data, Tag::Set)?;
    bytes(data, Tag::Sequence)?;
    for optional in [context(0), context(1)] {
        if Tag::peek(data)? == optional {
            bytes(data, optional)?;
        }
    }
    let at = data.position();
    inside(data, Tag::Set, |infos| {
        let mut signers = Vec::new();
        while !infos.is_finished() {
            if signers.len() == MAX_SIGNERS {
                return Err(Fault::Signature { at, found: format!("more than {MAX_SIGNERS} signers") });
            }
            signers.push(inside(infos, Tag::Sequence, signer)?);
        }
        Ok(signers)
    })
}

/// `SignerInfo`: version, sid, digestAlgorithm, [0] signedAttrs, signatureAlgorithm, signature.
fn signer<'r, R: Reader<'r>>(info: &mut R) -> Result<Signer, Fault> {
    /// `subjectKeyIdentifier`: [0] IMPLICIT OCTET STRING.
    const KEY_ID: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(0) };

    bytes(info, Tag::Integer)?;
    let at = info.position();
    let identity = match Tag::peek(info)? {
        Tag::Sequence => inside(info, Tag::Sequence, |sid| {
            let issuer = inside(sid, Tag::Sequence, common_name)?;
            let serial = hex::encode(bytes(sid, Tag::Integer)?);
            Ok(SignerIdentity::Certificate { issuer, serial })
        })?,
        KEY_ID => SignerIdentity::Key { key_id: hex::encode(bytes(info, KEY_ID)?) },
        tag => return Err(Fault::Signature { at, found: format!("signer identifier {tag}") }),
    };
    let digest = inside(info, Tag::Sequence, algorithm)?;
    if Tag::peek(info)? == context(0) {
        bytes(info, context(0))?;
    }
    let algorithm = inside(info, Tag::Sequence, algorithm)?;
    <&OctetStringRef>::decode(info)?;
    Ok(Signer { identity, digest, algorithm })
}

/// `Name`: a sequence of sets of (type, value) pairs. Empty without a `commonName`.
fn common_name<'r, R: Reader<'r>>(sets: &mut R) -> Result<String, Fault> {
    let mut name = None;
    while !sets.is_finished() {
        inside(sets, Tag::Set, |pairs| {
            while !pairs.is_finished() {
                let (kind, value) = inside(pairs, Tag::Sequence, |pair| {
                    let kind: ObjectIdentifier = pair.decode()?;
                    Ok((kind, AnyRef::decode(pair)?))
                })?;
                if kind == COMMON_NAME && name.is_none() {
                    name = Some(String::from_utf8_lossy(value.value()).into_owned());
                }
            }
            Ok(())
        })?;
    }
    Ok(name.unwrap_or_default())
}

/// `AlgorithmIdentifier`, by name where known.
fn algorithm<'r, R: Reader<'r>>(fields: &mut R) -> Result<String, Fault> {
    let oid: ObjectIdentifier = fields.decode()?;
    let oid = oid.to_string();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        match length {
            0..=0x7f => [&[tag, length][..], &content].concat(),
            _ => [&[tag, 0x81, length][..], &content].concat(),
        }
    }

    /// `SignedData` with one signer: its identifier, and whatever stands before `signerInfos`.
    fn pkcs7(identity: &[u8], before: &[u8]) -> Vec<u8> {
        let signed_data = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
        let sha256 = tlv(0x30, &[&[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]]);
        let unknown = tlv(0x30, &[&[0x06, 3, 0x2a, 3, 4], &[5, 0]]);
        let attributes = tlv(0xa0, &[&[4, 1, 7]]);
        let info = tlv(0x30, &[&[2, 1, 3], identity, &sha256, &attributes, &unknown, &[4, 1, 0xff]]);
        let data = [&[2, 1, 3][..], &tlv(0x31, &[]), &tlv(0x30, &[]), before, &tlv(0x31, &[&info])].concat();
        tlv(0x30, &[&signed_data, &tlv(0xa0, &[&tlv(0x30, &[&data])])])
    }

    const KEY: [u8; 5] = [0x80, 3, 0xab, 0xcd, 0xef];

    #[test]
    fn a_signer_may_be_known_by_its_key_and_use_an_unknown_algorithm() {
        let certificates = tlv(0xa0, &[&[5, 0]]);
        for before in [&[][..], &certificates] {
            let expected = Signer {
                identity: SignerIdentity::Key { key_id: "abcdef".to_owned() },
                digest: "sha256".to_owned(),
                algorithm: "1.2.3.4".to_owned(),
            };
            assert_eq!(signers(&pkcs7(&KEY, before), 0).unwrap(), [expected]);
        }
    }

    #[test]
    fn faults_are_told_with_their_place_in_the_file() {
        let other = signers(&pkcs7(&[0x81, 1, 0], &[]), 1000).unwrap_err();
        assert_eq!(other.rule, Rule::Signature);
        assert_eq!(other.offset, 1000 + 31, "the signer's identifier");
        let mut indefinite = pkcs7(&KEY, &[]);
        indefinite[1] = 0x80;
        assert_eq!(signers(&indefinite, 0).unwrap_err().rule, Rule::Der);
        let mut long = pkcs7(&KEY, &[]);
        long.splice(1..2, [0x81, 0x50]);
        assert_eq!(signers(&long, 0).unwrap_err().rule, Rule::Der, "a length that is not minimal");
    }

    #[test]
    fn no_cut_and_no_changed_byte_makes_the_reader_panic() {
        let whole = pkcs7(&KEY, &[]);
        for length in 0..whole.len() {
            assert_eq!(signers(&whole[..length], 0).unwrap_err().rule, Rule::Der);
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = signers(&changed, 0);
            }
        }
    }
}
