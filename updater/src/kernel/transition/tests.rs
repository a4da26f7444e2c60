//! The watch against the simulated machine.

use super::*;
use crate::simulated::machine::{FakeMachine, Leaves};

fn module() -> ModuleName {
    "fix".parse().unwrap()
}

fn file() -> std::fs::File {
    tempfile::tempfile().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Loads the module and watches; returns what was told as well.
fn load_and_watch(
    machine: &FakeMachine,
    policy: &Policy,
) -> (Result<TransitionReport, TransitionError>, Vec<TransitionEvent>) {
    let mut events = Vec::new();
    machine.load(&module(), &file()).unwrap();
    let result =
        watch(machine.watcher(), &module(), Enabled::Enabled, policy, &mut |event| events.push(event));
    (result, events)
}

#[test]
fn an_idle_host_is_patched_without_waiting_and_without_a_word() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::AtOnce);
    let (result, events) = load_and_watch(&machine, &Policy::with_deadline(secs(60)));
    assert_eq!(result.unwrap().took, Duration::ZERO);
    assert_eq!(events, []);
}

#[test]
fn a_sleeper_in_the_function_is_named_within_a_second_and_moved_by_freezing_its_container() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::WhenDisturbed);
    let (result, events) = load_and_watch(&machine, &Policy::with_deadline(secs(60)));
    let report = result.unwrap();
    let TransitionEvent::Blocked { after, blockers } = &events[0] else { panic!("{events:?}") };
    assert!(*after < secs(1));
    assert_eq!(blockers[0].owner.to_string(), "container web-1");
    assert!(report.took < secs(2), "{:?}", report.took);
    assert_eq!(report.freezes.len(), 1);
    assert!(report.freezes[0].held < Duration::from_millis(100));
    assert_eq!(machine.frozen(), []);
    assert_eq!(machine.leases().outstanding().unwrap(), []);
}

#[test]
fn without_leave_to_freeze_the_kernels_signal_ends_it_after_fifteen_seconds() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::WhenDisturbed);
    let policy = Policy { unblock: Unblock::Never, ..Policy::with_deadline(secs(60)) };
    let (result, _) = load_and_watch(&machine, &policy);
    assert!((15..17).contains(&result.unwrap().took.as_secs()));
    assert_eq!(machine.ever_frozen(), []);
}

#[test]
fn an_uninterruptible_blocker_is_named_not_frozen_and_the_transition_turned_back() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
    let (result, events) = load_and_watch(&machine, &Policy::with_deadline(secs(5)));
    let Err(TransitionError::Reversed { waited, reversed_in, blockers, .. }) = result else {
        panic!("{result:?}")
    };
    assert!(waited >= secs(5) && waited < secs(6), "{waited:?}");
    assert!(reversed_in < secs(2));
    assert_eq!(blockers.len(), 1);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, TransitionEvent::LeftAlone { why: LeftAlone::Uninterruptible, .. }))
    );
    assert_eq!(machine.ever_frozen(), []);
    assert_eq!(machine.forced(), [""; 0]);
    assert_eq!(Livepatch::state(&machine, &module()).unwrap(), PatchState::Absent);
}

#[test]
fn a_reversal_frees_the_way_back_as_well() {
    // The second container was moved already and sleeps in the new function when the first one's
    // deadline passes; it has to be disturbed again.
    let machine =
        FakeMachine::new().with_task("stuck", Leaves::Never).with_task("web-1", Leaves::WhenDisturbed);
    let (result, _) = load_and_watch(&machine, &Policy::with_deadline(secs(5)));
    let Err(TransitionError::Reversed { reversed_in, .. }) = result else { panic!("{result:?}") };
    assert!(reversed_in < secs(2), "{reversed_in:?}");
    assert_eq!(machine.frozen(), []);
}

#[test]
fn neither_the_host_itself_nor_an_unknown_group_is_ever_frozen() {
    let machine = FakeMachine::new()
        .with_task_in("/init.scope", CgroupOwner::Protected, Leaves::WhenDisturbed)
        .with_task_in("/user.slice/session-1.scope", CgroupOwner::Unknown, Leaves::WhenDisturbed)
        .with_task_in(
            "/system.slice/cron.service",
            CgroupOwner::Service("cron.service".into()),
            Leaves::WhenDisturbed,
        );
    let (result, _) = load_and_watch(&machine, &Policy::with_deadline(secs(60)));
    assert!(result.is_ok());
    assert_eq!(machine.ever_frozen(), []);
}

#[test]
fn a_service_is_frozen_when_the_policy_says_so() {
    let machine = FakeMachine::new().with_task_in(
        "/system.slice/cron.service",
        CgroupOwner::Service("cron.service".into()),
        Leaves::WhenDisturbed,
    );
    let policy = Policy { unblock: Unblock::ContainersAndServices, ..Policy::with_deadline(secs(60)) };
    let (result, _) = load_and_watch(&machine, &policy);
    assert!(result.unwrap().took < secs(2));
}

#[test]
fn a_container_that_somebody_else_froze_is_not_thawed() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::ByItself(secs(3)));
    machine.freeze_from_outside("/runc/web-1");
    let (result, _) = load_and_watch(&machine, &Policy::with_deadline(secs(60)));
    assert!(result.is_ok());
    assert_eq!(machine.frozen().len(), 1);
}

#[test]
fn a_blocker_that_leaves_by_itself_needs_nothing() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::ByItself(secs(3)));
    let (result, _) = load_and_watch(&machine, &Policy::with_deadline(secs(60)));
    let report = result.unwrap();
    assert!(report.took >= secs(3) && report.took < secs(5));
    assert_eq!(report.freezes, []);
}

