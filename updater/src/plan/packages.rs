//! What is planned for packages of the host and for the services that run what they replace. Pure.
//!
//! Containers that run it are taken down before the packages change, so that their way back finds the old files; services
//! go on meanwhile, on the files that they have mapped, and are restarted together when the new ones are there. The way
//! back is the same in the other direction: old packages first, then whoever ran on the new ones. What undoes the restart
//! of services therefore belongs to a step *before* the packages ([`Action::ExpectServices`]).

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use manifests::{
    Component, FailureScope, KernelSelection, Manifest, PackageChange, PackageComponent, PackageVersion,
    ReplacedFile, ServiceName, Sha256,
};
use serde::{Deserialize, Serialize};
use workloads::model::WorkloadId;
use workloads::packages::{Described, Hold, PackageId, PackageState};
use workloads::services::{Service, caution};

use crate::plan::facts::{ContainerFacts, PackageFacts, ServiceFacts, Unmet};
use crate::plan::planner::take_down;
use crate::plan::{Action, Feels, PlannedContainer, Undo};

/// A version of a package, and its file in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFile {
    /// The version.
    pub version: PackageVersion,
    /// The file's bytes.
    pub payload: Sha256,
}

/// One package and the two versions between which it is switched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSwitch {
    /// Which.
    #[serde(flatten)]
    pub package: PackageId,
    /// What is there before.
    pub from: PackageFile,
    /// What is there after.
    pub to: PackageFile,
}

impl PackageSwitch {
    /// The same the other way round.
    #[must_use]
    pub fn back(&self) -> Self {
        Self { package: self.package.clone(), from: self.to.clone(), to: self.from.clone() }
    }
}

impl fmt::Display for PackageSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in place of {}", self.package, self.to.version, self.from.version)
    }
}

/// A package that is installed in another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPackage {
    /// Which, from what, to what.
    #[serde(flatten)]
    pub switch: PackageSwitch,
    /// The maintainer scripts of either version: what they do beside the package's files, no way back takes back.
    pub scripts: Vec<String>,
}

/// A service as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedService {
    /// How it stood.
    #[serde(flatten)]
    pub service: Service,
    /// The files that made it affected.
    pub files: Vec<PathBuf>,
    /// What it will feel.
    pub feels: ServiceFeels,
}

/// What a service feels of the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "feels", rename_all = "kebab-case")]
pub enum ServiceFeels {
    /// A restart by systemd; one more on failure.
    Restart,
    /// Nothing: it goes on running what the packages replace.
    Left {
        /// Why.
        why: String,
    },
}

/// What a manifest's packages come to on a host.
#[derive(Debug, Default)]
pub(super) struct PackagePlan {
    pub(super) packages: Vec<PlannedPackage>,
    pub(super) services: Vec<PlannedService>,
    pub(super) containers: Vec<PlannedContainer>,
    /// In the order of their stages; those of an inner list are one lane.
    pub(super) stages: Vec<Vec<(Action, Undo)>>,
    pub(super) unmet: Vec<Unmet>,
    pub(super) notes: Vec<String>,
    /// The packages that this host does not have, a sentence each.
    pub(super) absent: Vec<String>,
}

/// The containers that packages affect, with what each of them will feel.
pub(super) type Affected<'a> = Vec<(&'a ContainerFacts, Feels)>;

/// The components that are about packages, by their index.
pub(super) fn components<'a>(
    manifest: &'a Manifest,
    selection: &KernelSelection,
) -> Vec<(usize, &'a PackageComponent)> {
    let all = manifest.components.iter().enumerate().filter(|(index, _)| selection.taken.contains(index));
    all.filter_map(|(index, component)| match component {
        Component::Package(component) => Some((index, component)),
        Component::Livepatch(_) | Component::Layer(_) => None,
    })
    .collect()
}

