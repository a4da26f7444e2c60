//! What `update resume` says at boot, as transcripts.

use system::exit::Exit;

use super::*;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST};

/// What an operator sees of a resume, without what changes from run to run.
fn transcript(bench: &Bench) -> String {
    let resumed = bench.resume();
    let mut text = render(&resumed).to_string();
    let mut exit = Exit::Done;
    if let Err(failure) = outcome(&bench.engine(), &resumed) {
        text += &failure.for_person();
        exit = failure.exit();
    }
    format!("$ update resume --boot\n{text}[exit {}]\n", exit.code())
}

#[test]
fn a_host_that_may_have_crashed_of_a_livepatch_does_not_load_it_again_and_says_why() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.reboot();
    let text = transcript(&bench);
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
    insta::assert_snapshot!(text);
}

#[test]
fn a_host_that_was_shut_down_in_order_gets_everything_back() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    insta::assert_snapshot!(transcript(&bench) + &transcript(&bench));
    assert_eq!(bench.machine.modules(), ["one_function"]);
}

#[test]
fn an_interrupted_transaction_is_rolled_back_and_told() {
    let bench = Bench::new();
    assert!(bench.apply_until(MANIFEST, &Cut::at(20)).is_err());
    insta::assert_snapshot!(transcript(&bench));
}

#[test]
fn nothing_to_resume_is_told_too() {
    insta::assert_snapshot!(transcript(&Bench::new()));
}
