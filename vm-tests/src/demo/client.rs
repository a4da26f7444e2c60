//! A TCP client in the guest that holds one connection to the container; see `fixtures/greetc.c`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::machine::Machine;

/// How long an emulated guest on a busy machine may take to answer a few requests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running client and its log in the guest.
pub struct Client<'a> {
    machine: &'a Machine,
    log: String,
    pid: u32,
}

impl<'a> Client<'a> {
    /// Connect and go on asking in the background.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(machine: &'a Machine, name: &str) -> Result<Self> {
        let log = format!("/run/greetc-{name}.log");
        let pid = machine.sh(&format!(
            "rm -f {log}; setsid greetc 10.77.0.2 7000 {log} </dev/null >/dev/null 2>&1 & echo $!"
        ))?;
        let pid = pid.trim().parse().with_context(|| format!("the client's process id {pid:?}"))?;
        Ok(Self { machine, log, pid })
    }

    /// The counts that it was given, in order.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn counts(&self) -> Result<Vec<u64>> {
        Ok(self.lines()?.iter().filter_map(|line| count(line)).collect())
    }

    /// The last count.
    ///
    /// # Errors
    /// If there is none.
    pub fn last_count(&self) -> Result<u64> {
        self.counts()?.last().copied().context("the client has no answer")
    }

    /// Wait until it has got this many more answers.
    ///
    /// # Errors
    /// If they do not come, or the connection ended.
    pub fn expect_growth(&self, more: usize) -> Result<()> {
        let begun = Instant::now();
        let had = self.counts()?.len();
        while self.counts()?.len() < had + more {
            if let Some(end) = self.end()? {
                bail!("the client's connection ended: {end}");
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the client gets no answers any more:\n{}",
                self.lines()?.join("\n")
            );
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Every answer came, none twice: the counts of one connection rise, and the connection never ended.
    ///
    /// # Errors
    /// If that is not so.
    pub fn expect_unbroken(&self) -> Result<()> {
        ensure!(self.end()?.is_none(), "the connection ended: {:?}", self.end()?);
        let counts = self.counts()?;
        let rising = counts.windows(2).all(|pair| pair[1] > pair[0]);
        ensure!(rising, "the counter went back: {counts:?}");
        Ok(())
    }

    /// Wait until the connection ends, and return how.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait_for_end(&self, patience: Duration) -> Result<String> {
        let begun = Instant::now();
        loop {
            if let Some(end) = self.end()? {
                return Ok(end);
            }
            ensure!(
                begun.elapsed() < patience,
                "after {patience:?} the client still believes in its connection"
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// End it.
    ///
    /// # Errors
    /// If the guest cannot be reached.
    pub fn stop(&self) -> Result<()> {
        self.machine.sh(&format!("kill {} 2>/dev/null; true", self.pid)).map(drop)
    }

    fn end(&self) -> Result<Option<String>> {
        Ok(self.lines()?.into_iter().find(|line| line.contains(" error ")))
    }

    fn lines(&self) -> Result<Vec<String>> {
        let text = self.machine.sh(&format!("cat {} 2>/dev/null || true", self.log))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

fn count(line: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.strip_prefix("count=")?.parse().ok())
}
