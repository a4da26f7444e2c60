//! Where the kernel enters a module: the pointers in its own `struct module`.
//!
//! modpost fills two of its fields, `init` and `exit`, and the loader relocates them like any data. Their offsets
//! depend on the kernel's configuration, so every relocated pointer of the structure is listed.

use object::elf::{R_X86_64_64, SHT_RELA};
use serde::Serialize;

use crate::elf::{Elf, Malformed, Place, Relocation};

/// A relocated pointer in `.gnu.linkonce.this_module`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EntryPoint {
    /// Where it stands in `struct module`.
    pub offset: u64,
    /// What it leads to.
    pub target: EntryTarget,
}

/// What a pointer of `struct module` leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EntryTarget {
    /// The first byte of this function.
    Function(String),
    /// Anything else, in words.
    Elsewhere(String),
}

pub(super) fn read(elf: &Elf<'_>) -> Result<Vec<EntryPoint>, Malformed> {
    let Some(section) = elf.section(".gnu.linkonce.this_module") else { return Ok(Vec::new()) };
    let tables =
        elf.sections().iter().filter(|table| table.kind == SHT_RELA && table.info as usize == section.index);
    let mut found = Vec::new();
    for table in tables {
        for relocation in elf.relocations(table)? {
            found.push(EntryPoint { offset: relocation.offset, target: target(elf, &relocation) });
        }
    }
    found.sort_by_key(|entry| entry.offset);
    Ok(found)
}

/// Of several names of a function the one that modpost writes comes first.
fn target(elf: &Elf<'_>, relocation: &Relocation) -> EntryTarget {
    let elsewhere = |found: String| EntryTarget::Elsewhere(found);
    let Some(symbol) = elf.symbols().get(relocation.symbol) else { return elsewhere("no symbol".to_owned()) };
    if relocation.kind != R_X86_64_64 {
        return elsewhere(format!("{} by a relocation of type {}", symbol.name, relocation.kind));
    }
    let Place::Section(index) = symbol.place else {
        return elsewhere(format!("{}, which is not in the module", symbol.name));
    };
    let section = &elf.sections()[index];
    let offset = symbol.value.wrapping_add_signed(relocation.addend);
    let here = elf
        .symbols()
        .iter()
        .filter(|one| one.is_function() && one.place == symbol.place && one.value == offset && one.size > 0);
    match here.max_by_key(|one| matches!(one.name, "init_module" | "cleanup_module")) {
        Some(function) if section.is_executable() => EntryTarget::Function(function.name.to_owned()),
        _ => elsewhere(format!("{}+{offset:#x}, where no function starts", section.name)),
    }
}
