//! The plug is pulled at step boundaries, one of every five; `vm-tests power-cuts` takes all of them.

use anyhow::Result;
use vm_tests::cuts::{self, Direction, Stride};
use vm_tests::lab::Lab;
use vm_tests::stage::Stage;

const OFTEN_ENOUGH: Stride = Stride(5);

fn cut(direction: Direction) -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let count = cuts::run(&lab, &stage, direction, OFTEN_ENOUGH)?;
    println!("{direction:?}: {count} cuts");
    Ok(())
}

#[test]
fn a_power_cut_on_the_way_to_the_commit_leaves_all_old_or_all_new() -> Result<()> {
    cut(Direction::Forward)
}

#[test]
fn a_power_cut_on_the_way_back_from_a_failed_probe_leaves_all_old() -> Result<()> {
    cut(Direction::Backward)
}

#[test]
fn a_power_cut_during_a_rollback_leaves_all_of_either_state() -> Result<()> {
    cut(Direction::Rollback)
}
