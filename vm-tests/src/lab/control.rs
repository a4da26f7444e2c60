//! Runs commands in a guest and moves files, over virtio-serial ports.
//!
//! The guest's half is `guest/runner.c`, where the frames are described. Each command is a connection of
//! its own to one of [`PORTS`] unix sockets that QEMU serves; the lock file beside the socket keeps two
//! processes from using one port at once. Dropping a connection kills its command in the guest.
//!
//! This works without the guest's network and across snapshots. It is not for people: they have ssh.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// How many commands can run in a guest at the same time.
pub const PORTS: u32 = 4;
/// Most bytes in one frame; the runner's buffer is larger.
const CHUNK: usize = 64 * 1024;
/// How long a command may run unless it says otherwise. Emulated machines on a busy host are slow.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code, or 128 plus the signal that ended the command.
    pub status: i32,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A guest that answers on its control ports. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct Guest {
    sockets: PathBuf,
}

impl Guest {
    pub(crate) fn new(sockets: &Path) -> Self {
        Self { sockets: sockets.to_owned() }
    }

    /// File name of the socket of a control port; ports count from 1.
    pub(crate) fn socket_name(port: u32) -> String {
        format!("control.{port}")
    }

    /// A command given as program and arguments; nothing is expanded.
    pub fn command<I: AsRef<str>>(&self, argv: impl IntoIterator<Item = I>) -> GuestCommand {
        GuestCommand {
            guest: self.clone(),
            argv: argv.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            stdin: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// A shell script.
    pub fn script(&self, script: &str) -> GuestCommand {
        self.command(["sh", "-c", script])
    }

    /// Runs a shell script and returns its stdout without the last newline.
    ///
    /// # Errors
    /// Also when the script ends with a status other than 0; the message has its stderr.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.script(script).check()
    }

    /// Copies bytes to a file of the guest, complete or not at all, with the given mode.
    pub fn write_file(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let script = r#"set -e; mkdir -p "$(dirname "$1")"; cat >"$1.lab-new"; chmod "$2" "$1.lab-new"; mv -f "$1.lab-new" "$1""#;
        self.command(["sh", "-c", script, "push", path, &format!("{mode:o}")])
            .stdin(content)
            .check()
            .with_context(|| format!("copying to {path} in the guest"))?;
        Ok(())
    }

    /// Reads a file of the guest.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.command(["cat", "--", path]).output()?;
        ensure!(output.status == 0, "reading {path} in the guest: {}", output.complaint().trim_end());
        Ok(output.stdout)
    }

    /// Copies a file of the host to the guest, with its mode.
    pub fn push(&self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let content = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        let mode = std::fs::metadata(from)?.permissions().mode() & 0o7777;
        self.write_file(to, &content, mode)
    }

    /// Copies a file of the guest to the host.
    pub fn pull(&self, from: &str, to: &Path) -> Result<()> {
        std::fs::write(to, self.read_file(from)?).with_context(|| format!("writing {}", to.display()))
    }

