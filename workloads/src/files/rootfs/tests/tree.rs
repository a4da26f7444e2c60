//! The digest of a whole tree, to see that nothing in it was changed.
//!
//! It covers, per entry in byte order of its path: path, type, mode, owner, device number, target of a link, extended
//! attributes and content. Times are not covered: restoring a mount touches those of its root. Of overlay's own
//! attributes only those with a meaning count (`opaque`, `redirect`, `metacopy`); the kernel adds others whenever it
//! mounts.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use manifests::Sha256;
use sha2::Digest;

use crate::files::rootfs::digest::content;

pub(super) fn tree(directory: &Path) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    add_entry(&mut hash, directory, OsStr::new("."))?;
    add_children(&mut hash, directory, directory)?;
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

fn add_children(hash: &mut sha2::Sha256, root: &Path, directory: &Path) -> io::Result<()> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    for name in names {
        let path = directory.join(&name);
        let relative = path.strip_prefix(root).unwrap_or(&path);
        add_entry(hash, &path, relative.as_os_str())?;
        if fs::symlink_metadata(&path)?.is_dir() {
            add_children(hash, root, &path)?;
        }
    }
    Ok(())
}

fn add_entry(hash: &mut sha2::Sha256, path: &Path, name: &OsStr) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
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
        part(fs::read_link(path)?.as_os_str().as_bytes());
    }
    let mut names: Vec<OsString> = xattr::list(path)?.filter(|name| counts(name)).collect();
    names.sort_unstable();
    part(&(names.len() as u64).to_le_bytes());
    for name in names {
        let value = xattr::get(path, &name)?.unwrap_or_default();
        part(name.as_bytes());
        part(&value);
    }
    if kind.is_file() {
        part(content(&File::open(path)?, found.len())?.as_bytes());
    }
    Ok(())
}

fn counts(attribute: &OsStr) -> bool {
    match attribute.to_str().and_then(|name| name.strip_prefix("trusted.overlay.")) {
        Some(own) => matches!(own, "opaque" | "redirect" | "metacopy"),
        None => true,
    }
}
