//! Files that are there whole or not at all, also after a power cut: the only place that writes, syncs and renames.
//!
//! Invariants:
//! - What has its name has its content: the bytes are synced before the rename, the directory after it.
//! - What a crash leaves behind has a name that begins with [`UNFINISHED`], and belongs to nobody who is alive for
//!   longer than the writing takes.
//!
//! - What loses its name loses all of it at once: it is renamed to one that begins with [`DOOMED`] before any part goes.
//!
//! What this does not do: locking. Two writers of one name leave the content of one of them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// How the names of files begin that are not complete yet.
pub const UNFINISHED: &str = ".incoming-";

/// How the names of things begin that are being removed. What a crash leaves of them is nobody's.
pub const DOOMED: &str = ".removing-";

/// A file that has not got its name yet. Dropped without it, it is removed.
#[derive(Debug)]
pub struct Unnamed {
    file: NamedTempFile,
    path: PathBuf,
}

impl Unnamed {
    /// A new, empty file beside `path`, for root's (or the caller's) eyes only.
    pub fn beside(path: &Path) -> io::Result<Self> {
        Self::with_mode(path, 0o600)
    }

    /// The same with these permissions, less the process's umask.
    pub fn with_mode(path: &Path, mode: u32) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory_of(path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Gives it its name, in place of what has that name.
    pub fn replace(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_directory(directory_of(&self.path))
    }

    /// Gives it its name, which nothing may have.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]; what is there stays as it is.
    pub fn create(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        sync_directory(directory_of(&self.path))
    }
}

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that is filled in several attempts, perhaps by several processes one after the other, before it gets its name.
///
/// Dropped without a name, it stays, to go on from; whoever tidies a directory knows it by [`UNFINISHED`]. What a power
/// cut makes of its bytes is not known: who names it has hashed all of them.
#[derive(Debug)]
pub struct Partial {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Partial {
    /// What there is of `path` so far, from its beginning; nothing while somebody else fills it.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut name = OsString::from(UNFINISHED);
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        let unfinished = directory_of(path).join(name);
        let mut options = fs::OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&unfinished)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // Whoever held it may have named it meanwhile: then this is not the file of that name any more.
        match fs::metadata(&unfinished) {
            Ok(found) if found.ino() == file.metadata()?.ino() => {}
            _ => return Ok(None),
        }
        Ok(Some(Self { file, unfinished, path: path.to_owned() }))
    }

    /// Its bytes: read to the end of them, and write on from there.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in place of what has that name.
    pub fn replace(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.unfinished, &self.path)?;
        sync_directory(directory_of(&self.path))
    }

    /// Removes it: it cannot become what it was to be.
    pub fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.unfinished)
    }
}

/// Writes a file of mode 0600, in place of what has its name.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = Unnamed::beside(path)?;
    file.write_all(content)?;
    file.replace()
}

/// As [`replace`], of mode 0644: everybody may read it, and finds the old content or the new, never a part.
pub fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = Unnamed::with_mode(path, 0o644)?;
    file.write_all(content)?;
    file.replace()
}

/// Makes a directory that is its owner's alone, and what is missing above it; there already is success.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    sync_directory(directory_of(path))
}

/// Makes the names in a directory survive a power cut.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Everything on the file system of `path`, at once: one flush instead of one for each file. It reports writes that
/// failed (since Linux 5.8).
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(File::open(path)?)?)
}

/// Removes a file whose name says something, durably; not there is success.
pub fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(directory_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a file or a tree whose name says what it is, so that no part of it ever bears that name. Not there is success.
pub fn remove(path: &Path) -> io::Result<()> {
    let directory = directory_of(path);
    let mut doomed = OsString::from(DOOMED);
    doomed.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let doomed = directory.join(doomed);
    // An earlier removal of the same name was cut short.
    remove_in_place(&doomed)?;
    match fs::rename(path, &doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    sync_directory(directory)?;
    remove_in_place(&doomed)
}

/// Removes what removals left in a directory that were cut short. No such directory is success.
pub fn finish_removals(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(DOOMED.as_bytes()) {
            remove_in_place(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a tree name by name. The standard library walks it by descriptors and follows no link.
fn remove_in_place(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(directory.path()), ["record"]);
    }

    #[test]
    fn what_never_got_its_name_leaves_the_old_content_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        replace(&path, b"old").unwrap();
        let mut half = Unnamed::beside(&path).unwrap();
        half.write_all(b"ne").unwrap();
        assert!(names(directory.path()).iter().any(|name| name.starts_with(UNFINISHED)));
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["record"]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        replace(&path, b"old").unwrap();
        let mut other = Unnamed::beside(&path).unwrap();
        other.write_all(b"new").unwrap();
        assert_eq!(other.create().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_removal_that_is_cut_short_leaves_nothing_under_the_name_and_is_finished_later() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        let make = || {
            fs::create_dir_all(tree.join("a/b")).unwrap();
            fs::write(tree.join("a/b/file"), "x").unwrap();
        };
        make();
        // What a cut after the rename leaves; a new thing of the same name came after it.
        fs::rename(&tree, directory.path().join(".removing-tree")).unwrap();
        make();
        remove(&tree).unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
        remove(&tree).unwrap();

        make();
        fs::rename(&tree, directory.path().join(".removing-tree")).unwrap();
        finish_removals(directory.path()).unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
        finish_removals(&tree).unwrap();
    }

    #[test]
    fn forgetting_what_is_not_there_is_success() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        replace(&path, b"old").unwrap();
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert!(!path.exists());
    }
}
