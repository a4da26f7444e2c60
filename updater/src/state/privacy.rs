//! The store is root's alone, whoever made its directories: images hold the memory of processes, the journal says what
//! a host lacks.
//!
//! What this does not do: look into payloads and layers one by one, which their own directories close off; and the
//! upper directories of containers, whose modes are the containers'.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What holds something of its own that nobody else may see.
const CLOSED: [&str; 2] = ["payloads", "layers"];

/// Why the store cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// Somebody else can change what is in it.
    #[error("{path} belongs to user {owner}, expected root")]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its type and permissions.
        mode: u32,
    },
    /// Its mode cannot be seen or set.
    #[error("close {path} to everybody but root")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Gives every directory of the store mode 0700 and every file in it mode 0600: its own, and those of checkpoints.
///
/// # Errors
/// [`PrivacyError`], with the first thing that is not root's.
pub fn close(store: &Path, checkpoints: &Path) -> Result<(), PrivacyError> {
    set(store)?;
    for path in entries(store)?.into_iter().filter(|path| !path.is_dir()) {
        set(&path)?;
    }
    let closed = CLOSED.map(|name| store.join(name));
    for path in closed.iter().map(PathBuf::as_path).chain([checkpoints]).filter(|path| path.is_dir()) {
        set(path)?;
    }
    let mut waiting = vec![checkpoints.to_owned()];
    while let Some(directory) = waiting.pop() {
        for path in entries(&directory)? {
            set(&path)?;
            if path.is_dir() && !path.is_symlink() {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// Takes from a file or directory what others may do with it. A link, and what is gone meanwhile, is left alone.
///
/// The file is not opened, only found (`O_PATH`): whoever closes any descriptor of a file loses all POSIX locks of
/// the process on it (`fcntl(2)`), and SQLite's are such. Without them another process that closes the journal last
/// would remove its log while a transaction still writes to it.
fn set(path: &Path) -> Result<(), PrivacyError> {
    let failed = |source| PrivacyError::Io { path: path.to_owned(), source };
    let flags = nix::libc::O_PATH | nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let found = file.metadata().map_err(failed)?;
    if found.is_symlink() {
        return Ok(());
    }
    if found.uid() != 0 {
        let (owner, mode) = (found.uid(), found.mode());
        return Err(PrivacyError::Foreign { path: path.to_owned(), owner, mode });
    }
    let wanted = if found.is_dir() { 0o700 } else { 0o600 };
    if found.mode() & 0o7777 == wanted {
        return Ok(());
    }
    tracing::info!(path = %path.display(), mode = %format!("{:04o}", found.mode() & 0o7777), "closed to others");
    let found = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(found, Permissions::from_mode(wanted)).map_err(failed)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, PrivacyError> {
    let failed = |source| PrivacyError::Io { path: directory.to_owned(), source };
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()).map_err(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn whoever_made_the_store_it_is_closed_and_the_files_of_containers_stay_theirs() {
        let store = tempfile::tempdir().unwrap();
        let at = |name: &str| store.path().join(name);
        let open = [
            "checkpoints/t1/web/full/pages-1.img",
            "journal.sqlite",
            "payloads/sha",
            "layers/sha/usr/bin/tool",
            "rootfs/web/t1/upper/data",
        ];
        for file in open {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "").unwrap();
            fs::set_permissions(at(file), Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(store.path(), Permissions::from_mode(0o755)).unwrap();
        symlink("/etc/passwd", at("checkpoints/t1/web/full/link")).unwrap();
        let (passwd, upper) = (mode(Path::new("/etc/passwd")), mode(&at("rootfs/web/t1/upper")));
        close(store.path(), &at("checkpoints")).unwrap();
        for directory in ["", "checkpoints", "checkpoints/t1/web/full", "payloads", "layers"] {
            assert_eq!(mode(&at(directory)), 0o700, "{directory:?}");
        }
        assert_eq!(mode(&at("checkpoints/t1/web/full/pages-1.img")), 0o600);
        assert_eq!(mode(&at("journal.sqlite")), 0o600);
        assert_eq!(mode(Path::new("/etc/passwd")), passwd, "a link is not followed");
        assert_eq!(mode(&at("rootfs/web/t1/upper")), upper);
        assert_eq!(mode(&at("layers/sha/usr/bin/tool")), 0o755, "a fixed program keeps its mode");
    }

    /// POSIX locks of this process on a file, by the kernel's word.
    fn locks(path: &Path) -> usize {
        let (inode, me) =
            (format!(":{} ", fs::metadata(path).unwrap().ino()), format!(" {} ", std::process::id()));
        let all = fs::read_to_string("/proc/locks").unwrap();
        all.lines()
            .filter(|line| line.contains("POSIX") && line.contains(&me) && line.contains(&inode))
            .count()
    }

    #[test]
    fn the_journals_locks_stay_so_that_nobody_takes_its_log_away() {
        let store = tempfile::tempdir().unwrap();
        let checkpoints = store.path().join("checkpoints");
        let journal = crate::state::journal::Journal::open(store.path()).unwrap();
        journal.all().unwrap();
        let files = ["journal.sqlite", "journal.sqlite-shm"].map(|name| store.path().join(name));
        let before = files.each_ref().map(|file| locks(file));
        assert!(before.iter().all(|count| *count > 0), "SQLite holds locks on both: {before:?}");
        close(store.path(), &checkpoints).unwrap();
        assert_eq!(files.each_ref().map(|file| locks(file)), before);
        assert_eq!(mode(&files[0]), 0o600);
    }

    #[test]
    fn what_belongs_to_somebody_else_is_named() {
        let store = tempfile::tempdir().unwrap();
        fs::create_dir(store.path().join("checkpoints")).unwrap();
        chown(store.path().join("checkpoints"), Some(1000), None).unwrap();
        let error = close(store.path(), &store.path().join("checkpoints")).unwrap_err();
        assert!(
            matches!(&error, PrivacyError::Foreign { owner: 1000, path, .. } if path.ends_with("checkpoints")),
            "{error}"
        );
    }
}
