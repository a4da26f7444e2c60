//! Containers with processes that cannot be read, or want to be looked at wrongly.

use workloads::model::{Pid, WorkloadId};
use workloads::processes::{Reason, Unknown};

use super::*;

/// A write lease on a mapped file, or memory that nobody else may read.
fn unknown() -> Unknown {
    let file = Some("/srv/leased\nerror: forged".into());
    Unknown { pid: Pid(77), comm: "tenant".into(), file, reason: Reason::Unreadable { errno: 11 } }
}

fn planned(plan: &crate::plan::Plan) -> Vec<&str> {
    plan.containers.iter().map(|planned| planned.container.id.id.as_str()).collect()
}

#[test]
fn what_no_selector_takes_is_not_looked_at_and_hinders_nobody() {
    let bench = Bench::with(FakeMachine::new(), |all| all.with("web").with("tenant"));
    bench.containers.hide("tenant", unknown());
    let selected =
        MANIFEST.replace("    without_checkpoint", "    containers: {ids: [web]}\n    without_checkpoint");
    let plan = bench.plan(&selected).unwrap();
    assert_eq!(planned(&plan), ["web"]);
    assert_eq!(plan.notes, <[String; 0]>::default());
    assert_eq!(bench.containers.looked_at(), ["web".parse::<WorkloadId>().unwrap()]);
}

#[test]
fn a_container_of_which_something_cannot_be_told_is_affected_and_the_plan_says_why() {
    let bench = Bench::with(FakeMachine::new(), |all| all.with("web").with("tenant"));
    bench.containers.hide("tenant", unknown());
    let plan = bench.plan(MANIFEST).unwrap();
    assert_eq!(planned(&plan), ["tenant", "web"]);
    let note = "container tenant is taken to be affected, since something cannot be told: \
        tenant (pid 77): /srv/leased\\u{a}error: forged: Resource temporarily unavailable (os error 11)";
    assert_eq!(plan.notes, [note]);
}

#[test]
fn a_container_on_the_fixed_files_is_not_restarted_once_more_because_something_cannot_be_told() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.containers.hide("web", unknown());
    assert!(bench.plan(MANIFEST).unwrap().is_empty());
}

#[test]
fn a_signal_during_the_survey_ends_it_and_nothing_was_begun() {
    let bench = Bench::new();
    let failure = crate::cli::failures::engine(bench.apply_until(MANIFEST, &Signal::at(0)).unwrap_err());
    assert_eq!(failure.exit(), system::exit::Exit::FailedRestored, "{failure:?}");
    whole(&bench, Outcome::RolledBack, "stopped");
}
