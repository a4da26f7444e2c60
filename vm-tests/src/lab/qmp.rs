//! Talks to a running QEMU: the few commands of its monitor protocol (QMP) that the lab needs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// A connection to QEMU's monitor. QEMU serves one at a time.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, waiting up to `patience` for QEMU to open its socket.
    pub(crate) fn connect(socket: &Path, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(error).context("QEMU's monitor cannot be reached"),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.message().context("QEMU's greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returned.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        loop {
            let mut message = self.message().with_context(|| format!("QEMU's answer to {command}"))?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or("no reason given"));
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Asks until `status` of `command` is `wanted`.
    pub(crate) fn wait_status(&mut self, command: &str, wanted: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.execute(command, json!({}))?;
            let status = answer["status"].as_str().unwrap_or_default();
            if status == wanted {
                return Ok(());
            }
            if status == "failed" || Instant::now() > deadline {
                bail!("{command} should become `{wanted}` and says {answer}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(anyhow!("QEMU closed its monitor"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}
