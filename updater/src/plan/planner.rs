//! From a verified manifest and the facts of a host to a plan. Pure.
//!
//! The order is the least disturbing first: layers are unpacked while nothing is touched, livepatches go
//! live, then packages of the host are installed and what runs on them is restarted, then the containers that get
//! layers, as many at a time as the manifest allows. Host probes and the settle time follow, then the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::{
    Component, ComponentFit, ContainerId, ContainerSelector, FailureScope, Handling, KernelOutcome,
    KernelSelection, LayerComponent, LivepatchComponent, Manifest, OnFailure as OnRollback, PackageComponent,
    Probe, Replace, ReplacedFile, StuckAction, StuckRule, WithoutCheckpoint,
};
use workloads::model::{Container, FreshUpper, NetworkPlace, WorkloadId};

use crate::plan::facts::{ContainerFacts, HostFacts, LivepatchFacts, Presence, Unmet};
use crate::plan::images::removals;
use crate::plan::packages::{self, PackagePlan, PlannedPackage, PlannedService};
use crate::plan::{
    Action, Claim, Feels, LoadedPayload, OnFailure, Plan, PlannedContainer, ProbeSite, SitedProbe, Step, Undo,
};

mod images;

/// Why this host cannot take this manifest. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of this host's preconditions {} not met:\n{}", unmet.len(), if unmet.len() == 1 { "is" } else { "are" }, list(unmet))]
pub struct Refusal {
    /// Every precondition that does not hold.
    pub unmet: Vec<Unmet>,
}

fn list(unmet: &[Unmet]) -> String {
    unmet.iter().map(|unmet| format!("  - {unmet}")).collect::<Vec<_>>().join("\n")
}

/// Make the plan for a manifest on a host. `name` is unique to the transaction; fresh directories bear it.
///
/// # Errors
/// [`Refusal`] with every unmet precondition, not only the first.
pub fn plan(manifest: &Manifest, facts: &HostFacts, name: &str) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(facts);
    let selection = manifest.for_kernel(&facts.kernel);
    draft.check_targets(manifest, &selection);
    for (index, component) in manifest.components.iter().enumerate() {
        if let (Component::Livepatch(component), Some(known)) = (component, facts.livepatches.get(&index)) {
            draft.livepatch(component, known);
        }
    }
    draft.packages(manifest, &selection);
    draft.containers(manifest, &selection, name);
    draft.images(manifest, &selection, name);
    draft.notes.extend(facts.unreadable.iter().map(ToString::to_string));
    draft.finish(manifest)
}

/// A plan under way.
struct Draft<'a> {
    facts: &'a HostFacts,
    steps: Vec<Step>,
    stage: u32,
    containers: Vec<PlannedContainer>,
    packages: Vec<PlannedPackage>,
    services: Vec<PlannedService>,
    unmet: Vec<Unmet>,
    notes: Vec<String>,
    /// Livepatches that the kernel does not need, and packages that the host does not have.
    fixed: Vec<String>,
}

impl<'a> Draft<'a> {
    fn new(facts: &'a HostFacts) -> Self {
        Self {
            facts,
            steps: Vec::new(),
            stage: 0,
            containers: Vec::new(),
            packages: Vec::new(),
            services: Vec::new(),
            unmet: Vec::new(),
            notes: Vec::new(),
            fixed: Vec::new(),
        }
    }

    /// Add a stage of one lane.
    fn stage(&mut self, steps: impl IntoIterator<Item = (Action, Undo)>) {
        self.lanes([steps.into_iter().collect()]);
    }

    /// Add a stage of lanes that run side by side.
    fn lanes(&mut self, lanes: impl IntoIterator<Item = Vec<(Action, Undo)>>) {
        let mut any = false;
        for (lane, steps) in (0..).zip(lanes) {
            any |= !steps.is_empty();
            let stage = self.stage;
            self.steps.extend(steps.into_iter().map(|(action, undo)| Step { stage, lane, action, undo }));
        }
        self.stage += u32::from(any);
    }

    fn miss(&mut self, subject: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.unmet.push(Unmet { subject: subject.into(), expected: expected.into(), found: found.into() });
    }

