//! The first minutes on a machine that has Debian 12, Rust, gcc and nothing else.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use vm_tests::lab::cache::Cache;
use vm_tests::lab::needs;
use vm_tests::newcomer::{Newcomer, Target};

#[test]
fn a_bare_machine_gets_all_that_the_lab_needs() -> Result<()> {
    let cache = Cache::open()?;
    let machine = Newcomer::arrive(&cache, Target::shared(&cache)?)?;
    let before = machine.packages()?;
    ensure!(
        before.iter().all(|(name, _)| !name.starts_with("qemu") && name != "mmdebstrap"),
        "the machine is not bare: {before:?}"
    );
    machine.sh("cargo run --locked --quiet -p vm-tests -- needs")?;
    nothing_was_lost(&before, &machine.packages()?)?;
    // Each by the names under which the lab starts it, and QEMU with the libraries that it has there.
    for need in needs::of_this_user() {
        machine
            .sh(&format!("[ -e {0} ] || command -v {0}", need.probe))
            .with_context(|| format!("`{}` of {} is not there", need.probe, need.package))?;
    }
    machine.sh("qemu-system-x86_64 -accel help && qemu-img --version")?;
    Ok(())
}

/// Every package is still there, and none is older.
fn nothing_was_lost(before: &[(String, String)], after: &[(String, String)]) -> Result<()> {
    let after: BTreeMap<_, _> = after.iter().cloned().collect();
    for (name, version) in before {
        let now = after.get(name).with_context(|| format!("{name} {version} was removed"))?;
        ensure!(now == version, "{name} was {version} and is {now}");
    }
    Ok(())
}
