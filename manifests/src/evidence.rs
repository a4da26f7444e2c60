//! Evidence: what a host says of itself, signed by a key that root of that host alone holds.
//!
//! An in-toto statement ([`crate::statement`]) in an envelope, with one of two predicates: [`Evidence`], of type [`TYPE`],
//! says everything; a VEX document ([`crate::vex`]) says what vulnerabilities are to the kernel that runs. Both name the
//! host's key, its boot, the time and what the host was asked with, and [`check`] holds each of them against what is
//! expected: what another host, another boot or another time signed proves nothing of this one.
//!
//! What it does not prove: that the host tells the truth. Its root, and whoever is root there, can sign anything.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::chain::Head;
use crate::digest::{BuildId, Sha256};
use crate::envelope::Envelope;
use crate::host::HostId;
use crate::key::{KeyId, PublicKeyFile};
use crate::names::{CveId, GroupName, KernelRelease, KeyName, ManifestName, ModuleName};
use crate::package::KernelPackage;
use crate::scalar::word;
use crate::statement::{self, PAYLOAD_TYPE, Statement, StatementError};
use crate::time::UtcTime;
use crate::verify::ALLOWED_SKEW;
use crate::vex;
use crate::vex::OPENVEX;

/// The type of what a host says of itself.
pub const TYPE: &str = "urn:update:host-evidence:v1";

word! {
    /// What a host is asked with, so that its answer cannot be an older one.
    Challenge,
    what: "nonce",
    rule: "1 to 128 characters of a-z, A-Z, 0-9, ., _ and -",
    schema: { "pattern": "^[A-Za-z0-9._-]{1,128}$" },
    check: |s| (1..=128).contains(&s.len()) && s.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
}

word! {
    /// The random id of a boot: a lower-case UUID.
    BootUuid,
    what: "boot id",
    rule: "a UUID such as 3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11",
    schema: { "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" },
    check: |s| s.len() == 36 && s.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    })
}

/// What runs on a host at one moment, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Which host.
    pub host: Host,
    /// Which boot.
    pub boot: Boot,
    /// When, by the host's clock.
    pub at: UtcTime,
    /// What it was asked with; `null` if with nothing.
    pub nonce: Option<Challenge>,
    /// The kernel that runs.
    pub kernel: Kernel,
    /// Every livepatch that the kernel shows, whoever loaded it.
    pub livepatches: Vec<Livepatch>,
    /// Livepatches that should be in force here and that the kernel does not show.
    pub missing: Vec<Missing>,
    /// Why this kernel can have no livepatches; `null` if it can.
    pub no_livepatch: Option<String>,
    /// Every container that has processes.
    pub workloads: Vec<Workload>,
    /// What could not be looked at, and why.
    pub unreadable: Vec<String>,
    /// The transactions that are in force or have not ended, oldest first.
    pub transactions: Vec<Transaction>,
    /// The trust policy; `null` if there is none that can be read.
    pub policy: Option<PolicySeen>,
    /// The journal.
    pub journal: JournalSeen,
    /// What is known here of vulnerabilities that manifests name.
    pub vulnerabilities: Vec<Vulnerability>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The key that signs its evidence.
    pub key: KeyId,
    /// What it calls itself; a label, and no more.
    pub name: Option<String>,
    /// Who it is in its fleet; `null` if it is in none.
    pub fleet: Option<HostId>,
    /// The groups that it is in.
    pub groups: Vec<GroupName>,
}

/// A boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Its id.
    pub id: BootUuid,
    /// The start of userspace in it, which a soft reboot changes; `null` if it is not told.
    pub userspace: Option<String>,
    /// For how long it has lasted, in seconds.
    pub uptime_s: u64,
}

/// A kernel that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// `uname -r`.
    pub release: KernelRelease,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub arch: String,
    /// Its build, by the note that it carries.
    pub build_id: Option<BuildId>,
    /// The package that it says it is of.
    pub package: Option<KernelPackage>,
    /// Its taint flags; `null` if they cannot be read.
    pub tainted: Option<u64>,
}

/// A livepatch that the kernel shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Livepatch {
    /// Its module.
    pub module: ModuleName,
    /// Which build of it is loaded.
    pub build_id: Option<BuildId>,
    /// What the kernel says of its state, such as `enabled`.
    pub state: String,
    /// Whether every task runs the replaced functions.
    pub in_force: bool,
    /// What it patches.
    pub patches: Vec<PatchedObject>,
    /// What it is to this host's journal; `null` of one that this program did not load.
    pub ours: Option<Ours>,
}

/// A kernel object that a livepatch changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchedObject {
    /// `vmlinux` or a module.
    pub object: String,
    /// Its functions that are replaced.
    pub functions: Vec<PatchedFunction>,
}

/// A function that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchedFunction {
    /// Its symbol.
    pub name: String,
    /// Which of several of that name, from 1.
    pub sympos: u64,
    /// How many symbols of that name kallsyms has in that object; `null` if it cannot be read.
    pub symbols: Option<u32>,
    /// Whether ftrace lists it among the functions whose calls are led elsewhere (`enabled_functions`, flag `I`); `null`
    /// where that list is not mounted.
    pub redirected: Option<bool>,
}

