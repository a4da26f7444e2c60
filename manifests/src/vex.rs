//! OpenVEX documents, version 0.2.0: what a vulnerability is to products, for scanners.
//!
//! The format is that of the OpenVEX specification and its JSON Schema: no other fields, at least one statement, a justification
//! for each product that is not affected (and then no impact statement), an action for each that is.
//!
//! A document of a host is bound to it: its `@id` is that of the host's key, its boot and its time ([`Bound`]). Scanners
//! do not look at that; whoever hands a document to one has checked it (`update evidence verify`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::evidence::{BootUuid, Challenge};
use crate::key::KeyId;
use crate::names::{CveId, NameError};
use crate::scalar::as_string;
use crate::time::UtcTime;

/// The type of a statement with such a document, and the document's own context.
pub const OPENVEX: &str = "https://openvex.dev/ns/v0.2.0";

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Always [`OPENVEX`].
    #[serde(rename = "@context")]
    pub context: String,
    /// Of which host, boot and time it is.
    #[serde(rename = "@id")]
    pub id: Bound,
    /// Who says it.
    pub author: String,
    /// As what.
    pub role: String,
    /// When.
    pub timestamp: UtcTime,
    /// Always 1: another look is another document.
    pub version: u64,
    /// By which program.
    pub tooling: String,
    /// What it says; at least one.
    pub statements: Vec<Statement>,
}

/// What one vulnerability is to products.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Which.
    pub vulnerability: Vulnerability,
    /// To which products.
    pub products: Vec<Product>,
    /// What it is to them.
    pub status: Status,
    /// Why they are not affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<Justification>,
    /// How that is known, and what it holds for.
    pub status_notes: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_statement: Option<String>,
}

/// A vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vulnerability {
    /// What it is called.
    pub name: CveId,
}

/// A product, by a package URL: scanners compare it with those of the packages that they find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The package URL again, which is an IRI.
    #[serde(rename = "@id")]
    pub id: String,
    /// The package URL.
    pub identifiers: Identifiers,
}

impl Product {
    /// The product with this package URL.
    pub fn of(purl: String) -> Self {
        Self { id: purl.clone(), identifiers: Identifiers { purl } }
    }
}

/// What a product is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identifiers {
    /// Its package URL.
    pub purl: String,
}

/// What a vulnerability is to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing, for a reason.
    NotAffected,
    /// It is open.
    Affected,
    /// This version has the fix.
    Fixed,
    /// Nobody can tell yet.
    UnderInvestigation,
}

/// Why a product is not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Justification {
    /// The fault is in it, and something in it keeps it from being used.
    InlineMitigationsAlreadyExist,
}

/// Of which host's key, boot and time a document is, and in answer to which challenge:
/// `urn:update:vex:KEY:BOOT:SECONDS[:CHALLENGE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The host's key.
    pub host: KeyId,
    /// Its boot.
    pub boot: BootUuid,
    /// When, in seconds since 1970.
    pub seconds: i64,
    /// What it was asked with.
    pub nonce: Option<Challenge>,
}

as_string!(Bound);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, boot, seconds, nonce } = self;
        write!(f, "urn:update:vex:{host}:{boot}:{seconds}")?;
        nonce.as_ref().map_or(Ok(()), |nonce| write!(f, ":{nonce}"))
    }
}

impl FromStr for Bound {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse =
            || NameError::new("id of a host's VEX document", "urn:update:vex:KEY:BOOT:SECONDS", text);
        let mut parts = text.strip_prefix("urn:update:vex:").ok_or_else(refuse)?.splitn(4, ':');
        let mut part = || parts.next().ok_or_else(refuse);
        let (host, boot, seconds) = (part()?, part()?, part()?);
        let number: i64 = seconds.parse().map_err(|_| refuse())?;
        if number.to_string() != seconds {
            return Err(refuse());
        }
        let nonce = parts.next().map(str::parse).transpose().map_err(|_| refuse())?;
        let (host, boot) = (host.parse().map_err(|_| refuse())?, boot.parse().map_err(|_| refuse())?);
        Ok(Self { host, boot, seconds: number, nonce })
    }
}

/// A rule of OpenVEX that a document breaks, in words; none if it breaks none.
pub fn fault(document: &Document) -> Option<String> {
    let Document { context, version, timestamp, id, statements, .. } = document;
    if context != OPENVEX {
        return Some(format!("@context: expected {OPENVEX}, found {context:?}"));
    }
    if *version != 1 {
        return Some(format!("version: expected 1, found {version}"));
    }
    if timestamp.timestamp().as_second() != id.seconds {
        return Some(format!("timestamp: expected that of the @id, found {timestamp}"));
    }
    if statements.is_empty() {
        return Some("statements: expected at least one, found none".to_owned());
    }
    statements.iter().find_map(|statement| {
        let Statement { vulnerability, products, status, justification, action_statement, .. } = statement;
        let name = &vulnerability.name;
        match status {
            _ if products.is_empty() => Some(format!("{name}: expected a product, found none")),
            Status::NotAffected if justification.is_none() => {
                Some(format!("{name}: expected a justification, found none"))
            }
            Status::Affected if action_statement.is_none() => {
                Some(format!("{name}: expected an action_statement, found none"))
            }
            Status::Affected | Status::Fixed | Status::UnderInvestigation if justification.is_some() => {
                Some(format!("{name}: expected a justification of what is not affected alone"))
            }
            _ => None,
        }
    })
}

