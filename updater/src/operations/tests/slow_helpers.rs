//! Dumps and restores that take longer than anybody waits for: they have not failed.
//!
//! The simulated containers panic when a lock is cleared, files are changed or images are removed under one.

use super::*;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST};
use crate::transaction::driver::{Boundary, Onward};

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

#[test]
fn a_slow_restore_comes_back_wherever_the_program_is_killed() {
    let mut cuts = 0;
    for boundary in 0.. {
        let bench = Bench::new();
        bench.containers.make(Trouble::BadFix);
        bench.containers.make(Trouble::SlowRestore);
        if bench.apply_until(MANIFEST, &Cut::at(boundary)).is_ok() {
            break;
        }
        cuts += 1;
        // Once for the restore to be late, once for it to be over.
        let first = bench.resume();
        assert_ne!(
            bench.containers.process("web").map(|process| process.memory),
            Some(0),
            "boundary {boundary}"
        );
        let second = bench.resume();
        let last = second.transactions.first().or(first.transactions.first());
        assert!(
            last.is_none_or(|driven| driven.reached == Reached::Ended(Outcome::RolledBack)),
            "boundary {boundary}: {last:?}"
        );
        whole(&bench, Outcome::RolledBack, &format!("boundary {boundary}"));
    }
    assert!(cuts >= 50, "only {cuts} boundaries");
}

/// From the moment on that one container of two runs on the fix, dumps are slow, and hang.
struct SlowAfterTheFirst<'a>(&'a Bench);

impl system::clock::Interrupt for SlowAfterTheFirst<'_> {
    fn asked(&self) -> bool {
        false
    }
}

impl Boundaries for SlowAfterTheFirst<'_> {
    fn reached(&self, _: &Boundary<'_>) -> Onward {
        let fixed =
            |id| self.0.containers.process(id).is_some_and(|process| process.version == Version::Fixed);
        if fixed("a") {
            self.0.containers.make(Trouble::SlowDump);
            self.0.containers.make(Trouble::Hangs);
        }
        Onward::Continue
    }
}

#[test]
fn a_container_waits_for_the_dump_of_one_that_shares_its_network_namespace() {
    let bench = Bench::with(FakeMachine::new(), |containers| {
        containers.with("a").with("b").sharing("/run/netns/pod")
    });
    let driven = bench.apply_until(MANIFEST, &SlowAfterTheFirst(&bench)).unwrap();
    // Bringing `a` back would take CRIU's lock away, which is that of the namespace, under the dump of `b`.
    assert!(matches!(driven.reached, Reached::NeedsOperator(_)), "{driven:?}");
    assert_eq!(bench.containers.process("a"), None, "it waits as a checkpoint");
    bench.containers.mend();
    assert_eq!(bench.resume().transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    for id in ["a", "b"] {
        let back = bench.containers.process(id).unwrap();
        assert_eq!((back.memory, back.version), (MEMORY, Version::Old), "{id}");
        assert_eq!(bench.containers.peers(id), [Peer::Established], "{id}");
    }
}
