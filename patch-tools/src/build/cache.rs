//! Where downloaded packages and prepared trees live, and how several builds share them.
//!
//! ```text
//! <cache>/debs/NAME_VERSION_ARCH.deb     packages as downloaded; also used by the VM lab
//! <cache>/digests/NAME                   the digest of a package, so that it is not hashed again
//! <cache>/suites/SUITE/                  apt's lists and configuration for one Debian release; see `apt`
//! <cache>/roots/COMPILER-DIGEST/         an unpacked compiler with all that it needs; see `root`
//! <cache>/images/DIGEST/                 an unpacked image package: boot/ and lib/modules/
//! <cache>/kernels/DIGEST/                the kernel of an image, decompressed
//! <cache>/headers/DIGEST/                an unpacked headers package
//! <cache>/sources/DIGEST/                an unpacked kernel source, shared by the kernels built from it
//! <cache>/trees/KEY/                     an output directory, prepared for one configuration; see `tree`
//! ```
//! Invariants: an entry is either absent or complete: it is made under an exclusive lock beside it, and its
//! marker file is written last. What has a marker is never changed. The cache can be deleted at any time when
//! no build runs. Nobody but the user may write to it: what is compiled comes from here.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use system::durable;

/// The file that says that an entry is complete.
const MARKER: &str = ".complete";

/// A failure of the cache's own file operations.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither of the variables that lead to a cache is set.
    #[error("cannot tell where to cache: none of UPDATE_LAB_CACHE, XDG_CACHE_HOME and HOME is set")]
    NoPlace,
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl CacheError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache at a given directory, which is made when something is put there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The user's cache: `$UPDATE_LAB_CACHE`, else `$XDG_CACHE_HOME/update-lab`, else `~/.cache/update-lab`.
    pub fn of_user() -> Result<Self, CacheError> {
        let set = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let root = set("UPDATE_LAB_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("XDG_CACHE_HOME").map(|base| PathBuf::from(base).join("update-lab")))
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache/update-lab")))
            .ok_or(CacheError::NoPlace)?;
        // Compilers run in other directories, so a relative path would mean something else there.
        std::path::absolute(&root).map(Self::at).map_err(CacheError::io("find", &root))
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where apt's configuration for a suite is. Not an entry: what is there changes.
    pub(crate) fn apt(&self, suite: &str) -> PathBuf {
        self.root.join("suites").join(suite)
    }

    /// Where packages are.
    pub fn packages(&self) -> PathBuf {
        self.root.join("debs")
    }

    /// Where the digest of a cached file is kept; see `digest`.
    pub(crate) fn digest_record(&self, file: &Path) -> PathBuf {
        self.root.join("digests").join(file.file_name().unwrap_or_default())
    }

    /// The entry `key` among those of one kind, made by `make` if it is not there.
    ///
    /// `make` gets the entry's own, empty directory at its final path: what a kernel tree generates has
    /// that path inside. A process that finds another one making the same entry waits for it.
    pub(crate) fn entry<E: From<CacheError>>(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let entry = self.root.join(kind).join(key);
        if entry.join(MARKER).is_file() {
            return Ok(entry);
        }
        let _lock = Lock::wait(&self.root.join(kind).join(format!("{key}.lock")))?;
        if entry.join(MARKER).is_file() {
            return Ok(entry);
        }
        if entry.exists() {
            fs::remove_dir_all(&entry).map_err(CacheError::io("remove the incomplete", &entry))?;
        }
        fs::create_dir_all(&entry).map_err(CacheError::io("make", &entry))?;
        make(&entry)?;
        // The marker must not survive a power cut that its content does not.
        durable::sync_file_system(&entry).map_err(CacheError::io("sync", &entry))?;
        let marker = entry.join(MARKER);
        durable::replace(&marker, b"").map_err(CacheError::io("write", &marker))?;
        Ok(entry)
    }
}

/// An exclusive advisory lock on a file, held until dropped; the kernel drops it with a killed process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock.
    pub(crate) fn wait(path: &Path) -> Result<Self, CacheError> {
        let file = Self::open(path)?;
        file.lock().map_err(CacheError::io("lock", path))?;
        Ok(Self { _file: file })
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn attempt(path: &Path) -> Result<Option<Self>, CacheError> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(CacheError::io("lock", path)(source)),
        }
    }

    fn open(path: &Path) -> Result<File, CacheError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(CacheError::io("make", parent))?;
        }
        File::options().create(true).append(true).open(path).map_err(CacheError::io("open", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_whose_making_failed_is_made_again_from_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let failed = cache.entry("trees", "k", |entry| {
            fs::write(entry.join("half"), "").unwrap();
            Err(CacheError::NoPlace)
        });
        assert!(failed.is_err());
        let entry = cache
            .entry("trees", "k", |entry| {
                assert!(!entry.join("half").exists());
                fs::write(entry.join("whole"), "").map_err(CacheError::io("write", entry))
            })
            .unwrap();
        assert!(entry.join("whole").exists());
        cache.entry("trees", "k", |_| -> Result<(), CacheError> { panic!("made twice") }).unwrap();
    }

    #[test]
    fn a_lock_that_is_held_is_not_given_twice() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("l");
        let first = Lock::attempt(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::attempt(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::attempt(&path).unwrap().is_some());
    }
}
