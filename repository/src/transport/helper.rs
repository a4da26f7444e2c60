//! HTTP by a process of its own, so that no byte of a server is parsed by a process that may change the host.
//!
//! `update-transport` is started for each file, as `nobody` if we are root, with an empty environment and with pipes
//! only. It resolves names and speaks TLS and HTTP; what it says back is read by [`wire`], waited for no longer than
//! patience lasts, and believed as little as the server.

use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use url::Url;

use crate::transport::file::Files;
use crate::transport::wire::{self, Frame};
use crate::transport::{Body, FetchError, Patience, Transport};

/// Debian's and everybody's `nobody` and `nogroup`: owns nothing.
const NOBODY: u32 = 65534;

/// How much longer than a server's silence the helper's is borne with: it gives up by itself and says why.
const LONGER: Duration = Duration::from_secs(5);

/// How to reach servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The program `update-transport`.
    pub program: PathBuf,
    /// The proxy to go through.
    pub proxy: Option<Url>,
    /// Believe these certificate authorities (PEM) and no others; else those of the system.
    pub authorities: Option<PathBuf>,
    /// What is borne with.
    pub patience: Patience,
}

/// `http` and `https` by the helper, `file` by ourselves.
#[derive(Debug, Clone)]
pub struct Helper(pub Network);

impl Transport for Helper {
    fn open(&self, url: &Url, from: u64) -> Result<Option<Body>, FetchError> {
        match url.scheme() {
            "file" => Files.open(url, from),
            "http" | "https" => self.ask(url, from),
            _ => Err(FetchError::Scheme { url: url.clone() }),
        }
    }
}

impl Helper {
    fn start(&self) -> io::Result<Child> {
        let Network { program, proxy, authorities, patience } = &self.0;
        #[expect(clippy::disallowed_methods, reason = "it streams, and has fewer rights than we")]
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        command.arg("--silence").arg(patience.silence.as_secs().max(1).to_string());
        if let Some(proxy) = proxy {
            command.arg("--proxy").arg(proxy.as_str());
        }
        if let Some(authorities) = authorities {
            command.arg("--authorities").arg(authorities);
        }
        if nix::unistd::geteuid().is_root() {
            // The standard library then drops the other groups, too.
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn()
    }

    fn ask(&self, url: &Url, from: u64) -> Result<Option<Body>, FetchError> {
        let failed = |source| FetchError::Io { url: url.clone(), source };
        let request = format!("{from} {url}\n");
        if request.len() > wire::REQUEST {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "the address is too long")));
        }
        let program = self.0.program.display().to_string();
        let mut child = self.start().map_err(|source| FetchError::Helper { program, source })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(failed(io::Error::other("the helper has no pipes")));
        };
        let pipe = Pipe { stdout, patience: self.0.patience.silence + LONGER };
        let mut answer = Answer { child, pipe: BufReader::new(pipe), frame: Vec::new(), at: 0, over: false };
        stdin.write_all(request.as_bytes()).map_err(failed)?;
        drop(stdin);
        match wire::read(&mut answer.pipe, &mut answer.frame).map_err(failed)? {
            Frame::Absent => Ok(None),
            Frame::Begins => {
                let begins = <[u8; 8]>::try_from(&answer.frame[..]).map(u64::from_le_bytes);
                let Some(begins) = begins.ok().filter(|begins| *begins <= from) else {
                    return Err(failed(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the helper began elsewhere",
                    )));
                };
                answer.frame.clear();
                Ok(Some(Body { from: begins, bytes: Box::new(answer) }))
            }
            Frame::Elsewhere => {
                let to = String::from_utf8_lossy(&answer.frame).into_owned();
                Err(FetchError::Elsewhere { from: url.to_string(), to })
            }
            Frame::Failed | Frame::Data | Frame::Ends => Err(failed(answer.words())),
        }
    }
}

/// Waits for no byte longer than its patience.
struct Pipe {
    stdout: ChildStdout,
    patience: Duration,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
        let mut waiting = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, timeout) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "the helper is silent")),
            Ok(_) => self.stdout.read(buffer),
            Err(nix::errno::Errno::EINTR) => Err(io::ErrorKind::Interrupted.into()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The helper's answer, as the bytes of the file. Dropped, it ends the helper.
struct Answer {
    child: Child,
    pipe: BufReader<Pipe>,
    frame: Vec<u8>,
    at: usize,
    over: bool,
}

impl Answer {
    /// Why the helper failed, in its own words.
    fn words(&self) -> io::Error {
        io::Error::other(manifests::text::shown(&String::from_utf8_lossy(&self.frame)).to_string())
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.frame.len() {
            if self.over {
                return Ok(0);
            }
            self.at = 0;
            match wire::read(&mut self.pipe, &mut self.frame)? {
                Frame::Data => {}
                Frame::Ends => {
                    self.over = true;
                    self.frame.clear();
                }
                _ => {
                    let words = self.words();
                    self.frame.clear();
                    return Err(words);
                }
            }
        }
        let read = (self.frame.len() - self.at).min(buffer.len());
        buffer[..read].copy_from_slice(&self.frame[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // It has nothing to lose, and may be waiting for a server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
