//! Tables with an entry for each place that needs attention, grouped by the function that holds the place.
//!
//! The size of an entry differs between kernel versions (`.altinstructions` has had 12, 13 and 14 bytes), so
//! it is not taken on trust: of the sizes that occur, the one counts with which every entry begins with the
//! address of code and has the same fields as the first. A table for which none fits is refused.
//!
//! A table can be in several sections: compilers make one for each function's section.

use std::collections::HashMap;

use super::refusal::{Refusal, Refused, Subject};
use super::sections::{Class, Special};
use super::unit::{AtomId, Bias, Target, Unit};
use crate::elf::Place;
use crate::elf::entries::{Field, To, entry_size};

/// One entry of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    owner: AtomId,
    section: u32,
    start: u32,
    /// Which table.
    pub(crate) table: Special,
}

/// All entries of a unit, by owner.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    entries: Vec<Entry>,
    /// By section.
    shapes: HashMap<usize, Shape>,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    table: Special,
    section: usize,
    entry_size: u64,
    section_size: u64,
}

impl Entry {
    /// The section that it stands in.
    pub(crate) fn section(&self) -> usize {
        self.section as usize
    }

    /// Offset of its first byte in its section.
    pub(crate) fn start(&self) -> u64 {
        u64::from(self.start)
    }
}

impl Entries {
    /// Groups all entries of a unit; tables of unknown shape are reported and left out.
    pub(crate) fn read(unit: &Unit<'_>, refused: &mut Vec<Refused>) -> Self {
        let mut found = Self::default();
        let mut replaced = auxiliary_users(unit);
        for table in order() {
            let sections = unit.sections_of(Class::Special(table)).filter(|section| section.size > 0);
            let sections: Vec<usize> = sections.map(|section| section.index).collect();
            for section in sections {
                match found.shape(unit, table, section) {
                    Ok(shape) => {
                        found.shapes.insert(section, shape);
                        found.collect(unit, shape, &mut replaced);
                    }
                    Err(detail) => {
                        let subject = Subject::Section(table.section().to_owned());
                        refused.push(Refused { subject, reason: Refusal::SpecialSection { detail } });
                    }
                }
            }
        }
        found.entries.sort_by_key(|entry| {
            (entry.owner, entry.table, unit.section(entry.section()).name, entry.section, entry.start)
        });
        found.entries.shrink_to_fit();
        found
    }

    /// The entries of a function, by table and offset.
    pub(crate) fn of(&self, owner: AtomId) -> &[Entry] {
        let first = self.entries.partition_point(|entry| entry.owner < owner);
        let count = self.entries[first..].partition_point(|entry| entry.owner == owner);
        &self.entries[first..first + count]
    }

    /// Size of an entry, padding included.
    pub(crate) fn entry_size(&self, entry: &Entry) -> u64 {
        self.shapes.get(&entry.section()).map_or(0, |shape| shape.entry_size)
    }

    /// Offsets of an entry's bytes in its section.
    pub(crate) fn range(&self, entry: &Entry) -> std::ops::Range<u64> {
        let start = entry.start();
        let end = self.shapes.get(&entry.section()).map_or(start, |shape| {
            // The last paravirt entry has no padding behind it in some versions.
            (start + shape.entry_size).min(shape.section_size)
        });
        start..end
    }

    /// Whether an entry of `.altinstructions` replaces with nothing. Its second field then refers to where the
    /// replacement would be: to the start of another function's, or behind the last one.
    pub(crate) fn replaces_with_nothing(&self, unit: &Unit<'_>, entry: &Entry) -> bool {
        let shape = self.shapes.get(&entry.section()).filter(|shape| shape.table == Special::AltInstructions);
        shape.is_some_and(|shape| replacement_length(unit, *shape, entry.start()) == Some(0))
    }

    fn shape(&self, unit: &Unit<'_>, table: Special, section: usize) -> Result<Shape, String> {
        let section = unit.section(section);
        let size = section.size;
        if size > u64::from(u32::MAX) || section.data.len() as u64 != size {
            return Err(format!("{size:#x} bytes, of which {:#x} are in the file", section.data.len()));
        }
        let shape = |entry_size| Shape { table, section: section.index, entry_size, section_size: size };
        if table == Special::OrcUnwind {
            let (entry_size, count) = (6, size / 6);
            let mut places = self.shapes.values().filter(|shape| shape.table == Special::OrcUnwindIp);
            let places = places.next().map(|ip| ip.section_size / ip.entry_size);
            return if size.is_multiple_of(entry_size) && places == Some(count) {
                Ok(shape(entry_size))
            } else {
                Err(format!("{size} bytes for {places:?} places"))
            };
        }
        let relocations = unit.relocations(section.index);
        let fields: Vec<Field> = (0..relocations.len())
            .map(|index| {
                let reloc = relocations.get(index);
                let section = match unit.symbol(reloc.symbol).place {
                    Place::Section(target) => Some(unit.section(target)),
                    _ => None,
                };
                Field { offset: reloc.offset, kind: reloc.kind, to: To::of(section) }
            })
            .collect();
        let Some(known) = table.known() else { return Err(format!("{size} bytes")) };
        match entry_size(&fields, size, known.sizes, known.of_code) {
            Some(entry_size) => Ok(shape(entry_size)),
            None => Err(format!(
                "{size} bytes with {} relocations are not entries of {:?} bytes ({})",
                relocations.len(),
                known.sizes,
                known.source
            )),
        }
    }

