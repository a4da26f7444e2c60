//! The demo: one host taken through the whole story, with the real commands and their real output.
//!
//! - [`stage`]: builds the programs, keys, policy and manifests, and brings a guest to the start
//! - `fixtures`: the server, its library in three versions, the guest's units
//! - `narrator`: says what happens, runs a command in the guest, shows what it printed
//! - [`client`]: a TCP client in the guest that holds one connection, and what it saw
//!
//! Everything that is shown is checked: a wrong outcome ends the demo with an error.

pub mod client;
pub mod fixtures;
mod narrator;
pub mod stage;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use self::client::Client;
use self::narrator::Narrator;
use self::stage::{GUEST_DIR, Stage};
use crate::lab::Lab;
use crate::lab::machine::Machine;

/// What becomes of the machine at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It is removed.
    Discard,
    /// It goes on running, with a way to log in.
    Keep,
}

/// Name of a kept machine.
const KEPT: &str = "demo";

/// Set up what is needed, run the demo, say what became of it.
///
/// # Errors
/// If anything that was shown is not as it should be.
pub fn run(afterwards: Afterwards) -> Result<()> {
    let lab = Lab::open()?;
    let stage = Stage::set(&lab)?;
    let snapshot = stage.container(&lab)?;
    let mut machine = match afterwards {
        Afterwards::Discard => lab.restore(&snapshot)?,
        Afterwards::Keep => lab.keep(KEPT, &snapshot)?,
    };
    stage.dress(&machine)?;
    let begun = Instant::now();
    let result = play(&mut machine);
    match (&result, afterwards) {
        (Ok(()), Afterwards::Discard) => println!("\nThe demo took {:.0} s.", begun.elapsed().as_secs_f64()),
        (_, Afterwards::Keep) => {
            println!("\nThe machine goes on running. Log in: {}", machine.ssh().join(" "));
            println!("Remove it: cargo run -p vm-tests -- down {KEPT}");
        }
        (Err(_), Afterwards::Discard) => {}
    }
    result
}

fn play(machine: &mut Machine) -> Result<()> {
    let mut scene = Scene::new(machine)?;
    scene.before()?;
    scene.verify_and_plan()?;
    scene.apply()?;
    scene.fail_and_return()?;
    scene.rollback()?;
    scene.end()
}

/// The guest and what was true of it at the start.
struct Scene<'a> {
    machine: &'a Machine,
    narrator: Narrator<'a>,
    boot_id: String,
}

/// The two manifests.
const GOOD: &str = "greet-2026-001.manifest.json";
const BAD: &str = "greet-2026-002.manifest.json";

impl<'a> Scene<'a> {
    fn new(machine: &'a Machine) -> Result<Self> {
        let boot_id = machine.sh("cat /proc/sys/kernel/random/boot_id")?;
        Ok(Self { machine, narrator: Narrator::new(machine), boot_id })
    }

    fn before(&mut self) -> Result<()> {
        self.narrator.chapter("1. A stock Debian kernel and a container, both with a hole");
        self.narrator.show("uname -r")?;
        self.narrator.say("The kernel function behind /proc/cmdline is the \"vulnerable\" one:");
        let cmdline = self.narrator.show("cat /proc/cmdline")?;
        ensure!(!cmdline.contains("livepatched"), "the kernel is patched already: {cmdline}");
        self.narrator
            .say("A container serves TCP with a counter in its memory, through a vulnerable library:");
        self.narrator.show("runc list")?;
        let greeting = self.narrator.show("printf 'hit\\nhit\\n' | timeout 20 greet-once 10.77.0.2 7000")?;
        ensure!(greeting.contains("greeting=vulnerable"), "unexpected greeting: {greeting}");
        Ok(())
    }

    fn verify_and_plan(&mut self) -> Result<()> {
        self.narrator.chapter("2. A signed manifest that fixes both: who signed it, and what would it do?");
        let report = self.narrator.show(&format!("update verify {GUEST_DIR}/{GOOD}"))?;
        ensure!(report.contains("authentic"), "the manifest was not found authentic");
        let plan = self.narrator.show(&format!("update plan {GUEST_DIR}/{GOOD}"))?;
        ensure!(plan.contains("container web-1: is restarted"), "the plan does not say what web-1 feels");
        ensure!(!plan.contains("other-1"), "a container that maps no vulnerable file is in the plan");
        Ok(())
    }

