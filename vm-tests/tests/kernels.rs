//! A kernel takes a livepatch that `patch-tools` built for it. Those of the other series are in the exam.

use anyhow::Result;
use vm_tests::lab::Lab;
use vm_tests::series::takes_a_livepatch;

#[test]
fn the_61_of_debian_12_takes_a_livepatch_and_gives_it_back() -> Result<()> {
    takes_a_livepatch(&Lab::for_test()?, "6.1.0-50-amd64")
}
