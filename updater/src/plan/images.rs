//! The steps that make a container anew from another image, there and back. Pure.
//!
//! The new container is made beside the old one, which runs on: whatever stands in the way is found before anything stops. Then
//! the old one is checkpointed (or stopped), the two exchange their names, and the new one is started. Until the commit the old
//! one lies aside, with its files and its memory; the commit lets it be removed, and the way back from there is the same way
//! with the two images the other way round.

use manifests::{ContainerId, ImageDigest};
use workloads::model::{Replacement, WorkloadId};

use crate::plan::facts::{ContainerFacts, ImageFacts, Unmet};
use crate::plan::planner::take_down;
use crate::plan::{Action, Step, Undo};

/// What an exchange does with what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is checkpointed, and the new one started.
    WithCheckpoint,
    /// It is stopped, and the new one started.
    WithoutCheckpoint,
    /// It does not run, and neither does the new one.
    NotRunning,
}

/// The steps that exchange a container for one from `to`, up to the one that sees that it runs.
pub(super) fn exchange(
    id: &WorkloadId,
    from: ImageDigest,
    to: ImageDigest,
    replacement: &Replacement,
    taken: Taken,
) -> Vec<(Action, Undo)> {
    let container = || id.clone();
    let replacement = || replacement.clone();
    let trial = replacement().trial;
    let mut steps = vec![(
        Action::CreateReplacement { container: container(), from, image: to, replacement: replacement() },
        Undo::RemoveReplacement { container: container(), trial },
    )];
    if taken != Taken::NotRunning {
        steps.extend(take_down(id, taken == Taken::WithCheckpoint));
    }
    steps.push((
        Action::ExchangeContainers { container: container(), replacement: replacement() },
        Undo::PutReplacedBack { container: container(), image: to, replacement: replacement() },
    ));
    if taken != Taken::NotRunning {
        steps.push((Action::Start { container: container() }, Undo::StopTrial { container: container() }));
        steps.push((Action::ConfirmImage { container: container(), image: to }, Undo::Nothing));
    }
    steps
}

/// What becomes of the containers that were set aside once these steps are committed.
pub(super) fn removals(steps: &[Step], why: &str) -> Vec<(Action, Undo)> {
    let aside = steps.iter().filter_map(|step| match &step.action {
        Action::ExchangeContainers { container, replacement } => {
            Some((container.clone(), replacement.aside.clone()))
        }
        _ => None,
    });
    aside
        .map(|(container, aside)| {
            (Action::RemoveReplaced { container, aside }, Undo::Impossible { why: why.to_owned() })
        })
        .collect()
}

/// The names of the two in the transaction `name`.
pub(super) fn replacement(
    known: &ContainerFacts,
    image: &ImageFacts,
    name: &str,
) -> Result<Replacement, Unmet> {
    let id = &known.container.id;
    let named = |what: &str| -> Result<ContainerId, Unmet> {
        format!("{}-update-{name}-{what}", id.id).parse().map_err(|error: manifests::NameError| Unmet {
            subject: format!("container {id}"),
            expected: "room in its name for that of a second container".to_owned(),
            found: error.to_string(),
        })
    };
    Ok(Replacement { trial: named("new")?, aside: named("old")?, restart: image.restart.clone() })
}
