//! Rooms that are pure stay pure.

#[path = "../../system/tests/support/purity.rs"]
mod purity;

#[test]
fn planning_and_the_transition_function_name_nothing_of_the_operating_system() {
    let found = purity::impure_lines(&["src/plan", "src/transaction/state.rs"]);
    assert!(found.is_empty(), "the same inputs must give the same plan:\n{}", found.join("\n"));
}
