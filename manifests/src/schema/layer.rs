//! A fix to files in containers, as one more layer under their writable directory.
//!
//! A container is affected when one of its processes maps a file that `replaces` names and it
//! passes the selector. Paths are for people: a file is known by its build id or digest.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::handling::Handling;
use super::payload::Payload;
use super::probe::Probe;
use crate::digest::{BuildId, Sha256};
use crate::names::{LabelName, WorkloadName};
use crate::text::{ContainerPath, LabelValue};

/// How many containers are updated at once when the manifest does not say.
pub const DEFAULT_CONCURRENCY: u32 = 1;

fn default_concurrency() -> u32 {
    DEFAULT_CONCURRENCY
}

/// A layer of files and the containers that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerComponent {
    /// The archive.
    pub payload: Payload,
    /// How the archive is packed.
    pub format: LayerFormat,
    /// The files that are at fault; mapping one of them makes a container affected.
    #[schemars(length(min = 1, max = 256))]
    pub replaces: Vec<ReplacedFile>,
    /// Narrows the affected containers. Absent: every container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerSelector>,
    /// What to do with an affected container that cannot be checkpointed.
    #[serde(default)]
    #[schemars(default)]
    pub without_checkpoint: WithoutCheckpoint,
    /// Containers that must not be checkpointed, since their memory is nothing for a disk: they count as
    /// containers that cannot be. Each entry selects by itself.
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

impl LayerComponent {
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
}

/// How a layer is packed: the OCI image layer format (image-spec, layer.md), with its whiteouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LayerFormat {
    /// A plain tar archive.
    #[serde(rename = "tar")]
    Tar,
    /// A tar archive compressed with zstd (RFC 8878).
    #[serde(rename = "tar+zstd")]
    TarZstd,
}

/// One file at fault.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReplacedFile {
    /// Where it usually is; for people, nothing is decided by it.
    pub path: ContainerPath,
    /// What it is known by: exactly one of `build_id` and `sha256`.
    #[serde(flatten)]
    pub identity: FileIdentity,
    /// Its size in bytes, beside `sha256` only: a file of another size need not be read to be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What a file is known by, wherever it lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileIdentity {
    /// Its GNU build id.
    BuildId(BuildId),
    /// The digest of its bytes.
    Sha256(Sha256),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReplacedFile {
    path: ContainerPath,
    build_id: Option<BuildId>,
    sha256: Option<Sha256>,
    size: Option<u64>,
}

impl<'de> Deserialize<'de> for ReplacedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawReplacedFile::deserialize(deserializer)?;
        let identity = match (raw.build_id, raw.sha256) {
            (Some(id), None) => FileIdentity::BuildId(id),
            (None, Some(digest)) => FileIdentity::Sha256(digest),
            (None, None) => {
                return Err(de::Error::custom("a replaced file needs `build_id` or `sha256`: found neither"));
            }
            (Some(_), Some(_)) => {
                return Err(de::Error::custom("a replaced file needs `build_id` or `sha256`: found both"));
            }
        };
        if raw.size.is_some() && matches!(identity, FileIdentity::BuildId(_)) {
            return Err(de::Error::custom(
                "a replaced file's `size` belongs to `sha256`: found it beside `build_id`, which files of any size can have",
            ));
        }
        Ok(Self { path: raw.path, identity, size: raw.size })
    }
}

/// Which containers, of those affected. Both parts must hold; at least one must be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerSelector {
    /// The container is one of these, each an id of runc's (`web`) or an engine's name for it after the engine's own
    /// (`podman:web`). Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ids: Vec<WorkloadName>,
    /// The container has every one of these labels. Empty: any labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub labels: Vec<Label>,
}

impl ContainerSelector {
    /// Whether it takes the container of this name (`web`, `podman:web`), whose labels `label` looks up by theirs.
    pub fn selects<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        // runc goes unsaid.
        let plain = |name: &'_ str| name.strip_prefix("runc:").unwrap_or(name).to_owned();
        let named = self.ids.is_empty() || self.ids.iter().any(|own| plain(own.as_str()) == plain(name));
        named && self.labels.iter().all(|own| label(own.name.as_str()) == Some(own.value.as_str()))
    }
}

/// A label: an OCI annotation of the container and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The annotation's name.
    pub name: LabelName,
    /// The value that it must have.
    pub value: LabelValue,
}

/// What to do with an affected container that cannot be checkpointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WithoutCheckpoint {
    /// Refuse the whole manifest before anything is touched.
    #[default]
    Fail,
    /// Leave this container as it is, and say so.
    Skip,
    /// Restart it all the same; going back is then a restart, too, and memory is lost.
    Restart,
}

/// What goes back when a container of a component fails: its restart, its probes, its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailureScope {
    /// This container alone: the rest of the manifest goes on, and the outcome names it.
    Workload,
    /// The whole manifest.
    #[default]
    All,
}

impl FailureScope {
    /// Whether it is what a component has that does not say it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The order in which containers are updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What is compared.
    pub by: OrderBy,
    /// The label whose values sort, as bytes; containers without it come last; ties go by id.
    pub name: LabelName,
}

/// What an [`Order`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderBy {
    /// The value of a label.
    Label,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_takes_a_container_that_it_names_and_that_has_every_label() {
        let label = |text: &str| {
            let (name, value) = text.split_once('=').unwrap();
            Label { name: name.parse().unwrap(), value: value.parse().unwrap() }
        };
        let selector = |ids: &[&str], labels: &[&str]| ContainerSelector {
            ids: ids.iter().map(|id| id.parse().unwrap()).collect(),
            labels: labels.iter().map(|text| label(text)).collect(),
        };
        let selects = |selector: ContainerSelector| {
            selector.selects("web-1", |name| {
                [("tier", "web"), ("zone", "a")]
                    .into_iter()
                    .find(|(own, _)| *own == name)
                    .map(|(_, value)| value)
            })
        };
        for taken in [
            selector(&["web-1"], &[]),
            selector(&["runc:web-1"], &[]),
            selector(&["db", "web-1"], &["tier=web"]),
            selector(&[], &["tier=web", "zone=a"]),
        ] {
            assert!(selects(taken.clone()), "{taken:?}");
        }
        for left in [
            selector(&["web"], &[]),
            selector(&["podman:web-1"], &[]),
            selector(&["web-1"], &["tier=db"]),
            selector(&[], &["tier=web", "zone=b"]),
            selector(&[], &["tier=web", "rack=1"]),
        ] {
            assert!(!selects(left.clone()), "{left:?}");
        }
    }
}
