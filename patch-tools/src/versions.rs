//! What is known of versions of the kernel instead of being read from the kernel at hand: the one place for it.
//!
//! | what differs between versions | how the version at hand is told |
//! |---|---|
//! | size of an entry in a table of places in code | [`TABLES`] has those that occur; the relocations tell which |
//! | `struct klp_patch`, `klp_object`, `klp_func`; `struct module` | compiled against that kernel's headers for a build, BTF for a module that is given; [`KLP_SIZES`] where there is neither |
//! | tables of exports, CRCs, namespaces | the sections that the image and the objects have |
//! | CRCs in modules | `CONFIG_MODVERSIONS`, `CONFIG_BASIC_MODVERSIONS`, `CONFIG_EXTENDED_MODVERSIONS` |
//! | what of a configuration is not known here | [`UNKNOWN`], refused by name |
//! | order of the tables of kallsyms | each order is tried, the one that holds together counts (`image/locate.rs`) |
//! | how the image is compressed | its first bytes (`image/container.rs`) |
//! | ftrace's own records | [`FTRACE_PAGE`], [`FTRACE_RECORD`]; checked against the number of records that the kernel says it has |
//! | which packages hold image, modules and headers | `build/debian.rs` and `build/packages.rs` |
//! | helpers that get a line number, and as which argument | `diff/lines.rs`, all versions at once |
//!
//! A table whose entries have none of the sizes here is refused with its section and what was found
//! (`special-section`), an order of kallsyms that none of the known ones fits, too.

/// Tables that the kernel reads when it loads a module.
pub(crate) struct Table {
    /// The section.
    pub(crate) section: &'static str,
    /// Bytes of an entry on x86-64, padding included; of several the first that fits.
    pub(crate) sizes: &'static [u64],
    /// Whether an entry begins with the address of code that it is about.
    pub(crate) of_code: bool,
    /// What an entry is, and where that is defined; from which version on it has which size.
    pub(crate) source: &'static str,
}

macro_rules! tables {
    ($($section:literal $sizes:tt $of_code:literal $source:literal)*) => {
        /// Tables by section, from Linux 3.10 to 7.3.
        pub(crate) const TABLES: &[Table] = &[$(Table {
            section: $section,
            sizes: &$sizes,
            of_code: $of_code,
            source: $source,
        },)*];
    };
}

