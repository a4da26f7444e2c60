//! Making a bundle: what a new client fetches of a repository, and what it needs for one manifest.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use manifests::log::{LogEntry, LogProof};
use manifests::{Envelope, EnvelopeError, Manifest, ManifestError, ManifestName, Sha256, UtcTime};
use serde::Serialize;
use system::durable::Unnamed;
use url::Url;

use crate::bundle::archive::Writer;
use crate::bundle::{HEAD, Head, POLICY};
use crate::client::catalogue::{MANIFEST, path};
use crate::client::{Client, ClientError, Listed};
use crate::log::store::proof_path;
use crate::log::tiles::{Tiles, WIDTH, tile};
use crate::log::{CHECKPOINT, Files as _, LogError, Remote};
use crate::store::{LARGEST, Store};
use crate::transport::mirrors::{Mirror, Mirrors};
use crate::transport::{Body, FetchError, Transport};

/// Why a bundle was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The repository.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file of it cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No such manifest.
    #[error("the repository has no {what}")]
    NoSuchManifest {
        /// Which.
        what: String,
    },
    /// What it lists is not signed.
    #[error("{path} in the repository is not a signed manifest")]
    Envelope {
        /// The target.
        path: String,
        /// Why.
        source: EnvelopeError,
    },
    /// What is signed is no manifest.
    #[error("what {path} in the repository says is not a manifest")]
    Manifest {
        /// The target.
        path: String,
        /// Why.
        source: ManifestError,
    },
    /// A payload in the repository is not the one that the manifest names.
    #[error(
        "payload {file} in the repository is not the one that the manifest names: expected {expected}, found {found}"
    )]
    Payload {
        /// Its file.
        file: String,
        /// What the manifest says.
        expected: Sha256,
        /// What the repository lists.
        found: String,
    },
    /// The log.
    #[error("the repository's log cannot be taken along")]
    Log(#[from] LogError),
    /// Writing failed.
    #[error("write the bundle {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What goes into a bundle beside what the repository has.
#[derive(Debug, Clone, Default)]
pub struct Along {
    /// The file of a signed policy.
    pub policy: Option<Vec<u8>>,
    /// Files of signed revocations.
    pub revocations: Vec<Vec<u8>>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Created {
    /// What it says that it is.
    #[serde(flatten)]
    pub head: Head,
    /// Whether it brings a proof that the manifest is in the repository's log.
    pub logged: bool,
    /// How many payloads it brings.
    pub payloads: usize,
}

/// A transport that keeps what it was asked for.
struct Recorder {
    inner: Mirrors,
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Transport for Recorder {
    fn open(&self, url: &Url, _: u64) -> Result<Option<Body>, FetchError> {
        let bytes = self.inner.whole(url, LARGEST as u64)?;
        let Some(bytes) = bytes else { return Ok(None) };
        if let Some(name) = url.path_segments().and_then(|mut parts| parts.next_back()) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(name.to_owned(), bytes.clone());
        }
        // Metadata is read from its beginning; a body may begin earlier than asked.
        Ok(Some(Body { from: 0, bytes: Box::new(io::Cursor::new(bytes)) }))
    }
}

/// A client that knows nothing but a root, and the metadata that it has fetched.
struct Fresh {
    client: Client,
    recorder: Arc<Recorder>,
    place: Mirror,
    /// What it keeps.
    _scratch: tempfile::TempDir,
}

impl Fresh {
    /// The first place whose metadata holds is the repository, as for every client.
    fn refresh(root: &[u8], mirrors: &Mirrors, now: Timestamp) -> Result<Self, CreateError> {
        let mut places = Vec::new();
        for place in mirrors.places() {
            let recorder = Arc::new(Recorder { inner: mirrors.clone(), kept: Mutex::default() });
            let alone = mirrors.by(vec![place.clone()], recorder.clone());
            let scratch = tempfile::tempdir().map_err(|source| CreateError::Write {
                path: PathBuf::from("a temporary directory"),
                source,
            })?;
            match Client::refresh(root, &alone, &Store::new(scratch.path()), now) {
                Ok(client) => {
                    return Ok(Self { client, recorder, place: place.clone(), _scratch: scratch });
                }
                Err(ClientError::Refresh { places: mut refused }) => places.append(&mut refused),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ClientError::Refresh { places }.into())
    }

    /// All metadata that a client may ask for on its way from any root to this manifest.
    fn metadata(&self, mirrors: &Mirrors) -> Result<BTreeMap<String, Vec<u8>>, CreateError> {
        let mut kept = self.recorder.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Hosts may know any earlier root: their way leads over all of them.
        for version in 1..=self.client.trusted().root().version {
            let name = format!("{version}.root.json");
            if !kept.contains_key(&name)
                && let Some(bytes) = mirrors.whole(&self.place.metadata(&name), LARGEST as u64)?
            {
                kept.insert(name, bytes);
            }
        }
        Ok(kept)
    }
}

/// Makes a bundle of the latest version of a manifest, or of one version.
///
/// # Errors
/// [`CreateError`]; then there is no file.
pub fn create(
    out: &Path,
    root: &[u8],
    mirrors: &Mirrors,
    (name, version): (&ManifestName, Option<u64>),
    along: &Along,
    now: Timestamp,
) -> Result<Created, CreateError> {
    let mut fresh = Fresh::refresh(root, mirrors, now)?;
    let versions = fresh.client.versions(name)?;
    let missing = || CreateError::NoSuchManifest {
        what: version.map_or_else(|| name.to_string(), |version| format!("{name}@{version}")),
    };
    let version = version.or(versions.last().map(|entry| entry.version)).ok_or_else(missing)?;
    let listed_as = path(name, version, MANIFEST);
    let listed = match fresh.client.target(&listed_as) {
        Err(ClientError::NoSuchTarget { .. }) => return Err(missing()),
        listed => listed?,
    };
    // Targets are taken from wherever they are; metadata from one place.
    let bytes = read_target(mirrors, &listed)?;
    let envelope = Envelope::parse(&bytes)
        .map_err(|source| CreateError::Envelope { path: listed_as.clone(), source })?;
    let manifest = Manifest::parse(envelope.unverified_payload())
        .map_err(|source| CreateError::Manifest { path: listed_as.clone(), source })?;
    let head = Head {
        bundle: 1,
        name: name.clone(),
        version,
        envelope: Sha256::of(&bytes),
        created: UtcTime::floor(now),
    };

    let failed = |source| CreateError::Write { path: out.to_owned(), source };
    let file = Unnamed::with_mode(out, 0o644).map_err(failed)?;
    let mut writer = Writer::new(io::BufWriter::new(file));
    let json = serde_json::to_vec(&head).expect("words and numbers can be written");
    writer.add(HEAD, &json).map_err(failed)?;
    let log = log_of(&Remote::new(mirrors.clone()), &envelope)?;
    writer.add(&format!("targets/{}", head.envelope), &bytes).map_err(failed)?;
    let mut taken = vec![head.envelope];
    for payload in manifest.payloads() {
        let listed = fresh.client.target(&path(name, version, payload.file.as_str()))?;
        if listed.sha256() != Some(payload.sha256) {
            let found =
                listed.sha256().map_or_else(|| "another digest".to_owned(), |found| found.to_string());
            let file = payload.file.to_string();
            return Err(CreateError::Payload { file, expected: payload.sha256, found });
        }
        if taken.contains(&payload.sha256) {
            continue;
        }
        taken.push(payload.sha256);
        let opened = mirrors.target(listed.place(), 0, listed.length)?;
        let bytes = opened.ok_or_else(|| ClientError::Missing { path: listed.path.clone() })?;
        let mut hashed = Hashed { bytes, hash: <sha2::Sha256 as sha2::Digest>::new() };
        writer.stream(&format!("targets/{}", payload.sha256), listed.length, &mut hashed).map_err(failed)?;
        let found = hashed.digest();
        if found != payload.sha256 {
            let (file, found) = (payload.file.to_string(), found.to_string());
            return Err(CreateError::Payload { file, expected: payload.sha256, found });
        }
    }
    for (name, bytes) in fresh.metadata(mirrors)? {
        writer.add(&format!("metadata/{name}"), &bytes).map_err(failed)?;
    }
    for (path, bytes) in &log {
        writer.add(&format!("log/{path}"), bytes).map_err(failed)?;
    }
    if let Some(policy) = &along.policy {
        writer.add(POLICY, policy).map_err(failed)?;
    }
    for (number, revocation) in (1..).zip(&along.revocations) {
        writer.add(&format!("revocations/{number:04}.json"), revocation).map_err(failed)?;
    }
    let mut buffered = writer.finish().map_err(failed)?;
    buffered.flush().map_err(failed)?;
    let file = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
    file.replace().map_err(failed)?;
    Ok(Created { head, logged: !log.is_empty(), payloads: taken.len() - 1 })
}

/// The checked bytes of an envelope, from wherever they are.
fn read_target(mirrors: &Mirrors, listed: &Listed) -> Result<Vec<u8>, CreateError> {
    if listed.length > Envelope::MAX_BYTES as u64 {
        let why = format!("expected at most {} bytes, found {}", Envelope::MAX_BYTES, listed.length);
        return Err(ClientError::Unusable { path: listed.path.clone(), why }.into());
    }
    let opened = mirrors.target(listed.place(), 0, listed.length)?;
    let mut bytes = Vec::new();
    opened
        .ok_or_else(|| ClientError::Missing { path: listed.path.clone() })?
        .read_to_end(&mut bytes)
        .map_err(|source| ClientError::Read { path: listed.path.clone(), source })?;
    listed.check(&bytes)?;
    Ok(bytes)
}

/// What a host needs of the log: the proof of this envelope, the checkpoint, and all tiles of hashes, so that it can tell
/// whether the log continues what it has seen, whatever that is. Nothing where there is no log, or it is not in it.
fn log_of(log: &Remote, envelope: &Envelope) -> Result<BTreeMap<String, Vec<u8>>, CreateError> {
    let Ok(entry) = LogEntry::of(envelope) else { return Ok(BTreeMap::new()) };
    let proof_path = proof_path(&entry.leaf());
    let Some(bytes) = log.read(&proof_path, LogProof::MAX_BYTES)? else { return Ok(BTreeMap::new()) };
    let malformed = |error: manifests::log::ProofError| LogError::Malformed {
        path: proof_path.clone(),
        expected: error.to_string(),
    };
    let proof = LogProof::parse(&bytes).map_err(malformed)?;
    let head = proof.checkpoint.head;
    let tiles = Tiles::new(log, head.size);
    let mut count = head.size;
    for level in 0.. {
        for index in 0..count.div_ceil(WIDTH) {
            tiles.tile(level, index)?;
        }
        count /= WIDTH;
        if count == 0 {
            break;
        }
    }
    let found = tiles.head()?;
    if found != head || !proof.holds(&entry.to_bytes()) {
        let (size, expected, found) = (head.size, head.root, found.root);
        return Err(LogError::Changed { path: tile(0, 0, WIDTH), size, expected, found }.into());
    }
    let mut files = tiles.taken();
    files.insert(CHECKPOINT.to_owned(), proof.note.to_string().into_bytes());
    files.insert(proof_path, bytes);
    Ok(files)
}

struct Hashed<R> {
    bytes: R,
    hash: sha2::Sha256,
}

impl<R> Hashed<R> {
    fn digest(self) -> Sha256 {
        Sha256::from_bytes(sha2::Digest::finalize(self.hash).into())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        sha2::Digest::update(&mut self.hash, &into[..read]);
        Ok(read)
    }
}
