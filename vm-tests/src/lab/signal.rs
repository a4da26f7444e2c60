//! The port on which programs in the guest tell the host where they are.
//!
//! A guest program opens `/dev/virtio-ports/lab.signal`, writes a line, and may wait for an answer by
//! reading one. A test waits for the line and cuts the power, or answers and lets the guest go on: so a
//! cut falls exactly between two steps. A line written while no host listens waits in the guest.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The host's end of the signal port.
#[derive(Debug)]
pub struct Signals {
    writer: UnixStream,
    lines: Receiver<String>,
}

impl Signals {
    pub(crate) const SOCKET: &str = "signal";

    pub(crate) fn listen(sockets: &Path) -> Result<Self> {
        let writer = UnixStream::connect(sockets.join(Self::SOCKET)).context("the machine's signal port")?;
        let reader = BufReader::new(writer.try_clone()?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in reader.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { writer, lines })
    }

    /// Waits for the next line, whatever it says.
    ///
    /// # Errors
    /// When the machine ends or `timeout` passes first.
    pub fn next(&self, timeout: Duration) -> Result<String> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no signal from the guest within {timeout:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine ended before it signalled"),
        }
    }

    /// Waits for a line that starts with `prefix`; earlier others are dropped.
    pub fn wait(&self, prefix: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.next(left).with_context(|| format!("waiting for the signal `{prefix}`"))?;
            if line.starts_with(prefix) {
                return Ok(line);
            }
        }
    }

    /// Writes a line to the guest.
    pub fn answer(&mut self, line: &str) -> Result<()> {
        self.writer.write_all(format!("{line}\n").as_bytes()).context("answering the guest's signal")
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Ends the reading thread.
        let _ = self.writer.shutdown(std::net::Shutdown::Both);
    }
}
