//! What `update plan` says, as transcripts.

use workloads::model::ObstacleKind;

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only};
use crate::operations::tests::packages::{PACKAGES, host};
use crate::simulated::machine::FakeMachine;

#[test]
fn a_plan_says_what_each_container_and_its_connections_feel() {
    let bench = Bench::new();
    insta::assert_snapshot!(render(&bench.plan(MANIFEST).unwrap()).to_string());
}

#[test]
fn a_plan_says_what_becomes_of_containers_that_cannot_be_checkpointed_and_why() {
    let bench = Bench::with(FakeMachine::new(), |all| {
        all.with("web").with("db").with_obstacle(ObstacleKind::IoUring, "descriptor 7")
    });
    let mut text = String::new();
    for choice in ["restart", "skip"] {
        let plan =
            bench.plan(&MANIFEST.replace("checkpoint: fail", &format!("checkpoint: {choice}"))).unwrap();
        text += &format!("# without_checkpoint: {choice}\n{}\n", render(&plan));
    }
    let refusal = bench.plan(MANIFEST).unwrap_err();
    text += &format!("# without_checkpoint: fail\n{}", failures::engine(refusal).for_person());
    insta::assert_snapshot!(text);
}

#[test]
fn a_plan_without_containers_or_without_work_says_so() {
    let bench = Bench::with(FakeMachine::new(), |none| none);
    let text = livepatch_only(MANIFEST);
    let before = render(&bench.plan(&text).unwrap());
    bench.apply(&text).unwrap();
    insta::assert_snapshot!(format!("{before}\n# once more\n{}", render(&bench.plan(&text).unwrap())));
}

#[test]
fn a_plan_says_which_container_is_made_anew_from_what() {
    let (bench, text) = crate::operations::tests::images::host_and_manifest();
    let page = render(&bench.plan(&text).unwrap()).to_string();
    let steps = page.find("[ 1/").unwrap();
    insta::assert_snapshot!(&page[..steps]);
}

#[test]
fn a_plan_says_what_becomes_of_packages_and_services_and_what_is_left_alone() {
    let bench = host();
    bench.host.start(&["dbus.service"]);
    bench.host.log_in();
    insta::assert_snapshot!(render(&bench.plan(PACKAGES).unwrap()).to_string());
}
