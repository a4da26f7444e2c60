//! The data layout of a compiled unit, from its DWARF.
//!
//! Only structures, unions and enumerations with a name: what has none is part of one that has. Types that the
//! unit declares and does not use are not in the DWARF, and do not matter to its code. Format: DWARF 5, chapters 5
//! and 7; `gimli` reads it, this module applies the relocations that `.o` files still have.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use gimli::{
    AttributeValue, DebuggingInformationEntry, Dwarf, EndianSlice, EntriesTreeNode, LittleEndian, UnitOffset,
    constants as dw,
};
use object::elf::{R_X86_64_32, R_X86_64_32S, R_X86_64_64, SHT_RELA};

use crate::elf::{Elf, Malformed, Place};

/// Types that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    /// The object is malformed.
    #[error("the object with debug data cannot be read")]
    Object(#[from] Malformed),
    /// Its DWARF is.
    #[error("the debug data of the object cannot be read")]
    Dwarf(#[from] gimli::Error),
}

/// Anonymous types stand in each other; no one nests them this deep.
const MAX_DEPTH: usize = 24;

/// Named types of a unit, as `struct file`.
pub(in crate::build) type Types = BTreeMap<String, Layout>;

/// What code that was compiled against a type relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Layout {
    /// In bytes.
    pub(in crate::build) size: u64,
    /// By name. Members of anonymous members are members.
    pub(in crate::build) members: BTreeMap<String, Member>,
}

/// A member, or an enumerator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Member {
    /// Offset in bits; an enumerator's value.
    pub(in crate::build) place: i128,
    /// Its type as C would write it, with the width of a bit field.
    pub(in crate::build) type_name: String,
}

type Reader<'d> = EndianSlice<'d, LittleEndian>;
type Entry<'d> = DebuggingInformationEntry<Reader<'d>>;

/// Reads the types of an object that was compiled with debug data.
pub(in crate::build) fn read(object: &[u8]) -> Result<Types, TypesError> {
    let elf = Elf::parse(object)?;
    let mut sections: HashMap<&str, Cow<'_, [u8]>> = HashMap::new();
    for section in elf.sections().iter().filter(|section| section.name.starts_with(".debug_")) {
        sections.insert(section.name, Cow::Borrowed(section.data));
    }
    for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
        let target = elf.sections().get(table.info as usize).and_then(|target| sections.get_mut(target.name));
        if let Some(target) = target {
            relocate(&elf, table, target.to_mut())?;
        }
    }
    let dwarf: Dwarf<Reader<'_>> = Dwarf::load(|id| {
        let data = sections.get(id.name()).map_or(&[][..], |data| data);
        Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
    })?;
    let mut types = Types::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        Unit { dwarf: &dwarf, unit: &unit }.collect(&mut types)?;
    }
    Ok(types)
}

fn relocate(elf: &Elf<'_>, table: &crate::elf::Section<'_>, data: &mut [u8]) -> Result<(), Malformed> {
    for one in elf.relocations(table)? {
        let Some(symbol) = elf.symbols().get(one.symbol) else { continue };
        // Addresses of code mean nothing here.
        let value = if matches!(symbol.place, Place::Section(_)) { symbol.value } else { 0 };
        let value = value.wrapping_add_signed(one.addend).to_le_bytes();
        let width = match one.kind {
            R_X86_64_64 => 8,
            R_X86_64_32 | R_X86_64_32S => 4,
            _ => continue,
        };
        let at = one.offset as usize;
        if let Some(place) = data.get_mut(at..at + width) {
            place.copy_from_slice(&value[..width]);
        }
    }
    Ok(())
}

struct Unit<'u, 'd> {
    dwarf: &'u Dwarf<Reader<'d>>,
    unit: &'u gimli::Unit<Reader<'d>>,
}

