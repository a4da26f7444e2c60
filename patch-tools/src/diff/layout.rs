//! The object file that carries the selection: sections, symbols and relocations with their final offsets.
//!
//! Functions and data keep their sections' names; each special table holds the entries of selected functions
//! only; strings and constants are copied one by one. Bytes that a relocation fills in are zero, as the
//! kernel's module loader insists. References to the running kernel become undefined symbols with the
//! intermediate names of [`crate::klp::names`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use object::elf::{
    R_X86_64_64, SHT_NOBITS, SHT_PROGBITS, STB_GLOBAL, STB_LOCAL, STT_FILE, STT_FUNC, STT_NOTYPE, STT_SECTION,
};

use super::changes::Sides;
use super::ftrace::ftrace_site;
use super::report::KlpRelocation;
use super::resolve::Outside;
use super::sections::Special;
use super::select::{Link, Linked, Selection, is_new_global};
use super::unit::{AtomId, Unit, width};
use crate::klp::names::KlpSymbol;
use crate::klp::write::{Contents, NewPlace, NewRelocation, NewSection, NewSymbol, RelocationTable, write};

/// A section of the output.
struct Output<'d> {
    name: &'d str,
    kind: u32,
    flags: u64,
    alignment: u64,
    entry_size: u64,
    size: u64,
    bytes: Vec<u8>,
    relocations: Vec<NewRelocation>,
}

/// The output, ready to be written.
pub(crate) struct Layout<'d> {
    sections: Vec<Output<'d>>,
    symbols: Vec<NewSymbol<'d>>,
    klp_relocations: Vec<KlpRelocation>,
}

/// A name that another object of the livepatch module refers to a selected function by.
pub(crate) struct Placeholder {
    pub(crate) atom: AtomId,
    pub(crate) name: String,
}

struct Builder<'b, 'd> {
    sides: &'b Sides<'b, 'd>,
    selection: &'b Selection,
    sections: Vec<Output<'d>>,
    by_input: HashMap<usize, usize>,
    atoms: HashMap<AtomId, (usize, u64)>,
    pieces: HashMap<(AtomId, u64, u64), (usize, u64)>,
    symbols: Vec<NewSymbol<'d>>,
    section_symbols: Vec<usize>,
    atom_symbols: HashMap<AtomId, usize>,
    outside: HashMap<String, usize>,
    klp: Vec<(usize, u64, u32, i64, KlpSymbol)>,
}

impl<'d> Layout<'d> {
    /// Places everything that was selected.
    pub(crate) fn new(sides: &Sides<'_, 'd>, selection: &Selection, placeholders: &[Placeholder]) -> Self {
        let mut builder = Builder {
            sides,
            selection,
            sections: Vec::new(),
            by_input: HashMap::new(),
            atoms: HashMap::new(),
            pieces: HashMap::new(),
            symbols: Vec::new(),
            section_symbols: Vec::new(),
            atom_symbols: HashMap::new(),
            outside: HashMap::new(),
            klp: Vec::new(),
        };
        builder.place_atoms();
        builder.place_pieces();
        let tables = builder.place_tables();
        builder.add_symbols();
        builder.relocate_atoms();
        builder.fill_tables(tables);
        builder.add_entry_records();
        builder.add_placeholders(placeholders);
        builder.finish()
    }

    /// Relocations that the kernel's livepatch code resolves, by section and offset.
    pub(crate) fn klp_relocations(&self) -> &[KlpRelocation] {
        &self.klp_relocations
    }

    /// Writes the object file.
    pub(crate) fn write(&self) -> Vec<u8> {
        let sections: Vec<NewSection<'_>> = self
            .sections
            .iter()
            .map(|section| NewSection {
                name: Cow::Borrowed(section.name),
                kind: section.kind,
                flags: section.flags,
                alignment: section.alignment,
                entry_size: section.entry_size,
                link: None,
                contents: if section.kind == SHT_NOBITS {
                    Contents::Zeros(section.size)
                } else {
                    Contents::Bytes(Cow::Borrowed(&section.bytes))
                },
                tables: if section.relocations.is_empty() {
                    Vec::new()
                } else {
                    vec![RelocationTable {
                        name: Cow::Owned(format!(".rela{}", section.name)),
                        flags: 0,
                        entries: section.relocations.clone(),
                    }]
                },
            })
            .collect();
        write(&sections, &self.symbols)
    }
}

