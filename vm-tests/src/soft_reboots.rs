//! `systemctl soft-reboot`: all of userspace ends and is started anew on the running kernel. The boot id stays, the
//! livepatch stays in force, and mounts, namespaces and containers are gone.
//!
//! On Debian 13: systemd can since 254, and Debian 12 has 252.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fixtures::livepatch::Livepatch;
use crate::lab::Lab;
use crate::lab::distribution::Distribution;
use crate::lab::machine::Machine;
use crate::product::Build;
use crate::publisher::Draft;
use crate::scene::{self, SECRET, other, web};
use crate::stage::Stage;
use crate::stepped::Stepped;
use crate::trials::{index_of, recorded};

/// An emulated start of userspace on a busy machine, and what `update` does in it.
const PATIENCE: Duration = Duration::from_secs(300);

fn stage(lab: &Lab) -> Result<Stage> {
    Stage::of(lab, Build::Tests, &scene::spec_on(Distribution::Debian13), vec![web(), other()])
}

/// Starts userspace anew, and proves that it was that: the kernel is the same, and nothing is left undone.
///
/// Returns what `update resume` said at boot.
fn soft_reboot(machine: &mut Machine) -> Result<String> {
    let about = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat";
    let before = machine.sh(about)?;
    machine.soft_reboot()?;
    ensure!(machine.sh(about)? == before, "it was another boot");
    let left = machine.sh("systemctl show -p NRestarts -p Result -p ActiveState update-resume.service")?;
    let said = machine.sh("journalctl -o cat -u update-resume.service \\
            _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value update-resume.service)")?;
    ensure!(left.contains("Result=success") && left.contains("ActiveState=active"), "{left}\n{said}");
    println!("{said}");
    Ok(said)
}

/// What the host is: the livepatches that are there, and what the container answers.
#[derive(Debug)]
struct Found {
    livepatches: String,
    version: u32,
    count: u32,
}

/// Looks at the host, which `update` has to find sound.
fn look(machine: &Machine) -> Result<Found> {
    let status = machine.command(["update", "status", "--json"]).timeout(PATIENCE).output()?;
    ensure!(status.status == 0, "update status: {}{}", status.text(), status.complaint());
    let status: Value = serde_json::from_slice(&status.stdout)?;
    ensure!(status["unfinished"] == Value::Array(Vec::new()), "unfinished: {}", status["unfinished"]);
    let livepatches = machine.sh("ls /sys/kernel/livepatch 2>/dev/null || true")?;
    let hidden = !machine.sh("cat /proc/cmdline")?.contains(SECRET);
    ensure!(hidden != livepatches.is_empty(), "there is {livepatches:?}, and the secret is hidden: {hidden}");
    let reply = machine.sh(&format!("echo peek | timeout 60 greetc {} 7000 | tail -n 1", web().address()))?;
    let number = |name: &str| {
        let word = reply.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
        word.with_context(|| format!("no {name} in the container's answer: {reply}"))
    };
    ensure!(machine.sh("runc list -q | sort | xargs")? == "other web", "a container is missing");
    let log = machine.sh("cat /srv/web/rootfs/var/lib/greetd/log; echo .")?;
    ensure!(log.starts_with("hit 1\nhit 2\n"), "the container's file lost lines: {log:?}");
    let splats = machine.splats()?;
    ensure!(splats.is_empty(), "the kernel complained: {}", splats.join("\n"));
    Ok(Found { livepatches, version: number("version=")?, count: number("count=")? })
}

fn hit_twice(machine: &Machine) -> Result<()> {
    machine.sh(&format!("printf 'hit\\nhit\\n' | greetc {} 7000", web().address())).map(drop)
}

/// A transaction that is committed and not over is finished, and what is committed outlives the next soft reboot, too.
///
/// # Errors
/// If it is not so.
pub fn soft_reboots_keep_what_is_committed(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let machine = &mut stage.open(lab)?.machine;
    hit_twice(machine)?;
    let manifest = stage.publish(machine, &Draft::fix())?;
    let commit = index_of(machine, &manifest, "commit", "web")?;
    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    run.wait_for(machine, recorded(commit))?;

    for time in ["at the commit", "once more"] {
        let said = soft_reboot(machine)?;
        let module = Livepatch::Cmdline.module_name();
        for word in [format!("livepatch {module}: present"), "root file system of web: re-applied".to_owned()]
        {
            ensure!(said.contains(&word), "{time}: expected `{word}`, found:\n{said}");
        }
        let found = look(machine)?;
        ensure!((&found.livepatches, found.version) == (&module, 2), "{time}: {found:?}");
        let watched = machine.sh("systemctl is-active update-survived.timer || true")?;
        ensure!(
            watched == "active",
            "{time}: nobody looks whether the kernel survives the livepatch: {watched}"
        );
    }
    machine.sh("update rollback")?;
    let found = look(machine)?;
    ensure!((found.livepatches.as_str(), found.version) == ("", 1), "{found:?}");
    Ok(())
}

/// With the memory in a checkpoint alone, the transaction goes back and the memory comes back.
///
/// # Errors
/// If it is not so.
pub fn a_soft_reboot_before_the_commit_brings_the_memory_back(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let machine = &mut stage.open(lab)?.machine;
    hit_twice(machine)?;
    let manifest = stage.publish(machine, &Draft::fix())?;
    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    // The switch of its files is the first step after the checkpoint.
    run.wait_for(machine, |line| line.contains(" after ") && line.contains("\"pages_written\""))?;
    run.go_on(machine)?;
    run.wait_for(machine, |line| line.contains(" after ") && line.contains("\"event\":\"done\""))?;

    let said = soft_reboot(machine)?;
    ensure!(said.contains("rolled back: the host is in the old state"), "{said}");
    let found = look(machine)?;
    ensure!((found.livepatches.as_str(), found.version, found.count) == ("", 1, 2), "{found:?}");
    ensure!(machine.sh("ip netns exec web nft list tables | grep update || true")?.is_empty());
    Ok(())
}
