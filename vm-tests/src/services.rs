//! Packages of the host and the services that run what they bring: with real dpkg and systemd.
//!
//! A service keeps its listening socket over a restart, in a socket unit or in its descriptor store: whoever connects
//! meanwhile is answered afterwards. One that sessions hang on is left alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fixtures::greet::{Library, digest_and_size};
use crate::fixtures::packages::{
    ACTIVATED, DISPLAY, HostPackages, KEEPER, LIBRARY, PACKAGE, SERVICES, STOP_CONFIGURING, STOP_UNPACKING,
    version,
};
use crate::lab::Lab;
use crate::lab::cache::Recipe;
use crate::lab::distribution::Distribution;
use crate::lab::machine::Machine;
use crate::publisher::{SIGNERS, place};
use crate::stage::Stage;

/// dpkg syncs every file, and the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(600);

/// A managed host with the package and its services.
struct Hosts {
    stage: Stage,
    packages: HostPackages,
}

impl Hosts {
    fn set(lab: &Lab, distribution: Distribution) -> Result<Self> {
        let stage = Stage::on(lab, distribution)?;
        let packages = HostPackages::prepare(lab.cache(), &stage.props.greet)?;
        let identity = packages.identity();
        let stage = stage.after(lab, "services", Recipe::of(["services-1", &identity]), |machine| {
            packages.install(machine.guest())
        })?;
        Ok(Self { stage, packages })
    }

    fn open(&self, lab: &Lab) -> Result<Machine> {
        let machine = self.stage.open(lab)?.machine;
        for (name, _) in SERVICES {
            expect(&machine, name, Library::Vulnerable)?;
        }
        Ok(machine)
    }

    /// Signs a manifest that brings this version; returns its path in the guest. `more` is YAML of it.
    fn publish(&self, machine: &Machine, library: Library, more: &str) -> Result<String> {
        let build = |library| -> Result<String> {
            let deb = self.packages.deb(library);
            let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (sha256, size) = digest_and_size(&deb)?;
            Ok(format!(
                "{{version: {}, payload: {{file: {name}, sha256: {sha256}, size: {size}}}}}",
                version(library)
            ))
        };
        let times = machine.sh("date -u -d yesterday +%FT%TZ; date -u -d '+30 days' +%FT%TZ")?;
        let (issued, expires) = times.trim().split_once('\n').context("two times")?;
        let yaml = format!(
            "schema: 1\nname: libgreet\nversion: {number}\nissued: {issued}\nexpires: {expires}\nseverity: high\n\
            summary: A library of the host\ntargets: {{arch: [x86_64]}}\ncomponents:\n\
            {i}- kind: package\n{i}  packages:\n{i}    - name: {PACKAGE}\n{i}      architecture: amd64\n\
            {i}      old: {old}\n{i}      new: {new}\n\
            {i}  replaces: [{{path: {LIBRARY}, build_id: {id}}}]\nsettle: 2s\n{more}",
            // Each library is a fix of its own.
            number = library.number(),
            i = "  ",
            old = build(Library::Vulnerable)?,
            new = build(library)?,
            id = self.stage.props.greet.build_id(Library::Vulnerable)?,
        );
        let files = [Library::Vulnerable, library].map(|library| {
            let deb = self.packages.deb(library);
            let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (deb, name)
        });
        place(machine.guest(), "libgreet", &files, &self.stage.publisher.sign(&yaml, &SIGNERS)?)
    }
}

/// What a service answers to whoever connects, over a socket that nobody closed meanwhile.
fn peek(machine: &Machine, name: &str) -> Result<String> {
    let port = SERVICES.iter().find(|(known, _)| *known == name).context("an unknown service")?.1;
    machine.sh(&format!("echo peek | timeout 60 greetc 127.0.0.1 {port} | tail -n 1"))
}

/// It is active, not started again by systemd, and runs this version.
fn expect(machine: &Machine, name: &str, library: Library) -> Result<()> {
    let shown = machine.sh(&format!("systemctl show -p ActiveState -p NRestarts {name}.service"))?;
    ensure!(shown.contains("ActiveState=active") && shown.contains("NRestarts=0"), "{name}: {shown}");
    let said = peek(machine, name)?;
    ensure!(said.contains(&format!("version={} ", library.number())), "{name}: {said}");
    let kept = match name {
        ACTIVATED => said.contains("socket=activated"),
        _ => true,
    };
    ensure!(kept, "{name} has lost its socket: {said}");
    Ok(())
}

