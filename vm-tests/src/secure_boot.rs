//! Secure Boot: a stock kernel that has locked itself down takes the livepatch that its owner's key signed, and no other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::fixtures::livepatch::{Livepatch, Livepatches};
use crate::lab::Lab;
use crate::lab::distribution::Distribution;
use crate::lab::firmware::ModuleKey;
use crate::lab::host::{built, run};
use crate::lab::machine::Machine;
use crate::publisher::Draft;
use crate::scene::{self, Props, SECRET};
use crate::stage::Stage;

/// The bit of `/proc/sys/kernel/tainted` for a module without a signature that the kernel trusts.
const TAINT_UNSIGNED: u64 = 1 << 13;

/// A livepatch alone.
fn draft(version: u64) -> Draft {
    Draft { version, library: None, ..Draft::fix() }
}

/// Refused unsigned and signed by a stranger, taken signed by the enrolled key, there after a reboot, gone after a rollback.
///
/// # Errors
/// If anything of it is not so.
pub fn a_locked_down_kernel_takes_what_its_owner_signed(lab: &Lab, distribution: Distribution) -> Result<()> {
    let stage = Stage::on(lab, distribution)?;
    let mut machine = lab.boot(&scene::spec_on(distribution).secure_boot())?;
    let lockdown = machine.sh("cat /sys/kernel/security/lockdown")?;
    ensure!(lockdown.contains("[integrity]"), "it is not locked down: {lockdown}");
    stage.product().install(machine.guest())?;
    stage.publisher.install_policy(machine.guest())?;

    let unsigned = stage.publish(&machine, &draft(1))?;
    // Under Secure Boot it does so by both of its rules.
    refused(&machine, &unsigned, "found none, and the kernel enforces module signatures")?;

    let room = tempfile::tempdir()?;
    let stranger = ModuleKey::prepare(lab.cache(), "a-stranger")?;
    let by_a_stranger = signed(lab, &stage, &stranger, &room.path().join("stranger"))?;
    let manifest = publish(&stage, &machine, &draft(2), &by_a_stranger)?;
    refused(&machine, &manifest, "one of a key that the kernel trusts")?;

    let owner = ModuleKey::enrolled(lab.cache())?;
    let by_the_owner = signed(lab, &stage, &owner, &room.path().join("owner"))?;
    let manifest = publish(&stage, &machine, &draft(3), &by_the_owner)?;
    machine.sh(&format!("update apply {manifest}"))?;
    in_force(&machine)?;
    // In order: a livepatch is blamed for a host that goes down right after it was loaded.
    machine.shut_down()?;
    machine.boot_again()?;
    in_force(&machine).context("after a reboot")?;
    machine.sh("update rollback")?;
    ensure!(machine.sh("cat /proc/cmdline")?.contains(SECRET), "it is hidden after the rollback");
    ensure!(machine.splats()?.is_empty(), "{:?}", machine.splats()?);
    Ok(())
}

fn in_force(machine: &Machine) -> Result<()> {
    ensure!(!machine.sh("cat /proc/cmdline")?.contains(SECRET), "the livepatch has no effect");
    machine.sh("update status")?;
    let taints: u64 = machine.sh("cat /proc/sys/kernel/tainted")?.trim().parse()?;
    ensure!(taints & TAINT_UNSIGNED == 0, "the kernel did not trust the signature: taint mask {taints}");
    Ok(())
}

/// Refused by the plan and by apply alike, with these words, and nothing touched.
fn refused(machine: &Machine, manifest: &str, words: &str) -> Result<()> {
    for command in ["plan", "apply"] {
        let said = machine.command(["update", command, manifest]).output()?;
        let all = format!("{}{}", said.text(), said.complaint());
        ensure!(said.status == 3 && all.contains(words), "update {command}: exit {}\n{all}", said.status);
    }
    let loaded = machine.sh("ls /sys/kernel/livepatch 2>/dev/null || true")?;
    ensure!(loaded.trim().is_empty(), "loaded: {loaded}");
    Ok(())
}

/// The livepatch of [`draft`] with a signature, which is the one that the kernel's own program makes.
fn signed(lab: &Lab, stage: &Stage, key: &ModuleKey, dir: &Path) -> Result<Livepatches> {
    let (module, name) = (stage.props.livepatches.path(Livepatch::Cmdline), Livepatch::Cmdline.file_name());
    fs::create_dir(dir)?;
    run(built(&stage.product().patch_tools)
        .arg("sign-module")
        .arg(&module)
        .arg("--key")
        .arg(&key.key)
        .arg("--certificate")
        .arg(&key.certificate)
        .arg("--out")
        .arg(dir.join(name)))?;
    let theirs = dir.join("by-sign-file.ko");
    run(built(&sign_file(lab)?).args(["-k", "sha256"]).args([&key.key, &key.certificate, &module, &theirs]))?;
    ensure!(
        fs::read(dir.join(name))? == fs::read(&theirs)?,
        "sign-file signs otherwise: {}",
        theirs.display()
    );
    Ok(Livepatches::of_directory(dir.to_owned()))
}

/// `scripts/sign-file` of Debian 12's kernel, which this host's libraries are enough for.
fn sign_file(lab: &Lab) -> Result<PathBuf> {
    let headers = lab.kernel(Distribution::Debian12.kernel())?.headers(lab.cache())?;
    let root = headers.ancestors().nth(3).context("headers without a root")?;
    let kbuild = fs::read_dir(root.join("usr/lib"))?
        .flatten()
        .find(|entry| entry.file_name().as_encoded_bytes().starts_with(b"linux-kbuild-"))
        .context("headers without linux-kbuild")?;
    Ok(kbuild.path().join("scripts/sign-file"))
}

fn publish(stage: &Stage, machine: &Machine, draft: &Draft, modules: &Livepatches) -> Result<String> {
    let props = Props { livepatches: modules.clone(), ..stage.props.clone() };
    stage.publisher.publish(machine.guest(), draft, &props, &machine.spec().kernel)
}
