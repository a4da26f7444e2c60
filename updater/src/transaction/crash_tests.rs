//! The driver and the journal against a model of a host, cut at every boundary.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manifests::{FailureScope, Sha256};
use serde_json::Value;
use system::boot::Incarnation;
use system::clock::{Clock, Interrupt, SystemClock};
use workloads::model::{CgroupDriver, Container, ContainerStatus, NetworkPlace, Topology, WorkloadId};

use crate::plan::{Action, Feels, LoadedPayload, OnFailure, Plan, PlannedContainer, Step, Undo};
use crate::state::baseline::Baseline;
use crate::state::journal::{Grounds, Journal, Origin, Recorded, TransactionId};
use crate::transaction::driver::{
    Boundaries, Boundary, DriveError, Driver, Hands, Heard, Onward, Place, Reached, Since, StepError,
};
use crate::transaction::state::{Cause, Event, Outcome, Phase};

const BOOT: &str = "11111111-1111-1111-1111-111111111111";
const NEXT_BOOT: &str = "22222222-2222-2222-2222-222222222222";

fn during(boot: &str) -> Incarnation {
    Incarnation { boot_id: boot.parse().unwrap(), userspace: None }
}

/// A host that is a set of loaded modules and one of containers on other files.
#[derive(Default)]
struct Model {
    switched: Mutex<BTreeSet<WorkloadId>>,
    loaded: Mutex<BTreeSet<String>>,
    fails: Option<&'static str>,
    undo_fails: Mutex<Option<&'static str>>,
    undone_since: Mutex<Vec<Since>>,
}

impl Hands for Model {
    fn perform(&self, at: &Place<'_>) -> Result<Value, StepError> {
        if let Action::LoadLivepatch { module, .. } = &at.step.action {
            if self.fails == Some(module.as_str()) {
                return Err(StepError::doing(format!("load {module}"))("the model says no"));
            }
            self.loaded.lock().unwrap().insert(module.to_string());
        }
        if let Action::SwitchRootfs { container, .. } = &at.step.action {
            self.switched.lock().unwrap().insert(container.clone());
        }
        if let Action::Start { container } = &at.step.action
            && self.fails == Some(container.id.as_str())
        {
            return Err(StepError::doing(format!("start {container}"))("the model says no"));
        }
        Ok(Value::Null)
    }

    fn undo(&self, at: &Place<'_>) -> Result<Value, StepError> {
        if let Undo::UnloadLivepatch { module, .. } = &at.step.undo {
            self.undone_since.lock().unwrap().push(at.since);
            if *self.undo_fails.lock().unwrap() == Some(module.as_str()) {
                return Err(StepError::doing(format!("unload {module}"))("the model says no"));
            }
            self.loaded.lock().unwrap().remove(module.as_str());
        }
        if let Undo::SwitchBack { container, .. } = &at.step.undo {
            if *self.undo_fails.lock().unwrap() == Some(container.id.as_str()) {
                return Err(StepError::doing(format!("switch {container} back"))("the model says no"));
            }
            self.switched.lock().unwrap().remove(container);
        }
        Ok(Value::Null)
    }
}

/// Cuts, or turns back, at the n-th boundary.
struct At {
    reached: AtomicUsize,
    at: usize,
    what: Onward,
}

impl Boundaries for At {
    fn reached(&self, _: &Boundary<'_>) -> Onward {
        if self.reached.fetch_add(1, Ordering::SeqCst) == self.at { self.what } else { Onward::Continue }
    }
}

impl Interrupt for At {
    fn asked(&self) -> bool {
        false
    }
}

fn at(at: usize, what: Onward) -> At {
    At { reached: AtomicUsize::new(0), at, what }
}

fn load(stage: u32, lane: u32, name: &str) -> Step {
    let module: manifests::ModuleName = name.parse().unwrap();
    let deadline = Duration::from_secs(1);
    Step {
        stage,
        lane,
        action: Action::LoadLivepatch {
            module: module.clone(),
            payload: Sha256::of(name.as_bytes()),
            kernel: "6.1.0-50-amd64".parse().unwrap(),
        },
        undo: Undo::UnloadLivepatch { module, deadline, reload: Vec::new() },
    }
}