/// Package and services are in this version, and the host is as it should be.
fn whole(machine: &Machine, library: Library) -> Result<()> {
    let dpkg = machine
        .sh(&format!("dpkg-query -W -f '${{db:Status-Abbrev}} ${{Version}}' {PACKAGE}; dpkg --audit"))?;
    ensure!(dpkg.trim() == format!("ii  {}", version(library)), "dpkg says `{dpkg}`");
    for name in [ACTIVATED, KEEPER] {
        expect(machine, name, library)?;
    }
    update(machine, &["status"], 0)?;
    ensure!(machine.splats()?.is_empty(), "{:?}", machine.splats()?);
    Ok(())
}

fn update(machine: &Machine, words: &[&str], code: i32) -> Result<String> {
    let run = machine.command([&["update"], words].concat()).timeout(PATIENCE).output()?;
    let said = run.text() + &run.complaint();
    println!("update {}\n{said}", words.join(" "));
    ensure!(run.status == code, "expected exit code {code}, found {}", run.status);
    Ok(said)
}

/// Somebody who connects to a service once a moment; what was answered, and what was refused.
fn knock(machine: &Machine) -> Result<()> {
    let one = |name: &str, port: u16| {
        format!(
            "while [ -e /run/knocking ]; do echo peek | timeout 60 greetc 127.0.0.1 {port} >/run/{name}.one 2>&1; \
            grep -q version= /run/{name}.one || cat /run/{name}.one >>/run/{name}.lost; echo >>/run/{name}.all; \
            sleep 0.2; done"
        )
    };
    let knocks: Vec<String> = SERVICES[..2]
        .iter()
        .map(|(name, port)| format!("setsid sh -c '{}' </dev/null >/dev/null 2>&1 &", one(name, *port)))
        .collect();
    machine.sh(&format!("touch /run/knocking; {}", knocks.join("\n"))).map(drop)
}

fn nobody_was_refused(machine: &Machine) -> Result<()> {
    let said = machine.sh("rm /run/knocking; sleep 1; for name in greet-activated greet-kept; do \
        echo $name $(wc -l </run/$name.all) knocks, lost: $(cat /run/$name.lost 2>/dev/null); done")?;
    println!("{said}");
    for line in said.lines() {
        let knocks: u32 = line.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no number")?;
        ensure!(knocks > 3 && line.ends_with("lost:"), "{said}");
    }
    Ok(())
}

/// A good fix, told beforehand: services keep their sockets, what sessions hang on is left alone, scan and status tell the
/// truth, an upgrade by somebody else included; and its rollback.
///
/// # Errors
/// If it is not so.
pub fn a_library_of_the_host_is_fixed_and_given_back(lab: &Lab, distribution: Distribution) -> Result<()> {
    let hosts = Hosts::set(lab, distribution)?;
    let machine = hosts.open(lab)?;
    let manifest = hosts.publish(&machine, Library::Fixed, "")?;
    let plan = update(&machine, &["plan", &manifest], 0)?;
    for words in [
        "package libgreet1:amd64: 1.0-2 is installed in place of 1.0-1".to_owned(),
        "(postinst, preinst)".to_owned(),
        format!("stays open meanwhile: {ACTIVATED}.socket"),
        "stays open meanwhile: the 1 descriptors that systemd keeps for it".to_owned(),
        format!("service {DISPLAY}.service: is left alone"),
    ] {
        ensure!(plan.contains(&words), "expected `{words}` in the plan");
    }
    let display = peek(&machine, DISPLAY)?;
    knock(&machine)?;
    update(&machine, &["apply", &manifest], 0)?;
    nobody_was_refused(&machine)?;
    whole(&machine, Library::Fixed)?;
    let keeper = peek(&machine, KEEPER)?;
    ensure!(keeper.contains("socket=kept"), "its socket was not kept: {keeper}");
    let pid = |said: &str| said.split(' ').find(|word| word.starts_with("pid=")).map(str::to_owned);
    ensure!(pid(&display) == pid(&peek(&machine, DISPLAY)?), "what sessions hang on was restarted");
    expect(&machine, DISPLAY, Library::Vulnerable)?;
    let scan = update(&machine, &["scan", "--manifest", &manifest], 0)?;
    ensure!(scan.contains(DISPLAY) && scan.contains("VULNERABLE") && !scan.contains(KEEPER), "{scan}");
    ensure!(update(&machine, &["plan", &manifest], 0)?.contains("nothing to do"), "once more");

    update(&machine, &["rollback"], 0)?;
    whole(&machine, Library::Vulnerable)?;

    // Somebody else upgrades, and restarts nothing.
    machine.guest().push(&hosts.packages.deb(Library::Fixed), "/root/new.deb")?;
    machine.guest().script("dpkg --install /root/new.deb").timeout(PATIENCE).check()?;
    let status = update(&machine, &["status"], 0)?;
    ensure!(status.contains("later than committed"), "{status}");
    let scan = update(&machine, &["scan"], 0)?;
    ensure!(scan.contains(KEEPER) && scan.contains("replaced on disk"), "{scan}");
    Ok(())
}