/// The package URL of a Debian kernel image, as scanners write it: of the package that *runs*, by its own word.
///
/// Qualifiers that are given here have to be the same in what a scanner finds; it may have more of its own.
pub fn kernel_image_purl(distribution: &str, release: &str, version: &str, arch: Option<&str>) -> String {
    let arch = arch.map(|arch| format!("?arch={arch}")).unwrap_or_default();
    format!("pkg:deb/{distribution}/linux-image-{}@{}{arch}", encoded(release), encoded(version))
}

/// A kernel that is no package.
pub fn kernel_purl(release: &str, build_id: Option<&str>) -> String {
    let build = build_id.map(|id| format!("?build_id={id}")).unwrap_or_default();
    format!("pkg:generic/linux@{}{build}", encoded(release))
}

/// Percent-encoding of a package URL's parts (purl specification, "Rules for each component"): everything but letters,
/// digits and `-._~`.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256;

    fn document() -> Document {
        let host: KeyId = Sha256::of(b"key").to_string().parse().unwrap();
        Document {
            context: OPENVEX.to_owned(),
            id: Bound {
                host,
                boot: "3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11".parse().unwrap(),
                seconds: 1_793_491_200,
                nonce: None,
            },
            author: "host".to_owned(),
            role: "the host".to_owned(),
            timestamp: "2026-11-01T00:00:00Z".parse().unwrap(),
            version: 1,
            tooling: "update".to_owned(),
            statements: vec![Statement {
                vulnerability: Vulnerability { name: "CVE-2026-0001".parse().unwrap() },
                products: vec![Product::of(kernel_image_purl(
                    "debian",
                    "6.1.0-50-amd64",
                    "6.1.176-1",
                    Some("amd64"),
                ))],
                status: Status::NotAffected,
                justification: Some(Justification::InlineMitigationsAlreadyExist),
                status_notes: "a livepatch".to_owned(),
                action_statement: None,
            }],
        }
    }

    #[test]
    fn a_document_is_bound_to_host_boot_time_and_challenge() {
        let document = document();
        assert_eq!(fault(&document), None);
        let nonce = Some("audit-7".parse().unwrap());
        for id in [document.id.clone(), Bound { nonce, ..document.id.clone() }] {
            assert_eq!(id.to_string().parse::<Bound>().unwrap(), id);
        }
        let text = document.id.to_string();
        for bad in [
            &text[..60],
            &text.replace("vex", "vax"),
            &format!("{text}:"),
            &format!("{text}:a b"),
            &text.replace(":17", ":017"),
        ] {
            assert!(bad.parse::<Bound>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn what_the_schema_asks_for_is_asked_for() {
        let broken = |change: fn(&mut Document)| {
            let mut document = document();
            change(&mut document);
            fault(&document).expect("a fault")
        };
        assert!(broken(|document| document.statements.clear()).contains("at least one"));
        assert!(broken(|document| document.statements[0].justification = None).contains("justification"));
        assert!(broken(|document| document.statements[0].products.clear()).contains("product"));
        assert!(broken(|document| document.id.seconds += 1).contains("timestamp"));
        assert!(broken(|document| document.version = 2).contains("version"));
        assert!(
            broken(|document| {
                document.statements[0].status = Status::Affected;
                document.statements[0].justification = None;
            })
            .contains("action_statement")
        );
        assert!(broken(|document| document.statements[0].status = Status::Fixed).contains("alone"));
    }

    #[test]
    fn a_kernel_is_named_as_scanners_name_it() {
        assert_eq!(
            kernel_image_purl("debian", "6.1.0-50-amd64", "6.1.176-1~deb12u1+b1", Some("amd64")),
            "pkg:deb/debian/linux-image-6.1.0-50-amd64@6.1.176-1~deb12u1%2Bb1?arch=amd64"
        );
        assert_eq!(
            kernel_image_purl("debian", "6.1.0", "1:2", None),
            "pkg:deb/debian/linux-image-6.1.0@1%3A2"
        );
        assert_eq!(kernel_purl("6.1.0-own", Some("ab")), "pkg:generic/linux@6.1.0-own?build_id=ab");
    }
}
