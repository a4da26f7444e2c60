//! Rollbacks of containers that do not run.

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST, Undisturbed};
use crate::state::baseline::Baseline;

/// A host with the fix in force whose container somebody has ended.
fn ended() -> Bench {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.engine().mark_stopping().unwrap();
    bench.containers.end("web");
    bench
}

fn roll_back(bench: &Bench) -> Driven {
    let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &Undisturbed };
    let heeding = hold::Heeding::Heed;
    bench.engine().rollback(None, rollback::Back::Files, heeding, &listeners, &|_, _| {}).unwrap()
}

/// It has its old files now and for the next boots, and was not started.
fn has_old_files(bench: &Bench) {
    let fix = |topology: &Topology| match topology {
        Topology::Overlay(overlay) | Topology::Stored(overlay) => {
            overlay.lower.iter().any(|lower| lower.starts_with(bench.store.path()))
        }
        Topology::Plain => true,
    };
    assert!(!fix(&bench.containers.mounted("web")), "{:?}", bench.containers.mounted("web"));
    let baseline = Baseline::read(&bench.engine().journal()).unwrap();
    assert!(!fix(&baseline.rootfs[0].topology), "{baseline:?}");
    assert_eq!(bench.containers.process("web"), None);
}

#[test]
fn a_rollback_gives_a_container_that_does_not_run_its_old_files_now_and_at_every_boot() {
    let bench = ended();
    assert_eq!(roll_back(&bench).reached, Reached::Ended(Outcome::Committed));
    has_old_files(&bench);
    bench.reboot();
    assert!(!bench.resume().needs_operator());
    has_old_files(&bench);
    bench.containers.start_by_others("web", None);
    assert!(bench.engine().status().unwrap().is_sound());
}

#[test]
fn a_rollback_of_a_container_whose_mount_was_taken_away_too_keeps_the_fix_from_the_next_boot() {
    let bench = ended();
    bench.reboot();
    assert_eq!(roll_back(&bench).reached, Reached::Ended(Outcome::Committed));
    has_old_files(&bench);
}

#[test]
fn a_rollback_of_a_container_that_is_gone_says_so_and_undoes_the_rest() {
    let bench = ended();
    bench.containers.remove("web");
    let of = bench.engine().rollback_target(None).unwrap();
    let plan = bench.engine().plan_rollback(&of, rollback::Back::Files).unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("not there any more")), "{:?}", plan.notes);
    assert_eq!(roll_back(&bench).reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
}
