//! Pull the plug at every step boundary of a transaction that has a livepatch and a container, forward and on
//! the way back, and see that the host comes up with all of the new state or all of the old one.
//!
//! `update` announces its boundaries to the lab (feature `power-cuts`) and stands still at each. The lab stops
//! QEMU dead, copies the disk as a SIGKILL would leave it, and lets both go on: one run yields the disks of all
//! cuts. Then each disk is booted, and what comes up is judged.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::exam::Share;
use crate::fixtures::livepatch::Livepatch;
use crate::lab::Lab;
use crate::lab::machine::Machine;
use crate::publisher::Draft;
use crate::scene::{self, SECRET, web};
use crate::stage::Stage;
use crate::stepped::{Place, Stepped};

/// What the hits on the container before the transaction leave in its log, which must survive everything.
const LOG: &str = "hit 1\nhit 2\n";

/// Which way the transaction goes whose power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// It would commit.
    Forward,
    /// Its probe fails, and the host goes back by itself.
    Backward,
    /// It was committed, and is undone by `update rollback`.
    Rollback,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Rollback];

    /// What the host was before the transaction that is cut, and what it would be after it.
    fn ends(self) -> [State; 2] {
        let vulnerable = State { livepatch: None, version: 1 };
        let fixed = State { livepatch: Some(Livepatch::Cmdline.module_name()), version: 2 };
        match self {
            Self::Forward => [vulnerable, fixed],
            Self::Backward => [fixed.clone(), fixed],
            Self::Rollback => [fixed, vulnerable],
        }
    }
}

/// What a host must be after a resume: all of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// The livepatch that is loaded and has effect.
    livepatch: Option<String>,
    /// The library that the container runs.
    version: u32,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let livepatch = self.livepatch.as_deref().unwrap_or("no livepatch");
        write!(f, "{livepatch}, library version {}", self.version)
    }
}

/// One cut: where, and the disk that it left.
#[derive(Debug)]
struct Cut {
    boundary: String,
    disk: PathBuf,
    memory: Memory,
}

/// Where the memory of the container is when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// In a process, which the power cut ends, or ended that of an earlier boot.
    Running,
    /// In a finished checkpoint alone, which must be restored unless the transaction is committed.
    Checkpointed,
}

