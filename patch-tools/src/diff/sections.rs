//! What a section is for, told by its name and flags.
//!
//! Only the kernel's own conventions decide here (`include/asm-generic/vmlinux.lds.h`, the assembler macros
//! of the architecture, and what objtool adds). A section that no rule knows counts as [`Class::Table`]:
//! something that the kernel reads as a whole, which a livepatch must leave alone.

use object::elf::{SHF_MERGE, SHF_STRINGS, SHT_NOTE, SHT_RELA};

use super::report::CallbackKind;
use crate::elf::Section;
use crate::versions::{Table, table};

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Not loaded, or read by build tools only.
    Skip,
    /// Functions.
    Text,
    /// Variables and constants.
    Data,
    /// Zero-terminated strings that the linker may merge.
    Strings,
    /// Constants of one size that the linker may merge.
    Constants,
    /// Entries that belong to functions.
    Special(Special),
    /// Code that alternatives put in place of a function's instructions.
    Replacement,
    /// Code out of line that belongs to functions: what they jump to before alternatives are applied, where faults
    /// continue in older kernels, and how a reference count that overflows was told from 4.13 to 5.4.
    Auxiliary,
    /// `EXPORT_SYMBOL`.
    Export,
    /// `MODULE_*` text.
    ModuleText,
    /// A table that the kernel reads when it boots or loads the module.
    Table,
    /// A patch author's instruction.
    Author(Author),
    /// A patch author's instruction to another tool.
    Foreign,
}

/// A patch author's instruction, given by a pointer to a function, or a name, in a section of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// Call it around patching.
    Callback(CallbackKind),
    /// Replace it although it looks the same.
    Force,
    /// Leave it alone although it differs.
    Ignore,
    /// A type may have another layout; not about functions.
    Layout,
}

/// A table with one entry for each place in a function that needs the kernel's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Special {
    BugTable,
    ExTable,
    JumpTable,
    SmpLocks,
    ParaInstructions,
    AltInstructions,
    StaticCallSites,
    CallSites,
    RetpolineSites,
    ReturnSites,
    PrintkIndex,
    OrcUnwind,
    OrcUnwindIp,
    McountLoc,
    PatchableEntries,
    IbtSeal,
    CfiSites,
    CfiTraps,
    RuntimePointer,
    RuntimeShift,
}

impl Special {
    /// All of them, `OrcUnwindIp` before `OrcUnwind` because it decides for both.
    pub(crate) const ALL: [Self; 20] = [
        Self::BugTable,
        Self::ExTable,
        Self::JumpTable,
        Self::SmpLocks,
        Self::ParaInstructions,
        Self::AltInstructions,
        Self::StaticCallSites,
        Self::CallSites,
        Self::RetpolineSites,
        Self::ReturnSites,
        Self::PrintkIndex,
        Self::OrcUnwindIp,
        Self::OrcUnwind,
        Self::McountLoc,
        Self::PatchableEntries,
        Self::IbtSeal,
        Self::CfiSites,
        Self::CfiTraps,
        Self::RuntimePointer,
        Self::RuntimeShift,
    ];

    /// Its section, or how those begin that are named after a variable.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::BugTable => "__bug_table",
            Self::ExTable => "__ex_table",
            Self::JumpTable => "__jump_table",
            Self::SmpLocks => ".smp_locks",
            Self::ParaInstructions => ".parainstructions",
            Self::AltInstructions => ".altinstructions",
            Self::StaticCallSites => ".static_call_sites",
            Self::CallSites => ".call_sites",
            Self::RetpolineSites => ".retpoline_sites",
            Self::ReturnSites => ".return_sites",
            Self::PrintkIndex => ".printk_index",
            Self::OrcUnwind => ".orc_unwind",
            Self::OrcUnwindIp => ".orc_unwind_ip",
            Self::McountLoc => "__mcount_loc",
            Self::PatchableEntries => "__patchable_function_entries",
            Self::IbtSeal => ".ibt_endbr_seal",
            Self::CfiSites => ".cfi_sites",
            Self::CfiTraps => ".kcfi_traps",
            Self::RuntimePointer => "runtime_ptr_",
            Self::RuntimeShift => "runtime_shift_",
        }
    }

    /// The table that a section holds.
    fn of(section: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| match table {
            Self::RuntimePointer | Self::RuntimeShift => section.starts_with(table.section()),
            _ => section == table.section(),
        })
    }

    /// What is known of its entries: the sizes that occur, of which the relocations tell which it is.
    pub(crate) fn known(self) -> Option<&'static Table> {
        table(self.section())
    }
}

