//! Digests of files, kept for those in the cache.
//!
//! A kernel's packages have 220 MB. Hashing them costs more than compiling a small file, so a package's
//! digest is kept beside it together with size, time and inode, and made again when one of those changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use sha2::Digest as _;

use super::cache::Cache;

/// A file that cannot be hashed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct DigestError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The digest of a file's content.
pub fn of_file(path: &Path) -> Result<Sha256, DigestError> {
    hash(path).map_err(|source| DigestError { path: path.to_owned(), source })
}

/// The digest of a file in the cache, taken from the record of the last time if the file is the same.
pub(crate) fn of_cached_file(cache: &Cache, path: &Path) -> Result<Sha256, DigestError> {
    let failed = |source| DigestError { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    let identity = format!(
        "{} {} {}.{:09} {}",
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.size()
    );
    let record = cache.digest_record(path);
    if let Ok(text) = fs::read_to_string(&record)
        && let Some(digest) = text.strip_prefix(&identity).and_then(|rest| rest.trim().parse().ok())
    {
        return Ok(digest);
    }
    let digest = of_file(path)?;
    // A record that cannot be kept costs time, not correctness.
    let _ = record
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| system::durable::publish(&record, format!("{identity} {digest}\n").as_bytes()));
    Ok(digest)
}

fn hash(path: &Path) -> io::Result<Sha256> {
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sha256::from_bytes(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
