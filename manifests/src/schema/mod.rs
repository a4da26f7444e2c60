//! The manifest, schema version 1: what one signed document says.
//!
//! [`Manifest::parse`] is the only way from bytes to a [`Manifest`]; it applies the strict YAML
//! reading of [`crate::yaml`] and the cross-field rules of [`validate`], so that a `Manifest` in
//! hand is complete and consistent. It is *not* thereby authentic: see [`crate::verify`].
//!
//! - [`livepatch`]: a kernel fix as a module
//! - [`layer`]: a fix to files in containers
//! - [`image`]: a whole image for containers; [`handling`]: what both say of how containers are treated
//! - [`package`]: a fix to files of the host, as Debian packages
//! - [`payload`]: the files that go with components
//! - [`probe`]: how to see that something works
//! - [`validate`]: rules that one field alone cannot state
//! - [`json`]: the JSON Schema

pub mod handling;
pub mod image;
pub mod json;
pub mod layer;
pub mod livepatch;
pub mod package;
pub mod payload;
pub mod probe;
pub(crate) mod validate;

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::duration::Span;
use crate::error::ManifestError;
use crate::names::{CveId, GroupName, KernelRelease, ManifestName};
use crate::text::Summary;
use crate::time::UtcTime;
use crate::yaml;
use image::ImageComponent;
use layer::{ContainerSelector, LayerComponent, ReplacedFile};
use livepatch::LivepatchComponent;
use package::PackageComponent;
use payload::Payload;
use probe::Probe;

/// One signed document: what changes on a host, and how to tell that it went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format; always 1.
    pub schema: SchemaVersion,
    /// Names the line of manifests in which `version` counts.
    pub name: ManifestName,
    /// Grows with each issue of `name`; a host refuses a lower one than it has accepted.
    #[schemars(range(min = 1, max = 9007199254740991_u64))]
    pub version: u64,
    /// When the manifest was issued; a host refuses it more than five minutes before.
    pub issued: UtcTime,
    /// From when on a host refuses it; at most a year after `issued`.
    pub expires: UtcTime,
    /// How urgent the fix is. For people and for rollout order; changes nothing on the host.
    pub severity: Severity,
    /// One line for people.
    pub summary: Summary,
    /// The vulnerabilities that this fixes.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub fixes: Vec<CveId>,
    /// The machines that this is for.
    pub targets: Targets,
    /// What changes, applied in this order and undone in reverse.
    #[schemars(length(min = 1, max = 64))]
    pub components: Vec<Component>,
    /// Probes from the host, run after the last component.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub probes: Vec<Probe>,
    /// How long all probes must go on holding after the last component, before commit; at most `1h`.
    #[serde(default = "default_settle")]
    pub settle: Span,
    /// What to do when a step or a probe fails.
    #[serde(default)]
    pub rollback: Rollback,
}

fn default_settle() -> Span {
    Span::from_secs(5)
}

impl Manifest {
    /// The most bytes that a manifest may have.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Reads a manifest from YAML and checks everything that needs no host.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Manifest = yaml::from_slice(bytes, Self::MAX_BYTES)?;
        validate::manifest(&manifest)?;
        Ok(manifest)
    }

    /// The payloads of all components, in order.
    pub fn payloads(&self) -> impl Iterator<Item = &Payload> {
        self.components.iter().flat_map(Component::payloads)
    }
}

/// The version of the manifest format. There is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchemaVersion;

impl SchemaVersion {
    /// The version that this program reads and writes.
    pub const CURRENT: u64 = 1;
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::CURRENT)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::CURRENT => Ok(Self),
            found => Err(de::Error::custom(format_args!(
                "schema {found} is not known to this program: expected {}",
                Self::CURRENT
            ))),
        }
    }
}

impl JsonSchema for SchemaVersion {
    fn schema_name() -> Cow<'static, str> {
        "SchemaVersion".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": 1 })
    }
}

/// How urgent a fix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Hardening, or a fault that is hard to reach.
    Low,
    /// Worth the next ordinary window.
    Medium,
    /// Worth an extra window.
    High,
    /// Now.
    Critical,
}

impl Severity {
    /// The word as manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The machines that a manifest is for; a host outside refuses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Machine architectures as `uname -m` prints them.
    #[schemars(length(min = 1, max = 8))]
    pub arch: Vec<Arch>,
    /// Kernel releases as `uname -r` prints them. Empty: any kernel, allowed without livepatches only.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub kernels: Vec<KernelRelease>,
    /// Groups of hosts; empty means any host. A host knows its own groups, never by the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub groups: Vec<GroupName>,
}

impl Targets {
    /// Whether a host that is in these groups is meant.
    pub fn has_group(&self, own: &[GroupName]) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|group| own.contains(group))
    }
}

