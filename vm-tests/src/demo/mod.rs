//! The demo: one host taken through the whole story, with the real commands and their real output.
//!
//! Everything that is shown is checked: a wrong outcome ends the demo with an error.

mod narrator;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use self::narrator::Narrator;
use crate::fixtures::client::Client;
use crate::fixtures::livepatch::Livepatch;
use crate::lab::Lab;
use crate::lab::distribution::Distribution;
use crate::lab::steps;
use crate::publisher::Draft;
use crate::scene::{SECRET, Scene};
use crate::stage::Stage;

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

/// How long an emulated guest on a busy machine may take to answer a few requests.
const PATIENCE: Duration = Duration::from_secs(60);

/// How soon the peers of a replaced container have to know.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Set up what is needed, run the demo, say what became of it.
///
/// # Errors
/// If anything that was shown is not as it should be.
pub fn run(distribution: Distribution, afterwards: Afterwards) -> Result<()> {
    let before = steps::since_start().unwrap_or_default();
    let lab = Lab::open()?;
    let stage = Stage::on(&lab, distribution)?;
    let begun = Instant::now();
    let scene = match afterwards {
        Afterwards::Discard => stage.open(&lab)?,
        Afterwards::Keep => stage.keep(&lab, KEPT)?,
    };
    let result = Story::begin(&stage, &scene).and_then(|story| story.tell());
    if result.is_ok() {
        let before = ("compiling the lab", before);
        println!("\nWhere the time went:\n{}", steps::split(before, ("the demo itself", begun.elapsed())));
    }
    if afterwards == Afterwards::Keep {
        println!("\nThe machine goes on running. Log in: {}", scene.machine.ssh().join(" "));
        println!("Remove it: cargo run -p vm-tests -- down {KEPT}");
    }
    result
}

/// The host, and what was true of it at the start.
struct Story<'a> {
    scene: &'a Scene,
    narrator: Narrator<'a>,
    boot_id: String,
    /// The manifest that works, in the guest.
    good: String,
    /// The one whose probe fails.
    bad: String,
    /// Shell line that sends one request to the container.
    hit: String,
}

impl<'a> Story<'a> {
    fn begin(stage: &Stage, scene: &'a Scene) -> Result<Self> {
        let machine = &scene.machine;
        Ok(Self {
            scene,
            narrator: Narrator::new(machine),
            boot_id: machine.sh("cat /proc/sys/kernel/random/boot_id")?,
            good: stage.publish(machine, &Draft::fix())?,
            bad: stage.publish(machine, &Draft::broken())?,
            hit: format!("echo hit | greetc {} 7000", scene.container("web").address()),
        })
    }

    fn tell(&self) -> Result<()> {
        self.before()?;
        self.verify_and_plan()?;
        self.apply()?;
        self.fail_and_return()?;
        self.rollback()?;
        self.end()
    }

    fn before(&self) -> Result<()> {
        self.narrator.chapter("1. A stock Debian kernel and a container, both with a hole");
        self.narrator.show("uname -r")?;
        self.narrator.say("The kernel function behind /proc/cmdline shows everyone a secret:");
        self.expect_in("cat /proc/cmdline", SECRET)?;
        self.narrator
            .say("A container counts in its memory and greets through a library that leaks another:");
        self.narrator.show("runc list")?;
        self.expect_in(&self.hit, "key=hunter2")
    }

    fn verify_and_plan(&self) -> Result<()> {
        self.narrator.chapter("2. A signed manifest that fixes both: who signed it, and what would it do?");
        self.expect_in(&format!("update verify {}", self.good), "authentic")?;
        let plan = self.narrator.show(&format!("update plan {}", self.good))?;
        ensure!(plan.contains("container web: is restarted"), "the plan does not say what web feels");
        ensure!(!plan.contains("other"), "a container that maps no vulnerable file is in the plan");
        Ok(())
    }

