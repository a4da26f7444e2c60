//! What podman and docker are asked in the same words, and the proof that they did it.

use std::time::Duration;

use system::command::{CommandError, Invocation, WhenLate};

use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::{Lifecycle, alive};
use crate::model::{ContainerStatus, Pid, WorkloadId};

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
