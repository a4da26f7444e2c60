//! Dumps and restores that take longer than anybody waits for: they have not failed.
//!
//! The simulated containers panic when a lock is cleared, files are changed or images are removed under one.

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST};

fn stored_error(driven: &Driven) -> &str {
    driven.first_error.as_ref().map_or("", |(_, error)| error)
}

#[test]
fn a_dump_that_succeeds_after_its_time_is_undone_like_any_other() {
    let bench = Bench::new();
    bench.containers.make(Trouble::SlowDump);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("still runs after 900s"), "{why}");
    whole(&bench, Outcome::RolledBack, "slow dump");
}

#[test]
fn a_dump_that_does_not_end_stops_the_way_back_until_it_does() {
    let bench = Bench::new();
    let before = bench.containers.process("web");
    bench.containers.make(Trouble::SlowDump);
    bench.containers.make(Trouble::Hangs);
    let driven = bench.apply(MANIFEST).unwrap();
    assert!(matches!(driven.reached, Reached::NeedsOperator(_)), "{driven:?}");
    assert!(stored_error(&driven).contains("pid 4711"), "the operator is told whom to end: {driven:?}");
    assert_eq!(bench.containers.process("web"), before);
    let images = bench.store.path().join("checkpoints").join(driven.id.as_str()).join("web/full");
    assert!(images.exists(), "they are still being written");
    assert!(matches!(bench.resume().transactions[0].reached, Reached::NeedsOperator(_)), "it still hangs");
    bench.containers.mend();
    assert_eq!(bench.resume().transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    whole(&bench, Outcome::RolledBack, "it ended at last");
}

#[test]
fn a_slow_restore_does_not_become_a_start_without_memory() {
    let bench = Bench::new();
    bench.containers.make(Trouble::BadFix);
    bench.containers.make(Trouble::SlowRestore);
    let driven = bench.apply(MANIFEST).unwrap();
    assert!(matches!(driven.reached, Reached::NeedsOperator(_)), "{driven:?}");
    assert_eq!(bench.containers.process("web"), None, "nothing was started in its place");
    assert_eq!(bench.containers.peers("web"), [Peer::Waiting]);
    assert_eq!(bench.resume().transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    whole(&bench, Outcome::RolledBack, "it came back at last");
}

#[test]
fn what_a_failed_checkpoint_itself_brought_back_is_known_as_its_own() {
    let bench = Bench::new();
    let before = bench.containers.process("web").unwrap();
    bench.containers.make(Trouble::UnreadableImages);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("brought back from its images at once"), "{why}");
    assert_ne!(bench.containers.process("web").unwrap().pid, before.pid, "it is another process");
    whole(&bench, Outcome::RolledBack, "brought back");
}
