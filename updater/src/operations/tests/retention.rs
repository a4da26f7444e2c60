//! What is kept, and how long: checkpoints by age and by size, the journal by age, and never less than a way back needs.

use super::*;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST};

fn version(number: u32) -> String {
    MANIFEST.replace("version: 3", &format!("version: {number}"))
}

/// A host on which a fix was applied and rolled back, twice; the names of the applies.
fn applied_twice() -> (Bench, [String; 2]) {
    let bench = Bench::new();
    let applied = [3, 4].map(|number| {
        let id = bench.apply(&version(number)).unwrap().id.to_string();
        bench.rollback().unwrap();
        id
    });
    (bench, applied)
}

/// Makes the checkpoint of a transaction take so many KiB more.
fn grow(bench: &Bench, id: &str, kib: usize) {
    let images = bench.store.path().join("checkpoints").join(id).join("web/full");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("pages-1.img"), vec![1; kib << 10]).unwrap();
}

fn has_checkpoint(bench: &Bench, id: &str) -> bool {
    bench.store.path().join("checkpoints").join(id).exists()
}

#[test]
fn checkpoints_over_the_quota_go_the_oldest_first() {
    let (bench, [older, newer]) = applied_twice();
    grow(&bench, &older, 700);
    grow(&bench, &newer, 700);
    bench.engine().collect().unwrap();
    assert!(has_checkpoint(&bench, &older) && has_checkpoint(&bench, &newer), "no quota");
    bench.set(Config { checkpoint_quota_mib: Some(1), ..Config::default() });
    bench.engine().collect().unwrap();
    assert!(!has_checkpoint(&bench, &older) && has_checkpoint(&bench, &newer));
}

#[test]
fn no_quota_takes_the_way_back_of_an_unfinished_transaction_away() {
    for boundary in (10..60).step_by(7) {
        let bench = Bench::new();
        bench.set(Config { checkpoint_quota_mib: Some(0), ..Config::default() });
        assert!(bench.apply_until(MANIFEST, &Cut::at(boundary)).is_err());
        bench.engine().collect().unwrap();
        let outcome = match &bench.resume().transactions[0].reached {
            Reached::Ended(outcome) => *outcome,
            other => panic!("boundary {boundary}: {other:?}"),
        };
        whole(&bench, outcome, &format!("boundary {boundary}"));
    }
}

#[test]
fn the_journal_forgets_what_was_undone_long_ago_and_nothing_that_is_in_force() {
    let (bench, _) = applied_twice();
    let in_force = bench.apply(&version(5)).unwrap().id;
    let ids =
        || bench.engine().journal().all().unwrap().into_iter().map(|stored| stored.id).collect::<Vec<_>>();
    bench.engine().collect().unwrap();
    assert_eq!(ids().len(), 5, "nothing is old");
    bench.machine.step_wall_clock(bench.config().journal_retention * 2);
    bench.engine().collect().unwrap();
    assert_eq!(ids(), [in_force]);
    assert_eq!(bench.rollback().unwrap().reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.containers.process("web").unwrap().version, Version::Old);
}

#[test]
fn what_was_undone_lately_does_not_come_into_force_again_when_the_past_is_forgotten() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.machine.step_wall_clock(bench.config().journal_retention * 2);
    bench.rollback().unwrap();
    bench.engine().collect().unwrap();
    assert_eq!(bench.engine().journal().all().unwrap().len(), 2, "both, or neither");
    assert!(matches!(bench.rollback(), Err(EngineError::NothingToRollBack(_))));
}

#[test]
fn fixes_that_would_take_more_than_they_may_are_refused_before_they_are_copied_and_no_way_back_is() {
    let bench = Bench::new();
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
    bench.set(Config { fix_quota_mib: Some(0), ..Config::default() });
    let payloads = || std::fs::read_dir(bench.store.path().join("payloads")).unwrap().count();
    let before = payloads();
    let refused = bench.apply(&version(4)).unwrap_err();
    assert!(matches!(refused, EngineError::OverQuota { limit: 0, to_come: 1024, .. }), "{refused:?}");
    assert_eq!(payloads(), before);
    bench.rollback().unwrap();
    assert!(bench.machine.modules().is_empty());
    bench.set(Config { fix_quota_mib: Some(1), ..Config::default() });
    bench.apply(&version(5)).unwrap();
}