    /// Connects to a free control port and waits until its runner answers.
    fn connect(&self, deadline: Instant) -> Result<Connection> {
        let lock = self.free_port(deadline)?;
        let mut stream = loop {
            match UnixStream::connect(self.sockets.join(Self::socket_name(lock.port))) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error).context("the machine's control port cannot be reached"),
            }
        };
        let token = session_token();
        send(&mut stream, b'S', &token)?;
        let mut connection = Connection { stream, _port: lock, deadline };
        // What an earlier command still had to say comes first; it ends with our own token.
        let mut window: Vec<u8> = Vec::new();
        let mut byte = [0; 512];
        while !window.ends_with(&token) {
            let n = connection.read_some(&mut byte).context("waiting for the guest to answer")?;
            window.extend_from_slice(&byte[..n]);
            let excess = window.len().saturating_sub(token.len());
            window.drain(..excess);
        }
        Ok(connection)
    }

    fn free_port(&self, deadline: Instant) -> Result<PortLock> {
        loop {
            for port in 1..=PORTS {
                let path = self.sockets.join(format!("{}.lock", Self::socket_name(port)));
                let file = File::create(&path)
                    .with_context(|| format!("the machine is not running ({})", self.sockets.display()))?;
                if file.try_lock().is_ok() {
                    return Ok(PortLock { port, _file: file });
                }
            }
            ensure!(Instant::now() < deadline, "all {PORTS} control ports of the machine stayed in use");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A command to run in a guest.
#[derive(Debug, Clone)]
pub struct GuestCommand {
    guest: Guest,
    argv: Vec<String>,
    stdin: Vec<u8>,
    timeout: Duration,
}

impl GuestCommand {
    /// Gives the command these bytes as stdin (empty by default).
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// Limits how long to wait, including for a runner that is still booting (300 s by default).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it and collects what it writes.
    ///
    /// # Errors
    /// When the guest cannot be reached, the program is not there, or time runs out. A status other
    /// than 0 is no error.
    pub fn output(&self) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = self.stream(&mut stdout, &mut stderr)?;
        Ok(Output { status, stdout, stderr })
    }

    /// Runs it and returns its stdout without the last newline.
    ///
    /// # Errors
    /// As [`Self::output`], and when the status is not 0.
    pub fn check(&self) -> Result<String> {
        let output = self.output()?;
        if output.status != 0 {
            bail!(
                "in the guest, {} ended with {}:\n{}{}",
                self.shown(),
                output.status,
                output.text(),
                output.complaint()
            );
        }
        let mut text = output.text();
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Runs it, passing on what it writes as it comes; returns its status.
    pub fn stream(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<i32> {
        ensure!(self.argv.iter().all(|arg| !arg.contains('\0')), "a NUL in the command for the guest");
        self.run(stdout, stderr).with_context(|| format!("running {} in the guest", self.shown()))
    }

    fn run(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<i32> {
        let mut connection = self.guest.connect(Instant::now() + self.timeout)?;
        let mut argv = self.argv.join("\0").into_bytes();
        argv.push(0);
        ensure!(argv.len() <= CHUNK, "the command for the guest is longer than {CHUNK} bytes");
        send(&mut connection.stream, b'X', &argv)?;
        // Input goes on a thread of its own: a guest that writes before it has read all must not block us.
        let mut writer = connection.stream.try_clone()?;
        let stdin = self.stdin.clone();
        let feeding = std::thread::spawn(move || {
            stdin.chunks(CHUNK).try_for_each(|chunk| send(&mut writer, b'I', chunk))?;
            send(&mut writer, b'E', &[])
        });
        let status = loop {
            let (kind, payload) = connection.frame()?;
            let number = || Some(i32::from_le_bytes(payload.as_slice().try_into().ok()?));
            match kind {
                b'1' => stdout.write_all(&payload)?,
                b'2' => stderr.write_all(&payload)?,
                b'Q' => break number().ok_or_else(|| anyhow!("a malformed status from the runner"))?,
                b'F' => {
                    let errno = number().unwrap_or(0);
                    bail!(std::io::Error::from_raw_os_error(errno));
                }
                b'S' => {}
                other => bail!("the runner sent an unknown frame {other:#x}"),
            }
        };
        // A command may end without reading its input; closing ends the thread then.
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        let _ = feeding.join();
        Ok(status)
    }

    fn shown(&self) -> String {
        format!("`{}`", self.argv.join(" "))
    }
}

#[derive(Debug)]
struct PortLock {
    port: u32,
    _file: File,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    _port: PortLock,
    deadline: Instant,
}

impl Connection {
    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.read_all(&mut header)?;
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        ensure!(length <= 1 << 20, "the runner announced a frame of {length} bytes");
        let mut payload = vec![0; length];
        self.read_all(&mut payload)?;
        Ok((kind, payload))
    }

    fn read_all(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let n = self.read_some(buffer)?;
            buffer = &mut buffer[n..];
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "time ran out");
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => bail!("the machine went away"),
                Ok(n) => return Ok(n),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the machine went away"),
            }
        }
    }
}

fn send(stream: &mut UnixStream, kind: u8, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

/// Tells this connection's answers from those to an earlier one. Needs to be unlikely, not secret.
fn session_token() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut token = [0; 16];
    for half in token.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(Instant::now()).to_le_bytes());
    }
    token
}
