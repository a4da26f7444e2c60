//! One transaction at a time per host.
//!
//! The lock is `flock(2)` on `lock` in the store. It belongs to the open file, not to the process: a child
//! that inherits the descriptor (a running `runc checkpoint`, see [`HostLock::shared_with_children`]) keeps the host
//! locked when `update` is killed, so a resume can never run beside a dump that is still going on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why the host could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another transaction holds the host.
    #[error("another transaction holds this host: {holder}")]
    Busy {
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The lock file cannot be made or locked: the store is missing, read-only, or not ours.
    #[error("lock the host by {path}")]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a look at the lock finds.
#[derive(Debug)]
pub enum Looked {
    /// Somebody holds the host.
    Held {
        /// What the holder wrote about itself.
        holder: String,
    },
    /// Nobody does, and nobody can for as long as this is kept.
    Free(Look),
}

/// Keeps the host from being taken while it is looked at. Looks do not keep each other out.
#[derive(Debug)]
pub struct Look {
    /// `None` where nobody has ever taken the lock.
    _file: Option<Flock<File>>,
}

/// The held lock. Let go when it and every inherited copy are closed.
#[derive(Debug)]
pub struct HostLock {
    file: Flock<File>,
}

impl HostLock {
    /// Take the lock, without waiting; `purpose` is shown to whoever comes second.
    ///
    /// # Errors
    /// [`LockError::Busy`] if somebody has it, [`LockError::Unusable`] if it cannot be made.
    pub fn take(store: &Path, purpose: &str) -> Result<Self, LockError> {
        let path = store.join("lock");
        let unusable = |source| LockError::Unusable { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let note = format!("pid {}, {purpose}\n", std::process::id());
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| file.write_all(note.as_bytes()))
                    .map_err(unusable)?;
                Ok(Self { file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(unusable)?;
                Err(LockError::Busy { holder: described(holder.trim()) })
            }
            Err((_, errno)) => Err(unusable(errno.into())),
        }
    }

    /// See whether somebody holds the host, without waiting. A taker is refused while a [`Look`] is kept, so
    /// look only where there is a reason to.
    ///
    /// # Errors
    /// [`LockError::Unusable`].
    pub fn look(store: &Path) -> Result<Looked, LockError> {
        let path = store.join("lock");
        let unusable = |source| LockError::Unusable { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Looked::Free(Look { _file: None }));
            }
            opened => opened.map_err(unusable)?,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(file) => Ok(Looked::Free(Look { _file: Some(file) })),
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(unusable)?;
                Ok(Looked::Held { holder: described(holder.trim()) })
            }
            Err((_, errno)) => Err(unusable(errno.into())),
        }
    }

    /// The descriptor that a child may inherit to keep the host locked for as long as it runs.
    pub fn shared_with_children(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The holder's note. A holder that is gone has left a child behind that keeps the host locked.
fn described(note: &str) -> String {
    let pid = note.strip_prefix("pid ").and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
    match pid {
        Some(pid) if !Path::new(&format!("/proc/{pid}")).exists() => {
            format!("{note}, which was killed; the dump or restore that it began still runs")
        }
        _ => note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_the_host() {
        let store = tempfile::tempdir().unwrap();
        let held = HostLock::take(store.path(), "apply demo v1").unwrap();
        let refused = HostLock::take(store.path(), "apply other v1").unwrap_err();
        assert!(
            matches!(&refused, LockError::Busy { holder } if holder.contains("apply demo v1")),
            "{refused}"
        );
        drop(held);
        HostLock::take(store.path(), "apply other v1").unwrap();
    }

    #[test]
    fn a_look_names_the_holder_and_takes_nothing_from_other_looks() {
        let store = tempfile::tempdir().unwrap();
        assert!(matches!(HostLock::look(store.path()).unwrap(), Looked::Free(_)));
        let held = HostLock::take(store.path(), "apply demo v1").unwrap();
        assert!(
            matches!(HostLock::look(store.path()).unwrap(), Looked::Held { holder } if holder.contains("apply demo v1"))
        );
        drop(held);
        let one = HostLock::look(store.path()).unwrap();
        assert!(matches!(HostLock::look(store.path()).unwrap(), Looked::Free(_)));
        assert!(HostLock::take(store.path(), "apply demo v1").is_err(), "nobody begins during a look");
        drop(one);
        HostLock::take(store.path(), "apply demo v1").unwrap();
    }

    #[test]
    fn an_inherited_descriptor_keeps_the_host_locked() {
        let store = tempfile::tempdir().unwrap();
        let held = HostLock::take(store.path(), "apply demo v1").unwrap();
        let inherited = held.shared_with_children().try_clone_to_owned().unwrap();
        // What a kill does: the descriptor closes without an unlock.
        let HostLock { file } = held;
        let raw = std::mem::ManuallyDrop::new(file);
        drop(nix::unistd::dup(raw.as_fd()).unwrap());
        assert!(matches!(HostLock::take(store.path(), "resume"), Err(LockError::Busy { .. })));
        let dead = "pid 4194305, apply demo v1";
        assert!(described(dead).contains("still runs") && !described("pid 1, resume").contains("still runs"));
        drop(inherited);
    }
}