/// Plans all of them as one. Which containers they affect, and how those take it, is settled already.
pub(super) fn plan(
    components: &[(usize, &PackageComponent)],
    facts: &PackageFacts,
    affected: Affected<'_>,
) -> PackagePlan {
    let mut plan = PackagePlan { unmet: facts.unmet.clone(), ..PackagePlan::default() };
    for change in components.iter().flat_map(|(_, component)| &component.packages) {
        plan.package(change, facts);
    }
    plan.notes.extend(facts.others.iter().cloned());
    for known in &facts.services {
        plan.service(known, components);
    }
    let restarted: Vec<ServiceName> = plan
        .services
        .iter()
        .filter(|planned| planned.feels == ServiceFeels::Restart)
        .map(|planned| planned.service.name.clone())
        .collect();
    let switches: Vec<PackageSwitch> = plan.packages.iter().map(|planned| planned.switch.clone()).collect();
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for (known, feels) in affected {
        let id = known.container.id.clone();
        plan.containers.push(PlannedContainer {
            container: known.container.clone(),
            topology: known.topology.clone(),
            files: known.affected.iter().flat_map(|by| by.files.iter().cloned()).collect(),
            on_failure: FailureScope::All,
            feels: feels.clone(),
        });
        let checkpoint = match feels {
            Feels::RestartWithCheckpoint => true,
            Feels::RestartWithoutCheckpoint { .. } => false,
            Feels::NotRunning | Feels::Skipped { .. } => continue,
        };
        plan.notes.extend(known.changes.iter().map(|change| format!("a restart of {id} changes {change}")));
        down.extend(take_down(&id, checkpoint));
        up.push((Action::Start { container: id.clone() }, Undo::StopTrial { container: id.clone() }));
        up.push((Action::ConfirmEffect { container: id, replaced: replaced(components) }, Undo::Nothing));
    }
    plan.stages = stages(down, &restarted, switches, up, replaced(components));
    plan
}

/// The steps around an installation: who runs the files is taken down or noted, and comes up again on what is there then.
pub(super) fn stages(
    down: Vec<(Action, Undo)>,
    restarted: &[ServiceName],
    switches: Vec<PackageSwitch>,
    up: Vec<(Action, Undo)>,
    replaced: Vec<ReplacedFile>,
) -> Vec<Vec<(Action, Undo)>> {
    let services = || restarted.to_vec();
    let any = !restarted.is_empty();
    let expect = any.then(|| {
        let undo = Undo::RestartServices { services: services() };
        (Action::ExpectServices { services: services() }, undo)
    });
    let install = (!switches.is_empty()).then(|| {
        let undo = Undo::ReinstallPackages { packages: switches.clone() };
        (Action::InstallPackages { packages: switches }, undo)
    });
    // What undoes it stands before the packages.
    let restart = any.then(|| (Action::RestartServices { services: services() }, Undo::Nothing));
    let confirm = (any && !replaced.is_empty())
        .then(|| (Action::ConfirmServices { services: services(), replaced }, Undo::Nothing));
    vec![
        expect.into_iter().collect(),
        down,
        install.into_iter().collect(),
        up,
        restart.into_iter().chain(confirm).collect(),
    ]
}

/// All files that the components replace, each once.
fn replaced(components: &[(usize, &PackageComponent)]) -> Vec<ReplacedFile> {
    let mut files: Vec<ReplacedFile> = Vec::new();
    for file in components.iter().flat_map(|(_, component)| &component.replaces) {
        if !files.iter().any(|known| known.identity == file.identity) {
            files.push(file.clone());
        }
    }
    files
}

impl PackagePlan {
    fn miss(&mut self, package: &PackageId, expected: impl Into<String>, found: impl Into<String>) {
        let (subject, expected, found) = (format!("package {package}"), expected.into(), found.into());
        self.unmet.push(Unmet { subject, expected, found });
    }

    fn package(&mut self, change: &PackageChange, facts: &PackageFacts) {
        let package = PackageId { name: change.name.clone(), architecture: change.architecture.clone() };
        let (old, new) = (&change.old, &change.new);
        let Some(installed) = facts.installed.get(&package) else {
            self.absent.push(format!("package {package} is not installed here"));
            return;
        };
        if let PackageState::Broken(how) = &installed.state {
            self.miss(&package, "a package that is whole", format!("{how} (dpkg --audit tells more)"));
            return;
        }
        if installed.version == new.version {
            self.notes.push(format!("package {package} is {} already", new.version));
            return;
        }
        if installed.version != old.version {
            self.miss(
                &package,
                format!("{}, or {} already", old.version, new.version),
                installed.version.as_str(),
            );
            return;
        }
        if installed.hold == Hold::Held {
            self.miss(
                &package,
                "a package that nobody has put on hold",
                "on hold (apt-mark unhold ends that)",
            );
        }
        let mut scripts = BTreeSet::new();
        for build in [new, old] {
            let expected = (&package, &build.version);
            match facts.described.get(&build.payload.sha256) {
                Some(Described { package, version, scripts: own }) if (package, version) == expected => {
                    scripts.extend(own.iter().cloned());
                }
                Some(other) => {
                    let found = format!("{} {}", other.package, other.version);
                    self.miss(&package, format!("{} in {}", build.version, build.payload.file), found);
                }
                None => self.miss(&package, format!("{} as a package file", build.payload.file), "none"),
            }
        }
        let file = |build: &manifests::PackageBuild| PackageFile {
            version: build.version.clone(),
            payload: build.payload.sha256,
        };
        let switch = PackageSwitch { package, from: file(old), to: file(new) };
        self.packages.push(PlannedPackage { switch, scripts: scripts.into_iter().collect() });
    }

