//! The kernels that people run: one of each series boots.

use anyhow::{Result, ensure};
use vm_tests::lab::Lab;
use vm_tests::lab::spec::MachineSpec;

fn boots(release: &str) -> Result<()> {
    let lab = Lab::for_test()?;
    let machine = lab.boot(&MachineSpec::with_kernel(release))?;
    ensure!(machine.sh("uname -r")?.trim() == release);
    // A module that no machine has loaded yet.
    machine.sh("modprobe -v loop && test -d /sys/module/loop")?;
    ensure!(machine.splats()?.is_empty(), "{:?}", machine.splats()?);
    Ok(())
}

#[test]
fn the_612_of_debian_13_boots() -> Result<()> {
    boots("6.12.107+deb13-amd64")
}

#[test]
fn the_612_of_debian_12_boots() -> Result<()> {
    boots("6.12.117+deb12-amd64")
}

#[test]
fn the_73_of_debian_13_boots() -> Result<()> {
    boots("7.3.4+deb13-amd64")
}
