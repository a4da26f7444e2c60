//! Tasks that are stuck uninterruptibly in a patched function, and the manifest's permission to kill them.

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only};

/// A host with a task of the container `web` that nothing moves.
fn held_back() -> Bench {
    Bench::with(FakeMachine::new().with_task("web", Leaves::Never), |containers| {
        containers.with("web").with("db")
    })
}

fn permitting(rules: &str) -> String {
    let kernel = "    kernel: 6.1.0-50-amd64\n";
    livepatch_only(MANIFEST)
        .replace(kernel, &format!("{kernel}    transition: {{deadline: 2m, stuck: [{rules}]}}\n"))
}

#[test]
fn what_is_stuck_for_good_is_killed_where_the_manifest_permits_it() {
    let bench = held_back();
    let driven = bench.apply(&permitting("{containers: {ids: [web]}, action: kill}")).unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed), "{driven:?}");
    assert_eq!(bench.machine.killed(), [100]);
    assert_eq!(bench.machine.modules(), ["one_function"]);
    let stored = bench.engine().journal().transaction(driven.id.as_str()).unwrap();
    let told = serde_json::to_string(&crate::operations::story::Story::of(&stored)).unwrap();
    assert!(told.contains("\"killed\":[{\"pid\":100"), "the story names it: {told}");
}

#[test]
fn nothing_is_killed_without_permission_or_with_permission_for_others() {
    for rules in [
        "",
        "{containers: {ids: [db]}, action: kill}",
        "{containers: {ids: [web]}, action: wait}, {containers: {ids: [web, db]}, action: kill}",
    ] {
        let bench = held_back();
        let driven = bench.apply(&permitting(rules)).unwrap();
        assert_eq!(driven.reached, Reached::Ended(Outcome::RolledBack), "{rules}");
        assert_eq!(bench.machine.killed(), <[i32; 0]>::default(), "{rules}");
        assert_eq!(bench.machine.modules(), <[String; 0]>::default(), "{rules}");
    }
}

#[test]
fn a_host_without_the_runtime_permits_nothing_and_takes_the_livepatch() {
    let bench = Bench::new();
    bench.containers.make(Trouble::NoRuntime);
    let driven = bench.apply(&permitting("{containers: {ids: [web]}, action: kill}")).unwrap();
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed));
}
