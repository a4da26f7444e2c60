//! The shipped JSON Schema of the rollout policy is that of the types, and the reference page knows every field.
//!
//! After a change of the types: `UPDATE_SCHEMA=1 cargo nextest run -p fleet --test schema`.

#![expect(clippy::disallowed_methods, reason = "a test reads its fixtures")]

#[path = "../../manifests/tests/support/schema.rs"]
mod support;

use std::fs;
use std::path::Path;

use fleet::policy::{PolicyError, RolloutPolicy, json_schema};
use support::keys;

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rollout-policy.yaml")).unwrap()
}

#[test]
fn the_shipped_schema_of_the_rollout_policy_is_that_of_the_types() {
    support::compare(env!("CARGO_MANIFEST_DIR"), "rollout-policy.schema.json", &json_schema());
}

#[test]
fn every_field_of_the_example_is_in_the_schema_and_in_the_reference() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rollout-policy.md");
    let reference = fs::read_to_string(reference).unwrap();
    let schema = json_schema().to_string();
    let policy = RolloutPolicy::parse(example().as_bytes()).unwrap();
    let mut fields = Vec::new();
    keys(&serde_json::to_value(policy).unwrap(), &mut fields);
    assert!(fields.len() > 50, "{fields:?}");
    for field in fields {
        assert!(schema.contains(&format!("\"{field}\":")), "{field} is not in the schema");
        assert!(reference.contains(&format!("`{field}`")), "{field} is not in docs/rollout-policy.md");
    }
}

#[test]
fn each_field_that_means_nothing_is_refused_for_what_is_wrong_with_it() {
    let refusal = |from: &str, to: &str| {
        let changed = example().replace(from, to);
        assert_ne!(changed, example(), "{from}");
        let error = RolloutPolicy::parse(changed.as_bytes()).expect_err(to);
        match std::error::Error::source(&error) {
            Some(source) => source.source().map_or(source.to_string(), ToString::to_string),
            None => error.to_string(),
        }
    };
    for (from, to, words) in [
        ("groups: [web]", "groups: []", "selector.groups"),
        ("groups: [web]", "groups: [web, web]", "selector.groups"),
        ("[kernel, cpu, role]", "[kernel, kernel]", "strata"),
        ("first: 60, growth: 4", "first: 0, growth: 4", "waves.first"),
        ("growth: 20", "growth: 101", "emergency.waves.growth"),
        ("largest: 25%", "largest: 0%", "waves.largest"),
        ("largest: 25%", "largest: 125%", "25%"),
        ("bake: 24h", "bake: 0s", "waves.bake"),
        ("silence: 30m", "silence: 19m", "deadline.silence"),
        ("p1: 0.05", "p1: 0.001", "test.p1"),
        ("alpha: 0.01", "alpha: .nan", "test.alpha"),
        ("ratio: 1.5", "ratio: 1.0", "health: fsync-p99"),
        ("worse: higher", "worse: lower", "health: fsync-p99"),
        ("Europe/Berlin, days", "Europe/Bonn, days", "windows.zone"),
        ("at: \"22:00\"", "at: \"25:00\"", "windows.at"),
        ("for: 6h", "for: 8d", "windows.for"),
        ("until: \"2027-01-04 00:00\"", "until: \"2026-12-01 00:00\"", "freezes"),
        ("within: 7d", "within: 7d, force: true", "force"),
    ] {
        let found = refusal(from, to);
        assert!(found.contains(words), "{to}: {found}");
    }
    let large = format!("{}#{}", example(), "x".repeat(256 << 10));
    assert!(matches!(RolloutPolicy::parse(large.as_bytes()), Err(PolicyError::Yaml(_))));
}

#[test]
fn an_emergency_changes_what_it_says_and_nothing_else() {
    let policy = RolloutPolicy::parse(example().as_bytes()).unwrap();
    let emergency = policy.in_emergency().unwrap();
    assert_eq!(emergency.waves.growth, 20);
    assert_eq!((emergency.approvals.start, emergency.approvals.after_first_wave), (3, 0));
    assert!(emergency.windows.is_empty() && emergency.freezes.is_empty() && emergency.emergency.is_none());
    assert_eq!(
        (emergency.test, &emergency.budgets, &emergency.caps),
        (policy.test, &policy.budgets, &policy.caps)
    );
}
