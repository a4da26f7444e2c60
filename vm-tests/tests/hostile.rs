//! Tenants that mean no good, and the sandboxes of what runs by itself.

use anyhow::{Result, ensure};
use vm_tests::lab::Lab;
use vm_tests::lab::machine::Machine;
use vm_tests::publisher::Draft;
use vm_tests::stage::Stage;

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
