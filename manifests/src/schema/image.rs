//! A whole image for containers, in place of the one that they were made from.
//!
//! A container is affected when its engine says that it was made from an image of `instead_of` and it passes the selector.
//! Its engine makes it anew from the new image, with its configuration kept: names, labels, volumes, networks, limits.
//! Images are known by digests alone; a name in a registry says nothing about bytes.

use schemars::JsonSchema;
use serde::Serialize;

use super::handling::Handling;
use super::layer::{ContainerSelector, FailureScope, Order, WithoutCheckpoint};
use super::payload::Payload;
use super::probe::Probe;
use crate::digest::ImageDigest;

fn default_concurrency() -> u32 {
    super::layer::DEFAULT_CONCURRENCY
}

/// An image and the containers that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageComponent {
    /// The image as an OCI archive: a tar file of an image layout (OCI image-spec, `image-layout.md`).
    pub payload: Payload,
    /// The new image, by the digest of its configuration, which engines call its id.
    pub image: ImageDigest,
    /// The images at fault, each by the digest of its configuration or of its manifest.
    #[schemars(length(min = 1, max = 64))]
    pub instead_of: Vec<ImageDigest>,
    /// Narrows the affected containers. Absent: every container that was made from such an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerSelector>,
    /// What to do with an affected container that cannot be checkpointed.
    #[serde(default)]
    #[schemars(default)]
    pub without_checkpoint: WithoutCheckpoint,
    /// Containers that must not be checkpointed; each entry selects by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub never_checkpoint: Vec<ContainerSelector>,
    /// What goes back when a container fails; left out: that container alone.
    #[serde(default, skip_serializing_if = "FailureScope::is_default")]
    #[schemars(default)]
    pub on_failure: FailureScope,
    /// The order of the containers. Absent: by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// How many containers are updated at once, 1 to 64.
    #[serde(default)]
    #[schemars(default = "default_concurrency", range(min = 1, max = 64))]
    pub concurrency: u32,
    /// Probes of each updated container.
    #[serde(default)]
    #[schemars(default, length(max = 32))]
    pub probes: Vec<Probe>,
}

impl ImageComponent {
    /// How its containers are to be treated.
    pub fn handling(&self) -> Handling<'_> {
        Handling {
            without_checkpoint: self.without_checkpoint,
            never_checkpoint: &self.never_checkpoint,
            on_failure: self.on_failure,
            order: self.order.as_ref(),
            concurrency: self.concurrency,
            probes: &self.probes,
        }
    }

    /// Whether an image with these digests (of its configuration, and of its manifest if that is known) is at fault.
    pub fn replaces(&self, configuration: &ImageDigest, manifest: Option<&ImageDigest>) -> bool {
        let is_at_fault = |digest: &ImageDigest| self.instead_of.contains(digest);
        *configuration != self.image && (is_at_fault(configuration) || manifest.is_some_and(is_at_fault))
    }
}
