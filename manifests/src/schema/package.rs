//! A fix to files of the host itself, as Debian packages.
//!
//! The manifest carries each package twice: the new one, and the old one for the way back. A host that has
//! neither of the two is refused. Who is restarted goes by what is mapped, as with layers: a service or
//! container is affected when one of its processes maps a file that `replaces` names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::{ContainerSelector, ReplacedFile, WithoutCheckpoint};
use super::payload::Payload;
use crate::names::{PackageArch, PackageName, ServiceName};
use crate::package::PackageVersion;

/// Packages of the host, and who runs what they replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageComponent {
    /// The packages, installed together. A host takes those that it has, in the old version; it never gets one more.
    #[schemars(length(min = 1, max = 32))]
    pub packages: Vec<PackageChange>,
    /// The files of the old packages that are at fault; mapping one of them makes a service or container affected.
    #[schemars(length(min = 1, max = 256))]
    pub replaces: Vec<ReplacedFile>,
    /// Exceptions to which of the affected services are restarted.
    #[serde(default, skip_serializing_if = "ServiceRules::is_default")]
    #[schemars(default)]
    pub services: ServiceRules,
    /// Narrows the affected containers. Absent: every container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerSelector>,
    /// What to do with an affected container that cannot be checkpointed.
    #[serde(default)]
    #[schemars(default)]
    pub without_checkpoint: WithoutCheckpoint,
    /// Containers that must not be checkpointed: they count as containers that cannot be. Each entry selects by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub never_checkpoint: Vec<ContainerSelector>,
}

/// One package, in the version that is replaced and in the one that replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageChange {
    /// The binary package's name.
    pub name: PackageName,
    /// Its architecture, as the package manager calls it.
    pub architecture: PackageArch,
    /// What a host has before, and again after a way back.
    pub old: PackageBuild,
    /// What it has after.
    pub new: PackageBuild,
}

/// A version of a package and its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageBuild {
    /// The whole version, with epoch and revision.
    pub version: PackageVersion,
    /// The .deb.
    pub payload: Payload,
}

/// Exceptions to which affected services are restarted.
///
/// By itself a host restarts them all but those whose restart ends what people and networks are in the middle of (logins,
/// the message bus, networking, container engines), which it tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRules {
    /// Services that are restarted, if they are affected, though they would only be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub restart: Vec<ServiceName>,
    /// Services that are left as they are, and told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub leave: Vec<ServiceName>,
}

impl ServiceRules {
    /// Whether it has none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