    fn check_targets(&mut self, manifest: &Manifest, selection: &KernelSelection) {
        let targets = &manifest.targets;
        if !targets.arch.iter().any(|arch| arch.as_str() == self.facts.arch) {
            let expected = join(targets.arch.iter().map(|arch| arch.as_str()));
            self.miss("this host's architecture", expected, &self.facts.arch);
        }
        if !targets.has_group(&self.facts.groups) {
            let found = join(&self.facts.groups);
            let found = if found.is_empty() { "none".to_owned() } else { found };
            self.miss("the groups that this host is in", format!("one of {}", join(&targets.groups)), found);
        }
        let fits =
            selection.livepatches.iter().filter_map(|(index, fit)| match &manifest.components[*index] {
                Component::Livepatch(livepatch) => Some((livepatch, fit)),
                _ => None,
            });
        if selection.outcome == KernelOutcome::NoneFits {
            let builds: Vec<_> = fits.filter_map(|(livepatch, fit)| other_build(livepatch, fit)).collect();
            if builds.is_empty() {
                let releases = self.kernels(manifest, selection);
                self.miss("this host's kernel", releases, self.facts.kernel.release.to_string());
            }
            self.unmet.extend(builds);
            return;
        }
        for (livepatch, fit) in fits {
            let LivepatchComponent { module, kernel, .. } = livepatch;
            match fit {
                ComponentFit::Fits => {}
                ComponentFit::Fixed { since } => self.fixed.push(format!(
                    "livepatch {module} is not needed: {} {} has the fix since {}",
                    since.distribution, since.series, since.version
                )),
                _ => self.notes.push(format!("livepatch {module} is for another kernel: {kernel}")),
            }
        }
    }

    /// The kernels that the manifest is for.
    fn kernels(&self, manifest: &Manifest, selection: &KernelSelection) -> String {
        let of = |index: &usize| match &manifest.components[*index] {
            Component::Livepatch(livepatch) => Some(livepatch.kernel.to_string()),
            _ => None,
        };
        let components: BTreeSet<String> =
            selection.livepatches.iter().filter_map(|(index, _)| of(index)).collect();
        if components.is_empty() { join(&manifest.targets.kernels) } else { join(components) }
    }

    fn livepatch(&mut self, component: &LivepatchComponent, known: &LivepatchFacts) {
        let module = &component.module;
        self.unmet.extend(known.unmet.iter().cloned());
        self.notes.extend(known.warnings.iter().cloned());
        if let Some(why) = &known.quarantined {
            self.miss(format!("livepatch {module}"), "a module that this host has not crashed of", why);
        }
        match &known.presence {
            Presence::Live => {
                self.notes.push(format!("livepatch {module} is live already"));
                return;
            }
            Presence::Other { what } => {
                self.miss(format!("livepatch {module}"), "no other module of that name", what);
            }
            Presence::Absent => {}
        }
        let mut reload = Vec::new();
        for replaced in &known.replaces {
            match replaced.payload {
                Some(payload) => reload.push(LoadedPayload { module: replaced.module.clone(), payload }),
                None => self.miss(
                    format!("livepatch {module}"),
                    "to replace only livepatches that can be loaded again on rollback",
                    format!("{}, which this program did not load", replaced.module),
                ),
            }
        }
        if component.replace == Replace::All && !reload.is_empty() {
            let names = join(reload.iter().map(|patch| patch.module.as_str()));
            self.notes.push(format!("livepatch {module} replaces {names}; a rollback loads them again"));
        }
        let deadline = component.transition.deadline.duration();
        let payload = component.payload.sha256;
        let replaced = reload.iter().map(|patch| patch.module.clone()).collect();
        let may_kill = self.may_kill(&component.transition.stuck);
        for container in &may_kill {
            self.notes.push(format!(
                "a process of container {container} that is stuck uninterruptibly in what livepatch {module} patches is killed, and is lost: a way back does not bring it again"
            ));
        }
        self.stage([
            (
                Action::ArmCrashGuard {
                    module: module.clone(),
                    payload,
                    window: self.facts.settings.crash_guard,
                },
                Undo::DisarmCrashGuard { payload },
            ),
            (
                Action::LoadLivepatch { module: module.clone(), payload, kernel: component.kernel.clone() },
                Undo::UnloadLivepatch { module: module.clone(), deadline, reload },
            ),
            // The load's undo takes the transition back with the module.
            (
                Action::AwaitTransition {
                    module: module.clone(),
                    deadline,
                    claim: Claim::Manifest(component.patches.clone()),
                    replaced,
                    may_kill,
                },
                Undo::Nothing,
            ),
        ]);
    }

