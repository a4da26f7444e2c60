//! What will be done to this host: a closed, serialisable list of steps with their undos.
//!
//! [`planner`] makes a [`Plan`] out of a verified manifest and [`HostFacts`](facts::HostFacts) and is pure: the
//! same inputs give the same plan, and `update plan` prints exactly what `update apply` obeys. [`facts`] says
//! what the planner needs to know of a host, [`kernel`] what stands in the way of another kernel. [`packages`] plans those
//! of the host; `images` has the steps that make a container anew. [`reverse`] plans the rollback of a committed transaction with the
//! same steps.
//!
//! A step names its action and its undo. Undo is data, chosen here and not at the time of trouble;
//! [`Undo::Impossible`] is an honest value that a plan contains only after its commit step.

pub mod facts;
mod images;
pub mod kernel;
pub mod packages;
pub mod planner;
pub mod reverse;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use manifests::{
    ContainerId, FailureScope, ImageDigest, KernelRelease, LayerFormat, ModuleName, PatchedObject, Probe,
    ReplacedFile, ServiceName, Sha256,
};
use serde::{Deserialize, Serialize};
use system::clock::millis;
pub use workloads::model::ProbeSite;
use workloads::model::{Container, FreshUpper, Replacement, RuntimeName, Topology, WorkloadId};

use crate::plan::packages::{PackageSwitch, PlannedPackage, PlannedService, ServiceFeels};

/// The whole of what a transaction will do, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The containers that the steps name, and what each of them will feel.
    pub containers: Vec<PlannedContainer>,
    /// The packages of the host that the steps install.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PlannedPackage>,
    /// The services of the host that run what these packages replace, and what each of them will feel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<PlannedService>,
    /// The steps. Stages run one after the other; the lanes of a stage run side by side.
    pub steps: Vec<Step>,
    /// What happens when a step before the commit fails.
    pub on_failure: OnFailure,
    /// Things an operator should read before saying yes.
    pub notes: Vec<String>,
    /// Why this host does not need the manifest: its kernel has the fixes, and nothing else is affected. Empty
    /// wherever that is not all that there is to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_needed: Vec<String>,
}

impl Plan {
    /// The planned container of that name.
    pub fn container(&self, id: &WorkloadId) -> Option<&PlannedContainer> {
        self.containers.iter().find(|planned| &planned.container.id == id)
    }

    /// The container of this step, if it goes back alone when the step fails before the commit.
    pub fn goes_back_alone(&self, step: &Step) -> Option<&WorkloadId> {
        let planned = self.container(step.action.container()?)?;
        (planned.on_failure == FailureScope::Workload).then_some(&planned.container.id)
    }

    /// The plan without what it does to these containers.
    #[must_use]
    pub fn without(&self, containers: &BTreeSet<WorkloadId>) -> Self {
        let mut plan = self.clone();
        plan.containers.retain(|planned| !containers.contains(&planned.container.id));
        plan.steps.retain(|step| step.action.container().is_none_or(|id| !containers.contains(id)));
        plan
    }