fn plan() -> Plan {
    let commit = Step {
        stage: 3,
        lane: 0,
        action: Action::Commit,
        undo: Undo::Impossible { why: "committed".to_owned() },
    };
    let mut after = commit.clone();
    after.stage = 4;
    after.action = Action::Settle { container: None, watch: Duration::ZERO, probes: Vec::new() };
    Plan {
        containers: Vec::new(),
        packages: Vec::new(),
        services: Vec::new(),
        steps: vec![
            load(0, 0, "one"),
            load(1, 0, "two"),
            load(1, 1, "three"),
            load(1, 1, "four"),
            commit,
            after,
        ],
        on_failure: OnFailure::RollBack,
        notes: Vec::new(),
        not_needed: Vec::new(),
    }
}

/// A journal on disk with one transaction begun in it.
struct Bench {
    store: tempfile::TempDir,
    journal: Mutex<Journal>,
    id: TransactionId,
    incarnation: Incarnation,
}

impl Bench {
    fn new(plan: &Plan) -> Self {
        let store = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(store.path()).unwrap();
        let id = TransactionId::new(SystemClock.now(), 1);
        let origin = Origin::Apply {
            name: "demo".to_owned(),
            version: 1,
            digest: Sha256::of(b"demo").to_string(),
            signed_by: Vec::new(),
        };
        journal.begin(&id, &origin, plan, SystemClock.now(), Grounds::default()).unwrap();
        Self { store, journal: Mutex::new(journal), id, incarnation: during(BOOT) }
    }

    /// Forget everything that was only in memory.
    fn power_cycle(&mut self) {
        self.journal = Mutex::new(Journal::open(self.store.path()).unwrap());
    }

    fn drive(&self, model: &Model, boundaries: &At) -> Result<Reached, DriveError> {
        let stored = self.journal.lock().unwrap().transaction(self.id.as_str()).unwrap();
        self.driver(model, boundaries, &|_| {}).run(stored)
    }

    /// What `update resume` does with an open transaction.
    fn resume(&self, model: &Model, boundaries: &At) -> Result<Reached, DriveError> {
        let stored = self.journal.lock().unwrap().transaction(self.id.as_str()).unwrap();
        self.driver(model, boundaries, &|_| {}).resume(stored)
    }

    fn driver<'a>(
        &'a self,
        model: &'a Model,
        boundaries: &'a At,
        listener: &'a (dyn Fn(&Heard<'_>) + Sync),
    ) -> Driver<'a> {
        Driver {
            journal: &self.journal,
            hands: model,
            boundaries,
            clock: &SystemClock,
            incarnation: &self.incarnation,
            listener,
        }
    }

    fn baseline(&self) -> Baseline {
        Baseline::read(&self.journal.lock().unwrap()).unwrap()
    }

    fn events(&self) -> Vec<Event> {
        let stored = self.journal.lock().unwrap().transaction(self.id.as_str()).unwrap();
        stored.events.into_iter().map(|recorded| recorded.event).collect()
    }
}

impl Bench {
    /// Records events of this boot as the driver would.
    fn record(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let recorded = Recorded { at: SystemClock.now(), during: self.incarnation.clone(), event };
            self.journal.lock().unwrap().append(&self.id, &recorded, &[]).unwrap();
        }
    }

    fn reboot(&mut self) {
        self.incarnation = during(NEXT_BOOT);
        self.power_cycle();
    }
}

#[test]
fn a_boot_that_was_planned_goes_on_and_any_other_goes_back() {
    let begun = || [Event::Intended { step: 0 }];
    let planned = || begun().into_iter().chain([Event::RebootPlanned { step: 0 }]);
    let resumed = |bench: &Bench, model: &Model| bench.resume(model, &at(NEVER, Onward::Continue)).unwrap();

    let (mut bench, model) = (Bench::new(&plan()), Model::default());
    bench.record(planned());
    bench.reboot();
    assert_eq!(resumed(&bench, &model), Reached::Ended(Outcome::Committed), "planned and booted");
    expect_whole(&bench, &model, Outcome::Committed, "planned and booted");
    assert!(bench.events().contains(&Event::Booted { step: 0 }));

    let (mut bench, model) = (Bench::new(&plan()), Model::default());
    bench.record(planned());
    bench.power_cycle();
    assert_eq!(resumed(&bench, &model), Reached::Ended(Outcome::RolledBack), "planned, but it never booted");
    expect_whole(&bench, &model, Outcome::RolledBack, "planned, but it never booted");

    let (mut bench, model) = (Bench::new(&plan()), Model::default());
    bench.record(begun());
    bench.reboot();
    assert_eq!(resumed(&bench, &model), Reached::Ended(Outcome::RolledBack), "booted without a plan");

    let (mut bench, model) = (Bench::new(&plan()), Model { fails: Some("one"), ..Model::default() });
    bench.record(planned());
    bench.reboot();
    assert_eq!(resumed(&bench, &model), Reached::Ended(Outcome::RolledBack), "it booted, and not well");
    expect_whole(&bench, &model, Outcome::RolledBack, "it booted, and not well");
}