    /// The running containers of which a stuck process may be killed: of each, the first rule that selects it decides.
    fn may_kill(&self, rules: &[StuckRule]) -> BTreeSet<ContainerId> {
        let decided = |container: &&Container| {
            let label = |name: &str| container.annotations.get(name).map(String::as_str);
            let selecting =
                rules.iter().find(|rule| rule.containers.selects(&container.id.to_string(), label));
            selecting.is_some_and(|rule| rule.action == StuckAction::Kill)
        };
        // A control group says the name alone: where two runtimes have one of it, neither's is killed in.
        let alone = |container: &&Container| {
            let same = |other: &&Container| other.id.id == container.id.id;
            self.facts.running.iter().filter(same).count() == 1
        };
        let containers = self.facts.running.iter().filter(decided).filter(alone);
        containers.map(|container| container.id.id.clone()).collect()
    }

    fn packages(&mut self, manifest: &Manifest, selection: &KernelSelection) {
        let components = packages::components(manifest, selection);
        let Some(known) = &self.facts.packages else { return };
        let mut affected = Vec::new();
        for container in &self.facts.containers {
            let of = |component: usize| components.iter().find(|(index, _)| *index == component);
            let by: Vec<&PackageComponent> =
                container.affected.iter().filter_map(|by| Some(of(by.component)?.1)).collect();
            if by.is_empty() {
                continue;
            }
            if by.len() < container.affected.len() {
                self.miss(
                    format!("container {}", container.container.id),
                    "a container that runs what either a layer or a package replaces",
                    "one that runs both",
                );
                continue;
            }
            self.unmet.extend(container.unmet.iter().cloned());
            let without: Vec<_> = by.iter().map(|component| component.without_checkpoint).collect();
            let never: Vec<_> = by.iter().flat_map(|component| &component.never_checkpoint).collect();
            affected.push((container, self.feels(container, &without, &never)));
        }
        let PackagePlan { packages, services, containers, stages, unmet, notes, absent } =
            packages::plan(&components, known, affected);
        self.packages = packages;
        self.services = services;
        self.containers.extend(containers);
        stages.into_iter().for_each(|steps| self.stage(steps));
        self.unmet.extend(unmet);
        self.notes.extend(notes);
        self.fixed.extend(absent);
    }

    fn containers(&mut self, manifest: &Manifest, selection: &KernelSelection, name: &str) {
        let layers: BTreeMap<usize, &LayerComponent> = manifest
            .components
            .iter()
            .enumerate()
            .filter(|(index, _)| selection.taken.contains(index))
            .filter_map(|(index, component)| match component {
                Component::Layer(layer) => Some((index, layer)),
                _ => None,
            })
            .collect();
        let mut work = Vec::new();
        for known in &self.facts.containers {
            let by: Vec<&LayerComponent> = known
                .affected
                .iter()
                .filter_map(|affected| layers.get(&affected.component).copied())
                .collect();
            if let Some(first) = by.first() {
                work.push((order_key(&first.handling(), known), known, by));
            }
        }
        work.sort_by(|(a, ..), (b, ..)| a.cmp(b));

        let mut lanes = Vec::new();
        for (_, known, by) in &work {
            if let Some(steps) = self.container(known, by, name) {
                lanes.push((by, &known.container.network, steps));
            }
        }
        let mut unpack: Vec<(Action, Undo)> = Vec::new();
        for layer in lanes.iter().flat_map(|(by, ..)| by.iter()) {
            // A layer in the store harms nobody; what no container uses is collected later.
            let step =
                (Action::UnpackLayer { layer: layer.payload.sha256, format: layer.format }, Undo::Nothing);
            if !unpack.contains(&step) {
                unpack.push(step);
            }
        }
        self.stage(unpack);
        let width =
            lanes.iter().flat_map(|(by, ..)| by.iter()).map(|layer| layer.concurrency).min().unwrap_or(1);
        self.batches(width, lanes.into_iter().map(|(_, network, steps)| (network, steps)));
    }

