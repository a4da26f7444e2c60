//! Probes: is the new version any good?
//!
//! A container's probes act inside it: `exec` as one of its processes, `http` and `tcp` from its
//! network namespace. The manifest's own probes act on the host.
//!
//! HTTP is the smallest correct GET (RFC 9112): only the status line is judged, no redirect is followed,
//! and nothing is resolved by name.
//!
//! Every wait looks several times a second whether the operator asked to stop ([`Patience`]).

#![expect(clippy::disallowed_methods, reason = "probes wait for real servers")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifests::{Check, HttpUrl, Probe};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, getsockopt, socket, sockopt::SocketError,
};
use system::clock::Interrupt;
use system::command::{CommandError, Invocation, WhenLate};

use crate::lifecycle::Lifecycle;
use crate::lifecycle::error::RuntimeError;
use crate::model::{ExecOutcome, NetworkPlace, ProbeSite, WorkloadId};
use crate::network::netns;

/// Probes.
pub trait Prober {
    /// Tries until the probe has held often enough in a row, or somebody asks to stop; returns how
    /// often it was tried.
    fn until_ready(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<u32, ProbeError>;

    /// Tries once, unless somebody asks to stop.
    fn once(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<(), ProbeError>;
}

/// The longest status line that is read; servers send a few dozen bytes.
const STATUS_LINE: u64 = 512;

/// How often a wait looks whether the operator asked to stop: at once, for a person.
const SLICE: Duration = Duration::from_millis(100);

/// Why a probe does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It did not hold often enough in a row in its time.
    #[error(
        "`{check}` held {held} times in a row within {limit:?} ({attempts} attempts), expected {expected}"
    )]
    NotReady {
        /// What was tried.
        check: String,
        /// Successes in a row at the end.
        held: u32,
        /// How many are needed.
        expected: u32,
        /// How often it was tried.
        attempts: u32,
        /// The time it had.
        limit: Duration,
        /// Why the last failing attempt failed.
        source: Option<Box<ProbeError>>,
    },
    /// It was to be tried no longer.
    #[error("`{check}` had been tried {attempts} times when the operator asked to stop")]
    Interrupted {
        /// What was tried.
        check: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A command ended with a failure.
    #[error("`{check}` ended with status {status}, expected 0{}", if .stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
    Status {
        /// What was tried.
        check: String,
        /// Its exit status.
        status: i32,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// A server answered with another status.
    #[error("`{check}` was answered with {found:?}")]
    Answer {
        /// What was tried.
        check: String,
        /// The status line.
        found: String,
    },
    /// No connection, or it broke.
    #[error("`{check}` could not be tried")]
    Connection {
        /// What was tried.
        check: String,
        /// The reason.
        source: io::Error,
    },
    /// An attempt took too long.
    #[error("`{check}` took longer than {limit:?}")]
    TooLong {
        /// What was tried.
        check: String,
        /// The time it had.
        limit: Duration,
    },
    /// The container to look from is not there.
    #[error("container {container} is not running")]
    NoContainer {
        /// Which.
        container: WorkloadId,
    },
    /// The container could not be asked.
    #[error("`{check}` could not be tried in container {container}")]
    Runtime {
        /// What was tried.
        check: String,
        /// Where.
        container: WorkloadId,
        /// The reason.
        source: Box<RuntimeError>,
    },
    /// A command on the host could not be run.
    #[error("`{check}` could not be run")]
    Command {
        /// What was tried.
        check: String,
        /// The reason.
        source: Box<CommandError>,
    },
}

/// How long an attempt may take, and who may end it before that.
#[derive(Clone, Copy)]
struct Patience<'a> {
    limit: Duration,
    deadline: Instant,
    interrupt: &'a (dyn Interrupt + Sync),
}

impl<'a> Patience<'a> {
    fn new(limit: Duration, interrupt: &'a (dyn Interrupt + Sync)) -> Self {
        Self { limit, deadline: Instant::now() + limit, interrupt }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits until the socket can be read or written.
    fn wait_for(
        &self,
        socket: &impl AsFd,
        event: PollFlags,
        shown: &impl Fn() -> String,
    ) -> Result<(), ProbeError> {
        loop {
            if self.interrupt.asked() {
                return Err(ProbeError::Interrupted { check: shown(), attempts: 1 });
            }
            let left = self.left();
            if left.is_zero() {
                return Err(ProbeError::TooLong { check: shown(), limit: self.limit });
            }
            // Rounded up, so that the last wait is not a busy one.
            let slice = left.min(SLICE) + Duration::from_millis(1);
            let slice = PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO);
            match poll(&mut [PollFd::new(socket.as_fd(), event)], slice) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => {
                    return Err(ProbeError::Connection { check: shown(), source: errno.into() });
                }
            }
        }
    }
}

