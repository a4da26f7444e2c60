//! A bundle that was carried to this host: taken apart and looked at as a repository is, in a place of its own.
//!
//! What is in it is copied before it is judged, and what was judged is what is used: the file may be on a stick that
//! somebody pulls out. Where this host pins a repository's root, the bundle's metadata has to hold by it and by what the
//! host knows of that repository; where it pins none, the policy alone judges.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use manifests::log::{LogEntry, LogProof};
use manifests::{Envelope, EnvelopeError, Payload};
use repository::bundle::{Bundle, BundleError, Head};
use repository::client::ClientError;
use repository::log::store::proof_path;
use repository::transport::Patience;
use repository::transport::mirrors::Mirrors;
use system::clock::SystemClock;
use system::durable;
use tempfile::TempDir;

use crate::config::Config;
use crate::operations::along::Along;
use crate::operations::publication::proof_of;
use crate::operations::repository::{self as by_name, RepositoryError, Wanted};
use crate::state::payloads::{PayloadSource, StoreError};

/// Why a bundle is of no use here.
#[derive(Debug, thiserror::Error)]
pub enum CarriedError {
    /// The file.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// By the root that this host pins, what it says of its repository does not hold.
    #[error("the bundle is not of the repository whose root this host pins")]
    Repository(#[source] Box<RepositoryError>),
    /// A document in it is no envelope.
    #[error("{member} in the bundle cannot be read")]
    Envelope {
        /// Which.
        member: &'static str,
        /// Why.
        source: EnvelopeError,
    },
    /// The manifest is another one than it says.
    #[error("the bundle brings another manifest than it says: expected {expected}, found {found}")]
    Another {
        /// What it says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It cannot be copied.
    #[error("copy the bundle to {path}")]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was carried here.
#[derive(Debug)]
pub struct Carried {
    bundle: Bundle,
    scratch: TempDir,
    manifest: PathBuf,
    along: Along,
    metadata: Option<Metadata>,
}

/// Metadata that holds by the root that this host pins.
#[derive(Debug)]
struct Metadata {
    root: Vec<u8>,
}

impl Carried {
    /// Takes a bundle apart in a directory of its own, below `within`. Nothing of this host is changed.
    ///
    /// # Errors
    /// [`CarriedError`].
    pub fn open(path: &Path, config: &Config, within: &Path, now: Timestamp) -> Result<Self, CarriedError> {
        let bundle = Bundle::open(path)?;
        let failed = |at: &Path| {
            let path = at.to_owned();
            move |source| CarriedError::Copy { path, source }
        };
        let scratch = tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .tempdir_in(within)
            .map_err(failed(within))?;
        let bytes = bundle.envelope()?;
        let envelope = Envelope::parse(&bytes)
            .map_err(|source| CarriedError::Envelope { member: "the manifest", source })?;
        let Head { name, version, .. } = bundle.head();
        let entry = LogEntry::of(&envelope).ok();
        if let Some(entry) = entry.as_ref().filter(|entry| (&entry.name, entry.version) != (name, *version)) {
            let (expected, found) =
                (format!("{name}@{version}"), format!("{}@{}", entry.name, entry.version));
            return Err(CarriedError::Another { expected, found });
        }

        let mut metadata = None;
        let manifest = match &config.repository {
            None => {
                let file = scratch.path().join("manifest.json");
                fs::write(&file, &bytes).map_err(failed(&file))?;
                file
            }
            Some(settings) => {
                let repository = |error| CarriedError::Repository(Box::new(error));
                let root = by_name::pinned(settings).map_err(repository)?;
                seed(&config.store, scratch.path())?;
                let wanted = Wanted { name: name.clone(), version: Some(*version) };
                let places = places(&bundle);
                let fetched = by_name::fetch_from(&root, &places, scratch.path(), &wanted, now);
                let manifest = fetched.map_err(repository)?.manifest;
                let found = fs::read(&manifest).map_err(failed(&manifest))?;
                if found != bytes {
                    let member = format!("targets/{}", bundle.head().envelope);
                    return Err(BundleError::Changed { path: path.to_owned(), member }.into());
                }
                metadata = Some(Metadata { root });
                manifest
            }
        };
        if let Some(entry) = entry {
            unpack_log(&bundle, &entry, &manifest)?;
        }
        let document = |member, bytes: Vec<u8>| {
            Envelope::parse(&bytes).map_err(|source| CarriedError::Envelope { member, source })
        };
        let along = Along {
            from: path.to_owned(),
            policy: bundle.policy()?.map(|bytes| document("the policy", bytes)).transpose()?,
            revocations: bundle
                .revocations()?
                .into_iter()
                .map(|bytes| document("a revocation", bytes))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self { bundle, scratch, manifest, along, metadata })
    }

    /// The file of the manifest, with the proof of its publication beside it.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// What comes along.
    pub fn along(&self) -> &Along {
        &self.along
    }

    /// Whether its metadata was held against a root that this host pins.
    pub fn is_of_repository(&self) -> bool {
        self.metadata.is_some()
    }

    /// Copies the payloads beside each other, by the names that the manifest gives them; for whoever compares them.
    ///
    /// # Errors
    /// [`CarriedError::Copy`].
    pub fn unpack_payloads<'a>(
        &self,
        payloads: impl IntoIterator<Item = &'a Payload>,
    ) -> Result<PathBuf, CarriedError> {
        let directory = self.scratch.path().join("payloads");
        let failed = |source| CarriedError::Copy { path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(failed)?;
        for payload in payloads {
            let Some(bytes) = self.bundle.target(&payload.sha256) else { continue };
            let mut file = fs::File::create(directory.join(payload.file.as_str())).map_err(failed)?;
            // One byte more than expected is enough to know that there are more.
            io::copy(&mut bytes.take(payload.size.saturating_add(1)), &mut file).map_err(failed)?;
        }
        Ok(directory)
    }

    /// Remembers of the repository what the bundle has shown, so that nobody can show this host an earlier state of it.
    ///
    /// # Errors
    /// [`ClientError`]; what it remembers is what it was.
    pub fn remember(&self, store: &Path, now: Timestamp) -> Result<(), ClientError> {
        let Some(Metadata { root }) = &self.metadata else { return Ok(()) };
        by_name::client_of(root, &places(&self.bundle), store, now).map(drop)
    }
}

/// The repository in a bundle.
fn places(bundle: &Bundle) -> Mirrors {
    let transport = Arc::new(bundle.clone());
    Mirrors::new(vec![Bundle::place()], transport, Patience::default(), Arc::new(SystemClock))
}

/// What this host knows of its repository: floors for what the bundle says. Whoever may not look into the store has none.
fn seed(store: &Path, scratch: &Path) -> Result<(), CarriedError> {
    let (from, to) = (store.join("repository/metadata"), scratch.join("repository/metadata"));
    let copy = |from: &Path, to: &Path| -> io::Result<()> {
        fs::create_dir_all(to)?;
        let known = match fs::read_dir(from) {
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind()) =>
            {
                return Ok(());
            }
            known => known?,
        };
        for entry in known {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    copy(&from, &to)
        .and_then(|()| copy(&from.join("root_history"), &to.join("root_history")))
        .map_err(|source| CarriedError::Copy { path: to, source })
}

/// The proof and the log, where they are looked for beside a manifest.
fn unpack_log(bundle: &Bundle, entry: &LogEntry, manifest: &Path) -> Result<(), CarriedError> {
    let member = format!("log/{}", proof_path(&entry.leaf()));
    let failed = |source| CarriedError::Copy { path: manifest.to_owned(), source };
    let Some(proof) = bundle.read_member(&member)? else { return Ok(()) };
    debug_assert!(proof.len() <= LogProof::MAX_BYTES);
    fs::write(proof_of(manifest), proof).map_err(failed)?;
    let beside = manifest.parent().unwrap_or(Path::new(""));
    let names: Vec<String> = bundle.members().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().filter(|name| name.starts_with("log/tile/")) {
        // Names of members are paths without dots that climb: see `repository::bundle`.
        let to = beside.join(name);
        fs::create_dir_all(to.parent().unwrap_or(beside)).map_err(failed)?;
        fs::write(&to, bundle.read_member(name)?.unwrap_or_default()).map_err(failed)?;
    }
    Ok(())
}

impl PayloadSource for Arc<Carried> {
    fn open(&self, payload: &Payload) -> Result<Box<dyn Read>, StoreError> {
        match self.bundle.target(&payload.sha256) {
            Some(bytes) => Ok(bytes),
            None => {
                let path = self.along.from.clone();
                Err(StoreError::Missing { name: payload.file.to_string(), path })
            }
        }
    }
}
