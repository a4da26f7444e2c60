//! What proves that a manifest is in a log: files beside it, read before anybody judges them.
//!
//! ```text
//! greet.manifest.json              the envelope
//! greet.manifest.json.tlog-proof   that it is in a log
//! log/tile/…                       hashes of that log, as its publisher serves them
//! ```
//!
//! What a repository gives lies the same way in the host's store, and what a bundle brings, in a directory of its own.
//! A manifest that comes by another way (a fleet's controller) is looked up there by its name and version.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use manifests::bounded::{self, BoundedError};
use manifests::log::tree::Position;
use manifests::log::{
    Checkpoint, History, LogEntry, LogProof, LogRefusal, Note, Publication, SeenCheckpoint, relate,
};
use manifests::{Envelope, Policy, Sha256, TrustFloor};
use repository::log::memory::keep_evidence;
use repository::log::store::proof_path;
use repository::log::{Directory, Files, LogError, Tiles};
use system::durable;

use crate::operations::repository::kept;
use crate::operations::trust::TrustError;

/// What lies beside a manifest.
#[derive(Debug, Default)]
pub struct Beside {
    proof: Option<Vec<u8>>,
    log: Option<Directory>,
}

/// The file of the proof of a manifest's file.
pub fn proof_of(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(LogProof::EXTENSION);
    PathBuf::from(name)
}

/// The directory with the log's hashes.
fn log_of(manifest: &Path) -> PathBuf {
    manifest.parent().unwrap_or(Path::new("")).join("log")
}

impl Beside {
    /// As [`Self::of`] where the policy asks for it; nothing is read otherwise.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn wanted_by(
        policy: &Policy,
        manifest: &Path,
        envelope: &Envelope,
        store: Option<&Path>,
    ) -> Result<Self, TrustError> {
        match policy.transparency() {
            Some(_) => Self::of(manifest, envelope, store),
            None => Ok(Self::default()),
        }
    }

    /// What lies beside a manifest's file; if nothing does, beside what `store` has of a repository.
    ///
    /// # Errors
    /// [`TrustError::Read`], [`TrustError::TooLarge`].
    pub fn of(manifest: &Path, envelope: &Envelope, store: Option<&Path>) -> Result<Self, TrustError> {
        let own = manifest.to_owned();
        let entry = || LogEntry::of(envelope).ok();
        let fetched = || store.zip(entry()).map(|(store, entry)| kept(store, &entry.name, entry.version));
        for file in [Some(own), fetched()].into_iter().flatten() {
            let proof = match read(&proof_of(&file)) {
                // Whoever may not look into the store sees none in it.
                Err(TrustError::Read { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied && file != manifest =>
                {
                    None
                }
                proof => proof?,
            };
            if let Some(proof) = proof {
                let log = Some(log_of(&file)).filter(|log| log.is_dir()).map(Directory);
                return Ok(Self { proof: Some(proof), log });
            }
        }
        Ok(Self::default())
    }

    /// Has it judged by whoever remembers `floor`.
    pub fn with<R>(&self, floor: &TrustFloor, judge: impl FnOnce(Publication<'_>) -> R) -> R {
        let proof = self.proof.as_deref();
        let Some(log) = &self.log else { return judge(Publication { proof, history: None }) };
        let parsed = proof.and_then(|proof| LogProof::parse(proof).ok());
        let checkpoint = parsed.map(|proof| proof.checkpoint);
        let seen = checkpoint.as_ref().and_then(|checkpoint| floor.logs.get(&checkpoint.origin));
        // Of the proof's tree, or of a larger one that was seen: partial tiles are named by the tree that they are of.
        let sizes =
            checkpoint.iter().map(|checkpoint| checkpoint.head.size).chain(seen.map(|seen| seen.head.size));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        judge(Publication { proof, history: Some(&Whatever { log, sizes }) })
    }
}

/// The tiles of trees of these sizes, as far as they are there.
struct Whatever<'a> {
    log: &'a Directory,
    sizes: Vec<u64>,
}

impl History for Whatever<'_> {
    fn nodes(&self, wanted: &[Position]) -> Option<Vec<Sha256>> {
        self.sizes.iter().find_map(|size| Tiles::new(self.log, *size).hashes_of(wanted).ok())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TrustError> {
    let what = "proof of publication";
    let failed = |source| TrustError::Read { what, path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    match bounded::read(file, LogProof::MAX_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(BoundedError::Io(source)) => Err(failed(source)),
        Err(BoundedError::TooLarge { .. }) => {
            let limit = LogProof::MAX_BYTES;
            Err(TrustError::TooLarge { what, path: path.to_owned(), limit, found: None })
        }
    }
}

/// Takes the proof of a manifest from a log, and the tiles that lead from what this host has seen to it, and keeps them
/// beside the manifest. False if the log does not have it.
///
/// # Errors
/// [`LogError`].
pub fn fetch(log: &dyn Files, manifest: &Path, floor: &TrustFloor) -> Result<bool, LogError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LogError::Io { doing: "keep", path, source }
    };
    let bytes = std::fs::read(manifest).map_err(failed(manifest))?;
    let Some(entry) = Envelope::parse(&bytes).ok().and_then(|envelope| LogEntry::of(&envelope).ok()) else {
        return Ok(false);
    };
    let Some(bytes) = log.read(&proof_path(&entry.leaf()), LogProof::MAX_BYTES)? else { return Ok(false) };
    // What it says decides what to fetch; the policy judges it.
    if let Ok(proof) = LogProof::parse(&bytes)
        && let Some(seen) = floor.logs.get(&proof.checkpoint.origin)
    {
        let into = log_of(manifest);
        for (path, bytes) in between(log, &proof.checkpoint, seen) {
            let to = into.join(path);
            let keep = || {
                durable::make_directory(to.parent().unwrap_or(&into))?;
                durable::replace(&to, &bytes)
            };
            keep().map_err(failed(&to))?;
        }
    }
    let to = proof_of(manifest);
    durable::replace(&to, &bytes).map_err(failed(&to))?;
    Ok(true)
}

/// The tiles that tell how two checkpoints of a log stand to each other.
fn between(log: &dyn Files, one: &Checkpoint, seen: &SeenCheckpoint) -> BTreeMap<String, Vec<u8>> {
    let tiles = Tiles::new(log, one.head.size.max(seen.head.size));
    // Asked for what is read of them; what it comes to is judged under the lock, by what was kept.
    let _ = relate(&one.head, &seen.head, Some(&tiles));
    tiles.taken()
}

/// Keeps both checkpoints of a log that has forked; where they are.
pub fn keep_fork(store: &Path, refusal: &LogRefusal) -> Vec<PathBuf> {
    let LogRefusal::Forked { seen, shown, .. } = refusal else { return Vec::new() };
    let notes = [seen, shown].map(|note| Note::parse(note.as_bytes()));
    let notes: Vec<&Note> = notes.iter().filter_map(|note| note.as_ref().ok()).collect();
    keep_evidence(&forks(store), &notes).unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the two checkpoints are not kept");
        Vec::new()
    })
}

/// Where the evidence of forks is.
pub fn forks(store: &Path) -> PathBuf {
    store.join("forks")
}
