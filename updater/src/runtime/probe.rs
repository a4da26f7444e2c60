//! Probes: is the new version any good?
//!
//! A container's probes act inside it: `exec` as one of its processes, `http` and `tcp` from its
//! network namespace. The manifest's own probes act on the host.
//!
//! HTTP is the smallest correct GET (RFC 9112): only the status line is judged, no redirect is followed,
//! and nothing is resolved by name.

#![expect(clippy::disallowed_methods, reason = "probes wait for real servers")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use manifests::{Check, ContainerId, HttpUrl, Probe};
use serde::{Deserialize, Serialize};

use super::command::{CommandError, Invocation, WhenLate};
use super::container::{ExecOutcome, NetworkPlace};
use super::error::RuntimeError;
use super::runc::Runc;
use super::{ContainerRuntime, Prober, netns};
use crate::host::Interrupt;

/// The longest status line that is read; servers send a few dozen bytes.
const STATUS_LINE: u64 = 512;

/// Where a probe looks from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum ProbeSite {
    /// Inside a container: its processes and its network namespace.
    Container {
        /// Which.
        container: ContainerId,
    },
    /// The host.
    Host,
}

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
        container: ContainerId,
    },
    /// The container could not be asked.
    #[error("`{check}` could not be tried in container {container}")]
    Runtime {
        /// What was tried.
        check: String,
        /// Where.
        container: ContainerId,
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

/// Probes through runc, sockets and commands.
#[derive(Debug)]
pub struct Probes {
    runtime: Runc,
}

impl Probes {
    /// Probes that enter containers through this runtime.
    pub fn new(runtime: Runc) -> Self {
        Self { runtime }
    }

    fn attempt(&self, site: &ProbeSite, check: &Check, limit: Duration) -> Result<(), ProbeError> {
        let shown = || check.to_string();
        match (check, site) {
            (Check::Exec { command }, ProbeSite::Host) => {
                let words: Vec<&str> = command.iter().map(|argument| argument.as_str()).collect();
                host_command(&words, limit, shown)
            }
            (Check::Exec { command }, ProbeSite::Container { container }) => {
                let words: Vec<String> =
                    command.iter().map(|argument| argument.as_str().to_owned()).collect();
                self.container_command(container, &words, limit, shown)
            }
            (Check::Http { url, status }, _) => self.from(site, || http(url, *status, limit, shown))?,
            (Check::Tcp { port, address }, _) => {
                let to = SocketAddr::new(*address, port.get());
                self.from(site, || connect(to, limit, &shown).map(drop))?
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
            NetworkPlace::Path(_) | NetworkPlace::Own | NetworkPlace::Unknown(_) => {
                PathBuf::from(format!("/proc/{init}/ns/net"))
            }
        };
        netns::entered(&namespace, work).map_err(|source| ProbeError::Connection {
            check: format!("enter {}", namespace.display()),
            source,
        })
    }

    fn container_command(
        &self,
        container: &ContainerId,
        command: &[String],
        limit: Duration,
        shown: impl Fn() -> String,
    ) -> Result<(), ProbeError> {
        match self.runtime.exec(container, command, limit) {
            Ok(ExecOutcome::Exited { status: 0, .. }) => Ok(()),
            Ok(ExecOutcome::Exited { status, stderr_tail }) => {
                Err(ProbeError::Status { check: shown(), status, stderr: stderr_tail })
            }
            Ok(ExecOutcome::TimedOut) => Err(ProbeError::TooLong { check: shown(), limit }),
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
        interrupt: &dyn Interrupt,
    ) -> Result<u32, ProbeError> {
        persist(probe, interrupt, |limit| self.attempt(site, &probe.check, limit))
    }

    fn once(&self, site: &ProbeSite, probe: &Probe) -> Result<(), ProbeError> {
        self.attempt(site, &probe.check, probe.timeout.duration())
    }
}

/// Tries until it has held often enough in a row, or its time is over; returns how often it tried.
fn persist(
    probe: &Probe,
    interrupt: &dyn Interrupt,
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
            Err(error) => (held, last) = (0, Some(error)),
        }
        if held >= probe.successes {
            return Ok(attempts);
        }
        if interrupt.asked() {
            return Err(ProbeError::Interrupted { check: probe.check.to_string(), attempts });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(probe.interval.duration().min(left));
    }
}

fn host_command(command: &[&str], limit: Duration, shown: impl Fn() -> String) -> Result<(), ProbeError> {
    let (program, arguments) = command.split_first().unwrap_or((&"", &[]));
    let run = Invocation::new(program).args(arguments).limit(limit, WhenLate::Kill).run();
    match run {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(ProbeError::Status {
            check: shown(),
            status: done.status.code().unwrap_or(-1),
            stderr: done.stderr_tail,
        }),
        Err(CommandError::Killed { .. }) => Err(ProbeError::TooLong { check: shown(), limit }),
        Err(source) => Err(ProbeError::Command { check: shown(), source: Box::new(source) }),
    }
}

fn connect(to: SocketAddr, limit: Duration, shown: &impl Fn() -> String) -> Result<TcpStream, ProbeError> {
    TcpStream::connect_timeout(&to, limit.max(Duration::from_millis(1))).map_err(|source| {
        if source.kind() == io::ErrorKind::TimedOut {
            ProbeError::TooLong { check: shown(), limit }
        } else {
            ProbeError::Connection { check: shown(), source }
        }
    })
}

fn http(url: &HttpUrl, status: u16, limit: Duration, shown: impl Fn() -> String) -> Result<(), ProbeError> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(url.address(), limit, &shown)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: update\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target(),
        url.authority()
    );
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ProbeError::TooLong { check: shown(), limit },
        _ => ProbeError::Connection { check: shown(), source },
    };
    stream.set_write_timeout(Some(limit.max(Duration::from_millis(1)))).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let line = status_line(&mut stream, deadline).map_err(failed)?;
    if answered(&line) == Some(status) {
        Ok(())
    } else {
        Err(ProbeError::Answer { check: shown(), found: line })
    }
}

