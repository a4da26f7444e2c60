//! A container of podman's: what podman says of it, what its peers feel, and what is left of it after a power cut.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{PATIENCE, expect_nothing_left, expect_same, shell, update, view};
use crate::fixtures::client::Client;
use crate::lab::Lab;
use crate::lab::machine::Machine;
use crate::publisher::Draft;
use crate::stage::Stage;
use crate::stepped::Stepped;

const PODMAN: &str = include_str!("../../guest/podman.sh");
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// What podman must say otherwise of a container that was away for a moment.
pub(super) const AWAY: &[&str] = &[
    "State.Pid",
    "State.ConmonPid",
    "State.StartedAt",
    "State.FinishedAt",
    "State.CheckpointedAt",
    "State.RestoredAt",
    "State.Restored",
    "State.Health",
    "ExecIDs",
    "NetworkSettings.SandboxKey",
];
/// And of one that was started anew on other files: podman gives another address at every start.
const ANEW: &[&str] = &[
    "GraphDriver.Data.LowerDir",
    "NetworkSettings.IPAddress",
    "NetworkSettings.MacAddress",
    "NetworkSettings.Networks.podman.IPAddress",
    "NetworkSettings.Networks.podman.MacAddress",
];

/// And of one that runs already when podman's own unit starts all of them at boot.
pub(super) const ASKED_TO_START: &[&str] = &["State.Error"];

/// A host with a container `web` of podman's, vulnerable, which restarts always, has a volume and a health check.
pub(super) fn stage(lab: &Lab) -> Result<Stage> {
    super::stage(lab, "podman", PODMAN)
}

/// For `web` alone, by its name.
fn for_web(draft: Draft) -> Draft {
    Draft { containers: "\n    containers: {ids: [\"podman:web\"]}".to_owned(), livepatch: None, ..draft }
}

pub(super) fn address(machine: &Machine) -> Result<String> {
    shell(machine, "podman inspect -f '{{.NetworkSettings.IPAddress}}' web")
}

pub(super) fn peek(machine: &Machine) -> Result<String> {
    let address = address(machine)?;
    shell(machine, &format!("echo peek | timeout 60 greetc {address} 7000 | tail -n 1"))
}

pub(super) fn client(machine: &Machine) -> Result<Client> {
    let client = Client::connect_and_hit(machine.guest(), "held", &address(machine)?, EVERY)?;
    client.wait_for_replies(2, PATIENCE)?;
    Ok(client)
}

/// Podman looks after the container, and its timer after its health.
pub(super) fn expect_supervised(machine: &Machine) -> Result<()> {
    shell(machine, "systemctl list-timers --all | grep -q \"$(podman inspect -f '{{.Id}}' web)\"")
        .context("the timer of its health check")?;
    super::expect_supervised(machine, "podman")
}

/// A good update, told honestly beforehand; its peers learn of it, podman goes on looking after it; and its rollback.
///
/// # Errors
/// If it is not so.
pub fn podmans_container_gets_a_fix_and_stays_podmans(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let manifest = stage.publish(machine, &for_web(Draft::fix()))?;
    let client = client(machine)?;
    let before = view(machine, "podman")?;

    let plan = update(machine, &["plan", &manifest], 0)?;
    ensure!(plan.contains("container podman:web: is restarted"), "the plan does not say what web feels");
    ensure!(plan.contains("podman gives another at every start"), "the plan does not tell of the address");
    update(machine, &["apply", &manifest], 0)?;
    ensure!(peek(machine)?.contains("version=2"), "{}", peek(machine)?);
    let end = client.wait_for_end(Duration::from_secs(10))?;
    ensure!(end.what == "reset", "expected a reset, found {}", end.what);
    expect_same(&before, &view(machine, "podman")?, &[AWAY, ANEW])?;
    expect_supervised(machine)?;
    update(machine, &["status"], 0)?;
    // A restart by podman itself keeps the fix.
    shell(machine, "podman restart --time 0 web && podman exec web sh -c 'echo kept >/var/lib/greetd/kept'")?;
    ensure!(peek(machine)?.contains("version=2"), "{}", peek(machine)?);

    update(machine, &["rollback"], 0)?;
    ensure!(peek(machine)?.contains("version=1"), "{}", peek(machine)?);
    ensure!(shell(machine, "podman exec web cat /var/lib/greetd/kept")? == "kept");
    expect_same(&before, &view(machine, "podman")?, &[AWAY, ANEW])?;
    expect_nothing_left(machine)
}

/// A probe that fails brings back memory, connection and address, and podman's supervision.
///
/// # Errors
/// If it is not so.
pub fn podmans_container_comes_back_with_memory_and_connection(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let manifest = stage.publish(machine, &for_web(Draft::broken()))?;
    let client = client(machine)?;
    let (before, instance) = (view(machine, "podman")?, peek(machine)?);

    update(machine, &["apply", &manifest], 1)?;
    client.wait_for_replies(2, PATIENCE)?;
    let counts = client.counts()?;
    ensure!(counts.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a reply was lost: {counts:?}");
    let word = |text: &str| text.split(' ').find(|word| word.starts_with("instance=")).map(str::to_owned);
    ensure!(word(&instance) == word(&peek(machine)?), "it is another process: {instance}");
    expect_same(&before, &view(machine, "podman")?, &[AWAY])?;
    expect_nothing_left(machine)?;
    client.stop()?;
    expect_supervised(machine)
}

/// The power fails when the memory is in a checkpoint alone: it comes back at boot.
///
/// # Errors
/// If it is not so.
pub fn podmans_container_comes_back_after_a_power_cut(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let mut scene = stage.open(lab)?;
    let machine = &mut scene.machine;
    let manifest = stage.publish(machine, &for_web(Draft::fix()))?;
    let held = client(machine)?;
    held.stop()?;
    let before = view(machine, "podman")?;

    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    // The switch of its files is the first step after the checkpoint.
    run.wait_for(machine, |line| line.contains(" after ") && line.contains("\"pages_written\""))?;
    run.go_on(machine)?;
    run.wait_for(machine, |line| line.contains(" after ") && line.contains("\"event\":\"done\""))?;
    machine.cut_power()?;
    machine.boot_again()?;
    update(machine, &["resume"], 0)?;
    let at_boot = shell(machine, "systemctl show -p Result --value update-resume.service")?;
    ensure!(at_boot == "success", "update-resume.service ended as {at_boot}");
    let reply = peek(machine)?;
    ensure!(reply.contains("version=1") && !reply.contains("count=0 "), "its memory is lost: {reply}");
    expect_same(&before, &view(machine, "podman")?, &[AWAY, ASKED_TO_START])?;
    update(machine, &["status"], 0)?;
    expect_nothing_left(machine)
}
