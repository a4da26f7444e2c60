//! Loads livepatches into a machine, uses it, and takes them away again, with an eye on the kernel's log.
//!
//! Several are loaded on top of each other, as on a host that collects fixes, because using an emulated machine takes
//! longer than all the rest. If such a company comes to harm, each of its members is tried alone on a new
//! machine, so that the fault is laid at the right door.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::building::Module;
use super::selection::Area;
use crate::lab::Lab;
use crate::lab::console;
use crate::lab::machine::Machine;
use crate::lab::spec::MachineSpec;

const TRIAL: &str = include_str!("../../fixtures/prove/trial.sh");
const EXERCISE: &str = include_str!("../../fixtures/prove/exercise.sh");
const DIR: &str = "/root/prove";

/// How many livepatches are loaded together.
pub(super) const COMPANY: usize = 12;

/// After so many livepatches a machine is replaced, since target modules stay loaded.
const LOADS: usize = 48;

/// Two transitions for each, every one of which may take a minute, and the use between.
const PATIENCE: Duration = Duration::from_secs(900);

/// What became of one livepatch in a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// What went wrong, if anything.
    pub(super) failure: Option<String>,
    /// Objects whose functions were redirected.
    pub(super) patched: Vec<String>,
    /// Target modules that this machine cannot load; the rest of the livepatch was tried.
    pub(super) absent: Vec<String>,
    /// How many other livepatches were loaded at the same time.
    pub(super) company: usize,
    /// Seconds in the guest from `insmod` to the end of the transition.
    pub(super) patching: Option<f64>,
    /// Seconds in the guest from the write to `enabled` until the livepatch was gone.
    pub(super) unpatching: Option<f64>,
}

/// Machines for trials, one at a time.
pub(super) struct Bench<'l> {
    lab: &'l Lab,
    spec: MachineSpec,
    machine: Option<Machine>,
    loads: usize,
    /// How many machines were started.
    pub(super) machines: usize,
    /// Wall-clock time of all trials.
    pub(super) spent: Duration,
}

impl<'l> Bench<'l> {
    pub(super) fn new(lab: &'l Lab, release: &str) -> Self {
        let spec = MachineSpec::with_kernel(release);
        Self { lab, spec, machine: None, loads: 0, machines: 0, spent: Duration::ZERO }
    }

    /// Tries livepatches together, and alone if something goes wrong; one result for each.
    pub(super) fn try_out(&mut self, modules: &[(&Module, Area)]) -> Result<Vec<Trial>> {
        let begun = Instant::now();
        let mut trials = self.together(modules)?;
        if modules.len() > 1 && trials.iter().any(|trial| trial.failure.is_some()) {
            trials.clear();
            for one in modules {
                trials.extend(self.together(&[*one])?);
            }
        }
        self.spent += begun.elapsed();
        Ok(trials)
    }

    fn together(&mut self, modules: &[(&Module, Area)]) -> Result<Vec<Trial>> {
        let machine = self.machine(modules.len())?;
        let mut outcome = run(&machine, modules).unwrap_or_else(|error| Outcome {
            failure: Some(format!("the machine did not answer: {error:#}")),
            ..Outcome::default()
        });
        let harm = match machine.splats() {
            Ok(splats) if splats.is_empty() => None,
            Ok(splats) => Some(format!("kernel log: {}", splats.join(" | "))),
            Err(error) => {
                let signs = console::splats(&machine.console().unwrap_or_default()).join(" | ");
                Some(format!("the machine is gone ({error:#}); console: {signs}"))
            }
        };
        let failures: Vec<String> = outcome.failure.take().into_iter().chain(harm).collect();
        if failures.is_empty() {
            self.machine = Some(machine);
        } else {
            machine.discard()?;
        }
        let failure = (!failures.is_empty()).then(|| failures.join("; "));
        Ok(modules
            .iter()
            .map(|(module, _)| {
                let trial = outcome.trials.remove(&module.name).unwrap_or_default();
                Trial { failure: failure.clone(), company: modules.len() - 1, ..trial }
            })
            .collect())
    }