    /// Stages of so many containers at once.
    fn batches<'b>(
        &mut self,
        width: u32,
        lanes: impl Iterator<Item = (&'b NetworkPlace, Vec<(Action, Undo)>)>,
    ) {
        let mut lanes = lanes.peekable();
        while lanes.peek().is_some() {
            self.lanes(one_lane_a_namespace(lanes.by_ref().take(width.max(1) as usize)));
        }
    }

    /// The steps for one affected container, and what it will feel; `None` if it is left alone.
    fn container(
        &mut self,
        known: &ContainerFacts,
        by: &[&LayerComponent],
        name: &str,
    ) -> Option<Vec<(Action, Undo)>> {
        let id = &known.container.id;
        self.unmet.extend(known.unmet.iter().cloned());
        let without: Vec<_> = by.iter().map(|layer| layer.without_checkpoint).collect();
        let never: Vec<_> = by.iter().flat_map(|layer| &layer.never_checkpoint).collect();
        let feels = self.feels(known, &without, &never);
        let handling: Vec<Handling<'_>> = by.iter().map(|layer| layer.handling()).collect();
        let files = known.affected.iter().flat_map(|affected| affected.files.iter().cloned()).collect();
        for unknown in known.affected.iter().flat_map(|affected| &affected.unknown) {
            self.notes.push(format!(
                "container {id} is taken to be affected, since something cannot be told: {unknown}"
            ));
        }
        self.containers.push(PlannedContainer {
            container: known.container.clone(),
            topology: known.topology.clone(),
            files,
            on_failure: together(&handling),
            feels: feels.clone(),
        });
        let checkpoint = match feels {
            Feels::Skipped { .. } | Feels::NotRunning => return None,
            Feels::RestartWithCheckpoint => true,
            Feels::RestartWithoutCheckpoint { .. } => false,
        };
        self.notes.extend(known.changes.iter().map(|change| format!("a restart of {id} changes {change}")));
        let layers: Vec<PathBuf> = by
            .iter()
            .map(|layer| layer_directory(&self.facts.settings.store, &layer.payload.sha256))
            .collect();
        let fresh = Fresh::beside(known, &self.facts.settings.store, name);
        let to = match known.topology.trial(&known.container.rootfs, &layers, &fresh.upper) {
            Ok(to) => to,
            Err(error) => {
                self.miss(
                    format!("the root file system of container {id}"),
                    "room for one more layer",
                    error.to_string(),
                );
                return None;
            }
        };
        let prepare = Action::PrepareRootfs {
            container: id.clone(),
            layers: by.iter().map(|layer| layer.payload.sha256).collect(),
            fresh: fresh.upper,
        };
        let mut steps = vec![(prepare, Undo::Nothing)];
        steps.extend(take_down(id, checkpoint));
        steps.push((
            Action::SwitchRootfs { container: id.clone(), to },
            Undo::SwitchBack { container: id.clone(), to: known.topology.with_new_work(&fresh.back) },
        ));
        steps.push((Action::Start { container: id.clone() }, Undo::StopTrial { container: id.clone() }));
        steps.extend(probes_of(id, &handling));
        // The start's undo ends what maps them.
        let mut replaced: Vec<ReplacedFile> = Vec::new();
        for file in by.iter().flat_map(|layer| &layer.replaces) {
            if !replaced.contains(file) {
                replaced.push(file.clone());
            }
        }
        steps.push((Action::ConfirmEffect { container: id.clone(), replaced }, Undo::Nothing));
        Some(steps)
    }

