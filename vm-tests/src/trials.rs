//! What containers and the peers of their connections feel: on overlays and plain directories, over IPv4 and
//! IPv6, during the trial, at the commit, and when it goes back.
//!
//! The same on every Debian: by the tests on the default one, and by the exam on the others.

use std::time::Duration;

use crate::fixtures::client::Client;
use crate::fixtures::containers::{Container, Rootfs};
use crate::fixtures::greet::{Library, digest_and_size};
use crate::fixtures::livepatch::Livepatch;
use crate::lab::Lab;
use crate::lab::distribution::Distribution;
use crate::lab::machine::Machine;
use crate::product::Build;
use crate::publisher::Draft;
use crate::scene::{self, Scene};
use crate::stage::Stage;
use crate::stepped::Stepped;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(300);
const EVERY: Duration = Duration::from_millis(200);

/// `web` on an overlay, `plain` on a directory, both vulnerable.
fn stage(lab: &Lab, distribution: Distribution) -> Result<Stage> {
    let web = Container::new("web", 1).label("rank", "1");
    let containers = vec![web, Container::new("plain", 3).rootfs(Rootfs::Plain).label("rank", "2")];
    Stage::of(lab, Build::Tests, &scene::spec_on(distribution), containers)
}

/// Something that has to be so on every Debian.
pub type Trial = fn(&Lab, Distribution) -> Result<()>;

/// All of them, each under its name.
pub const TRIALS: [(&str, Trial); 7] = [
    (
        "old connections wait during the trial and learn of the commit at once",
        old_connections_wait_during_the_trial_and_learn_of_the_commit_at_once,
    ),
    (
        "a failed trial gives memory files connections limits and network back",
        a_failed_trial_gives_memory_files_connections_limits_and_network_back,
    ),
    (
        "processes with unusual names come back with their container",
        processes_with_unusual_names_come_back_with_their_container,
    ),
    (
        "containers follow one another in the order of a label or go side by side",
        containers_follow_one_another_in_the_order_of_a_label_or_go_side_by_side,
    ),
    (
        "a container in the hosts network and under systemds control comes back",
        a_container_in_the_hosts_network_and_under_systemds_control_comes_back,
    ),
    (
        "what criu refuses is known before anything is frozen",
        what_criu_refuses_is_known_before_anything_is_frozen,
    ),
    (
        "a tenant whose probe fails goes back alone and memory is kept where it may be",
        a_tenant_whose_probe_fails_goes_back_alone_and_memory_is_kept_where_it_may_be,
    ),
];

/// For every container.
fn everywhere(draft: Draft) -> Draft {
    Draft { containers: String::new(), livepatch: None, ..draft }
}

/// One connection to each container and family.
fn clients(scene: &Scene) -> Result<Vec<Client>> {
    let guest = scene.machine.guest();
    let (web, plain) = (scene.container("web"), scene.container("plain"));
    let clients = vec![
        Client::connect_and_hit(guest, "web-4", &web.address(), EVERY)?,
        Client::connect_and_hit(guest, "web-6", &web.address_v6(), EVERY)?,
        Client::connect_and_hit(guest, "plain-4", &plain.address(), EVERY)?,
    ];
    for client in &clients {
        client.wait_for_replies(2, PATIENCE)?;
    }
    Ok(clients)
}

/// The boundary at which that step is done and recorded.
pub(crate) fn recorded(step: usize) -> impl Fn(&str) -> bool {
    let event = format!("{{\"event\":\"done\",\"step\":{step},");
    move |line| line.contains(" after ") && line.contains(&event)
}

/// Index of the step that does this to the container `web`, or to the host.
pub(crate) fn index_of(machine: &Machine, manifest: &str, action: &str, container: &str) -> Result<usize> {
    let shown: Value = serde_json::from_str(&machine.sh(&format!("update plan --json {manifest}"))?)?;
    let steps = shown["plan"]["steps"].as_array().with_context(|| format!("no steps in {shown}"))?;
    steps
        .iter()
        .map(|step| &step["action"])
        .position(|found| {
            found["action"] == action && found["container"].as_str().is_none_or(|id| id == container)
        })
        .with_context(|| format!("no step `{action}` in {shown}"))
}

