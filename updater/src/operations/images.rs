//! The images that this host has given to containers, and how it stands to them: by the transactions that are in force.
//!
//! An engine keeps what a container is made from, over boots as well, so there is nothing to bring back. Who makes a container
//! anew later, from whatever image, does what is done with containers: that is told, and needs nobody.

use std::collections::BTreeMap;

use manifests::{ImageComponent, ImageDigest, Sha256};
use workloads::images::ImageArchive;
use workloads::model::{Container, Unreadable, WorkloadId};

use crate::operations::rollback::in_force;
use crate::operations::standing::Standing;
use crate::operations::{Engine, EngineError, Session};
use crate::plan::Action;
use crate::plan::facts::{AffectedBy, ContainerFacts, ImageFacts, Unmet};
use crate::state::journal::Stored;

/// An image that a container was made anew from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    /// The image, by its configuration.
    pub(super) image: ImageDigest,
    /// The payload that it came in.
    pub(super) payload: Option<Sha256>,
}

/// What containers were made anew from, the last word on each.
pub(super) fn committed(all: &[Stored]) -> BTreeMap<WorkloadId, Committed> {
    let mut committed = BTreeMap::new();
    for plan in in_force(all).map(|stored| stored.progress.in_effect()) {
        let payload_of = |image: &ImageDigest| {
            plan.steps.iter().find_map(|step| match &step.action {
                Action::LoadImage { image: own, payload, .. } if own == image => Some(*payload),
                _ => None,
            })
        };
        for step in &plan.steps {
            if let Action::CreateReplacement { container, image, .. } = &step.action {
                let known = Committed { image: *image, payload: payload_of(image) };
                committed.insert(container.clone(), known);
            }
        }
    }
    committed
}

impl Engine {
    /// The standing, and the container if its engine knows it.
    pub(super) fn image_standing(
        &self,
        session: &Session,
        id: &WorkloadId,
        image: &ImageDigest,
    ) -> (Standing, Option<Container>) {
        let lifecycle = &session.adapters.lifecycle;
        let found = lifecycle.inspect(id).and_then(|container| Ok((container, lifecycle.image(id)?)));
        match found {
            Err(error) => (Standing::Unreadable { why: error.with_causes() }, None),
            Ok((None, _)) => (Standing::Gone { why: "there is no such container".to_owned() }, None),
            Ok((container, Some(found))) if found.id == image.to_string() => (Standing::InForce, container),
            Ok((container, found)) => {
                let found = found.map_or_else(|| "something else".to_owned(), |found| found.id);
                (Standing::Gone { why: format!("it was made anew since, from {found}") }, container)
            }
        }
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
            let selecting = images.iter().filter(|(_, image)| selects(image, &container));
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
    pub(super) fn unfit_images(
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
}

/// Puts the facts of containers together; of one that is in both, what either says.
pub(super) fn merge(all: &mut Vec<ContainerFacts>, more: Vec<ContainerFacts>) {
    for facts in more {
        match all.iter_mut().find(|known| known.container.id == facts.container.id) {
            Some(known) => known.affected.extend(facts.affected),
            None => all.push(facts),
        }
    }
}

/// Whether the manifest's selector takes this container: it is named, if any is, and has every label.
fn selects(image: &ImageComponent, container: &Container) -> bool {
    let label = |name: &str| container.annotations.get(name).map(String::as_str);
    let selector = image.containers.as_ref();
    selector.is_none_or(|selector| selector.selects(&container.id.to_string(), label))
}
