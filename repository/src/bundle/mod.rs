//! All that a host needs of a repository for one manifest, in one file: for hosts that reach no repository.
//!
//! ```text
//! bundle.json                    which manifest, when it was made, the digest of its envelope
//! metadata/N.root.json …         TUF: the chain of roots, timestamp, snapshot, targets, the role that lists the manifest
//! targets/SHA256                 the envelope, and the payloads
//! log/…                          where the repository has a log: the proof of publication, the checkpoint, the tiles
//! policy.json                    a signed policy, if there is one to go along
//! revocations/N.json             signed revocations, the same
//! ```
//!
//! The file is a plain tar archive ([`archive`]). A host reads it by the client that it reads repositories by: a
//! [`Bundle`] is a [`Transport`]. So what a bundle says is worth what a repository's word is worth, and no more: the
//! host's root, policy and floors judge all of it. Nothing in `bundle.json` is believed; it says what to look up.
//!
//! - [`archive`]: the file format
//! - [`create`]: making one

pub mod archive;
pub mod create;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::bounded;
use manifests::log::LogProof;
use manifests::{Envelope, ManifestName, Sha256, UtcTime};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::bundle::archive::{ArchiveError, Member, Section};
use crate::log::{Files, LogError};
use crate::transport::mirrors::Mirror;
use crate::transport::{Body, FetchError, Transport};

/// How the names of bundles end.
pub const EXTENSION: &str = "upd";

/// The first member.
const HEAD: &str = "bundle.json";

/// The signed policy.
const POLICY: &str = "policy.json";

/// The most bytes of the first member.
const HEAD_BYTES: u64 = 4096;

/// The most bytes of a payload: what the archive's format can hold.
const PAYLOAD: u64 = u64::MAX;

/// What a bundle says that it is. A claim: it selects what to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Version of this format; always 1.
    pub bundle: u32,
    /// The manifest's name.
    pub name: ManifestName,
    /// Its version.
    pub version: u64,
    /// The digest of the file of its envelope.
    pub envelope: Sha256,
    /// When the bundle was made.
    pub created: UtcTime,
}

/// Why a file is not a bundle, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading failed.
    #[error("cannot read the bundle {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no archive as this program writes them.
    #[error("{path} is not a whole bundle")]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// Its first member does not say what it is.
    #[error("{path} does not say which manifest it brings")]
    Head {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is of a later program.
    #[error("{path} is a bundle of format {found}: expected 1")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It lacks something.
    #[error("the bundle {path} lacks {member}")]
    Lacks {
        /// The file.
        path: PathBuf,
        /// What.
        member: String,
    },
    /// Its envelope has other bytes than it says.
    #[error("{member} in the bundle {path} has other bytes than its name says")]
    Changed {
        /// The file.
        path: PathBuf,
        /// What.
        member: String,
    },
}

/// A bundle whose members are known.
#[derive(Debug, Clone)]
pub struct Bundle {
    path: PathBuf,
    file: Arc<File>,
    members: BTreeMap<String, Member>,
    head: Head,
}

/// How many bytes a member may have; nothing if a bundle has no such member.
fn limit(name: &str) -> Option<u64> {
    let plain = |text: &str| {
        let known = |c: u8| c.is_ascii_alphanumeric() || b"-_.~%".contains(&c);
        !text.is_empty() && !text.starts_with('.') && text.bytes().all(known)
    };
    let envelope = Envelope::MAX_BYTES as u64;
    match name.split_once('/') {
        None if name == HEAD => Some(HEAD_BYTES),
        None if name == POLICY => Some(envelope),
        Some(("metadata", file)) if plain(file) && file.ends_with(".json") => {
            Some(crate::store::LARGEST as u64)
        }
        Some(("targets", digest)) if digest.parse::<Sha256>().is_ok() => Some(PAYLOAD),
        Some(("revocations", file)) if plain(file) && file.ends_with(".json") => Some(envelope),
        Some(("log", path)) => match path.split_once('/') {
            None if path == crate::log::CHECKPOINT => Some(manifests::log::Note::MAX_BYTES as u64),
            Some(("proof", file)) => {
                let leaf = file.strip_suffix(LogProof::EXTENSION)?;
                leaf.parse::<Sha256>().ok().map(|_| LogProof::MAX_BYTES as u64)
            }
            Some(("tile", path)) => path.split('/').all(plain).then_some(crate::log::tiles::WIDTH * 32),
            _ => None,
        },
        _ => None,
    }
}

/// Looks for members and the first of them in bytes: for the fuzzer.
pub(crate) fn look(bytes: &[u8]) -> Result<BTreeMap<String, Member>, String> {
    let members = archive::members(&bytes, &limit).map_err(|error| error.to_string())?;
    members.map_err(|error| error.to_string())
}

/// The bytes of an archive with these members: for the fuzzer.
pub(crate) fn written(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = archive::Writer::new(Vec::new());
    members.iter().for_each(|(name, bytes)| writer.add(name, bytes).expect("memory"));
    writer.finish().expect("memory")
}

impl Bundle {
    /// Whether a file is meant to be a bundle: by its name, or by how it begins.
    pub fn is_meant(path: &Path) -> bool {
        let begins = || -> io::Result<bool> {
            let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
            // What is read of a pipe is gone for whoever wants the manifest in it.
            if !file.metadata()?.is_file() {
                return Ok(false);
            }
            let mut block = Vec::new();
            file.take(archive::BLOCK as u64).read_to_end(&mut block)?;
            Ok(archive::begins(&block))
        };
        path.extension().is_some_and(|extension| extension == EXTENSION) || begins().unwrap_or(false)
    }

