//! Digests of trees and files.
//!
//! A tree's digest covers, per entry in byte order of its path: path, type, mode, owner, device
//! number, size, target of a link, extended attributes and content. Times are not covered: restoring
//! a mount touches those of its root. Of overlay's own attributes only those with a meaning count
//! (`opaque`, `redirect`, `metacopy`); the kernel adds others whenever it mounts.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use manifests::Sha256;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use sha2::Digest;

use crate::criu::images::{CheckpointedFile, FilePlace};
use crate::files::rootfs::{FileRecord, RootfsError, TreeDigest};

pub(crate) fn tree(directory: &Path) -> Result<TreeDigest, RootfsError> {
    let mut hash = sha2::Sha256::new();
    add_entry(&mut hash, directory, OsStr::new("."))?;
    add_children(&mut hash, directory, directory)?;
    Ok(TreeDigest(Sha256::from_bytes(hash.finalize().into())))
}

fn add_children(hash: &mut sha2::Sha256, root: &Path, directory: &Path) -> Result<(), RootfsError> {
    let read = |source| RootfsError::Read { path: directory.to_owned(), source };
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        names.push(entry.map_err(read)?.file_name());
    }
    names.sort_unstable();
    for name in names {
        let path = directory.join(&name);
        let relative = path.strip_prefix(root).unwrap_or(&path);
        add_entry(hash, &path, relative.as_os_str())?;
        if fs::symlink_metadata(&path).map_err(read)?.is_dir() {
            add_children(hash, root, &path)?;
        }
    }
    Ok(())
}

fn add_entry(hash: &mut sha2::Sha256, path: &Path, name: &OsStr) -> Result<(), RootfsError> {
    let read = |source| RootfsError::Read { path: path.to_owned(), source };
    let found = fs::symlink_metadata(path).map_err(read)?;
    let kind = found.file_type();
    let device = if kind.is_char_device() || kind.is_block_device() { found.rdev() } else { 0 };
    // Every part is preceded by its length: no two trees can be written alike.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(name.as_bytes());
    for number in [u64::from(found.mode()), u64::from(found.uid()), u64::from(found.gid()), device] {
        part(&number.to_le_bytes());
    }
    if kind.is_symlink() {
        part(fs::read_link(path).map_err(read)?.as_os_str().as_bytes());
    }
    let mut names: Vec<OsString> = xattr::list(path).map_err(read)?.filter(|name| counts(name)).collect();
    names.sort_unstable();
    part(&(names.len() as u64).to_le_bytes());
    for name in names {
        let value = xattr::get(path, &name).map_err(read)?.unwrap_or_default();
        part(name.as_bytes());
        part(&value);
    }
    if kind.is_file() {
        part(content(&File::open(path).map_err(read)?).map_err(read)?.as_bytes());
    }
    Ok(())
}

fn counts(attribute: &OsStr) -> bool {
    match attribute.to_str().and_then(|name| name.strip_prefix("trusted.overlay.")) {
        Some(own) => matches!(own, "opaque" | "redirect" | "metacopy"),
        None => true,
    }
}

fn content(file: &File) -> io::Result<Sha256> {
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
            let digest = digest_inside(root.as_fd(), &file.path);
            let digest = digest.map_err(|source| RootfsError::Read {
                path: rootfs.join(file.path.trim_start_matches('/')),
                source,
            })?;
            Ok(FileRecord { path: file.path.clone(), sha256: digest })
        })
        .collect()
}

fn digest_inside(root: impl AsFd, path: &str) -> io::Result<Option<Sha256>> {
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
