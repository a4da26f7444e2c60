//! Making a log and appending to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use manifests::bounded;
use manifests::log::tree::{self, Position};
use manifests::log::{
    Checkpoint, LogEntry, LogProof, Note, NoteKey, NoteKeyKind, NoteName, NoteSigner, TreeHead,
};
use manifests::{Envelope, SecretKey, Sha256};
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use system::durable;

use crate::authoring::disk;
use crate::log::files::write;
use crate::log::tiles::{self, Tiles, WIDTH};
use crate::log::{CHECKPOINT, Directory, Files, LogError};

/// A log in a directory of ours.
#[derive(Debug, Clone)]
pub struct Log {
    directory: Directory,
}

/// What was appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Appended {
    /// The entries that are new, each with its number.
    pub entries: Vec<(u64, LogEntry)>,
    /// How many of those to be appended were in the log already.
    pub known: usize,
    /// The size now.
    pub size: u64,
    /// The root now.
    pub root: Sha256,
}

/// The path of the proof of an entry.
pub fn proof_path(leaf: &Sha256) -> String {
    format!("proof/{leaf}{}", LogProof::EXTENSION)
}

impl Log {
    /// Makes an empty log, and signs that it is empty.
    ///
    /// # Errors
    /// [`LogError::NotEmpty`], [`LogError::Io`].
    pub fn init(directory: &Path, origin: NoteName, key: &SecretKey) -> Result<(Self, NoteKey), LogError> {
        if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(LogError::NotEmpty { directory: directory.to_owned() });
        }
        disk::make_directory(directory)?;
        let signer = NoteSigner::new(origin.clone(), key);
        let log = Self { directory: Directory(directory.to_owned()) };
        log.sign(&signer, &origin, tree::Frontier::default().head())?;
        Ok((log, signer.verifier(NoteKeyKind::Log)))
    }

    /// The log in a directory.
    ///
    /// # Errors
    /// [`LogError::NotALog`].
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        match directory.join(CHECKPOINT).is_file() {
            true => Ok(Self { directory: Directory(directory.to_owned()) }),
            false => Err(LogError::NotALog { place: directory.display().to_string() }),
        }
    }

    /// Its files.
    pub fn files(&self) -> &Directory {
        &self.directory
    }

    fn path(&self) -> &Path {
        &self.directory.0
    }

    /// The newest checkpoint; no signature of it is checked.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn checkpoint(&self) -> Result<(Checkpoint, Note), LogError> {
        newest(&self.directory)
    }

    fn lock(&self) -> Result<Flock<File>, LogError> {
        let path = self.path().join(".lock");
        let file = File::create(&path).map_err(LogError::io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| LogError::Busy { directory: self.path().to_owned() })
    }

    /// Appends what is not in the log yet, signs the new checkpoint, and proves each of the new entries.
    ///
    /// # Errors
    /// [`LogError`]; then the checkpoint is the one before.
    pub fn append(&self, entries: &[LogEntry], key: &SecretKey) -> Result<Appended, LogError> {
        let _lock = self.lock()?;
        let (before, note) = self.checkpoint()?;
        let signer = NoteSigner::new(before.origin.clone(), key);
        let refused = || LogError::AnotherKey { origin: before.origin.clone() };
        note.signed_by(&signer.verifier(NoteKeyKind::Log)).ok().flatten().ok_or_else(refused)?;
        let size = before.head.size;
        let tiles = Tiles::new(&self.directory, size);
        expect_head(&tiles.head()?, &before.head)?;

        let mut known: BTreeSet<Sha256> = BTreeSet::new();
        for index in 0..size.div_ceil(WIDTH) {
            known.extend(tiles.tile(0, index)?);
        }
        let mut new = Vec::new();
        for entry in entries {
            if known.insert(entry.leaf()) {
                new.push((size + new.len() as u64, entry.clone()));
            }
        }
        let already = entries.len() - new.len();
        if new.is_empty() {
            return Ok(Appended { entries: new, known: already, size, root: before.head.root });
        }
        self.grow(&tiles, size, &new.iter().map(|(_, entry)| entry.to_bytes()).collect::<Vec<_>>())?;
        let size = size + new.len() as u64;
        let head = Tiles::new(&self.directory, size).head()?;
        let note = self.sign(&signer, &before.origin, head)?;
        let leaves = new.iter().map(|(number, entry)| (*number, entry.leaf()));
        self.write_proofs(leaves, &head, &note)?;
        Ok(Appended { entries: new, known: already, size, root: head.root })
    }

    /// Writes the bundles and tiles that change when entries come to a tree of `size`.
    fn grow(&self, tiles: &Tiles<'_>, size: u64, entries: &[Vec<u8>]) -> Result<(), LogError> {
        // The entries of the last bundle, and from there on all that is to be written anew.
        let first = size / WIDTH;
        let mut bundle = if size.is_multiple_of(WIDTH) { Vec::new() } else { tiles.entries(first)? };
        bundle.extend(entries.iter().cloned());
        for (index, part) in (first..).zip(bundle.chunks(WIDTH as usize)) {
            write(self.path(), &tiles::bundle(index, part.len() as u64), &tiles::write_bundle(part))?;
        }
        let mut new: Vec<Sha256> = entries.iter().map(|entry| tree::leaf(entry)).collect();
        for level in 0.. {
            let before = size.checked_shr(8 * level).unwrap_or(0);
            let first = before / WIDTH;
            let mut hashes =
                if before.is_multiple_of(WIDTH) { Vec::new() } else { tiles.tile(level, first)? };
            hashes.append(&mut new);
            for (index, part) in (first..).zip(hashes.chunks(WIDTH as usize)) {
                let bytes: Vec<u8> = part.iter().flat_map(|hash| *hash.as_bytes()).collect();
                write(self.path(), &tiles::tile(level, index, part.len() as u64), &bytes)?;
                if part.len() as u64 == WIDTH {
                    new.push(tiles::full(part));
                }
            }
            if new.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn sign(&self, signer: &NoteSigner<'_>, origin: &NoteName, head: TreeHead) -> Result<Note, LogError> {
        let mut note = Note::unsigned(Checkpoint { origin: origin.clone(), head }.to_text());
        note.add(signer.sign(note.text()));
        write(self.path(), CHECKPOINT, note.to_string().as_bytes())?;
        Ok(note)
    }

    /// Takes cosignatures into the newest checkpoint, and proves every entry by it.
    ///
    /// `cosigned` are copies of that checkpoint with signatures of witnesses, by their files. How many signatures came.
    ///
    /// # Errors
    /// [`LogError::AnotherCheckpoint`]; then nothing was changed.
    pub fn collect(&self, cosigned: &[(PathBuf, Note)]) -> Result<usize, LogError> {
        let _lock = self.lock()?;
        let (checkpoint, mut note) = self.checkpoint()?;
        let mut came = 0;
        for (path, other) in cosigned {
            if other.text() != note.text() {
                let words = |text: &str| match Checkpoint::parse(text) {
                    Ok(checkpoint) => in_words(&checkpoint.head),
                    Err(error) => error.to_string(),
                };
                let (expected, found) = (words(note.text()), words(other.text()));
                return Err(LogError::AnotherCheckpoint { path: path.clone(), expected, found });
            }
            for signature in other.signatures() {
                if !note.signatures().contains(signature) {
                    note.add(signature.clone());
                    came += 1;
                }
            }
        }
        let head = checkpoint.head;
        let tiles = Tiles::new(&self.directory, head.size);
        expect_head(&tiles.head()?, &head)?;
        let mut leaves = Vec::new();
        for index in 0..head.size.div_ceil(WIDTH) {
            leaves.extend(tiles.tile(0, index)?);
        }
        write(self.path(), CHECKPOINT, note.to_string().as_bytes())?;
        self.write_proofs((0..).zip(leaves), &head, &note)?;
        Ok(came)
    }

    fn write_proofs(
        &self,
        leaves: impl Iterator<Item = (u64, Sha256)>,
        head: &TreeHead,
        note: &Note,
    ) -> Result<(), LogError> {
        let tiles = Tiles::new(&self.directory, head.size);
        let directory = self.path().join("proof");
        disk::make_directory(&directory)?;
        for (index, leaf) in leaves {
            let proof = prove(&tiles, index, head, note)?;
            let to = self.path().join(proof_path(&leaf));
            // One flush for all of them, before they get their names.
            let unfinished = directory.join(format!("{}{leaf}", durable::UNFINISHED));
            fs::write(&unfinished, proof.to_string()).map_err(LogError::io("write", &unfinished))?;
            fs::rename(&unfinished, &to).map_err(LogError::io("write", &to))?;
        }
        durable::sync_file_system(&directory).map_err(LogError::io("sync", &directory))
    }
}

/// The newest checkpoint of a log; no signature of it is checked.
///
/// # Errors
/// [`LogError`].
pub fn newest(files: &dyn Files) -> Result<(Checkpoint, Note), LogError> {
    let place = || files.place();
    let bytes =
        files.read(CHECKPOINT, Note::MAX_BYTES)?.ok_or_else(|| LogError::NotALog { place: place() })?;
    Checkpoint::of(&bytes).map_err(|source| LogError::Checkpoint { place: place(), source })
}

/// The proof that entry `index` is in the tree of a checkpoint.
///
/// # Errors
/// [`LogError::Unlogged`], and whatever reading the tiles comes to.
pub fn prove(tiles: &Tiles<'_>, index: u64, head: &TreeHead, note: &Note) -> Result<LogProof, LogError> {
    let nodes = |wanted: &[Position]| tiles.hashes_of(wanted);
    let path = tree::prove_inclusion(index, head.size, nodes)?
        .ok_or_else(|| LogError::Unlogged { what: format!("entry {index}") })?;
    let checkpoint = Checkpoint::parse(note.text())
        .map_err(|source| LogError::Checkpoint { place: "the log".to_owned(), source })?;
    Ok(LogProof { index, path, checkpoint, note: note.clone() })
}

/// The entry of a signed manifest's file.
///
/// # Errors
/// [`LogError::Envelope`], [`LogError::Entry`], [`LogError::Io`].
pub fn entry_of(path: &Path) -> Result<LogEntry, LogError> {
    let file = File::open(path).map_err(LogError::io("open", path))?;
    let bytes = bounded::read(file, Envelope::MAX_BYTES)
        .map_err(|source| LogError::TooLarge { path: path.to_owned(), source })?;
    let envelope =
        Envelope::parse(&bytes).map_err(|source| LogError::Envelope { path: path.to_owned(), source })?;
    LogEntry::of(&envelope).map_err(|source| LogError::Entry { what: path.display().to_string(), source })
}

fn expect_head(found: &TreeHead, expected: &TreeHead) -> Result<(), LogError> {
    if found == expected {
        return Ok(());
    }
    let (path, size) = ("tile/".to_owned(), expected.size);
    Err(LogError::Changed { path, size, expected: expected.root, found: found.root })
}

/// A head, for people.
pub fn in_words(head: &TreeHead) -> String {
    format!("{} entries with root {}", head.size, head.root)
}
