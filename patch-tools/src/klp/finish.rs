//! From a linked module to its final form.
//!
//! Everything else of the module stays as it is: sections in their order and with their bytes, symbols in
//! their order. Doing it twice is an error, not a silent no-op.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use object::elf::{
    ET_REL, SHF_ALLOC, SHN_LORESERVE, SHT_GROUP, SHT_NOBITS, SHT_RELA, SHT_STRTAB, SHT_SYMTAB,
    SHT_SYMTAB_SHNDX, STB_GLOBAL, STT_NOTYPE,
};

use super::names::{CALLBACK, KlpSymbol, NEW_FUNCTION};
use super::write::{Contents, NewPlace, NewRelocation, NewSection, NewSymbol, RelocationTable, count, write};
use crate::elf::{Elf, Malformed, Place, Rule};
use crate::module::{SHF_RELA_LIVEPATCH, SHN_LIVEPATCH};

/// Why a module cannot be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// The file breaks a rule.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has livepatch relocations already.
    #[error("section {0} is a livepatch section already: expected a module that is linked and not finished")]
    Finished(String),
    /// A section type that cannot be carried over.
    #[error("section {name} has type {kind}, which cannot be carried over")]
    SectionType {
        /// The section.
        name: String,
        /// Its type.
        kind: u32,
    },
    /// A placeholder does not stand for a function of the module.
    #[error("placeholder {0} stands for no symbol of the module")]
    Placeholder(String),
    /// More sections than the kernel's module loader can count.
    #[error(
        "the module has {0} sections: expected fewer than 65280, as the kernel's module loader has no more numbers"
    )]
    TooManySections(usize),
}

/// Moves relocations of livepatch symbols to `.klp.rela.*` sections, gives the symbols their final names,
/// and removes the placeholders of replaced functions.
///
/// `module` is what `ld -r` (and modpost, where it is used) made of emitted objects and the module's own
/// code; a signature is appended later.
pub fn finish(module: &[u8]) -> Result<Vec<u8>, FinishError> {
    let elf = Elf::parse(module)?;
    if elf.elf_type() != ET_REL {
        let found = format!("type {}, not a relocatable file", elf.elf_type());
        return Err(Malformed::new(16, Rule::ElfType, found).into());
    }
    let kept = kept_sections(&elf)?;
    let (symbols, indexes) = symbols(&elf, &kept)?;
    let mut sections = Vec::with_capacity(kept.len());
    let mut tables: HashMap<usize, Vec<usize>> = HashMap::new();
    for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
        tables.entry(table.info as usize).or_default().push(table.index);
    }
    let mut order: Vec<usize> = kept.keys().copied().collect();
    order.sort_unstable();
    for index in order {
        let section = &elf.sections()[index];
        let contents = if section.kind == SHT_NOBITS {
            Contents::Zeros(section.size)
        } else {
            Contents::Bytes(Cow::Borrowed(section.data))
        };
        let mut relocations = Vec::new();
        for &table in tables.get(&index).into_iter().flatten() {
            relocations.extend(split(&elf, index, table, &indexes)?);
        }
        sections.push(NewSection {
            name: Cow::Borrowed(section.name),
            kind: section.kind,
            flags: section.flags,
            alignment: section.alignment,
            entry_size: section.entry_size,
            link: kept.get(&(section.link as usize)).copied(),
            contents,
            tables: relocations,
        });
    }
    match count(&sections) {
        count if count >= usize::from(SHN_LORESERVE) => Err(FinishError::TooManySections(count)),
        _ => Ok(write(&sections, &symbols)),
    }
}

/// Sections that are carried over, with their place in the new list.
fn kept_sections(elf: &Elf<'_>) -> Result<HashMap<usize, usize>, FinishError> {
    let names = elf.name_table();
    let symbol_names: Vec<usize> =
        elf.sections().iter().filter(|s| s.kind == SHT_SYMTAB).map(|s| s.link as usize).collect();
    let mut kept = HashMap::new();
    for section in elf.sections().iter().skip(1) {
        if section.name.starts_with(".klp.rela.") {
            return Err(FinishError::Finished(section.name.to_owned()));
        }
        match section.kind {
            SHT_SYMTAB | SHT_SYMTAB_SHNDX | SHT_RELA => continue,
            SHT_STRTAB if section.index == names || symbol_names.contains(&section.index) => continue,
            SHT_GROUP | object::elf::SHT_REL => {
                let name = section.name.to_owned();
                return Err(FinishError::SectionType { name, kind: section.kind });
            }
            _ => {}
        }
        kept.insert(section.index, kept.len());
    }
    Ok(kept)
}

