//! What a witness or a monitor has seen of logs, and the evidence when one forks.
//!
//! ```text
//! STATE/LOG.checkpoint           the newest checkpoint that was seen of a log, by the digest of its origin
//! STATE/forks/LOG-SIZE-ROOT      checkpoints of a log that has forked: those seen before, and those shown then
//! ```
//!
//! A checkpoint is kept, durably, before anything is said of it: a witness that crashes between the two signs the same
//! again, and never another.

use std::fs::File;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use manifests::log::{Accepted, Checkpoint, LogPolicy, Note, NoteName, Relation, relate};
use nix::fcntl::{Flock, FlockArg};
use system::durable;

use crate::authoring::disk;
use crate::log::store::{in_words, newest};
use crate::log::{Files, LogError, Tiles};

/// A directory in which is kept what was seen.
#[derive(Debug)]
pub struct Memory {
    directory: PathBuf,
    #[expect(dead_code, reason = "held for its lock")]
    lock: Flock<File>,
}

/// A log that continues what was seen of it.
#[derive(Debug)]
pub struct Met {
    /// What its newest checkpoint says.
    pub checkpoint: Checkpoint,
    /// The checkpoint with its signatures.
    pub note: Note,
    /// What was seen before.
    pub before: Option<Checkpoint>,
}

impl Memory {
    /// The memory in a directory, which is made; nobody else uses it meanwhile.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Busy`].
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        durable::make_directory(directory).map_err(LogError::io("make", directory))?;
        let path = directory.join(".lock");
        let file = File::create(&path).map_err(LogError::io("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| LogError::Busy { directory: directory.to_owned() })?;
        Ok(Self { directory: directory.to_owned(), lock })
    }

    fn path(&self, origin: &NoteName) -> PathBuf {
        self.directory.join(format!("{}.checkpoint", known_as(origin)))
    }

    /// The newest checkpoint that was seen of a log.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn seen(&self, origin: &NoteName) -> Result<Option<(Checkpoint, Note)>, LogError> {
        let path = self.path(origin);
        let Some(bytes) = disk::read(&path, Note::MAX_BYTES)? else { return Ok(None) };
        let malformed = |source| LogError::Checkpoint { place: path.display().to_string(), source };
        Checkpoint::of(&bytes).map(Some).map_err(malformed)
    }

    /// Looks at the newest checkpoint of a log, which has to be one of the policy's and to continue what was seen, and
    /// keeps it.
    ///
    /// # Errors
    /// [`LogError::Forked`], of which both sides are kept; [`LogError::RolledBack`], [`LogError::Unproven`],
    /// [`LogError::NotAccepted`]: then what was seen stays what it was.
    pub fn meet(&self, files: &dyn Files, policy: &LogPolicy) -> Result<Met, LogError> {
        let (checkpoint, note) = newest(files)?;
        accept(files, policy, &note)?;
        let Checkpoint { origin, head } = &checkpoint;
        let before = self.seen(origin)?;
        if let Some((seen, seen_note)) = &before {
            match compare(files, seen, &checkpoint) {
                Relation::Forked => {
                    let evidence = keep_evidence(&self.directory.join("forks"), &[seen_note, &note])?;
                    let (seen, shown) = (in_words(&seen.head), in_words(head));
                    return Err(LogError::Forked { origin: origin.clone(), seen, shown, evidence });
                }
                Relation::Unproven | Relation::Consistent if head.size < seen.head.size => {
                    let (origin, seen, found) = (origin.clone(), seen.head.size, head.size);
                    return Err(LogError::RolledBack { origin, seen, found });
                }
                Relation::Unproven => {
                    let (origin, seen, found) = (origin.clone(), seen.head.size, head.size);
                    return Err(LogError::Unproven { origin, seen, found });
                }
                Relation::Consistent => {}
            }
        }
        let path = self.path(origin);
        durable::replace(&path, note.to_string().as_bytes()).map_err(LogError::io("keep", &path))?;
        Ok(Met { checkpoint, note, before: before.map(|(checkpoint, _)| checkpoint) })
    }
}

/// Whether a policy takes a checkpoint.
///
/// # Errors
/// [`LogError::NotAccepted`].
pub fn accept(files: &dyn Files, policy: &LogPolicy, note: &Note) -> Result<Accepted, LogError> {
    policy.accept(note).map_err(|source| LogError::NotAccepted { place: files.place(), source })
}

/// How two checkpoints of a log stand to each other, by the log's own tiles.
pub fn compare(files: &dyn Files, one: &Checkpoint, other: &Checkpoint) -> Relation {
    let tiles = Tiles::new(files, one.head.size.max(other.head.size));
    relate(&one.head, &other.head, Some(&tiles))
}

/// Keeps checkpoints of a log that has forked; where they are.
///
/// # Errors
/// [`LogError::Io`].
pub fn keep_evidence(directory: &Path, notes: &[&Note]) -> Result<Vec<PathBuf>, LogError> {
    durable::make_directory(directory).map_err(LogError::io("make", directory))?;
    let mut kept = Vec::new();
    for note in notes {
        let Ok(Checkpoint { origin, head }) = Checkpoint::parse(note.text()) else { continue };
        let path = directory.join(format!("{}-{}-{:.16}", known_as(&origin), head.size, head.root));
        durable::replace(&path, note.to_string().as_bytes()).map_err(LogError::io("keep", &path))?;
        kept.push(path);
    }
    Ok(kept)
}

/// An origin may have slashes, and be long.
fn known_as(origin: &NoteName) -> String {
    format!("{:.32}", Sha256::of(origin.as_str().as_bytes()))
}