    fn apply(&mut self) -> Result<()> {
        self.narrator
            .chapter("3. Apply it: the kernel is patched live, the container restarts on the fixed library");
        let client = Client::start(self.machine, "before")?;
        client.expect_growth(2)?;
        self.narrator.say("A client holds a connection to the old version meanwhile.");
        self.narrator.show(&format!("update apply {GUEST_DIR}/{GOOD}"))?;
        let cmdline = self.narrator.show("cat /proc/cmdline")?;
        ensure!(cmdline.contains("livepatched"), "the kernel is not patched: {cmdline}");
        let greeting = self.narrator.show("printf 'hit\\n' | timeout 20 greet-once 10.77.0.2 7000")?;
        ensure!(
            greeting.contains("greeting=fixed"),
            "the container does not run the fixed library: {greeting}"
        );
        let end = client.wait_for_end(Duration::from_secs(5))?;
        self.narrator.say(&format!("The client of the old version was told at the commit: {end}"));
        self.expect_same_boot()
    }

    fn fail_and_return(&mut self) -> Result<()> {
        self.narrator.chapter("4. A second manifest whose probe fails: the host goes back by itself");
        let client = Client::start(self.machine, "during")?;
        client.expect_growth(3)?;
        let before = client.last_count()?;
        let status = self.narrator.show_failing(&format!("update apply {GUEST_DIR}/{BAD}"))?;
        ensure!(status == 1, "expected exit code 1 (failed, everything restored), found {status}");
        let patches = self.narrator.show("ls /sys/kernel/livepatch")?;
        ensure!(!patches.contains("livepatch_version"), "the second livepatch is still there");
        self.narrator.say("The same connection, the same process memory, the same files:");
        client.expect_growth(3)?;
        let after = client.last_count()?;
        ensure!(after > before, "the counter went from {before} to {after}");
        client.expect_unbroken()?;
        self.narrator
            .say(&format!("  its counter went on from {before} to {after}, on the connection it had"));
        let files = self.narrator.show("tail -n 1 /srv/web-1/rootfs/var/lib/greetd/log")?;
        ensure!(!files.trim().is_empty(), "the container's own log is empty");
        let greeting = self.narrator.show("printf 'hit\\n' | timeout 20 greet-once 10.77.0.2 7000")?;
        ensure!(
            greeting.contains("greeting=fixed"),
            "the container is not on the version before: {greeting}"
        );
        client.stop()?;
        self.expect_same_boot()
    }

    fn rollback(&mut self) -> Result<()> {
        self.narrator.chapter("5. Undo the first one as well, and look back");
        self.narrator.show("update rollback")?;
        let cmdline = self.narrator.show("cat /proc/cmdline")?;
        ensure!(!cmdline.contains("livepatched"), "the livepatch is still active: {cmdline}");
        let greeting = self.narrator.show("printf 'hit\\n' | timeout 20 greet-once 10.77.0.2 7000")?;
        ensure!(
            greeting.contains("greeting=vulnerable"),
            "the container is not on its old library: {greeting}"
        );
        let history = self.narrator.show("update history")?;
        let lines: Vec<&str> = history.lines().collect();
        let [first, second, third] = lines[..] else { bail!("expected three transactions:\n{history}") };
        ensure!(
            first.contains("committed") && second.contains("rolled back") && third.contains("rollback"),
            "{history}"
        );
        let id = second.split_whitespace().next().unwrap_or_default().to_owned();
        self.narrator.show(&format!("update show {id}"))?;
        self.narrator.show("update status")?;
        self.expect_same_boot()
    }

    fn end(&mut self) -> Result<()> {
        let splats = self.machine.splats()?;
        ensure!(splats.is_empty(), "the kernel complained:\n{}", splats.join("\n"));
        self.narrator.show("uptime -p")?;
        self.narrator
            .say("The same boot from beginning to end, and nothing in the kernel's log to worry about.");
        Ok(())
    }

    fn expect_same_boot(&self) -> Result<()> {
        let now = self.machine.sh("cat /proc/sys/kernel/random/boot_id")?;
        ensure!(now == self.boot_id, "the host was rebooted: boot id {} became {now}", self.boot_id);
        Ok(())
    }
}
