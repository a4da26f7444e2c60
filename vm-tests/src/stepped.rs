//! A run of `update` that stands still at each of its step boundaries until the lab lets it go on.
//!
//! The program must be built for tests ([`crate::product::Build::Tests`]): it announces its boundaries on the
//! signal port that `UPDATE_CUT_SIGNAL` names.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::machine::Machine;

const PORT: &str = "/dev/virtio-ports/lab.signal";
/// An emulated step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a boundary, which the line names.
    Boundary(String),
    /// Over, with this exit code.
    Ended(i32),
}

/// The run. It has one machine for all of its life, which is passed in so that a test can look around between
/// two steps.
#[derive(Debug)]
pub struct Stepped {
    log: &'static str,
}

impl Stepped {
    /// Starts a shell line with `update` in the background.
    pub fn start(machine: &mut Machine, command: &str) -> Result<Self> {
        let log = "/run/stepped.log";
        machine.signals()?;
        machine.sh(&format!(
            "UPDATE_CUT_SIGNAL={PORT} setsid sh -c '{command} >{log} 2>&1; echo \"ended $?\" >{PORT}' \
            </dev/null >/dev/null 2>&1 &"
        ))?;
        Ok(Self { log })
    }

    /// Waits until it stands still or is over.
    pub fn wait(&self, machine: &mut Machine) -> Result<Place> {
        let line = machine.signals()?.next(PATIENCE)?;
        Ok(match line.strip_prefix("ended ") {
            Some(code) => Place::Ended(code.parse()?),
            None => Place::Boundary(line),
        })
    }

    /// Lets it go on from where it stands.
    pub fn go_on(&self, machine: &mut Machine) -> Result<()> {
        machine.signals()?.answer("go on")
    }

    /// Lets it go on until a boundary that `wanted` recognises.
    ///
    /// # Errors
    /// Also when it ends first.
    pub fn wait_for(&self, machine: &mut Machine, wanted: impl Fn(&str) -> bool) -> Result<()> {
        loop {
            let place = self.wait(machine)?;
            match &place {
                Place::Boundary(line) if wanted(line) => return Ok(()),
                Place::Boundary(_) => self.go_on(machine)?,
                Place::Ended(_) => ensure!(false, "{place:?}:\n{}", self.said(machine)?),
            }
        }
    }

    /// Lets it go on to its end, from where it stands; returns its exit code.
    pub fn finish(&self, machine: &mut Machine) -> Result<i32> {
        loop {
            self.go_on(machine)?;
            if let Place::Ended(code) = self.wait(machine)? {
                return Ok(code);
            }
        }
    }

    /// What it has printed so far.
    pub fn said(&self, machine: &Machine) -> Result<String> {
        machine.sh(&format!("cat {}", self.log))
    }
}
