//! This crate decides, and does nothing: no file, clock, environment, process or network.

#[path = "../../system/tests/support/purity.rs"]
mod purity;

#[test]
fn no_source_names_the_operating_system() {
    let found = purity::impure_lines(&["src"]);
    assert!(found.is_empty(), "the same facts must give the same decision:\n{}", found.join("\n"));
}
