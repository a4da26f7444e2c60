//! Kernel fixes on a real kernel, by the real program: tasks that hold a transition back, patches that replace
//! all others, boots and crashes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::fixtures::livepatch::Livepatch;
use vm_tests::lab::Lab;
use vm_tests::lab::control::Output;
use vm_tests::lab::machine::Machine;
use vm_tests::publisher::Draft;
use vm_tests::scene::SECRET;
use vm_tests::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(300);

/// A fix of the kernel alone.
fn kernel_fix(name: &str, livepatch: Livepatch) -> Draft {
    Draft { name: name.to_owned(), livepatch: Some(livepatch), library: None, ..Draft::fix() }
}

fn update(machine: &Machine, arguments: &[&str]) -> Result<Output> {
    let output = machine.command([&["update"], arguments].concat()).timeout(PATIENCE).output()?;
    println!(
        "-- update {} ({})\n{}{}",
        arguments.join(" "),
        output.status,
        output.text(),
        output.complaint()
    );
    Ok(output)
}

fn livepatches(machine: &Machine) -> Result<String> {
    machine.sh("ls /sys/kernel/livepatch 2>/dev/null | xargs")
}

/// Starts a task that sleeps in the patched function, as a service of its own.
fn start_sleeper(machine: &Machine, kind: &str) -> Result<()> {
    machine.sh(&format!(
        "systemd-run --quiet --unit=sleeper-{kind} sleeper {kind}
        until grep -q {kind} /proc/$(pgrep -o sleeper)/stack; do sleep 0.1; done"
    ))?;
    Ok(())
}

/// The one statement of the VEX document that the machine makes, checked as an auditor checks it.
fn vex(machine: &Machine) -> Result<Value> {
    machine.sh("update evidence key >/root/host.pub && update evidence --vex --nonce lab >/root/vex.json")?;
    let check =
        ["evidence", "verify", "/root/vex.json", "--key", "/root/host.pub", "--nonce", "lab", "--print"];
    let checked = update(machine, &check)?;
    ensure!(checked.status == 0, "the document should be the machine's");
    let document: Value = serde_json::from_str(checked.text().trim()).context("OpenVEX")?;
    Ok(document["statements"][0].clone())
}

/// Evidence of a real kernel with a livepatch in force, checked as an auditor checks it.
fn what_the_kernel_shows_is_said_and_checked(machine: &Machine) -> Result<()> {
    machine.sh("update evidence key >/root/host.pub && update evidence --nonce lab >/root/evidence.json")?;
    let boot = machine.sh("cat /proc/sys/kernel/random/boot_id")?;
    let check =
        ["evidence", "verify", "/root/evidence.json", "--key", "/root/host.pub", "--nonce", "lab", "--boot"];
    let checked = update(machine, &[&check[..], &[boot.as_str(), "--json"]].concat())?;
    ensure!(checked.status == 0, "the statement should be the machine's, of this boot");
    let said: Value = serde_json::from_str(checked.text().trim()).context("what was signed")?;
    let said = &said["statement"]["predicate"];
    ensure!(said["kernel"]["build_id"].is_string() && said["kernel"]["package"].is_object(), "{said}");
    let livepatch = &said["livepatches"][0];
    ensure!(livepatch["module"] == "livepatch_pause" && livepatch["in_force"] == true, "{livepatch}");
    ensure!(livepatch["build_id"].is_string() && livepatch["ours"]["shows_claim"] == true, "{livepatch}");
    let function = &livepatch["patches"][0]["functions"][0];
    ensure!(function["symbols"] == 1 && function["redirected"] != false, "{function}");
    ensure!(said["journal"]["broken"].is_null(), "{}", said["journal"]);
    let head = said["journal"]["head"].as_str().context("a head")?;
    ensure!(update(machine, &["history", "--verify", "--head", head])?.status == 0);
    let other = "00000000-0000-4000-8000-000000000000";
    ensure!(update(machine, &[&check[..], &[other]].concat())?.status == 4, "another boot should be refused");

    let vex = vex(machine)?;
    ensure!(vex["status"] == "not_affected", "{vex}");
    ensure!(vex["justification"] == "inline_mitigations_already_exist", "{vex}");
    let purl = vex["products"][0]["identifiers"]["purl"].as_str().context("a package URL")?;
    let package = format!("pkg:deb/debian/linux-image-{}@", machine.sh("uname -r")?);
    ensure!(purl.starts_with(&package) && purl.ends_with("?arch=amd64"), "{purl}");
    Ok(())
}