/// For each old symbol what became of it.
struct Moved {
    /// Index in the new list; `None` for the null symbol.
    index: Option<usize>,
    /// For a livepatch symbol what it stands for.
    klp: Option<KlpSymbol>,
}

type Symbols<'d> = (Vec<NewSymbol<'d>>, Vec<Moved>);

fn symbols<'d>(elf: &Elf<'d>, kept: &HashMap<usize, usize>) -> Result<Symbols<'d>, FinishError> {
    let mut new: Vec<NewSymbol<'d>> = Vec::new();
    let mut moved = Vec::with_capacity(elf.symbols().len());
    let mut finals: HashMap<String, usize> = HashMap::new();
    let is_placeholder = |name: &str| name.starts_with(NEW_FUNCTION) || name.starts_with(CALLBACK);
    let mut named: HashMap<(usize, u64), usize> = HashMap::new();
    for (index, symbol) in elf.symbols().iter().enumerate() {
        if index == 0 || is_placeholder(symbol.name) {
            moved.push(Moved { index: None, klp: None });
            continue;
        }
        let klp = match symbol.place {
            Place::Undefined => KlpSymbol::parse(symbol.name),
            _ => None,
        };
        if let Some(klp) = klp {
            let name = klp.symbol_name();
            let at = *finals.entry(name.clone()).or_insert_with(|| {
                new.push(NewSymbol {
                    name: Cow::Owned(name),
                    kind: STT_NOTYPE,
                    binding: STB_GLOBAL,
                    other: 0,
                    place: NewPlace::Reserved(SHN_LIVEPATCH),
                    value: 0,
                    size: 0,
                });
                new.len() - 1
            });
            moved.push(Moved { index: Some(at), klp: Some(klp) });
            continue;
        }
        let place = match symbol.place {
            Place::Undefined => NewPlace::Undefined,
            Place::Absolute => NewPlace::Absolute,
            Place::Reserved(reserved) => NewPlace::Reserved(reserved),
            Place::Section(section) => match kept.get(&section) {
                Some(&section) => NewPlace::Section(section),
                // The symbol of a section that is written anew.
                None => {
                    moved.push(Moved { index: None, klp: None });
                    continue;
                }
            },
        };
        if let Place::Section(section) = symbol.place
            && symbol.is_function()
        {
            named.entry((section, symbol.value)).or_insert(new.len());
        }
        moved.push(Moved { index: Some(new.len()), klp: None });
        new.push(NewSymbol {
            name: Cow::Borrowed(symbol.name),
            kind: symbol.kind,
            binding: symbol.binding,
            other: symbol.other,
            place,
            value: symbol.value,
            size: symbol.size,
        });
    }
    for (index, symbol) in elf.symbols().iter().enumerate() {
        if is_placeholder(symbol.name) {
            let target = match symbol.place {
                Place::Section(section) => named.get(&(section, symbol.value)),
                _ => None,
            };
            let target = target.ok_or_else(|| FinishError::Placeholder(symbol.name.to_owned()))?;
            moved[index].index = Some(*target);
        }
    }
    Ok((new, moved))
}

/// The relocations of one section, by the tables that they go to.
fn split<'d>(
    elf: &Elf<'d>,
    section: usize,
    table: usize,
    moved: &[Moved],
) -> Result<Vec<RelocationTable<'d>>, FinishError> {
    let old = &elf.sections()[table];
    let mut ordinary = Vec::new();
    let mut livepatch: BTreeMap<String, Vec<NewRelocation>> = BTreeMap::new();
    for relocation in elf.relocations(old)? {
        let to = &moved[relocation.symbol];
        let new = NewRelocation {
            offset: relocation.offset,
            kind: relocation.kind,
            symbol: to.index,
            addend: relocation.addend,
        };
        match &to.klp {
            None => ordinary.push(new),
            Some(klp) => {
                livepatch.entry(klp.section_name(elf.sections()[section].name)).or_default().push(new);
            }
        }
    }
    let mut tables = Vec::new();
    if !ordinary.is_empty() {
        tables.push(RelocationTable { name: Cow::Borrowed(old.name), flags: 0, entries: ordinary });
    }
    for (name, entries) in livepatch {
        let flags = SHF_RELA_LIVEPATCH | u64::from(SHF_ALLOC);
        tables.push(RelocationTable { name: Cow::Owned(name), flags, entries });
    }
    Ok(tables)
}
