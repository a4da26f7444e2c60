//! Exported symbols of the kernel image.
//!
//! `struct kernel_symbol` with `CONFIG_HAVE_ARCH_PREL32_RELOCATIONS` is three signed 32-bit distances, each from
//! its own place: to the symbol, to its name, to its namespace (`include/linux/export.h`). The CRC of the
//! entry stands at the same index in `__kcrctab`.

use std::collections::HashMap;

use crate::elf::{Elf, Malformed, Rule};

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

/// One table of exported symbols as it lies in memory: `__ksymtab` or `__ksymtab_gpl`.
#[derive(Debug, Clone, Copy)]
pub struct ExportTable<'a> {
    /// Where it starts, for errors: an offset in a file or an address.
    pub position: u64,
    /// The address that its entries count their distances from.
    pub address: u64,
    /// The entries.
    pub entries: &'a [u8],
    /// The CRCs beside them; empty without `CONFIG_MODVERSIONS`.
    pub crcs: &'a [u8],
}

/// Bytes with the names that tables refer to.
#[derive(Debug, Clone, Copy)]
pub struct ExportStrings<'a> {
    /// The address of the first byte.
    pub address: u64,
    /// The bytes.
    pub data: &'a [u8],
}

impl ExportTable<'_> {
    /// The addresses of all names and namespaces, in no useful order: what has to be in
    /// [`ExportStrings`].
    pub fn names(&self) -> impl Iterator<Item = u64> {
        let entries = self.entries.as_chunks::<ENTRY>().0.iter().enumerate();
        entries.flat_map(|(index, entry)| {
            let place = |at: usize| match distance(entry, at) {
                0 => None,
                distance => Some(self.target(index * ENTRY + at, distance)),
            };
            [place(4), place(8)].into_iter().flatten()
        })
    }

    /// The address `distance` bytes from `position` in the entries.
    fn target(&self, position: usize, distance: i32) -> u64 {
        self.address.wrapping_add(position as u64).wrapping_add_signed(i64::from(distance))
    }
}

/// Reads `__ksymtab` and `__ksymtab_gpl` of an image.
pub(super) fn read(elf: &Elf<'_>) -> Result<Exports, Malformed> {
    let Some(strings) = elf.section("__ksymtab_strings") else { return Ok(Exports::new()) };
    let strings = ExportStrings { address: strings.address, data: strings.data };
    let mut tables = Vec::new();
    for (table, crcs) in [("__ksymtab", "__kcrctab"), ("__ksymtab_gpl", "__kcrctab_gpl")] {
        let Some(table) = elf.section(table) else { continue };
        tables.push(ExportTable {
            position: table.offset,
            address: table.address,
            entries: table.data,
            crcs: elf.section(crcs).map_or(&[][..], |section| section.data),
        });
    }
    exports(&tables, strings)
}

/// The symbols in these tables.
///
/// # Errors
/// An entry of odd size, or a name that is not in `strings`.
pub fn exports(tables: &[ExportTable<'_>], strings: ExportStrings<'_>) -> Result<Exports, Malformed> {
    let mut exports = Exports::new();
    for table in tables {
        let (entries, rest) = table.entries.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            let found = format!("{} bytes of exported symbols", table.entries.len());
            return Err(Malformed::new(table.position, Rule::EntrySize, found));
        }
        let crcs = table.crcs.as_chunks::<4>().0;
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
    table: &ExportTable<'_>,
    position: usize,
    distance: i32,
    strings: ExportStrings<'data>,
) -> Result<&'data str, Malformed> {
    let target = table.target(position, distance);
    let start = usize::try_from(target.wrapping_sub(strings.address)).ok();
    let tail = start.and_then(|start| strings.data.get(start..)).unwrap_or_default();
    let name = memchr::memchr(0, tail).and_then(|length| std::str::from_utf8(&tail[..length]).ok());
    name.ok_or_else(|| {
        let offset = table.position + position as u64;
        Malformed::new(offset, Rule::ExportName, format!("address {target:#x}"))
    })
}