#[test]
fn a_sleeper_in_the_patched_function_is_named_and_moved_by_the_freezer() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    start_sleeper(&machine, "pause")?;
    let manifest = stage.publish(&machine, &kernel_fix("pause-1", Livepatch::Pause))?;

    let applied = update(&machine, &["apply", &manifest])?;
    ensure!(applied.status == 0, "the transition should have been completed");
    let said = applied.text() + &applied.complaint();
    ensure!(said.contains("sleeper"), "the task that held it back should have been named");
    ensure!(livepatches(&machine)? == "livepatch_pause");
    ensure!(machine.sh("cat /sys/kernel/livepatch/livepatch_pause/transition")? == "0");
    // It was moved, not ended, and nothing stays frozen.
    ensure!(machine.sh("systemctl is-active sleeper-pause")? == "active");
    ensure!(
        machine
            .sh("grep -l 1 /sys/fs/cgroup/*/cgroup.freeze /sys/fs/cgroup/*/*/cgroup.freeze || true")?
            .is_empty()
    );

    what_the_kernel_shows_is_said_and_checked(&machine)?;

    ensure!(update(&machine, &["rollback"])?.status == 0);
    let vex = vex(&machine)?;
    ensure!(vex["status"] == "affected" && vex["action_statement"].is_string(), "it is open again: {vex}");
    ensure!(livepatches(&machine)?.is_empty());
    ensure!(
        machine.sh("grep -c livepatch_pause /proc/modules || true")? == "0",
        "the module should be unloaded"
    );
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

#[test]
fn a_task_that_cannot_be_moved_makes_the_patch_go_back_at_the_deadline() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    start_sleeper(&machine, "vfork")?;
    let draft = Draft { deadline: "15s".to_owned(), ..kernel_fix("vfork-1", Livepatch::Vfork) };
    let manifest = stage.publish(&machine, &draft)?;

    let applied = update(&machine, &["apply", &manifest])?;
    ensure!(applied.status == 1, "expected exit code 1, found {}", applied.status);
    let said = applied.text() + &applied.complaint();
    ensure!(
        said.contains("sleeper") && said.contains("vfork"),
        "expected the task and its stack in:\n{said}"
    );
    ensure!(livepatches(&machine)?.is_empty());
    ensure!(machine.sh("grep -c livepatch_vfork /proc/modules || true")? == "0");
    ensure!(machine.sh("systemctl is-active sleeper-vfork")? == "active");
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