/// A machine architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm. Layers only: livepatch modules are built and checked for x86_64.
    Aarch64,
}

impl Arch {
    /// The word as `uname -m` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that a manifest changes.
///
/// The kind `kernel` (a whole new kernel) is reserved and refused in schema 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Component {
    /// A fix to kernel functions, as a livepatch module.
    Livepatch(LivepatchComponent),
    /// A fix to files of containers, as a layer over their root.
    Layer(LayerComponent),
    /// Another image for containers, which are made anew from it.
    Image(ImageComponent),
    /// A fix to files of the host, as Debian packages.
    Package(PackageComponent),
}

impl Component {
    /// The files that this component needs, of a package the new one before the old one.
    pub fn payloads(&self) -> Vec<&Payload> {
        match self {
            Self::Livepatch(livepatch) => vec![&livepatch.payload],
            Self::Layer(layer) => vec![&layer.payload],
            Self::Image(image) => vec![&image.payload],
            Self::Package(component) => {
                let builds = component.packages.iter().flat_map(|change| [&change.new, &change.old]);
                builds.map(|build| &build.payload).collect()
            }
        }
    }

    /// The files at fault that it replaces, wherever they are mapped; none of a livepatch.
    pub fn replaces(&self) -> &[ReplacedFile] {
        match self {
            Self::Livepatch(_) | Self::Image(_) => &[],
            Self::Layer(layer) => &layer.replaces,
            Self::Package(component) => &component.replaces,
        }
    }

    /// Which of the containers that map such a file it is for; nothing for every one.
    pub fn containers(&self) -> Option<&ContainerSelector> {
        match self {
            Self::Livepatch(_) => None,
            Self::Layer(layer) => layer.containers.as_ref(),
            Self::Image(image) => image.containers.as_ref(),
            Self::Package(component) => component.containers.as_ref(),
        }
    }

    /// The word as manifests write it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Livepatch(_) => "livepatch",
            Self::Layer(_) => "layer",
            Self::Image(_) => "image",
            Self::Package(_) => "package",
        }
    }
}

