//! A fix to kernel functions, as a livepatch module.
//!
//! What the component says must be exactly what the module holds; the host compares the two
//! before it loads anything. Words are the kernel's (Documentation/livepatch/livepatch.rst).
//!
//! A module fits one kernel. A manifest for many kernels has a component for each; which of them a host
//! takes is in [`crate::selection`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::ContainerSelector;
use super::payload::Payload;
use crate::digest::BuildId;
use crate::duration::Span;
use crate::names::{Distribution, KernelRelease, KernelSeries, ModuleName, ObjectName, SymbolName};
use crate::package::PackageVersion;

/// A livepatch module and what it is meant to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LivepatchComponent {
    /// The module's name as the kernel shows it.
    pub module: ModuleName,
    /// The module file.
    pub payload: Payload,
    /// The kernel release that the module was built for; must be one of `targets.kernels`.
    pub kernel: KernelRelease,
    /// The GNU build id of that kernel's vmlinux, as in `/sys/kernel/notes`: another build of the same release
    /// is another kernel. Absent (older documents): any build of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_build_id: Option<BuildId>,
    /// From which kernel packages on the fix is built in; such a host does not need this component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub fixed_in: Vec<FixedIn>,
    /// What the module patches: exactly this, nothing more.
    #[schemars(length(min = 1, max = 64))]
    pub patches: Vec<PatchedObject>,
    /// Whether it replaces all earlier livepatches; must equal the module's own flag.
    #[serde(default)]
    #[schemars(default)]
    pub replace: Replace,
    /// How long tasks may take to move over.
    #[serde(default)]
    #[schemars(default)]
    pub transition: Transition,
}

/// The first kernel package of a series that has the fix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedIn {
    /// Whose package.
    pub distribution: Distribution,
    /// The kernel releases that it is about.
    pub series: KernelSeries,
    /// The first version with the fix; all later ones of the series have it, too.
    pub version: PackageVersion,
}

/// The functions that a livepatch changes in one object (`klp_object`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchedObject {
    /// `vmlinux` or a module's name.
    pub object: ObjectName,
    /// The functions that it changes there.
    #[schemars(length(min = 1, max = 1024))]
    pub functions: Vec<PatchedFunction>,
}

/// One changed function (`klp_func`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchedFunction {
    /// The function's symbol (`old_name`).
    pub name: SymbolName,
    /// Which of several symbols of that name in the object, counted from 1 in the order of kallsyms;
    /// 0 says that there is one only (`old_sympos`).
    #[serde(default)]
    pub sympos: u32,
}

/// Whether a livepatch replaces all earlier ones (`klp_patch.replace`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replace {
    /// It adds to what is loaded.
    #[default]
    None,
    /// Atomic replace: everything loaded before goes.
    All,
}

/// How long the transition of all tasks may take, and what may be done about those that block it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// Past this the livepatch is reversed and the step has failed; 1s to 1h.
    #[serde(default = "default_deadline")]
    #[schemars(default = "default_deadline")]
    pub deadline: Span,
    /// What may be done about tasks that block the transition and are stuck in the kernel uninterruptibly
    /// (state D). The first entry that selects the task's container decides; without one nothing is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub stuck: Vec<StuckRule>,
}

/// What may be done about the stuck tasks of some containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StuckRule {
    /// Whose tasks.
    pub containers: ContainerSelector,
    /// What may be done.
    pub action: StuckAction,
}

/// What may be done about a task that is stuck uninterruptibly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StuckAction {
    /// Nothing: it goes on blocking, and the deadline decides. For exceptions before a wider entry.
    Wait,
    /// Its process may be killed, and is lost: going back does not bring it again.
    Kill,
}

fn default_deadline() -> Span {
    Span::from_secs(60)
}

impl Default for Transition {
    fn default() -> Self {
        Self { deadline: default_deadline(), stuck: Vec::new() }
    }
}
