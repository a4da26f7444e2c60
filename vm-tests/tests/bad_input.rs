//! What the real programs on a real host do with input that is wrong: each case has its exit code, says what
//! was found, and leaves livepatches, containers and their memory as they were.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_tests::fixtures::client::Client;
use vm_tests::fixtures::containers::Container;
use vm_tests::fixtures::livepatch::Livepatch;
use vm_tests::lab::Lab;
use vm_tests::lab::control::Output;
use vm_tests::product::Build;
use vm_tests::publisher::{Draft, Publisher, RELEASES, SIGNERS, place};
use vm_tests::scene::{Scene, other, web};
use vm_tests::stage::Stage;
use vm_tests::stepped::Stepped;

const PATIENCE: Duration = Duration::from_secs(120);
const REFUSED: i32 = 3;
const NOT_AUTHENTIC: i32 = 4;

/// A managed host, and a client that knows the memory of its container.
struct Host {
    stage: Stage,
    scene: Scene,
    witness: Client,
    /// The container's answer to `peek` at the start: counter, instance, version.
    memory: String,
}

impl Host {
    fn open() -> Result<Self> {
        Self::with(web())
    }

    fn with(web: Container) -> Result<Self> {
        let lab = Lab::for_test()?;
        let stage = Stage::with(&lab, Build::Tests, vec![web, other()])?;
        let scene = stage.open(&lab)?;
        let witness = scene.client("web", "witness")?;
        witness.ask("hit", PATIENCE)?;
        let memory = witness.ask("peek", PATIENCE)?;
        Ok(Self { stage, scene, witness, memory })
    }

    fn sh(&self, script: &str) -> Result<String> {
        self.scene.machine.sh(script)
    }

    /// Publishes the text as a release of its own, with the payloads of [`Draft::fix`] beside it.
    fn publish(&self, case: &str, yaml: &str, signers: &[&str]) -> Result<String> {
        self.place(case, &self.stage.publisher.sign(yaml, signers)?)
    }

    fn place(&self, case: &str, envelope: &[u8]) -> Result<String> {
        let payloads = Draft::fix().payloads(&self.stage.props);
        place(self.scene.machine.guest(), case, &payloads, envelope)
    }

    fn yaml(&self, draft: &Draft) -> Result<String> {
        draft.yaml(&self.stage.props, &self.scene.machine.spec().kernel)
    }

    /// Applies, and expects the code, the words, and a host that is as it was.
    fn expect(&self, case: &str, manifest: &str, code: i32, words: &[&str]) -> Result<()> {
        let output =
            self.scene.machine.command(["update", "apply", manifest]).timeout(PATIENCE * 4).output()?;
        self.judge(case, &output, code, words)
    }

    fn judge(&self, case: &str, output: &Output, code: i32, words: &[&str]) -> Result<()> {
        let said = format!("{}{}", output.text(), output.complaint());
        println!("-- {case} (exit code {})\n{said}", output.status);
        ensure!(output.status == code, "{case}: expected exit code {code}, found {}:\n{said}", output.status);
        for word in words {
            ensure!(said.contains(word), "{case}: expected `{word}` in:\n{said}");
        }
        let after = self.witness.ask("peek", PATIENCE).with_context(|| format!("after {case}"))?;
        ensure!(after == self.memory, "{case}: the container was {} and is {after}", self.memory);
        let livepatches = self.sh("ls /sys/kernel/livepatch 2>/dev/null || true")?;
        ensure!(livepatches.is_empty(), "{case}: left {livepatches} in the kernel");
        let leftovers = self
            .sh("ip netns exec web nft list tables; ip netns exec web iptables-save | grep CRIU || true")?;
        ensure!(!leftovers.contains("update") && !leftovers.contains("CRIU"), "{case}: left {leftovers}");
        Ok(())
    }
}

