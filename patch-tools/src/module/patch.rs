//! The decoded livepatch: plain values, no offsets.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a livepatch module would do, as its tables say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Livepatch {
    /// How the tables are laid down in the module.
    pub form: TableForm,
    /// Whether it replaces the livepatches loaded before it.
    pub replace: Replace,
    /// What it patches, in the order of the tables.
    pub objects: Vec<PatchedObject>,
    /// System states it declares.
    pub states: Vec<State>,
    /// Functions whose patching a kpatch author forced past the consistency check.
    pub forced: Vec<String>,
}

/// Which generator's tables these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableForm {
    /// `struct klp_patch` itself, as in `samples/livepatch` and in modules that `patch-tools build` makes.
    KlpPatch,
    /// kpatch-build's `.kpatch.funcs`, from which the module builds its `struct klp_patch` when it loads.
    Kpatch,
    /// klp-build's `__klp_objects` and `__klp_funcs` (Linux 6.19).
    KlpBuild,
}

/// The flag `replace` of `struct klp_patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replace {
    /// Stacks on top of what is loaded.
    None,
    /// Atomic replace: every livepatch loaded before goes.
    All,
    /// The module's code sets the flag when it loads; the tables do not tell.
    DecidedAtLoad,
}

/// One kernel object and its replaced functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PatchedObject {
    /// The object.
    pub name: ObjectName,
    /// Its replaced functions, in the order of the table.
    pub functions: Vec<PatchedFunction>,
    /// Functions called around patching this object.
    pub callbacks: Callbacks,
}

/// The kernel itself or a module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectName {
    /// The kernel image; the name is null in the tables.
    Vmlinux,
    /// A module by the name that it has in `/sys/module`.
    Module(String),
}

/// A function that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PatchedFunction {
    /// The name of the function replaced.
    pub old_name: String,
    /// Its position among the object's symbols of that name, from 1; 0 means that the name is unique.
    pub sympos: u64,
    /// The symbol of the replacement, if the module's symbol table names it.
    pub new_symbol: Option<String>,
    /// The replacement's size in bytes, if the symbol table tells.
    pub new_size: Option<u64>,
}

/// Names of callback functions; a callback without a symbol is named by section and offset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Callbacks {
    /// Before the object is patched; may refuse.
    pub pre_patch: Option<String>,
    /// After it is patched.
    pub post_patch: Option<String>,
    /// Before it is unpatched.
    pub pre_unpatch: Option<String>,
    /// After it is unpatched.
    pub post_unpatch: Option<String>,
}

/// An entry of `klp_patch.states`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct State {
    /// The state's identifier, not zero.
    pub id: u64,
    /// Version of the change.
    pub version: u32,
}

impl ObjectName {
    /// The name as sysfs shows it: `vmlinux` or the module's.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::Module(name) => name,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Callbacks {
    /// The callbacks there are, with the name of their slot.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("pre_patch", &self.pre_patch),
            ("post_patch", &self.post_patch),
            ("pre_unpatch", &self.pre_unpatch),
            ("post_unpatch", &self.post_unpatch),
        ]
        .into_iter()
        .filter_map(|(slot, name)| name.as_deref().map(|name| (slot, name)))
    }
}
