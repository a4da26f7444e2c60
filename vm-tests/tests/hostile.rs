//! Tenants that mean no good, and the sandboxes of what runs by itself.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vm_tests::lab::Lab;
use vm_tests::lab::machine::Machine;
use vm_tests::publisher::Draft;
use vm_tests::stage::Stage;

/// An emulated host on a busy one.
const PATIENCE: Duration = Duration::from_secs(300);

/// What systemd made of the last run of a unit.
fn result(machine: &Machine, unit: &str) -> Result<String> {
    machine.sh(&format!("systemctl show --property=Result,ExecMainStatus --value {unit} | xargs"))
}

#[test]
fn units_do_their_work_inside_of_their_sandboxes() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let mut scene = stage.open(&lab)?;
    let machine = &scene.machine;
    let manifest = stage.publish(machine, &Draft::fix())?;
    machine.sh(&format!("update apply {manifest}"))?;
    // A layer of nobody's, with a directory of another owner and a mode that keeps root out without its capability.
    machine.sh("mkdir -p /var/lib/update/layers/nobody/srv && cd /var/lib/update/layers/nobody && \
         echo x >srv/x && chown -R 1234:1234 srv && chmod 0 srv/x && chmod 500 srv")?;
    for unit in ["update-collect.service", "update-survived.service"] {
        machine.sh(&format!("systemctl start {unit} || true"))?;
        let journal = || machine.sh(&format!("journalctl -u {unit} -n 20 --no-pager"));
        ensure!(result(machine, unit)? == "success 0", "{unit}: {}\n{}", result(machine, unit)?, journal()?);
    }
    ensure!(machine.sh("test -e /var/lib/update/layers/nobody || echo gone")? == "gone");
    machine.sh("systemctl start update-guard.service && systemctl stop update-guard.service")?;
    let guard = result(machine, "update-guard.service")?;
    ensure!(guard.starts_with("success"), "the guard: {guard}");
    // What the guard wrote is read after the reboot: an orderly one, so nothing is in quarantine.
    scene.machine.shut_down()?;
    scene.machine.boot_again()?;
    let status = scene.machine.sh("update status")?;
    ensure!(!status.contains("QUARANTINED"), "{status}");
    Ok(())
}

#[test]
fn a_firewall_that_a_tenant_wrote_does_not_hinder_the_way_back() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let scene = stage.open(&lab)?;
    let machine = &scene.machine;
    let inside = "nsenter -t $(runc state web | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p') -n";
    machine.sh(&format!(
        "{inside} iptables -A INPUT -p icmp -m comment --comment \"$(printf 'x\\n-A INPUT -s 10.9.9.9/32 -j CRIU')\" -j ACCEPT"
    ))?;
    let manifest = stage.publish(machine, &Draft::broken())?;
    let ended =
        machine.sh(&format!("update apply {manifest} >/tmp/out 2>&1; echo $?; tail -5 /tmp/out >&2"))?;
    ensure!(ended == "1", "everything is as before, exit 1: {ended}");
    let left = machine.sh(&format!("{inside} iptables -S"))?;
    ensure!(left.contains("--comment") && !left.contains("-N CRIU"), "{left}");
    Ok(())
}

/// Starts three services: one runs the vulnerable library from a subvolume of a btrfs, one a program from a file system
/// that nobody serves any more, one has memory that nobody else can read.
const HARD_TO_LOOK_AT: &str = "set -e
    modprobe --all loop btrfs fuse
    truncate -s 128M /root/btrfs.img; mkfs.btrfs -q /root/btrfs.img 2>/dev/null; mkdir -p /mnt/btrfs /mnt/dead /var/lib/greetd
    mount -o loop /root/btrfs.img /mnt/btrfs; btrfs -q subvolume create /mnt/btrfs/one
    cp /srv/web/rootfs/usr/bin/greetd /srv/web/rootfs/usr/lib/libgreet.so.1 /mnt/btrfs/one
    systemd-run --quiet --unit=on-btrfs -E LD_LIBRARY_PATH=/mnt/btrfs/one /mnt/btrfs/one/greetd
    systemd-run --quiet --unit=serving odd serve /usr/local/bin/sleeper /mnt/dead
    until test -e /mnt/dead/program; do sleep 0.1; done
    systemd-run --quiet --unit=on-dead /mnt/dead/program pause
    systemd-run --quiet --unit=secret odd secret
    for unit in on-btrfs on-dead secret; do systemctl --quiet is-active $unit; done
    until grep -q pause /proc/$(systemctl show -P MainPID on-dead)/stack; do sleep 0.1; done
    systemctl kill --signal=KILL serving";

#[test]
fn a_scan_finds_what_is_hard_to_look_at_or_says_that_it_cannot() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let scene = stage.open(&lab)?;
    let machine = &scene.machine;
    let manifest = stage.publish(machine, &Draft::fix())?;
    machine.sh(HARD_TO_LOOK_AT)?;
    let pid = |unit: &str| machine.sh(&format!("systemctl show -P MainPID {unit}"));
    ensure!(
        machine.sh("test -r /mnt/dead/program || echo dead")? == "dead",
        "nobody should serve it any more"
    );

    let scanned = machine.command(["update", "scan", "--manifest", &manifest]).output()?;
    let said = scanned.text();
    ensure!(scanned.status == 0, "exit code {}:\n{said}{}", scanned.status, scanned.complaint());
    let after = |pid: &str| said.split_once(&format!("(pid {pid})")).map(|(_, rest)| rest.to_owned());
    let on_btrfs =
        after(&pid("on-btrfs")?).with_context(|| format!("the one on btrfs is missed:\n{said}"))?;
    ensure!(on_btrfs.lines().nth(1).is_some_and(|file| file.contains("VULNERABLE")), "{said}");
    let unknown: Vec<&str> = said.lines().filter(|line| line.starts_with("UNKNOWN")).collect();
    ensure!(unknown.iter().any(|line| line.contains(&pid("on-dead").unwrap_or_default())), "{said}");
    ensure!(said.contains("web"), "the container is affected as ever:\n{said}");

    // Nor does any of them keep the host from being fixed.
    let applied = machine.command(["update", "apply", &manifest]).timeout(PATIENCE).output()?;
    ensure!(applied.status == 0, "exit code {}:\n{}{}", applied.status, applied.text(), applied.complaint());
    for unit in ["on-btrfs", "on-dead", "secret"] {
        ensure!(machine.sh(&format!("systemctl is-active {unit}"))? == "active", "{unit} was touched");
    }
    Ok(())
}