/// A livepatch that a transaction of this host loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// The module's bytes.
    pub payload: Sha256,
    /// The transaction.
    pub transaction: String,
    /// The manifest that brought it; `null` where the journal does not have it any more.
    pub manifest: Option<ManifestSeen>,
    /// Whether the kernel shows exactly what the module's tables say.
    pub shows_claim: bool,
    /// Why not.
    pub why: Option<String>,
}

/// A livepatch that should be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// Its module.
    pub module: ModuleName,
    /// The module's bytes.
    pub payload: Sha256,
    /// What stands in its place, or why it is not there.
    pub why: String,
}

/// A signed manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSeen {
    /// Its name.
    pub name: ManifestName,
    /// Its version.
    pub version: u64,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// Who signed it when it was applied, one line a role.
    pub signed_by: Vec<String>,
    /// The vulnerabilities that it says it fixes.
    pub fixes: Vec<CveId>,
}

/// A container with processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its name.
    pub id: String,
    /// What its runtime says of it.
    pub status: String,
    /// When its first process began, in clock ticks since boot.
    pub started: Option<u64>,
    /// What it was made from; `null` where its runtime knows no images.
    pub image: Option<Image>,
    /// The fixes that lie over its files, by their payloads.
    pub fixes: Vec<Sha256>,
    /// How its files stand to what was committed; `null` where nothing was.
    pub files: Option<String>,
}

/// An image of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// What it is called.
    pub name: Option<String>,
    /// The digest of its configuration, which names its layers: `sha256:…`.
    pub id: Option<String>,
    /// The digest of its manifest.
    pub digest: Option<String>,
    /// The digests of its unpacked layers, lowest first.
    pub layers: Vec<String>,
}

/// A transaction of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// Its name.
    pub id: String,
    /// What began it, such as `apply greet v3`.
    pub origin: String,
    /// The digest of the manifest; `null` of a rollback.
    pub manifest: Option<Sha256>,
    /// How it ended; `null` if it has not.
    pub outcome: Option<String>,
    /// When it began.
    pub began: String,
}

/// A trust policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySeen {
    /// The digest of its file.
    pub sha256: Sha256,
    /// Its edition; `null` of one without.
    pub version: Option<u64>,
}

/// A journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSeen {
    /// How far it goes.
    pub head: Head,
    /// The first record at which it does not hold, in words; `null` if all of it does.
    pub broken: Option<String>,
}

/// What a vulnerability is to the kernel that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vulnerability {
    /// Which.
    pub cve: CveId,
    /// What it is to this kernel.
    pub status: vex::Status,
    /// By which manifest that is known.
    pub manifest: ManifestName,
    /// Its version.
    pub version: u64,
    /// How it is known.
    pub why: String,
}

/// A statement of a host, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// What runs on it.
    Evidence(Box<Statement<Evidence>>),
    /// What vulnerabilities are to its kernel.
    Vex(Box<Statement<vex::Document>>),
}

/// What statements of both kinds are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The host's key, by its own word.
    pub host: KeyId,
    /// The boot.
    pub boot: BootUuid,
    /// When.
    pub at: UtcTime,
    /// What it was asked with.
    pub nonce: Option<Challenge>,
}

impl Said {
    /// Reads the bytes of a statement of a host; nobody vouches for it yet.
    ///
    /// # Errors
    /// [`EvidenceError::Statement`], [`EvidenceError::Vex`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let said = match statement::predicate_type(bytes)?.as_str() {
            OPENVEX => Self::Vex(Box::new(Statement::parse(bytes, OPENVEX)?)),
            _ => Self::Evidence(Box::new(Statement::parse(bytes, TYPE)?)),
        };
        match &said {
            Self::Vex(statement) => match vex::fault(&statement.predicate) {
                Some(fault) => Err(EvidenceError::Vex { fault }),
                None => Ok(said),
            },
            Self::Evidence(_) => Ok(said),
        }
    }

    /// What it is bound to.
    pub fn binding(&self) -> Binding {
        match self {
            Self::Evidence(statement) => {
                let Evidence { host, boot, at, nonce, .. } = &statement.predicate;
                Binding { host: host.key, boot: boot.id.clone(), at: *at, nonce: nonce.clone() }
            }
            Self::Vex(statement) => {
                let vex::Document { id, timestamp, .. } = &statement.predicate;
                Binding { host: id.host, boot: id.boot.clone(), at: *timestamp, nonce: id.nonce.clone() }
            }
        }
    }

    /// What it speaks of.
    pub fn subjects(&self) -> &[statement::Subject] {
        match self {
            Self::Evidence(statement) => &statement.subject,
            Self::Vex(statement) => &statement.subject,
        }
    }
}

/// What a statement has to be.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The keys of hosts that are known.
    pub keys: &'a [PublicKeyFile],
    /// The name (of its key), or the key's id, of the host that it has to be of.
    pub host: Option<&'a str>,
    /// The boot that it has to be of.
    pub boot: Option<&'a BootUuid>,
    /// What the host was asked with.
    pub nonce: Option<&'a Challenge>,
    /// How old it may be.
    pub max_age: SignedDuration,
    /// The clock of whoever checks.
    pub now: Timestamp,
}

