//! The first minutes on a machine that has Debian 12, Rust, gcc and nothing else.

use anyhow::Result;
use vm_tests::lab::cache::Cache;
use vm_tests::newcomer::stories;

#[test]
fn a_bare_machine_gets_all_that_the_lab_needs() -> Result<()> {
    stories::bare(&Cache::open()?)
}
