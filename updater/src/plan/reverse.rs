//! The plan that undoes a committed transaction. Pure.
//!
//! It is a transaction of its own, with the same steps, so it can fail and be undone like any other. Files
//! and connections that came after the commit are the operator's: by default a container is restarted on its
//! old files and keeps its data; [`Memory::FromCheckpoint`] brings back memory and files of the checkpoint
//! and loses what came since.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use manifests::{FailureScope, ImageDigest, KernelRelease, ModuleName, ServiceName, Sha256};
use workloads::model::{Topology, WorkloadId};
use workloads::packages::{Installed, PackageId};
use workloads::services::Service;

use crate::plan::facts::{ContainerFacts, ImageFacts, Settings, Unmet};
use crate::plan::images::{Taken, exchange, removals, replacement};
use crate::plan::packages::{self, Back};
use crate::plan::planner::{Fresh, Refusal, layer_directory, take_down};
use crate::plan::{Action, Claim, Feels, LoadedPayload, OnFailure, Plan, PlannedContainer, Step, Undo};
use crate::state::baseline::Rootfs;

/// What a container gets back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The old files; data written since stays; its processes start afresh.
    StartAfresh,
    /// Memory and files of the checkpoint; what came since is lost.
    FromCheckpoint {
        /// Since when it is lost.
        taken: Timestamp,
    },
}

/// What the reverse planner needs to know.
#[derive(Debug, Clone)]
pub struct ReverseFacts<'a> {
    /// Name of the transaction to undo.
    pub of: &'a str,
    /// Its plan.
    pub done: &'a Plan,
    /// Livepatches that are loaded now and that the host should have.
    pub live: &'a [LoadedPayload],
    /// Modules that somebody else loaded under the names of these, and what they are.
    pub foreign: &'a BTreeMap<ModuleName, String>,
    /// Modules that this host may have crashed of.
    pub quarantined: &'a [Sha256],
    /// The containers of the plan that are still there, running or not.
    pub containers: &'a [ContainerFacts],
    /// What the package manager has of the packages that the plan installed.
    pub installed: &'a BTreeMap<PackageId, Installed>,
    /// How the services stand that the plan restarted.
    pub services: &'a [Service],
    /// The root file systems that the host should have.
    pub committed: &'a [Rootfs],
    /// What each container gets back.
    pub memory: Memory,
    /// From the host's configuration.
    pub settings: &'a Settings,
}

