//! Bare Debian systems that judge the packages: one that looks at them, and ones in which they are installed, upgraded, removed and
//! purged by apt.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::PACKAGES;
use crate::lab::bare::Bare;
use crate::lab::cache::Cache;
use crate::lab::host::Step;

/// The releases of Debian on which the packages are to work.
pub const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Where packages lie in a bare system.
const PLACE: &str = "/root/packages";

/// What lintian, that of the newest of the releases, has to say against packages: errors and warnings.
///
/// # Errors
/// With what is said.
pub fn look(cache: &Cache, debs: &[PathBuf]) -> Result<()> {
    let step = Step::begin("lintian looks at the packages");
    let judge = Bare::debian(cache, "trixie", &["lintian"])?;
    bring(&judge, debs)?;
    judge.sh(&format!(
        "lintian --allow-root --fail-on error,warning --tag-display-limit 0 {PLACE}/*.deb >&2"
    ))?;
    step.end();
    Ok(())
}

/// The life of the packages on a bare system of a suite, and of what an administrator and update itself made there meanwhile.
///
/// # Errors
/// If apt fails, or anything is not as it should be.
pub fn live(cache: &Cache, suite: &str, debs: &[PathBuf], next: &[PathBuf]) -> Result<()> {
    let step = Step::begin(&format!("installing, upgrading, removing and purging the packages on {suite}"));
    let host = Bare::debian(cache, suite, &[])?;
    ensure!(host.sh("! command -v systemctl").is_ok(), "{suite} is not bare");
    installed(&host, debs)?;
    upgraded(&host, next)?;
    removed(&host)?;
    purged(&host)?;
    step.end();
    Ok(())
}

fn bring(system: &Bare, debs: &[PathBuf]) -> Result<()> {
    let place = system.path().join(PLACE.trim_start_matches('/'));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    for deb in debs {
        fs::copy(deb, place.join(deb.file_name().context("a package without a name")?))?;
    }
    Ok(())
}

/// apt, without questions.
const APT: &str = "apt-get --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0";

fn installed(host: &Bare, debs: &[PathBuf]) -> Result<()> {
    // Whoever looks after the host has a word in what is enabled.
    host.sh(
        "mkdir -p /etc/systemd/system-preset && echo 'disable update-agent.service' >/etc/systemd/system-preset/00-site.preset",
    )?;
    bring(host, debs)?;
    host.sh(&format!("apt-get -q update && {APT} install apparmor {PLACE}/*.deb"))?;
    // Read and compiled; not loaded into the kernel, which is this host's.
    host.sh("apparmor_parser -Q -K -M /usr/share/apparmor-features/features /etc/apparmor.d/update-agent")?;
    for (unit, expected) in [
        ("update-resume.service", "enabled"),
        ("update-resume-docker.service", "enabled"),
        ("update-guard.service", "enabled"),
        ("update-collect.timer", "enabled"),
        ("update-executor.socket", "enabled"),
        ("update-agent.service", "disabled"),
        ("update-controller.service", "disabled"),
    ] {
        let found = host.sh(&format!("systemctl is-enabled {unit} || true"))?;
        ensure!(found == expected, "{unit} is {found}, expected {expected}");
    }
    let judged = host.sh(
        "systemd-analyze verify --man=no /usr/lib/systemd/system/update-*.* 2>&1 | grep update || true",
    )?;
    ensure!(judged.is_empty(), "systemd says of the units: {judged}");
    let hooks = host.sh("apt-config dump DPkg::Post-Invoke")?;
    ensure!(hooks.contains("update scan --after-upgrade"), "apt's hooks are: {hooks}");
    ensure!(
        host.sh("id -un update-agent && stat -c '%a %U' /var/lib/update /var/lib/update-agent")?
            == "update-agent\n700 root\n700 update-agent"
    );
    for package in PACKAGES {
        for program in package.programs.iter().filter(|program| program.directory == "usr/bin") {
            let name = program.name;
            host.sh(&format!(
                "{name} --version && gzip -dc /usr/share/man/man1/{name}.1.gz | grep -q '^.SH SYNOPSIS' && \
                bash -n /usr/share/bash-completion/completions/{name}"
            ))?;
        }
    }
    let status = host.sh("update status --json")?;
    ensure!(status.contains("\"unfinished\":[]"), "{status}");
    Ok(())
}

