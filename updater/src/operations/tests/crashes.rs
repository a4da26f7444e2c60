//! The program is killed, or the power fails, at every moment; then `update resume` runs.

use super::*;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST};
use crate::plan::Action;
use crate::transaction::state::StepStatus;

/// What happened to the host between the cut and the resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Only the program is gone.
    SameBoot,
    /// Processes and mounts are gone: userspace was started anew on the running kernel.
    SoftReboot,
    /// Processes, modules, mounts and packet filters are gone.
    Reboot,
}

const EVERY_KIND: [Then; 3] = [Then::SameBoot, Then::SoftReboot, Then::Reboot];

/// Whether the container is nothing but a finished checkpoint, and its restore has not begun.
fn is_only_a_checkpoint(bench: &Bench) -> bool {
    let all = bench.engine().journal().all().unwrap();
    let Some(stored) = all.last() else { return false };
    let steps = &stored.progress.plan().steps;
    let checkpoint = steps.iter().position(|step| matches!(step.action, Action::Checkpoint { .. }));
    let status = checkpoint.and_then(|step| stored.progress.status(step));
    matches!(status, Some(StepStatus::Done(_))) && !stored.progress.committed()
}

/// After the resume the host is all new or all old, as far as the reboot left anything to be whole.
fn resumed(bench: &Bench, then: Then, context: &str) {
    let only_a_checkpoint = is_only_a_checkpoint(bench);
    let resumed = bench.resume();
    assert!(
        resumed.transactions.iter().all(|driven| matches!(driven.reached, Reached::Ended(_))),
        "{context}: {resumed:?}"
    );
    let all = bench.engine().journal().all().unwrap();
    let outcome = all.last().map_or(Outcome::RolledBack, |stored| stored.outcome().unwrap());
    if then == Then::SameBoot {
        return whole(bench, outcome, context);
    }
    nothing_left(bench, context);
    let process = bench.containers.process("web");
    match outcome {
        Outcome::Committed => {
            assert_eq!(lowers(bench), 3, "{context}: the committed files are mounted for whoever starts it");
            assert_eq!(process, None, "{context}");
            if then == Then::SoftReboot {
                assert_eq!(bench.machine.modules(), ["one_function"], "{context}: the kernel went on");
                assert!(bench.engine().status().unwrap().is_sound(), "{context}");
            }
        }
        Outcome::RolledBack => {
            assert!(process.is_some() || !only_a_checkpoint, "{context}: its memory did not come back");
            // Restored from its checkpoint, or never touched and so left to whoever starts it at boot.
            assert!(
                process.is_none_or(|back| (back.memory, back.version) == (MEMORY, Version::Old)),
                "{context}"
            );
            assert_eq!(bench.machine.modules(), <[String; 0]>::default(), "{context}");
        }
    }
}

fn cut_everywhere(then: Then, trouble: &[Trouble], at_least: usize) {
    let mut cuts = 0;
    for boundary in 0.. {
        let bench = Bench::new();
        trouble.iter().for_each(|trouble| bench.containers.make(*trouble));
        match bench.apply_until(MANIFEST, &Cut::at(boundary)) {
            Err(EngineError::Stopped { .. }) => cuts += 1,
            Ok(_) => break,
            Err(error) => panic!("boundary {boundary}: {error}"),
        }
        match then {
            Then::SameBoot => {}
            Then::SoftReboot => bench.soft_reboot(),
            Then::Reboot => bench.reboot(),
        }
        resumed(&bench, then, &format!("boundary {boundary}"));
    }
    assert!(cuts >= at_least, "only {cuts} boundaries");
}

#[test]
fn a_kill_at_any_boundary_of_an_apply_resumes_to_all_new_or_all_old() {
    cut_everywhere(Then::SameBoot, &[], 50);
}

#[test]
fn a_power_cut_at_any_boundary_of_an_apply_resumes_to_all_new_or_all_old() {
    cut_everywhere(Then::Reboot, &[], 50);
}

#[test]
fn a_soft_reboot_at_any_boundary_of_an_apply_resumes_to_all_new_or_all_old_with_the_livepatch_kept() {
    cut_everywhere(Then::SoftReboot, &[], 50);
    cut_everywhere(Then::SoftReboot, &[Trouble::BadFix], 60);
}

#[test]
fn a_kill_at_any_boundary_of_a_failing_apply_resumes_to_all_old() {
    cut_everywhere(Then::SameBoot, &[Trouble::BadFix], 60);
}

#[test]
fn a_power_cut_at_any_boundary_of_a_failing_apply_resumes_to_all_old() {
    cut_everywhere(Then::Reboot, &[Trouble::BadFix], 60);
}

#[test]
fn a_kill_or_power_cut_at_any_boundary_beside_a_slow_dump_resumes_to_all_old() {
    cut_everywhere(Then::SameBoot, &[Trouble::SlowDump], 40);
    cut_everywhere(Then::Reboot, &[Trouble::SlowDump], 40);
}

#[test]
fn a_kill_at_any_boundary_where_the_images_cannot_be_read_resumes_to_all_old() {
    cut_everywhere(Then::SameBoot, &[Trouble::UnreadableImages], 40);
}

#[test]
fn a_kill_or_power_cut_before_any_request_to_the_host_resumes_to_all_new_or_all_old() {
    for trouble in [None, Some(Trouble::BadFix)] {
        let bench = || {
            let bench = Bench::new();
            trouble.into_iter().for_each(|trouble| bench.containers.make(trouble));
            bench
        };
        let requests = {
            let bench = bench();
            bench.apply(MANIFEST).unwrap();
            bench.machine.requests()
        };
        assert!(requests > 25, "only {requests} requests");
        for (nth, then) in (1..=requests).flat_map(|nth| EVERY_KIND.map(|then| (nth, then))) {
            let bench = bench();
            bench.machine.stop_before(nth);
            assert!(bench.died(|| drop(bench.apply(MANIFEST))), "request {nth} was not made");
            match then {
                Then::SameBoot => bench.machine.revive(),
                Then::SoftReboot => bench.soft_reboot(),
                Then::Reboot => bench.reboot(),
            }
            resumed(&bench, then, &format!("request {nth}, {trouble:?}, {then:?}"));
        }
    }
}

#[test]
fn a_second_cut_during_the_resume_changes_nothing() {
    for first in (10..60).step_by(13) {
        for second in 0.. {
            let bench = Bench::new();
            bench.containers.make(Trouble::BadFix);
            assert!(bench.apply_until(MANIFEST, &Cut::at(first)).is_err());
            if bench.resume_until(&Cut::at(second)).is_ok() {
                break;
            }
            resumed(&bench, Then::SameBoot, &format!("{first}, {second}"));
        }
    }
}
