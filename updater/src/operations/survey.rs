//! The facts that the planner needs, read from the running host. Changes nothing.

use std::collections::BTreeMap;

use manifests::{
    Component, ContainerSelector, FileIdentity, LivepatchComponent, Manifest, ModuleName, PackageComponent,
    Replace, ReplacedFile, Sha256,
};
use patch_tools::check::{Finding, KernelFacts, Severity};
use patch_tools::module::Module;
use system::medium::Medium;
use workloads::model::{Container, ContainerStatus, NetworkPlace, Pid, Unreadable, WorkloadId};
use workloads::packages::PackageId;
use workloads::processes::{HostPaths, Mapped, Onlooker, Wanted};

use crate::config::CheckpointMedium;
use crate::kernel::livepatch::{Enabled, PatchState};
use crate::kernel::preflight;
use crate::kernel::preflight::Keeps;
use crate::operations::apply::Quarantine;
use crate::operations::images::merge;
use crate::operations::{Engine, EngineError, Session};
use crate::plan::facts::{
    AffectedBy, ContainerFacts, HostFacts, LivepatchFacts, PackageFacts, Presence, ReplacedPatch, Unmet,
};
use crate::plan::planner::layer_directory;
use crate::state::baseline::Baseline;
use crate::steps::ownership::Whose;

/// The files that a component replaces, and in which containers.
#[derive(Clone, Copy)]
pub(super) struct Replacing<'a> {
    /// The component's index in the manifest.
    component: usize,
    replaces: &'a [ReplacedFile],
    containers: Option<&'a ContainerSelector>,
    /// The layer that brings the fixed ones; nothing where packages of the host do.
    layer: Option<&'a Sha256>,
}

impl<'a> Replacing<'a> {
    /// Nothing of a livepatch.
    pub(super) fn of((index, component): (usize, &'a Component)) -> Option<Self> {
        let layer = match component {
            Component::Livepatch(_) | Component::Image(_) => return None,
            Component::Layer(layer) => Some(&layer.payload.sha256),
            Component::Package(_) => None,
        };
        let (replaces, containers) = (component.replaces(), component.containers());
        Some(Self { component: index, replaces, containers, layer })
    }

    /// Whether the manifest's selector takes this container: it is named, if any is, and has every label.
    fn selects(&self, container: &Container) -> bool {
        let label = |name: &str| container.annotations.get(name).map(String::as_str);
        self.containers.is_none_or(|selector| selector.selects(&container.id.to_string(), label))
    }

    /// How it affects a container, if it does. One of which something could not be told is taken to be affected by a layer;
    /// files of the host are in few containers.
    fn affects(&self, mapped: &Mapped) -> Option<AffectedBy> {
        let is_at_fault =
            |identity: &FileIdentity| self.replaces.iter().any(|file| file.identity == *identity);
        let matches = mapped.matches.iter().filter(|found| is_at_fault(&found.identity));
        let files: Vec<_> = matches.map(|found| found.path.to_text()).collect();
        let unknown: Vec<String> = match self.layer {
            Some(_) => mapped.unknown.iter().map(ToString::to_string).collect(),
            None => Vec::new(),
        };
        let component = self.component;
        (!files.is_empty() || !unknown.is_empty()).then_some(AffectedBy { component, files, unknown })
    }
}

pub(super) fn wanted<'a>(files: impl IntoIterator<Item = &'a ReplacedFile>) -> Vec<Wanted> {
    let wanted = |file: &ReplacedFile| Wanted { size: file.size, ..Wanted::from(file.identity.clone()) };
    files.into_iter().map(wanted).collect()
}

