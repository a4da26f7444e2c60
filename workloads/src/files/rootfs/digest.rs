//! Digests of files as a container sees them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use sha2::Digest;

use crate::criu::images::{CheckpointedFile, FilePlace};
use crate::files::rootfs::{FileRecord, RootfsError};

pub(super) fn content(file: &File) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    io::copy(&mut &*file, &mut HashWriter(&mut hash))?;
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

struct HashWriter<'a>(&'a mut sha2::Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root, path, how) {
        Ok(file) => File::from(file),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { content(&file).map(Some) } else { Ok(None) }
}
