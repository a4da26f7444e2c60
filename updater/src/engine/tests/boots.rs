//! What a boot does with livepatches that the host should have: the crash guard from end to end.

use super::bench::{Bench, MANIFEST, livepatch_only};
use super::*;
use crate::engine::resume::{Became, Resumed};
use crate::host::Clock as _;

/// A host with the livepatch committed.
fn committed() -> Bench {
    let bench = Bench::new();
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
    bench
}

fn became(resumed: &Resumed) -> &Became {
    &resumed.baseline[0].became
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

    let payload = bench.manifest(&livepatch_only(MANIFEST)).payloads().next().unwrap().sha256;
    bench.engine().guards().lift(&payload).unwrap();
    assert_eq!(became(&bench.resume()), &Became::Reapplied);
    assert!(is_loaded(&bench));
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