impl Engine {
    /// Everything that planning this manifest needs to know.
    ///
    /// # Errors
    /// [`EngineError`] if the host cannot be asked. That something is not as it should be is no error but a
    /// fact.
    pub(super) fn survey(
        &self,
        session: &Session,
        manifest: &Manifest,
        quarantine: Quarantine,
        onlooker: Onlooker<'_>,
    ) -> Result<HostFacts, EngineError> {
        let baseline = Baseline::read(&self.journal())?;
        let mut livepatches = BTreeMap::new();
        let (mut replacing, mut packages, mut images) = (Vec::new(), Vec::new(), Vec::new());
        let mut stuck_tasks_matter = false;
        for index in manifest.for_kernel(&self.host.kernel).taken {
            match &manifest.components[index] {
                Component::Livepatch(livepatch) => {
                    stuck_tasks_matter |= !livepatch.transition.stuck.is_empty();
                    let facts = self.survey_livepatch(session, livepatch, &baseline, quarantine)?;
                    livepatches.insert(index, facts);
                }
                Component::Layer(_) => {}
                Component::Image(image) => images.push((index, image)),
                Component::Package(component) => packages.push((index, component)),
            }
            replacing.extend(Replacing::of((index, &manifest.components[index])));
        }
        let known = match packages.is_empty() {
            true => None,
            false => Some(self.survey_packages(session, &packages, onlooker)?),
        };
        // Where nothing of a component is installed, what its files are called somewhere else is no matter.
        let is_here = |component: usize| {
            let of = packages.iter().find(|(index, _)| *index == component);
            of.is_none_or(|(_, package)| known.as_ref().is_some_and(|known| has_any(known, package)))
        };
        replacing.retain(|replacing| is_here(replacing.component));
        let layers = replacing.iter().any(|one| one.layer.is_some());
        let found = match replacing.is_empty() {
            true => Ok(Default::default()),
            false => self.survey_containers(session, &replacing, onlooker),
        };
        let (mut containers, mut unreadable) = match found {
            // A host without containers takes packages.
            Err(EngineError::Runtime(error)) if error.is_absence() && !layers => Default::default(),
            found => found?,
        };
        let unfit = if images.is_empty() {
            Vec::new()
        } else {
            let (remade, untold) = self.survey_images(session, &images)?;
            let unfit = self.unfit_images(&images, &remade)?;
            merge(&mut containers, remade);
            if replacing.is_empty() {
                unreadable = untold;
            }
            unfit
        };
        let running = if stuck_tasks_matter { session.running()? } else { Vec::new() };
        Ok(HostFacts {
            arch: self.host.arch.clone(),
            kernel: self.host.kernel.clone(),
            groups: self.config.groups.clone(),
            now: self.host.clock.now(),
            livepatches,
            packages: known,
            containers,
            images: unfit,
            running,
            unreadable,
            settings: self.settings(),
        })
    }

    fn survey_livepatch(
        &self,
        session: &Session,
        component: &LivepatchComponent,
        baseline: &Baseline,
        quarantine: Quarantine,
    ) -> Result<LivepatchFacts, EngineError> {
        let bytes = self.payloads.read(&component.payload.sha256)?;
        let module = Module::parse(&bytes)
            .map_err(|source| EngineError::Module { module: component.module.to_string(), source })?;
        let presence = self.presence(session, component, baseline)?;
        let (mut unmet, mut warnings) = (Vec::new(), Vec::new());
        let mut quarantined = self
            .guards()
            .quarantined()?
            .into_iter()
            .find(|entry| entry.digest == component.payload.sha256)
            .map(|entry| entry.why);
        if quarantine == Quarantine::Retry
            && let Some(why) = quarantined.take()
        {
            warnings.push(format!("livepatch {} is loaded once more although {why}", component.module));
        }
        // What is live has passed already, and would be found in conflict with itself.
        if presence != Presence::Live {
            let facts = KernelFacts::gather(&self.host.root, &module)?;
            for finding in preflight::judge(component, &module, &facts) {
                match finding.severity {
                    Severity::Refuse => unmet.push(told(component, finding)),
                    Severity::Warn => warnings.push(told(component, finding).to_string()),
                    Severity::Note => {}
                }
            }
        }
        let replaces = match component.replace {
            Replace::None => Vec::new(),
            Replace::All => self.replaced_by(session, component, baseline)?,
        };
        if presence != Presence::Live {
            let left = preflight::left_behind(&Keeps::of(&module), &self.kept_by(&replaces)?);
            unmet.extend(left.into_iter().map(|finding| told(component, finding)));
        }
        Ok(LivepatchFacts { unmet, warnings, presence, replaces, quarantined })
    }

