//! What an apply that begins no transaction says, and that it counts.

use serde_json::{Value, json};
use workloads::model::ObstacleKind;

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only};
use crate::simulated::machine::FakeMachine;
use crate::state::floors::read_floor;

/// The layer part of the manifest alone, which skips what cannot be checkpointed.
fn layer_that_skips() -> String {
    let (head, rest) = MANIFEST.split_once("  - kind: livepatch").unwrap();
    let text = head.to_owned() + &rest[rest.find("  - kind: layer").unwrap()..];
    text.replace("checkpoint: fail", "checkpoint: skip")
}

fn as_json(plan: &crate::plan::Plan) -> Value {
    serde_json::to_value(Changed::nothing(plan)).unwrap()
}

#[test]
fn a_manifest_whose_containers_are_all_skipped_is_not_called_in_force() {
    let bench = Bench::with(FakeMachine::new(), |all| {
        all.with("web").with_obstacle(ObstacleKind::IoUring, "descriptor 7")
    });
    let plan = bench.plan(&layer_that_skips()).unwrap();
    assert!(plan.is_empty());
    assert_eq!(as_json(&plan), json!({ "result": "skipped", "skipped": ["web"] }));
    let words = super::super::plan::render(&plan).to_string();
    assert!(words.starts_with("nothing is done: 1 affected"), "{words}");
    assert!(!words.contains("has all of it"), "{words}");

    let live = Bench::new();
    live.apply(&livepatch_only(MANIFEST)).unwrap();
    let plan = live.plan(&livepatch_only(MANIFEST)).unwrap();
    assert_eq!(as_json(&plan), json!({ "result": "nothing-to-do", "skipped": [] }));
}

#[test]
fn an_apply_with_nothing_to_do_raises_the_floors() {
    let bench = Bench::with(FakeMachine::new(), |none| none);
    let floor = || read_floor(&bench.engine().journal()).unwrap();
    assert!(floor().versions.is_empty() && floor().clock.is_none());
    let applied = bench.apply_all(&layer_that_skips());
    assert!(matches!(applied, Applied::Nothing(_)), "{applied:?}");
    assert_eq!(floor().versions.values().next().map(|seen| seen.version), Some(3));
    assert!(floor().clock.is_some());
}