#[test]
fn after_a_planned_boot_only_what_was_done_before_it_is_undone_as_of_another_boot() {
    let (mut bench, model) = (Bench::new(&plan()), Model { fails: Some("four"), ..Model::default() });
    let done = Event::Done { step: 0, receipt: Value::Null };
    let planned = [Event::Intended { step: 1 }, Event::RebootPlanned { step: 1 }];
    bench.record([Event::Intended { step: 0 }, done].into_iter().chain(planned));
    bench.reboot();
    assert_eq!(
        bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap(),
        Reached::Ended(Outcome::RolledBack)
    );
    let undone = model.undone_since.lock().unwrap();
    let (first_step, later) = undone.split_last().unwrap();
    assert_eq!(*first_step, Since::Rebooted);
    assert!(!later.is_empty() && later.iter().all(|since| *since == Since::SameBoot), "{later:?}");
}

/// The host and what the journal says of it agree: all new or all old.
fn expect_whole(bench: &Bench, model: &Model, outcome: Outcome, context: &str) {
    let loaded = model.loaded.lock().unwrap();
    let expected = if outcome == Outcome::Committed { 4 } else { 0 };
    assert_eq!(loaded.len(), expected, "{context}: {outcome:?} but {loaded:?} are loaded");
    assert_eq!(bench.baseline().livepatches.len(), expected, "{context}: baseline");
}

const NEVER: usize = usize::MAX;

#[test]
fn an_undisturbed_transaction_commits() {
    let (bench, model) = (Bench::new(&plan()), Model::default());
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::Committed));
    expect_whole(&bench, &model, Outcome::Committed, "undisturbed");
}

#[test]
fn a_cut_at_any_boundary_resumes_to_all_new_or_all_old() {
    let mut cuts = 0;
    for boundary in 0.. {
        let (mut bench, model) = (Bench::new(&plan()), Model::default());
        let cut = bench.drive(&model, &at(boundary, Onward::Cut));
        if cut.is_ok() {
            break;
        }
        cuts += 1;
        bench.power_cycle();
        let Reached::Ended(outcome) = bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap() else {
            panic!("boundary {boundary}: did not end");
        };
        expect_whole(&bench, &model, outcome, &format!("boundary {boundary}"));
    }
    assert!(cuts > 20, "only {cuts} boundaries were met");
}

#[test]
fn a_second_cut_during_the_recovery_changes_nothing() {
    for first in (0..16).step_by(3) {
        for second in 0.. {
            let (mut bench, model) = (Bench::new(&plan()), Model::default());
            assert!(bench.drive(&model, &at(first, Onward::Cut)).is_err());
            bench.power_cycle();
            if bench.resume(&model, &at(second, Onward::Cut)).is_ok() {
                break;
            }
            bench.power_cycle();
            let Reached::Ended(outcome) = bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap() else {
                panic!("{first}, {second}: did not end");
            };
            expect_whole(&bench, &model, outcome, &format!("{first}, {second}"));
        }
    }
}

#[test]
fn an_operator_who_stops_it_before_the_commit_gets_the_old_state() {
    for boundary in 0..14 {
        let (bench, model) = (Bench::new(&plan()), Model::default());
        let reached = bench.drive(&model, &at(boundary, Onward::TurnBack)).unwrap();
        let turned = bench.events().contains(&Event::RollbackDecided { cause: Cause::Operator });
        let expected = if turned { Outcome::RolledBack } else { Outcome::Committed };
        assert_eq!(reached, Reached::Ended(expected), "boundary {boundary}");
        expect_whole(&bench, &model, expected, &format!("boundary {boundary}"));
    }
}