#[test]
fn a_stuck_task_is_killed_where_the_manifest_permits_it_for_its_container() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    machine.sh("runc exec --detach web /usr/bin/sleeper vfork
        until grep -q vfork /proc/$(pgrep -o sleeper)/stack; do sleep 0.1; done")?;
    let draft = Draft {
        deadline: "3m".to_owned(),
        stuck: "
      stuck:
        - {containers: {ids: [other]}, action: wait}
        - {containers: {ids: [web]}, action: kill}"
            .to_owned(),
        ..kernel_fix("vfork-1", Livepatch::Vfork)
    };
    let manifest = stage.publish(&machine, &draft)?;
    let planned = update(&machine, &["plan", &manifest])?;
    ensure!(planned.status == 0 && planned.text().contains("web"), "the plan names who is meant");

    let applied = update(&machine, &["apply", &manifest])?;
    ensure!(applied.status == 0, "exit code {}", applied.status);
    let said = applied.text() + &applied.complaint();
    ensure!(said.contains("killed") && said.contains("sleeper"), "expected who was killed in:\n{said}");
    ensure!(machine.sh("update show")?.contains("sleeper"), "and afterwards");
    ensure!(livepatches(&machine)? == "livepatch_vfork");
    ensure!(machine.sh("pgrep -c sleeper")? == "1", "its child is not stuck, and is left alone");
    ensure!(machine.sh("runc list -q | sort | xargs")? == "other web", "their container is not");
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

#[test]
fn a_patch_that_replaces_all_others_is_applied_and_the_others_come_back() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    for (name, livepatch) in
        [("one", Livepatch::Cmdline), ("two", Livepatch::Version), ("all", Livepatch::All)]
    {
        let manifest = stage.publish(&machine, &kernel_fix(name, livepatch))?;
        ensure!(update(&machine, &["apply", &manifest])?.status == 0);
    }
    ensure!(livepatches(&machine)? == "livepatch_all");
    ensure!(machine.sh("cat /proc/cmdline")? == "hidden by livepatch_all");
    ensure!(
        machine.sh("grep -c '^livepatch' /proc/modules")? == "1",
        "the replaced modules should be unloaded"
    );

    ensure!(update(&machine, &["rollback"])?.status == 0);
    ensure!(livepatches(&machine)? == "livepatch_cmdline livepatch_version");
    ensure!(machine.sh("cat /proc/cmdline")? == "hidden by livepatch_cmdline");
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

#[test]
fn a_boot_applies_again_what_was_committed_and_a_crash_does_not() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let mut machine = stage.open(&lab)?.machine;
    let first = stage.publish(&machine, &kernel_fix("one", Livepatch::Cmdline))?;
    let second = stage.publish(&machine, &kernel_fix("two", Livepatch::Version))?;
    ensure!(update(&machine, &["apply", &first])?.status == 0);

    // One second after a load the patch is no longer under suspicion.
    machine.guest().write_file("/etc/update/update.yaml", b"crash_guard: 1s\n", 0o644)?;
    machine.sh("sync")?;
    machine.shut_down()?;
    machine.boot_again()?;
    ensure!(livepatches(&machine)? == "livepatch_cmdline", "an orderly reboot applies the livepatch again");
    ensure!(machine.sh("cat /proc/cmdline")? == "hidden by livepatch_cmdline");
    // The first one has survived; the second one is blamed for the crash that follows it.
    machine.sh("sleep 1; update resume --survived; rm /etc/update/update.yaml")?;
    ensure!(update(&machine, &["apply", &second])?.status == 0);
    machine.cut_power()?;
    machine.boot_again()?;

    ensure!(
        livepatches(&machine)? == "livepatch_cmdline",
        "a patch that may have crashed the host stays out"
    );
    let status = update(&machine, &["status", "--json"])?;
    // One object a line: the report, then that something is not as it should be.
    let status: Value = serde_json::from_str(status.text().lines().next().context("a report")?)?;
    ensure!(
        status.to_string().contains("livepatch_version"),
        "the status should name what is missing: {status}"
    );
    let journal = machine.sh("journalctl -b -u update-resume.service --no-pager")?;
    ensure!(journal.contains("livepatch_version"), "the unit should say what it left out:\n{journal}");
    let resumed = update(&machine, &["resume"])?;
    ensure!(resumed.status == 6, "a person has to decide: expected exit code 6, found {}", resumed.status);

    let again = update(&machine, &["apply", "--retry-quarantined", &second])?;
    ensure!(again.status == 0, "an operator can insist");
    ensure!(livepatches(&machine)? == "livepatch_cmdline livepatch_version");
    ensure!(!machine.sh("cat /proc/cmdline")?.contains(SECRET));
    Ok(())
}

/// The module with other bytes in its build id: what somebody else built under the same name.
fn rebuilt(module: &std::path::Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(module)?;
    // An ELF note of type 3 (NT_GNU_BUILD_ID) with 20 bytes of description.
    let note = [&[4_u32, 20, 3].map(u32::to_le_bytes).concat()[..], b"GNU\0"].concat();
    let at = bytes.windows(note.len()).position(|window| window == note).context("a build id")?;
    bytes[at + note.len()..][..20].fill(0xee);
    Ok(bytes)
}

