//! The scene: what the demo and the tests of transactions take for granted.

use std::time::Duration;

use anyhow::Result;
use vm_tests::fixtures::livepatch::Livepatch;
use vm_tests::lab::Lab;
use vm_tests::scene::{SECRET, Scene};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_containers_serve_hold_connections_and_come_back_after_a_power_cut() -> Result<()> {
    let mut scene = Scene::open(&Lab::for_test()?)?;
    let client = scene.client("web", "held")?;
    let reply = client.ask("hit", PATIENCE)?;
    assert_eq!(reply, "count=1 greeting=hello world (debug: key=hunter2) version=1");
    assert_eq!(client.ask("hit", PATIENCE)?.split(' ').next(), Some("count=2"));
    let fixed = scene.client("other", "fixed")?;
    assert_eq!(fixed.ask("hit", PATIENCE)?, "count=1 greeting=hello world version=2");

    let machine = &mut scene.machine;
    assert_eq!(machine.sh("runc exec web /usr/bin/greetd --check")?, "ok version=1");
    assert_eq!(machine.sh("curl -s http://10.77.1.2:8080/health")?, "ok version=1");
    assert_eq!(machine.sh("curl -s -g 'http://[fd77:1::2]:8080/health'")?, "ok version=1");
    assert_eq!(machine.sh("cat /srv/web/upper/var/lib/greetd/log; sync")?, "hit 1\nhit 2");

    machine.cut_power()?;
    machine.boot_again()?;
    assert_eq!(machine.sh("runc list -q | sort")?, "other\nweb");
    let again = scene.client("web", "again")?;
    // What was in memory is gone, what was in a file is not.
    assert!(again.ask("peek", PATIENCE)?.starts_with("count=0 "));
    assert_eq!(scene.machine.sh("cat /srv/web/rootfs/var/lib/greetd/log")?, "hit 1\nhit 2");
    Ok(())
}

#[test]
fn a_livepatch_changes_what_the_kernel_shows_and_leaves_no_trace_when_gone() -> Result<()> {
    let scene = Scene::open(&Lab::for_test()?)?;
    let machine = &scene.machine;
    assert!(machine.sh("cat /proc/cmdline")?.contains(SECRET));

    for patch in [Livepatch::Cmdline, Livepatch::Version] {
        machine
            .guest()
            .push(&scene.props.livepatches.path(patch), &format!("/root/{}", patch.file_name()))?;
        machine.sh(&patch.load_by_hand())?;
    }
    assert_eq!(machine.sh("cat /proc/cmdline")?, "hidden by livepatch_cmdline");
    assert_eq!(machine.sh("cat /proc/version")?, "hidden by livepatch_version");

    for patch in [Livepatch::Version, Livepatch::Cmdline] {
        machine.sh(&patch.unload_by_hand())?;
    }
    assert!(machine.sh("cat /proc/cmdline")?.contains(SECRET));
    assert_eq!(machine.splats()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_sleeper_in_the_patched_function_holds_a_transition_back() -> Result<()> {
    let scene = Scene::open(&Lab::for_test()?)?;
    for (patch, kind) in [(Livepatch::Pause, "pause"), (Livepatch::Vfork, "vfork")] {
        let (file, name, unload) = (patch.file_name(), patch.module_name(), patch.unload_by_hand());
        scene.machine.guest().push(&scene.props.livepatches.path(patch), &format!("/root/{file}"))?;
        let held = scene.machine.sh(&format!(
            "setsid sleeper {kind} >/dev/null 2>&1 & sleeper=$!
            until grep -q {kind} /proc/$sleeper/stack; do sleep 0.1; done
            insmod /root/{file}; sleep 3
            echo $(cat /sys/kernel/livepatch/{name}/transition) $(cat /proc/$sleeper/patch_state)
            {unload}; pkill -KILL sleeper"
        ))?;
        assert_eq!(held, "1 0", "{kind}");
    }
    assert_eq!(scene.machine.splats()?, Vec::<String>::new());
    Ok(())
}
