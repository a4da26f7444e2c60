//! What the planner needs to know of a host, as values.
//!
//! [`crate::operations::survey`] fills these from a running host; tests write them down. Nothing here asks the host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use manifests::{GroupName, HostKernel, ImageDigest, ModuleName, Sha256};
use workloads::model::{Container, Topology, Unreadable};
use workloads::packages::{Described, Installed, PackageId};
use workloads::services::Service;

/// A host as it is at one instant, seen with one manifest in mind.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// `uname -m`.
    pub arch: String,
    /// The running kernel.
    pub kernel: HostKernel,
    /// The groups that this host is in, by its own configuration.
    pub groups: Vec<GroupName>,
    /// The host's clock.
    pub now: Timestamp,
    /// One entry for each livepatch component that fits the running kernel, by its index in the manifest.
    pub livepatches: BTreeMap<usize, LivepatchFacts>,
    /// What there is to know of packages and services, if a component is about packages.
    pub packages: Option<PackageFacts>,
    /// Every running container that a layer, image or package component affects.
    pub containers: Vec<ContainerFacts>,
    /// Preconditions of image components that do not hold, whichever container they are for.
    pub images: Vec<Unmet>,
    /// Every running container, where a livepatch asks for what may be done to their stuck tasks.
    pub running: Vec<Container>,
    /// Containers, affected or not, that the runtime could not describe whole.
    pub unreadable: Vec<Unreadable>,
    /// From the host's configuration.
    pub settings: Settings,
}

/// Settings that shape a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long after a load a crash is blamed on the livepatch.
    pub crash_guard: Duration,
    /// Where unpacked layers and fresh upper directories live.
    pub store: PathBuf,
}

/// A precondition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unmet {
    /// What it is about: a module, a function, a container, the host.
    pub subject: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl std::fmt::Display for Unmet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.subject, self.expected, self.found)
    }
}

/// What is known of one livepatch component on this host.
#[derive(Debug, Clone)]
pub struct LivepatchFacts {
    /// Preconditions of loading it that do not hold.
    pub unmet: Vec<Unmet>,
    /// Things worth reading that do not forbid it.
    pub warnings: Vec<String>,
    /// Whether it is there already.
    pub presence: Presence,
    /// For an atomic-replace module: the enabled livepatches that it would replace.
    pub replaces: Vec<ReplacedPatch>,
    /// Set if this host crashed of these bytes before.
    pub quarantined: Option<String>,
}

/// Whether a livepatch is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// No module of that name.
    Absent,
    /// These very bytes, loaded by this program, enabled and out of transition.
    Live,
    /// A module of that name that is something else.
    Other {
        /// What.
        what: String,
    },
}

/// A livepatch that an atomic-replace module would replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedPatch {
    /// The module.
    pub module: ModuleName,
    /// Its bytes, if this program loaded it and can load it again.
    pub payload: Option<Sha256>,
}

/// A container that is affected.
#[derive(Debug, Clone)]
pub struct ContainerFacts {
    /// What the runtime says of it.
    pub container: Container,
    /// How its root file system is put together.
    pub topology: Topology,
    /// By which components (index in the manifest), and through which mapped files.
    pub affected: Vec<AffectedBy>,
    /// Why it cannot be checkpointed, one sentence each; empty if it can.
    pub obstacles: Vec<String>,
    /// Why it cannot be restarted either, checkpoint or not; empty if it can.
    pub unmet: Vec<Unmet>,
    /// What differs after a restart, one sentence each, because its engine cannot do otherwise.
    pub changes: Vec<String>,
    /// What it was made from, where it is to be made anew.
    pub image: Option<ImageFacts>,
}

/// What a container was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The image, by its configuration.
    pub from: ImageDigest,
    /// The container's restart policy in the words of `--restart`.
    pub restart: String,
}

/// One reason why a container is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedBy {
    /// Index of the component in the manifest.
    pub component: usize,
    /// The mapped files, as the container sees them.
    pub files: Vec<PathBuf>,
    /// What could not be told of its processes, one sentence each: it may be affected, and is taken to be.
    pub unknown: Vec<String>,
}

/// What is known of the packages of the host that a manifest names, and of who runs what they replace.
#[derive(Debug, Clone, Default)]
pub struct PackageFacts {
    /// What the package manager has of each package; nothing of one that is not installed.
    pub installed: BTreeMap<PackageId, Installed>,
    /// What each payload says of itself.
    pub described: BTreeMap<Sha256, Described>,
    /// Why nothing can be installed now; empty if it can.
    pub unmet: Vec<Unmet>,
    /// Services with processes that map what a component replaces.
    pub services: Vec<ServiceFacts>,
    /// Processes outside of services and containers that do, and of which something could not be told: one sentence each.
    pub others: Vec<String>,
}

/// A service that is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// How it stands.
    pub service: Service,
    /// The mapped files.
    pub files: Vec<PathBuf>,
}
