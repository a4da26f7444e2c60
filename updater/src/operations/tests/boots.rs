//! What a boot does with livepatches that the host should have: the crash guard from end to end.

use system::clock::{Clock as _, Interrupt};

use super::*;
use crate::operations::resume::{Became, Resumed};
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only};
use crate::simulated::machine::FakeModule;
use crate::transaction::driver::{Boundary, Onward};
use crate::transaction::state::{Event, StepIndex};

/// A host with the livepatch committed.
fn committed() -> Bench {
    let bench = Bench::new();
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
    bench
}

fn became(resumed: &Resumed) -> &Became {
    &resumed.baseline[0].became
}

fn quarantined(bench: &Bench) -> usize {
    bench.engine().guards().quarantined().unwrap().len()
}

fn is_loaded(bench: &Bench) -> bool {
    bench.machine.modules() == ["one_function"]
}

#[test]
fn a_boot_that_ended_without_a_word_within_the_window_quarantines_the_livepatch_until_an_operator_lifts_it() {
    let bench = committed();
    bench.reboot();
    let resumed = bench.resume();
    assert!(
        matches!(became(&resumed), Became::Quarantined { why } if why.contains("a crash or a power cut"))
    );
    assert_eq!(resumed.quarantined.len(), 1);
    assert!(!is_loaded(&bench) && resumed.needs_operator());

    // It stays so at the next boots, and for an apply.
    bench.reboot();
    assert!(matches!(became(&bench.resume()), Became::Quarantined { .. }));
    let refusal = bench.plan(&livepatch_only(MANIFEST)).unwrap_err();
    assert!(refusal.to_string().contains("has not crashed of"), "{refusal}");

    bench.retry(&livepatch_only(MANIFEST)).unwrap();
    assert!(is_loaded(&bench) && quarantined(&bench) == 0);
    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    assert_eq!(became(&bench.resume()), &Became::Reapplied);
}

#[test]
fn an_orderly_shutdown_or_a_survived_window_loads_it_again() {
    let shut_down = committed();
    shut_down.engine().mark_stopping().unwrap();
    let survived = committed();
    survived.machine.sleep(survived.config().crash_guard);
    assert_eq!(survived.engine().mark_survived().unwrap(), 1);
    for bench in [shut_down, survived] {
        bench.reboot();
        assert_eq!(became(&bench.resume()), &Became::Reapplied);
        assert!(is_loaded(&bench));
        assert_eq!(became(&bench.resume()), &Became::Present, "twice is once");
    }
}

#[test]
fn a_window_that_is_not_over_clears_nothing() {
    let bench = committed();
    bench.machine.sleep(bench.config().crash_guard / 2);
    assert_eq!(bench.engine().mark_survived().unwrap(), 0);
}

#[test]
fn a_crash_during_the_apply_itself_is_blamed_on_the_livepatch_that_was_being_loaded() {
    let bench = Bench::new();
    let requests = {
        let dry = Bench::new();
        dry.apply(&livepatch_only(MANIFEST)).unwrap();
        dry.machine.requests()
    };
    bench.machine.stop_before(requests);
    assert!(bench.died(|| drop(bench.apply(&livepatch_only(MANIFEST)))));
    bench.reboot();
    let resumed = bench.resume();
    assert_eq!(resumed.transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    assert_eq!(resumed.quarantined.len(), 1);
    assert!(bench.plan(&livepatch_only(MANIFEST)).is_err(), "not again without a word from an operator");
}

#[test]
fn a_retry_that_is_refused_or_undone_leaves_the_livepatch_in_quarantine() {
    let bench = committed();
    bench.reboot();
    bench.resume();
    let manifest = livepatch_only(MANIFEST);

    let held = bench.hold("apply other v1");
    assert!(matches!(bench.retry(&manifest), Err(EngineError::Lock(LockError::Busy { .. }))));
    drop(held);
    assert_eq!(quarantined(&bench), 1, "busy");

    let elsewhere = manifest.replace("6.1.0-50-amd64", "6.1.0-51-amd64").replace("version: 3", "version: 4");
    assert!(matches!(bench.retry(&elsewhere), Err(EngineError::Refused(_))));
    assert_eq!(quarantined(&bench), 1, "refused");

    bench.machine.teach("one_function", FakeModule { functions: vec!["sys_setuid"], ..Default::default() });
    let driven = bench.retry(&manifest).unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::RolledBack));
    assert_eq!(quarantined(&bench), 1, "undone");

    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    assert!(matches!(became(&bench.resume()), Became::Quarantined { .. }));
    assert!(!is_loaded(&bench));
}