    fn machine(&mut self, loads: usize) -> Result<Machine> {
        self.loads += loads;
        if let Some(machine) = self.machine.take()
            && self.loads <= LOADS
        {
            return Ok(machine);
        }
        self.loads = loads;
        self.machines += 1;
        let machine = self.lab.ready(&self.spec)?;
        for (name, script) in [("trial.sh", TRIAL), ("exercise.sh", EXERCISE)] {
            machine.guest().write_file(&format!("{DIR}/{name}"), script.as_bytes(), 0o755)?;
        }
        // File systems and protocols that the exercise needs are loaded first, so that what they say belongs to no
        // livepatch; and the exercise has to work on a machine that nothing was loaded into.
        for area in ["net", "fs", "kernel"] {
            machine
                .sh(&format!("sh {DIR}/exercise.sh {area}"))
                .context("the exercise, before any livepatch")?;
        }
        Ok(machine)
    }
}

fn run(machine: &Machine, modules: &[(&Module, Area)]) -> Result<Outcome> {
    let mut words = vec!["sh".to_owned(), format!("{DIR}/trial.sh")];
    let areas: BTreeSet<String> = modules.iter().map(|(_, area)| area.to_string()).collect();
    words.push(areas.into_iter().collect::<Vec<_>>().join(" "));
    for (module, _) in modules {
        machine.guest().push(&module.file, &format!("{DIR}/{}.ko", module.name))?;
        let targets: Vec<&str> =
            module.objects.iter().map(String::as_str).filter(|object| *object != "vmlinux").collect();
        words.push(format!("{}:{}", module.name, targets.join(",")));
    }
    let output = machine.command(&words).timeout(PATIENCE).output()?;
    Ok(Outcome::read(&output.text(), &output.complaint()))
}

/// What `trial.sh` printed.
#[derive(Debug, Default)]
struct Outcome {
    failure: Option<String>,
    trials: BTreeMap<String, Trial>,
}

impl Outcome {
    fn read(text: &str, complaint: &str) -> Self {
        let early = format!("the trial ended early: {}", complaint.trim_end());
        let mut outcome = Self { failure: Some(early), trials: BTreeMap::new() };
        let mut times: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["done"] => outcome.failure = None,
                ["failed", ..] => outcome.failure = Some(line.trim_start_matches("failed ").to_owned()),
                ["absent", name, target] => outcome.of(name).absent.push(target.to_owned()),
                ["object", name, object, "1"] => outcome.of(name).patched.push(object.to_owned()),
                [phase, name, time] => {
                    outcome.of(name);
                    times.extend(time.parse::<f64>().map(|time| ((phase, name), time)));
                }
                _ => {}
            }
        }
        for (name, trial) in &mut outcome.trials {
            let between =
                |from, to| Some(times.get(&(to, name.as_str()))? - times.get(&(from, name.as_str()))?);
            trial.patching = between("begun", "patched");
            trial.unpatching = between("leaving", "unpatched");
        }
        outcome
    }

    fn of(&mut self, name: &str) -> &mut Trial {
        self.trials.entry(name.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_good_only_if_its_last_phase_ended() {
        let good = "absent a sctp\nbegun a 1.5\npatched a 2.0\nobject a vmlinux 1\nobject a sctp 0\n\
            leaving a 4.0\nunpatched a 4.5\ndone\n";
        let outcome = Outcome::read(good, "");
        assert_eq!(outcome.failure, None);
        let trial = &outcome.trials["a"];
        assert_eq!((trial.patching, trial.unpatching), (Some(0.5), Some(0.5)));
        assert_eq!(
            (&trial.patched[..], &trial.absent[..]),
            (&["vmlinux".to_owned()][..], &["sctp".to_owned()][..])
        );

        let cut = Outcome::read(good.trim_end_matches("done\n"), "Killed");
        assert_eq!(cut.failure.as_deref(), Some("the trial ended early: Killed"));
        let held = Outcome::read("begun a 1\nfailed a transition kworker/0:1: [<0>] f\n", "");
        assert_eq!(held.failure.as_deref(), Some("a transition kworker/0:1: [<0>] f"));
    }
}
