//! Manifests and payloads by name, and what is new for this host.
//!
//! What a repository says selects what to fetch; whether to believe a manifest is asked of this host's policy, as if it
//! had come as a file. Nothing here is asked by resume, rollback or status: a repository that has expired, or is away,
//! stands in no way back.

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use manifests::bounded::{self, BoundedError};
use manifests::{
    CveId, Envelope, HostKernel, KernelOutcome, ManifestName, Payload, Policy, Severity, TrustFloor, UtcTime,
};
use repository::client::catalogue::{self, Entry, MANIFEST, path};
use repository::client::{Client, ClientError, Listed};
use repository::log::{LogError, Remote};
use repository::store::Store;
use repository::transport::Patience;
use repository::transport::helper::{Helper, Network};
use repository::transport::mirrors::{Mirror, Mirrors, NotAPlace};
use serde::Serialize;
use system::clock::SystemClock;
use system::durable;

use crate::config::RepositoryConfig;
use crate::operations::publication;
use crate::operations::trust::{TrustError, authenticate, read_policy};
use crate::state::payloads::{PayloadSource, StoreError};

/// The largest root that is pinned, in bytes.
const ROOT: usize = 512 << 10;

/// Why nothing is to be had by name.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The pinned root cannot be read.
    #[error("read the repository's root {path}")]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BoundedError,
    },
    /// A place, or the proxy, is no address.
    #[error(transparent)]
    Place(#[from] NotAPlace),
    /// This program does not know where it is, and so not what lies beside it.
    #[error("find this program")]
    Program(#[source] io::Error),
    /// The repository.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no such manifest in it.
    #[error("the repository has no {0}")]
    NoSuchManifest(Wanted),
    /// A manifest cannot be kept.
    #[error("keep {path}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The policy cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// What proves that a manifest is in the repository's log cannot be had.
    #[error("the log of the repository cannot be asked")]
    Log(#[from] LogError),
}

/// A manifest by name: `NAME`, its latest version, or `NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: ManifestName,
    /// Its version; the latest without one.
    pub version: Option<u64>,
}

impl FromStr for Wanted {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        Ok(Self { name: name.parse().map_err(|_| ())?, version })
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// A manifest from the repository. Nobody has looked at who signed it.
pub struct Fetched {
    /// The file.
    pub manifest: PathBuf,
    /// Its payloads.
    pub payloads: RepositoryPayloads,
    /// A later version, if an earlier one was asked for.
    pub newer: Option<u64>,
}

/// Ask the places of the repository.
///
/// # Errors
/// [`RepositoryError`].
pub fn refresh(settings: &RepositoryConfig, store: &Path, now: Timestamp) -> Result<Client, RepositoryError> {
    Ok(client_of(&pinned(settings)?, &places(settings)?, store, now)?)
}

/// The root that this host pins.
///
/// # Errors
/// [`RepositoryError::Root`].
pub fn pinned(settings: &RepositoryConfig) -> Result<Vec<u8>, RepositoryError> {
    let read = || bounded::read(std::fs::File::open(&settings.root)?, ROOT);
    read().map_err(|source| RepositoryError::Root { path: settings.root.clone(), source })
}

/// A repository at some places, as far as a root vouches for it.
///
/// # Errors
/// [`ClientError`].
pub fn client_of(root: &[u8], places: &Mirrors, store: &Path, now: Timestamp) -> Result<Client, ClientError> {
    Client::refresh(root, places, &metadata(store), now)
}

/// The places of the repository, and how to reach them.
///
/// # Errors
/// [`RepositoryError::Place`], [`RepositoryError::Program`].
pub fn places(settings: &RepositoryConfig) -> Result<Mirrors, RepositoryError> {
    let places = settings.places.iter().map(|place| Mirror::parse(place)).collect::<Result<_, _>>()?;
    let network = network(settings)?;
    let patience = network.patience;
    Ok(Mirrors::new(places, Arc::new(Helper(network)), patience, Arc::new(SystemClock)))
}

/// How a host without a repository of its own speaks with one.
pub fn no_settings() -> RepositoryConfig {
    let root = PathBuf::new();
    RepositoryConfig { places: Vec::new(), root, proxy: None, authorities: None, transport: None }
}

/// How places are reached.
///
/// # Errors
/// [`RepositoryError::Place`], [`RepositoryError::Program`].
pub fn network(settings: &RepositoryConfig) -> Result<Network, RepositoryError> {
    let program = match &settings.transport {
        Some(program) => program.clone(),
        None => transport(&std::env::current_exe().map_err(RepositoryError::Program)?),
    };
    let proxy =
        settings.proxy.as_ref().map(|proxy| proxy.parse().map_err(|_| NotAPlace { address: proxy.clone() }));
    let patience = Patience::default();
    Ok(Network { program, proxy: proxy.transpose()?, authorities: settings.authorities.clone(), patience })
}

/// The program that speaks HTTP for this one: beside it, or where a package has what nobody calls by name (`/usr/libexec`).
fn transport(me: &Path) -> PathBuf {
    let packaged = me.ancestors().nth(2).map(|prefix| prefix.join("libexec/update/update-transport"));
    packaged.filter(|program| program.is_file()).unwrap_or_else(|| me.with_file_name("update-transport"))
}

/// Fetch a manifest by name.
///
/// # Errors
/// [`RepositoryError`].
pub fn fetch(
    settings: &RepositoryConfig,
    store: &Path,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Fetched, RepositoryError> {
    fetch_from(&pinned(settings)?, &places(settings)?, store, wanted, now)
}

/// The same from any places.
///
/// # Errors
/// [`RepositoryError`].
pub fn fetch_from(
    root: &[u8],
    places: &Mirrors,
    store: &Path,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Fetched, RepositoryError> {
    let mut client = client_of(root, places, store, now)?;
    let versions = client.versions(&wanted.name)?;
    let latest = versions.last().map(|entry| entry.version);
    let version = wanted.version.or(latest).ok_or_else(|| RepositoryError::NoSuchManifest(wanted.clone()))?;
    let manifest = keep(&mut client, store, &wanted.name, version)?;
    let newer = latest.filter(|latest| *latest > version);
    let payloads = RepositoryPayloads { client: RefCell::new(client), name: wanted.name.clone(), version };
    Ok(Fetched { manifest, payloads, newer })
}

/// Fetches what proves that a fetched manifest is in the repository's log, if this host's policy asks for that. What a
/// repository has none of is not here then, and the policy judges.
///
/// # Errors
/// [`RepositoryError::Log`].
pub fn fetch_proof(
    settings: &RepositoryConfig,
    policy: &Policy,
    floor: &TrustFloor,
    manifest: &Path,
) -> Result<(), RepositoryError> {
    if policy.transparency().is_some() {
        publication::fetch(&Remote::new(places(settings)?), manifest, floor)?;
    }
    Ok(())
}

/// The verified metadata of a host.
fn metadata(store: &Path) -> Store {
    Store::new(&store.join("repository/metadata"))
}

/// Where fetched manifests lie.
pub fn kept_in(store: &Path) -> PathBuf {
    store.join("repository/manifests")
}

/// Where a fetched manifest lies.
pub fn kept(store: &Path, name: &ManifestName, version: u64) -> PathBuf {
    kept_in(store).join(format!("{name}@{version}.json"))
}

/// Fetches a manifest unless it is here already, and keeps it.
fn keep(
    client: &mut Client,
    store: &Path,
    name: &ManifestName,
    version: u64,
) -> Result<PathBuf, RepositoryError> {
    let listed = client.target(&path(name, version, MANIFEST))?;
    let file = kept(store, name, version);
    let known =
        std::fs::File::open(&file).ok().and_then(|file| bounded::read(file, Envelope::MAX_BYTES).ok());
    if known.is_some_and(|known| listed.check(&known).is_ok()) {
        return Ok(file);
    }
    let bytes = client.read(&listed, Envelope::MAX_BYTES)?;
    let write = || {
        durable::make_directory(file.parent().unwrap_or(store))?;
        durable::replace(&file, &bytes)
    };
    write().map_err(|source| RepositoryError::Keep { path: file.clone(), source })?;
    Ok(file)
}

/// The payloads of a manifest in the repository. A download that broke off is gone on with.
pub struct RepositoryPayloads {
    client: RefCell<Client>,
    name: ManifestName,
    version: u64,
}

impl RepositoryPayloads {
    fn listed(&self, payload: &Payload) -> Result<Listed, StoreError> {
        let path = path(&self.name, self.version, payload.file.as_str());
        self.client.borrow_mut().target(&path).map_err(|source| Self::refuse(payload, source))
    }

    fn refuse(payload: &Payload, source: ClientError) -> StoreError {
        StoreError::Repository { name: payload.file.to_string(), source: Box::new(source) }
    }
}

impl PayloadSource for RepositoryPayloads {
    fn open(&self, payload: &Payload) -> Result<Box<dyn Read>, StoreError> {
        let listed = self.listed(payload)?;
        let bytes = self.client.borrow().open(&listed, 0).map_err(|source| Self::refuse(payload, source))?;
        Ok(Box::new(bytes))
    }

    fn go_on(&self, payload: &Payload, from: u64) -> Result<Option<Box<dyn Read>>, StoreError> {
        let listed = self.listed(payload)?;
        let bytes =
            self.client.borrow().open(&listed, from).map_err(|source| Self::refuse(payload, source))?;
        Ok(Some(Box::new(bytes)))
    }
}

/// What a manifest of the repository is to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum News {
    /// This version was accepted here before.
    Known,
    /// It is for other kernels, and changes no files.
    ForOthers,
    /// The kernel has the fix already.
    NotNeeded,
    /// This host does not have it.
    Lacking {
        /// Since when it could: when the manifest was issued.
        exposed_since: UtcTime,
        /// How long, in seconds.
        exposed_s: i64,
    },
    /// This host would not take it.
    NotAuthentic {
        /// Why.
        why: String,
    },
}

/// A manifest of the repository, and what it is to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: ManifestName,
    /// Its latest version.
    pub version: u64,
    /// The version that this host has accepted.
    pub accepted: Option<u64>,
    /// How urgent it is; known where the manifest was looked at, or the repository says.
    pub severity: Option<Severity>,
    /// What it fixes.
    pub fixes: Vec<CveId>,
    /// What it is to this host.
    #[serde(flatten)]
    pub news: News,
}

/// What is judged by.
pub struct Judge<'a> {
    /// Where this host keeps things.
    pub store: &'a Path,
    /// Its policy.
    pub policy: &'a Path,
    /// What it has accepted.
    pub floor: &'a TrustFloor,
    /// Its kernel.
    pub kernel: &'a HostKernel,
    /// The time.
    pub now: Timestamp,
}

/// The latest version of each manifest of the repository, and what it is to this host.
///
/// # Errors
/// [`RepositoryError`].
pub fn check(
    client: &mut Client,
    settings: &RepositoryConfig,
    judge: &Judge<'_>,
) -> Result<Vec<Checked>, RepositoryError> {
    let latest = latest(client.catalogue()?);
    let policy = read_policy(judge.policy)?;
    latest
        .into_iter()
        .map(|entry| {
            judge.check(entry, |name, version| {
                let file = keep(client, judge.store, name, version)?;
                fetch_proof(settings, &policy, judge.floor, &file)?;
                Ok(Some(file))
            })
        })
        .collect()
}

/// What this host knows of without asking anybody, could take, and has not: the latest version of each manifest in the
/// metadata that it keeps. Those that have expired since are left out; of those that were never fetched, what the
/// repository says is all there is.
///
/// # Errors
/// [`RepositoryError::Trust`] if the policy cannot be used.
pub fn known(judge: &Judge<'_>) -> Result<Vec<Checked>, RepositoryError> {
    let mut lacking = Vec::new();
    for entry in latest(catalogue::known(&metadata(judge.store))) {
        if entry.note.as_ref().is_none_or(|note| note.expires.timestamp() <= judge.now) {
            continue;
        }
        let here = |name: &ManifestName, version| {
            let file = kept(judge.store, name, version);
            Ok(file.exists().then_some(file))
        };
        let checked = judge.check(entry, here)?;
        if matches!(checked.news, News::Lacking { .. }) {
            lacking.push(checked);
        }
    }
    Ok(lacking)
}

/// The last version of each name.
fn latest(entries: Vec<Entry>) -> Vec<Entry> {
    let mut latest: Vec<Entry> = Vec::new();
    for entry in entries {
        match latest.last_mut() {
            Some(last) if last.name == entry.name => *last = entry,
            _ => latest.push(entry),
        }
    }
    latest
}

impl Judge<'_> {
    fn lacking(&self, issued: UtcTime) -> News {
        let exposed_s = self.now.duration_since(issued.timestamp()).as_secs().max(0);
        News::Lacking { exposed_since: issued, exposed_s }
    }

    /// Judges one, whose file `fetch` gives; without a file the repository's word stands.
    fn check(
        &self,
        entry: Entry,
        fetch: impl FnOnce(&ManifestName, u64) -> Result<Option<PathBuf>, RepositoryError>,
    ) -> Result<Checked, RepositoryError> {
        let accepted = self.floor.versions.get(&entry.name).map(|seen| seen.version);
        let Entry { name, version, note } = entry;
        let (severity, fixes) =
            note.as_ref().map_or((None, Vec::new()), |note| (Some(note.severity), note.fixes.clone()));
        let mut checked = Checked { name, version, accepted, severity, fixes, news: News::Known };
        if accepted.is_some_and(|accepted| accepted >= version) {
            return Ok(checked);
        }
        let issued = note.as_ref().map(|note| note.issued);
        let elsewhere = note.is_some_and(|note| {
            !note.layers && !note.kernels.is_empty() && !note.kernels.contains(&self.kernel.release)
        });
        if elsewhere {
            checked.news = News::ForOthers;
            return Ok(checked);
        }
        let Some(file) = fetch(&checked.name, version)? else {
            checked.news = issued.map_or(News::Known, |issued| self.lacking(issued));
            return Ok(checked);
        };
        checked.news = match authenticate(&file, self.policy, self.floor, self.now) {
            Ok(manifest) => {
                (checked.severity, checked.fixes) = (Some(manifest.severity), manifest.fixes.clone());
                match manifest.for_kernel(self.kernel).outcome {
                    KernelOutcome::NotNeeded => News::NotNeeded,
                    KernelOutcome::NoneFits => News::ForOthers,
                    KernelOutcome::Applies => self.lacking(manifest.issued),
                }
            }
            Err(TrustError::NotAuthentic { source, .. }) => News::NotAuthentic { why: source.to_string() },
            Err(TrustError::NotAnEnvelope { .. }) => {
                News::NotAuthentic { why: "it is not signed".to_owned() }
            }
            Err(TrustError::Envelope { source, .. }) => News::NotAuthentic { why: source.to_string() },
            Err(other) => return Err(other.into()),
        };
        Ok(checked)
    }
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;