    /// Whether it changes what the host should have.
    pub fn changes_the_host(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(
                step.action,
                Action::LoadLivepatch { .. }
                    | Action::RemoveLivepatch { .. }
                    | Action::SwitchRootfs { .. }
                    | Action::ExchangeContainers { .. }
                    | Action::InstallPackages { .. }
                    | Action::RestartServices { .. }
            )
        })
    }

    /// What loading this livepatch replaces, in the order of loading it again.
    pub fn replaced_by(&self, livepatch: &ModuleName) -> &[LoadedPayload] {
        let replaced = self.steps.iter().find_map(|step| match (&step.action, &step.undo) {
            (Action::LoadLivepatch { module, .. }, Undo::UnloadLivepatch { reload, .. })
                if module == livepatch =>
            {
                Some(reload.as_slice())
            }
            _ => None,
        });
        replaced.unwrap_or_default()
    }

    /// The image that a container is made anew from, after the one that it had.
    pub fn exchanged(&self, container: &WorkloadId) -> Option<(&ImageDigest, &ImageDigest)> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::CreateReplacement { container: own, from, image, .. } if own == container => {
                Some((from, image))
            }
            _ => None,
        })
    }

    /// Whether it is a container that is exchanged for another one, and that its engine would have started at boot.
    pub fn starts_by_policy(&self, container: &WorkloadId) -> bool {
        self.steps.iter().any(|step| match &step.action {
            Action::ExchangeContainers { container: own, replacement } => {
                own == container && matches!(&*replacement.restart, "always" | "unless-stopped")
            }
            _ => false,
        })
    }

    /// The affected containers that the manifest leaves alone: they go on running what it replaces.
    pub fn skipped(&self) -> impl Iterator<Item = &WorkloadId> {
        let skipped = |planned: &&PlannedContainer| matches!(planned.feels, Feels::Skipped { .. });
        self.containers.iter().filter(skipped).map(|planned| &planned.container.id)
    }

    /// The services that the steps restart.
    pub fn restarted_services(&self) -> impl Iterator<Item = &PlannedService> {
        self.services.iter().filter(|planned| planned.feels == ServiceFeels::Restart)
    }

    /// Whether there is nothing to do: the host has what the manifest wants, but for what it skips.
    pub fn is_empty(&self) -> bool {
        self.steps
            .iter()
            .all(|step| matches!(step.action, Action::Commit | Action::Probe { .. } | Action::Settle { .. }))
    }
}

/// What happens when a step before the commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Undo everything by itself.
    RollBack,
    /// Stop and ask the operator: exit code 6.
    Hold,
}

/// A container as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedContainer {
    /// What the runtime said of it.
    #[serde(flatten)]
    pub container: Container,
    /// How its root file system is put together now.
    pub topology: Topology,
    /// The files that made it affected, as the container sees them.
    pub files: Vec<PathBuf>,
    /// What goes back when it fails before the commit.
    #[serde(default, skip_serializing_if = "FailureScope::is_default")]
    pub on_failure: FailureScope,
    /// What it will feel.
    pub feels: Feels,
}

/// What a container feels of the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "feels", rename_all = "kebab-case")]
pub enum Feels {
    /// Its own restart; on failure its memory, files and connections come back.
    RestartWithCheckpoint,
    /// Its own restart; on failure it is started again on its old files, its memory is lost.
    RestartWithoutCheckpoint {
        /// Why it cannot be checkpointed.
        obstacles: Vec<String>,
    },
    /// Nothing: it does not run. Its files are put back, and it has them when somebody starts it.
    NotRunning,
    /// Nothing: the manifest skips it, and it keeps running the files that the manifest replaces.
    Skipped {
        /// Why it cannot be checkpointed.
        obstacles: Vec<String>,
    },
}

/// One change to the host, or one check of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Stages run in ascending order.
    pub stage: u32,
    /// Steps of a lane run in order; lanes of a stage run side by side.
    pub lane: u32,
    /// What is done.
    pub action: Action,
    /// How it is taken back.
    pub undo: Undo,
}

/// A probe and where it looks from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitedProbe {
    /// Where from.
    pub site: ProbeSite,
    /// What is asked.
    pub probe: Probe,
}

