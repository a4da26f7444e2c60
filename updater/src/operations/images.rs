//! The images that this host has given to containers, and how it stands to them: by the transactions that are in force.
//!
//! An engine keeps what a container is made from, over boots as well, so there is nothing to bring back. Who makes a container
//! anew later, from whatever image, does what is done with containers: that is told, and needs nobody.

use std::collections::BTreeMap;

use manifests::{ImageDigest, Sha256};
use workloads::model::{Container, WorkloadId};

use crate::operations::rollback::in_force;
use crate::operations::standing::Standing;
use crate::operations::{Engine, Session};
use crate::plan::Action;
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
}
