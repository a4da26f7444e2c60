//! `on_failure: workload`: a container that fails goes back alone, and the rest goes on.

use super::*;
use crate::operations::reports::Changed;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST};

/// Two containers, of which `a` passes its probes only so many times on the fix.
fn host(passes: u32) -> Bench {
    let bench = Bench::with(FakeMachine::new(), |containers| containers.with("a").with("b"));
    bench.containers.spoil("a", passes);
    bench
}

fn alone() -> String {
    MANIFEST.replace("    format: tar\n", "    format: tar\n    on_failure: workload\n    concurrency: 2\n")
}

/// `a` is as it was, `b` and the kernel are fixed.
fn expect_a_alone_went_back(bench: &Bench, context: &str) {
    let (a, b) = (bench.containers.process("a").unwrap(), bench.containers.process("b").unwrap());
    assert_eq!((a.memory, a.version), (MEMORY, Version::Old), "{context}: a");
    assert_eq!(bench.containers.peers("a"), [Peer::Established], "{context}: the connections of a");
    assert_eq!(b.version, Version::Fixed, "{context}: b");
    assert_eq!(bench.machine.modules(), ["one_function"], "{context}");
    nothing_left(bench, context);
    assert!(bench.engine().status().unwrap().is_sound(), "{context}: status");
}

#[test]
fn a_failing_probe_of_one_tenant_takes_back_that_tenant_only() {
    // At its probe step, and during the settle time.
    for passes in [0, 1, 2] {
        let bench = host(passes);
        let applied = bench.apply_all(&alone());
        expect_a_alone_went_back(&bench, &format!("{passes}"));
        let Changed::Committed { given_up, .. } = Changed::by_apply(&applied) else { panic!("{applied:?}") };
        assert_eq!(given_up.len(), 1, "{passes}");
        assert!(given_up[0].why.contains("the greeting is wrong"), "{given_up:?}");
        // It goes on running what is at fault, so it is affected the next time.
        let again = bench.plan(&alone()).unwrap();
        let affected: Vec<_> =
            again.containers.iter().map(|planned| planned.container.id.to_string()).collect();
        assert_eq!(affected, ["a"]);
    }
}

#[test]
fn by_default_a_failing_probe_takes_all_back() {
    let bench = host(0);
    assert_eq!(bench.apply(MANIFEST).unwrap().reached, Reached::Ended(Outcome::RolledBack));
    for id in ["a", "b"] {
        assert_eq!(bench.containers.process(id).unwrap().version, Version::Old, "{id}");
    }
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
}

#[test]
fn a_rollback_leaves_the_one_that_went_back_alone() {
    let bench = host(0);
    bench.apply(&alone()).unwrap();
    let before = bench.containers.process("a");
    assert_eq!(bench.rollback().unwrap().reached, Reached::Ended(Outcome::Committed));
    assert_eq!(bench.containers.process("a"), before);
    assert_eq!(bench.containers.process("b").unwrap().version, Version::Old);
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
}

#[test]
fn a_kill_at_any_boundary_resumes_to_all_old_or_to_all_but_one() {
    let mut cuts = 0;
    for boundary in 0.. {
        let bench = host(0);
        if bench.apply_until(&alone(), &Cut::at(boundary)).is_ok() {
            break;
        }
        cuts += 1;
        bench.resume();
        let context = format!("boundary {boundary}");
        let all = bench.engine().journal().all().unwrap();
        match all.last().map_or(Outcome::RolledBack, |stored| stored.outcome().unwrap()) {
            Outcome::Committed => expect_a_alone_went_back(&bench, &context),
            Outcome::RolledBack => {
                for id in ["a", "b"] {
                    let process = bench.containers.process(id).unwrap();
                    assert_eq!((process.memory, process.version), (MEMORY, Version::Old), "{context}: {id}");
                }
                assert_eq!(bench.machine.modules(), <[String; 0]>::default(), "{context}");
                nothing_left(&bench, &context);
            }
        }
    }
    assert!(cuts > 80, "only {cuts} boundaries");
}
