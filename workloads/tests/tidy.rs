//! Rooms that are pure stay pure.

#[path = "../../system/tests/support/purity.rs"]
mod purity;

#[test]
fn the_model_names_nothing_of_the_operating_system() {
    let found = purity::impure_lines(&["src/model"]);
    assert!(found.is_empty(), "values only belong here:\n{}", found.join("\n"));
}
