//! A host that an operator holds.

use std::time::Duration;

use system::clock::Clock as _;
use system::exit::Exit;

use super::*;
use crate::cli::failures;
use crate::operations::hold::{Held, HoldError, LONGEST, PutOn, Until};
use crate::operations::story::Story;
use crate::operations::tests::bench::Cut;

const HOUR: Duration = Duration::from_secs(3600);

fn put_on(bench: &Bench, length: Duration, reason: &str) -> PutOn {
    bench.engine().put_hold(Until::For(length), &reason.parse().unwrap()).unwrap()
}

fn held(bench: &Bench) -> Held {
    bench.engine().held().unwrap()
}

fn is_held(bench: &Bench) -> bool {
    !held(bench).is_free()
}

/// Refused, with this in the words.
fn refused(result: Result<Driven, EngineError>, why: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, EngineError::Hold(HoldError::Held(_))), "{error:?}");
    let failure = failures::engine(error);
    assert_eq!(failure.exit(), Exit::Refused);
    let text = failure.for_person();
    assert!(text.contains(why) && text.contains("--despite-hold"), "{text}");
}

#[test]
fn nothing_begins_on_a_held_host_and_nothing_is_touched() {
    let bench = Bench::new();
    put_on(&bench, HOUR, "the fair");
    refused(bench.apply(MANIFEST), "the fair");
    assert_eq!(bench.engine().journal().all().unwrap(), []);
    assert!(!bench.store.path().join("payloads").exists(), "no payload was copied");
    let plan = bench.plan(MANIFEST).unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("the fair")), "{:?}", plan.notes);
    assert!(bench.engine().status().unwrap().is_sound(), "a held host is as it should be");
    bench.engine().take_hold_off().unwrap();
    bench.apply(MANIFEST).unwrap();
    put_on(&bench, HOUR, "the feast");
    refused(bench.rollback(), "the feast");
    whole(&bench, Outcome::Committed, "held");
}

#[test]
fn who_goes_past_a_hold_is_in_the_journal() {
    let bench = Bench::new();
    put_on(&bench, HOUR, "the fair");
    bench.go_past_holds();
    bench.apply(MANIFEST).unwrap();
    bench.rollback().unwrap();
    assert_eq!(bench.machine.modules(), <[String; 0]>::default(), "there and back");
    let uid = format!("uid {}", nix::unistd::getuid());
    for stored in bench.engine().journal().all().unwrap() {
        let passed = Story::of(&stored).despite_hold.unwrap();
        assert!(passed.held.contains("the fair") && passed.by.to_string().starts_with(&uid), "{passed:?}");
    }
    bench.engine().take_hold_off().unwrap();
    bench.apply(&MANIFEST.replace("version: 3", "version: 4")).unwrap();
    let last = bench.engine().journal().last().unwrap().unwrap();
    assert_eq!(last.despite, None, "there was none to go past");
    let audit = crate::state::floors::audit(&bench.engine().journal()).unwrap();
    let what: Vec<&str> = audit.iter().map(|(_, _, what)| what.as_str()).collect();
    assert!(
        matches!(what[..], [put, ended] if put.starts_with("held until") && ended.starts_with("hold ended"))
    );
    assert!(audit.iter().all(|(_, who, _)| who.starts_with(&uid)), "{audit:?}");
}

#[test]
fn a_hold_outlives_boots_and_ends_by_itself() {
    let bench = Bench::new();
    put_on(&bench, 3 * HOUR, "the fair");
    bench.machine.sleep(HOUR);
    bench.reboot();
    bench.resume();
    refused(bench.apply(MANIFEST), "the fair");
    bench.machine.sleep(2 * HOUR);
    assert!(!is_held(&bench));
    bench.apply(MANIFEST).unwrap();
}

#[test]
fn a_clock_that_is_set_back_does_not_lengthen_it() {
    let bench = Bench::new();
    put_on(&bench, 3 * HOUR, "the fair");
    bench.machine.sleep(HOUR);
    bench.machine.step_wall_clock_back(1000 * HOUR);
    bench.machine.sleep(HOUR);
    assert_eq!(held(&bench).hold.unwrap().left_s, 3600);
    // An orderly shutdown, and a boot.
    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    bench.machine.step_wall_clock_back(1000 * HOUR);
    bench.resume();
    assert!(is_held(&bench));
    bench.machine.sleep(HOUR);
    assert!(!is_held(&bench));
    // It was seen to be over: it does not come back.
    bench.resume();
    bench.reboot();
    assert!(!is_held(&bench));
}

#[test]
fn a_clock_that_is_set_forward_ends_it_for_good_once_somebody_acted_on_that() {
    let bench = Bench::new();
    put_on(&bench, 3 * HOUR, "the fair");
    bench.machine.step_wall_clock(4 * HOUR);
    bench.apply(MANIFEST).unwrap();
    bench.machine.step_wall_clock_back(4 * HOUR);
    assert!(!is_held(&bench));
}

#[test]
fn what_was_interrupted_is_ended_and_what_is_in_force_comes_back_on_a_held_host() {
    let bench = Bench::new();
    let cut = bench.apply_until(MANIFEST, &Cut::at(20)).unwrap_err();
    assert!(matches!(cut, EngineError::Stopped { .. }), "{cut:?}");
    put_on(&bench, HOUR, "the fair");
    bench.resume();
    whole(&bench, Outcome::RolledBack, "interrupted");
    bench.go_past_holds();
    bench.apply(MANIFEST).unwrap();
    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    assert!(!bench.resume().needs_operator());
    assert_eq!(bench.machine.modules(), ["one_function"]);
    assert!(is_held(&bench));
}

#[test]
fn what_is_under_way_is_told_and_goes_on() {
    let bench = Bench::new();
    assert_eq!(put_on(&bench, HOUR, "the fair").under_way, None);
    let other = bench.hold("apply greet v3");
    let put_on = put_on(&bench, 2 * HOUR, "the feast");
    drop(other);
    assert!(put_on.under_way.unwrap().contains("apply greet v3"));
    assert_eq!(put_on.replaced.unwrap().reason, "the fair");
}

#[test]
fn a_hold_is_neither_over_nor_for_ever() {
    let bench = Bench::new();
    let engine = bench.engine();
    let reason = "the fair".parse().unwrap();
    let past = "2026-01-01T00:00:00Z".parse().unwrap();
    let over = [Until::At(past), Until::For(Duration::ZERO)];
    for until in over {
        let error = engine.put_hold(until, &reason).unwrap_err();
        assert!(matches!(error, EngineError::Hold(HoldError::Over { .. })), "{error:?}");
    }
    for length in [LONGEST + Duration::from_secs(1), Duration::MAX] {
        let error = engine.put_hold(Until::For(length), &reason).unwrap_err();
        assert!(matches!(error, EngineError::Hold(HoldError::TooLong { .. })), "{error:?}");
        assert_eq!(failures::engine(error).exit(), Exit::Usage);
    }
    assert!(held(&bench).is_free());
    engine.put_hold(Until::For(LONGEST), &reason).unwrap();
}

#[test]
fn a_file_holds_a_host_for_as_long_as_it_is_there() {
    let bench = Bench::new();
    bench.write("hold", b"");
    refused(bench.apply(MANIFEST), "hold is there");
    let off = bench.engine().take_hold_off().unwrap();
    assert!(off.ended.is_none() && off.held.file.is_some());
    std::fs::remove_file(bench.payloads().join("hold")).unwrap();
    bench.apply(MANIFEST).unwrap();
}