/// Probes through runtimes, sockets and commands.
pub struct Probes {
    runtime: Arc<dyn Lifecycle + Send + Sync>,
}

impl Probes {
    /// Probes that enter containers through their runtimes.
    pub fn new(runtime: Arc<dyn Lifecycle + Send + Sync>) -> Self {
        Self { runtime }
    }

    fn attempt(&self, site: &ProbeSite, check: &Check, patience: Patience<'_>) -> Result<(), ProbeError> {
        let shown = || check.to_string();
        match (check, site) {
            (Check::Exec { command }, ProbeSite::Host) => {
                let words: Vec<&str> = command.iter().map(|argument| argument.as_str()).collect();
                host_command(&words, patience, shown)
            }
            (Check::Exec { command }, ProbeSite::Container { container }) => {
                let words: Vec<String> =
                    command.iter().map(|argument| argument.as_str().to_owned()).collect();
                self.container_command(container, &words, patience, shown)
            }
            (Check::Http { url, status }, _) => self.from(site, || http(url, *status, patience, shown))?,
            (Check::Tcp { port, address }, _) => {
                let to = SocketAddr::new(*address, port.get());
                self.from(site, || connect(to, patience, &shown).map(drop))?
            }
        }
    }

    /// Does something in the network namespace of a site.
    fn from<T: Send>(&self, site: &ProbeSite, work: impl FnOnce() -> T + Send) -> Result<T, ProbeError> {
        let ProbeSite::Container { container } = site else { return Ok(work()) };
        let gone = || ProbeError::NoContainer { container: container.clone() };
        let runtime = |source| ProbeError::Runtime {
            check: "find its network".into(),
            container: container.clone(),
            source: Box::new(source),
        };
        let found = self.runtime.inspect(container).map_err(runtime)?.ok_or_else(gone)?;
        let init = found.init.ok_or_else(gone)?;
        // By the process, whatever the bundle says: this is where its sockets are.
        let namespace = match found.network {
            NetworkPlace::Host => return Ok(work()),
            NetworkPlace::Path(_)
            | NetworkPlace::Own
            | NetworkPlace::Engine(_)
            | NetworkPlace::Unknown(_) => PathBuf::from(format!("/proc/{init}/ns/net")),
        };
        netns::entered(&namespace, work).map_err(|source| ProbeError::Connection {
            check: format!("enter {}", namespace.display()),
            source,
        })
    }

    fn container_command(
        &self,
        container: &WorkloadId,
        command: &[String],
        patience: Patience<'_>,
        shown: impl Fn() -> String,
    ) -> Result<(), ProbeError> {
        let limit = patience.limit;
        match self.runtime.exec(container, command, limit, patience.interrupt) {
            Ok(ExecOutcome::Exited { status: 0, .. }) => Ok(()),
            Ok(ExecOutcome::Exited { status, stderr_tail }) => {
                Err(ProbeError::Status { check: shown(), status, stderr: stderr_tail })
            }
            Ok(ExecOutcome::TimedOut) => Err(ProbeError::TooLong { check: shown(), limit }),
            Ok(ExecOutcome::Interrupted) => Err(ProbeError::Interrupted { check: shown(), attempts: 1 }),
            Err(source) => Err(ProbeError::Runtime {
                check: shown(),
                container: container.clone(),
                source: Box::new(source),
            }),
        }
    }
}

impl Prober for Probes {
    fn until_ready(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<u32, ProbeError> {
        persist(probe, interrupt, |limit| self.attempt(site, &probe.check, Patience::new(limit, interrupt)))
    }

    fn once(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<(), ProbeError> {
        self.attempt(site, &probe.check, Patience::new(probe.timeout.duration(), interrupt))
    }
}

/// Tries until it has held often enough in a row, or its time is over; returns how often it tried.
fn persist(
    probe: &Probe,
    interrupt: &(dyn Interrupt + Sync),
    mut attempt: impl FnMut(Duration) -> Result<(), ProbeError>,
) -> Result<u32, ProbeError> {
    let limit = probe.timeout.duration();
    let deadline = Instant::now() + limit;
    let (mut held, mut attempts, mut last) = (0, 0, None);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let check = probe.check.to_string();
            let source = last.map(Box::new);
            return Err(ProbeError::NotReady {
                check,
                held,
                expected: probe.successes,
                attempts,
                limit,
                source,
            });
        }
        attempts += 1;
        match attempt(left) {
            Ok(()) => held += 1,
            Err(ProbeError::Interrupted { check, .. }) => {
                return Err(ProbeError::Interrupted { check, attempts });
            }
            // It was cut off by the deadline, which says less than an answer.
            Err(ProbeError::TooLong { .. }) if last.is_some() => held = 0,
            Err(error) => (held, last) = (0, Some(error)),
        }
        if held >= probe.successes {
            return Ok(attempts);
        }
        let again = deadline.min(Instant::now() + probe.interval.duration());
        loop {
            let left = again.saturating_duration_since(Instant::now());
            if left.is_zero() || interrupt.asked() {
                break;
            }
            std::thread::sleep(left.min(SLICE));
        }
        if interrupt.asked() {
            return Err(ProbeError::Interrupted { check: probe.check.to_string(), attempts });
        }
    }
}

