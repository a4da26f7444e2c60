//! One transaction at a time per host.
//!
//! The lock is `flock(2)` on `lock` in the store. It belongs to the open file, not to the process: a child
//! that inherits the descriptor (a running `runc checkpoint`, see [`HostLock::shared_with_children`]) keeps the host
//! locked when `update` is killed, so a resume can never run beside a dump that is still going on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::clock::{Clock, Interrupt};
use crate::process::ProcessIdentity;

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

/// What to do while somebody else holds the host.
#[derive(Clone, Copy)]
pub enum Turn<'a> {
    /// Say who does.
    Now,
    /// Wait until they let go, unless somebody asks to stop. The first holder that is met is told of.
    Wait {
        /// Who may end the wait.
        interrupt: &'a (dyn Interrupt + Sync),
        /// Who hears whom it waits for.
        told: &'a (dyn Fn(&str) + Sync),
    },
}

/// How often a wait looks again. A turn comes seconds to minutes after it was asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a look may keep a taker waiting: it reads the journal and the kernel's state once.
const LOOKS_END: Duration = Duration::from_secs(60);

impl HostLock {
    /// Take the lock; `purpose` is shown to whoever comes second. Those who merely [look](Self::look) are waited
    /// for: they are done in a moment.
    ///
    /// # Errors
    /// [`LockError::Busy`] if somebody has it and goes on having it, [`LockError::Unusable`] if it cannot be made.
    pub fn take(store: &Path, purpose: &str, turn: Turn<'_>, clock: &dyn Clock) -> Result<Self, LockError> {
        let path = store.join("lock");
        let unusable = |source| LockError::Unusable { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        let (asked, mut told) = (clock.elapsed(), false);
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let mut held = Self { file };
                    held.say(purpose).map_err(unusable)?;
                    return Ok(held);
                }
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(unusable(errno.into())),
            };
            // A shared lock beside it shows that whoever has it only looks.
            file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(shared) if clock.elapsed() - asked < LOOKS_END => {
                    shared.unlock().map_err(|(_, errno)| unusable(errno.into()))?
                }
                Ok(_) => return Err(LockError::Busy { holder: "somebody who looks at it".to_owned() }),
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let holder = holder(&mut file).map_err(unusable)?;
                    match turn {
                        Turn::Wait { interrupt, .. } if interrupt.asked() => {
                            return Err(LockError::Busy { holder });
                        }
                        Turn::Wait { told: tell, .. } => {
                            if !std::mem::replace(&mut told, true) {
                                tell(&holder);
                            }
                        }
                        Turn::Now => return Err(LockError::Busy { holder }),
                    }
                    file
                }
                Err((_, errno)) => return Err(unusable(errno.into())),
            };
            clock.sleep(LOOK_AGAIN);
        }
    }

    /// Say what the host is held for.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn say(&mut self, purpose: &str) -> io::Result<()> {
        let me = std::process::id();
        let since = ProcessIdentity::of(me).map(|me| me.started.to_string()).unwrap_or_default();
        // The start tells this process from a later one with the same number.
        let note = format!("pid {me}, {purpose}\n{since}\n");
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(note.as_bytes())
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
            Err((mut file, Errno::EWOULDBLOCK)) => {
                Ok(Looked::Held { holder: holder(&mut file).map_err(unusable)? })
            }
            Err((_, errno)) => Err(unusable(errno.into())),
        }
    }

    /// The descriptor that a child may inherit to keep the host locked for as long as it runs.
    pub fn shared_with_children(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for HostLock {
    /// Whoever finds the host held by a child that outlives us reads no note of ours.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// What the holder says of itself, and whether it is still there to say so.
fn holder(file: &mut File) -> io::Result<String> {
    let mut note = String::new();
    file.rewind()?;
    file.take(4096).read_to_string(&mut note)?;
    Ok(described(&note))
}

/// A holder that is gone has left a child behind that keeps the host locked.
fn described(note: &str) -> String {
    let (words, since) = note.split_once('\n').unwrap_or((note, ""));
    let Some(pid) = words.strip_prefix("pid ").and_then(|rest| rest.split(',').next()?.parse().ok()) else {
        return "somebody who has not yet said what for".to_owned();
    };
    let alive = ProcessIdentity::of(pid)
        .is_some_and(|now| since.trim().is_empty() || since.trim() == now.started.to_string());
    if alive {
        words.to_owned()
    } else {
        format!("{words}, which was killed; the dump or restore that it began still runs")
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::{SystemClock, Uninterrupted};
    use crate::command::HeldLock;

    fn take(store: &Path, purpose: &str) -> Result<HostLock, LockError> {
        HostLock::take(store, purpose, Turn::Now, &SystemClock)
    }

    #[test]
    fn the_second_taker_learns_who_holds_the_host() {
        let store = tempfile::tempdir().unwrap();
        let mut held = take(store.path(), "apply demo v1").unwrap();
        let refused = take(store.path(), "apply other v1").unwrap_err();
        assert!(
            matches!(&refused, LockError::Busy { holder } if holder.contains("apply demo v1")),
            "{refused}"
        );
        held.say("apply demo v2").unwrap();
        let refused = take(store.path(), "apply other v1").unwrap_err();
        assert!(refused.to_string().ends_with("apply demo v2"), "{refused}");
        drop(held);
        take(store.path(), "apply other v1").unwrap();
    }

    #[test]
    fn a_look_names_the_holder_and_takes_nothing_from_other_looks() {
        let store = tempfile::tempdir().unwrap();
        assert!(matches!(HostLock::look(store.path()).unwrap(), Looked::Free(_)));
        let held = take(store.path(), "apply demo v1").unwrap();
        assert!(
            matches!(HostLock::look(store.path()).unwrap(), Looked::Held { holder } if holder.contains("apply demo v1"))
        );
        drop(held);
        let one = HostLock::look(store.path()).unwrap();
        assert!(matches!(HostLock::look(store.path()).unwrap(), Looked::Free(_)));
        drop(one);
    }

    #[test]
    fn a_taker_waits_for_those_who_only_look() {
        let store = tempfile::tempdir().unwrap();
        drop(take(store.path(), "apply demo v1").unwrap());
        let look = HostLock::look(store.path()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let taken = take(store.path(), "apply demo v2");
                (taken, over.load(Ordering::SeqCst))
            });
            SystemClock.sleep(Duration::from_millis(200));
            over.store(true, Ordering::SeqCst);
            drop(look);
            let (taken, over) = taker.join().unwrap();
            taken.unwrap();
            assert!(over, "nobody begins during a look");
        });
    }

    #[test]
    fn a_turn_that_is_waited_for_comes_and_names_whom_it_waits_for() {
        let store = tempfile::tempdir().unwrap();
        let held = take(store.path(), "collect").unwrap();
        let heard = std::sync::Mutex::new(Vec::new());
        let told = |holder: &str| heard.lock().unwrap().push(holder.to_owned());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let turn = Turn::Wait { interrupt: &Uninterrupted, told: &told };
                HostLock::take(store.path(), "resume", turn, &SystemClock)
            });
            SystemClock.sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished());
            drop(held);
            waiting.join().unwrap().unwrap();
        });
        let heard = heard.into_inner().unwrap();
        assert!(matches!(&heard[..], [holder] if holder.ends_with("collect")), "{heard:?}");
    }

    /// The lock of a process that is killed is kept by the program that it has started, and by nothing else.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the parent of a killed program is started as a test")]
    fn a_child_keeps_the_host_locked_after_its_parent_was_killed() {
        let store = tempfile::tempdir().unwrap();
        let (begun, end) = (store.path().join("begun"), store.path().join("end"));
        if let Some(store) = std::env::var_os("LOCK_TEST_PARENT") {
            // This is the parent: it holds the host and waits for a program, until it is killed.
            let store = PathBuf::from(store);
            let held = take(&store, "apply demo v1").unwrap();
            let lock = HeldLock::share(held.shared_with_children()).unwrap();
            let script = "echo > \"$1/begun\"; while ! [ -e \"$1/end\" ]; do sleep 0.05; done";
            let run = crate::command::Invocation::new("sh").args(["-c", script, "sh"]).arg(&store);
            run.holding(Some(&lock)).output().unwrap();
            return;
        }
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::a_child_keeps_the_host_locked_after_its_parent_was_killed"])
            .env("LOCK_TEST_PARENT", store.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !begun.exists() {
            SystemClock.sleep(Duration::from_millis(10));
        }
        parent.kill().unwrap();
        parent.wait().unwrap();
        let refused = take(store.path(), "resume").unwrap_err();
        assert!(refused.to_string().contains("apply demo v1, which was killed"), "{refused}");
        std::fs::write(&end, "").unwrap();
        HostLock::take(
            store.path(),
            "resume",
            Turn::Wait { interrupt: &Uninterrupted, told: &|_| {} },
            &SystemClock,
        )
        .unwrap();
    }

    #[test]
    fn another_process_with_the_number_of_a_dead_holder_is_not_taken_for_it() {
        let note = |since: &str| format!("pid {}, apply demo v1\n{since}\n", std::process::id());
        let mine = ProcessIdentity::of(std::process::id()).unwrap().started.to_string();
        assert_eq!(described(&note(&mine)), format!("pid {}, apply demo v1", std::process::id()));
        assert!(described(&note("1")).contains("which was killed"));
        assert!(described("pid 4194305, apply demo v1\n1\n").contains("still runs"));
        assert_eq!(described(""), "somebody who has not yet said what for");
    }
}