#[test]
fn somebody_elses_module_of_our_name_is_told_apart_and_left_alone() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    let manifest = stage.publish(&machine, &kernel_fix("one", Livepatch::Cmdline))?;
    ensure!(update(&machine, &["apply", &manifest])?.status == 0);

    machine.sh(&Livepatch::Cmdline.unload_by_hand())?;
    let other = rebuilt(&stage.props.livepatches.path(Livepatch::Cmdline))?;
    machine.guest().write_file("/root/livepatch-cmdline.ko", &other, 0o644)?;
    machine.sh(&Livepatch::Cmdline.load_by_hand())?;

    let foreign = "ee".repeat(20);
    for (arguments, expected) in
        [(&["status"][..], 6), (&["resume"], 6), (&["rollback"], 3), (&["apply", &manifest], 3)]
    {
        let output = update(&machine, arguments)?;
        ensure!(output.status == expected, "{arguments:?}: expected {expected}, found {}", output.status);
        let said = output.text() + &output.complaint();
        ensure!(said.contains(&foreign), "{arguments:?} should name the other build:\n{said}");
        ensure!(livepatches(&machine)? == "livepatch_cmdline", "{arguments:?} took it off");
    }
    machine.sh(&Livepatch::Cmdline.unload_by_hand())?;
    ensure!(update(&machine, &["resume"])?.status == 0, "with the name free, ours comes back");
    ensure!(livepatches(&machine)? == "livepatch_cmdline");
    ensure!(update(&machine, &["status"])?.status == 0);
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

#[test]
fn a_livepatch_stays_and_files_are_mounted_again_when_userspace_is_started_anew() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    let manifest = stage.publish(&machine, &Draft::fix())?;
    ensure!(update(&machine, &["apply", &manifest])?.status == 0);
    let loaded = livepatches(&machine)?;
    let boot = machine.sh("cat /proc/sys/kernel/random/boot_id")?;

    // What `systemctl soft-reboot` does to this host, by hand, where systemd has no such verb (before 254): the
    // containers and their mounts end, userspace gets another invocation, the kernel goes on.
    machine.sh("runc list -q | while read -r id; do runc delete --force \"$id\"; done
        findmnt -rno TARGET -t overlay | tac | while read -r at; do umount \"$at\" || true; done
        systemctl restart --job-mode=ignore-dependencies sysinit.target
        systemctl restart update-resume.service")?;
    ensure!(machine.sh("cat /proc/sys/kernel/random/boot_id")? == boot);
    ensure!(livepatches(&machine)? == loaded, "the livepatch should have stayed");
    let status = update(&machine, &["status"])?;
    ensure!(status.status == 0, "the committed files should be mounted again:\n{}", status.text());
    let journal = machine.sh("journalctl -b -u update-resume.service --no-pager")?;
    ensure!(!journal.contains("would not be noticed"), "systemd should tell its invocation:\n{journal}");
    Ok(())
}

#[test]
fn data_that_a_livepatch_keeps_is_handed_over_and_back_or_its_successor_is_refused() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let machine = stage.open(&lab)?.machine;
    let shown = || machine.sh("cat /proc/cmdline");
    let one = stage.publish(&machine, &kernel_fix("one", Livepatch::StateOne))?;
    let two = stage.publish(&machine, &kernel_fix("two", Livepatch::StateTwo))?;
    let without = stage.publish(&machine, &kernel_fix("without", Livepatch::All))?;
    ensure!(update(&machine, &["apply", &one])?.status == 0);
    ensure!(shown()? == "state 1 by livepatch_state_one");

    let refused = update(&machine, &["apply", &without])?;
    ensure!(refused.status == 3, "expected exit code 3, found {}", refused.status);
    let said = refused.text() + &refused.complaint();
    ensure!(said.contains("state 7 in version 1 or later"), "the refusal should name the state:\n{said}");
    // The kernel says no to that, too, only later and in one word.
    let file = Livepatch::All.file_name();
    machine.guest().push(&stage.props.livepatches.path(Livepatch::All), &format!("/root/{file}"))?;
    ensure!(machine.sh(&format!("insmod /root/{file} 2>&1 || true"))?.contains("Invalid"));

    ensure!(update(&machine, &["apply", &two])?.status == 0);
    ensure!(shown()? == "state 2 by livepatch_state_two");
    ensure!(update(&machine, &["rollback"])?.status == 0);
    ensure!(livepatches(&machine)? == "livepatch_state_one");
    ensure!(shown()? == "state 1 by livepatch_state_one", "the old one has its own data again");
    ensure!(update(&machine, &["rollback"])?.status == 0);
    ensure!(livepatches(&machine)?.is_empty() && machine.splats()?.is_empty());
    Ok(())
}