fn host_command(
    command: &[&str],
    patience: Patience<'_>,
    shown: impl Fn() -> String,
) -> Result<(), ProbeError> {
    let (program, arguments) = command.split_first().unwrap_or((&"", &[]));
    let limit = patience.limit;
    let run =
        Invocation::new(program).args(arguments).limit(limit, WhenLate::Kill).run_unless(patience.interrupt);
    match run {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(ProbeError::Status {
            check: shown(),
            status: done.status.code().unwrap_or(-1),
            stderr: done.stderr_tail,
        }),
        Err(CommandError::Killed { .. }) => Err(ProbeError::TooLong { check: shown(), limit }),
        Err(CommandError::Interrupted { .. }) => Err(ProbeError::Interrupted { check: shown(), attempts: 1 }),
        Err(source) => Err(ProbeError::Command { check: shown(), source: Box::new(source) }),
    }
}

fn connect(
    to: SocketAddr,
    patience: Patience<'_>,
    shown: &impl Fn() -> String,
) -> Result<TcpStream, ProbeError> {
    let failed = |source| ProbeError::Connection { check: shown(), source };
    let begin = || -> nix::Result<OwnedFd> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None)?;
        match nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
            Err(errno) => Err(errno),
        }
    };
    let socket = begin().map_err(|errno| failed(errno.into()))?;
    patience.wait_for(&socket, PollFlags::POLLOUT, shown)?;
    match getsockopt(&socket, SocketError).map_err(|errno| failed(errno.into()))? {
        0 => Ok(TcpStream::from(socket)),
        errno => Err(failed(io::Error::from_raw_os_error(errno))),
    }
}

fn http(
    url: &HttpUrl,
    status: u16,
    patience: Patience<'_>,
    shown: impl Fn() -> String,
) -> Result<(), ProbeError> {
    let mut stream = connect(url.address(), patience, &shown)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: update\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target(),
        url.authority()
    );
    // It fits into the send buffer of a fresh connection.
    stream
        .write_all(request.as_bytes())
        .map_err(|source| ProbeError::Connection { check: shown(), source })?;
    let line = status_line(&mut stream, patience, &shown)?;
    if answered(&line) == Some(status) {
        Ok(())
    } else {
        Err(ProbeError::Answer { check: shown(), found: line })
    }
}