/// Make the plan; `name` is unique to the new transaction.
///
/// # Errors
/// [`Refusal`] if a container's root file system cannot be put back, or somebody else's module has the name of a
/// livepatch that is to be taken off.
pub fn plan(facts: &ReverseFacts<'_>, name: &str) -> Result<Plan, Refusal> {
    let mut plan = Plan {
        containers: Vec::new(),
        packages: Vec::new(),
        services: Vec::new(),
        steps: Vec::new(),
        on_failure: OnFailure::RollBack,
        notes: Vec::new(),
        not_needed: Vec::new(),
    };
    let mut unmet = Vec::new();
    let mut stage = 0;
    let on_host_files = packages::on_host_files(facts.done);
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for planned in
        facts.done.containers.iter().filter(|planned| !matches!(planned.feels, Feels::Skipped { .. }))
    {
        let id = &planned.container.id;
        let Some(now) = facts.containers.iter().find(|now| &now.container.id == id) else {
            plan.notes.push(format!(
                "container {id} and its files are not there any more; there is nothing to put back"
            ));
            continue;
        };
        let runs = now.container.status.has_processes();
        let steps = if let Some((from, image)) = facts.done.exchanged(id) {
            match now.image.as_ref().filter(|known| known.from == *image) {
                Some(known) => exchanged(facts, now, known, *from, name),
                None => {
                    plan.notes.push(format!(
                        "container {id} is not made from {image} any more: somebody else has made it anew, and it is left alone"
                    ));
                    continue;
                }
            }
        } else if on_host_files.contains(id) {
            // Its files are the host's, and come back with the packages.
            if runs {
                unmet.extend(now.unmet.iter().cloned());
                down.extend(take_down(id, now.obstacles.is_empty()));
                up.push((start(facts, id), Undo::StopTrial { container: id.clone() }));
            }
            Ok(Vec::new())
        } else if runs {
            container(facts, planned, now, name)
        } else {
            if let Memory::FromCheckpoint { .. } = facts.memory {
                plan.notes.push(format!(
                    "container {id} is not running: its files are put back, its checkpoint is not restored"
                ));
            }
            files_only(facts, now, name)
        };
        match steps {
            Ok(steps) => {
                push(&mut plan, &mut stage, steps);
                let changes = now.changes.iter().map(|change| format!("a restart of {id} changes {change}"));
                plan.notes.extend(changes);
                plan.containers.push(PlannedContainer {
                    container: now.container.clone(),
                    topology: now.topology.clone(),
                    files: planned.files.clone(),
                    on_failure: FailureScope::All,
                    feels: feels(now),
                });
            }
            Err(missing) => unmet.push(missing),
        }
    }
    let back = Back { done: facts.done, installed: facts.installed, services: facts.services };
    let (switched, services, notes, missing) = back.plan();
    plan.notes.extend(notes);
    unmet.extend(missing);
    // Where no package is put back, nobody has anything to come back to.
    if !switched.is_empty() {
        let restarted: Vec<ServiceName> =
            services.iter().map(|planned| planned.service.name.clone()).collect();
        let switches = switched.iter().map(|planned| planned.switch.clone()).collect();
        for steps in packages::stages(down, &restarted, switches, up, Vec::new()) {
            push(&mut plan, &mut stage, steps);
        }
        (plan.packages, plan.services) = (switched, services);
    }
    for step in facts.done.steps.iter().rev() {
        if let Action::LoadLivepatch { module, payload, kernel } = &step.action {
            let patch = LoadedPayload { module: module.clone(), payload: *payload };
            if !facts.live.contains(&patch) {
                plan.notes.push(format!("livepatch {module} is not live"));
                continue;
            }
            if let Some(found) = facts.foreign.get(module) {
                unmet.push(Unmet {
                    subject: format!("livepatch {module}"),
                    expected: "the module that this program loaded".to_owned(),
                    found: found.clone(),
                });
            }
            let (deadline, reload) = match &step.undo {
                Undo::UnloadLivepatch { deadline, reload, .. } => (*deadline, reload.clone()),
                _ => (DEFAULT_DEADLINE, Vec::new()),
            };
            let (kept_off, reload): (Vec<_>, Vec<_>) =
                reload.into_iter().partition(|old| facts.quarantined.contains(&old.payload));
            plan.notes.extend(kept_off.iter().map(|old| {
                format!("livepatch {}, which it replaced, is in quarantine and stays off", old.module)
            }));
            push(
                &mut plan,
                &mut stage,
                livepatch(patch, kernel, deadline, reload, facts.settings.crash_guard),
            );
        }
    }
    if !unmet.is_empty() {
        return Err(Refusal { unmet });
    }
    let impossible = || Undo::Impossible { why: "the host was committed to the rollback".to_owned() };
    push(&mut plan, &mut stage, vec![(Action::Commit, impossible())]);
    let held: Vec<WorkloadId> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::HoldConnections { container } => Some(container.clone()),
            _ => None,
        })
        .collect();
    let release =
        held.into_iter().map(|container| (Action::ReleaseConnections { container }, impossible())).collect();
    push(&mut plan, &mut stage, release);
    let removals = removals(&plan.steps, "the host was committed to the rollback");
    push(&mut plan, &mut stage, removals);
    Ok(plan)
}

/// For a load step whose undo says nothing; the planner makes no such step.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

fn push(plan: &mut Plan, stage: &mut u32, steps: Vec<(Action, Undo)>) {
    let here = *stage;
    *stage += u32::from(!steps.is_empty());
    plan.steps.extend(steps.into_iter().map(|(action, undo)| Step { stage: here, lane: 0, action, undo }));
}

fn feels(now: &ContainerFacts) -> Feels {
    if !now.container.status.has_processes() {
        Feels::NotRunning
    } else if now.obstacles.is_empty() {
        Feels::RestartWithCheckpoint
    } else {
        Feels::RestartWithoutCheckpoint { obstacles: now.obstacles.clone() }
    }
}

fn container(
    facts: &ReverseFacts<'_>,
    planned: &PlannedContainer,
    now: &ContainerFacts,
    name: &str,
) -> Result<Vec<(Action, Undo)>, Unmet> {
    let id = planned.container.id.clone();
    if let Some(unmet) = now.unmet.first() {
        return Err(unmet.clone());
    }
    let mut steps = take_down(&id, now.obstacles.is_empty());
    let fresh = Fresh::beside(now, &facts.settings.store, name);
    let to = match facts.memory {
        Memory::FromCheckpoint { .. } => planned.topology.with_new_work(&fresh.upper.work),
        Memory::StartAfresh => without_fix(facts, &id, &now.topology, &fresh)?,
    };
    steps.push((
        Action::SwitchRootfs { container: id.clone(), to },
        Undo::SwitchBack { container: id.clone(), to: now.topology.with_new_work(&fresh.back) },
    ));
    steps.push((start(facts, &id), Undo::StopTrial { container: id }));
    Ok(steps)
}