/// What an administrator has decided and what update has written are the same afterwards.
fn upgraded(host: &Bare, next: &[PathBuf]) -> Result<()> {
    host.sh(
        "systemctl -q disable update-collect.timer
        cd /etc/update && update key generate --out repo-online && echo 'schema: 1' >policy.yaml && echo 'crash_guard: 5m' >>update.yaml
        update status >/dev/null && test -s /var/lib/update/journal.sqlite",
    )?;
    // The log beside the journal comes and goes with whoever opens it.
    let kept = "cd / && find etc/update var/lib/update -type f ! -name '*-shm' ! -name '*-wal' | sort | xargs sha256sum";
    let before = host.sh(kept)?;
    bring(host, next)?;
    // A program that goes on running while its file is replaced, as by an upgrade.
    let said = host.sh(&format!(
        "cp /usr/bin/sleep /opt/before-upgrade && {{ /opt/before-upgrade 600 & }} && cp /usr/bin/cat /opt/new
        until grep -q before-upgrade /proc/$!/maps; do :; done
        mv /opt/new /opt/before-upgrade
        {APT} install {PLACE}/*.deb 2>&1; echo \"apt ended with $?\"; kill $!"
    ))?;
    ensure!(
        said.contains("update: 1 process still runs code") && said.contains(": before-upgrade\n"),
        "{said}"
    );
    ensure!(said.ends_with("apt ended with 0"), "{said}");
    let quiet = host.sh(&format!("{APT} install --reinstall {PLACE}/patch-tools_*.deb 2>&1"))?;
    ensure!(!quiet.contains("update: "), "nobody runs old code, and apt says: {quiet}");
    let versions =
        host.sh("dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' 'update*' patch-tools")?;
    let upgraded = versions.lines().filter(|line| line.ends_with("+next installed")).count();
    ensure!(upgraded == PACKAGES.len(), "{versions}");
    let after = host.sh(kept)?;
    ensure!(before == after, "before the upgrade:\n{before}\nafter it:\n{after}");
    let disabled = host.sh("systemctl is-enabled update-collect.timer || true")?;
    ensure!(disabled == "disabled", "what was disabled is {disabled} after an upgrade");
    Ok(())
}

/// update is not removed while it cannot say that nothing needs it; what it keeps stays after a removal.
fn removed(host: &Bare) -> Result<()> {
    let refused = host.sh(&format!(
        "cd /var/lib/update && mkdir /saved && mv journal.sqlite* /saved && echo 'no database' >journal.sqlite
        {APT} remove update 2>&1 && exit 1
        mv /saved/* . && dpkg-query -W -f '${{db:Status-Status}}' update && update --version"
    ))?;
    ensure!(refused.contains("error: ") && refused.contains("update stays: see above"), "{refused}");
    ensure!(refused.contains("installedupdate "), "{refused}");
    host.sh(&format!("{APT} remove update && ! command -v update && ! command -v update-agent"))?;
    host.sh("test -s /var/lib/update/journal.sqlite && test -s /etc/update/policy.yaml")?;
    Ok(())
}

/// Nothing stays but what is mounted, also where only another namespace sees it.
fn purged(host: &Bare) -> Result<()> {
    let left = host.sh(&format!(
        "cd /var/lib/update && mkdir -p layers/mounted layers/unused /mnt && touch layers/unused/x layers/mounted/kept
        mkfifo /ready && unshare --mount sh -c \
            'mount -t overlay -o lowerdir=/var/lib/update/layers/mounted:/usr overlay /mnt && echo >/ready && exec sleep 600' &
        read -r _ </ready
        {APT} purge 'update*' patch-tools >&2
        find /var/lib/update /var/lib/update-agent /etc/update /run/update /etc/apparmor.d /etc/apt /var/lib/systemd /etc/systemd/system | grep /update
        kill $!"
    ))?;
    let expected = "/var/lib/update\n/var/lib/update/layers\n/var/lib/update/layers/mounted\n/var/lib/update/layers/mounted/kept";
    ensure!(left == expected, "after a purge there is:\n{left}");
    let known = host.sh(
        "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' 'update*' patch-tools 2>/dev/null || true",
    )?;
    ensure!(!known.contains(' ') || known.lines().all(|line| line.ends_with("not-installed")), "{known}");
    Ok(())
}