    /// Opens a bundle and finds its members.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let failed = |source| BundleError::Io { path: path.to_owned(), source };
        let file =
            OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let members = archive::members(&file, &limit).map_err(failed)?;
        let members = members.map_err(|source| BundleError::Archive { path: path.to_owned(), source })?;
        let lacks = || BundleError::Lacks { path: path.to_owned(), member: HEAD.to_owned() };
        // It is the first: whoever looks at the beginning of a file knows what it is.
        let first =
            members.get(HEAD).filter(|member| member.at == archive::BLOCK as u64).ok_or_else(lacks)?;
        let file = Arc::new(file);
        let mut bytes = Vec::new();
        let mut section = Section { file: file.clone(), at: first.at, left: first.size };
        section.read_to_end(&mut bytes).map_err(failed)?;
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Head { path: path.to_owned(), source })?;
        if head.bundle != 1 {
            return Err(BundleError::Format { path: path.to_owned(), found: head.bundle });
        }
        Ok(Self { path: path.to_owned(), file, members, head })
    }

    /// What it says that it is.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its members by name, with their sizes in bytes.
    pub fn members(&self) -> impl Iterator<Item = (&str, u64)> {
        self.members.iter().map(|(name, member)| (name.as_str(), member.size))
    }

    /// The bytes of a member; nothing if it is not there.
    pub fn open_member(&self, name: &str) -> Option<(u64, Box<dyn Read + Send>)> {
        let Member { at, size } = *self.members.get(name)?;
        Some((size, Box::new(Section { file: self.file.clone(), at, left: size })))
    }

    /// The bytes of a small member; nothing if it is not there.
    ///
    /// # Errors
    /// [`BundleError::Io`].
    pub fn read_member(&self, name: &str) -> Result<Option<Vec<u8>>, BundleError> {
        let Some((size, bytes)) = self.open_member(name) else { return Ok(None) };
        let failed = |source| BundleError::Io { path: self.path.clone(), source };
        let most = usize::try_from(size.min(16 << 20)).unwrap_or(usize::MAX);
        bounded::read(bytes, most).map(Some).map_err(|error| failed(io::Error::other(error.to_string())))
    }

    /// The bytes of a target by their digest, from their beginning; not checked.
    pub fn target(&self, digest: &Sha256) -> Option<Box<dyn Read + Send>> {
        self.open_member(&format!("targets/{digest}")).map(|(_, bytes)| bytes)
    }

    /// The envelope that it says that it brings: bytes with the digest of its head.
    ///
    /// # Errors
    /// [`BundleError::Lacks`], [`BundleError::Changed`].
    pub fn envelope(&self) -> Result<Vec<u8>, BundleError> {
        let member = format!("targets/{}", self.head.envelope);
        let path = self.path.clone();
        match self.members.get(&member) {
            None => return Err(BundleError::Lacks { path, member }),
            Some(found) if found.size > Envelope::MAX_BYTES as u64 => {
                let (limit, found) = (Envelope::MAX_BYTES as u64, found.size);
                let source = ArchiveError::TooLarge { name: member, limit, found };
                return Err(BundleError::Archive { path, source });
            }
            Some(_) => {}
        }
        let bytes = self.read_member(&member)?.unwrap_or_default();
        match Sha256::of(&bytes) == self.head.envelope {
            true => Ok(bytes),
            false => Err(BundleError::Changed { path, member }),
        }
    }

    /// The signed policy that goes along.
    ///
    /// # Errors
    /// [`BundleError::Io`].
    pub fn policy(&self) -> Result<Option<Vec<u8>>, BundleError> {
        self.read_member(POLICY)
    }

    /// The signed revocations that go along, in their order.
    ///
    /// # Errors
    /// [`BundleError::Io`].
    pub fn revocations(&self) -> Result<Vec<Vec<u8>>, BundleError> {
        let names = self.members.keys().filter(|name| name.starts_with("revocations/"));
        names.filter_map(|name| self.read_member(name).transpose()).collect()
    }

    /// The place that a client has to be given with this transport.
    pub fn place() -> Mirror {
        Mirror::parse("file:///bundle/").expect("an address")
    }
}

/// The member that an address below [`Bundle::place`] means. A target is known by its digest alone, which stands before
/// the first dot of its last part.
fn member(url: &Url) -> Option<String> {
    let path = url.path().strip_prefix("/bundle/")?;
    match path.strip_prefix("targets/") {
        None => Some(path.to_owned()),
        Some(target) => {
            let file = target.rsplit('/').next().unwrap_or(target);
            Some(format!("targets/{}", file.split('.').next().unwrap_or(file)))
        }
    }
}

impl Transport for Bundle {
    fn open(&self, url: &Url, from: u64) -> Result<Option<Body>, FetchError> {
        let Some(Member { at, size }) = member(url).and_then(|name| self.members.get(&name).copied()) else {
            return Ok(None);
        };
        let from = from.min(size);
        let bytes = Section { file: self.file.clone(), at: at + from, left: size - from };
        Ok(Some(Body { from, bytes: Box::new(bytes) }))
    }
}

/// The log in it.
impl Files for Bundle {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, LogError> {
        let Some((_, bytes)) = self.open_member(&format!("log/{path}")) else { return Ok(None) };
        let file = self.path.clone();
        bounded::read(bytes, most).map(Some).map_err(|source| LogError::TooLarge { path: file, source })
    }
}