/// Held connections hear nothing during a trial, and of the commit at once.
///
/// # Errors
/// If it is not so.
pub fn old_connections_wait_during_the_trial_and_learn_of_the_commit_at_once(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = stage(lab, distribution)?;
    let mut scene = stage.open(lab)?;
    let manifest = stage.publish(&scene.machine, &everywhere(Draft::fix()))?;
    let started = index_of(&scene.machine, &manifest, "start", "web")?;
    let commit = index_of(&scene.machine, &manifest, "commit", "web")?;
    let clients = clients(&scene)?;

    let run = Stepped::start(&mut scene.machine, &format!("update apply {manifest}"))?;
    run.wait_for(&mut scene.machine, recorded(started))?;
    let counts = clients[0].counts()?.len();
    for address in [scene.container("web").address(), scene.container("web").address_v6()] {
        let reply = scene.machine.sh(&format!("echo peek | timeout 60 greetc {address} 7000 | tail -n 1"))?;
        ensure!(
            reply.contains("version=2"),
            "a new connection to {address} reaches the new version: {reply}"
        );
    }
    for client in &clients[..2] {
        ensure!(client.is_running()?, "a held connection must not end: {:?}", client.events()?.last());
    }
    ensure!(clients[0].counts()?.len() == counts, "the old process is gone, nobody can have answered");

    run.go_on(&mut scene.machine)?;
    run.wait_for(&mut scene.machine, recorded(commit))?;
    for client in &clients {
        ensure!(
            client.is_running()?,
            "before the filters go nobody may be told: {:?}",
            client.events()?.last()
        );
    }
    let code = run.finish(&mut scene.machine)?;
    ensure!(code == 0, "exit code {code}:\n{}", run.said(&scene.machine)?);
    for client in &clients {
        let end = client.wait_for_end(Duration::from_secs(5))?;
        ensure!(end.what == "reset", "expected a reset, found {}", end.what);
    }
    ensure!(leftovers(&scene.machine)?.is_empty(), "left: {}", leftovers(&scene.machine)?);
    for id in ["web", "plain"] {
        let library = scene.machine.sh(&format!("sha256sum </srv/{id}/rootfs/usr/lib/libgreet.so.1"))?;
        let expected = digest_and_size(&stage.props.greet.library(Library::Fixed))?;
        ensure!(library.starts_with(&expected.0), "{id} does not have the fixed library");
    }
    ensure!(scene.machine.splats()?.is_empty());
    Ok(())
}

