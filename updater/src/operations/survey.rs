//! The facts that the planner needs, read from the running host. Changes nothing.

use std::collections::BTreeMap;

use manifests::{
    Component, ContainerSelector, FileIdentity, ImageComponent, ImageDigest, LayerComponent,
    LivepatchComponent, Manifest, ModuleName, Replace,
};
use patch_tools::check::{Finding, KernelFacts, Severity};
use patch_tools::module::Module;
use system::medium::Medium;
use workloads::images::ImageArchive;
use workloads::model::{Container, ContainerStatus, NetworkPlace, Unreadable, WorkloadId};
use workloads::processes::{Mapped, Onlooker, Wanted};

use crate::config::CheckpointMedium;
use crate::kernel::livepatch::{Enabled, PatchState};
use crate::kernel::preflight;
use crate::kernel::preflight::Keeps;
use crate::operations::apply::Quarantine;
use crate::operations::{Engine, EngineError, Session};
use crate::plan::facts::{
    AffectedBy, ContainerFacts, HostFacts, ImageFacts, LivepatchFacts, Presence, ReplacedPatch, Unmet,
};
use crate::plan::planner::layer_directory;
use crate::state::baseline::Baseline;
use crate::steps::ownership::Whose;

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
        let (mut layers, mut images) = (Vec::new(), Vec::new());
        let mut stuck_tasks_matter = false;
        for index in manifest.for_kernel(&self.host.kernel).taken {
            match &manifest.components[index] {
                Component::Livepatch(livepatch) => {
                    stuck_tasks_matter |= !livepatch.transition.stuck.is_empty();
                    let facts = self.survey_livepatch(session, livepatch, &baseline, quarantine)?;
                    livepatches.insert(index, facts);
                }
                Component::Layer(layer) => layers.push((index, layer)),
                Component::Image(image) => images.push((index, image)),
            }
        }
        let (mut containers, mut unreadable) = if layers.is_empty() {
            Default::default()
        } else {
            self.survey_containers(session, &layers, onlooker)?
        };
        let unfit = if images.is_empty() {
            Vec::new()
        } else {
            let (remade, untold) = self.survey_images(session, &images)?;
            let unfit = self.unfit_images(&images, &remade)?;
            merge(&mut containers, remade);
            if layers.is_empty() {
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
        layers: &[(usize, &LayerComponent)],
        onlooker: Onlooker<'_>,
    ) -> Result<(Vec<ContainerFacts>, Vec<Unreadable>), EngineError> {
        let listing = session.adapters.lifecycle.list()?;
        // What no selector takes is not looked at: its processes are nobody's business here.
        let concerned: Vec<Container> = listing
            .containers
            .into_iter()
            .filter(|container| container.status.has_processes())
            .filter(|container| layers.iter().any(|(_, layer)| selects(layer.containers.as_ref(), container)))
            .collect();
        let wanted: Vec<Wanted> = layers
            .iter()
            .flat_map(|(_, layer)| {
                layer
                    .replaces
                    .iter()
                    .map(|file| Wanted { size: file.size, ..Wanted::from(file.identity.clone()) })
            })
            .collect();
        let mapped = self.host.observer.mapped(&concerned, &wanted, onlooker)?;
        let mut found = Vec::new();
        for (container, mapped) in concerned.into_iter().zip(mapped) {
            let selecting = layers.iter().filter(|(_, layer)| selects(layer.containers.as_ref(), &container));
            let by: Vec<(&LayerComponent, AffectedBy)> = selecting
                .filter_map(|(component, layer)| Some((*layer, affected_by(*component, layer, &mapped)?)))
                .collect();
            if by.is_empty() {
                continue;
            }
            let mut facts = self.container_facts(session, container)?;
            // What runs on the fix already is not restarted time and again because something cannot be told.
            let is_fixed = |layer: &LayerComponent| {
                let directory = layer_directory(&self.config.store, &layer.payload.sha256);
                facts.topology.overlay().is_some_and(|overlay| overlay.lower.contains(&directory))
            };
            let by = by.into_iter().filter(|(layer, by)| !by.files.is_empty() || !is_fixed(layer));
            facts.affected = by.map(|(_, by)| by).collect();
            if !facts.affected.is_empty() {
                found.push(facts);
            }
        }
        Ok((found, listing.unreadable))
    }

    /// Containers that run and were made from an image at fault.
    pub(super) fn survey_images(
        &self,
        session: &Session,
        images: &[(usize, &ImageComponent)],
    ) -> Result<(Vec<ContainerFacts>, Vec<Unreadable>), EngineError> {
        let listing = session.adapters.lifecycle.list()?;
        let mut found = Vec::new();
        for container in listing.containers.into_iter().filter(|container| container.status.has_processes()) {
            let selecting = images.iter().filter(|(_, image)| selects(image.containers.as_ref(), &container));
            let selecting: Vec<_> = selecting.collect();
            let made_from = match selecting.is_empty() {
                true => None,
                false => session.adapters.lifecycle.image(&container.id)?,
            };
            let Some(made_from) = made_from else { continue };
            let Ok(configuration) = made_from.id.parse::<ImageDigest>() else { continue };
            let manifest = made_from.digest.as_ref().and_then(|digest| digest.parse().ok());
            let by =
                selecting.into_iter().filter(|(_, image)| image.replaces(&configuration, manifest.as_ref()));
            let affected: Vec<AffectedBy> = by
                .map(|(component, _)| AffectedBy {
                    component: *component,
                    files: Vec::new(),
                    unknown: Vec::new(),
                })
                .collect();
            if !affected.is_empty() {
                let facts = ContainerFacts { affected, ..self.container_facts(session, container)? };
                found.push(self.with_image(session, facts)?);
            }
        }
        Ok((found, listing.unreadable))
    }

    /// What is known of a container, and on what terms it can be made anew.
    pub(super) fn with_image(
        &self,
        session: &Session,
        facts: ContainerFacts,
    ) -> Result<ContainerFacts, EngineError> {
        let recreation = session.adapters.recreator.recreation(&facts.container.id)?;
        let from = recreation.image.and_then(|image| image.id.parse().ok());
        let mut unmet = facts.unmet;
        unmet.extend(recreation.unmet.into_iter().map(|found| Unmet {
            subject: format!("container {}", facts.container.id),
            expected: "a container that its engine can make anew".to_owned(),
            found,
        }));
        let image = from.map(|from| ImageFacts { from, restart: recreation.restart });
        Ok(ContainerFacts { unmet, image, changes: recreation.changes, ..facts })
    }

    /// What keeps the new images from running here, where any is needed.
    fn unfit_images(
        &self,
        images: &[(usize, &ImageComponent)],
        containers: &[ContainerFacts],
    ) -> Result<Vec<Unmet>, EngineError> {
        let mut unfit = Vec::new();
        for (index, component) in images {
            let is_needed =
                |facts: &ContainerFacts| facts.affected.iter().any(|affected| affected.component == *index);
            if !containers.iter().any(is_needed) {
                continue;
            }
            let file = self.payloads.open(&component.payload.sha256)?;
            let archive = ImageArchive::open(&file, &component.image).map_err(|source| {
                EngineError::Image { file: component.payload.file.to_string(), source: Box::new(source) }
            })?;
            if !archive.platform().is_for(&self.host.arch) {
                unfit.push(Unmet {
                    subject: format!("image {}", component.image),
                    expected: format!("an image for Linux on {}", self.host.arch),
                    found: archive.platform().to_string(),
                });
            }
        }
        Ok(unfit)
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

    /// The facts of a container that is to have the image `before` again, running or not; `None` if it is gone.
    pub(super) fn survey_exchanged(
        &self,
        session: &Session,
        id: &WorkloadId,
        before: &ImageDigest,
    ) -> Result<Option<ContainerFacts>, EngineError> {
        let Some(container) = session.adapters.lifecycle.inspect(id)? else { return Ok(None) };
        let facts = match container.status.has_processes() {
            true => Some(self.container_facts(session, container)?),
            false => self.survey_stopped(&container)?,
        };
        let Some(facts) = facts else { return Ok(None) };
        let mut facts = self.with_image(session, facts)?;
        if !session.adapters.recreator.has_image(&id.runtime, before)? {
            facts.unmet.push(Unmet {
                subject: format!("container {id}"),
                expected: format!("the image that it had before, {before}"),
                found: format!("{} has it no more", id.runtime),
            });
        }
        Ok(Some(facts))
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

    fn container_facts(
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

/// How a layer affects a container, if it does. One of which something could not be told is taken to be affected.
fn affected_by(component: usize, layer: &LayerComponent, mapped: &Mapped) -> Option<AffectedBy> {
    let is_at_fault = |identity: &FileIdentity| layer.replaces.iter().any(|file| file.identity == *identity);
    let matches = mapped.matches.iter().filter(|found| is_at_fault(&found.identity));
    let files: Vec<_> = matches.map(|found| found.path.to_text()).collect();
    let unknown: Vec<String> = mapped.unknown.iter().map(ToString::to_string).collect();
    (!files.is_empty() || !unknown.is_empty()).then_some(AffectedBy { component, files, unknown })
}

/// Puts the facts of containers together; of one that is in both, what either says.
fn merge(all: &mut Vec<ContainerFacts>, more: Vec<ContainerFacts>) {
    for facts in more {
        match all.iter_mut().find(|known| known.container.id == facts.container.id) {
            Some(known) => known.affected.extend(facts.affected),
            None => all.push(facts),
        }
    }
}

/// Whether the manifest's selector takes this container: it is named, if any is, and has every label.
fn selects(selector: Option<&ContainerSelector>, container: &Container) -> bool {
    let label = |name: &str| container.annotations.get(name).map(String::as_str);
    selector.is_none_or(|selector| selector.selects(&container.id.to_string(), label))
}
