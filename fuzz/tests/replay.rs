//! Every input of every corpus, read once more on the ordinary build: what once went wrong stays right.

use std::time::{Duration, Instant};

use fuzz::TARGETS;

/// No input is so long that its reader may take longer, on a busy machine and without optimisation.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn every_input_of_every_corpus_is_read_or_refused_and_soon() {
    for target in TARGETS {
        let corpus = target.corpus().unwrap();
        assert!(corpus.len() >= 3, "{} has {} inputs", target.name, corpus.len());
        for (number, input) in corpus.iter().enumerate() {
            let begun = Instant::now();
            let outcome = std::panic::catch_unwind(|| target.run(input));
            assert!(outcome.is_ok(), "{} fails on input {number} (see above): {input:02x?}", target.name);
            let took = begun.elapsed();
            assert!(took < LONG, "{} took {took:?} for input {number}", target.name);
        }
    }
}

#[test]
fn targets_have_names_of_their_own_and_inputs_that_fit() {
    for (index, target) in TARGETS.iter().enumerate() {
        assert!(TARGETS[..index].iter().all(|other| other.name != target.name), "{}", target.name);
        let corpus = target.corpus().unwrap();
        let fitting = corpus.iter().filter(|input| input.len() <= target.longest).count();
        assert!(fitting * 2 > corpus.len(), "{}: {fitting} of {} inputs fit", target.name, corpus.len());
    }
}