    /// What a container feels, by what each of the components that affect it says.
    fn feels(
        &mut self,
        known: &ContainerFacts,
        without: &[WithoutCheckpoint],
        never: &[&ContainerSelector],
    ) -> Feels {
        let mut obstacles: Vec<String> = known.obstacles.clone();
        let label = |name: &str| known.container.annotations.get(name).map(String::as_str);
        if never.iter().any(|selector| selector.selects(&known.container.id.to_string(), label)) {
            obstacles.push("the manifest forbids to write its memory down".to_owned());
        }
        if obstacles.is_empty() {
            return Feels::RestartWithCheckpoint;
        }
        let any = |wanted| without.contains(&wanted);
        if any(WithoutCheckpoint::Fail) {
            let subject = format!("container {}", known.container.id);
            for obstacle in &obstacles {
                self.miss(subject.clone(), "a container that can be checkpointed", obstacle);
            }
        }
        if any(WithoutCheckpoint::Skip) {
            Feels::Skipped { obstacles }
        } else {
            Feels::RestartWithoutCheckpoint { obstacles }
        }
    }

    /// Containers that go back alone settle each by itself, beside the rest.
    fn settle(&self, watch: Duration) -> Vec<Action> {
        let alone = self.containers.iter().filter(|planned| planned.on_failure == FailureScope::Workload);
        let alone: Vec<&WorkloadId> = alone.map(|planned| &planned.container.id).collect();
        let probes = |of: Option<&WorkloadId>| {
            let site = |step: &Step| step.action.container().filter(|id| alone.contains(id)).cloned();
            let probe = |step: &Step| match &step.action {
                Action::Probe(probe) if site(step).as_ref() == of => Some(probe.clone()),
                _ => None,
            };
            self.steps.iter().filter_map(probe).collect()
        };
        let updated = |id: &&&WorkloadId| {
            let confirms = |step: &Step| {
                let confirms =
                    matches!(step.action, Action::ConfirmEffect { .. } | Action::ConfirmImage { .. });
                confirms && step.action.container() == Some(**id)
            };
            self.steps.iter().any(confirms)
        };
        let of =
            |id: Option<&WorkloadId>| Action::Settle { container: id.cloned(), watch, probes: probes(id) };
        [of(None)].into_iter().chain(alone.iter().filter(updated).map(|id| of(Some(id)))).collect()
    }

    fn finish(mut self, manifest: &Manifest) -> Result<Plan, Refusal> {
        if !self.unmet.is_empty() {
            return Err(Refusal { unmet: self.unmet });
        }
        let host: Vec<SitedProbe> = sited(&manifest.probes, &ProbeSite::Host).collect();
        self.stage(host.iter().cloned().map(|probe| (Action::Probe(probe), Undo::Nothing)));
        if !self.steps.is_empty() {
            let settle = self.settle(manifest.settle.duration());
            self.lanes(settle.into_iter().map(|action| vec![(action, Undo::Nothing)]));
        }
        let why = "the host was committed to the new state".to_owned();
        self.stage([(Action::Commit, Undo::Impossible { why: why.clone() })]);
        let held: Vec<WorkloadId> = self
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::HoldConnections { container } => Some(container.clone()),
                _ => None,
            })
            .collect();
        let removals = removals(&self.steps, &why);
        self.stage(held.into_iter().map(|container| {
            (Action::ReleaseConnections { container }, Undo::Impossible { why: why.clone() })
        }));
        self.stage(removals);
        let on_failure = match manifest.rollback.on_failure {
            OnRollback::Automatic => OnFailure::RollBack,
            OnRollback::Hold => OnFailure::Hold,
        };
        let Self { containers, packages, services, steps, mut notes, fixed, .. } = self;
        let mut plan = Plan {
            containers,
            packages,
            services,
            steps,
            on_failure,
            notes: Vec::new(),
            not_needed: Vec::new(),
        };
        let has_packages = self.facts.packages.as_ref().is_some_and(|known| !known.installed.is_empty());
        let nothing = self.facts.livepatches.is_empty()
            && plan.containers.is_empty()
            && plan.services.is_empty()
            && plan.is_empty()
            && !has_packages;
        match nothing {
            true => plan.not_needed = fixed,
            false => notes.extend(fixed),
        }
        plan.notes = notes;
        Ok(plan)
    }
}

