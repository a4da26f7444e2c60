//! Livepatches that replace others, and the way back from them.

use std::fs;

use system::exit::Exit;

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only, module_with_state, replacing_module};

/// A host with three livepatches, each in place of the one before.
fn replaced_twice() -> Bench {
    let bench = Bench::new();
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
    for (name, version) in [("second", 4), ("third", 5)] {
        assert_eq!(bench.apply_replacing(name, version).reached, Reached::Ended(Outcome::Committed));
        assert_eq!(bench.machine.modules(), [name]);
    }
    bench
}

#[test]
fn what_was_replaced_can_be_loaded_again_long_after_the_checkpoints_are_gone() {
    let bench = replaced_twice();
    for left in ["second", "one_function"] {
        bench.machine.step_wall_clock(bench.config().checkpoint_retention * 2);
        bench.engine().collect().unwrap();
        assert_eq!(bench.rollback().unwrap().reached, Reached::Ended(Outcome::Committed));
        assert_eq!(bench.machine.modules(), [left]);
    }
}

#[test]
fn what_no_rollback_would_load_again_is_collected() {
    let bench = replaced_twice();
    bench.rollback().unwrap();
    bench.machine.step_wall_clock(bench.config().checkpoint_retention * 2);
    bench.engine().collect().unwrap();
    let kept = fs::read_dir(bench.store.path().join("payloads")).unwrap().count();
    assert_eq!(kept, 2, "the one that is live, and the one that it replaced");
}

#[test]
fn a_rollback_that_misses_a_payload_is_refused_before_anything_is_touched() {
    let bench = replaced_twice();
    let payload = manifests::Sha256::of(&replacing_module("second"));
    fs::remove_file(bench.store.path().join("payloads").join(payload.to_string())).unwrap();
    let transactions = bench.engine().journal().all().unwrap().len();
    let failure = crate::cli::failures::engine(bench.rollback().unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused);
    let words = failure.for_person();
    assert!(words.contains("livepatch second") && words.contains(&payload.to_string()), "{words}");
    assert_eq!(bench.engine().journal().all().unwrap().len(), transactions, "no transaction was begun");
    assert_eq!(bench.machine.modules(), ["third"]);
}

#[test]
fn a_rollback_keeps_off_what_the_host_may_have_crashed_of() {
    let bench = replaced_twice();
    bench.reboot();
    assert_eq!(bench.resume().quarantined.len(), 3, "all of them were loaded within the window");
    assert_eq!(bench.rollback().unwrap().reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
    assert!(bench.resume().baseline.is_empty());
}

const CLEANS: &str = ", .callbacks = { .post_unpatch = clean }";

#[test]
fn a_livepatch_that_would_lose_the_data_of_the_one_it_replaces_is_refused_and_one_that_takes_it_over_is_not()
{
    for (old, new, expected) in [
        ((Some(2), CLEANS), (Some(2), CLEANS), None),
        ((Some(2), CLEANS), (Some(3), CLEANS), None),
        ((Some(2), CLEANS), (Some(1), CLEANS), Some("state 7 in version 2 or later")),
        ((Some(2), CLEANS), (None, CLEANS), Some("found no such state")),
        ((None, CLEANS), (Some(2), CLEANS), Some("its callback clean")),
        ((Some(2), CLEANS), (Some(3), ""), Some("going back to second")),
        ((None, ""), (None, CLEANS), None),
    ] {
        let bench = Bench::new();
        let (second, third) =
            (module_with_state("second", old.0, old.1), module_with_state("third", new.0, new.1));
        bench.try_apply_module("second", 4, &second).unwrap();
        let context = format!("{old:?}, {new:?}");
        match (bench.try_apply_module("third", 5, &third), expected) {
            (Ok(driven), None) => {
                assert_eq!(driven.reached, Reached::Ended(Outcome::Committed), "{context}");
                assert_eq!(
                    bench.rollback().unwrap().reached,
                    Reached::Ended(Outcome::Committed),
                    "{context}"
                );
            }
            (Err(error), Some(expected)) => {
                let failure = crate::cli::failures::engine(error);
                assert_eq!(failure.exit(), Exit::Refused, "{context}");
                assert!(failure.for_person().contains(expected), "{context}: {}", failure.for_person());
            }
            (result, expected) => panic!("{context}: {result:?}, expected {expected:?}"),
        }
        assert_eq!(bench.machine.modules(), ["second"], "{context}");
    }
}