    fn apply(&self) -> Result<()> {
        self.narrator
            .chapter("3. Apply it: the kernel is patched live, the container restarts on the fixed library");
        let client = self.client("before")?;
        self.narrator.say("A client holds a connection to the old version meanwhile.");
        self.narrator.show(&format!("update apply {}", self.good))?;
        self.expect_in("cat /proc/cmdline", "hidden by livepatch_cmdline")?;
        self.expect_in(&self.hit, "greeting=hello world version=2")?;
        let end = client.wait_for_end(AT_ONCE)?;
        self.narrator.say(&format!("The client of the old version was told at the commit: {}", end.what));
        self.expect_same_boot()
    }

    fn fail_and_return(&self) -> Result<()> {
        self.narrator.chapter("4. A second manifest whose probe fails: the host goes back by itself");
        let client = self.client("during")?;
        let before = client.wait_for_replies(2, PATIENCE)?;
        let files = self.scene.machine.sh("cat /srv/web/rootfs/var/lib/greetd/log")?;
        let status = self.narrator.show_failing(&format!("update apply {}", self.bad))?;
        ensure!(status == 1, "expected exit code 1 (failed, everything restored), found {status}");
        let patches = self.narrator.show("ls /sys/kernel/livepatch")?;
        let (first, second) = (Livepatch::Cmdline.module_name(), Livepatch::Version.module_name());
        ensure!(
            patches.contains(&first) && !patches.contains(&second),
            "expected {first} without {second}, found {patches}"
        );
        self.narrator.say("The same connection, the same process memory, the same files:");
        let after = client.wait_for_replies(3, PATIENCE)?;
        let counts = client.counts()?;
        ensure!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "the counter jumped: {counts:?}");
        self.narrator
            .say(&format!("  its counter went on from {before} to {after}, on the connection it had"));
        self.narrator.show("tail -n 1 /srv/web/rootfs/var/lib/greetd/log")?;
        let now = self.scene.machine.sh("cat /srv/web/rootfs/var/lib/greetd/log")?;
        ensure!(now.starts_with(&files), "the container's log lost lines");
        self.expect_in(&self.hit, "greeting=hello world version=2")?;
        client.stop()?;
        self.expect_same_boot()
    }

    fn rollback(&self) -> Result<()> {
        self.narrator.chapter("5. Undo the first one as well, and look back");
        self.narrator.show("update rollback")?;
        self.expect_in("cat /proc/cmdline", SECRET)?;
        self.expect_in(&self.hit, "key=hunter2")?;
        let history = self.narrator.show("update history")?;
        let lines: Vec<&str> = history.lines().collect();
        let [first, second, third] = lines[..] else { bail!("expected three transactions:\n{history}") };
        ensure!(
            first.contains("committed") && second.contains("rolled back") && third.contains("rollback"),
            "{history}"
        );
        let id = second.split_whitespace().next().unwrap_or_default();
        self.narrator.show(&format!("update show {id}"))?;
        self.narrator.show("update status")?;
        self.expect_same_boot()
    }

    fn end(&self) -> Result<()> {
        let splats = self.scene.machine.splats()?;
        ensure!(splats.is_empty(), "the kernel complained:\n{}", splats.join("\n"));
        self.narrator.show("uptime -p")?;
        self.narrator
            .say("The same boot from beginning to end, and nothing in the kernel's log to worry about.");
        Ok(())
    }

    /// A client that asks the container five times a second, on one connection.
    fn client(&self, name: &str) -> Result<Client> {
        let address = self.scene.container("web").address();
        let every = Duration::from_millis(200);
        let client = Client::connect_and_hit(self.scene.machine.guest(), name, &address, every)?;
        client.wait_for_replies(2, PATIENCE)?;
        Ok(client)
    }

    fn expect_in(&self, line: &str, expected: &str) -> Result<()> {
        let found = self.narrator.show(line)?;
        ensure!(found.contains(expected), "`{line}` should show `{expected}`, and shows:\n{found}");
        Ok(())
    }

    fn expect_same_boot(&self) -> Result<()> {
        let now = self.scene.machine.sh("cat /proc/sys/kernel/random/boot_id")?;
        ensure!(now == self.boot_id, "the host was rebooted: boot id {} became {now}", self.boot_id);
        Ok(())
    }
}