/// A probe that fails brings back everything that can be seen of a container.
///
/// # Errors
/// If it is not so.
pub fn a_failed_trial_gives_memory_files_connections_limits_and_network_back(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = stage(lab, distribution)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let manifest = stage.publish(machine, &everywhere(Draft::broken()))?;
    let clients = clients(&scene)?;
    let before = surroundings(machine)?;

    let applied = machine.command(["update", "apply", &manifest]).timeout(PATIENCE * 2).output()?;
    println!("{}{}", applied.text(), applied.complaint());
    ensure!(applied.status == 1, "expected exit code 1, found {}", applied.status);
    for client in &clients {
        client.wait_for_replies(2, PATIENCE)?;
    }
    // Two clients share the counter of web; each of theirs must only rise, and plain's by one each time.
    for client in &clients {
        let counts = client.counts()?;
        ensure!(counts.windows(2).all(|pair| pair[0] < pair[1]), "the counter went back: {counts:?}");
    }
    let counts = clients[2].counts()?;
    ensure!(counts.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a reply was lost: {counts:?}");
    let after = surroundings(machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    ensure!(leftovers(machine)?.is_empty(), "left: {}", leftovers(machine)?);
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

/// With `on_failure: workload` one container goes back and the rest is committed; and no memory is written to a disk that
/// anybody can read where the settings forbid it.
///
/// # Errors
/// If it is not so.
pub fn a_tenant_whose_probe_fails_goes_back_alone_and_memory_is_kept_where_it_may_be(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = stage(lab, distribution)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    // What the probe runs is in one of the containers only.
    machine.sh("cp -a /srv/web/rootfs/usr/bin/greetd /srv/web/rootfs/usr/bin/probe-me")?;
    let probe =
        "\n      - {kind: exec, command: [/usr/bin/probe-me, --check], timeout: 30s, interval: 500ms}";
    let draft = Draft {
        livepatch: Some(Livepatch::Cmdline),
        on_failure: "workload".to_owned(),
        probes: probe.to_owned(),
        ..everywhere(Draft::fix())
    };
    let manifest = stage.publish(machine, &draft)?;
    let plain = scene.container("plain").address();
    let client = Client::connect_and_hit(machine.guest(), "plain", &plain, EVERY)?;
    client.wait_for_replies(2, PATIENCE)?;
    let apply = || machine.command(["update", "apply", &manifest, "--json"]).timeout(PATIENCE * 2).output();

    // Nobody's memory is written to a disk that anybody can read.
    machine.guest().write_file("/etc/update/update.yaml", b"checkpoint_medium: private\n", 0o644)?;
    let refused = apply()?;
    ensure!(refused.status == 3, "exit code {}:\n{}", refused.status, refused.text());
    ensure!(refused.text().contains("checkpoint_medium: private"), "{}", refused.text());
    let settings = b"checkpoint_medium: private\ncheckpoints: /run/update/checkpoints\n";
    machine.guest().write_file("/etc/update/update.yaml", settings, 0o644)?;

    let applied = apply()?;
    println!("{}{}", applied.text(), applied.complaint());
    ensure!(applied.status == 0, "exit code {}", applied.status);
    let last: Value = serde_json::from_str(applied.text().lines().last().context("no answer")?)?;
    let given_up = last["given_up"].to_string();
    ensure!(given_up.contains("plain") && !given_up.contains("web"), "{last}");
    ensure!(machine.sh("update show")?.contains("plain"));
    ensure!(machine.sh("ls /sys/kernel/livepatch")? == Livepatch::Cmdline.module_name());
    for (id, version) in [("web", "version=2"), ("plain", "version=1")] {
        let address = scene.container(id).address();
        let reply = machine.sh(&format!("echo peek | timeout 60 greetc {address} 7000 | tail -n 1"))?;
        ensure!(reply.contains(version), "{id}: {reply}");
    }
    client.wait_for_replies(2, PATIENCE)?;
    let counts = client.counts()?;
    ensure!(counts.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a reply was lost: {counts:?}");
    let kept = machine.sh("find /run/update/checkpoints /var/lib/update -name 'pages-*.img'")?;
    ensure!(!kept.contains("/var/lib/update"), "memory on the disk:\n{kept}");
    ensure!(kept.contains("/web/"), "the checkpoint of what was committed is kept:\n{kept}");
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

/// The names of all processes in `web`, as bytes.
fn names(machine: &Machine) -> Result<String> {
    machine.sh("for pid in $(runc ps --format json web | tr -d '[]' | tr , ' '); do od -An -tx1 </proc/$pid/comm; done | sort")
}

/// Names of processes are bytes; and what sleeps comes back, though some programs take that for the end of their sleep.
///
/// # Errors
/// If it is not so.
pub fn processes_with_unusual_names_come_back_with_their_container(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = stage(lab, distribution)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    // The kernel cuts a name at 15 bytes: here after a blank, and inside of a character.
    for file in ["watch over our flock", "count-14-bytesä", "plain-counter"] {
        let script = b"#!/usr/bin/sh\nwhile :; do sleep 1000; done\n";
        machine.guest().write_file(&format!("/srv/web/rootfs/usr/bin/{file}"), script, 0o755)?;
        machine.sh(&format!(
            "runc exec web /usr/bin/sh -c \"exec /usr/bin/busybox setsid '/usr/bin/{file}' </dev/null >/dev/null 2>&1 &\""
        ))?;
    }
    machine.sh("sleep 2")?;
    let before = names(machine)?;
    ensure!(before.lines().count() >= 4, "the processes are not there: {before}");
    let manifest = stage.publish(machine, &Draft { livepatch: None, ..Draft::broken() })?;

    let applied = machine.command(["update", "apply", &manifest]).timeout(PATIENCE * 2).output()?;
    println!("{}{}", applied.text(), applied.complaint());
    ensure!(applied.status == 1, "expected exit code 1, found {}", applied.status);
    let after = names(machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    ensure!(leftovers(machine)?.is_empty(), "left: {}", leftovers(machine)?);

    // It has a time namespace now, and what is executed in it has not.
    machine
        .sh(&format!("update plan {manifest} >/dev/null && runc exec --detach web /usr/bin/sleep 1000"))?;
    let plan = machine.command(["update", "plan", &manifest]).timeout(PATIENCE).output()?;
    let said = plan.text() + &plan.complaint();
    ensure!(plan.status == 3 && said.contains("time namespace"), "exit code {}:\n{said}", plan.status);
    Ok(())
}

/// The manifest decides what goes first and what goes together.
///
/// # Errors
/// If it is not so.
pub fn containers_follow_one_another_in_the_order_of_a_label_or_go_side_by_side(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = stage(lab, distribution)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let steps = |name: &str, how: &str| -> Result<Vec<String>> {
        let containers = format!("\n    order: {{by: label, name: rank}}\n    concurrency: {how}");
        let draft = Draft { name: name.to_owned(), containers, livepatch: None, ..Draft::fix() };
        machine.sh(&format!("update apply {}", stage.publish(machine, &draft)?))?;
        let last = machine.sh("update history --json | tail -n 1")?;
        let last: Value = serde_json::from_str(&last)?;
        let id = last["id"].as_str().with_context(|| format!("no id in {last}"))?;
        let story = machine.sh(&format!("update show --json {id}"))?;
        let story: Value = serde_json::from_str(&story)?;
        let steps = story["steps"].as_array().with_context(|| format!("no steps in {story}"))?;
        Ok(steps.iter().filter_map(|step| step["title"].as_str()).map(str::to_owned).collect())
    };
    let position = |steps: &[String], title: &str| {
        steps.iter().position(|step| step == title).with_context(|| format!("no `{title}` in {steps:?}"))
    };

    // By name `plain` would be first.
    let alone = steps("one-at-a-time", "1")?;
    ensure!(position(&alone, "probe web")? < position(&alone, "pre-dump plain")?, "{alone:?}");
    machine.sh("update rollback")?;
    let together = steps("side-by-side", "2")?;
    for (one, other) in [("web", "plain"), ("plain", "web")] {
        let (down, up) = (format!("checkpoint {one}"), format!("start {other}"));
        ensure!(position(&together, &down)? < position(&together, &up)?, "{together:?}");
    }
    for id in ["web", "plain"] {
        let reply = machine.sh(&format!("echo peek | greetc {} 7000", scene.container(id).address()))?;
        ensure!(reply.contains("version=2"), "{id}: {reply}");
    }
    ensure!(leftovers(machine)?.is_empty(), "left: {}", leftovers(machine)?);
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

/// Neither a namespace nor a control group of its own is needed.
///
/// # Errors
/// If it is not so.
pub fn a_container_in_the_hosts_network_and_under_systemds_control_comes_back(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let stage = stage(lab, distribution)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let mut config = scene.container("web").config();
    config["linux"]["cgroupsPath"] = "lab.slice:lab:web".into();
    let namespaces = config["linux"]["namespaces"].as_array_mut().context("namespaces")?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    machine.guest().write_file("/srv/web/config.json", &serde_json::to_vec(&config)?, 0o644)?;
    machine.sh("set -e; runc delete --force web
        runc --systemd-cgroup run --detach --bundle /srv/web web </dev/null >/dev/null 2>&1")?;
    let client = Client::connect_and_hit(machine.guest(), "host", "127.0.0.1", EVERY)?;
    client.wait_for_replies(2, PATIENCE)?;
    // The empty filter tables that CRIU's lock makes stay: in the host's namespace they could be somebody's.
    let around = || {
        machine.sh("cd /sys/fs/cgroup/lab.slice/lab-web.scope; cat memory.max pids.max
            systemctl is-active lab-web.scope; nft list ruleset | grep -e drop -e update -e CRIU -e jump
            ss -Htln | awk '{print $4}' | sort")
    };
    let before = around()?;
    ensure!(before.contains("active") && before.contains(":7000"), "{before}");

    let apply = |draft: Draft, code| -> Result<()> {
        let manifest = stage.publish(machine, &Draft { livepatch: None, ..draft })?;
        let applied = machine.command(["update", "apply", &manifest]).timeout(PATIENCE * 2).output()?;
        println!("{}{}", applied.text(), applied.complaint());
        ensure!(applied.status == code, "expected exit code {code}, found {}", applied.status);
        Ok(())
    };
    apply(Draft::broken(), 1)?;
    client.wait_for_replies(2, PATIENCE)?;
    let counts = client.counts()?;
    ensure!(counts.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a reply was lost: {counts:?}");
    let after = around()?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");

    apply(Draft::fix(), 0)?;
    let end = client.wait_for_end(Duration::from_secs(30))?;
    ensure!(end.what == "reset", "expected a reset, found {}", end.what);
    let after = around()?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    ensure!(machine.sh("echo peek | greetc 127.0.0.1 7000")?.contains("version=2"));
    machine.sh("update rollback")?;
    ensure!(machine.sh("echo peek | greetc 127.0.0.1 7000")?.contains("version=1"));
    ensure!(machine.splats()?.is_empty());
    Ok(())
}

/// What CRIU refuses, and a word of what the plan says of it.
const OBSTACLES: [(&str, &str); 6] = [
    ("io_uring", "io_uring"),
    ("uffd", "userfaultfd"),
    ("pidfd", "process descriptors"),
    ("mqueue", "message queue"),
    ("af_alg", "sockets of this family"),
    ("traced", "traced"),
];

/// The plan says what CRIU would refuse.
///
/// # Errors
/// If it is not so.
pub fn what_criu_refuses_is_known_before_anything_is_frozen(
    lab: &Lab,
    distribution: Distribution,
) -> Result<()> {
    let containers = OBSTACLES
        .iter()
        .zip(1..)
        .map(|((kind, _), number)| {
            Container::new(&kind.replace('_', "-"), number).arguments(&["--obstacle", kind])
        })
        .collect();
    let stage = Stage::of(lab, Build::Tests, &scene::spec_on(distribution), containers)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;

    let refused = stage.publish(machine, &Draft { name: "fail".to_owned(), ..everywhere(Draft::fix()) })?;
    let plan = machine.command(["update", "plan", &refused]).timeout(PATIENCE).output()?;
    let said = plan.text() + &plan.complaint();
    println!("{said}");
    ensure!(plan.status == 3, "expected exit code 3, found {}", plan.status);
    let skipped =
        Draft { name: "skip".to_owned(), without_checkpoint: "skip".to_owned(), ..everywhere(Draft::fix()) };
    let plan = machine.sh(&format!("update plan {}", stage.publish(machine, &skipped)?))?;
    for (kind, word) in OBSTACLES {
        let id = kind.replace('_', "-");
        let dump = machine
            .command(["runc", "checkpoint", "--leave-running", "--image-path", &format!("/root/{id}"), &id])
            .timeout(PATIENCE)
            .output()?;
        let (refused, told) = (dump.status != 0, said.contains(word));
        ensure!(refused == told, "{kind}: CRIU refuses it: {refused}, the plan says so: {told}");
        ensure!(refused || distribution != Distribution::Debian12, "CRIU 3.17.1 dumps {kind} after all");
        let line = plan.lines().find(|line| line.contains(&format!("container {id}:")));
        ensure!(
            line.is_some_and(|line| line.contains("left alone") == refused),
            "{id} should be skipped: {refused}; {line:?}\n{plan}"
        );
    }
    let states = machine.sh("runc list --format json | grep -o '\"status\":\"[a-z]*\"' | sort -u")?;
    ensure!(states == "\"status\":\"running\"", "{states}");
    Ok(())
}

/// Mounts, limits, addresses and filters around the containers.
fn surroundings(machine: &Machine) -> Result<String> {
    machine.sh("for id in web plain; do
            cat /sys/fs/cgroup/lab/$id/memory.max /sys/fs/cgroup/lab/$id/pids.max
            ip -n $id -br address; ip -n $id route; ip -n $id -6 route
            ip netns exec $id nft list ruleset
            sha256sum </srv/$id/rootfs/usr/lib/libgreet.so.1
            echo peek | greetc 10.77.$([ $id = web ] && echo 1 || echo 3).2 7000 | grep -o 'instance=[^ ]*'
        done
        findmnt -rn -o TARGET,FSTYPE | grep ^/srv || true")
}

/// Filters that an update or CRIU forgot.
fn leftovers(machine: &Machine) -> Result<String> {
    machine.sh("for id in web plain; do
            ip netns exec $id nft list tables | grep update || true
            ip netns exec $id iptables-save | grep CRIU || true
            ip netns exec $id ip6tables-save | grep CRIU || true
        done")
}
