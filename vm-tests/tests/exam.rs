//! This run's share of the exam: one unit of every ten of each subject. `vm-tests exam` takes all of them.

use anyhow::{Result, ensure};
use vm_tests::exam::{SUBJECTS, sample};

#[test]
fn a_power_cut_on_the_way_to_the_commit_leaves_all_old_or_all_new() -> Result<()> {
    sample("power-cuts-forward")
}

#[test]
fn a_power_cut_on_the_way_back_from_a_failed_probe_leaves_all_old() -> Result<()> {
    sample("power-cuts-backward")
}

#[test]
fn a_power_cut_during_a_rollback_leaves_all_of_either_state() -> Result<()> {
    sample("power-cuts-rollback")
}

#[test]
fn real_fixes_are_built_loaded_used_and_unloaded_or_rightly_refused() -> Result<()> {
    sample("real-fixes")
}

#[test]
fn kernels_of_other_series_take_a_livepatch_and_give_it_back() -> Result<()> {
    sample("kernel-series")
}

#[test]
fn a_locked_down_kernel_takes_what_its_owner_signed_and_nothing_else() -> Result<()> {
    sample("secure-boot")
}

#[test]
fn the_same_holds_on_debian_13() -> Result<()> {
    sample("debian-13")
}

#[test]
fn containers_of_engines_stay_their_engines() -> Result<()> {
    sample("engines")
}

#[test]
fn packages_of_the_host_and_its_services_are_all_new_or_all_old() -> Result<()> {
    sample("services")
}

#[test]
fn a_host_says_what_its_kernels_are_and_whether_it_can_checkpoint() -> Result<()> {
    sample("whole-kernels")
}

#[test]
fn a_newcomer_gets_there_whatever_is_installed() -> Result<()> {
    sample("newcomers")
}

#[test]
fn the_page_does_in_a_browser_what_it_says() -> Result<()> {
    sample("page")
}

#[test]
fn readers_survive_inputs_that_nobody_meant() -> Result<()> {
    sample("fuzzing")
}

#[test]
fn every_subject_has_its_share_here() -> Result<()> {
    for subject in SUBJECTS {
        let call = format!("sample(\"{}\")", subject.name);
        ensure!(include_str!("exam.rs").contains(&call), "nothing samples {}", subject.name);
    }
    Ok(())
}
