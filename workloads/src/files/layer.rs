//! OCI image layers, unpacked into the store so that an overlay can take them as a lower directory.
//!
//! What for: a layer component of a manifest is an archive (OCI image-spec, `layer.md`) whose digest was
//! checked, which proves who made it and not that it is harmless. It is read as an enemy's.
//!
//! | file | what |
//! |---|---|
//! | `source` | bytes of the archive: decompressed, counted, bounded |
//! | `header`, `pax` | one tar header; the extended attributes before it |
//! | `archive` | headers, extensions and contents put together to entries |
//! | `path` | which names are allowed, and what they ask for (entry, whiteout, opaque marker) |
//! | `tree` | writes entries below one directory descriptor, never through a link |
//! | `members` | the files of an archive that is not unpacked |
//! | `home` | `layers/` in the store: lock, leftovers of a crash, rename into place, records |
//! | `error` | what can be wrong, and the rules |
//!
//! Invariants:
//! - `layers/<sha256>` exists only complete and synced: it is made by a rename, never changed, and renamed away before
//!   it is removed. Whoever takes it counts it all the same: what is not whole is not there.
//! - No name of the archive is resolved outside of the directory that is being filled: every parent is
//!   opened with `openat2(2)` beneath it, without symbolic links and without crossing a mount.
//! - Every name is created, never opened: what exists already is a duplicate and refused.
//! - On error nothing stays behind; after a crash the next unpack removes what did.
//!
//! Decisions, where the specification leaves room:
//! - Modes (set-user-ID included), numeric owners, mtimes, `security.capability` and `user.*` attributes
//!   are kept: a fixed `su` must still be `su`. `layers/` is closed (0700) to everybody else on the host.
//! - Devices, fifos, sockets and sparse files are refused; a fix layer needs none.
//! - Symbolic links must be relative and, by their form, stay within the layer's root. Nothing on the
//!   host follows them; a fix layer needs no others.
//! - A directory that entries lie in but that has no entry itself becomes root's with mode 0755, and is named
//!   in [`Layer::implicit`], so that the trial can give it the owner and mode that the image has.
//! - Names must be UTF-8, since records, journal and reports are; the targets of symbolic links need not.
//!
//! It does not verify the digest, does not mount, and does not compare the layer with the image below it:
//! [`super::RootfsMounts::conflicts`] does.

mod archive;
mod error;
mod header;
mod home;
mod members;
mod path;
mod pax;
mod source;
mod tree;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use manifests::{LayerFormat, Sha256};
use serde::{Deserialize, Serialize};

pub use error::{Bound, EntryName, Fault, FileKind, LayerError, Rule};
pub(crate) use members::Members;

use crate::files::Layers;
use crate::files::inventory::Inventory;
use archive::{Archive, Entry, Kind};
use home::Home;
use path::Place;
use source::Source;
use tree::Tree;

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layer {
    /// The directory for `lowerdir`.
    #[serde(skip)]
    pub root: PathBuf,
    /// Its directories, relative to the root, parents first; without the root.
    pub directories: Vec<PathBuf>,
    /// Those of them that the archive did not name but implied: they say nothing of owner and mode.
    pub implicit: Vec<PathBuf>,
    /// Entries of the archive, whiteouts and opaque markers included.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Paths that it removes from the container; of an opaque directory, the directory.
    pub removed: Vec<PathBuf>,
    /// Files that run with the rights of their owner or group, or with capabilities.
    pub privileged: Vec<PathBuf>,
    /// How much was there when it was complete; not in records of before this was kept.
    #[serde(default)]
    pub inventory: Option<Inventory>,
}

/// Layers unpacked below one directory, each under the digest of its archive.
#[derive(Debug, Clone)]
pub struct LayerStore {
    directory: PathBuf,
    limits: Limits,
}

/// How much a layer may unpack to. Beyond it, it is a bomb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the decompressed archive, headers included.
    pub bytes: u64,
    /// Decompressed bytes per byte of the payload; looked at beyond [`Limits::ratio_free`].
    pub ratio: u64,
    /// Decompressed bytes that any payload may have: small archives compress well.
    pub ratio_free: u64,
    /// Headers in the archive, extension headers and implied directories included.
    pub entries: u64,
    /// Bytes of one extension header (long names, extended attributes).
    pub extension: u64,
    /// Bytes of memory for what is remembered: directories, removed names, privileged files.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 8 << 30,
            // zstd packs zeros about 32,000 to 1, and trees of real programs below 20 to 1.
            ratio: 1000,
            ratio_free: 64 << 20,
            entries: 1_000_000,
            // Holds the largest attribute that Linux takes (XATTR_SIZE_MAX, 64 KiB) several times.
            extension: 1 << 20,
            memory: 128 << 20,
        }
    }
}

