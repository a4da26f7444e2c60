//! Whole operations on a simulated host: kernel, containers, packets, power.
//!
//! [`whole`] is the question after everything: is the host all new, or all old?

mod alone;
pub(crate) mod bench;
mod boots;
mod carried;
mod chain;
mod crashes;
mod effects;
mod evidence;
mod foreign;
mod holds;
mod hostile;
pub(crate) mod images;
mod media;
mod one_way_in;
pub(crate) mod packages;
mod policies;
mod refusals;
mod removal;
mod replacing;
mod retention;
mod rolling_back;
mod slow_helpers;
mod standings;
mod stuck;
mod ways_back;

use bench::{Bench, MANIFEST, Signal, livepatch_only};
use workloads::model::{ObstacleKind, Topology};

use system::lock::Looked;

use super::*;
use crate::plan::Feels;
use crate::simulated::containers::{FakeContainers, MEMORY, Peer, Trouble, Version};
use crate::simulated::machine::{FakeMachine, Leaves};
use crate::transaction::state::Outcome;

/// How many lower directories the container's root file system has: one, and one more with the fix.
fn lowers(bench: &Bench) -> usize {
    bench.containers.mounted("web").overlay().map_or(0, |overlay| overlay.lower.len())
}

/// The host is all new or all old, and nothing is left over.
fn whole(bench: &Bench, outcome: Outcome, context: &str) {
    let process =
        bench.containers.process("web").unwrap_or_else(|| panic!("{context}: the container is down"));
    let (modules, memory, version, peer, layers): (&[&str], _, _, _, _) = match outcome {
        Outcome::Committed => (&["one_function"], 0, Version::Fixed, Peer::Reset, 3),
        Outcome::RolledBack => (&[], MEMORY, Version::Old, Peer::Established, 1),
    };
    assert_eq!(bench.machine.modules(), modules, "{context}: modules");
    assert_eq!((process.memory, process.version), (memory, version), "{context}: container");
    assert_eq!(bench.containers.peers("web"), [peer], "{context}: connections");
    assert_eq!(lowers(bench), layers, "{context}: files");
    nothing_left(bench, context);
    assert!(bench.engine().status().unwrap().is_sound(), "{context}: status");
}

fn nothing_left(bench: &Bench, context: &str) {
    assert_eq!(bench.containers.packet_filters(), 0, "{context}: packet filters");
    assert_eq!(bench.machine.frozen(), [], "{context}: frozen groups");
    assert_eq!(bench.machine.leases().outstanding().unwrap(), [], "{context}: leases");
    assert!(bench.engine().journal().unfinished().unwrap().is_empty(), "{context}: unfinished");
}

fn rolled_back(driven: &Driven) -> String {
    assert_eq!(driven.reached, Reached::Ended(Outcome::RolledBack));
    driven.first_error.as_ref().map(|(_, error)| error.clone()).unwrap_or_default()
}

#[test]
fn an_undisturbed_apply_leaves_the_host_all_new() {
    let bench = Bench::new();
    let driven = bench.apply(MANIFEST).unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed));
    whole(&bench, Outcome::Committed, "apply");
}

#[test]
fn a_fix_that_fails_its_probe_gives_the_container_its_memory_and_connections_back() {
    let bench = Bench::new();
    bench.containers.make(Trouble::BadFix);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("the greeting is wrong"), "{why}");
    whole(&bench, Outcome::RolledBack, "bad fix");
}

#[test]
fn a_rollback_of_a_committed_transaction_puts_the_old_files_and_kernel_back() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    let driven = bench.rollback().unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
    let process = bench.containers.process("web").unwrap();
    assert_eq!((process.memory, process.version), (0, Version::Old), "started afresh on its old files");
    nothing_left(&bench, "rollback");
}

#[test]
fn the_whole_manifest_again_is_nothing_to_do() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    assert!(bench.plan(MANIFEST).unwrap().is_empty());
}

#[test]
fn a_kernel_that_patches_more_than_was_claimed_gets_the_livepatch_taken_off_again() {
    let more = crate::simulated::machine::FakeModule {
        functions: vec!["cmdline_proc_show", "sys_setuid"],
        ..Default::default()
    };
    let bench = Bench::new();
    bench.machine.teach("one_function", more);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("vmlinux:sys_setuid,1"), "{why}");
    whole(&bench, Outcome::RolledBack, "more functions");
}

