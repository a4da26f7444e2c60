//! Says what happens, and runs commands in the guest as a person would see them.

use std::io::{self, Write};

use anyhow::{Result, ensure};

use crate::lab::machine::Machine;

/// Prints the story on stdout.
pub(super) struct Narrator<'a> {
    machine: &'a Machine,
}

impl<'a> Narrator<'a> {
    pub(super) fn new(machine: &'a Machine) -> Self {
        Self { machine }
    }

    pub(super) fn chapter(&self, title: &str) {
        println!("\n== {title}");
    }

    pub(super) fn say(&self, words: &str) {
        println!("{words}");
    }

    /// Run a shell line in the guest, show it and what it prints, and return its stdout.
    ///
    /// # Errors
    /// If it ends with a status other than 0.
    pub(super) fn show(&self, line: &str) -> Result<String> {
        let (status, stdout) = self.run(line)?;
        ensure!(status == 0, "`{line}` ended with {status}");
        Ok(stdout)
    }

    /// As [`Narrator::show`] for a line that must fail; returns its status.
    ///
    /// # Errors
    /// If it succeeds.
    pub(super) fn show_failing(&self, line: &str) -> Result<i32> {
        let (status, _) = self.run(line)?;
        ensure!(status != 0, "`{line}` succeeded");
        println!("(exit code {status})");
        Ok(status)
    }

    fn run(&self, line: &str) -> Result<(i32, String)> {
        println!("\n# {line}");
        let mut stdout = Tee::default();
        let status = self.machine.guest().script(line).stream(&mut stdout, &mut io::stdout())?;
        let text = String::from_utf8_lossy(&stdout.kept).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            println!();
        }
        Ok((status, text))
    }
}

/// Shows what passes and keeps it.
#[derive(Default)]
struct Tee {
    kept: Vec<u8>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write_all(bytes)?;
        self.kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