impl<'d> Unit<'_, 'd> {
    fn collect(&self, types: &mut Types) -> Result<(), TypesError> {
        let mut entries = self.unit.entries();
        let mut found = Vec::new();
        while let Some(entry) = entries.next_dfs()? {
            if let (Some(kind), false) = (keyword(entry.tag()), is_declaration(entry))
                && let Some(name) = self.name(entry)?
            {
                found.push((format!("{kind} {name}"), entry.offset()));
            }
        }
        for (name, offset) in found {
            let layout = self.layout(offset)?;
            // Two of one name are of two scopes; the first is the file's.
            types.entry(name).or_insert(layout);
        }
        Ok(())
    }

    fn layout(&self, offset: UnitOffset) -> Result<Layout, TypesError> {
        let entry = self.unit.entry(offset)?;
        let size = number(&entry, dw::DW_AT_byte_size).unwrap_or_default();
        let mut members = BTreeMap::new();
        self.members(offset, 0, 0, &mut members)?;
        Ok(Layout { size, members })
    }

    /// Adds the members of the type at `offset`, which itself stands `base` bits into the outermost one.
    fn members(
        &self,
        offset: UnitOffset,
        base: i128,
        depth: usize,
        into: &mut BTreeMap<String, Member>,
    ) -> Result<(), TypesError> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let mut tree = self.unit.entries_tree(Some(offset))?;
        let mut children = EntriesTreeNode::children(tree.root()?);
        while let Some(child) = children.next()? {
            let entry = child.entry();
            match entry.tag() {
                dw::DW_TAG_enumerator => {
                    let Some(name) = self.name(entry)? else { continue };
                    let value = entry.attr_value(dw::DW_AT_const_value).and_then(signed).unwrap_or_default();
                    into.insert(name, Member { place: value, type_name: "enumerator".to_owned() });
                }
                dw::DW_TAG_member => {
                    let bytes = number(entry, dw::DW_AT_data_member_location).unwrap_or_default();
                    let bits = number(entry, dw::DW_AT_data_bit_offset).unwrap_or(bytes.saturating_mul(8));
                    let place = base + i128::from(bits);
                    let Some(target) = reference(entry) else { continue };
                    match self.name(entry)? {
                        None => self.members(target, place, depth + 1, into)?,
                        Some(name) => {
                            let mut type_name = self.describe(Some(target), depth + 1)?;
                            if let Some(width) = number(entry, dw::DW_AT_bit_size) {
                                type_name = format!("{type_name}:{width}");
                            }
                            into.insert(name, Member { place, type_name });
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A type as C would write it, more or less. What has no name is written out.
    fn describe(&self, offset: Option<UnitOffset>, depth: usize) -> Result<String, TypesError> {
        let Some(offset) = offset else { return Ok("void".to_owned()) };
        if depth > MAX_DEPTH {
            return Ok("…".to_owned());
        }
        let entry = self.unit.entry(offset)?;
        let name = self.name(&entry)?;
        let inner = || self.describe(reference(&entry), depth + 1);
        Ok(match entry.tag() {
            dw::DW_TAG_pointer_type => format!("{} *", inner()?),
            dw::DW_TAG_const_type => format!("const {}", inner()?),
            dw::DW_TAG_volatile_type => format!("volatile {}", inner()?),
            dw::DW_TAG_restrict_type | dw::DW_TAG_atomic_type => inner()?,
            dw::DW_TAG_array_type => format!("{}{}", inner()?, self.bounds(offset)?),
            dw::DW_TAG_subroutine_type => format!("{} ({})", inner()?, self.parameters(offset, depth)?),
            tag => match (keyword(tag), name) {
                (Some(kind), Some(name)) => format!("{kind} {name}"),
                (Some(kind), None) => {
                    let mut members = BTreeMap::new();
                    self.members(offset, 0, depth + 1, &mut members)?;
                    let members =
                        members.iter().map(|(name, one)| format!("{} {name}@{};", one.type_name, one.place));
                    let size = number(&entry, dw::DW_AT_byte_size).unwrap_or_default();
                    format!("{kind} {{ {} }}({size})", members.collect::<Vec<_>>().join(" "))
                }
                (None, Some(name)) => name,
                (None, None) => format!("{tag}"),
            },
        })
    }

    fn bounds(&self, offset: UnitOffset) -> Result<String, TypesError> {
        let mut text = String::new();
        let mut tree = self.unit.entries_tree(Some(offset))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            let count = number(entry, dw::DW_AT_count)
                .or_else(|| number(entry, dw::DW_AT_upper_bound).map(|last| last.wrapping_add(1)));
            text.push_str(&count.map_or("[]".to_owned(), |count| format!("[{count}]")));
        }
        Ok(text)
    }

    fn parameters(&self, offset: UnitOffset, depth: usize) -> Result<String, TypesError> {
        let mut list = Vec::new();
        let mut tree = self.unit.entries_tree(Some(offset))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            list.push(self.describe(reference(child.entry()), depth + 1)?);
        }
        Ok(list.join(", "))
    }

    fn name(&self, entry: &Entry<'d>) -> Result<Option<String>, TypesError> {
        let Some(value) = entry.attr_value(dw::DW_AT_name) else { return Ok(None) };
        Ok(Some(self.dwarf.attr_string(self.unit, value)?.to_string_lossy().into_owned()))
    }
}

fn keyword(tag: gimli::DwTag) -> Option<&'static str> {
    match tag {
        dw::DW_TAG_structure_type => Some("struct"),
        dw::DW_TAG_union_type => Some("union"),
        dw::DW_TAG_enumeration_type => Some("enum"),
        _ => None,
    }
}

fn is_declaration(entry: &Entry<'_>) -> bool {
    matches!(entry.attr_value(dw::DW_AT_declaration), Some(AttributeValue::Flag(true)))
}

fn reference(entry: &Entry<'_>) -> Option<UnitOffset> {
    match entry.attr_value(dw::DW_AT_type)? {
        AttributeValue::UnitRef(offset) => Some(offset),
        _ => None,
    }
}

fn number(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}

fn signed(value: AttributeValue<Reader<'_>>) -> Option<i128> {
    match value {
        AttributeValue::Udata(value) => Some(value.into()),
        value => value.sdata_value().map(i128::from),
    }
}