#[test]
fn a_rollback_that_cannot_end_stays_in_transition_and_says_who_holds_it() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
    machine.load(&module(), &file()).unwrap();
    machine.force_by_hand(&module());
    machine.set_enabled(&module(), Enabled::Disabled).unwrap();
    let policy = Policy { on_deadline: OnDeadline::Leave, ..Policy::with_deadline(secs(5)) };
    let result = watch(machine.watcher(), &module(), Enabled::Disabled, &policy, &mut |_| {});
    let Err(error @ TransitionError::Stuck { .. }) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains("container web-1, in cmdline_proc_show"), "{error}");
    assert_eq!(machine.forced(), ["fix"], "only the test forced anything");
    assert_eq!(Livepatch::state(&machine, &module()).unwrap(), PatchState::InTransition(Enabled::Disabled));
}

#[test]
fn somebody_elses_reversal_is_reported_and_not_taken_for_success() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
    machine.load(&module(), &file()).unwrap();
    machine.set_enabled(&module(), Enabled::Disabled).unwrap();
    let result =
        watch(machine.watcher(), &module(), Enabled::Enabled, &Policy::with_deadline(secs(5)), &mut |_| {});
    assert!(matches!(result, Err(TransitionError::Overruled { .. })), "{result:?}");
}

#[test]
fn a_process_killed_at_any_request_leaves_nothing_frozen_after_resume() {
    let requests = {
        let machine = FakeMachine::new().with_task("web-1", Leaves::WhenDisturbed);
        load_and_watch(&machine, &Policy::with_deadline(secs(60))).0.unwrap();
        machine.requests()
    };
    assert!(requests > 20);
    for nth in 1..=requests {
        let machine = FakeMachine::new().with_task("web-1", Leaves::WhenDisturbed);
        machine.stop_before(nth);
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            load_and_watch(&machine, &Policy::with_deadline(secs(60))).0.is_ok()
        }));
        assert!(killed.is_err(), "request {nth} was not made");
        machine.revive();
        machine.leases().thaw_outstanding(&machine).unwrap();
        assert_eq!(machine.frozen(), [], "killed before request {nth}");
        assert_eq!(machine.leases().outstanding().unwrap(), [], "killed before request {nth}");
    }
}

/// Asks to stop at the nth question.
struct AtQuestion {
    asked: std::cell::Cell<u32>,
    nth: u32,
}

impl Interrupt for AtQuestion {
    fn asked(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.asked.get() >= self.nth
    }
}

#[test]
fn an_operator_who_stops_the_watch_at_any_moment_leaves_nothing_frozen() {
    let mut interrupted = 0;
    for nth in 1.. {
        let machine = FakeMachine::new().with_task("web-1", Leaves::WhenDisturbed);
        machine.load(&module(), &file()).unwrap();
        let interrupt = AtQuestion { asked: 0.into(), nth };
        let watcher = Watcher { interrupt: &interrupt, ..machine.watcher() };
        let policy = Policy::with_deadline(secs(60));
        let result = watch(watcher, &module(), Enabled::Enabled, &policy, &mut |_| {});
        assert_eq!(machine.frozen(), [], "stopped at question {nth}");
        assert_eq!(machine.leases().outstanding().unwrap(), [], "stopped at question {nth}");
        match result {
            Ok(_) => break,
            Err(TransitionError::Interrupted { .. }) => interrupted += 1,
            Err(error) => panic!("question {nth}: {error}"),
        }
    }
    assert!(interrupted > 10, "only {interrupted} questions");
}

#[test]
fn turning_back_past_the_deadline_is_not_interrupted() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
    machine.load(&module(), &file()).unwrap();
    let policy = Policy { unblock: Unblock::Never, ..Policy::with_deadline(Duration::ZERO) };
    let interrupt = AtQuestion { asked: 0.into(), nth: 2 };
    let watcher = Watcher { interrupt: &interrupt, ..machine.watcher() };
    let result = watch(watcher, &module(), Enabled::Enabled, &policy, &mut |_| {});
    assert!(matches!(result, Err(TransitionError::Reversed { .. })), "{result:?}");
}

/// A policy that permits to kill what is stuck in this container.
fn may_kill(container: &str) -> Policy {
    let stuck = Stuck::Kill([container.parse().unwrap()].into());
    Policy { stuck, ..Policy::with_deadline(secs(120)) }
}

#[test]
fn what_is_stuck_for_good_is_killed_where_the_manifest_permits_it_and_only_then() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
    let (result, events) = load_and_watch(&machine, &may_kill("web-1"));
    let report = result.unwrap();
    assert_eq!((machine.killed(), report.killed.len()), (vec![100], 1));
    let killed = events.iter().find_map(|event| match event {
        TransitionEvent::Killed { after, blocker } => Some((*after, blocker.owner.to_string())),
        _ => None,
    });
    let (after, owner) = killed.unwrap();
    assert!(after >= secs(30) && after < secs(35), "{after:?}");
    assert_eq!(owner, "container web-1");
}

#[test]
fn nothing_is_killed_by_default_nor_elsewhere_nor_before_its_time() {
    for policy in [Policy::with_deadline(secs(120)), may_kill("web-2")] {
        let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
        let (result, _) = load_and_watch(&machine, &policy);
        assert!(matches!(result, Err(TransitionError::Reversed { .. })), "{result:?}");
        assert_eq!(machine.killed(), <[i32; 0]>::default());
    }
    let service = CgroupOwner::Service("web-1".into());
    let others = FakeMachine::new()
        .with_task("web-1", Leaves::ByItself(secs(25)))
        .with_task("web-1", Leaves::WhenDisturbed)
        .with_task_in("/system.slice/web-1", service, Leaves::ByItself(secs(60)));
    let (result, _) = load_and_watch(&others, &may_kill("web-1"));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(others.killed(), <[i32; 0]>::default());
}