/// A probe that fails, and a library on which no service starts: both give the old package and services back.
///
/// # Errors
/// If it is not so.
pub fn a_bad_library_of_the_host_goes_back(lab: &Lab, distribution: Distribution) -> Result<()> {
    let hosts = Hosts::set(lab, distribution)?;
    let machine = hosts.open(lab)?;
    let probe = "probes: [{kind: tcp, port: 9, timeout: 1s, interval: 100ms}]\n";
    let manifest = hosts.publish(&machine, Library::Fixed, probe)?;
    knock(&machine)?;
    update(&machine, &["apply", &manifest], 1)?;
    nobody_was_refused(&machine)?;
    whole(&machine, Library::Vulnerable)?;

    // Who connects meanwhile has systemd start what cannot be started until it gives up on the socket.
    knock(&machine)?;
    let manifest = hosts.publish(&machine, Library::Broken, "")?;
    let said = update(&machine, &["apply", &manifest], 1)?;
    ensure!(said.contains("expected all to be active"), "{said}");
    machine.sh("rm /run/knocking")?;
    whole(&machine, Library::Vulnerable)
}

/// The power fails while dpkg unpacks, and while it configures: the host comes up all old.
///
/// # Errors
/// If it is not so.
pub fn a_power_cut_in_dpkg_leaves_the_old_package(lab: &Lab, distribution: Distribution) -> Result<()> {
    let hosts = Hosts::set(lab, distribution)?;
    let mut machine = hosts.open(lab)?;
    let manifest = hosts.publish(&machine, Library::Fixed, "")?;
    for stop in [STOP_CONFIGURING, STOP_UNPACKING] {
        machine.sh(&format!("touch {stop}; sync"))?;
        machine.signals()?;
        machine.sh(&format!("setsid update apply {manifest} </dev/null >/run/apply.log 2>&1 &"))?;
        machine.wait_signal("cut 7", PATIENCE)?;
        let half = machine.sh(&format!("dpkg-query -W -f '${{db:Status-Status}}' {PACKAGE}"))?;
        println!("cut while {PACKAGE} is {half}");
        ensure!(half.trim() != "installed", "it was whole");
        machine.cut_power()?;
        machine.boot_again()?;
        let said = update(&machine, &["resume", "--json"], 0)?;
        let resumed: Value = serde_json::from_str(said.lines().next().context("no answer")?)?;
        ensure!(resumed["result"] == "resumed", "{resumed}");
        let at_boot = machine.sh("systemctl show -p Result --value update-resume.service")?;
        ensure!(at_boot.trim() == "success", "update-resume.service ended as {at_boot}");
        whole(&machine, Library::Vulnerable)?;
        expect(&machine, DISPLAY, Library::Vulnerable)?;
    }
    Ok(())
}

/// `update` is killed while dpkg works: dpkg goes on, holds nobody's lock but its own, and is waited for.
///
/// # Errors
/// If it is not so.
pub fn a_dpkg_that_outlives_update_is_waited_for(lab: &Lab, distribution: Distribution) -> Result<()> {
    let hosts = Hosts::set(lab, distribution)?;
    let mut machine = hosts.open(lab)?;
    let manifest = hosts.publish(&machine, Library::Fixed, "")?;
    machine.sh(&format!("touch {STOP_CONFIGURING}"))?;
    machine.signals()?;
    machine.sh(&format!("setsid update apply {manifest} </dev/null >/run/apply.log 2>&1 &"))?;
    machine.wait_signal("cut 7", PATIENCE)?;
    let busy = update(&machine, &["plan", &manifest], 5)?;
    ensure!(busy.contains("dpkg"), "{busy}");
    machine.sh("kill -9 $(pidof update) && pidof dpkg")?;
    update(&machine, &["resume"], 0)?;
    whole(&machine, Library::Vulnerable)?;
    update(&machine, &["apply", &manifest], 0)?;
    whole(&machine, Library::Fixed)
}
