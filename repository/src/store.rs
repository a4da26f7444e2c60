//! What a client keeps of a repository: the metadata that it has verified, for its version floors.
//!
//! Invariants:
//! - A file is there whole or not at all, also after a power cut: [`system::durable`] writes.
//! - What could not be kept is not acted upon: [`Store::lost`] tells, and a refresh fails by it. Otherwise a full
//!   disk would be a way to have versions forgotten.
//! - A name stays in the directory, whatever the repository calls its roles.
//!
//! What lies here is verified again from the pinned root each time; a file that was tampered with is as good as none.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use manifests::bounded::{self, BoundedError};
use sigstore_tuf::cache::MetadataStore;
use sigstore_tuf::{Error, Result};
use system::durable;

/// The roots that lead from the pinned one to the latest; what is in it does not meet roles' names.
const ROOTS: &str = "root_history";

/// No metadata file is larger.
pub(crate) const LARGEST: usize = 8 << 20;

/// Writes a file of which there is the old or the new.
pub type Write = dyn Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync;

/// Verified metadata on disk.
#[derive(Clone)]
pub struct Store {
    directory: PathBuf,
    write: Arc<Write>,
    lost: Arc<Mutex<Option<(PathBuf, io::Error)>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.directory.display())
    }
}

impl Store {
    /// The store in this directory, which is made with the first file.
    pub fn new(directory: &Path) -> Self {
        Self::writing(directory, Arc::new(durable::replace))
    }

    /// The same by another way to write: for tests that cut the power.
    pub fn writing(directory: &Path, write: Arc<Write>) -> Self {
        Self { directory: directory.to_owned(), write, lost: Arc::default() }
    }

    /// The first file that could not be kept since this was last asked.
    pub fn lost(&self) -> Option<(PathBuf, io::Error)> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A file of verified metadata by its name without a version; nothing if it is not there or cannot be read.
    pub(crate) fn known(&self, name: &str) -> Option<Vec<u8>> {
        self.load(name).ok().flatten()
    }

    /// The file of a name; nothing for what is not kept.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 200
                && name.ends_with(".json")
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.~%".contains(&c))
        };
        match name.split_once('/') {
            None => plain(name).then(|| self.directory.join(name)),
            Some((ROOTS, root)) => plain(root).then(|| self.directory.join(ROOTS).join(root)),
            // Targets are the caller's.
            Some(_) => None,
        }
    }

    fn keep(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Each root of history, and every role that did not change, is written once.
        if bounded::read(File::open(path).ok().map_or_else(empty, boxed), LARGEST)
            .is_ok_and(|old| old == bytes)
        {
            return Ok(());
        }
        durable::make_directory(path.parent().unwrap_or(&self.directory))?;
        (self.write)(path, bytes)
    }
}

fn empty() -> Box<dyn io::Read> {
    Box::new(io::empty())
}

fn boxed(file: File) -> Box<dyn io::Read> {
    Box::new(file)
}

/// Whether it is `3.snapshot.json`, which the verifier gives twice.
fn is_versioned_snapshot(name: &str) -> bool {
    name.strip_suffix(".snapshot.json").is_some_and(|version| version.bytes().all(|c| c.is_ascii_digit()))
}

impl MetadataStore for Store {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let refuse = |error| Error::io(format!("read {}", path.display()), error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(refuse)?,
        };
        match bounded::read(file, LARGEST) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BoundedError::Io(error)) => Err(refuse(error)),
            Err(error) => Err(refuse(io::Error::other(error.to_string()))),
        }
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if is_versioned_snapshot(name) {
            return Ok(());
        }
        let Some(path) = self.path(name) else { return Ok(()) };
        let Err(error) = self.keep(&path, bytes) else { return Ok(()) };
        let told = io::Error::new(error.kind(), error.to_string());
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((path.clone(), error));
        Err(Error::io(format!("keep {}", path.display()), told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_out_are_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("metadata");
        let store = Store::new(&below);
        for name in
            ["../x.json", "a/../../x.json", "/x.json", "root_history/../x.json", "targets/x.json", "x", ""]
        {
            store.store(name, b"{}").unwrap();
            assert_eq!(store.load(name).unwrap(), None, "{name}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        store.store("%2E.%2Frole.json", b"{}").unwrap();
        assert_eq!(store.load("%2E.%2Frole.json").unwrap().as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let full = |_: &Path, _: &[u8]| Err(io::ErrorKind::StorageFull.into());
        let store = Store::writing(directory.path(), Arc::new(full));
        assert!(store.store("timestamp.json", b"{}").is_err());
        let (path, error) = store.lost().unwrap();
        assert!(path.ends_with("timestamp.json"));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(store.lost().is_none());
    }
}
