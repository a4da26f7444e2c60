//! What podman and docker are asked in the same words, and the proof that they did it.

use std::time::Duration;

use system::clock::Interrupt;
use system::command::{CommandError, Invocation, WhenLate};

use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::inspected::Inspected;
use crate::lifecycle::{Lifecycle, alive, exec_outcome};
use crate::model::{
    Container, ContainerStatus, ExecOutcome, Image, Listing, Obstacle, ObstacleKind, Pid, RuntimeName,
    WorkloadId,
};

fn refused(action: &'static str, id: &WorkloadId) -> impl FnOnce(CommandError) -> RuntimeError {
    let id = id.clone();
    move |source| RuntimeError::Refused { action, id, source }
}

/// `start`, unless the container runs.
pub(super) fn start(
    engine: &dyn Lifecycle,
    command: Invocation<'_>,
    id: &WorkloadId,
) -> Result<Pid, RuntimeError> {
    if engine.inspect(id)?.is_none_or(|found| found.status != ContainerStatus::Running) {
        command.args(["start", "--"]).arg(id.id.as_str()).output().map_err(refused("start", id))?;
    }
    let found = engine.inspect(id)?.ok_or_else(|| RuntimeError::Unknown { id: id.clone() })?;
    alive("start", &found)
}

/// `stop`: SIGTERM, after `patience` SIGKILL. Past `limit` the command is killed.
pub(super) fn stop(
    engine: &dyn Lifecycle,
    command: Invocation<'_>,
    id: &WorkloadId,
    patience: Duration,
    limit: Duration,
) -> Result<(), RuntimeError> {
    let seconds = patience.as_secs().to_string();
    let command = command.limit(limit, WhenLate::Kill).args(["stop", "--time", &seconds, "--"]);
    command.arg(id.id.as_str()).output().map_err(refused("stop", id))?;
    match engine.inspect(id)?.is_some_and(|found| found.status.has_processes()) {
        true => Err(RuntimeError::WillNotStop { id: id.clone(), after: limit }),
        false => Ok(()),
    }
}

/// `exec`. Killing the program leaves what it started inside of the container: `end` ends that.
pub(super) fn exec(
    command: Invocation<'_>,
    id: &WorkloadId,
    words: &[String],
    interrupt: &dyn Interrupt,
    end: impl FnOnce(),
) -> Result<ExecOutcome, RuntimeError> {
    let run = command.args(["exec", "--"]).arg(id.id.as_str()).args(words).run_unless(interrupt);
    exec_outcome(id, run, || {
        end();
        Ok(())
    })
}

/// All containers of an answer, by id; one that cannot be handled is told beside the others.
pub(super) fn listing(
    engine: &RuntimeName,
    all: &[Inspected],
    container: fn(&Inspected) -> Result<Container, RuntimeError>,
) -> Listing {
    let mut listing = Listing::default();
    for found in all {
        match container(found) {
            Ok(container) => listing.containers.push(container),
            Err(error) => listing.unreadable.push(found.unreadable(engine, &error)),
        }
    }
    listing.containers.sort_by(|a, b| a.id.cmp(&b.id));
    listing
}

/// What a container was made from, with the layers of that image; `command` is the engine's, to inspect them with.
pub(super) fn image(
    command: Invocation<'_>,
    id: &WorkloadId,
    found: &Inspected,
) -> Result<Option<Image>, RuntimeError> {
    let Some(image) = found.image() else { return Ok(None) };
    let answer = command
        .args(["image", "inspect", "--format", "{{json .RootFS.Layers}}", "--", &image.id])
        .output()
        .map_err(refused("inspect the image of", id))?;
    let about = || format!("the image of {id}");
    let layers: Option<Vec<String>> =
        serde_json::from_slice(&answer).map_err(|source| RuntimeError::Answer { about: about(), source })?;
    Ok(Some(Image { layers: layers.unwrap_or_default(), ..image }))
}

/// A container that the engine removes when it ends.
pub(super) fn removed_when_ended(engine: &RuntimeName, found: &Inspected) -> Option<Obstacle> {
    let obstacle = || Obstacle::of_all(ObstacleKind::RemovedWhenEnded, engine.as_str(), "`--rm`");
    found.host_config.auto_remove.then(obstacle)
}

/// What is not kept when a container is made anew.
pub(super) fn own_files() -> String {
    "what it wrote outside of its volumes: that is the old container's, and goes with it at the commit"
        .to_owned()
}

/// What the engine's commands about changes show once there is a fix below a container.
pub(super) fn hidden_changes(engine: &RuntimeName, found: &Inspected) -> String {
    format!(
        "what `{engine} diff` and `{engine} commit` see of {}: what it wrote before is below the fix, and they look above it",
        found.short_id()
    )
}