/// A statement that a known host signed, of what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What the key is called.
    pub signer: KeyName,
    /// The key.
    pub key: KeyId,
    /// What it says.
    pub said: Said,
    /// How old it is; nothing if it is from the near future.
    pub age: SignedDuration,
}

/// Why a statement proves nothing of what was expected.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The envelope has something else in it.
    #[error("it is not evidence: expected the payload type {PAYLOAD_TYPE}, found {found:?}")]
    PayloadType {
        /// Its type.
        found: String,
    },
    /// It is no statement of a host.
    #[error("it is no statement of a host")]
    Statement(#[from] StatementError),
    /// It is no VEX document.
    #[error("it is no OpenVEX document: {fault}")]
    Vex {
        /// The rule that it breaks.
        fault: String,
    },
    /// None of the keys signed it.
    #[error("no host that is known here signed it")]
    UnknownSigner {
        /// The keys that were given.
        expected: Vec<KeyName>,
        /// The keys that signed.
        found: Vec<KeyId>,
    },
    /// A signature under a known key does not hold.
    #[error("the signature of {key} does not hold: it was changed, or signed by somebody else")]
    BadSignature {
        /// The key.
        key: KeyName,
    },
    /// It names another host than the one that signed it.
    #[error("it speaks for another host than the one that signed it")]
    OtherHost {
        /// The key that signed.
        expected: KeyId,
        /// The key that it names.
        found: KeyId,
    },
    /// It is of another host than the one that was asked.
    #[error("it is of another host")]
    WrongHost {
        /// The one that was asked.
        expected: String,
        /// The one that signed.
        found: KeyName,
    },
    /// It is of another boot.
    #[error("it is of another boot")]
    WrongBoot {
        /// The boot that was asked about.
        expected: BootUuid,
        /// The boot that it is of.
        found: BootUuid,
    },
    /// It does not answer the question.
    #[error("it does not answer this question")]
    WrongNonce {
        /// What was asked with.
        expected: Challenge,
        /// What it answers.
        found: Option<Challenge>,
    },
    /// It is too old.
    #[error("it is too old")]
    TooOld {
        /// How old it may be.
        limit: SignedDuration,
        /// When it was made.
        at: UtcTime,
        /// The clock of whoever checks.
        now: UtcTime,
    },
    /// It is from the future.
    #[error("it is from the future")]
    FromTheFuture {
        /// When it says it was made.
        at: UtcTime,
        /// The clock of whoever checks.
        now: UtcTime,
    },
}

/// Checks a statement: type, signature, host, boot, question and age, in this order.
///
/// # Errors
/// [`EvidenceError`]: it proves nothing of what was expected.
pub fn check(envelope: &Envelope, expected: &Expected<'_>) -> Result<Checked, EvidenceError> {
    if envelope.payload_type() != PAYLOAD_TYPE {
        return Err(EvidenceError::PayloadType { found: envelope.payload_type().to_owned() });
    }
    let message = envelope.signed_bytes();
    let mut signer = None;
    for signature in envelope.signatures() {
        let Some(known) = expected.keys.iter().find(|known| known.id == signature.key) else { continue };
        if !known.public.verifies(&message, &signature.bytes) {
            return Err(EvidenceError::BadSignature { key: known.name.clone() });
        }
        signer = signer.or(Some(known));
    }
    let Some(signer) = signer else {
        return Err(EvidenceError::UnknownSigner {
            expected: expected.keys.iter().map(|known| known.name.clone()).collect(),
            found: envelope.signatures().iter().map(|signature| signature.key).collect(),
        });
    };
    let said = Said::parse(envelope.unverified_payload())?;
    let Binding { host, boot, at, nonce } = said.binding();
    if host != signer.id {
        return Err(EvidenceError::OtherHost { expected: signer.id, found: host });
    }
    let is_meant = |wanted: &&str| *wanted == signer.name.as_str() || *wanted == signer.id.to_string();
    if let Some(wanted) = expected.host.filter(|wanted| !is_meant(wanted)) {
        return Err(EvidenceError::WrongHost { expected: wanted.to_owned(), found: signer.name.clone() });
    }
    if let Some(wanted) = expected.boot.filter(|wanted| **wanted != boot) {
        return Err(EvidenceError::WrongBoot { expected: wanted.clone(), found: boot });
    }
    if let Some(wanted) = expected.nonce.filter(|wanted| nonce.as_ref() != Some(wanted)) {
        return Err(EvidenceError::WrongNonce { expected: wanted.clone(), found: nonce });
    }
    let now = UtcTime::floor(expected.now);
    let age = now.timestamp().duration_since(at.timestamp());
    if age > expected.max_age {
        return Err(EvidenceError::TooOld { limit: expected.max_age, at, now });
    }
    if age < -ALLOWED_SKEW {
        return Err(EvidenceError::FromTheFuture { at, now });
    }
    Ok(Checked { signer: signer.name.clone(), key: signer.id, said, age })
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
