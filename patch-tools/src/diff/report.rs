//! What a comparison found, as plain values; serialised, it is the JSON of `patch-tools diff --json`.

use std::fmt;

use serde::Serialize;

use super::refusal::Refused;
use crate::module::ObjectName;

/// The outcome in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Functions changed, and a livepatch can carry the change.
    Changed,
    /// Nothing that runs changed.
    Unchanged,
    /// The change cannot be carried by a livepatch; the reasons are in [`Report::refused`].
    Refused,
}

/// Everything that a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The outcome in one word.
    pub verdict: Verdict,
    /// The kernel object that the compared file is part of.
    pub object: ObjectName,
    /// Names of the functions to replace, as the running object calls them.
    pub changed_functions: Vec<String>,
    /// Functions that only the patched file has.
    pub new_functions: Vec<String>,
    /// Data objects that only the patched file has.
    pub new_data: Vec<String>,
    /// Functions to call around patching.
    pub callbacks: Vec<Callback>,
    /// The rows of `struct klp_func`, in the order of `changed_functions`.
    pub functions: Vec<Replacement>,
    /// Relocations that the kernel's livepatch code has to resolve, by section and offset of the output.
    pub klp_relocations: Vec<KlpRelocation>,
    /// What differs without mattering.
    pub ignored: Vec<Ignored>,
    /// What stands against a livepatch.
    pub refused: Vec<Refused>,
}

impl Report {
    /// Where no function is replaced, what became of each change, in words.
    pub fn without_effect(&self) -> Vec<String> {
        let ignored = self.ignored.iter().map(|one| format!("{}: {}", one.function, one.reason));
        let new = self.new_functions.iter().chain(&self.new_data);
        let new = new.map(|name| format!("{name}: {}", IgnoredReason::Unused));
        let callbacks = self.callbacks.iter().map(|one| {
            format!("{}: a callback ({}), and there is nothing to patch", one.function, one.kind.name())
        });
        let told: Vec<String> = ignored.chain(new).chain(callbacks).collect();
        if told.is_empty() { vec!["nothing that runs differs".to_owned()] } else { told }
    }
}

/// What the module's `struct klp_func` needs for one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// `old_name`: the function in the running object.
    pub name: String,
    /// `old_sympos`: its position among the object's symbols of that name, from 1; 0 when it is unique.
    pub sympos: u32,
    /// A global symbol of the output that stands for the new function.
    pub new_symbol: String,
    /// Size of the new function in bytes.
    pub new_size: u64,
}

/// A function that the livepatch core calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Callback {
    /// When it is called.
    pub kind: CallbackKind,
    /// Its name.
    pub function: String,
    /// A global symbol of the output that stands for it.
    pub new_symbol: String,
}

/// The four hooks of `struct klp_callbacks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackKind {
    /// Before the object is patched; may refuse.
    PrePatch,
    /// After it is patched.
    PostPatch,
    /// Before it is unpatched.
    PreUnpatch,
    /// After it is unpatched.
    PostUnpatch,
}

impl CallbackKind {
    /// All four, in the order of `struct klp_callbacks`.
    pub const ALL: [Self; 4] = [Self::PrePatch, Self::PostPatch, Self::PreUnpatch, Self::PostUnpatch];

    /// The member's name in `struct klp_callbacks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrePatch => "pre_patch",
            Self::PostPatch => "post_patch",
            Self::PreUnpatch => "pre_unpatch",
            Self::PostUnpatch => "post_unpatch",
        }
    }
}

/// One relocation for `.klp.rela.<object><section>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KlpRelocation {
    /// Section of the output.
    pub section: String,
    /// Offset in that section.
    pub offset: u64,
    /// Name of the relocation type, such as `R_X86_64_PLT32`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is added to the symbol's address.
    pub addend: i64,
    /// The symbol, as kallsyms calls it.
    pub symbol: String,
    /// The object that defines it.
    pub object: ObjectName,
    /// Its position among that object's symbols of that name, from 1; 0 when it is unique.
    pub sympos: u32,
}

/// A difference that does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The function, or the data or section where it is not in a function.
    pub function: String,
    /// Why it does not matter.
    pub reason: IgnoredReason,
}

/// Why a difference does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IgnoredReason {
    /// Only line numbers passed to reporting functions changed.
    LineNumber {
        /// The reporting function.
        helper: String,
    },
    /// A function that nothing in the patched file needs any more; the running one stays.
    FunctionRemoved,
    /// A data object that nothing in the patched file needs any more; the running one stays.
    DataRemoved,
    /// A new `EXPORT_SYMBOL`: other modules will not see it until a kernel with it boots.
    NewExport,
    /// Text for tools such as modinfo.
    ModuleText,
    /// A jump label on a tracepoint whose key is in a module: the event will not fire in the new code.
    TracepointDropped {
        /// The tracepoint's key.
        key: String,
    },
    /// A once-flag or limit of a call site in the function: the patch has its own, which starts anew.
    StartsAnew {
        /// Its name, without the compiler's number.
        variable: String,
    },
    /// The patch author asked for it.
    ByAuthor,
    /// The patch author asked another tool for something.
    ForeignMark,
    /// New, and used by nothing that is replaced.
    Unused,
    /// A function that the compiler adds for a sanitizer or for coverage, and that has run.
    Constructor,
}

impl fmt::Display for IgnoredReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineNumber { helper } => {
                write!(formatter, "only line numbers passed to {helper} changed")
            }
            Self::FunctionRemoved => write!(formatter, "function is gone; the running one stays, unused"),
            Self::DataRemoved => write!(formatter, "data is gone; the running object stays, unused"),
            Self::NewExport => {
                write!(formatter, "new export: other modules see it only once a kernel with it boots")
            }
            Self::ModuleText => write!(formatter, "text for tools, not used when running"),
            Self::TracepointDropped { key } => {
                write!(formatter, "tracepoint {key} is in a module: its event will not fire in the new code")
            }
            Self::StartsAnew { variable } => {
                write!(
                    formatter,
                    "the patch has a {variable} of its own: what is told once, or seldom, starts anew"
                )
            }
            Self::ByAuthor => write!(formatter, "the patch author asked to ignore it"),
            Self::Constructor => {
                write!(
                    formatter,
                    "tells a sanitizer or a coverage tool what there is, when the file's code is loaded"
                )
            }
            Self::Unused => write!(formatter, "new, and nothing that is replaced uses it"),
            Self::ForeignMark => write!(
                formatter,
                "a mark for another tool: nothing is called and nothing is left out because of it (update.h has macros \
                 for both)"
            ),
        }
    }
}

impl Serialize for IgnoredReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