/// Everything that a transaction can do to a host. The list is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Record that a module is about to be loaded, so that a host that crashes of it does not load it again.
    ArmCrashGuard {
        /// The module.
        module: ModuleName,
        /// Its bytes.
        payload: Sha256,
        /// A crash within this time after the load is blamed on the module.
        #[serde(with = "millis")]
        window: Duration,
    },
    /// Load the module; the kernel starts the transition.
    LoadLivepatch {
        /// The module.
        module: ModuleName,
        /// Its bytes.
        payload: Sha256,
        /// The kernel that it is for.
        kernel: KernelRelease,
    },
    /// Wait until every task runs the patched functions; name and unblock the tasks that hold it back.
    /// Then see that the kernel patches what was claimed, and nothing else, and unload what it replaced.
    AwaitTransition {
        /// The module.
        module: ModuleName,
        /// Past this time the transition is reversed.
        #[serde(with = "millis")]
        deadline: Duration,
        /// What it patches.
        claim: Claim,
        /// Modules that have no effect once it has.
        #[serde(default)]
        replaced: Vec<ModuleName>,
        /// Containers of which the manifest permits to kill a process that is stuck uninterruptibly for good.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        may_kill: BTreeSet<ContainerId>,
    },
    /// Disable a loaded livepatch, wait, unload it.
    RemoveLivepatch {
        /// The module.
        module: ModuleName,
        /// Past this time the disabling is reversed.
        #[serde(with = "millis")]
        deadline: Duration,
    },
    /// Unpack a layer into the store, where containers can mount it.
    UnpackLayer {
        /// The layer's bytes.
        layer: Sha256,
        /// How they are packed.
        format: LayerFormat,
    },
    /// Give an engine an image out of a payload, every byte of which is held against its digest, and see that it has that.
    LoadImage {
        /// The engine.
        runtime: RuntimeName,
        /// The image, by its configuration.
        image: ImageDigest,
        /// The archive that it is in.
        payload: Sha256,
    },
    /// Make a container anew from another image, beside it and under another name. It runs on; what its engine cannot be
    /// asked to make again is found out here.
    CreateReplacement {
        /// Which.
        container: WorkloadId,
        /// The image that it was made from.
        from: ImageDigest,
        /// The other one.
        image: ImageDigest,
        /// What the two are called.
        replacement: Replacement,
    },
    /// Set the container aside under another name, and put the one that was made anew in its place. Neither may run.
    ExchangeContainers {
        /// Which.
        container: WorkloadId,
        /// What the two are called.
        replacement: Replacement,
    },
    /// See that what runs was made from this image. Seen once more after the settle time.
    ConfirmImage {
        /// Which.
        container: WorkloadId,
        /// The image.
        image: ImageDigest,
    },
    /// Remove the container that was set aside. It has no name any more that anybody knows.
    RemoveReplaced {
        /// In whose place another one is.
        container: WorkloadId,
        /// What the old one is called.
        aside: ContainerId,
    },
    /// See that the layers fit over the container's files, and make the empty directories that the trial
    /// writes to, while the container still runs.
    PrepareRootfs {
        /// Which.
        container: WorkloadId,
        /// The layers, topmost first.
        layers: Vec<Sha256>,
        /// The directories.
        fresh: FreshUpper,
    },
    /// Write most of a container's memory to disk while it runs.
    PreDump {
        /// Which.
        container: WorkloadId,
    },
    /// Prepare to hold the container's connections: from the checkpoint on their packets are dropped.
    HoldConnections {
        /// Which.
        container: WorkloadId,
    },
    /// Freeze the container, write the rest, end its processes silently, and hold its connections.
    Checkpoint {
        /// Which.
        container: WorkloadId,
    },
    /// End the container without a checkpoint.
    Stop {
        /// Which.
        container: WorkloadId,
    },
    /// Mount the container's root file system another way. The container must not be running.
    SwitchRootfs {
        /// Which.
        container: WorkloadId,
        /// The way.
        to: Topology,
    },
    /// Start the container afresh.
    Start {
        /// Which.
        container: WorkloadId,
    },
    /// Bring the container back from the retained checkpoint of an earlier transaction.
    RestoreRetained {
        /// Which.
        container: WorkloadId,
        /// The transaction whose checkpoint it is.
        of: String,
    },
    /// See that the services run as when the plan was made.
    ExpectServices {
        /// Which.
        services: Vec<ServiceName>,
    },
    /// Install other versions of packages of the host, all together.
    InstallPackages {
        /// Which.
        packages: Vec<PackageSwitch>,
    },
    /// Have systemd restart services, all together, and see that they run.
    RestartServices {
        /// Which.
        services: Vec<ServiceName>,
    },
    /// See that no process of the services maps a file that the fix replaces. Seen once more after the settle time.
    ConfirmServices {
        /// Which.
        services: Vec<ServiceName>,
        /// The files.
        replaced: Vec<ReplacedFile>,
    },
    /// Ask until the answer is right often enough, or fail.
    Probe(SitedProbe),
    /// See that no process of the container maps a file that the fix replaces. Seen once more after the settle time.
    ConfirmEffect {
        /// Which.
        container: WorkloadId,
        /// The files.
        replaced: Vec<ReplacedFile>,
    },
    /// Watch: every probe must keep holding.
    Settle {
        /// Of the container whose probes and effect these are, where it goes back alone; of all others together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<WorkloadId>,
        /// For this long.
        #[serde(with = "millis")]
        watch: Duration,
        /// The probes.
        probes: Vec<SitedProbe>,
    },
    /// The point of no return: from here on the host should have the new state.
    Commit,
    /// Let go of held connections and make their peers learn at once that they are gone.
    ReleaseConnections {
        /// Which.
        container: WorkloadId,
    },
}