/// The first line of the answer, without its end. A server that drips bytes is cut off at the
/// deadline, one that never ends the line at [`STATUS_LINE`].
fn status_line(
    stream: &mut TcpStream,
    patience: Patience<'_>,
    shown: &impl Fn() -> String,
) -> Result<String, ProbeError> {
    let mut line = Vec::new();
    while (line.len() as u64) < STATUS_LINE {
        patience.wait_for(stream, PollFlags::POLLIN, shown)?;
        let mut byte = [0; 64];
        let count = match stream.read(&mut byte) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            read => read.map_err(|source| ProbeError::Connection { check: shown(), source })?,
        };
        line.extend(&byte[..count]);
        if count == 0 || line.contains(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The status of a status line (RFC 9112, section 4: version, space, three digits).
fn answered(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let digits = rest.split(' ').next()?;
    if digits.len() == 3 { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use system::clock::Uninterrupted;

    fn probe(yaml: &str) -> Probe {
        manifests::yaml::from_slice(yaml.as_bytes(), 4096).unwrap()
    }

    fn probes() -> Probes {
        Probes::new(Arc::new(crate::lifecycle::Runc::new("/nonexistent")))
    }

    /// A server that answers each connection with the next of these, then stops.
    fn server(answers: Vec<&'static str>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let serve = |answer: &str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..count]).into_owned()
            };
            answers.into_iter().map(serve).collect()
        });
        (port, thread)
    }

    #[test]
    fn an_http_probe_needs_its_successes_in_a_row() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let bad = "HTTP/1.1 503 Not yet\r\n\r\n";
        let (port, thread) = server(vec![good, bad, good, good]);
        let probe = probe(&format!(
            "{{kind: http, url: 'http://127.0.0.1:{port}/health?x=1', timeout: 20s, interval: 10ms, successes: 2}}"
        ));
        assert_eq!(probes().until_ready(&ProbeSite::Host, &probe, &Uninterrupted).unwrap(), 4);
        let requests = thread.join().unwrap();
        assert!(requests[0].starts_with("GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"), "{}", requests[0]);
    }

    #[test]
    fn another_status_or_another_protocol_is_no_success() {
        let (port, thread) = server(vec!["HTTP/1.1 404 Not Found\r\n\r\n", "SSH-2.0-x\r\n", ""]);
        let probe = probe(&format!("{{kind: http, url: 'http://127.0.0.1:{port}/', timeout: 5s}}"));
        for expected in ["HTTP/1.1 404 Not Found", "SSH-2.0-x", ""] {
            match probes().once(&ProbeSite::Host, &probe, &Uninterrupted).unwrap_err() {
                ProbeError::Answer { found, .. } => assert_eq!(found, expected),
                ProbeError::Connection { .. } if expected.is_empty() => {}
                other => panic!("{other}"),
            }
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_server_that_never_answers_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = probe(&format!("{{kind: http, url: 'http://127.0.0.1:{port}/', timeout: 100ms}}"));
        let error = probes().once(&ProbeSite::Host, &probe, &Uninterrupted).unwrap_err();
        assert!(matches!(error, ProbeError::TooLong { .. }), "{error}");
    }

    /// An operator who asks to stop as soon as a wait has begun.
    #[derive(Default)]
    struct Impatient(std::sync::atomic::AtomicUsize);

    impl Interrupt for Impatient {
        fn asked(&self) -> bool {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2
        }
    }

    #[test]
    fn an_operator_who_asks_to_stop_does_not_wait_for_the_attempt_under_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let begun = Instant::now();
        for check in [
            format!("{{kind: http, url: 'http://127.0.0.1:{port}/', timeout: 10m}}"),
            "{kind: exec, command: [/bin/sleep, '600'], timeout: 10m}".to_owned(),
            format!("{{kind: tcp, port: {port}, timeout: 10m, interval: 1m, successes: 9}}"),
        ] {
            let probe = probe(&check);
            let error = probes().until_ready(&ProbeSite::Host, &probe, &Impatient::default()).unwrap_err();
            assert!(matches!(error, ProbeError::Interrupted { attempts: 1, .. }), "{check}: {error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let probe = probe("{kind: exec, command: [/bin/sleep, '600'], timeout: 10m}");
        let error = probes().once(&ProbeSite::Host, &probe, &Impatient::default()).unwrap_err();
        assert!(matches!(error, ProbeError::Interrupted { .. }), "{error}");
    }

    #[test]
    fn a_closed_port_is_reported_with_its_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let probe = probe(&format!("{{kind: tcp, port: {port}, timeout: 100ms, interval: 10ms}}"));
        let error = probes().until_ready(&ProbeSite::Host, &probe, &Uninterrupted).unwrap_err();
        let ProbeError::NotReady { held: 0, attempts, source: Some(cause), .. } = error else {
            panic!("{error}")
        };
        assert!(attempts >= 2);
        assert!(matches!(*cause, ProbeError::Connection { .. }));
    }

    #[test]
    fn the_reason_is_the_last_answer_and_not_that_the_deadline_cut_off_the_next_attempt() {
        let probe = probe("{kind: tcp, port: 1, timeout: 200ms, interval: 10ms}");
        let mut attempts = 0;
        let error = persist(&probe, &Uninterrupted, |left| {
            attempts += 1;
            let check = "it".to_owned();
            if attempts == 1 {
                return Err(ProbeError::Connection {
                    check,
                    source: io::ErrorKind::ConnectionRefused.into(),
                });
            }
            std::thread::sleep(left);
            Err(ProbeError::TooLong { check, limit: left })
        })
        .unwrap_err();
        let ProbeError::NotReady { attempts: 2, source: Some(cause), .. } = error else { panic!("{error}") };
        assert!(matches!(*cause, ProbeError::Connection { .. }), "{cause}");
    }

    #[test]
    fn an_exec_probe_on_the_host_judges_the_exit_status() {
        let good = probe("{kind: exec, command: [/bin/true]}");
        probes().once(&ProbeSite::Host, &good, &Uninterrupted).unwrap();
        let bad = probe("{kind: exec, command: [/bin/sh, -c, 'echo broken >&2; exit 9']}");
        let error = probes().once(&ProbeSite::Host, &bad, &Uninterrupted).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`exec /bin/sh -c \"echo broken >&2; exit 9\"` ended with status 9, expected 0: broken"
        );
    }

    #[test]
    fn a_container_that_is_gone_is_named() {
        let site = ProbeSite::Container { container: "web-1".parse().unwrap() };
        let error = probes().once(&site, &probe("{kind: tcp, port: 1}"), &Uninterrupted).unwrap_err();
        assert!(matches!(error, ProbeError::NoContainer { .. }), "{error}");
    }
}
