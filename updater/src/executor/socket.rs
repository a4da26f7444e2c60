//! The executor's socket: one connection, one question, one answer.
//!
//! Who may connect, the socket's mode says: the agent's group. A question is bounded and has to come in time; a connection that
//! closes does not end what it began.
//!
//! Where systemd listens, an executor ends when nobody has asked anything for as long as a grant counts: whatever it knew of
//! attempts is worth nothing by then, and the next one is the program that is installed.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fleet::local::{Answer, MAX_QUESTION};
use manifests::Grant;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;

use super::Executor;

/// Questions that are answered at once. One of them may be a transaction.
const AT_ONCE: usize = 8;

/// How long a question may take to come, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The descriptor that systemd passes first (`sd_listen_fds(3)`).
const FIRST: i32 = 3;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// systemd passed something else.
    #[error("expected one socket from systemd, found {found}")]
    Passed {
        /// How many descriptors it passed.
        found: String,
    },
    /// It cannot be made.
    #[error("listen on {path}")]
    Listen {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The socket, and who listens when this program does not.
#[derive(Debug)]
pub enum Listener {
    /// systemd does.
    Passed(UnixListener),
    /// Nobody.
    Own(UnixListener),
}

impl Listener {
    /// The socket that systemd passed, or one at `path`.
    ///
    /// # Errors
    /// [`SocketError`].
    #[expect(clippy::disallowed_methods, reason = "systemd passes sockets by the environment")]
    pub fn open(path: &Path) -> Result<Self, SocketError> {
        let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
        if ours {
            let found = std::env::var("LISTEN_FDS").unwrap_or_default();
            if found != "1" {
                return Err(SocketError::Passed { found });
            }
            // SAFETY: systemd opened it for this process, and nothing else here knows of it.
            let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
            return Ok(Self::Passed(UnixListener::from(socket)));
        }
        let failed = |source| SocketError::Listen { path: path.display().to_string(), source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self::Own(listener))
    }
}

/// Answers until the executor is told to end and `wake` says so, and waits for what is under way.
///
/// # Errors
/// If the socket cannot be waited for.
pub fn serve(executor: &Arc<Executor>, listener: &Listener, wake: &UnixStream) -> io::Result<()> {
    let (socket, patience) = match listener {
        Listener::Passed(socket) => (socket, PollTimeout::try_from(Grant::VALID).unwrap_or(PollTimeout::MAX)),
        Listener::Own(socket) => (socket, PollTimeout::NONE),
    };
    socket.set_nonblocking(true)?;
    // Each question has one; who panics lets go of it, too.
    let places = Arc::new(());
    let mut threads: Vec<thread::JoinHandle<()>> = Vec::new();
    while !executor.ending.load(Ordering::Relaxed) {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        match poll(&mut [readable(socket.as_fd()), readable(wake.as_fd())], patience) {
            Ok(0) if Arc::strong_count(&places) == 1 => break,
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let Ok((stream, _)) = socket.accept() else { continue };
        threads.retain(|thread| !thread.is_finished());
        let (executor, place) = (executor.clone(), places.clone());
        let answer = (Arc::strong_count(&places) > AT_ONCE + 1).then(|| Answer::Failed {
            error: format!("expected at most {AT_ONCE} questions at once, found more"),
        });
        threads.push(thread::spawn(move || {
            let _place = place;
            if let Err(error) = talk(&executor, stream, answer) {
                tracing::debug!(%error, "a question ended");
            }
        }));
    }
    for thread in threads {
        // Whoever panicked was told by the panic hook.
        let _ = thread.join();
    }
    Ok(())
}

fn talk(executor: &Executor, mut stream: UnixStream, answer: Option<Answer>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let answer = match answer {
        Some(answer) => answer,
        None => match question(&stream)? {
            Ok(question) => executor.answer(question),
            Err(error) => Answer::Failed { error },
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn question(stream: &UnixStream) -> io::Result<Result<fleet::local::Question, String>> {
    let mut line = Vec::new();
    let limit = MAX_QUESTION as u64 + 1;
    BufReader::new(stream).take(limit).read_until(b'\n', &mut line)?;
    if line.len() > MAX_QUESTION {
        return Ok(Err(format!("expected a question of at most {MAX_QUESTION} bytes, found more")));
    }
    Ok(serde_json::from_slice(&line).map_err(|error| format!("not a question: {error}")))
}