    /// What the replaced livepatches keep in the kernel, as far as their modules are in the store. What is not there is
    /// refused by the planner: it could not be loaded again.
    fn kept_by(&self, replaced: &[ReplacedPatch]) -> Result<Vec<(ModuleName, Keeps)>, EngineError> {
        let known = replaced.iter().filter_map(|patch| Some((&patch.module, patch.payload?)));
        known
            .map(|(name, payload)| {
                let bytes = self.payloads.read(&payload)?;
                let module = Module::parse(&bytes)
                    .map_err(|source| EngineError::Module { module: name.to_string(), source })?;
                Ok((name.clone(), Keeps::of(&module)))
            })
            .collect()
    }

    fn presence(
        &self,
        session: &Session,
        component: &LivepatchComponent,
        baseline: &Baseline,
    ) -> Result<Presence, EngineError> {
        let payload = &component.payload.sha256;
        let state = session.adapters.livepatch.state(&component.module)?;
        let ours = baseline
            .livepatches
            .iter()
            .any(|known| known.module == component.module && known.payload == *payload);
        Ok(match self.ownership(session).of(&component.module, payload)? {
            Whose::Nobodys => Presence::Absent,
            Whose::Foreign(foreign) => Presence::Other { what: foreign.found() },
            Whose::Ours if ours && state == PatchState::Settled(Enabled::Enabled) => Presence::Live,
            Whose::Ours => {
                Presence::Other { what: format!("these bytes, {state}, not as this program left them") }
            }
        })
    }

    fn replaced_by(
        &self,
        session: &Session,
        component: &LivepatchComponent,
        baseline: &Baseline,
    ) -> Result<Vec<ReplacedPatch>, EngineError> {
        let ownership = self.ownership(session);
        let loaded = session.adapters.livepatch.loaded()?;
        let others = loaded.into_iter().filter(|patch| patch.module != component.module);
        others
            .map(|patch| {
                let known = baseline.livepatches.iter().find(|known| known.module == patch.module);
                let payload = match known {
                    // One that is only named like ours cannot be loaded again.
                    Some(known) if ownership.of(&known.module, &known.payload)? == Whose::Ours => {
                        Some(known.payload)
                    }
                    _ => None,
                };
                Ok(ReplacedPatch { module: patch.module, payload })
            })
            .collect()
    }

