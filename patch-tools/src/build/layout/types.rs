//! The data layout of a compiled unit, from its DWARF.
//!
//! Structures, unions and enumerations with a name or a typedef, and enumerations without: another type without a name is
//! written out where it is used. A typedef of another type is that type, wherever it is used, so that only a typedef that
//! gets another meaning makes a difference. Variables that outlive a call and can be written are read as well, for
//! their types.
//!
//! Types that the unit declares and does not use are not in the DWARF, and do not matter to its code. Format: DWARF 5,
//! chapters 5 and 7; `gimli` reads it, this module applies the relocations that `.o` files still have.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

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

/// The types of a unit.
#[derive(Debug, Default)]
pub(in crate::build) struct Types {
    /// As `struct file`, `name_t`, `variable name` and `variable function::name`.
    pub(in crate::build) named: BTreeMap<String, Layout>,
    /// Enumerations without a name; also those that a member or a variable has.
    pub(in crate::build) unnamed: Vec<Layout>,
}

/// What code that was compiled against a type relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Layout {
    pub(in crate::build) kind: Kind,
    /// In bytes.
    pub(in crate::build) size: u64,
    /// By name. Members of anonymous members are members.
    pub(in crate::build) members: BTreeMap<String, Member>,
}

/// What a layout is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Kind {
    /// A structure or union.
    Record,
    /// An enumeration.
    Enumeration,
    /// A typedef of another type, or a variable: the types are the members. A variable has several where one function has
    /// several of that name.
    Alias,
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
    let mut types = Types::default();
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

/// Entries of a unit by what they are.
#[derive(Default)]
struct Found {
    /// Functions that the entry is in, and how deep they are.
    functions: Vec<(isize, String)>,
    records: Vec<(String, UnitOffset)>,
    unnamed: BTreeSet<UnitOffset>,
    typedefs: Vec<(String, Option<UnitOffset>)>,
    variables: Vec<(String, UnitOffset)>,
}

/// A type that is never written, perhaps in an array.
const CONST: [gimli::DwTag; 4] =
    [dw::DW_TAG_array_type, dw::DW_TAG_typedef, dw::DW_TAG_volatile_type, dw::DW_TAG_const_type];

/// A function, or pointers to one.
const FUNCTION: [gimli::DwTag; 4] =
    [dw::DW_TAG_pointer_type, dw::DW_TAG_typedef, dw::DW_TAG_const_type, dw::DW_TAG_subroutine_type];

/// `__UNIQUE_ID()` counts: the same name is another variable in the other version.
const NUMBERED: &str = "__UNIQUE_ID_";

fn alias(described: String) -> Layout {
    let member = Member { place: 0, type_name: described.clone() };
    alias_of(BTreeMap::from([(described, member)]))
}

fn alias_of(members: BTreeMap<String, Member>) -> Layout {
    Layout { kind: Kind::Alias, size: 0, members }
}

struct Unit<'u, 'd> {
    dwarf: &'u Dwarf<Reader<'d>>,
    unit: &'u gimli::Unit<Reader<'d>>,
}