#[test]
fn an_apply_judges_the_crash_that_no_resume_has_judged() {
    let bench = committed();
    bench.reboot();
    let refusal = bench.apply(&livepatch_only(MANIFEST)).unwrap_err();
    assert!(refusal.to_string().contains("has not crashed of"), "{refusal}");
    assert!(!is_loaded(&bench) && quarantined(&bench) == 1);
}

#[test]
fn the_window_is_measured_by_a_clock_that_nobody_sets() {
    let bench = committed();
    bench.machine.step_wall_clock(bench.config().crash_guard * 2);
    assert_eq!(bench.engine().mark_survived().unwrap(), 0);
    bench.machine.sleep(bench.config().crash_guard);
    assert_eq!(bench.engine().mark_survived().unwrap(), 1);
}

#[test]
fn somebody_looks_for_as_long_as_a_livepatch_is_on_trial_and_no_longer() {
    let bench = committed();
    assert!(bench.is_watched());
    bench.machine.sleep(bench.config().crash_guard / 2);
    bench.engine().mark_survived().unwrap();
    assert!(bench.is_watched());
    bench.machine.sleep(bench.config().crash_guard / 2);
    bench.engine().mark_survived().unwrap();
    assert!(!bench.is_watched());
}

/// An operator asks to stop as soon as this step is done.
struct TurnBackAfter(StepIndex);

impl Interrupt for TurnBackAfter {
    fn asked(&self) -> bool {
        false
    }
}

impl Boundaries for TurnBackAfter {
    fn reached(&self, boundary: &Boundary<'_>) -> Onward {
        match boundary.event {
            Event::Done { step, .. } if *step == self.0 => Onward::TurnBack,
            _ => Onward::Continue,
        }
    }
}

#[test]
fn a_livepatch_that_is_loaded_again_on_a_way_back_is_on_trial_again() {
    let bench = committed();
    bench.machine.sleep(bench.config().crash_guard);
    assert_eq!(bench.engine().mark_survived().unwrap(), 1);
    let driven = bench.rollback_until(&TurnBackAfter(0)).unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::RolledBack));
    assert!(is_loaded(&bench));
    bench.reboot();
    assert!(matches!(became(&bench.resume()), Became::Quarantined { .. }));
}

#[test]
fn a_rollback_that_a_crash_ended_does_not_load_what_the_host_may_have_crashed_of() {
    let bench = committed();
    let cut = super::bench::Cut::at(4);
    assert!(bench.rollback_until(&cut).is_err());
    bench.reboot();
    let resumed = bench.resume();
    assert_eq!(resumed.transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    assert!(matches!(became(&resumed), Became::Quarantined { .. }));
    assert!(!is_loaded(&bench));
}

#[test]
fn a_soft_reboot_keeps_the_livepatch_and_mounts_the_committed_files_again() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.engine().mark_stopping().unwrap();
    bench.soft_reboot();
    assert!(!bench.engine().status().unwrap().is_sound(), "the container's files are not mounted");
    let resumed = bench.resume();
    let became: Vec<_> = resumed.baseline.iter().map(|item| &item.became).collect();
    assert_eq!(became, [&Became::Present, &Became::Reapplied]);
    assert!(is_loaded(&bench) && bench.engine().status().unwrap().is_sound());
}

#[test]
fn a_crash_after_a_soft_reboot_is_blamed_on_a_livepatch_whose_window_is_not_over() {
    let bench = committed();
    // What ends userspace in order has not ended the kernel.
    bench.engine().mark_stopping().unwrap();
    bench.soft_reboot();
    bench.resume();
    assert!(bench.is_watched(), "its trial goes on");
    bench.reboot();
    assert!(matches!(became(&bench.resume()), Became::Quarantined { .. }));
}

#[test]
fn an_operators_resume_while_the_host_is_shut_down_blames_nobody() {
    let bench = committed();
    bench.engine().mark_stopping().unwrap();
    bench.resume();
    bench.reboot();
    assert_eq!(became(&bench.resume()), &Became::Reapplied);
}