    pub(super) fn survey_containers(
        &self,
        session: &Session,
        replacing: &[Replacing<'_>],
        onlooker: Onlooker<'_>,
    ) -> Result<(Vec<ContainerFacts>, Vec<Unreadable>), EngineError> {
        let listing = session.adapters.lifecycle.list()?;
        // What no selector takes is not looked at: its processes are nobody's business here.
        let concerned: Vec<Container> = listing
            .containers
            .into_iter()
            .filter(|container| container.status.has_processes())
            .filter(|container| replacing.iter().any(|one| one.selects(container)))
            .collect();
        let wanted = wanted(replacing.iter().flat_map(|one| one.replaces));
        let mapped = self.host.observer.mapped(&concerned, &wanted, onlooker)?;
        let mut found = Vec::new();
        for (container, mapped) in concerned.into_iter().zip(mapped) {
            let mut by: Vec<(&Replacing<'_>, AffectedBy)> = Vec::new();
            for one in replacing.iter().filter(|one| one.selects(&container)) {
                if let Some(affected) = one.affects(&mapped)
                    && self.reaches(one, &mapped, onlooker)?
                {
                    by.push((one, affected));
                }
            }
            if by.is_empty() {
                continue;
            }
            let mut facts = self.container_facts(session, container)?;
            // What runs on the fix already is not restarted time and again because something cannot be told.
            let is_fixed = |one: &Replacing<'_>| {
                let directory = one.layer.map(|layer| layer_directory(&self.config.store, layer));
                let lower = facts.topology.overlay().map(|overlay| &overlay.lower);
                directory.zip(lower).is_some_and(|(directory, lower)| lower.contains(&directory))
            };
            let by = by.into_iter().filter(|(one, by)| !by.files.is_empty() || !is_fixed(one));
            facts.affected = by.map(|(_, by)| by).collect();
            if !facts.affected.is_empty() {
                found.push(facts);
            }
        }
        Ok((found, listing.unreadable))
    }

    /// Whether what was found is what the component replaces: a layer reaches every file of a container, a package those that
    /// are the host's.
    fn reaches(
        &self,
        one: &Replacing<'_>,
        mapped: &Mapped,
        onlooker: Onlooker<'_>,
    ) -> Result<bool, EngineError> {
        if one.layer.is_some() {
            return Ok(true);
        }
        let pids: Vec<Pid> =
            mapped.matches.iter().flat_map(|found| found.processes.iter().copied()).collect();
        let on_host = self.host.observer.on_host_files(&pids, &host_paths(one.replaces), onlooker)?;
        Ok(!on_host.is_empty())
    }

    /// The facts of one container, affected or not; `None` if it does not run.
    pub(super) fn survey_container(
        &self,
        session: &Session,
        id: &WorkloadId,
    ) -> Result<Option<ContainerFacts>, EngineError> {
        let found = session.adapters.lifecycle.inspect(id)?;
        let running = found.filter(|container| container.status.has_processes());
        running.map(|container| self.container_facts(session, container)).transpose()
    }

    /// The facts of a container that does not run, as it was when it did; `None` if its files are gone.
    pub(super) fn survey_stopped(&self, known: &Container) -> Result<Option<ContainerFacts>, EngineError> {
        let topology = match self.host.mounts.current(&known.rootfs) {
            Err(error) if error.is_absence_of(&known.rootfs) => return Ok(None),
            topology => topology?,
        };
        let container =
            Container { status: ContainerStatus::Stopped, init: None, started: None, ..known.clone() };
        let (affected, obstacles, unmet, changes) = Default::default();
        Ok(Some(ContainerFacts { container, topology, affected, obstacles, unmet, changes, image: None }))
    }

    pub(super) fn container_facts(
        &self,
        session: &Session,
        container: Container,
    ) -> Result<ContainerFacts, EngineError> {
        let topology = self.host.mounts.current(&container.rootfs)?;
        let terms = session.adapters.lifecycle.terms(&container)?;
        // Where there are no checkpoints, what CRIU would say does not matter.
        let judged = match terms.rule_out_checkpoints() {
            true => Vec::new(),
            false => self.host.observer.obstacles(&container),
        };
        let verdict: Vec<_> = judged.into_iter().chain(terms.obstacles).collect();
        let bundle = match &container.network {
            NetworkPlace::Unknown(why) => Some(why.clone()),
            _ => None,
        };
        let forbidding = verdict.iter().filter(|obstacle| obstacle.forbids_restart());
        let unmet = forbidding
            .map(ToString::to_string)
            .chain(bundle)
            .map(|found| Unmet {
                subject: format!("container {}", container.id),
                expected: "a container that can be restarted".to_owned(),
                found,
            })
            .collect();
        let obstacles =
            verdict.iter().filter(|obstacle| !obstacle.forbids_restart()).map(ToString::to_string);
        let obstacles = obstacles.chain(self.unfit_medium()).collect();
        let affected = Vec::new();
        let changes = terms.changes;
        Ok(ContainerFacts { container, topology, affected, obstacles, unmet, changes, image: None })
    }
}

impl Engine {
    /// Why nobody's memory may be written down on this host, if the settings forbid it.
    pub(super) fn unfit_medium(&self) -> Option<String> {
        if self.config.checkpoint_medium == CheckpointMedium::Any {
            return None;
        }
        let place = self.config.checkpoints();
        let found = match (self.host.medium)(&place) {
            Ok(Medium::Memory | Medium::Encrypted) => return None,
            Ok(found) => found.to_string(),
            Err(error) => format!("what cannot be told: {error}"),
        };
        Some(format!(
            "checkpoints have to be in memory or on an encrypted device (checkpoint_medium: private), and {} is on {found}",
            place.display()
        ))
    }
}

fn told(component: &LivepatchComponent, finding: Finding) -> Unmet {
    Unmet {
        subject: format!("livepatch {}: {}", component.module, finding.subject),
        expected: finding.expected,
        found: finding.found,
    }
}

/// Where the files lie that packages replace.
pub(super) fn host_paths<'a>(files: impl IntoIterator<Item = &'a ReplacedFile>) -> HostPaths {
    HostPaths::of(files.into_iter().map(|file| &file.path))
}

/// Whether any package of the component is installed.
fn has_any(known: &PackageFacts, component: &PackageComponent) -> bool {
    component.packages.iter().any(|change| known.installed.contains_key(&package_of(change)))
}

pub(super) fn package_of(change: &manifests::PackageChange) -> PackageId {
    PackageId { name: change.name.clone(), architecture: change.architecture.clone() }
}