impl LayerStore {
    /// The layers in `directory` (`layers/` of the store), which is made when the first one is unpacked.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), limits: Limits::default() }
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

impl Layers for LayerStore {
    /// Needs root: for owners, for whiteouts, and for overlay's attributes.
    fn unpack(&self, digest: &Sha256, archive: &File, format: LayerFormat) -> Result<Layer, LayerError> {
        let home = Home::open(&self.directory)?;
        home.remove_leftovers()?;
        let there = if home.holds(digest)? { Some(home.inventory(digest)?) } else { None };
        // A record that is lost or damaged is written again from the same archive.
        if let Ok(Some(layer)) = home::read_record(&self.directory, digest)
            && there.is_some()
            && layer.inventory == there
        {
            return Ok(layer);
        }
        let source = Source::new(archive, format, self.limits)?;
        let incoming = home.incoming(digest)?;
        let mut layer = fill(incoming.root()?, Archive::new(source, self.limits), self.limits)?;
        layer.inventory = Some(incoming.inventory()?);
        if there.is_some() && there != layer.inventory {
            // Part of it is missing. Who has it mounted keeps what is left.
            home.remove(digest)?;
        }
        home.write_record(digest, &layer)?;
        match there == layer.inventory {
            true => drop(incoming),
            false => incoming.publish()?,
        }
        layer.root = home::place(&self.directory, digest);
        Ok(layer)
    }

    fn get(&self, digest: &Sha256) -> Result<Option<Layer>, LayerError> {
        if !home::place(&self.directory, digest).is_dir() {
            return Ok(None);
        }
        let found = home::inventory(&home::place(&self.directory, digest))?;
        Ok(home::read_record(&self.directory, digest)?.filter(|layer| layer.inventory == Some(found)))
    }
}

/// Writes all entries of an archive below `root`.
fn fill(root: OwnedFd, mut archive: Archive, limits: Limits) -> Result<Layer, LayerError> {
    let mut tree = Tree::new(root, limits);
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if let Kind::File { size } = entry.kind {
            bytes += size;
        }
        place(&mut tree, &mut archive, &entry)?;
    }
    Ok(Layer { entries, bytes, ..tree.finish()? })
}

/// Reads an archive to its end and writes nothing, for [`crate::fuzzing`].
pub(crate) fn read_through(archive: &File, format: LayerFormat, limits: Limits) -> Result<(), LayerError> {
    let mut archive = Archive::new(Source::new(archive, format, limits)?, limits);
    let mut buffer = [0; 4096];
    while let Some(entry) = archive.next_entry()? {
        assert!(entry.attributes.mode <= 0o7777 && entry.attributes.mtime.nanoseconds < 1_000_000_000);
        match Place::of(&entry)? {
            Place::Entry(path) | Place::Whiteout(path) | Place::Opaque(path) => {
                let within = path.as_bytes().split(|byte| *byte == b'/').all(|part| part != b"..");
                assert!(within && !path.as_bytes().starts_with(b"/"), "{:?} leads out", path.as_bytes());
            }
        }
        let mut bytes = 0;
        loop {
            match archive.read_content(&mut buffer)? as u64 {
                0 => break,
                count => bytes += count,
            }
        }
        assert!(bytes <= limits.bytes && entry.kind == Kind::File { size: bytes } || bytes == 0);
    }
    Ok(())
}

/// Reads the content of an extended header, for [`crate::fuzzing`].
pub(crate) fn read_extension(bytes: &[u8]) {
    let _ = pax::check_global(bytes);
    if let Ok(pax) = pax::Pax::parse(bytes) {
        assert!(pax.mtime.is_none_or(|time| time.nanoseconds < 1_000_000_000));
        assert!(pax.xattrs.keys().all(|name| !name.is_empty() && !name.contains(&0)));
    }
}

fn place(tree: &mut Tree, archive: &mut Archive, entry: &Entry) -> Result<(), LayerError> {
    match (Place::of(entry)?, &entry.kind) {
        (Place::Whiteout(hidden), _) => tree.whiteout(entry, &hidden),
        (Place::Opaque(directory), _) => tree.opaque(entry, &directory),
        (Place::Entry(path), Kind::Directory) => tree.directory(entry, &path),
        (Place::Entry(path), Kind::File { .. }) => tree.file(entry, &path, archive),
        (Place::Entry(path), Kind::Symlink { target }) => tree.symlink(entry, &path, target),
        (Place::Entry(path), Kind::HardLink { target }) => tree.hard_link(entry, &path, target),
    }
}