    /// What becomes of an affected service.
    fn service(&mut self, known: &ServiceFacts, components: &[(usize, &PackageComponent)]) {
        let ServiceFacts { service, files } = known;
        let rules = || components.iter().map(|(_, component)| &component.services);
        let left = if rules().any(|rules| rules.leave.contains(&service.name)) {
            Some("the manifest leaves it alone".to_owned())
        } else if let Some(refuses) = &service.refuses {
            Some(format!("systemd does not restart it by hand ({refuses})"))
        } else if !service.is_active() {
            Some(format!("it is {}, and not restarted in the middle of that", service.standing()))
        } else if rules().any(|rules| rules.restart.contains(&service.name)) {
            None
        } else {
            caution(&service.name).map(|why| format!("{why}, and the manifest does not name it"))
        };
        let feels = left.map_or(ServiceFeels::Restart, |why| ServiceFeels::Left { why });
        self.services.push(PlannedService { service: service.clone(), files: files.clone(), feels });
    }
}

/// What undoes the packages of a committed plan, with what is there now.
pub(super) struct Back<'a> {
    pub(super) done: &'a super::Plan,
    /// What the package manager has now.
    pub(super) installed: &'a std::collections::BTreeMap<PackageId, workloads::packages::Installed>,
    /// How the services stand now that the plan restarted.
    pub(super) services: &'a [Service],
}

impl Back<'_> {
    /// The packages to switch back, and the services to restart on them; with what stands against it.
    pub(super) fn plan(&self) -> (Vec<PlannedPackage>, Vec<PlannedService>, Vec<String>, Vec<Unmet>) {
        let (mut packages, mut notes, mut unmet) = (Vec::new(), Vec::new(), Vec::new());
        for PlannedPackage { switch, scripts } in &self.done.packages {
            let PackageSwitch { package, from, to } = switch;
            match self.installed.get(package) {
                None => notes.push(format!(
                    "package {package} is not installed any more; there is nothing to put back"
                )),
                Some(now) if now.state != PackageState::Whole => unmet.push(Unmet {
                    subject: format!("package {package}"),
                    expected: "a package that is whole".to_owned(),
                    found: "one that is not (dpkg --audit tells more)".to_owned(),
                }),
                Some(now) if now.version == to.version => {
                    packages.push(PlannedPackage { switch: switch.back(), scripts: scripts.clone() });
                }
                Some(now) if now.version == from.version => {
                    notes.push(format!("package {package} is {} again already", from.version));
                }
                Some(now) => unmet.push(Unmet {
                    subject: format!("package {package}"),
                    expected: to.version.to_string(),
                    found: format!("{}, which somebody else installed since", now.version),
                }),
            }
        }
        let mut services = Vec::new();
        for planned in self.done.restarted_services() {
            let now = self.services.iter().find(|now| now.name == planned.service.name);
            match now.filter(|now| now.is_active() && now.refuses.is_none()) {
                Some(now) => services.push(PlannedService { service: now.clone(), ..planned.clone() }),
                None => {
                    let name = &planned.service.name;
                    let how = now.map_or_else(|| "gone".to_owned(), Service::standing);
                    notes.push(format!("{name} is {how}, and is not restarted"));
                }
            }
        }
        (packages, services, notes, unmet)
    }
}

/// The containers that a plan took down for packages of the host: of which it started one without other files.
pub(super) fn on_host_files(done: &super::Plan) -> BTreeSet<&WorkloadId> {
    let switched: BTreeSet<&WorkloadId> = done
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::SwitchRootfs { container, .. } => Some(container),
            _ => None,
        })
        .collect();
    let started = done.steps.iter().filter_map(|step| match &step.action {
        Action::Start { container } if !switched.contains(container) => Some(container),
        _ => None,
    });
    started.collect()
}