/// Every field of every kind. serde's internally tagged enums would read scalars before their
/// type is known (a build id of digits only would become a number), so the kinds are told apart here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawComponent {
    kind: RawKind,
    payload: Option<Payload>,
    module: Option<crate::names::ModuleName>,
    kernel: Option<KernelRelease>,
    kernel_build_id: Option<crate::digest::BuildId>,
    fixed_in: Option<Vec<livepatch::FixedIn>>,
    patches: Option<Vec<livepatch::PatchedObject>>,
    replace: Option<livepatch::Replace>,
    transition: Option<livepatch::Transition>,
    format: Option<layer::LayerFormat>,
    replaces: Option<Vec<layer::ReplacedFile>>,
    image: Option<crate::digest::ImageDigest>,
    instead_of: Option<Vec<crate::digest::ImageDigest>>,
    containers: Option<layer::ContainerSelector>,
    without_checkpoint: Option<layer::WithoutCheckpoint>,
    never_checkpoint: Option<Vec<layer::ContainerSelector>>,
    on_failure: Option<layer::FailureScope>,
    order: Option<layer::Order>,
    concurrency: Option<u32>,
    probes: Option<Vec<Probe>>,
    packages: Option<Vec<package::PackageChange>>,
    services: Option<package::ServiceRules>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Livepatch,
    Layer,
    Image,
    Package,
    Kernel,
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawComponent::deserialize(deserializer)?;
        match raw.kind {
            RawKind::Livepatch => {
                foreign(
                    "livepatch",
                    &[
                        ("format", raw.format.is_some()),
                        ("replaces", raw.replaces.is_some()),
                        ("image", raw.image.is_some()),
                        ("instead_of", raw.instead_of.is_some()),
                        ("containers", raw.containers.is_some()),
                        ("without_checkpoint", raw.without_checkpoint.is_some()),
                        ("never_checkpoint", raw.never_checkpoint.is_some()),
                        ("on_failure", raw.on_failure.is_some()),
                        ("order", raw.order.is_some()),
                        ("concurrency", raw.concurrency.is_some()),
                        ("probes", raw.probes.is_some()),
                        ("packages", raw.packages.is_some()),
                        ("services", raw.services.is_some()),
                    ],
                )?;
                Ok(Self::Livepatch(LivepatchComponent {
                    module: required(raw.module, "module")?,
                    payload: required(raw.payload, "payload")?,
                    kernel: required(raw.kernel, "kernel")?,
                    kernel_build_id: raw.kernel_build_id,
                    fixed_in: raw.fixed_in.unwrap_or_default(),
                    patches: required(raw.patches, "patches")?,
                    replace: raw.replace.unwrap_or_default(),
                    transition: raw.transition.unwrap_or_default(),
                }))
            }
            RawKind::Layer => {
                foreign(
                    "layer",
                    &[
                        ("module", raw.module.is_some()),
                        ("kernel", raw.kernel.is_some()),
                        ("kernel_build_id", raw.kernel_build_id.is_some()),
                        ("fixed_in", raw.fixed_in.is_some()),
                        ("patches", raw.patches.is_some()),
                        ("replace", raw.replace.is_some()),
                        ("transition", raw.transition.is_some()),
                        ("image", raw.image.is_some()),
                        ("instead_of", raw.instead_of.is_some()),
                        ("packages", raw.packages.is_some()),
                        ("services", raw.services.is_some()),
                    ],
                )?;
                Ok(Self::Layer(LayerComponent {
                    payload: required(raw.payload, "payload")?,
                    format: required(raw.format, "format")?,
                    replaces: required(raw.replaces, "replaces")?,
                    containers: raw.containers,
                    without_checkpoint: raw.without_checkpoint.unwrap_or_default(),
                    never_checkpoint: raw.never_checkpoint.unwrap_or_default(),
                    on_failure: raw.on_failure.unwrap_or_default(),
                    order: raw.order,
                    concurrency: raw.concurrency.unwrap_or(layer::DEFAULT_CONCURRENCY),
                    probes: raw.probes.unwrap_or_default(),
                }))
            }
            RawKind::Image => {
                foreign(
                    "image",
                    &[
                        ("module", raw.module.is_some()),
                        ("kernel", raw.kernel.is_some()),
                        ("kernel_build_id", raw.kernel_build_id.is_some()),
                        ("fixed_in", raw.fixed_in.is_some()),
                        ("patches", raw.patches.is_some()),
                        ("replace", raw.replace.is_some()),
                        ("transition", raw.transition.is_some()),
                        ("format", raw.format.is_some()),
                        ("replaces", raw.replaces.is_some()),
                        ("packages", raw.packages.is_some()),
                        ("services", raw.services.is_some()),
                    ],
                )?;
                Ok(Self::Image(ImageComponent {
                    payload: required(raw.payload, "payload")?,
                    image: required(raw.image, "image")?,
                    instead_of: required(raw.instead_of, "instead_of")?,
                    containers: raw.containers,
                    without_checkpoint: raw.without_checkpoint.unwrap_or_default(),
                    never_checkpoint: raw.never_checkpoint.unwrap_or_default(),
                    on_failure: raw.on_failure.unwrap_or_default(),
                    order: raw.order,
                    concurrency: raw.concurrency.unwrap_or(layer::DEFAULT_CONCURRENCY),
                    probes: raw.probes.unwrap_or_default(),
                }))
            }
            RawKind::Package => {
                foreign(
                    "package",
                    &[
                        ("payload", raw.payload.is_some()),
                        ("image", raw.image.is_some()),
                        ("instead_of", raw.instead_of.is_some()),
                        ("module", raw.module.is_some()),
                        ("kernel", raw.kernel.is_some()),
                        ("kernel_build_id", raw.kernel_build_id.is_some()),
                        ("fixed_in", raw.fixed_in.is_some()),
                        ("patches", raw.patches.is_some()),
                        ("replace", raw.replace.is_some()),
                        ("transition", raw.transition.is_some()),
                        ("format", raw.format.is_some()),
                        ("on_failure", raw.on_failure.is_some()),
                        ("order", raw.order.is_some()),
                        ("concurrency", raw.concurrency.is_some()),
                        ("probes", raw.probes.is_some()),
                    ],
                )?;
                Ok(Self::Package(PackageComponent {
                    packages: required(raw.packages, "packages")?,
                    replaces: required(raw.replaces, "replaces")?,
                    services: raw.services.unwrap_or_default(),
                    containers: raw.containers,
                    without_checkpoint: raw.without_checkpoint.unwrap_or_default(),
                    never_checkpoint: raw.never_checkpoint.unwrap_or_default(),
                }))
            }
            RawKind::Kernel => Err(de::Error::custom(
                "kind `kernel` is reserved for a later schema: expected `livepatch`, `layer`, `image` or `package`",
            )),
        }
    }
}

fn required<T, E: de::Error>(value: Option<T>, field: &'static str) -> Result<T, E> {
    value.ok_or_else(|| E::missing_field(field))
}

fn foreign<E: de::Error>(kind: &str, fields: &[(&str, bool)]) -> Result<(), E> {
    match fields.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(E::custom(format_args!("field `{field}` does not belong to kind `{kind}`"))),
        None => Ok(()),
    }
}

/// What to do when a step or a probe fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Whether the host goes back by itself.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// Whether a host goes back by itself after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Undo everything, at once and without asking.
    #[default]
    Automatic,
    /// Stop where it failed and ask the operator (exit code 6).
    Hold,
}
