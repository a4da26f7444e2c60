//! What can happen to a newcomer in the first minutes, one story each.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{CACHE, Newcomer, Target};
use crate::lab::cache::Cache;
use crate::lab::host::Step;
use crate::lab::needs::{self, Need};

/// The command that installs what the lab and the tests need.
const NEEDS: &str = "cargo run --locked --quiet -p vm-tests -- needs";

/// The same for machines and the demo alone.
const NEEDS_OF_MACHINES: &str = "cargo run --locked --quiet -p vm-tests -- needs --machines";

/// Makes another version of a package the installed one, as somebody did who needed that version; afterwards the
/// sources offer the release's own version again. PACKAGE is the package.
const FOREIGN: &str = r#"{
set -e
list=/etc/apt/sources.list.d/other.list
sed -n 's/^\(deb .*\) bookworm main.*/\1 bookworm-backports main/p' /etc/apt/sources.list >$list
[ -s $list ] || { echo "this root's own sources have no line for bookworm" >&2; exit 1; }
apt-get -q update
apt-get -q install --yes --no-install-recommends -t bookworm-backports "$PACKAGE"
rm $list
apt-get -q update
! apt-cache policy "$PACKAGE" | grep -q backports/ || { echo "backports are still offered" >&2; exit 1; }
} >&2"#;

/// Whether the workspace is compiled in the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiled {
    /// It is: Cargo begins with nothing.
    Anew,
    /// What this workspace's builds left is used.
    Already,
}

/// The machine is bare, and gets all that the lab needs.
///
/// # Errors
/// If anything is missing afterwards, or was removed or changed.
pub fn bare(cache: &Cache) -> Result<()> {
    let machine = Newcomer::arrive(cache, Target::shared(cache)?)?;
    let before = machine.packages()?;
    ensure!(
        before.iter().all(|(name, _)| !name.starts_with("qemu") && name != "mmdebstrap"),
        "the machine is not bare: {before:?}"
    );
    machine.sh(NEEDS)?;
    nothing_was_lost(&before, &machine.packages()?)?;
    for need in needs::NEEDS.iter().chain(needs::NEEDS_OF_TESTS) {
        is_there(&machine, need)?;
    }
    machine.sh("qemu-system-x86_64 -accel help && qemu-img --version")?;
    Ok(())
}

/// A QEMU package of another version is installed, with which the release's own ones do not go.
///
/// # Errors
/// If what was installed is touched, or a machine does not boot.
pub fn foreign(cache: &Cache, package: &str) -> Result<()> {
    let machine = Newcomer::arrive(cache, Target::shared(cache)?)?;
    machine.sh(&format!("PACKAGE={package}; {FOREIGN}"))?;
    let before = machine.packages()?;
    // What came along with that version may keep the tests' own needs out; it does not keep the demo from running.
    machine.sh(NEEDS_OF_MACHINES)?;
    nothing_was_lost(&before, &machine.packages()?)?;
    for kind in ["keys", "debian", "kernel"] {
        machine.bring(cache, kind)?;
    }
    let said = machine.sh("cargo run --locked --quiet -p vm-tests -- run -- cat /proc/sys/kernel/ostype")?;
    ensure!(said == "Linux", "a machine should have booted, and said: {said}");
    nothing_was_lost(&before, &machine.packages()?)
}

/// From the clone to the end of the demo.
///
/// # Errors
/// If the demo does not get there.
pub fn demo(cache: &Cache, compiled: Compiled) -> Result<()> {
    let target = match compiled {
        Compiled::Anew => Target::fresh(cache)?,
        Compiled::Already => Target::shared(cache)?,
    };
    let machine = Newcomer::arrive(cache, target)?;
    let before = machine.packages()?;
    machine.watch("cargo run --locked -p vm-tests -- demo")?;
    nothing_was_lost(&before, &machine.packages()?)
}

/// The tests that need no virtual machine, by the runner that comes with Cargo.
///
/// # Errors
/// If any fails, as it does where a program is missing that nothing installs.
pub fn tests(cache: &Cache) -> Result<()> {
    let machine = Newcomer::arrive(cache, Target::shared(cache)?)?;
    machine.sh(NEEDS)?;
    let step = Step::begin("testing what needs no virtual machine on a newcomer's machine");
    machine
        .watch("cargo test --locked --quiet --workspace --features updater/power-cuts --exclude vm-tests")?;
    step.end();
    Ok(())
}

/// Installed, or unpacked for the lab alone.
fn is_there(machine: &Newcomer, need: &Need) -> Result<()> {
    let Need { probe, package } = need;
    machine
        .sh(&format!("[ -e {probe} ] || command -v {probe} || [ -x {CACHE}/tools/{probe} ]"))
        .with_context(|| format!("`{probe}` of {package} is not there"))?;
    Ok(())
}

/// Every package is still there, in the version that it had.
fn nothing_was_lost(before: &[(String, String)], after: &[(String, String)]) -> Result<()> {
    let after: BTreeMap<_, _> = after.iter().cloned().collect();
    for (name, version) in before {
        let now = after.get(name).with_context(|| format!("{name} {version} was removed"))?;
        ensure!(now == version, "{name} was {version} and is {now}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_gone_or_changed_is_a_loss_and_a_new_one_is_not() {
        let list = |text: &str| -> Vec<(String, String)> {
            let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
            pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
        };
        assert!(nothing_was_lost(&list("a=1 b=2"), &list("b=2 a=1 c=3")).is_ok());
        let gone = nothing_was_lost(&list("a=1 b=2"), &list("a=1")).unwrap_err();
        assert_eq!(gone.to_string(), "b 2 was removed");
        let changed = nothing_was_lost(&list("a=2"), &list("a=1")).unwrap_err();
        assert_eq!(changed.to_string(), "a was 2 and is 1");
    }
}
