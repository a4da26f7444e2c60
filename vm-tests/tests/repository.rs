//! From a name to a livepatch in force: a repository as `update repo` makes it, a static web server, a stock kernel.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vm_tests::fixtures::livepatch::Livepatch;
use vm_tests::lab::Lab;
use vm_tests::lab::control::Output;
use vm_tests::lab::machine::Machine;
use vm_tests::publisher::Draft;
use vm_tests::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(300);

/// Founds a repository around one manifest, has it signed and published, and tells the host of it. MANIFEST is the file.
const PUBLISH: &str = r#"set -e
cd /root
for name in root targets online; do update key generate --out $name >/dev/null; done
update repo init /srv/repo --root root.pub --root-threshold 1 \
    --targets targets.pub --targets-threshold 1 --online online.pub
update repo add /srv/repo "$MANIFEST"
update repo sign /srv/repo --key root.key
update repo sign /srv/repo --key targets.key
update repo publish /srv/repo --key online.key
cp /srv/repo/public/metadata/1.root.json /etc/update/root.json
cat >>/etc/update/update.yaml <<END
repository: {places: ["http://127.0.0.1:8000/"]}
END
# What the host got by other ways is gone: whatever it applies comes from the server.
rm -r "${MANIFEST%/*}"
systemd-run --quiet --unit=web busybox httpd -f -p 127.0.0.1:8000 -h /srv/repo/public
until busybox wget -q -O /dev/null http://127.0.0.1:8000/metadata/timestamp.json; do sleep 0.1; done
"#;

fn update(machine: &Machine, arguments: &[&str]) -> Result<Output> {
    let output = machine.command([&["update"], arguments].concat()).timeout(PATIENCE).output()?;
    let (text, complaint) = (output.text(), output.complaint());
    println!("-- update {} ({})\n{text}{complaint}", arguments.join(" "), output.status);
    Ok(output)
}

/// How many manifests the host lacks by its own account, and how `name` stands.
fn checked(machine: &Machine, name: &str) -> Result<(u64, String)> {
    let output = update(machine, &["check", "--json"])?;
    ensure!(output.status == 0, "update check failed");
    let report: Value = serde_json::from_str(&output.text())?;
    let manifests = report["manifests"].as_array().context("no manifests")?;
    let one = manifests.iter().find(|one| one["name"] == name).context("it is not listed")?;
    let standing = one["standing"].as_str().context("no standing")?;
    Ok((report["lacking"].as_u64().context("no count")?, standing.to_owned()))
}

/// What `update status` says that nobody applied.
fn not_applied(machine: &Machine) -> Result<Vec<String>> {
    let report: Value = serde_json::from_str(&update(machine, &["status", "--json"])?.text())?;
    let manifests = report["not_applied"].as_array().context("no list")?;
    Ok(manifests.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_name_becomes_a_livepatch_in_force_through_a_static_web_server() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    let name = "pause-2026-001";
    let draft =
        Draft { name: name.to_owned(), livepatch: Some(Livepatch::Pause), library: None, ..Draft::fix() };
    let manifest = stage.publish(&machine, &draft)?;
    machine.sh(&format!("MANIFEST={manifest}\n{PUBLISH}"))?;

    ensure!(not_applied(&machine)?.is_empty(), "nobody has looked yet");
    ensure!(checked(&machine, name)? == (1, "lacking".to_owned()));
    ensure!(not_applied(&machine)? == [name]);

    let applied = update(&machine, &["apply", name])?;
    ensure!(applied.status == 0, "it was not applied");
    ensure!(machine.sh("cat /sys/kernel/livepatch/livepatch_pause/enabled")? == "1");
    ensure!(machine.sh("cat /sys/kernel/livepatch/livepatch_pause/transition")? == "0");
    ensure!(checked(&machine, name)? == (0, "known".to_owned()));
    ensure!(not_applied(&machine)?.is_empty());

    ensure!(update(&machine, &["bundle", "create", name, "--out", "/root/pause.upd"])?.status == 0);

    // No way back, and no look at the host, asks anybody.
    machine.sh("systemctl stop web && rm -r /srv/repo")?;
    ensure!(update(&machine, &["check"])?.status == 3, "the server is gone");
    ensure!(update(&machine, &["status"])?.status == 0);
    ensure!(update(&machine, &["rollback"])?.status == 0);
    ensure!(machine.sh("ls /sys/kernel/livepatch | xargs")?.is_empty());

    // What was carried here in a file needs nobody either, and has to be whole.
    machine.sh("head -c -512 /root/pause.upd >/root/cut.upd")?;
    ensure!(
        update(&machine, &["apply", "/root/cut.upd"])?.status == 4,
        "a bundle that is cut short was taken"
    );
    ensure!(update(&machine, &["apply", "/root/pause.upd"])?.status == 0, "the bundle was not applied");
    ensure!(machine.sh("cat /sys/kernel/livepatch/livepatch_pause/enabled")? == "1");
    Ok(())
}
