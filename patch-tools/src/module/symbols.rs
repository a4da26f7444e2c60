//! The module's own name, and the symbols it needs from elsewhere with their CRCs.

use std::collections::HashMap;

use object::elf::STB_WEAK;
use serde::{Serialize, Serializer};

use crate::elf::{Elf, Malformed, Place, Rule};

/// `struct modversion_info`: the CRC in 8 bytes, the name in 56 (`include/linux/module.h`).
const VERSION_ENTRY: usize = 64;

/// Where `name` stands in `struct module`: after the state (4 bytes, padded to 8) and a `list_head` (16).
const MODULE_NAME: std::ops::Range<usize> = 24..80;

/// A symbol that the loader looks up among the exported ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Import {
    /// Its name.
    pub name: String,
    /// The CRC of its prototype that the module was built against; in JSON as hex text.
    #[serde(serialize_with = "hex_crc")]
    pub crc: Option<u32>,
    /// How the loader takes its absence.
    pub need: Need,
}

/// What happens when nothing exports the symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// The module does not load.
    Required,
    /// A weak reference: the address is zero.
    Optional,
    /// Not referenced: `module_layout` stands in `__versions` to pin the layout of `struct module`.
    Layout,
}

fn hex_crc<S: Serializer>(crc: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    crc.map(|crc| format!("{crc:#010x}")).serialize(serializer)
}

/// The name in the module's own `struct module`.
pub(super) fn module_name(elf: &Elf<'_>) -> Result<Option<String>, Malformed> {
    let Some(section) = elf.section(".gnu.linkonce.this_module") else { return Ok(None) };
    let Some(field) = section.data.get(MODULE_NAME) else {
        let found = format!("{} bytes of struct module", section.data.len());
        return Err(Malformed::new(section.offset, Rule::NameText, found));
    };
    let offset = section.offset + MODULE_NAME.start as u64;
    let length = memchr::memchr(0, field).ok_or_else(|| {
        Malformed::new(offset, Rule::NameText, format!("{} bytes without an end", field.len()))
    })?;
    match std::str::from_utf8(&field[..length]) {
        Ok(name) => Ok(Some(name.to_owned())),
        Err(error) => Err(Malformed::new(offset, Rule::NameText, error.to_string())),
    }
}

/// Undefined symbols in the order of the symbol table, then `module_layout`.
pub(super) fn imports(elf: &Elf<'_>) -> Result<Vec<Import>, Malformed> {
    let crcs = versions(elf)?;
    let mut imports: Vec<Import> = elf
        .symbols()
        .iter()
        .filter(|symbol| symbol.place == Place::Undefined && !symbol.name.is_empty())
        .map(|symbol| Import {
            name: symbol.name.to_owned(),
            crc: crcs.get(symbol.name).copied(),
            need: if symbol.binding == STB_WEAK { Need::Optional } else { Need::Required },
        })
        .collect();
    if let Some(crc) = crcs.get("module_layout") {
        imports.push(Import { name: "module_layout".to_owned(), crc: Some(*crc), need: Need::Layout });
    }
    Ok(imports)
}

/// `__versions`, and the pair of sections that Linux 6.14 adds for long names.
fn versions<'data>(elf: &Elf<'data>) -> Result<HashMap<&'data str, u32>, Malformed> {
    let mut crcs = HashMap::new();
    if let Some(section) = elf.section("__versions") {
        let (entries, rest) = section.data.as_chunks::<VERSION_ENTRY>();
        if !rest.is_empty() {
            let found = format!("{} bytes in __versions", section.data.len());
            return Err(Malformed::new(section.offset, Rule::EntrySize, found));
        }
        for (index, entry) in entries.iter().enumerate() {
            let offset = section.offset + (index * VERSION_ENTRY) as u64;
            let (crc, name) = entry.split_at(8);
            let crc = u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]);
            crcs.entry(text(name, offset + 8)?).or_insert(crc);
        }
    }
    if let (Some(numbers), Some(names)) =
        (elf.section("__version_ext_crcs"), elf.section("__version_ext_names"))
    {
        let mut position = 0;
        for crc in numbers.data.as_chunks::<4>().0 {
            let tail = names.data.get(position..).unwrap_or_default();
            let name = text(tail, names.offset + position.min(names.data.len()) as u64)?;
            position += name.len() + 1;
            crcs.entry(name).or_insert(u32::from_le_bytes(*crc));
        }
    }
    Ok(crcs)
}

fn text(bytes: &[u8], offset: u64) -> Result<&str, Malformed> {
    let length = memchr::memchr(0, bytes).ok_or_else(|| {
        Malformed::new(offset, Rule::NameText, format!("{} bytes without an end", bytes.len()))
    })?;
    std::str::from_utf8(&bytes[..length])
        .map_err(|error| Malformed::new(offset, Rule::NameText, error.to_string()))
}