fn start(facts: &ReverseFacts<'_>, id: &WorkloadId) -> Action {
    match facts.memory {
        Memory::StartAfresh => Action::Start { container: id.clone() },
        Memory::FromCheckpoint { .. } => {
            Action::RestoreRetained { container: id.clone(), of: facts.of.to_owned() }
        }
    }
}

/// The steps for a container that gets the image again that it had before.
fn exchanged(
    facts: &ReverseFacts<'_>,
    now: &ContainerFacts,
    known: &ImageFacts,
    to: ImageDigest,
    name: &str,
) -> Result<Vec<(Action, Undo)>, Unmet> {
    let id = &now.container.id;
    if let Some(unmet) = now.unmet.first() {
        return Err(unmet.clone());
    }
    if let Memory::FromCheckpoint { .. } = facts.memory {
        return Err(Unmet {
            subject: format!("container {id}"),
            expected: "the container that its checkpoint is of".to_owned(),
            found: "another one: it was made anew, and the old one removed at the commit".to_owned(),
        });
    }
    let taken = match (now.container.status.has_processes(), now.obstacles.is_empty()) {
        (false, _) => Taken::NotRunning,
        (true, true) => Taken::WithCheckpoint,
        (true, false) => Taken::WithoutCheckpoint,
    };
    Ok(exchange(id, known.from, to, &replacement(now, known, name)?, taken))
}

/// The steps for a container that does not run: its files are exchanged, here and for every later boot, and
/// nothing is started. Data written since stays.
fn files_only(
    facts: &ReverseFacts<'_>,
    now: &ContainerFacts,
    name: &str,
) -> Result<Vec<(Action, Undo)>, Unmet> {
    let id = now.container.id.clone();
    let committed = facts.committed.iter().find(|rootfs| rootfs.container == id);
    // Where its mount was taken away, too, the next boot would bring back the committed one.
    let known = match (&now.topology, committed) {
        (Topology::Plain, Some(rootfs)) => {
            ContainerFacts { topology: rootfs.topology.clone(), ..now.clone() }
        }
        _ => now.clone(),
    };
    let fresh = Fresh::beside(&known, &facts.settings.store, name);
    let to = without_fix(facts, &id, &known.topology, &fresh)?;
    Ok(vec![(
        Action::SwitchRootfs { container: id.clone(), to },
        Undo::SwitchBack { container: id, to: now.topology.with_new_work(&fresh.back) },
    )])
}

/// What a root file system shows without the layers of the transaction that is undone.
fn without_fix(
    facts: &ReverseFacts<'_>,
    id: &WorkloadId,
    topology: &Topology,
    fresh: &Fresh,
) -> Result<Topology, Unmet> {
    let layers = facts.done.steps.iter().filter_map(|step| match &step.action {
        Action::UnpackLayer { layer, .. } => Some(layer_directory(&facts.settings.store, layer)),
        _ => None,
    });
    let layers: Vec<_> = layers.collect();
    topology.without(&layers, &fresh.upper.work).map_err(|error| Unmet {
        subject: format!("the root file system of container {id}"),
        expected: "a way to put the old files back".to_owned(),
        found: error.to_string(),
    })
}

fn livepatch(
    patch: LoadedPayload,
    kernel: &KernelRelease,
    deadline: Duration,
    reload: Vec<LoadedPayload>,
    crash_guard: Duration,
) -> Vec<(Action, Undo)> {
    let mut steps = vec![(
        Action::RemoveLivepatch { module: patch.module.clone(), deadline },
        Undo::ReloadLivepatch { patch, deadline },
    )];
    for old in reload {
        steps.extend([
            (
                Action::ArmCrashGuard {
                    module: old.module.clone(),
                    payload: old.payload,
                    window: crash_guard,
                },
                Undo::DisarmCrashGuard { payload: old.payload },
            ),
            (
                Action::LoadLivepatch {
                    module: old.module.clone(),
                    payload: old.payload,
                    kernel: kernel.clone(),
                },
                Undo::UnloadLivepatch { module: old.module.clone(), deadline, reload: Vec::new() },
            ),
            (
                Action::AwaitTransition {
                    module: old.module,
                    deadline,
                    claim: Claim::Bytes(old.payload),
                    replaced: Vec::new(),
                    may_kill: BTreeSet::new(),
                },
                Undo::Nothing,
            ),
        ]);
    }
    steps
}