/// Containers of one network namespace follow one another: CRIU's lock is the namespace's, so clearing one's
/// would uncover the connections of another that is being dumped beside it.
fn one_lane_a_namespace<'a>(
    batch: impl Iterator<Item = (&'a NetworkPlace, Vec<(Action, Undo)>)>,
) -> Vec<Vec<(Action, Undo)>> {
    let mut lanes: Vec<(&NetworkPlace, Vec<(Action, Undo)>)> = Vec::new();
    for (network, steps) in batch {
        let shared =
            lanes.iter_mut().find(|(other, _)| matches!(network, NetworkPlace::Path(_)) && *other == network);
        match shared {
            Some((_, lane)) => lane.extend(steps),
            None => lanes.push((network, steps)),
        }
    }
    lanes.into_iter().map(|(_, steps)| steps).collect()
}

/// A container goes back alone if every component that affects it says so.
fn together(by: &[Handling<'_>]) -> FailureScope {
    match by.iter().all(|handling| handling.on_failure == FailureScope::Workload) {
        true => FailureScope::Workload,
        false => FailureScope::All,
    }
}

/// The steps that end a running container so that it can come back.
pub(super) fn take_down(id: &WorkloadId, checkpoint: bool) -> Vec<(Action, Undo)> {
    let container = || id.clone();
    if !checkpoint {
        return vec![(Action::Stop { container: container() }, Undo::StartAgain { container: container() })];
    }
    vec![
        (Action::PreDump { container: container() }, Undo::DiscardImages { container: container() }),
        // Undone after the restore, when the connections have their processes again.
        (
            Action::HoldConnections { container: container() },
            Undo::LetConnectionsGo { container: container() },
        ),
        (Action::Checkpoint { container: container() }, Undo::RestoreCheckpoint { container: container() }),
    ]
}

/// Where an unpacked layer lives in the store.
pub fn layer_directory(store: &Path, layer: &manifests::Sha256) -> PathBuf {
    store.join("layers").join(layer.to_string())
}

/// The directories that a transaction makes for a container.
pub(super) struct Fresh {
    /// For the changes of the version on trial.
    pub(super) upper: FreshUpper,
    /// The work directory for mounting the old upper directory again: overlay wants a new one.
    pub(super) back: PathBuf,
}

impl Fresh {
    /// Beside the container's own upper directory, so that its data stays on its file system; in the store
    /// for a plain root file system, which has none.
    pub(super) fn beside(known: &ContainerFacts, store: &Path, name: &str) -> Self {
        let upper = known.topology.overlay().and_then(|overlay| overlay.upper.as_deref());
        let beside = upper.and_then(Path::parent);
        let directory = match beside {
            Some(parent) => parent.join(format!("update-{name}")),
            None => store.join("rootfs").join(known.container.id.directory_name()).join(name),
        };
        let upper = FreshUpper { upper: directory.join("upper"), work: directory.join("work") };
        Self { upper, back: directory.join("back") }
    }
}

/// What is missing where the release is right and the build is another.
fn other_build(livepatch: &LivepatchComponent, fit: &ComponentFit) -> Option<Unmet> {
    let ComponentFit::OtherBuild { expected, found } = fit else { return None };
    Some(Unmet {
        subject: format!("livepatch {}", livepatch.module),
        expected: format!("the build of {} with build id {expected}", livepatch.kernel),
        found: match found {
            Some(found) => format!("build id {found}"),
            None => "a kernel that shows no build id".to_owned(),
        },
    })
}

fn sited<'a>(
    probes: impl IntoIterator<Item = &'a Probe>,
    site: &ProbeSite,
) -> impl Iterator<Item = SitedProbe> {
    probes.into_iter().map(move |probe| SitedProbe { site: site.clone(), probe: probe.clone() })
}

/// The probes that its components want of a container.
fn probes_of(id: &WorkloadId, by: &[Handling<'_>]) -> Vec<(Action, Undo)> {
    let probes = by.iter().flat_map(|handling| handling.probes);
    sited(probes, &ProbeSite::Container { container: id.clone() })
        .map(|probe| (Action::Probe(probe), Undo::Nothing))
        .collect()
}

/// Containers sort by the ordering label's value (those without it last), then by name.
fn order_key(handling: &Handling<'_>, known: &ContainerFacts) -> (bool, String, WorkloadId) {
    let value = handling.order.and_then(|order| known.container.annotations.get(order.name.as_str()));
    (value.is_none(), value.cloned().unwrap_or_default(), known.container.id.clone())
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