/// How the sections begin in which macros of kpatch, the kernel's klp-build, and Ksplice leave their marks.
const FOREIGN: [&str; 4] = [".kpatch.", ".discard.klp_", ".livepatch.hooks", ".ksplice"];

impl Class {
    /// Tells by name, type and flags.
    pub(crate) fn of(section: &Section<'_>) -> Self {
        let name = section.name;
        if let Some(what) = name.strip_prefix(".update.") {
            return author(what).map_or(Self::Table, Self::Author);
        }
        if FOREIGN.iter().any(|start| name.starts_with(start)) {
            return if section.kind == SHT_RELA { Self::Skip } else { Self::Foreign };
        }
        if !section.is_allocated() || section.kind == SHT_NOTE {
            return Self::Skip;
        }
        // Frames for debuggers: no kernel module's are read.
        let unread = [".discard", ".eh_frame", ".sframe"].iter().any(|base| is_or_below(name, base));
        if unread || name.starts_with(".note") || name == ".orc_header" {
            return Self::Skip;
        }
        if let Some(special) = Special::of(name) {
            return Self::Special(special);
        }
        match name {
            ".altinstr_replacement" => return Self::Replacement,
            ".altinstr_aux" | ".fixup" | ".text..refcount" => return Self::Auxiliary,
            ".modinfo" => return Self::ModuleText,
            "__ksymtab_strings" => return Self::Strings,
            _ => {}
        }
        // 7.0 has no tables of CRCs any more, and flags instead of a table of its own for GPL exports.
        let export = ["___ksymtab", "__ksymtab", "___kcrctab", "__kcrctab", "___kflagstab", "__kflagstab"];
        if name == EXPORT_MARKS || export.iter().any(|start| name.starts_with(start)) {
            return Self::Export;
        }
        if section.is_executable() {
            return Self::Text;
        }
        if section.flags & u64::from(SHF_MERGE) != 0 {
            let strings = section.flags & u64::from(SHF_STRINGS) != 0;
            return if strings { Self::Strings } else { Self::Constants };
        }
        // pr_debug descriptors are variables of their functions, although the kernel also lists them.
        let variables = [".data", ".bss", ".rodata", ".ref.data"];
        let is_variable = variables.iter().any(|base| is_or_below(name, base)) || holds_descriptors(name);
        if is_variable { Self::Data } else { Self::Table }
    }
}

fn author(what: &str) -> Option<Author> {
    match what {
        "force" => Some(Author::Force),
        "ignore" => Some(Author::Ignore),
        "layout" => Some(Author::Layout),
        _ => {
            let slot = what.strip_prefix("callbacks.")?;
            CallbackKind::ALL.into_iter().find(|kind| kind.name() == slot).map(Author::Callback)
        }
    }
}

/// What `EXPORT_SYMBOL` leaves for modpost from 6.5 on, which makes the tables of it: a label for each export, its
/// licence, its namespace, and a pointer to what is exported.
pub(crate) const EXPORT_MARKS: &str = ".export_symbol";

/// Whether a section holds the descriptors of `pr_debug`: `__verbose` before 5.9.
pub(crate) fn holds_descriptors(name: &str) -> bool {
    ["__dyndbg", "__verbose"].iter().any(|base| is_or_below(name, base))
}

/// Whether `name` is `base` or continues it after a dot.
pub(crate) fn is_or_below(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether GCC has named a section for the places and types that UBSAN reports; they change with every line.
pub(crate) fn is_diagnostic(name: &str) -> bool {
    name.contains(".Lubsan_")
}

/// Whether the kernel frees this section after boot, or drops it when it is linked.
pub(crate) fn is_freed(name: &str) -> bool {
    [".init", ".exit", ".meminit", ".memexit", ".head"].iter().any(|base| is_or_below(name, base))
        || name.ends_with(".init")
}

/// The section that `-ffunction-sections` or `-fdata-sections` split this one off: `.text.unlikely` for
/// `.text.unlikely.foo`, but `.data..read_mostly` for itself, since the kernel named that one.
pub(crate) fn base(name: &str) -> &str {
    const BASES: [&str; 10] = [
        ".text.unlikely",
        ".text.hot",
        ".text.startup",
        ".text.exit",
        ".text",
        ".data.rel.ro",
        ".data.rel",
        ".data",
        ".rodata",
        ".bss",
    ];
    BASES
        .into_iter()
        .find(|base| {
            name.strip_prefix(base).is_some_and(|rest| {
                rest.is_empty() || (rest.starts_with('.') && !rest.starts_with("..") && rest != ".once")
            })
        })
        .unwrap_or(name)
}