    fn collect(&mut self, unit: &Unit<'_>, shape: Shape, replaced: &mut HashMap<AtomId, AtomId>) {
        let table = shape.table;
        if table == Special::OrcUnwind {
            return self.collect_orc(shape.section);
        }
        let functions = (table == Special::PrintkIndex).then(|| functions_by_name(unit));
        let relocations = unit.relocations(shape.section);
        let mut start = 0;
        while start < shape.section_size {
            let mut references = relocations.within(start..start + shape.entry_size);
            let first = references.next().map(|reloc| unit.target(&reloc, Bias::NONE));
            let mut owner = match first {
                Some(Target::Atom { atom, .. }) => Some(atom),
                _ => None,
            };
            if let Some(functions) = &functions {
                owner = owner.and_then(|entry| printing_function(unit, entry, functions));
            }
            if let Some(owner) = owner.and_then(|atom| owning_function(unit, atom, replaced)) {
                if table == Special::AltInstructions
                    && replacement_length(unit, shape, start) != Some(0)
                    && let Some(reloc) = references.next()
                    && let Target::Atom { atom, .. } = unit.target(&reloc, Bias::NONE)
                {
                    replaced.insert(atom, owner);
                }
                self.entries.push(Entry { owner, section: shape.section as u32, start: start as u32, table });
            }
            start += shape.entry_size;
        }
    }

    /// Each entry of `.orc_unwind` has the owner of the entry of the same number in `.orc_unwind_ip`.
    fn collect_orc(&mut self, section: usize) {
        let places = self.entries.len();
        for index in 0..places {
            let place = self.entries[index];
            if place.table == Special::OrcUnwindIp {
                let (section, start) = (section as u32, place.start / 4 * 6);
                self.entries.push(Entry { owner: place.owner, section, start, table: Special::OrcUnwind });
            }
        }
    }
}

/// The length of the replacement in an entry of `.altinstructions`: its last byte, except in entries of 13
/// bytes, where the length of padding comes after it.
fn replacement_length(unit: &Unit<'_>, shape: Shape, start: u64) -> Option<u8> {
    let at = match shape.entry_size {
        13 => 11,
        size => size - 1,
    };
    unit.section(shape.section).data.get((start + at) as usize).copied()
}

/// Alternatives first: they tell whose a replacement is, which other tables may refer to.
fn order() -> impl Iterator<Item = Special> {
    let rest = Special::ALL.into_iter().filter(|table| *table != Special::AltInstructions);
    std::iter::once(Special::AltInstructions).chain(rest)
}

fn owning_function(unit: &Unit<'_>, atom: AtomId, replaced: &HashMap<AtomId, AtomId>) -> Option<AtomId> {
    match unit.class(unit.atom(atom).section()) {
        Class::Text => Some(atom),
        Class::Replacement => replaced.get(&atom).copied(),
        // If no function jumps to it, it jumps back to where it belongs.
        Class::Auxiliary if replaced.contains_key(&atom) => replaced.get(&atom).copied(),
        Class::Auxiliary => unit.references(atom).into_iter().find_map(|reference| match reference.target {
            Target::Atom { atom, .. } if unit.is_function(atom) => Some(atom),
            _ => None,
        }),
        _ => None,
    }
}

/// For each piece of out-of-line code the function that jumps to it.
fn auxiliary_users(unit: &Unit<'_>) -> HashMap<AtomId, AtomId> {
    let mut users = HashMap::new();
    if unit.sections_of(Class::Auxiliary).next().is_none() {
        return users;
    }
    for function in unit.atoms().filter(|&atom| unit.is_function(atom)) {
        for reference in unit.references(function) {
            if let Target::Atom { atom, .. } = reference.target
                && unit.class(unit.atom(atom).section()) == Class::Auxiliary
            {
                users.entry(atom).or_insert(function);
            }
        }
    }
    users
}

fn functions_by_name<'d>(unit: &Unit<'d>) -> HashMap<&'d str, AtomId> {
    unit.atoms().filter(|&atom| unit.is_function(atom)).map(|atom| (unit.name(atom), atom)).collect()
}

/// The function that a `struct pi_entry` names in its second field.
fn printing_function(unit: &Unit<'_>, entry: AtomId, functions: &HashMap<&str, AtomId>) -> Option<AtomId> {
    let start = unit.atom(entry).start;
    let reloc = unit.relocations_of(entry).find(|reloc| reloc.offset == start + 8)?;
    let Target::Atom { atom, offset } = unit.target(&reloc, Bias::NONE) else { return None };
    let bytes = unit.bytes(atom).get(usize::try_from(offset).ok()?..)?;
    let name = bytes.split(|&byte| byte == 0).next()?;
    functions.get(std::str::from_utf8(name).ok()?).copied()
}