tables! {
    "__bug_table" [12, 8, 16] true
        "struct bug_entry, include/asm-generic/bug.h: 8 without CONFIG_DEBUG_BUGVERBOSE, 16 with a format (7.0)"
    "__ex_table" [12, 8] true
        "struct exception_table_entry, arch/x86/include/asm/extable.h: 8 before 4.6, which adds a handler (5.17: a type)"
    "__jump_table" [16, 24] true
        "struct jump_entry, include/linux/jump_label.h: three addresses before 4.19, since then two offsets and one"
    ".altinstructions" [12, 14, 13] true
        "struct alt_instr, arch/x86/include/asm/alternative.h: 13 from 4.1 on (padlen), 12 from 5.19, 14 from 6.3 (flags)"
    ".parainstructions" [16] true "struct paravirt_patch_site, arch/x86/include/asm/paravirt_types.h; gone in 6.8"
    ".smp_locks" [4] true "LOCK_PREFIX_HERE, arch/x86/include/asm/alternative.h"
    ".static_call_sites" [8] true "struct static_call_site, include/linux/static_call_types.h; since 5.10"
    ".call_sites" [4] true "objtool, tools/objtool/check.c (create_direct_call_sections); since 6.2"
    ".retpoline_sites" [4] true "objtool, tools/objtool/check.c (create_retpoline_sites_sections); since 5.16"
    ".return_sites" [4] true "objtool, tools/objtool/check.c (create_return_sites_sections); since 5.19"
    ".ibt_endbr_seal" [4] true "objtool, tools/objtool/check.c (create_ibt_endbr_seal_sections); since 5.18"
    ".cfi_sites" [4] true "objtool, tools/objtool/check.c (create_cfi_sections); since 6.2"
    ".kcfi_traps" [4] true "arch/x86/include/asm/cfi.h and clang; since 6.1"
    ".orc_unwind" [6] true "struct orc_entry, arch/x86/include/asm/orc_types.h; since 4.14"
    ".orc_unwind_ip" [4] true "objtool, tools/objtool/orc_gen.c; since 4.14"
    "runtime_ptr_" [4] true "arch/x86/include/asm/runtime-const.h, a section for each variable; since 6.11"
    "runtime_shift_" [4] true "arch/x86/include/asm/runtime-const.h"
    ".printk_index" [8] false "struct pi_entry *, include/linux/printk.h; since 5.15"
    "__mcount_loc" [8] true "addresses; scripts/recordmcount.h, objtool, or -mrecord-mcount"
    "__patchable_function_entries" [8] true "addresses; -fpatchable-function-entry"
    "__tracepoints_ptrs" [4, 8] false "tracepoint_ptr_t, include/linux/tracepoint-defs.h: addresses before 4.19"
    "_ftrace_events" [8] false "struct trace_event_call *, include/trace/trace_events.h"
    "__bpf_raw_tp_map" [32] false "struct bpf_raw_event_map, include/linux/trace_events.h; since 4.17"
    "__param" [40] false "struct kernel_param, include/linux/moduleparam.h"
    "__ksymtab" [12, 16, 8] false
        "struct kernel_symbol, include/linux/export.h: 16 as addresses, 8 as offsets (4.19), 12 with a namespace (5.4)"
    "__ksymtab_gpl" [12, 16, 8] false "struct kernel_symbol; gone in 7.0"
    "__kflagstab" [1] false "flags of exports, include/linux/export-internal.h; since 7.0"
    "__versions" [64] false "struct modversion_info, include/linux/module.h"
    "__version_ext_crcs" [4] false "include/linux/module.h, CONFIG_EXTENDED_MODVERSIONS; since 6.14"
}

/// The entry sizes of a table; none if it is not known.
pub(crate) fn table(section: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.section == section)
}

/// Settings with which kernels are made in a way that is not known here. None of the supported distributions has one.
pub(crate) const UNKNOWN: [(&str, &str); 4] = [
    ("CONFIG_GENDWARFKSYMS", "the CRCs of exported symbols are made from debug data"),
    ("CONFIG_RANDSTRUCT", "structures have an order that depends on a secret"),
    ("CONFIG_GCC_PLUGIN_STACKLEAK", "a plug-in of the compiler changes all code"),
    ("CONFIG_GCC_PLUGIN_LATENT_ENTROPY", "a plug-in of the compiler changes all code"),
];

/// Bytes of `struct klp_object`, `klp_func` and `klp_state` (`include/linux/livepatch.h`) from 5.10 on, without
/// `CONFIG_DEBUG_KOBJECT_RELEASE`, as BTF shows for Debian's 6.1.
pub(crate) const KLP_SIZES: [u64; 3] = [168, 152, 24];

/// `KSYM_NAME_LEN` of 6.1 and later, the ending zero included (`include/linux/kallsyms.h`); 128 before.
pub(crate) const LONGEST_NAME: usize = 512;

/// `struct ftrace_page`: next, records, number of records, order (`kernel/trace/ftrace.c`, since 5.13).
pub(crate) const FTRACE_PAGE: usize = 24;

/// `struct dyn_ftrace` on x86-64: address and flags (`include/linux/ftrace.h`).
pub(crate) const FTRACE_RECORD: usize = 16;

/// The smallest `struct ratelimit_state` (`include/linux/ratelimit_types.h`) of any kernel.
pub(crate) const RATELIMIT: u64 = 32;

/// `struct lock_class_key` (`include/linux/lockdep_types.h`): without lock debugging, and with it before and since 5.1.
pub(crate) const LOCK_CLASS: [u64; 3] = [0, 8, 16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_stands_once_and_names_its_source() {
        for (index, table) in TABLES.iter().enumerate() {
            let first = TABLES.iter().position(|other| other.section == table.section);
            assert_eq!(first, Some(index), "{} stands twice", table.section);
            assert!(!table.sizes.is_empty() && table.source.len() > 9, "{}", table.section);
        }
    }
}