#[test]
fn a_failed_step_takes_back_what_was_done_before_it() {
    let (bench, model) = (Bench::new(&plan()), Model { fails: Some("four"), ..Model::default() });
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::RolledBack));
    expect_whole(&bench, &model, Outcome::RolledBack, "failed step");
}

#[test]
fn a_failed_step_under_hold_waits_for_the_operator() {
    let mut held = plan();
    held.on_failure = OnFailure::Hold;
    let (bench, model) = (Bench::new(&held), Model { fails: Some("two"), ..Model::default() });
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::NeedsOperator(vec![1]));
    let reached = bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::RolledBack));
    let decided = Event::RollbackDecided { cause: Cause::Operator };
    assert!(bench.events().contains(&decided), "nothing crashed: {:?}", bench.events());
}

#[test]
fn a_failed_undo_leaves_the_transaction_open_and_a_retry_ends_it() {
    let (bench, model) = (Bench::new(&plan()), Model { fails: Some("four"), ..Model::default() });
    *model.undo_fails.lock().unwrap() = Some("one");
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::NeedsOperator(vec![0]));
    assert_eq!(bench.journal.lock().unwrap().unfinished().unwrap().len(), 1);
    *model.undo_fails.lock().unwrap() = None;
    let reached = bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::RolledBack));
    expect_whole(&bench, &model, Outcome::RolledBack, "after the retry");
    assert!(bench.journal.lock().unwrap().unfinished().unwrap().is_empty());
}

#[test]
fn the_journal_replays_to_the_state_that_was_driven() {
    let (bench, model) = (Bench::new(&plan()), Model::default());
    bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    let stored = bench.journal.lock().unwrap().transaction(bench.id.as_str()).unwrap();
    assert_eq!(*stored.progress.phase(), Phase::Ended(Outcome::Committed));
    let reload = LoadedPayload { module: "one".parse().unwrap(), payload: Sha256::of(b"one") };
    assert_eq!(bench.baseline().livepatches[0].payload, reload.payload);
}

fn planned(id: &str) -> PlannedContainer {
    PlannedContainer {
        container: Container {
            id: id.parse().unwrap(),
            status: ContainerStatus::Running,
            init: None,
            started: None,
            bundle: format!("/c/{id}").into(),
            rootfs: format!("/c/{id}/rootfs").into(),
            annotations: Default::default(),
            cgroup: None,
            cgroup_driver: CgroupDriver::Cgroupfs,
            network: NetworkPlace::Host,
        },
        topology: Topology::Plain,
        files: Vec::new(),
        on_failure: FailureScope::Workload,
        feels: Feels::RestartWithCheckpoint,
    }
}

/// One livepatch, and these containers side by side, each of which goes back alone.
fn plan_alone(containers: &[&str]) -> Plan {
    let switch = |lane: u32, id: &str| {
        let container: WorkloadId = id.parse().unwrap();
        let undo = Undo::SwitchBack { container: container.clone(), to: Topology::Plain };
        let action = Action::SwitchRootfs { container: container.clone(), to: Topology::Plain };
        let start = Action::Start { container };
        [Step { stage: 1, lane, action, undo }, Step { stage: 1, lane, action: start, undo: Undo::Nothing }]
    };
    let mut plan = plan();
    let after = plan.steps.split_off(4);
    plan.steps.truncate(1);
    plan.steps.extend((0..).zip(containers).flat_map(|(lane, id)| switch(lane, id)));
    plan.steps.extend(after);
    plan.containers = containers.iter().map(|id| planned(id)).collect();
    plan
}

/// All of the plan but what was done to the container `a`, or nothing of it.
fn expect_whole_but_a(bench: &Bench, model: &Model, outcome: Outcome, context: &str) {
    let (modules, switched): (&[&str], &[&str]) = match outcome {
        Outcome::Committed => (&["one"], &["b"]),
        Outcome::RolledBack => (&[], &[]),
    };
    let loaded: Vec<_> = model.loaded.lock().unwrap().iter().cloned().collect();
    assert_eq!(loaded, modules, "{context}: {outcome:?}");
    let on_other_files: Vec<_> = model.switched.lock().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(on_other_files, switched, "{context}: {outcome:?}");
    let baseline = bench.baseline();
    assert_eq!(baseline.livepatches.len(), modules.len(), "{context}: baseline");
    let rootfs: Vec<_> = baseline.rootfs.iter().map(|rootfs| rootfs.container.to_string()).collect();
    assert_eq!(rootfs, switched, "{context}: baseline");
}

