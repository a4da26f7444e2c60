//! What else a module carries: its build id, its size in memory, and the tables that the kernel applies to it.

use object::elf::{SHT_NOBITS, SHT_NOTE, SHT_RELA};
use serde::Serialize;

use crate::elf::entries::{Field, To, entry_size};
use crate::elf::{Elf, Malformed, Place, Rule, Section};
use crate::versions::TABLES;

/// `NT_GNU_BUILD_ID`.
const BUILD_ID: u32 = 3;

/// A table of the module that the kernel reads or patches by when it loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpecialSection {
    /// The section's name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Number of entries; `None` where no entry size that occurs fits.
    pub entries: Option<u64>,
}

/// Bytes by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sizes {
    /// The file, its signature included.
    pub file: u64,
    /// Code that stays in memory.
    pub text: u64,
    /// Data that stays in memory, writable or not.
    pub data: u64,
    /// Code and data that go after initialisation.
    pub init: u64,
    /// Debug data, which is not loaded.
    pub debug: u64,
}

pub(super) fn special(elf: &Elf<'_>) -> Result<Vec<SpecialSection>, Malformed> {
    let mut found = Vec::new();
    for table in TABLES {
        let Some(section) = elf.section(table.section).filter(|section| section.size > 0) else { continue };
        let entry = match table.sizes {
            [only] => Some(*only).filter(|only| section.size.is_multiple_of(*only)),
            sizes => entry_size(&fields(elf, section)?, section.size, sizes, table.of_code),
        };
        found.push(SpecialSection {
            name: table.section.to_owned(),
            size: section.size,
            entries: entry.map(|entry| section.size / entry),
        });
    }
    Ok(found)
}

fn fields(elf: &Elf<'_>, section: &Section<'_>) -> Result<Vec<Field>, Malformed> {
    let mut fields = Vec::new();
    let tables = elf.sections().iter().filter(|table| table.kind == SHT_RELA);
    for table in tables.filter(|table| table.info as usize == section.index) {
        fields.extend(elf.relocations(table)?.iter().map(|relocation| Field {
            offset: relocation.offset,
            kind: relocation.kind,
            to: match elf.symbols().get(relocation.symbol).map(|symbol| symbol.place) {
                Some(Place::Section(target)) => To::of(Some(&elf.sections()[target])),
                _ => To::Other,
            },
        }));
    }
    fields.sort_unstable_by_key(|field| field.offset);
    Ok(fields)
}

pub(super) fn sizes(elf: &Elf<'_>, file: usize) -> Sizes {
    let mut sizes = Sizes { file: file as u64, ..Sizes::default() };
    for section in elf.sections() {
        let in_file = section.kind != SHT_NOBITS;
        let slot = match section {
            // The loader leaves these out: struct module itself is counted as data.
            section if section.name.starts_with(".debug") && in_file => &mut sizes.debug,
            section if !section.is_allocated() || section.kind == SHT_RELA => continue,
            section if section.name.starts_with(".init") => &mut sizes.init,
            section if section.is_executable() => &mut sizes.text,
            _ => &mut sizes.data,
        };
        *slot = slot.saturating_add(section.size);
    }
    sizes
}

/// The GNU build id in hex.
pub(crate) fn build_id(elf: &Elf<'_>) -> Result<Option<String>, Malformed> {
    for section in elf.sections().iter().filter(|section| section.kind == SHT_NOTE) {
        if let Some(id) = build_id_in(section.data, section.offset)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The GNU build id among ELF notes such as those of `/sys/kernel/notes`, in hex; `None` if there is none, or the
/// notes are cut.
pub fn build_id_of_notes(notes: &[u8]) -> Option<String> {
    build_id_in(notes, 0).ok().flatten()
}

/// The GNU build id among the notes in `data`, which stands at `offset`.
///
/// A note is three 32-bit words (length of the name, length of the description, type), name and description,
/// each padded to four bytes.
pub(crate) fn build_id_in(data: &[u8], offset: u64) -> Result<Option<String>, Malformed> {
    let mut rest = data;
    while rest.len() >= 12 {
        let at = offset + (data.len() - rest.len()) as u64;
        let cut = || Malformed::new(at, Rule::Note, format!("{} bytes left", rest.len()));
        let word = |index: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| rest[index * 4 + byte]));
        let (name_size, description_size, kind) = (word(0) as usize, word(1) as usize, word(2));
        let name = rest.get(12..).and_then(|tail| tail.get(..name_size)).ok_or_else(cut)?;
        let start = 12 + name_size.next_multiple_of(4);
        let description = rest.get(start..).and_then(|tail| tail.get(..description_size)).ok_or_else(cut)?;
        if kind == BUILD_ID && name == b"GNU\0" {
            return Ok(Some(hex::encode(description)));
        }
        let end = start + description_size.next_multiple_of(4);
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(None)
}
