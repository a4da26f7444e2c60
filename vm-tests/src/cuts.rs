//! Pull the plug at every step boundary of a transaction that has a livepatch and a container, forward and
//! on the way back, and see that the host comes up with all of the new state or all of the old one.
//!
//! The program under test is built with its boundaries visible (`power-cuts`): it announces the one at which it
//! was told to stop and stands still there. QEMU is killed, and the same disk is booted. A cut takes most of a
//! minute under emulation, so [`Stride`] may leave some out.

use std::time::Duration;

use crate::demo::stage::{GUEST_DIR, Stage};
use crate::lab::Lab;
use crate::lab::machine::{Machine, Snapshot};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The first manifest commits, the second one fails its probe and goes back.
const FORWARD: &str = "greet-2026-001.manifest.json";
const BACKWARD: &str = "greet-2026-002.manifest.json";

/// An emulated transaction on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Every how many boundaries the power is cut; 1 is all of them.
#[derive(Debug, Clone, Copy)]
pub struct Stride(pub usize);

/// Cut a transaction that would commit: it ends all new or all old.
///
/// # Errors
/// If a host comes up as anything else.
pub fn forward(lab: &Lab, stride: Stride) -> Result<()> {
    let stage = Stage::set(lab)?;
    let dir = tempfile::tempdir_in(lab.cache().machines())?;
    let snapshot = lab.snapshot_at(dir.path(), &stage.container(lab)?, |machine| prepare(&stage, machine))?;
    let old = State { livepatches: vec![], greeting: "vulnerable".into() };
    let new = State { livepatches: vec!["livepatch_cmdline".into()], greeting: "fixed".into() };
    try_all(lab, &snapshot, FORWARD, &old, &new, stride)
}

/// Cut a transaction whose probe fails: it ends in the old state.
///
/// # Errors
/// If a host comes up as anything else.
pub fn backward(lab: &Lab, stride: Stride) -> Result<()> {
    let stage = Stage::set(lab)?;
    let dir = tempfile::tempdir_in(lab.cache().machines())?;
    let snapshot = lab.snapshot_at(dir.path(), &stage.container(lab)?, |machine| {
        prepare(&stage, machine)?;
        machine.sh(&format!("update apply {GUEST_DIR}/{FORWARD} && sync")).map(drop)
    })?;
    let old = State { livepatches: vec!["livepatch_cmdline".into()], greeting: "fixed".into() };
    try_all(lab, &snapshot, BACKWARD, &old, &old, stride)
}

/// A cut is not the fault of a livepatch here, so none goes into quarantine for it.
fn prepare(stage: &Stage, machine: &Machine) -> Result<()> {
    stage.dress(machine)?;
    machine.guest().write_file("/etc/update/update.yaml", b"crash_guard: 0s\n", 0o644)
}

/// What a host must be after a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    livepatches: Vec<String>,
    greeting: String,
}

fn try_all(
    lab: &Lab,
    snapshot: &Snapshot,
    manifest: &str,
    old: &State,
    new: &State,
    Stride(stride): Stride,
) -> Result<()> {
    let mut cuts = 0;
    for boundary in (0..).step_by(stride) {
        let mut machine = lab.restore(snapshot)?;
        let Some(announced) = run_until(&mut machine, manifest, boundary)? else { break };
        machine.cut_power()?;
        machine.boot_again()?;
        let state = settle(&machine).with_context(|| format!("cut at {announced}"))?;
        println!("{announced}: {}", if state == *new { "new" } else { "old" });
        ensure!(state == *old || state == *new, "cut at {announced}: neither old nor new: {state:?}");
        let splats = machine.splats()?;
        ensure!(splats.is_empty(), "cut at {announced}: {}", splats.join("\n"));
        cuts += 1;
    }
    ensure!(cuts * stride >= 25, "only {cuts} boundaries were met");
    Ok(())
}

/// Run `update apply` up to a boundary; `None` if it ended before.
fn run_until(machine: &mut Machine, manifest: &str, boundary: usize) -> Result<Option<String>> {
    machine.signals()?;
    machine.sh(&format!(
        "UPDATE_CUT_AT={boundary} UPDATE_CUT_SIGNAL=/dev/virtio-ports/lab.signal \
         setsid sh -c 'update apply {GUEST_DIR}/{manifest} >/run/apply.log 2>&1; echo ended >/dev/virtio-ports/lab.signal' \
         </dev/null >/dev/null 2>&1 &"
    ))?;
    let line = machine.signals()?.next(PATIENCE)?;
    Ok((line != "ended").then_some(line))
}

/// What the host is after its boot, when `update-resume.service` has run and a second resume changes nothing.
fn settle(machine: &Machine) -> Result<State> {
    let resumed = machine.command(["update", "resume", "--json"]).output()?;
    ensure!(resumed.status == 0, "update resume: {}{}", resumed.text(), resumed.complaint());
    let status = machine.command(["update", "status", "--json"]).output()?;
    ensure!(status.status == 0, "update status: {}{}", status.text(), status.complaint());
    let status: Value = serde_json::from_slice(&status.stdout).context("the status")?;
    ensure!(status["unfinished"] == Value::Array(Vec::new()), "unfinished: {}", status["unfinished"]);
    let loaded = machine.sh("ls /sys/kernel/livepatch 2>/dev/null || true")?;
    let cmdline = machine.sh("cat /proc/cmdline")?;
    let livepatches: Vec<String> = loaded.split_whitespace().map(str::to_owned).collect();
    ensure!(
        cmdline.contains("livepatched") == livepatches.iter().any(|name| name == "livepatch_cmdline"),
        "the kernel lists {livepatches:?} but /proc/cmdline is {cmdline}"
    );
    // The container's own unit may still be starting it.
    let greeting = machine.sh(
        "for i in $(seq 60); do a=$(printf 'hit\\n' | timeout 20 greet-once 10.77.0.2 7000 2>/dev/null) && break; sleep 1; done; echo \"$a\"",
    )?;
    let greeting = greeting.split("greeting=").nth(1).unwrap_or("no answer").trim().to_owned();
    Ok(State { livepatches, greeting })
}