fn failing_a() -> Model {
    Model { fails: Some("a"), ..Model::default() }
}

#[test]
fn a_container_that_fails_goes_back_alone_and_the_rest_is_committed() {
    let (bench, model) = (Bench::new(&plan_alone(&["a", "b"])), failing_a());
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::Committed));
    expect_whole_but_a(&bench, &model, Outcome::Committed, "undisturbed");
    assert!(bench.events().contains(&Event::GivenUp { step: 2 }));
    let stored = bench.journal.lock().unwrap().transaction(bench.id.as_str()).unwrap();
    let given_up = stored.given_up();
    assert_eq!(given_up.len(), 1);
    assert!(
        given_up[0].why.contains("start a") && given_up[0].why.contains("the model says no"),
        "{given_up:?}"
    );
}

#[test]
fn a_cut_at_any_boundary_of_a_transaction_that_gives_a_container_up_resumes_to_a_whole_state() {
    let (mut cuts, mut committed) = (0, 0);
    for boundary in 0.. {
        let (mut bench, model) = (Bench::new(&plan_alone(&["a", "b"])), failing_a());
        if bench.drive(&model, &at(boundary, Onward::Cut)).is_ok() {
            break;
        }
        cuts += 1;
        for second in 0.. {
            bench.power_cycle();
            let Ok(reached) = bench.resume(&model, &at(second, Onward::Cut)) else { continue };
            let Reached::Ended(outcome) = reached else { panic!("{boundary}, {second}: {reached:?}") };
            expect_whole_but_a(&bench, &model, outcome, &format!("{boundary}, {second}"));
            committed += u32::from(outcome == Outcome::Committed);
            break;
        }
    }
    assert!(cuts > 30 && committed > 2, "only {cuts} boundaries, {committed} after the commit");
}

#[test]
fn an_operator_who_stops_a_transaction_that_gave_a_container_up_gets_the_old_state() {
    for boundary in 0..40 {
        let (bench, model) = (Bench::new(&plan_alone(&["a", "b"])), failing_a());
        let reached = bench.drive(&model, &at(boundary, Onward::TurnBack)).unwrap();
        let Reached::Ended(outcome) = reached else { panic!("{boundary}: {reached:?}") };
        let turned = bench.events().contains(&Event::RollbackDecided { cause: Cause::Operator });
        assert_eq!(outcome == Outcome::RolledBack, turned, "boundary {boundary}");
        expect_whole_but_a(&bench, &model, outcome, &format!("boundary {boundary}"));
    }
}

#[test]
fn where_every_container_fails_and_nothing_else_changes_all_goes_back() {
    let mut plan = plan_alone(&["a"]);
    plan.steps.remove(0);
    let (bench, model) = (Bench::new(&plan), failing_a());
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::RolledBack));
    expect_whole_but_a(&bench, &model, Outcome::RolledBack, "nothing left");
}

#[test]
fn a_container_that_cannot_go_back_holds_nobody_up_and_stays_open_until_it_can() {
    let (bench, model) = (Bench::new(&plan_alone(&["a", "b"])), failing_a());
    *model.undo_fails.lock().unwrap() = Some("a");
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::NeedsOperator(vec![1]));
    let baseline = bench.baseline();
    assert_eq!((baseline.livepatches.len(), baseline.rootfs.len()), (1, 1), "the rest is committed");
    assert_eq!(bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap(), Reached::NeedsOperator(vec![1]));
    *model.undo_fails.lock().unwrap() = None;
    let reached = bench.resume(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::Committed));
    expect_whole_but_a(&bench, &model, Outcome::Committed, "after the retry");
}

#[test]
fn the_failure_of_one_that_goes_back_with_the_rest_takes_all_of_it_back() {
    let mut plan = plan_alone(&["a", "b"]);
    plan.containers[0].on_failure = FailureScope::All;
    let (bench, model) = (Bench::new(&plan), failing_a());
    let reached = bench.drive(&model, &at(NEVER, Onward::Continue)).unwrap();
    assert_eq!(reached, Reached::Ended(Outcome::RolledBack));
    expect_whole_but_a(&bench, &model, Outcome::RolledBack, "all");
}