#[test]
fn a_signal_at_any_moment_before_the_commit_gives_the_old_state() {
    let machine = || FakeMachine::new().with_task("web", Leaves::WhenDisturbed);
    let mut turned = 0;
    // The first question is the survey's, when nothing has begun.
    for nth in 1.. {
        let bench = Bench::with(machine(), |containers| containers.with("web"));
        let driven = bench.apply_until(MANIFEST, &Signal::at(nth)).unwrap();
        let Reached::Ended(outcome) = driven.reached else { panic!("question {nth}: {driven:?}") };
        whole(&bench, outcome, &format!("question {nth}"));
        match outcome {
            Outcome::RolledBack => turned += 1,
            Outcome::Committed => break,
        }
    }
    assert!(turned > 30, "only {turned} moments");
}

#[test]
fn an_obstacle_to_the_dump_or_to_a_certain_restore_does_what_the_manifest_says_and_is_told() {
    for kind in [ObstacleKind::IoUring, ObstacleKind::OpenFileOnVolume, ObstacleKind::SharedPidNamespace] {
        let bench =
            Bench::with(FakeMachine::new(), |all| all.with("web").with_obstacle(kind, "descriptor 7"));
        let Err(EngineError::Refused(refusal)) = bench.plan(MANIFEST) else { panic!("{kind:?} was planned") };
        assert!(refusal.to_string().contains(kind.why()), "{refusal}");

        let skip = bench.plan(&MANIFEST.replace("checkpoint: fail", "checkpoint: skip")).unwrap();
        assert!(
            matches!(&skip.containers[0].feels, Feels::Skipped { obstacles } if obstacles[0].contains(kind.why()))
        );

        let restart = MANIFEST.replace("checkpoint: fail", "checkpoint: restart");
        let plan = bench.plan(&restart).unwrap();
        assert!(
            matches!(&plan.containers[0].feels, Feels::RestartWithoutCheckpoint { obstacles } if obstacles[0].contains(kind.why()))
        );
        bench.apply(&restart).unwrap();
        assert_eq!(bench.containers.process("web").unwrap().version, Version::Fixed, "{kind:?}");
        nothing_left(&bench, "restart");
    }
}

#[test]
fn a_host_without_containers_or_runtime_takes_a_livepatch() {
    let bench = Bench::with(FakeMachine::new(), |none: FakeContainers| none);
    bench.containers.make(Trouble::NoRuntime);
    let driven = bench.apply(&livepatch_only(MANIFEST)).unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed));
}

#[test]
fn copies_that_a_crash_left_are_collected_and_recent_ones_are_not() {
    let bench = Bench::new();
    let payloads = bench.store.path().join("payloads");
    std::fs::create_dir(&payloads).unwrap();
    let now = system::clock::Clock::now(&*bench.machine);
    for (name, hours) in [("old", 2), ("recent", 0)] {
        let file = std::fs::File::create(payloads.join(format!(".incoming-{name}"))).unwrap();
        file.set_modified((now - jiff::SignedDuration::from_hours(hours)).into()).unwrap();
    }
    bench.apply(MANIFEST).unwrap();
    assert!(!payloads.join(".incoming-old").exists());
    assert!(payloads.join(".incoming-recent").exists());
}

#[test]
fn a_host_that_is_left_alone_loses_its_old_checkpoints_and_nothing_else() {
    let bench = Bench::new();
    let driven = bench.apply(MANIFEST).unwrap();
    let checkpoint = bench.store.path().join("checkpoints").join(driven.id.as_str());
    std::fs::create_dir_all(&checkpoint).unwrap();
    bench.engine().collect().unwrap();
    assert!(checkpoint.exists());
    bench.machine.step_wall_clock(bench.config().checkpoint_retention);
    {
        let _held = bench.hold("apply other v1");
        assert!(matches!(bench.engine().collect(), Err(EngineError::Lock(LockError::Busy { .. }))));
        assert!(checkpoint.exists(), "not while something is under way");
    }
    bench.engine().collect().unwrap();
    assert!(!checkpoint.exists());
    whole(&bench, Outcome::Committed, "collected");
}
