//! How a component wants its containers to be treated, whatever it changes of them.

use super::layer::{ContainerSelector, FailureScope, Order, WithoutCheckpoint};
use super::probe::Probe;

/// What components that restart containers say in the same words.
#[derive(Debug, Clone, Copy)]
pub struct Handling<'a> {
    /// For a container that cannot be checkpointed.
    pub without_checkpoint: WithoutCheckpoint,
    /// Containers that must not be checkpointed.
    pub never_checkpoint: &'a [ContainerSelector],
    /// What goes back when a container fails.
    pub on_failure: FailureScope,
    /// The order of the containers.
    pub order: Option<&'a Order>,
    /// How many at once.
    pub concurrency: u32,
    /// Probes of each container.
    pub probes: &'a [Probe],
}
