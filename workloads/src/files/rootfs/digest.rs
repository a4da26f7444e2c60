//! Digests of files as a container sees them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use sha2::Digest;

use crate::criu::images::{CheckpointedFile, FilePlace};
use crate::files::foreign::{self, Found};
use crate::files::hashing;
use crate::files::rootfs::{FileRecord, RootfsError};

/// The largest file that is read whole. The container stands still meanwhile, and no signal is heard.
const WHOLE: u64 = 1 << 30;

/// What is read at the beginning and at the end of a larger one.
const PART: u64 = 64 << 20;

/// The digest of a file; of one of more than [`WHOLE`] that of its size, its time of modification, and its
/// beginning and end. CRIU compares the size only.
pub(super) fn content(file: &File, size: u64) -> io::Result<Sha256> {
    let go_on = || Ok(());
    if size <= WHOLE {
        return hashing::digest(file, 0..size, go_on);
    }
    let found = file.metadata()?;
    let mut hash = sha2::Sha256::new();
    for part in [0..PART, size - PART..size] {
        hash.update(hashing::digest(file, part, go_on)?.as_bytes());
    }
    for number in [i64::try_from(size).unwrap_or(i64::MAX), found.mtime(), found.mtime_nsec()] {
        hash.update(number.to_le_bytes());
    }
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

/// Files in the root file system, each opened as the container would see it: links are followed,
/// but never out of `rootfs`.
pub(crate) fn files(rootfs: &Path, files: &[CheckpointedFile]) -> Result<Vec<FileRecord>, RootfsError> {
    let root = File::open(rootfs).map_err(|source| RootfsError::Read { path: rootfs.to_owned(), source })?;
    files
        .iter()
        .filter(|file| file.place == FilePlace::Root)
        .map(|file| {
            let digest = digest_inside(root.as_fd(), file.path.as_path());
            let digest = digest
                .map_err(|source| RootfsError::Read { path: below(rootfs, file.path.as_path()), source })?;
            Ok(FileRecord { path: file.path.clone(), sha256: digest })
        })
        .collect()
}

/// A path inside the container as one on the host, for messages.
fn below(rootfs: &Path, path: &Path) -> PathBuf {
    rootfs.join(path.strip_prefix("/").unwrap_or(path))
}

fn digest_inside(root: impl AsFd, path: &Path) -> io::Result<Option<Sha256>> {
    // A device or a FIFO may lie where the file was; it is not opened.
    let Found::File(handle) = foreign::named(root, path)? else { return Ok(None) };
    content(&handle.read()?, handle.size()).map(Some)
}
