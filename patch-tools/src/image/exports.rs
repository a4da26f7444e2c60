//! Exported symbols of the kernel image.
//!
//! `struct kernel_symbol` with `CONFIG_HAVE_ARCH_PREL32_RELOCATIONS` is three signed 32-bit distances, each from
//! its own place: to the symbol, to its name, to its namespace (`include/linux/export.h`). The CRC of the
//! entry stands at the same index in `__kcrctab`.

use std::collections::HashMap;

use crate::elf::{Elf, Malformed, Rule, Section};

const ENTRY: usize = 12;

/// An exported symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The CRC of its prototype, where the kernel has `CONFIG_MODVERSIONS`.
    pub crc: Option<u32>,
    /// The namespace that a user has to import.
    pub namespace: Option<String>,
}

/// Exported symbols by name.
pub type Exports = HashMap<String, Export>;

/// Reads `__ksymtab` and `__ksymtab_gpl`.
pub(super) fn read(elf: &Elf<'_>) -> Result<Exports, Malformed> {
    let mut exports = Exports::new();
    let Some(strings) = elf.section("__ksymtab_strings") else { return Ok(exports) };
    for (table, crcs) in [("__ksymtab", "__kcrctab"), ("__ksymtab_gpl", "__kcrctab_gpl")] {
        let Some(table) = elf.section(table) else { continue };
        let (entries, rest) = table.data.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            let found = format!("{} bytes in {}", table.data.len(), table.name);
            return Err(Malformed::new(table.offset, Rule::EntrySize, found));
        }
        let crcs = elf.section(crcs).map_or(&[][..], |section| section.data.as_chunks::<4>().0);
        exports.reserve(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let position = index * ENTRY;
            let name = text(table, position + 4, distance(entry, 4), strings)?;
            let namespace = match distance(entry, 8) {
                0 => "",
                distance => text(table, position + 8, distance, strings)?,
            };
            let export = Export {
                crc: crcs.get(index).map(|crc| u32::from_le_bytes(*crc)),
                namespace: Some(namespace).filter(|name| !name.is_empty()).map(str::to_owned),
            };
            exports.insert(name.to_owned(), export);
        }
    }
    Ok(exports)
}

fn distance(entry: &[u8; ENTRY], at: usize) -> i32 {
    i32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
}

/// The string `distance` bytes from `position` of the table.
fn text<'data>(
    table: &Section<'_>,
    position: usize,
    distance: i32,
    strings: &Section<'data>,
) -> Result<&'data str, Malformed> {
    let target = table.address.wrapping_add(position as u64).wrapping_add_signed(i64::from(distance));
    let start = usize::try_from(target.wrapping_sub(strings.address)).ok();
    let tail = start.and_then(|start| strings.data.get(start..)).unwrap_or_default();
    let name = memchr::memchr(0, tail).and_then(|length| std::str::from_utf8(&tail[..length]).ok());
    name.ok_or_else(|| {
        let offset = table.offset + position as u64;
        Malformed::new(offset, Rule::ExportName, format!("address {target:#x}"))
    })
}