/// Cuts the power at a share of the boundaries of a transaction and judges each host that comes up; returns the number of cuts.
///
/// # Errors
/// If any host came up as anything but all old or all new; every such cut is named.
pub fn run(lab: &Lab, stage: &Stage, direction: Direction, share: Share) -> Result<usize> {
    let dir = tempfile::tempdir_in(lab.cache().machines())?;
    let mut machine = stage.open(lab)?.machine;
    let command = prepare(stage, &machine, direction)?;
    let mut cuts = collect(&mut machine, &command, dir.path(), share)?;
    machine.discard()?;
    cuts.reverse();
    let (count, queue, failures) = (cuts.len(), Mutex::new(cuts), Mutex::new(Vec::new()));
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop());
    std::thread::scope(|scope| {
        for _ in 0..lab.machines_at_once() {
            scope.spawn(|| {
                while let Some(cut) = next() {
                    let verdict = judge(lab, &cut, direction);
                    let words =
                        verdict.as_ref().map_or_else(|error| format!("WRONG: {error:#}"), String::clone);
                    println!("{direction:?} {}: {words}", cut.boundary);
                    if let (Err(_), Ok(mut failures)) = (verdict, failures.lock()) {
                        failures.push(format!("{}: {words}", cut.boundary));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().map_err(|_| anyhow!("a judge panicked"))?;
    ensure!(failures.is_empty(), "{} of {count} cuts:\n{}", failures.len(), failures.join("\n"));
    Ok(count)
}

/// Brings the host to the start, and returns the command whose power is cut.
fn prepare(stage: &Stage, machine: &Machine, direction: Direction) -> Result<String> {
    // A cut is not the fault of a livepatch here, so none goes into quarantine for it.
    machine.guest().write_file("/etc/update/update.yaml", b"crash_guard: 0s\n", 0o644)?;
    let hit_twice = format!("printf 'hit\\nhit\\n' | greetc {} 7000", web().address());
    machine.sh(&hit_twice)?;
    let good = stage.publish(machine, &Draft::fix())?;
    if direction == Direction::Forward {
        return Ok(format!("update apply {good}"));
    }
    machine.sh(&format!("update apply {good}"))?;
    // Its memory is that of a new process, and shall not look like it.
    machine.sh(&hit_twice)?;
    Ok(match direction {
        Direction::Backward => format!("update apply {}", stage.publish(machine, &Draft::broken())?),
        _ => "update rollback".to_owned(),
    })
}

/// Runs the command, and keeps the disks of the boundaries that `share` takes.
fn collect(machine: &mut Machine, command: &str, dir: &Path, share: Share) -> Result<Vec<Cut>> {
    machine.sh("sync")?;
    let run = Stepped::start(machine, command)?;
    let mut cuts = Vec::new();
    let (mut seen, mut checkpoint) = (0, Checkpoint::default());
    while let Place::Boundary(line) = run.wait(machine)? {
        let boundary = Boundary::parse(&line)?;
        checkpoint.hear(&boundary);
        if boundary.is_a_state_of_its_own() {
            if share.takes(seen) {
                let disk = dir.join(format!("{seen}.qcow2"));
                machine.disk_as_if_killed(&disk)?;
                cuts.push(Cut { boundary: line, disk, memory: checkpoint.memory });
            }
            seen += 1;
        }
        run.go_on(machine)?;
    }
    ensure!(checkpoint.step.is_some(), "`{command}` made no checkpoint:\n{}", run.said(machine)?);
    ensure!(seen >= 20, "`{command}` met only {seen} boundaries:\n{}", run.said(machine)?);
    Ok(cuts)
}

/// A boundary as `update` announces it.
struct Boundary {
    moment: String,
    event: Value,
}

impl Boundary {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(4, ' ');
        let (Some("cut"), Some(_), Some(moment), Some(event)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(anyhow!("`{line}` does not announce a boundary"));
        };
        let event = serde_json::from_str(event).with_context(|| format!("the event of `{line}`"))?;
        Ok(Self { moment: moment.to_owned(), event })
    }

    fn is(&self, name: &str) -> bool {
        self.event["event"] == *name
    }

    /// Between a record and the next intent nothing changes, neither on the host nor in the journal.
    fn is_a_state_of_its_own(&self) -> bool {
        self.moment == "after" || ["done", "failed", "undone", "undo-failed"].iter().any(|name| self.is(name))
    }
}

/// Follows the step that makes the checkpoint.
#[derive(Debug)]
struct Checkpoint {
    step: Option<Value>,
    memory: Memory,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { step: None, memory: Memory::Running }
    }
}

impl Checkpoint {
    fn hear(&mut self, boundary: &Boundary) {
        let step = &boundary.event["step"];
        if boundary.is("done") && boundary.event["receipt"]["pages_written"].is_number() {
            (self.step, self.memory) = (Some(step.clone()), Memory::Checkpointed);
        } else if boundary.is("undone") && self.step.as_ref() == Some(step) {
            self.memory = Memory::Running;
        }
    }
}

/// Boots the disk and says what came up.
fn judge(lab: &Lab, cut: &Cut, direction: Direction) -> Result<String> {
    // A boot is mostly one thread, and a second processor costs an emulator a fifth more.
    let machine = lab.boot_disk(&cut.disk, &scene::spec().cpus(1))?;
    let resumed = machine.command(["update", "resume", "--json"]).output()?;
    ensure!(resumed.status == 0, "update resume: {}{}", resumed.text(), resumed.complaint());
    // A second resume could hide what the one at boot left to an operator.
    let at_boot = machine.sh("systemctl show -p Result --value update-resume.service")?;
    ensure!(at_boot.trim() == "success", "update-resume.service ended as {at_boot}");
    let status = machine.command(["update", "status", "--json"]).output()?;
    ensure!(status.status == 0, "update status: {}{}", status.text(), status.complaint());
    let status: Value = serde_json::from_slice(&status.stdout).context("the status")?;
    ensure!(status["unfinished"] == Value::Array(Vec::new()), "unfinished: {}", status["unfinished"]);

    let livepatch = machine.sh("ls /sys/kernel/livepatch 2>/dev/null || true")?;
    let livepatch = Some(livepatch.trim().to_owned()).filter(|name| !name.is_empty());
    let cmdline = machine.sh("cat /proc/cmdline")?;
    ensure!(
        cmdline.contains(SECRET) == livepatch.is_none(),
        "the kernel lists {livepatch:?} but /proc/cmdline is {cmdline}"
    );
    let reply = machine.sh(&format!("echo peek | timeout 60 greetc {} 7000 | tail -n 1", web().address()))?;
    let word = |name: &str| reply.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<u32>().ok());
    let version = word("version=").with_context(|| format!("the container does not answer: {reply}"))?;
    let count = word("count=").unwrap_or_default();
    let state = State { livepatch, version };
    let [old, new] = direction.ends();
    ensure!(state == old || state == new, "neither old nor new: {state}");
    // What a container did after the checkpoint is lost with the power; the checkpoint is not.
    let not_committed = direction == Direction::Backward || state == old;
    ensure!(
        count > 0 || !not_committed || cut.memory == Memory::Running,
        "the container's memory was in its checkpoint, and it was started anew: {reply}"
    );
    let log = machine.sh("cat /srv/web/rootfs/var/lib/greetd/log; echo .")?;
    ensure!(log.starts_with(LOG), "the container's file lost lines: {log:?}");
    ensure!(machine.sh("runc list -q | sort | xargs")? == "other web", "a container is missing");
    let splats = machine.splats()?;
    ensure!(splats.is_empty(), "the kernel complained: {}", splats.join("\n"));
    machine.discard()?;
    let name = if state == new { "new" } else { "old" };
    let memory = if count > 0 { "from its checkpoint" } else { "started anew" };
    Ok(format!("{name} ({state}), container {memory}"))
}
