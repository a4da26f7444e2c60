//! Loading and taking off against the simulated machine.

use super::*;
use crate::kernel::error::LoadRefusal;
use crate::kernel::livepatch::Livepatch;
use crate::simulated::machine::{FakeMachine, FakeModule, Leaves, Replace, Stopped};

fn name(text: &str) -> ModuleName {
    text.parse().unwrap()
}

fn put_on(machine: &FakeMachine, module: &str) -> Result<EnableReport, EnableError> {
    let policy = Policy::with_deadline(Duration::from_secs(5));
    enable(machine.watcher(), &name(module), &tempfile::tempfile().unwrap(), &policy, &mut |_| {})
}

fn take_off(machine: &FakeMachine, module: &str) -> Result<RemoveReport, RemoveError> {
    let policy = Policy::undoing(&Policy::with_deadline(Duration::from_secs(5)));
    remove(machine.watcher(), &name(module), &policy, &mut |_| {})
}

fn state(machine: &FakeMachine, module: &str) -> PatchState {
    Livepatch::state(machine, &name(module)).unwrap()
}

#[test]
fn on_and_off_again_leaves_no_module() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::AtOnce);
    put_on(&machine, "fix").unwrap();
    assert_eq!(state(&machine, "fix"), PatchState::Settled(Enabled::Enabled));
    assert!(take_off(&machine, "fix").unwrap().transition.is_some());
    assert_eq!(machine.modules(), [""; 0]);
}

#[test]
fn taking_off_twice_is_as_good_as_once() {
    let machine = FakeMachine::new();
    put_on(&machine, "fix").unwrap();
    take_off(&machine, "fix").unwrap();
    assert_eq!(take_off(&machine, "fix").unwrap().transition, None);
}

#[test]
fn a_refusal_changes_nothing_and_gives_the_kernels_words() {
    let words = "fix: disagrees about version of symbol module_layout";
    let refused =
        FakeModule { refusal: Some((LoadRefusal::NotForThisKernel, words)), ..FakeModule::default() };
    let machine = FakeMachine::new().with_module("fix", refused);
    let Err(EnableError::Refused { source, .. }) = put_on(&machine, "fix") else { panic!("was loaded") };
    assert!(source.to_string().contains(words), "{source}");
    assert_eq!(machine.modules(), [""; 0]);
}

#[test]
fn a_transition_past_its_deadline_ends_with_the_module_unloaded() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::Never);
    let result = put_on(&machine, "fix");
    assert!(matches!(result, Err(EnableError::TurnedBack { .. })), "{result:?}");
    assert_eq!(machine.modules(), [""; 0]);
}

#[test]
fn a_load_waits_for_the_transition_of_another_livepatch() {
    let machine = FakeMachine::new().with_task("web-1", Leaves::ByItself(Duration::from_secs(2)));
    machine.load(&name("other"), &tempfile::tempfile().unwrap()).unwrap();
    let report = put_on(&machine, "fix").unwrap();
    assert!(report.load >= Duration::from_secs(2));
    assert_eq!(machine.modules(), ["fix", "other"]);
}

#[test]
fn what_an_atomic_replace_disabled_can_still_be_unloaded() {
    let replacing = FakeModule { replace: Replace::All, ..FakeModule::default() };
    let machine = FakeMachine::new().with_module("newer", replacing);
    put_on(&machine, "older").unwrap();
    put_on(&machine, "newer").unwrap();
    assert_eq!(state(&machine, "older"), PatchState::Absent);
    take_off(&machine, "older").unwrap();
    assert_eq!(machine.modules(), ["newer"]);
}

#[test]
fn killed_at_any_request_taking_off_later_leaves_no_module() {
    for nth in 1.. {
        let machine = FakeMachine::new().with_task("web-1", Leaves::WhenDisturbed);
        machine.stop_before(nth);
        let run = std::panic::AssertUnwindSafe(|| {
            put_on(&machine, "fix").unwrap();
            take_off(&machine, "fix").unwrap();
        });
        let Err(payload) = std::panic::catch_unwind(run) else { break };
        assert!(payload.is::<Stopped>(), "request {nth}");
        machine.revive();
        machine.leases().thaw_outstanding(&machine).unwrap();
        take_off(&machine, "fix").unwrap();
        assert_eq!(machine.modules(), [""; 0], "killed before request {nth}");
        assert_eq!(machine.frozen(), [], "killed before request {nth}");
    }
}

#[test]
fn a_power_cut_takes_livepatch_and_module_and_starts_another_boot() {
    let machine = FakeMachine::new();
    put_on(&machine, "fix").unwrap();
    let before = machine.incarnation();
    machine.reboot();
    assert_ne!(machine.incarnation(), before);
    assert_eq!(state(&machine, "fix"), PatchState::Absent);
    assert_eq!(machine.modules(), [""; 0]);
}
