//! Livepatch relocations and symbols: what the livepatch core resolves, not the module loader.
//!
//! Format: `Documentation/livepatch/module-elf-format.rst`. Sections `.klp.rela.OBJECT.SECTION` with the flag
//! `SHF_RELA_LIVEPATCH`, symbols `.klp.sym.OBJECT.NAME,POSITION` with section index `SHN_LIVEPATCH`.

use object::elf::SHT_RELA;
use serde::Serialize;

use super::patch::ObjectName;
use crate::elf::{Elf, Malformed, Place, Rule};

pub(super) const SECTION_PREFIX: &str = ".klp.rela.";
const SYMBOL_PREFIX: &str = ".klp.sym.";

/// Section flag of livepatch relocations (`include/uapi/linux/elf.h`).
pub const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;
/// Section index of livepatch symbols (`include/uapi/linux/elf.h`).
pub const SHN_LIVEPATCH: u16 = 0xff20;

/// The kernel's `sscanf` limits: `%55[^.]` for objects, `%511[^,]` for names.
const MAX_OBJECT: usize = 55;
const MAX_NAME: usize = 511;
/// Each is reported with its symbol; a large livepatch has some thousand.
const MAX_RELOCATIONS: usize = 131_072;

/// A symbol to be found in kallsyms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct KlpSymbol {
    /// The object that defines it.
    pub object: ObjectName,
    /// Its name.
    pub name: String,
    /// Its position among the object's symbols of that name, from 1; 0 means that the name is unique.
    pub sympos: u64,
}

/// A relocation that is applied when its object is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KlpRelocation {
    /// The object whose presence it waits for, from the section's name.
    pub object: ObjectName,
    /// The section of the module that it changes.
    pub section: String,
    /// Offset in that section.
    pub offset: u64,
    /// `R_X86_64_*`.
    #[serde(rename = "type")]
    pub kind: u32,
    /// What is added to the symbol's address.
    pub addend: i64,
    /// The symbol; the kernel refuses one that is not a livepatch symbol.
    pub symbol: Option<KlpSymbol>,
}

/// Livepatch symbols with their index in the symbol table.
pub(super) fn symbols(elf: &Elf<'_>) -> Result<Vec<(usize, KlpSymbol)>, Malformed> {
    let mut found = Vec::new();
    for (index, symbol) in elf.symbols().iter().enumerate() {
        if symbol.place != Place::Reserved(SHN_LIVEPATCH) {
            continue;
        }
        let parsed = symbol_name(symbol.name).ok_or_else(|| {
            let found = format!("{:?} as symbol {index}", symbol.name);
            Malformed::new(symbol.entry_offset, Rule::KlpSymbol, found)
        })?;
        found.push((index, parsed));
    }
    Ok(found)
}

fn symbol_name(name: &str) -> Option<KlpSymbol> {
    let (object, rest) = name.strip_prefix(SYMBOL_PREFIX)?.split_once('.')?;
    let (name, position) = rest.split_once(',')?;
    let fits = (1..=MAX_OBJECT).contains(&object.len()) && (1..=MAX_NAME).contains(&name.len());
    let digits = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
    if !fits || !digits {
        return None;
    }
    Some(KlpSymbol { object: object_name(object), name: name.to_owned(), sympos: position.parse().ok()? })
}

fn object_name(name: &str) -> ObjectName {
    if name == "vmlinux" { ObjectName::Vmlinux } else { ObjectName::Module(name.to_owned()) }
}

/// All livepatch relocations in the order of the sections.
pub(super) fn relocations(
    elf: &Elf<'_>,
    symbols: &[(usize, KlpSymbol)],
) -> Result<Vec<KlpRelocation>, Malformed> {
    let mut found = Vec::new();
    // The kernel goes by the flag; a section that has only the name would be applied as an ordinary one.
    let marked =
        elf.sections().iter().filter(|one| one.kind == SHT_RELA && one.flags & SHF_RELA_LIVEPATCH != 0);
    for section in marked {
        let object = section
            .name
            .strip_prefix(SECTION_PREFIX)
            .and_then(|rest| rest.split_once('.'))
            .map(|(object, _)| object)
            .filter(|object| (1..=MAX_OBJECT).contains(&object.len()))
            .ok_or_else(|| Malformed::new(section.offset, Rule::KlpSection, format!("{:?}", section.name)))?;
        let relocations = elf.relocations(section)?;
        if found.len() + relocations.len() > MAX_RELOCATIONS {
            let count = format!("{} livepatch relocations", found.len() + relocations.len());
            return Err(Malformed::new(section.offset, Rule::KlpLimit, count));
        }
        let target = elf.sections()[section.info as usize].name;
        found.reserve(relocations.len());
        for relocation in relocations {
            let symbol = symbols.binary_search_by_key(&relocation.symbol, |(index, _)| *index);
            found.push(KlpRelocation {
                object: object_name(object),
                section: target.to_owned(),
                offset: relocation.offset,
                kind: relocation.kind,
                addend: relocation.addend,
                symbol: symbol.ok().map(|position| symbols[position].1.clone()),
            });
        }
    }
    Ok(found)
}
