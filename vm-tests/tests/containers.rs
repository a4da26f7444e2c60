//! What containers and the peers of their connections feel, on Debian 12. The exam asks the same of Debian 13.

use anyhow::Result;
use vm_tests::lab::Lab;
use vm_tests::lab::distribution::Distribution;
use vm_tests::trials::{self, Trial};

fn on_debian_12(trial: Trial) -> Result<()> {
    trial(&Lab::for_test()?, Distribution::Debian12)
}

#[test]
fn old_connections_wait_during_the_trial_and_learn_of_the_commit_at_once() -> Result<()> {
    on_debian_12(trials::old_connections_wait_during_the_trial_and_learn_of_the_commit_at_once)
}

#[test]
fn a_failed_trial_gives_memory_files_connections_limits_and_network_back() -> Result<()> {
    on_debian_12(trials::a_failed_trial_gives_memory_files_connections_limits_and_network_back)
}

#[test]
fn processes_with_unusual_names_come_back_with_their_container() -> Result<()> {
    on_debian_12(trials::processes_with_unusual_names_come_back_with_their_container)
}

#[test]
fn containers_follow_one_another_in_the_order_of_a_label_or_go_side_by_side() -> Result<()> {
    on_debian_12(trials::containers_follow_one_another_in_the_order_of_a_label_or_go_side_by_side)
}

#[test]
fn a_container_in_the_hosts_network_and_under_systemds_control_comes_back() -> Result<()> {
    on_debian_12(trials::a_container_in_the_hosts_network_and_under_systemds_control_comes_back)
}

#[test]
fn what_criu_refuses_is_known_before_anything_is_frozen() -> Result<()> {
    on_debian_12(trials::what_criu_refuses_is_known_before_anything_is_frozen)
}

#[test]
fn a_tenant_whose_probe_fails_goes_back_alone_and_memory_is_kept_where_it_may_be() -> Result<()> {
    on_debian_12(trials::a_tenant_whose_probe_fails_goes_back_alone_and_memory_is_kept_where_it_may_be)
}