impl<'d> Unit<'_, 'd> {
    fn collect(&self, types: &mut Types) -> Result<(), TypesError> {
        let mut entries = self.unit.entries();
        let mut found = Found::default();
        while let Some(entry) = entries.next_dfs()? {
            self.sort(entry, &mut found)?;
        }
        for (name, offset) in &found.records {
            // Two of one name are of two scopes; the first is the file's.
            types.named.entry(name.clone()).or_insert(self.layout(*offset)?);
        }
        let mut with_typedef = BTreeSet::new();
        for (name, target) in found.typedefs {
            let record = target.filter(|target| found.unnamed.contains(target));
            with_typedef.extend(record);
            let layout = match record {
                Some(record) => self.layout(record)?,
                // What a function takes and gives outlives no call; where its address is kept, that has a type.
                None if self.leads(target, &FUNCTION)? => continue,
                None => alias(self.describe(target, 0)?),
            };
            types.named.entry(name).or_insert(layout);
        }
        for offset in found.unnamed.difference(&with_typedef) {
            let layout = self.layout(*offset)?;
            if layout.kind == Kind::Enumeration {
                types.unnamed.push(layout);
            }
        }
        for (name, target) in found.variables {
            let Layout { members, .. } = alias(self.describe(Some(target), 0)?);
            let layout = types.named.entry(name).or_insert_with(|| alias_of(BTreeMap::new()));
            layout.members.extend(members);
        }
        Ok(())
    }

    fn sort(&self, entry: &Entry<'d>, found: &mut Found) -> Result<(), TypesError> {
        found.functions.retain(|(depth, _)| *depth < entry.depth());
        let name = match entry.tag() {
            dw::DW_TAG_subprogram | dw::DW_TAG_variable => self.name_or_specified(entry)?,
            _ => self.name(entry)?,
        };
        match (entry.tag(), name) {
            (dw::DW_TAG_subprogram, name) => {
                found.functions.push((entry.depth(), name.unwrap_or_default()));
            }
            (dw::DW_TAG_typedef, Some(name)) => found.typedefs.push((name, reference(entry))),
            (dw::DW_TAG_variable, Some(name)) if has_address(entry) && !name.starts_with(NUMBERED) => {
                let Some(target) = self.type_of_variable(entry)? else { return Ok(()) };
                if !self.leads(Some(target), &CONST)? {
                    let function = found.functions.last().map(|(_, function)| format!("{function}::"));
                    let name = format!("variable {}{name}", function.unwrap_or_default());
                    found.variables.push((name, target));
                }
            }
            (tag, name) if !is_declaration(entry) => match (keyword(tag), name) {
                (Some(kind), Some(name)) => found.records.push((format!("{kind} {name}"), entry.offset())),
                (Some(_), None) => {
                    found.unnamed.insert(entry.offset());
                }
                (None, _) => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// The entry's name, or that of the declaration that it completes.
    fn name_or_specified(&self, entry: &Entry<'d>) -> Result<Option<String>, TypesError> {
        match (self.name(entry)?, declaration(entry)) {
            (None, Some(declaration)) => self.name(&self.unit.entry(declaration)?),
            (name, _) => Ok(name),
        }
    }

    fn type_of_variable(&self, entry: &Entry<'d>) -> Result<Option<UnitOffset>, TypesError> {
        match (reference(entry), declaration(entry)) {
            (None, Some(declaration)) => Ok(reference(&self.unit.entry(declaration)?)),
            (target, _) => Ok(target),
        }
    }

    /// Whether a type of the last of these kinds is reached through none but the others.
    fn leads(&self, target: Option<UnitOffset>, kinds: &[gimli::DwTag; 4]) -> Result<bool, TypesError> {
        let mut target = target;
        for _ in 0..MAX_DEPTH {
            let Some(offset) = target else { return Ok(false) };
            let entry = self.unit.entry(offset)?;
            match kinds.iter().position(|kind| *kind == entry.tag()) {
                Some(3) => return Ok(true),
                Some(_) => target = reference(&entry),
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    fn layout(&self, offset: UnitOffset) -> Result<Layout, TypesError> {
        let entry = self.unit.entry(offset)?;
        let size = number(&entry, dw::DW_AT_byte_size).unwrap_or_default();
        let mut members = BTreeMap::new();
        self.members(offset, 0, 0, &mut members)?;
        let kind = match entry.tag() {
            dw::DW_TAG_enumeration_type => Kind::Enumeration,
            _ => Kind::Record,
        };
        Ok(Layout { kind, size, members })
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
            dw::DW_TAG_typedef => match self.is_unnamed_record(reference(&entry))? {
                true => name.unwrap_or_default(),
                false => inner()?,
            },
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

    fn is_unnamed_record(&self, offset: Option<UnitOffset>) -> Result<bool, TypesError> {
        let Some(offset) = offset else { return Ok(false) };
        let entry = self.unit.entry(offset)?;
        Ok(keyword(entry.tag()).is_some() && self.name(&entry)?.is_none())
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
    refers(entry, dw::DW_AT_type)
}

/// The declaration that an entry completes.
fn declaration(entry: &Entry<'_>) -> Option<UnitOffset> {
    refers(entry, dw::DW_AT_specification).or_else(|| refers(entry, dw::DW_AT_abstract_origin))
}

/// Whether a variable is at a place of its own in the object: not one on the stack, nor one that is only declared.
fn has_address(entry: &Entry<'_>) -> bool {
    match entry.attr_value(dw::DW_AT_location) {
        Some(AttributeValue::Exprloc(expression)) => {
            expression.0.first().is_some_and(|first| *first == dw::DW_OP_addr.0)
        }
        _ => false,
    }
}

fn refers(entry: &Entry<'_>, name: gimli::DwAt) -> Option<UnitOffset> {
    match entry.attr_value(name)? {
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
