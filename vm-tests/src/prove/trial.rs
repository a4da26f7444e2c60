//! Loads livepatches into a machine, uses it, and takes them away again, with an eye on the kernel's log.
//!
//! A machine is used for one livepatch after the other, as a host would be, until one of them harms it or
//! [`LOADS`] have gone through it. Harm is a failure of that livepatch, and the next one gets a new machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::building::Module;
use super::selection::Area;
use crate::lab::Lab;
use crate::lab::machine::Machine;
use crate::lab::spec::MachineSpec;

const TRIAL: &str = include_str!("../../fixtures/prove/trial.sh");
const EXERCISE: &str = include_str!("../../fixtures/prove/exercise.sh");
const DIR: &str = "/root/prove";

/// After so many livepatches a machine is replaced, since target modules stay loaded.
const LOADS: usize = 40;

/// Two transitions, each of which may take a minute, and the use between and after.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of one livepatch in a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trial {
    /// What went wrong, if anything.
    pub(super) failure: Option<String>,
    /// Objects whose functions were redirected.
    pub(super) patched: Vec<String>,
    /// Target modules that this machine cannot load; the rest of the livepatch was tried.
    pub(super) absent: Vec<String>,
    /// Seconds in the guest from `insmod` to the end of the transition.
    pub(super) patching: Option<f64>,
    /// Seconds in the guest from the write to `enabled` until the livepatch was gone.
    pub(super) unpatching: Option<f64>,
    /// Wall-clock seconds of the whole trial.
    pub(super) seconds: f64,
}

/// Machines for trials, one at a time.
pub(super) struct Bench<'l> {
    lab: &'l Lab,
    spec: MachineSpec,
    machine: Option<Machine>,
    loads: usize,
    /// How many machines were started.
    pub(super) machines: usize,
}

impl<'l> Bench<'l> {
    pub(super) fn new(lab: &'l Lab, release: &str) -> Self {
        Self { lab, spec: MachineSpec::with_kernel(release), machine: None, loads: 0, machines: 0 }
    }

    /// Tries one livepatch.
    pub(super) fn try_out(&mut self, module: &Module, area: Area) -> Result<Trial> {
        let begun = Instant::now();
        let machine = self.machine()?;
        let mut trial = match run(&machine, module, area) {
            Ok(trial) => trial,
            Err(error) => Trial::failed(format!("the machine did not answer: {error:#}")),
        };
        let harm = match machine.splats() {
            Ok(splats) if splats.is_empty() => None,
            Ok(splats) => Some(format!("kernel log: {}", splats.join(" | "))),
            Err(error) => {
                let console = machine.console().unwrap_or_default();
                let signs = crate::lab::console::splats(&console).join(" | ");
                Some(format!("the machine is gone ({error:#}); console: {signs}"))
            }
        };
        if trial.failure.is_none() && harm.is_none() {
            self.machine = Some(machine);
        } else {
            let both: Vec<String> = trial.failure.into_iter().chain(harm).collect();
            trial.failure = Some(both.join("; "));
            machine.discard()?;
        }
        trial.seconds = begun.elapsed().as_secs_f64();
        Ok(trial)
    }

    fn machine(&mut self) -> Result<Machine> {
        self.loads += 1;
        if let Some(machine) = self.machine.take()
            && self.loads <= LOADS
        {
            return Ok(machine);
        }
        self.loads = 1;
        self.machines += 1;
        let machine = self.lab.ready(&self.spec)?;
        for (name, script) in [("trial.sh", TRIAL), ("exercise.sh", EXERCISE)] {
            machine.guest().write_file(&format!("{DIR}/{name}"), script.as_bytes(), 0o755)?;
        }
        // File systems and protocols that the exercise needs are loaded once, so that what they say belongs to no
        // livepatch; and the exercise itself has to work on a machine that nothing was loaded into.
        for area in ["net", "fs"] {
            machine
                .sh(&format!("sh {DIR}/exercise.sh {area}"))
                .context("the exercise, before any livepatch")?;
        }
        Ok(machine)
    }
}

fn run(machine: &Machine, module: &Module, area: Area) -> Result<Trial> {
    let file = format!("{DIR}/{}.ko", module.name);
    machine.guest().push(Path::new(&module.file), &file)?;
    let area = area.to_string();
    let mut words = vec!["sh".to_owned(), format!("{DIR}/trial.sh"), file.clone(), module.name.clone(), area];
    words.extend(module.objects.iter().filter(|object| *object != "vmlinux").cloned());
    let output = machine.command(&words).timeout(PATIENCE).output()?;
    machine.sh(&format!("rm -f {file}"))?;
    Ok(Trial::read(&output.text(), &output.complaint()))
}

impl Trial {
    fn failed(why: String) -> Self {
        Self {
            failure: Some(why),
            patched: Vec::new(),
            absent: Vec::new(),
            patching: None,
            unpatching: None,
            seconds: 0.0,
        }
    }

    /// Reads what `trial.sh` printed.
    fn read(text: &str, complaint: &str) -> Self {
        let mut trial = Self::failed(format!("the trial ended early: {}", complaint.trim_end()));
        let mut times = std::collections::BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["target", name, "absent"] => trial.absent.push(name.to_owned()),
                ["object", name, "1", _] => trial.patched.push(name.to_owned()),
                ["failed", ..] => trial.failure = Some(line.trim_start_matches("failed ").to_owned()),
                [phase, time] => {
                    times.extend(time.parse::<f64>().map(|time| (phase, time)));
                    if phase == "done" {
                        trial.failure = None;
                    }
                }
                _ => {}
            }
        }
        let between = |from, to| Some(times.get(to)? - times.get(from)?);
        trial.patching = between("targets", "patched");
        trial.unpatching = between("exercised", "unpatched");
        trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_good_only_if_its_last_phase_ended() {
        let good = "begun 1.0\ntarget sctp absent\ntargets 1.5\nloaded 1.6\npatched 2.0\nobject vmlinux 1 3\n\
            exercised 4.0\nunpatched 4.5\nunloaded 4.6\ndone 5.0\n";
        let trial = Trial::read(good, "");
        assert_eq!((trial.failure, trial.patching, trial.unpatching), (None, Some(0.5), Some(0.5)));
        assert_eq!((trial.patched, trial.absent), (vec!["vmlinux".to_owned()], vec!["sctp".to_owned()]));

        let cut = Trial::read(good.rsplit_once("done").unwrap().0, "Killed");
        assert_eq!(cut.failure.as_deref(), Some("the trial ended early: Killed"));
        let held = Trial::read("loaded 1\nfailed transition kworker/0:1: [<0>] f\n", "");
        assert_eq!(held.failure.as_deref(), Some("transition kworker/0:1: [<0>] f"));
    }
}