impl Action {
    /// The action in the field's words, for people.
    pub fn title(&self) -> String {
        match self {
            Self::ArmCrashGuard { module, .. } => format!("arm the crash guard for {module}"),
            Self::LoadLivepatch { module, .. } => format!("load livepatch {module}"),
            Self::AwaitTransition { module, may_kill, .. } if may_kill.is_empty() => {
                format!("wait for the transition of {module}")
            }
            Self::AwaitTransition { module, may_kill, .. } => {
                let whose: Vec<_> = may_kill.iter().map(ContainerId::as_str).collect();
                format!(
                    "wait for the transition of {module}, killing what is stuck for good in {}",
                    whose.join(", ")
                )
            }
            Self::RemoveLivepatch { module, .. } => format!("disable and unload livepatch {module}"),
            Self::UnpackLayer { layer, .. } => format!("unpack layer {:.12}", layer.to_string()),
            Self::LoadImage { runtime, image, .. } => {
                format!("give {runtime} image {:.12}", image.sha256().to_string())
            }
            Self::CreateReplacement { container, image, .. } => {
                format!("make {container} anew from image {:.12}", image.sha256().to_string())
            }
            Self::ExchangeContainers { container, .. } => format!("exchange {container} for the new one"),
            Self::ConfirmImage { container, .. } => format!("see the image of {container}"),
            Self::RemoveReplaced { container, aside } => {
                format!("remove {aside}, in whose place {container} is")
            }
            Self::PrepareRootfs { container, .. } => format!("prepare the root file system of {container}"),
            Self::PreDump { container } => format!("pre-dump {container}"),
            Self::HoldConnections { container } => format!("prepare to hold the connections of {container}"),
            Self::Checkpoint { container } => format!("checkpoint {container}"),
            Self::Stop { container } => format!("stop {container}"),
            Self::SwitchRootfs { container, .. } => format!("switch the root file system of {container}"),
            Self::Start { container } => format!("start {container}"),
            Self::RestoreRetained { container, of } => {
                format!("restore {container} from the checkpoint of {of}")
            }
            Self::ExpectServices { services } => format!("see that {} run as planned", join(services)),
            Self::InstallPackages { packages } => format!("install {}", join(packages)),
            Self::RestartServices { services } => format!("restart {}", join(services)),
            Self::ConfirmServices { services, .. } => {
                format!("see the effect of the fix in {}", join(services))
            }
            Self::Probe(SitedProbe { site: ProbeSite::Host, .. }) => "probe the host".to_owned(),
            Self::Probe(SitedProbe { site: ProbeSite::Container { container }, .. }) => {
                format!("probe {container}")
            }
            Self::ConfirmEffect { container, .. } => format!("see the effect of the fix in {container}"),
            Self::Settle { container: None, watch, .. } => {
                format!("settle for {}", humantime::format_duration(*watch))
            }
            Self::Settle { container: Some(container), watch, .. } => {
                format!("settle {container} for {}", humantime::format_duration(*watch))
            }
            Self::Commit => "commit".to_owned(),
            Self::ReleaseConnections { container } => format!("release the held connections of {container}"),
        }
    }