impl<'d> Builder<'_, 'd> {
    fn unit(&self) -> &Unit<'d> {
        self.sides.equality.patched
    }

    /// The output section for contents of an input section.
    fn output(&mut self, section: usize) -> usize {
        if let Some(&known) = self.by_input.get(&section) {
            return known;
        }
        let input = self.sides.equality.patched.section(section);
        self.sections.push(Output {
            name: input.name,
            kind: input.kind,
            // Groups and link order speak of sections that are not there any more.
            flags: input.flags
                & !u64::from(
                    object::elf::SHF_GROUP | object::elf::SHF_LINK_ORDER | object::elf::SHF_INFO_LINK,
                ),
            alignment: input.alignment,
            entry_size: input.entry_size,
            size: 0,
            bytes: Vec::new(),
            relocations: Vec::new(),
        });
        self.by_input.insert(section, self.sections.len() - 1);
        self.sections.len() - 1
    }

    /// Adds bytes to an output section; returns their offset.
    fn append(&mut self, section: usize, bytes: &[u8], size: u64, alignment: u64) -> u64 {
        let output = &mut self.sections[section];
        let offset = output.size.next_multiple_of(alignment.max(1));
        output.size = offset + size;
        if output.kind != SHT_NOBITS {
            let fill = if output.flags & u64::from(object::elf::SHF_EXECINSTR) != 0 { 0x90 } else { 0 };
            output.bytes.resize(offset as usize, fill);
            output.bytes.extend_from_slice(bytes);
            output.bytes.resize(output.size as usize, 0);
        }
        offset
    }

    fn place_atoms(&mut self) {
        for &atom in self.selection.atoms.keys() {
            let unit = self.sides.equality.patched;
            let (section, start, size) = {
                let atom = unit.atom(atom);
                (atom.section(), atom.start, atom.size())
            };
            let mut bytes = Cow::Borrowed(unit.bytes(atom));
            for (at, code) in self.selection.atoms.get(&atom).into_iter().flat_map(|one| &one.rewritten) {
                if let Some(place) = bytes
                    .to_mut()
                    .get_mut((at - start) as usize..)
                    .and_then(|rest| rest.get_mut(..code.len()))
                {
                    place.copy_from_slice(code);
                }
            }
            let alignment = alignment_at(unit, section, start);
            let output = self.output(section);
            let offset = self.append(output, &bytes, size, alignment);
            self.atoms.insert(atom, (output, offset));
        }
    }

    /// All links of the selection, entries included.
    fn links(&self) -> impl Iterator<Item = &Linked> {
        self.selection.atoms.values().flat_map(|selected| {
            selected.links.iter().chain(selected.entries.iter().flat_map(|(_, links)| links))
        })
    }

    fn place_pieces(&mut self) {
        let mut wanted: Vec<(AtomId, u64, u64)> = self
            .links()
            .filter_map(|linked| match linked.link {
                Link::Piece { atom, start, end } => Some((atom, start, end)),
                _ => None,
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        for (atom, start, end) in wanted {
            let unit = self.sides.equality.patched;
            let section = unit.atom(atom).section();
            let bytes = unit.bytes(atom).get(start as usize..end as usize).unwrap_or_default();
            let alignment = alignment_at(unit, section, start);
            let output = self.output(section);
            // Pieces no longer fill the section with entries at fixed places, so nothing may merge them.
            self.sections[output].flags &= !u64::from(object::elf::SHF_MERGE | object::elf::SHF_STRINGS);
            self.sections[output].entry_size = 0;
            let offset = self.append(output, bytes, end - start, alignment);
            self.pieces.insert((atom, start, end), (output, offset));
        }
    }

    /// Copies the selected entries of each table; returns where each one went.
    fn place_tables(&mut self) -> Vec<(AtomId, usize, usize, u64)> {
        let mut placed = Vec::new();
        let made_anew = [Special::McountLoc, Special::RuntimePointer];
        for table in Special::ALL.into_iter().filter(|table| !made_anew.contains(table)) {
            let entries = self.sides.patched_entries;
            // However many sections the input has for it.
            let mut output = None;
            for (&atom, selected) in &self.selection.atoms {
                for (index, (entry, _)) in selected.entries.iter().enumerate() {
                    if entry.table != table {
                        continue;
                    }
                    let range = entries.range(entry);
                    let data = self.sides.equality.patched.section(entry.section()).data;
                    let bytes = data.get(range.start as usize..range.end as usize).unwrap_or_default();
                    let output = *output.get_or_insert_with(|| self.output(entry.section()));
                    let offset = self.append(output, bytes, entries.entry_size(entry), 1);
                    placed.push((atom, index, output, offset));
                }
            }
        }
        placed
    }

    fn add_symbols(&mut self) {
        let unit = self.sides.equality.patched;
        if let Some(file) = unit.file() {
            self.symbols.push(symbol(Cow::Borrowed(file), STT_FILE, STB_LOCAL, NewPlace::Absolute));
        }
        for section in 0..self.sections.len() {
            self.section_symbols.push(self.symbols.len());
            self.symbols.push(symbol(Cow::Borrowed(""), STT_SECTION, STB_LOCAL, NewPlace::Section(section)));
        }
        for &atom in self.selection.atoms.keys() {
            let Some(index) = unit.atom(atom).symbol() else { continue };
            let old = unit.symbol(index);
            let (section, offset) = self.atoms[&atom];
            let global = is_new_global(self.sides, atom);
            self.atom_symbols.insert(atom, self.symbols.len());
            self.symbols.push(NewSymbol {
                value: offset + (old.value - unit.atom(atom).start),
                size: old.size,
                other: if global { old.other } else { 0 },
                ..symbol(
                    Cow::Borrowed(old.name),
                    old.kind,
                    // A changed function is local: its global name stays with the running one.
                    if global { STB_GLOBAL } else { STB_LOCAL },
                    NewPlace::Section(section),
                )
            });
        }
    }

    fn relocate_atoms(&mut self) {
        for (&atom, selected) in &self.selection.atoms {
            let (section, offset) = self.atoms[&atom];
            let base = self.unit().atom(atom).start;
            for linked in &selected.links {
                self.relocate(section, offset + (linked.reloc.offset - base), linked);
            }
        }
    }

    fn fill_tables(&mut self, placed: Vec<(AtomId, usize, usize, u64)>) {
        for (atom, index, section, offset) in placed {
            let (entry, links) = &self.selection.atoms[&atom].entries[index];
            let base = entry.start();
            for linked in links {
                self.relocate(section, offset + (linked.reloc.offset - base), linked);
            }
        }
    }

    fn relocate(&mut self, section: usize, offset: u64, linked: &Linked) {
        let kind = linked.reloc.kind;
        let (symbol, addend) = match &linked.link {
            Link::Inside(atom) => self.address(*atom, linked.addend),
            Link::Piece { atom, start, end } => {
                let (output, at) = self.pieces[&(*atom, *start, *end)];
                (Some(self.section_symbols[output]), linked.addend.wrapping_add(at as i64))
            }
            Link::Outside(outside) => {
                if let Outside::Klp(klp) = outside {
                    self.klp.push((section, offset, kind, linked.addend, klp.clone()));
                }
                (Some(self.outside_symbol(outside)), linked.addend)
            }
            Link::Number => (None, linked.addend),
        };
        let output = &mut self.sections[section];
        let end = (offset + width(kind).unwrap_or(0)) as usize;
        if let Some(field) = output.bytes.get_mut(offset as usize..end) {
            field.fill(0);
        }
        output.relocations.push(NewRelocation { offset, kind, symbol, addend });
    }

    /// An atom's address as a symbol and what to add: its own symbol if it has one.
    fn address(&self, atom: AtomId, raw: i64) -> (Option<usize>, i64) {
        let unit = self.unit();
        match self.atom_symbols.get(&atom) {
            Some(&symbol) => {
                let ahead = unit.entry(atom) as i64 - unit.atom(atom).start as i64;
                (Some(symbol), raw.wrapping_sub(ahead))
            }
            None => {
                let (section, offset) = self.atoms[&atom];
                (Some(self.section_symbols[section]), raw.wrapping_add(offset as i64))
            }
        }
    }

    fn outside_symbol(&mut self, outside: &Outside) -> usize {
        let name = match outside {
            Outside::Plain(name) => name.clone(),
            Outside::Klp(klp) => klp.intermediate(),
        };
        if let Some(&known) = self.outside.get(&name) {
            return known;
        }
        let index = self.symbols.len();
        self.symbols.push(symbol(Cow::Owned(name.clone()), STT_NOTYPE, STB_GLOBAL, NewPlace::Undefined));
        self.outside.insert(name, index);
        index
    }

    /// The functions' entries for ftrace, made anew: each place where ftrace may put a call has one.
    fn add_entry_records(&mut self) {
        let unit = self.sides.equality.patched;
        let records: Vec<(usize, i64)> = self
            .selection
            .atoms
            .keys()
            .filter_map(|&atom| {
                let entries = self.sides.patched_entries;
                let call = ftrace_site(unit, atom, entries).filter(|_| unit.is_function(atom))?;
                let symbol = *self.atom_symbols.get(&atom)?;
                Some((symbol, call as i64 - unit.entry(atom) as i64))
            })
            .collect();
        if records.is_empty() {
            return;
        }
        self.sections.push(Output {
            name: Special::McountLoc.section(),
            kind: SHT_PROGBITS,
            flags: u64::from(object::elf::SHF_ALLOC),
            alignment: 8,
            entry_size: 0,
            size: records.len() as u64 * 8,
            bytes: vec![0; records.len() * 8],
            relocations: records
                .into_iter()
                .enumerate()
                .map(|(index, (symbol, addend))| NewRelocation {
                    offset: index as u64 * 8,
                    kind: R_X86_64_64,
                    symbol: Some(symbol),
                    addend,
                })
                .collect(),
        });
    }

    fn add_placeholders(&mut self, placeholders: &[Placeholder]) {
        for placeholder in placeholders {
            let Some(&known) = self.atom_symbols.get(&placeholder.atom) else { continue };
            let twin = self.symbols[known].clone();
            self.symbols.push(NewSymbol {
                name: Cow::Owned(placeholder.name.clone()),
                kind: STT_FUNC,
                binding: STB_GLOBAL,
                other: 0,
                ..twin
            });
        }
    }

    fn finish(mut self) -> Layout<'d> {
        for section in &mut self.sections {
            section.relocations.sort_by_key(|relocation| relocation.offset);
        }
        let mut by_name: BTreeMap<(usize, u64), KlpRelocation> = BTreeMap::new();
        for (section, offset, kind, addend, klp) in self.klp {
            by_name.insert(
                (section, offset),
                KlpRelocation {
                    section: self.sections[section].name.to_owned(),
                    offset,
                    kind: kind_name(kind).to_owned(),
                    addend,
                    symbol: klp.name,
                    object: klp.object,
                    sympos: klp.sympos,
                },
            );
        }
        Layout {
            sections: self.sections,
            symbols: self.symbols,
            klp_relocations: by_name.into_values().collect(),
        }
    }
}

/// What is in the middle of a section is as aligned as its offset.
pub(crate) fn alignment_at(unit: &Unit<'_>, section: usize, offset: u64) -> u64 {
    let alignment = unit.section(section).alignment;
    match offset {
        0 => alignment,
        _ => (1 << offset.trailing_zeros().min(12)).min(alignment),
    }
}

fn symbol(name: Cow<'_, str>, kind: u8, binding: u8, place: NewPlace) -> NewSymbol<'_> {
    NewSymbol { name, kind, binding, other: 0, place, value: 0, size: 0 }
}

/// The name of a relocation type that [`width`] accepts.
pub(crate) fn kind_name(kind: u32) -> &'static str {
    use object::elf::{
        R_X86_64_32, R_X86_64_32S, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32,
    };
    match kind {
        R_X86_64_NONE => "R_X86_64_NONE",
        R_X86_64_64 => "R_X86_64_64",
        R_X86_64_PC32 => "R_X86_64_PC32",
        R_X86_64_PLT32 => "R_X86_64_PLT32",
        R_X86_64_32 => "R_X86_64_32",
        R_X86_64_32S => "R_X86_64_32S",
        R_X86_64_PC64 => "R_X86_64_PC64",
        _ => "unknown",
    }
}