/// The first line of the answer, without its end. A server that drips bytes is cut off at the
/// deadline, one that never ends the line at [`STATUS_LINE`].
fn status_line(stream: &mut TcpStream, deadline: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    while (line.len() as u64) < STATUS_LINE {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut byte = [0; 64];
        let count = stream.read(&mut byte)?;
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
    use crate::host::Uninterrupted;

    fn probe(yaml: &str) -> Probe {
        manifests::yaml::from_slice(yaml.as_bytes(), 4096).unwrap()
    }

    fn probes() -> Probes {
        Probes::new(Runc::new("/nonexistent"))
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
            match probes().once(&ProbeSite::Host, &probe).unwrap_err() {
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
        let error = probes().once(&ProbeSite::Host, &probe).unwrap_err();
        assert!(matches!(error, ProbeError::TooLong { .. }), "{error}");
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
    fn an_exec_probe_on_the_host_judges_the_exit_status() {
        let good = probe("{kind: exec, command: [/bin/true]}");
        probes().once(&ProbeSite::Host, &good).unwrap();
        let bad = probe("{kind: exec, command: [/bin/sh, -c, 'echo broken >&2; exit 9']}");
        let error = probes().once(&ProbeSite::Host, &bad).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`exec /bin/sh -c \"echo broken >&2; exit 9\"` ended with status 9, expected 0: broken"
        );
    }

    #[test]
    fn a_container_that_is_gone_is_named() {
        let site = ProbeSite::Container { container: "web-1".parse().unwrap() };
        let error = probes().once(&site, &probe("{kind: tcp, port: 1}")).unwrap_err();
        assert!(matches!(error, ProbeError::NoContainer { .. }), "{error}");
    }
}