    /// The container that the action is about, if it is about one.
    pub fn container(&self) -> Option<&WorkloadId> {
        match self {
            Self::CreateReplacement { container, .. }
            | Self::ExchangeContainers { container, .. }
            | Self::ConfirmImage { container, .. }
            | Self::RemoveReplaced { container, .. }
            | Self::PrepareRootfs { container, .. }
            | Self::PreDump { container }
            | Self::HoldConnections { container }
            | Self::Checkpoint { container }
            | Self::Stop { container }
            | Self::SwitchRootfs { container, .. }
            | Self::Start { container }
            | Self::RestoreRetained { container, .. }
            | Self::ConfirmEffect { container, .. }
            | Self::ReleaseConnections { container }
            | Self::Settle { container: Some(container), .. }
            | Self::Probe(SitedProbe { site: ProbeSite::Container { container }, .. }) => Some(container),
            _ => None,
        }
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How a step is taken back. Every undo is safe to repeat and safe where the step never acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// The step changes nothing that anyone would miss.
    Nothing,
    /// Forget the crash guard of a module.
    DisarmCrashGuard {
        /// The module's bytes.
        payload: Sha256,
    },
    /// Disable (or reverse) and unload the livepatch.
    UnloadLivepatch {
        /// The module.
        module: ModuleName,
        /// How long the disabling may take.
        #[serde(with = "millis")]
        deadline: Duration,
        /// Livepatches of ours that it replaced, in the order of loading them again.
        reload: Vec<LoadedPayload>,
    },
    /// Load the livepatch again and wait for its transition.
    ReloadLivepatch {
        /// What to load.
        patch: LoadedPayload,
        /// How long the transition may take.
        #[serde(with = "millis")]
        deadline: Duration,
    },
    /// Remove the pre-dump's images.
    DiscardImages {
        /// Whose.
        container: WorkloadId,
    },
    /// Drop nothing any more; the connections' own processes are back.
    LetConnectionsGo {
        /// Whose.
        container: WorkloadId,
    },
    /// Bring the container back from the checkpoint with memory and connections.
    RestoreCheckpoint {
        /// Which.
        container: WorkloadId,
    },
    /// Mount the root file system as it was. Where a checkpoint is restored on it, that proves its files by digest.
    SwitchBack {
        /// Which.
        container: WorkloadId,
        /// The way it was.
        to: Topology,
    },
    /// End the version on trial.
    StopTrial {
        /// Which.
        container: WorkloadId,
    },
    /// Remove the container that was made anew and did not come into place.
    RemoveReplacement {
        /// Of which.
        container: WorkloadId,
        /// What it is called.
        trial: ContainerId,
    },
    /// Give the container that was set aside its name again.
    PutReplacedBack {
        /// Which.
        container: WorkloadId,
        /// The image of the one that is in its place, which ends if it runs.
        image: ImageDigest,
        /// What the two are called.
        replacement: Replacement,
    },
    /// Start the container again on its old files.
    StartAgain {
        /// Which.
        container: WorkloadId,
    },
    /// Restart the services that were restarted since, on the files that are there by then; leave those that were not.
    RestartServices {
        /// Which.
        services: Vec<ServiceName>,
    },
    /// Install the packages again that were there before. What their maintainer scripts did besides may stay.
    ReinstallPackages {
        /// Which.
        packages: Vec<PackageSwitch>,
    },
    /// There is no way back.
    Impossible {
        /// Why.
        why: String,
    },
}

/// What a livepatch must be seen to patch once its transition is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// What the manifest says.
    Manifest(Vec<PatchedObject>),
    /// What these bytes say, which were held against their manifest when they were first loaded.
    Bytes(Sha256),
}

/// A livepatch whose bytes are in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedPayload {
    /// The module.
    pub module: ModuleName,
    /// Its bytes.
    pub payload: Sha256,
}
