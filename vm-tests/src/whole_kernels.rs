//! What a host says of its kernels, on real ones.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::lab::distribution::Distribution;
use crate::stage::Stage;

/// A dump and a restore by an emulated machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A machine of the lab gets its kernel from QEMU: `update` says that it would not come back to it by a cold boot, that
/// nothing else is in the way, and that a throw-away container comes back from its dump and is gone afterwards.
///
/// # Errors
/// If it is not so.
pub fn a_host_says_what_its_kernels_are_and_whether_it_can_checkpoint(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = Stage::on(lab, distribution)?;
    let machine = stage.open(lab)?.machine;
    let groups = "find /sys/fs/cgroup -type d | sort; runc list -q | sort; ls /var/lib/update";
    let before = machine.sh(groups)?;
    let said =
        machine.command(["update", "kernel", "status", "--trial", "--json"]).timeout(PATIENCE).output()?;
    ensure!(said.status == 0, "{}{}", said.text(), said.complaint());
    let status: Value = serde_json::from_slice(&said.stdout).context("what it said")?;
    ensure!(status["release"] == machine.spec().kernel.as_str(), "{status}");
    ensure!(status["loader"]["kind"] == "unknown", "{status}");
    ensure!(status["kexec"]["disabled"] == false && status["kexec"]["loaded"] == false, "{status}");
    let obstacles = status["obstacles"].as_array().context("obstacles")?;
    let subjects: Vec<&str> = obstacles.iter().filter_map(|unmet| unmet["subject"].as_str()).collect();
    ensure!(subjects == ["the boot loader", "the running kernel"], "{status}");
    let took = |name: &str| status["trial"][name].as_u64().filter(|millis| *millis > 0);
    ensure!(took("dump_ms").is_some() && took("restore_ms").is_some(), "{status}");
    let after = machine.sh(groups)?;
    ensure!(before == after, "the trial left something:\n{before}\n{after}");

    machine.sh("sysctl -q -w kernel.kexec_load_disabled=1")?;
    let said = machine.sh("update kernel status")?;
    ensure!(said.contains("IN THE WAY: kexec: expected kernel.kexec_load_disabled = 0, found 1"), "{said}");
    Ok(())
}
