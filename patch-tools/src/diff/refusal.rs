//! Why a change cannot become a livepatch: one variant for each rule, with a stable identifier.

use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// One reason against the change, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The symbol or section.
    pub subject: Subject,
    /// The rule that it breaks.
    pub reason: Refusal,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A function or data object.
    Symbol(String),
    /// A section without a symbol that would name the place.
    Section(String),
    /// The file as a whole.
    File,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident $({$($field:ident : $type:ty),*})? = $id:literal: $text:literal,)*) => {
        /// The rule that a change breaks. [`Refusal::id`] is stable: scripts may rely on it.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* $name $({$(#[allow(missing_docs, reason = "the sentence names it")] $field: $type),*})?,)*
        }

        impl Refusal {
            /// The stable identifier, in kebab case.
            pub fn id(&self) -> &'static str {
                match self { $(Self::$name { .. } => $id,)* }
            }
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name $({$($field),*})? => write!(formatter, $text),)* }
            }
        }
    };
}

refusals! {
    /// The two files were not made by the same compiler run options.
    HeaderMismatch { field: &'static str, orig: String, patched: String } = "header-mismatch":
        "ELF header differs in {field}: {orig} in the original, {patched} in the patched object",
    /// Only compiled C carries what the comparison relies on.
    NotCompiled = "not-compiled":
        "not compiled from C (no compiler mark): assembler files cannot be patched function by function",
    /// `-fno-common` was not given.
    TentativeDefinition = "tentative-definition":
        "the patch brings in a common symbol, for which the module loader has no place: compile with -fno-common",
    /// Type, flags or alignment of a section changed.
    SectionHeader { field: &'static str, orig: u64, patched: u64 } = "section-header":
        "section {field} changed from {orig:#x} to {patched:#x}",
    /// Contents of live data cannot be changed behind its users.
    DataChanged { offset: u64 } = "data-changed":
        "contents of existing data differ at offset {offset:#x}; live data is not changed by a livepatch \
         (set it in a callback, or use a shadow variable)",
    /// The running kernel holds the old size.
    DataResized { orig: u64, patched: u64 } = "data-resized":
        "existing data changed its size from {orig} to {patched} bytes; use a shadow variable",
    /// It moved between initialised, zeroed, read-only or per-CPU data.
    DataMoved { orig: String, patched: String } = "data-moved":
        "existing data moved from section {orig} to {patched}",
    /// A data object gave way to a new one: its live value would be lost.
    DataRenamed { patched: String } = "data-renamed":
        "data seems to give way to {patched}, which would start without the live value",
    /// A static local that a function used has no counterpart.
    StaticLocalVanished { function: String } = "static-local-vanished":
        "static local used by {function} has no counterpart in the patched object",
    /// Several static locals of one name could stand for one another.
    StaticLocalAmbiguous { function: String } = "static-local-ambiguous":
        "several static locals of this name in {function}; which is which cannot be told",
    /// An alias became a function of its own, or the reverse, or the name stands twice.
    NameMoved = "name-moved":
        "the name stands for something else in the patched object; whoever uses it in the running kernel would \
         not notice",
    /// A livepatch would get a copy of its own of data that the running kernel shares.
    UnnamedData { function: String } = "unnamed-data":
        "{function} refers to variables without a symbol; the running ones cannot be reached",
    /// Data that only its section names.
    UnnamedDataChanged = "unnamed-data-changed":
        "data without a symbol, to which nothing in the file refers, changed: whoever reads it in the running \
         kernel would not notice",
    /// An address that ftrace does not redirect.
    PointsInside { function: String } = "points-inside":
        "{function} is replaced, and this keeps an address inside of it, behind its start: whoever uses that goes on \
         into the old one",
    /// Initialisation code has run and is freed; exit code may not be there at all.
    InitChanged { section: String } = "init-changed":
        "code or data in {section} changed, which is used only when the kernel boots or the module is loaded or \
         unloaded: a livepatch does not reach it",
    /// A linker-built table cannot grow or change in a running kernel.
    TableChanged = "table-changed":
        "a table that the kernel reads when it boots or loads the module changed",
    /// Code without a symbol, such as file-level assembler.
    UnnamedCode = "unnamed-code": "code without a symbol changed",
    /// ftrace cannot redirect it.
    NoFentry { section: String } = "no-fentry":
        "changed function in {section} has no fentry call (notrace): it cannot be redirected",
    /// An exported symbol is gone.
    ExportRemoved = "export-removed": "symbol is no longer exported",
    /// Licence or namespace of an export changed.
    ExportChanged = "export-changed": "the export of this symbol changed",
    /// Modules built for this kernel would no longer load.
    CrcChanged { orig: u64, patched: u64 } = "crc-changed":
        "CRC of the exported symbol changed from {orig:#010x} to {patched:#010x}: its type changed",
    /// The key is only resolved when the module loads, too late for the jump label code.
    JumpLabelInModule { function: String } = "jump-label-in-module":
        "{function} has a jump label on this key, which is defined in a module; use static_key_enabled()",
    /// As for jump labels.
    StaticCallInModule { function: String } = "static-call-in-module":
        "{function} has a static call through this key, which is defined in a module",
    /// Alternatives are applied when the livepatch module loads, before the address is known.
    AlternativeInModule = "alternative-in-module":
        "code that an alternative puts in place refers to it, and it is in a module: its address is filled in only \
         after alternatives were applied",
    /// The symbol table does not have it.
    SymbolNotFound { object: String } = "symbol-not-found":
        "{object} has no such symbol: the compiled original is not what runs there",
    /// The patch uses it and nothing defines it.
    Undefined = "undefined":
        "the patch refers to it, and neither the kernel nor the patch defines it: is another file of the fix missing?",
    /// It has it, but with another size or scope.
    SymbolDiffers { object: String, size: u64 } = "symbol-differs":
        "{object} has this name, but no such symbol that could be {size} bytes large: the compiled original is \
         not what runs there",
    /// It has it, but out of the file's reach.
    NotReachable { object: String } = "not-reachable":
        "another file has to define it, and {object} has this name only as a symbol of one file's own, or as data \
         where code is called: it is something else",
    /// It has it more than once and nothing tells which one is meant.
    SymbolAmbiguous { object: String, candidates: usize } = "symbol-ambiguous":
        "{object} has {candidates} symbols of this name and nothing tells which one is meant",
    /// A strong definition elsewhere took the place of this weak one.
    WeakOverridden = "weak-overridden":
        "weak function is overridden elsewhere in the kernel: the changed one never runs",
    /// A module can reach only what the kernel exports.
    NotExported = "not-exported":
        "no object that the patch can reach defines or exports this symbol",
    /// The module would no longer load by itself.
    NewDependency { owner: String } = "new-dependency":
        "exported by {owner}, which the patched module does not need so far: where {owner} is not loaded, the \
         livepatch would keep the module from being loaded",
    /// A livepatch must not keep pointers into freed memory.
    ReferenceToInit { function: String } = "reference-to-init":
        "{function} refers to initialisation code or data, which is freed",
    /// An offset into shared data that could mean the end of one object or the start of the next.
    ReferenceAmbiguous { function: String } = "reference-ambiguous":
        "{function} refers to the end of one object or the start of the next; which cannot be told",
    /// A number that the kernel writes into its code when it boots.
    RuntimeConstant { function: String } = "runtime-constant":
        "{function} shifts by a number that the kernel writes into its own code when it boots, and into no module's",
    /// A table of the compiler or of objtool has an unknown shape.
    SpecialSection { detail: String } = "special-section": "unknown layout: {detail}",
    /// The relocation has no meaning in a kernel module.
    UnsupportedRelocation { kind: u32, offset: u64 } = "unsupported-relocation":
        "relocation of type {kind} at {offset:#x} cannot be used in a module",
    /// New contents in a section that has no place in a livepatch module.
    UnsupportedSection = "unsupported-section": "new contents in a section that a livepatch cannot carry",
}

impl Serialize for Refused {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Refused", 3)?;
        match &self.subject {
            Subject::Symbol(name) => fields.serialize_field("symbol", name)?,
            Subject::Section(name) => fields.serialize_field("section", name)?,
            Subject::File => fields.serialize_field("section", "")?,
        }
        fields.serialize_field("rule", self.reason.id())?;
        fields.serialize_field("reason", &self.reason.to_string())?;
        fields.end()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Symbol(name) => write!(formatter, "{name}: {}", self.reason),
            Subject::Section(name) => write!(formatter, "section {name}: {}", self.reason),
            Subject::File => write!(formatter, "{}", self.reason),
        }
    }
}

/// The same refusals, each once.
pub(crate) fn without_repetition(refused: Vec<Refused>) -> Vec<Refused> {
    let mut seen = std::collections::HashSet::new();
    refused.into_iter().filter(|one| seen.insert(one.to_string())).collect()
}
