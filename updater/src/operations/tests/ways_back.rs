//! Ways back that meet an obstacle: nothing is thrown away that could still come back, and nobody is told that it did.

use std::path::PathBuf;

use system::exit::Exit;

use super::*;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST};
use crate::plan::Undo;
use crate::simulated::containers::{Meddling, SLEEPER};
use crate::transaction::state::{Event, StepStatus};

/// A fix that fails its probe, on a host where something stands in the way back as well.
fn stuck(obstacle: Trouble) -> (Bench, Driven) {
    let bench = Bench::new();
    bench.containers.make(Trouble::BadFix);
    bench.containers.make(obstacle);
    let driven = bench.apply(MANIFEST).unwrap();
    let Reached::NeedsOperator(_) = driven.reached else { panic!("{driven:?}") };
    (bench, driven)
}

fn images(bench: &Bench, driven: &Driven) -> PathBuf {
    bench.store.path().join("checkpoints").join(driven.id.as_str()).join("web")
}

fn resumed(bench: &Bench) -> Reached {
    bench.resume().transactions[0].reached.clone()
}

#[test]
fn a_trial_that_does_not_end_keeps_the_memory_and_the_connections_of_the_old_version() {
    let (bench, driven) = stuck(Trouble::Undying);
    assert!(images(&bench, &driven).exists(), "the checkpoint is all that is left of the memory");
    assert_eq!(bench.containers.peers("web"), [Peer::Waiting], "nobody answers for the old version");
    assert_eq!(lowers(&bench), 3, "its files stay below it");
    assert!(matches!(resumed(&bench), Reached::NeedsOperator(_)), "it has still not ended");
    bench.containers.mend();
    assert_eq!(resumed(&bench), Reached::Ended(Outcome::RolledBack));
    whole(&bench, Outcome::RolledBack, "it ended at last");
}

#[test]
fn a_checkpoint_that_does_not_come_back_asks_the_operator_and_the_container_is_not_left_down() {
    let (bench, driven) = stuck(Trouble::NoRestore);
    assert_eq!(bench.containers.process("web").unwrap().version, Version::Old, "started on its old files");
    let stored = bench.engine().journal().transaction(driven.id.as_str()).unwrap();
    let failure = crate::cli::failures::driven(&driven, &stored).unwrap_err();
    assert_eq!(failure.exit(), Exit::NeedsOperator);
    assert!(failure.for_person().contains("its memory is in"), "{failure:?}");
    assert!(images(&bench, &driven).exists());

    let error = bench.apply(MANIFEST).unwrap_err();
    assert!(matches!(error, EngineError::Unfinished { .. }), "nothing new begins: {error:?}");
    assert_eq!(resumed(&bench), Reached::Ended(Outcome::RolledBack), "the operator has been told");
    assert!(images(&bench, &driven).exists(), "and still has the memory");
    nothing_left(&bench, "started anew");
}

#[test]
fn a_container_that_came_back_without_one_of_its_processes_asks_the_operator_and_keeps_the_memory() {
    let (bench, driven) = stuck(Trouble::Lacking);
    let stored = bench.engine().journal().transaction(driven.id.as_str()).unwrap();
    let failure = crate::cli::failures::driven(&driven, &stored).unwrap_err();
    assert_eq!(failure.exit(), Exit::NeedsOperator);
    assert!(failure.for_person().contains(&format!("lacks {SLEEPER}")), "{failure:?}");
    assert!(images(&bench, &driven).exists());
    assert_eq!(resumed(&bench), Reached::Ended(Outcome::RolledBack), "the operator has been told");
    assert!(images(&bench, &driven).exists(), "and still has the memory");
}

#[test]
fn a_process_that_came_back_and_ended_by_itself_is_told_and_is_no_failure() {
    let bench = Bench::new();
    bench.containers.make(Trouble::BadFix);
    bench.containers.make(Trouble::ShortLived);
    let driven = bench.apply(MANIFEST).unwrap();
    rolled_back(&driven);
    whole(&bench, Outcome::RolledBack, "short-lived");
    let stored = bench.engine().journal().transaction(driven.id.as_str()).unwrap();
    let told = |event: &Event| match event {
        Event::Undone { receipt, .. } => receipt["note"] == format!("came back and ended since: {SLEEPER}"),
        _ => false,
    };
    assert!(stored.events.iter().any(|recorded| told(&recorded.event)), "{:?}", stored.events);
    assert!(!images(&bench, &driven).exists(), "its memory runs");
}

#[test]
fn a_checkpoint_that_did_not_come_back_is_tried_again_once_the_operator_ends_what_was_started_instead() {
    let (bench, driven) = stuck(Trouble::NoRestore);
    bench.containers.mend();
    bench.containers.meddle("web", Meddling::Ends);
    assert_eq!(resumed(&bench), Reached::Ended(Outcome::RolledBack));
    whole(&bench, Outcome::RolledBack, "tried again");
    assert!(!images(&bench, &driven).exists(), "its memory runs");
}

#[test]
fn a_container_that_somebody_started_over_its_checkpoint_asks_the_operator_and_keeps_the_memory() {
    let bench = Bench::new();
    bench.containers.make(Trouble::BadFix);
    cut_with_the_container_down(&bench);
    bench.containers.meddle("web", Meddling::Starts);
    let first = bench.resume();
    let Reached::NeedsOperator(_) = first.transactions[0].reached else { panic!("{first:?}") };
    assert!(images(&bench, &first.transactions[0]).exists());
    assert_eq!(resumed(&bench), Reached::Ended(Outcome::RolledBack), "the operator leaves it");
    assert!(images(&bench, &first.transactions[0]).exists());
    nothing_left(&bench, "left");
}

#[test]
fn a_container_that_was_started_at_boot_before_its_restore_keeps_its_checkpoint() {
    let bench = Bench::new();
    bench.containers.make(Trouble::BadFix);
    cut_with_the_container_down(&bench);
    bench.reboot();
    bench.containers.meddle("web", Meddling::Starts);
    let resumed = bench.resume();
    assert_eq!(resumed.transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    assert!(images(&bench, &resumed.transactions[0]).exists());
    assert_eq!(bench.containers.process("web").unwrap().memory, 0);
}

#[test]
fn a_root_file_system_that_is_busy_is_left_as_it_is_and_the_container_comes_back() {
    let bench = Bench::new();
    bench.containers.make(Trouble::BusyRootfs);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("EBUSY"), "{why}");
    whole(&bench, Outcome::RolledBack, "busy");
}

/// Runs an apply and cuts it on its way back, when the old files are there and the restore has not begun.
fn cut_with_the_container_down(bench: &Bench) {
    for boundary in 0.. {
        let dry = Bench::new();
        dry.containers.make(Trouble::BadFix);
        assert!(matches!(dry.apply_until(MANIFEST, &Cut::at(boundary)), Err(EngineError::Stopped { .. })));
        let all = dry.engine().journal().all().unwrap();
        let Some(stored) = all.last() else { continue };
        let restore = stored
            .progress
            .plan()
            .steps
            .iter()
            .position(|step| matches!(step.undo, Undo::RestoreCheckpoint { .. }));
        if matches!(stored.progress.status(restore.unwrap()), Some(StepStatus::Undoing(_))) {
            assert!(bench.apply_until(MANIFEST, &Cut::at(boundary)).is_err());
            assert_eq!(bench.containers.process("web"), None);
            return;
        }
    }
}
