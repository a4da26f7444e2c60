//! A fix to kernel functions, as a livepatch module.
//!
//! What the component says must be exactly what the module holds; the host compares the two
//! before it loads anything. Words are the kernel's (Documentation/livepatch/livepatch.rst).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payload::Payload;
use crate::duration::Span;
use crate::names::{KernelRelease, ModuleName, ObjectName, SymbolName};

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

/// How long the transition of all tasks may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// Past this the livepatch is reversed and the step has failed; 1s to 1h.
    pub deadline: Span,
}

impl Default for Transition {
    fn default() -> Self {
        Self { deadline: Span::from_secs(60) }
    }
}
