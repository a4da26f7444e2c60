//! Containers that are made anew from another image.

use manifests::{Component, Handling, ImageComponent, KernelSelection, Manifest};

use super::{Draft, order_key, probes_of, together};
use crate::plan::facts::ContainerFacts;
use crate::plan::images::{Taken, exchange, replacement};
use crate::plan::{Action, Feels, PlannedContainer, Undo};

impl Draft<'_> {
    /// Add what the image components do: engines get their images while nothing is touched, then containers are exchanged.
    pub(super) fn images(&mut self, manifest: &Manifest, selection: &KernelSelection, name: &str) {
        self.unmet.extend(self.facts.images.iter().cloned());
        let component = |index: usize| match &manifest.components[index] {
            Component::Image(image) if selection.taken.contains(&index) => Some(image),
            _ => None,
        };
        let facts = self.facts;
        let mut work = Vec::new();
        for known in &facts.containers {
            let by: Vec<&ImageComponent> =
                known.affected.iter().filter_map(|affected| component(affected.component)).collect();
            let Some(first) = by.first() else { continue };
            if by.len() < known.affected.len() || by.iter().any(|other| other.image != first.image) {
                let expected = "one component that changes it, where it gets another image";
                self.miss(format!("container {}", known.container.id), expected, "several");
                continue;
            }
            work.push((order_key(&first.handling(), known), known, by));
        }
        work.sort_by(|(a, ..), (b, ..)| a.cmp(b));

        let (mut load, mut lanes) = (Vec::new(), Vec::new());
        let mut width = None;
        for (_, known, by) in work {
            let Some(steps) = self.remade(known, &by, name) else { continue };
            // An image that no container was made from harms nobody.
            let step = (
                Action::LoadImage {
                    runtime: known.container.id.runtime.clone(),
                    image: by[0].image,
                    payload: by[0].payload.sha256,
                },
                Undo::Nothing,
            );
            if !load.contains(&step) {
                load.push(step);
            }
            width = width.into_iter().chain(by.iter().map(|image| image.concurrency)).min();
            lanes.push((&known.container.network, steps));
        }
        self.stage(load);
        self.batches(width.unwrap_or(1), lanes.into_iter());
    }

    /// The steps for one container, and what it will feel; `None` if it is left alone.
    fn remade(
        &mut self,
        known: &ContainerFacts,
        by: &[&ImageComponent],
        name: &str,
    ) -> Option<Vec<(Action, Undo)>> {
        let id = &known.container.id;
        self.unmet.extend(known.unmet.iter().cloned());
        let image = known.image.as_ref()?;
        let handling: Vec<Handling<'_>> = by.iter().map(|image| image.handling()).collect();
        let without: Vec<_> = by.iter().map(|image| image.without_checkpoint).collect();
        let never: Vec<_> = by.iter().flat_map(|image| &image.never_checkpoint).collect();
        let feels = self.feels(known, &without, &never);
        let taken = match feels {
            Feels::Skipped { .. } | Feels::NotRunning => None,
            Feels::RestartWithCheckpoint => Some(Taken::WithCheckpoint),
            Feels::RestartWithoutCheckpoint { .. } => Some(Taken::WithoutCheckpoint),
        };
        self.containers.push(PlannedContainer {
            container: known.container.clone(),
            topology: known.topology.clone(),
            files: Vec::new(),
            on_failure: together(&handling),
            feels,
        });
        let taken = taken?;
        self.notes.extend(known.changes.iter().map(|change| format!("making {id} anew changes {change}")));
        let replacement = match replacement(known, image, name) {
            Ok(replacement) => replacement,
            Err(unmet) => {
                self.unmet.push(unmet);
                return None;
            }
        };
        let mut steps = exchange(id, image.from, by[0].image, &replacement, taken);
        steps.extend(probes_of(id, &handling));
        Some(steps)
    }
}
