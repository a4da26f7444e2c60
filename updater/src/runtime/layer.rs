//! Fix layers: an OCI layer archive becomes a directory that overlay takes as a lower.
//!
//! Follows the OCI image specification, "Image Layer Filesystem Changeset". The archive is signed, but
//! it is still read as if an enemy had written it: a signature says who vouched, not that the builder
//! was not fooled.
//!
//! Invariants:
//! - Nothing outside the new directory is touched: every name is resolved below its descriptor with
//!   no link followed (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`).
//! - A layer has its final name only when it is whole and on disk; the name is the archive's digest.
//! - What an archive may cost is bounded before it is spent ([`Bounds`]).
//!
//! What this does not do: checking the archive's digest and signature; that was done when it was
//! copied into the store, and the caller passes that same open file.

mod archive;
mod tree;

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use manifests::{LayerFormat, Sha256};
use serde::{Deserialize, Serialize};

pub use archive::Bounds;

use super::Layers;

/// The largest window that a zstd frame may ask for: 128 MiB, the most that `zstd` itself grants
/// without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layer {
    /// The directory for `lowerdir`.
    pub root: PathBuf,
    /// Its directories, relative to the root, parents first.
    pub directories: Vec<PathBuf>,
    /// Those of them that the archive did not name but implied: they say nothing of owner and mode.
    pub implicit: Vec<PathBuf>,
    /// Files, links and directories in it.
    pub entries: usize,
    /// Bytes of file content in it.
    pub bytes: u64,
    /// Paths that it removes from the container.
    pub removed: Vec<PathBuf>,
    /// Files that run with the rights of their owner or group, or with capabilities.
    pub privileged: Vec<PathBuf>,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive breaks a rule; nothing is left of it.
    #[error("the layer's entry {entry} ({path:?}) is refused: {violation}")]
    Refused {
        /// The entry's position, counted from 1.
        entry: usize,
        /// Its name as in the archive, shortened.
        path: String,
        /// The rule.
        violation: Violation,
    },
    /// The archive cannot be read as one.
    #[error("the layer is not a whole {format} archive")]
    Archive {
        /// The expected format.
        format: &'static str,
        /// Where it fails.
        source: io::Error,
    },
    /// The store could not be written or read.
    #[error("could not write {path}")]
    Store {
        /// What was being written.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The record beside a layer cannot be read.
    #[error("the record {path} of an unpacked layer is damaged")]
    Record {
        /// The record.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
}

/// The rule that an entry breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The name begins with a slash.
    #[error("its name is absolute")]
    AbsolutePath,
    /// The name goes up.
    #[error("its name contains `..`")]
    ParentComponent,
    /// The name is empty, or too long, or too deep.
    #[error("its name is empty, has a part over 255 bytes, or is over {longest} bytes or {deepest} levels")]
    UnreasonableName {
        /// Longest path in bytes.
        longest: usize,
        /// Deepest nesting.
        deepest: usize,
    },
    /// A device, fifo or socket.
    #[error("it is a {0}; a layer may hold only files, directories and links")]
    SpecialFile(&'static str),
    /// A tar entry type that is not part of layers.
    #[error("its type {0:?} does not belong in a layer")]
    UnknownType(char),
    /// A symbolic link to an absolute path.
    #[error("it links to the absolute path {0:?}; write it relative to the link")]
    AbsoluteLink(String),
    /// A symbolic link that climbs out of the root.
    #[error("it links to {0:?}, which lies above the root")]
    EscapingLink(String),
    /// A hard link to something that is not a file of this layer before it.
    #[error("it is a hard link to {0:?}, which is no file that came before it in this layer")]
    HardLinkTarget(String),
    /// Something on the way to it is a link or a file.
    #[error("{0:?} on the way to it is not a directory of this layer")]
    ParentNotDirectory(PathBuf),
    /// The same name twice.
    #[error("the same name came before")]
    Duplicate,
    /// A whiteout that names nothing, or one of another union file system.
    #[error("it is not a valid whiteout")]
    Whiteout,
    /// An extended attribute that a layer must not set.
    #[error("it sets the extended attribute {0:?}")]
    ForbiddenAttribute(String),
    /// An extension record that cannot be read or is too large.
    #[error("its extension header is malformed or over {0} bytes")]
    Extension(u64),
    /// Too many entries.
    #[error("the layer has more than {0} entries")]
    TooManyEntries(usize),
    /// Too much content.
    #[error("the layer has more than {0} bytes of content")]
    TooLarge(u64),
    /// Content out of proportion to the archive.
    #[error("the layer unpacks to more than {0} times its size")]
    Bomb(u64),
}

/// Layers unpacked below one directory, each under the digest of its archive.
#[derive(Debug, Clone)]
pub struct LayerStore {
    directory: PathBuf,
    bounds: Bounds,
}

impl LayerStore {
    /// The store in `directory`, which is made when first needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), bounds: Bounds::default() }
    }

    /// The same with other bounds.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    fn place(&self, digest: &Sha256) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    fn fill(&self, directory: &Path, archive: &File, format: LayerFormat) -> Result<Layer, LayerError> {
        let store = |source| LayerError::Store { path: directory.to_owned(), source };
        let root = directory.join("root");
        fs::create_dir(&root).map_err(store)?;
        let size = archive.metadata().map_err(store)?.len();
        let mut input = BufReader::with_capacity(1 << 17, archive);
        input.seek(SeekFrom::Start(0)).map_err(store)?;
        let mut layer = match format {
            LayerFormat::Tar => archive::unpack(input, "tar", size, &root, &self.bounds)?,
            LayerFormat::TarZstd => {
                let broken = |source| LayerError::Archive { format: "tar+zstd", source };
                let mut decoder = zstd::Decoder::with_buffer(input).map_err(broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
                archive::unpack(decoder, "tar+zstd", size, &root, &self.bounds)?
            }
        };
        layer.root = root;
        Ok(layer)
    }
}

impl Layers for LayerStore {
    fn unpack(&self, digest: &Sha256, archive: &File, format: LayerFormat) -> Result<Layer, LayerError> {
        if let Some(layer) = self.get(digest)? {
            return Ok(layer);
        }
        let store = |source| LayerError::Store { path: self.directory.clone(), source };
        fs::create_dir_all(&self.directory).map_err(store)?;
        let scratch =
            tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&self.directory).map_err(store)?;
        let mut layer = self.fill(scratch.path(), archive, format)?;
        // Containers enter the layer through overlay; the store above it stays closed.
        layer.root = self.place(digest).join("root");
        let record = scratch.path().join("layer.json");
        let json = serde_json::to_vec(&layer)
            .map_err(|source| LayerError::Record { path: record.clone(), source })?;
        fs::write(&record, json).map_err(store)?;
        let opened = File::open(scratch.path()).map_err(store)?;
        nix::unistd::syncfs(&opened).map_err(|error| store(error.into()))?;
        let place = self.place(digest);
        match fs::rename(scratch.path(), &place) {
            Ok(()) => {}
            // Somebody else was faster with the same bytes.
            Err(_) if place.join("layer.json").exists() => return Ok(layer),
            Err(source) => return Err(LayerError::Store { path: place, source }),
        }
        let _ = scratch.keep();
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(store)?;
        Ok(layer)
    }

    fn get(&self, digest: &Sha256) -> Result<Option<Layer>, LayerError> {
        let path = self.place(digest).join("layer.json");
        match fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).map(Some).map_err(|source| LayerError::Record { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LayerError::Store { path, source }),
        }
    }
}

#[cfg(test)]
mod tests;