#[test]
fn what_is_not_authentic_is_refused_before_the_host_is_looked_at() -> Result<()> {
    let host = Host::open()?;
    let fix = host.yaml(&Draft::fix())?;
    let case = "too few roles";
    let manifest = host.publish("few", &fix, &["build-2026"])?;
    host.expect(case, &manifest, NOT_AUTHENTIC, &["security-review"])?;

    let manifest = host.publish("few-of-role", &fix, &["build-2026", "alice"])?;
    host.expect("one of two of a role", &manifest, NOT_AUTHENTIC, &["security-review", "2"])?;

    let unsigned = host.publish("unsigned", &fix, &SIGNERS)?;
    host.sh(&format!(
        "sed -i 's/\"signatures\": *\\[.*\\]/\"signatures\":[]/' {unsigned}; tr -d '\\n' <{unsigned} \
        | sed 's/\"signatures\": *\\[.*\\]/\"signatures\":[]/' >{unsigned}.new; mv {unsigned}.new {unsigned}"
    ))?;
    host.expect("unsigned", &unsigned, NOT_AUTHENTIC, &[])?;

    let stranger = Publisher::new(host.stage.product())?;
    let manifest = host.place("stranger", &stranger.sign(&fix, &SIGNERS)?)?;
    host.expect("wrong keys", &manifest, NOT_AUTHENTIC, &[])?;

    let expired = fix
        .lines()
        .map(|line| match line.split_once(": ") {
            Some(("issued", _)) => "issued: 2020-01-01T00:00:00Z".to_owned(),
            Some(("expires", _)) => "expires: 2020-06-01T00:00:00Z".to_owned(),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n");
    let manifest = host.publish("expired", &expired, &SIGNERS)?;
    host.expect("expired", &manifest, NOT_AUTHENTIC, &["2020-06-01"])?;

    let manifest = host.publish("future", &fix, &SIGNERS)?;
    host.sh("date -s '-1 year' >/run/clock")?;
    let result = host.expect("from the future", &manifest, NOT_AUTHENTIC, &[]);
    host.sh("date -s '+1 year' >/run/clock")?;
    result?;

    host.sh(&format!("head -c 104857600 /dev/zero | tr '\\0' ' ' >{RELEASES}/huge"))?;
    let begun = host.sh("cut -d' ' -f1 /proc/uptime")?;
    host.expect("a manifest of 100 MB", &format!("{RELEASES}/huge"), NOT_AUTHENTIC, &["104857600"])?;
    println!("from {begun} to {}", host.sh("cut -d' ' -f1 /proc/uptime")?);

    for (case, change, words) in [
        ("changed", "printf x | dd of=livepatch-cmdline.ko bs=1 seek=100 conv=notrunc", "SHA-256"),
        ("short", "truncate -s -1 livepatch-cmdline.ko", "livepatch-cmdline.ko"),
        ("long", "printf x >>livepatch-cmdline.ko", "livepatch-cmdline.ko"),
    ] {
        let manifest = host.publish(case, &fix, &SIGNERS)?;
        host.sh(&format!("cd {RELEASES}/{case} && {change}"))?;
        host.expect(&format!("a {case} payload"), &manifest, NOT_AUTHENTIC, &[words])?;
    }
    let manifest = host.publish("missing", &fix, &SIGNERS)?;
    host.sh(&format!("rm {RELEASES}/missing/livepatch-cmdline.ko"))?;
    host.expect("a missing payload", &manifest, REFUSED, &["livepatch-cmdline.ko"])?;
    Ok(())
}

#[test]
fn what_the_host_cannot_do_is_refused_and_nothing_is_touched() -> Result<()> {
    let host = Host::open()?;
    let fix = host.yaml(&Draft::fix())?;
    let kernel = host.scene.machine.spec().kernel.clone();

    let other = fix.replace(&kernel, "6.1.0-49-amd64");
    let manifest = host.publish("other-kernel", &other, &SIGNERS)?;
    host.expect("a manifest for another kernel", &manifest, REFUSED, &["6.1.0-49-amd64", &kernel])?;

    let manifest = host.publish(
        "other-function",
        &fix.replace("{name: cmdline_proc_show}", "{name: version_proc_show}"),
        &SIGNERS,
    )?;
    host.expect("a module that patches another function", &manifest, REFUSED, &["cmdline_proc_show"])?;

    let draft = Draft { livepatch: Some(Livepatch::NotALivepatch), library: None, ..Draft::fix() };
    let manifest =
        host.stage.publish(&host.scene.machine, &Draft { name: "not-a-livepatch".into(), ..draft })?;
    host.expect("a module that is no livepatch", &manifest, REFUSED, &["livepatch"])?;

    let module = std::fs::read(host.stage.props.livepatches.path(Livepatch::Cmdline))?;
    for (case, bytes) in [
        ("truncated", module[..module.len() / 2].to_vec()),
        ("other-vermagic", replace(&module, b"vermagic=6.1.0-50", b"vermagic=6.1.0-49")),
    ] {
        let yaml = with_module(&fix, &bytes);
        let manifest = host.publish(case, &yaml, &SIGNERS)?;
        let path = format!("{RELEASES}/{case}/livepatch-cmdline.ko");
        host.scene.machine.guest().write_file(&path, &bytes, 0o644)?;
        let words = if case == "truncated" { ["offset", "section-table"] } else { ["6.1.0-49", "6.1.0-50"] };
        host.expect(&format!("a module that is {case}"), &manifest, REFUSED, &words)?;
    }

    let manifest = host.publish("fix", &fix, &SIGNERS)?;
    for tool in ["runc", "criu"] {
        let path = host.sh(&format!("command -v {tool}"))?;
        host.sh(&format!("mv {path} {path}.away"))?;
        let result = host.expect(&format!("{tool} is missing"), &manifest, REFUSED, &[tool]);
        host.sh(&format!("mv {path}.away {path}"))?;
        result?;
    }

    host.sh(&format!("cp -r {RELEASES}/fix /tmp/fix; chmod -R a+rX /tmp/fix"))?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "update"];
    let output = host
        .scene
        .machine
        .command(nobody.iter().chain(&["apply", "/tmp/fix/update.manifest.json"]))
        .output()?;
    host.judge("not root", &output, REFUSED, &["root"])?;
    let output = host
        .scene
        .machine
        .command(nobody.iter().chain(&["verify", "/tmp/fix/update.manifest.json"]))
        .output()?;
    host.judge("verify needs no root", &output, 0, &["authentic"])?;

    host.sh("mount -t tmpfs -o ro,mode=700 tmpfs /var/lib/update")?;
    let result = host.expect(
        "the store is not writable",
        &manifest,
        REFUSED,
        &["/var/lib/update", "make the store writable"],
    );
    host.sh("umount /var/lib/update")?;
    result
}

#[test]
fn what_fails_on_the_way_is_undone() -> Result<()> {
    let mut host = Host::with(Container::new("web", 1).arguments(&["--heap", "64"]))?;
    // Room for the payloads and the journal, and not for the pages of the container.
    host.sh("mount -t tmpfs -o size=32M,mode=700 tmpfs /var/lib/update")?;
    let manifest = host.publish("fix", &host.yaml(&Draft::fix())?, &SIGNERS)?;
    host.expect("the disk is full during the dump", &manifest, 1, &["No space left"])?;
    host.sh("umount /var/lib/update")?;

    // The first apply stands still at its first boundary while the host is changed under it.
    let run = Stepped::start(&mut host.scene.machine, &format!("update apply {manifest}"))?;
    run.wait(&mut host.scene.machine)?;
    host.expect("two applies at once", &manifest, 5, &["greet-2026-001"])?;
    host.sh("runc delete --force web")?;
    let code = run.finish(&mut host.scene.machine)?;
    let said = run.said(&host.scene.machine)?;
    ensure!(code == 1, "a container that vanished: exit code {code}\n{said}");
    ensure!(said.contains("web"), "{said}");
    ensure!(
        host.sh("ls /sys/kernel/livepatch 2>/dev/null || true")?.is_empty(),
        "the livepatch is still there"
    );
    ensure!(host.scene.machine.splats()?.is_empty());
    Ok(())
}

#[test]
fn an_older_version_than_was_seen_is_refused() -> Result<()> {
    let host = Host::open()?;
    let newer = Draft { version: 7, library: None, ..Draft::fix() };
    let manifest = host.stage.publish(&host.scene.machine, &newer)?;
    host.sh(&format!("update apply {manifest} && update rollback"))?;
    let older = host.stage.publish(&host.scene.machine, &Draft { version: 6, ..newer })?;
    host.expect("an older version", &older, NOT_AUTHENTIC, &["6", "7"])
}

/// The manifest's text with digest and size of other bytes for the module.
fn with_module(yaml: &str, bytes: &[u8]) -> String {
    let digest = vm_tests::fixtures::greet::digest(bytes);
    let line = yaml.lines().find(|line| line.contains("livepatch-cmdline.ko")).unwrap_or_default();
    yaml.replace(
        line,
        &format!("    payload: {{file: livepatch-cmdline.ko, sha256: {digest}, size: {}}}", bytes.len()),
    )
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the text is there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
