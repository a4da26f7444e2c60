//! Cutting sections into atoms.
//!
//! With `-ffunction-sections -fdata-sections` most sections are one atom. Sections that the source names
//! itself (`.sched.text`, `.data..read_mostly`) hold several and are cut at their symbols. What lies between
//! symbols becomes an atom without a name, unless it is padding.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::FlowControl;
use object::elf::{R_X86_64_PC32, STB_GLOBAL, STB_LOCAL, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_SECTION};

use super::code::instructions;
use super::{Reloc, Unit};
use crate::diff::names::is_marker;
use crate::diff::sections::{Class, EXPORT_MARKS, Special};
use crate::elf::{Place, Symbol};

/// Index of an atom in its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AtomId(pub(crate) u32);

impl AtomId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A function, a data object, or unnamed contents between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Atom {
    section: u32,
    symbol: u32,
    /// First byte, counted in its section.
    pub(crate) start: u64,
    /// Behind the last byte.
    pub(crate) end: u64,
}

const NO_SYMBOL: u32 = u32::MAX;

impl Atom {
    pub(crate) fn section(&self) -> usize {
        self.section as usize
    }

    /// The symbol that names it.
    pub(crate) fn symbol(&self) -> Option<usize> {
        (self.symbol != NO_SYMBOL).then_some(self.symbol as usize)
    }

    pub(crate) fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// A symbol that starts an atom.
struct Start {
    offset: u64,
    end: u64,
    symbol: u32,
    preference: u8,
}

impl Unit<'_> {
    /// Fills in `atoms` and `first_atom`.
    pub(super) fn cut(&mut self) {
        let mut starts: Vec<(u32, Start)> = Vec::new();
        for (index, symbol) in self.elf.symbols().iter().enumerate() {
            let Place::Section(section) = symbol.place else { continue };
            if let Some(start) = self.start(section, index, symbol) {
                starts.push((section as u32, start));
            }
        }
        starts.sort_by_key(|(section, start)| (*section, start.offset, start.preference));
        let mut next = starts.into_iter().peekable();
        for section in 0..self.classes.len() {
            self.first_atom.push(self.atoms.len() as u32);
            let mut own = Vec::new();
            while let Some((_, start)) = next.next_if(|(at, _)| *at as usize == section) {
                own.push(start);
            }
            match self.classes[section] {
                Class::Text | Class::Data | Class::Table => self.cut_at_symbols(section, &own),
                Class::Export if !own.is_empty() => self.cut_at_symbols(section, &own),
                Class::Strings | Class::Constants | Class::Export | Class::ModuleText => {
                    self.push(section, NO_SYMBOL, 0, self.elf.sections()[section].size);
                }
                Class::Replacement => {
                    // What the second field of each entry refers to.
                    let starts = self.references_into(section, Class::Special(Special::AltInstructions));
                    self.cut_at_offsets(section, &starts);
                }
                Class::Auxiliary => {
                    let starts = self.auxiliary_starts(section);
                    self.cut_at_offsets(section, &starts);
                }
                Class::Skip | Class::Special(_) | Class::Author(_) | Class::Foreign => {}
            }
        }
        self.first_atom.push(self.atoms.len() as u32);
        self.atoms.shrink_to_fit();
    }

    fn push(&mut self, section: usize, symbol: u32, start: u64, end: u64) {
        self.atoms.push(Atom { section: section as u32, symbol, start, end });
    }

    /// Whether and how well a symbol names an atom.
    fn start(&self, section: usize, index: usize, symbol: &Symbol<'_>) -> Option<Start> {
        let data = &self.elf.sections()[section];
        if symbol.value > data.size || is_marker(symbol.name) {
            return None;
        }
        let fits = match self.classes[section] {
            Class::Text => symbol.kind == STT_FUNC,
            Class::Data | Class::Table => matches!(symbol.kind, STT_OBJECT | STT_NOTYPE),
            Class::Export => data.name == EXPORT_MARKS && symbol.kind == STT_NOTYPE,
            _ => false,
        };
        if !fits || symbol.kind == STT_SECTION {
            return None;
        }
        let preference = match (symbol.kind, symbol.binding) {
            (STT_NOTYPE, _) => 3,
            (_, STB_GLOBAL) => 0,
            (_, STB_LOCAL) => 2,
            _ => 1,
        };
        let end = symbol.value.saturating_add(symbol.size).min(data.size);
        Some(Start { offset: symbol.value, end, symbol: index as u32, preference })
    }

    fn cut_at_symbols(&mut self, section: usize, starts: &[Start]) {
        let size = self.elf.sections()[section].size;
        let Some(first) = starts.first() else {
            if size > 0 {
                self.push(section, NO_SYMBOL, 0, size);
            }
            return;
        };
        let alone = starts.iter().all(|start| start.offset == first.offset || start.offset < first.end);
        let prefix_is_padding = first.offset == 0 || self.classes[section] == Class::Text;
        if alone && prefix_is_padding && self.is_padding(section, first.end, size) {
            // Bytes before the symbol are its prefix: no-ops for ftrace, a hash, or padding for thunks.
            self.push(section, first.symbol, 0, size);
            return;
        }
        let mut at = 0;
        let mut index = 0;
        while let Some(start) = starts.get(index) {
            index += 1;
            if start.offset < at {
                // Inside the atom before, or an alias of it.
                continue;
            }
            let mut end = start.end;
            while let Some(alias) = starts.get(index).filter(|other| other.offset == start.offset) {
                end = end.max(alias.end);
                index += 1;
            }
            let limit = starts.get(index).map_or(size, |next| next.offset.max(start.offset));
            if end == start.offset {
                // A label without a size reaches to the next symbol.
                end = limit;
            }
            self.push_gap(section, at, start.offset);
            self.push(section, start.symbol, start.offset, end);
            at = at.max(end);
        }
        self.push_gap(section, at, size);
    }

    fn push_gap(&mut self, section: usize, from: u64, to: u64) {
        if from < to && !self.is_padding(section, from, to) {
            self.push(section, NO_SYMBOL, from, to);
        }
    }

    /// Whether the assembler put these bytes between two atoms: no relocations, and only zeros in data,
    /// only no-ops and breakpoints in code.
    fn is_padding(&self, section: usize, from: u64, to: u64) -> bool {
        if from >= to {
            return true;
        }
        if self.relocations(section).within(from..to).len() > 0 {
            return false;
        }
        let data = self.elf.sections()[section].data;
        let Some(bytes) = data.get(from as usize..to as usize) else { return true };
        if self.classes[section] == Class::Text {
            instructions(bytes, from).all(|decoded| {
                let mnemonic = decoded.instruction.mnemonic();
                matches!(mnemonic, iced_x86::Mnemonic::Nop | iced_x86::Mnemonic::Int3)
                    || bytes[(decoded.start - from) as usize..].iter().all(|&byte| byte == 0)
                    || is_fill(&decoded.instruction)
            })
        } else {
            bytes.iter().all(|&byte| byte == 0)
        }
    }

    fn cut_at_offsets(&mut self, section: usize, starts: &[u64]) {
        let size = self.elf.sections()[section].size;
        let mut at = 0;
        for &start in starts.iter().filter(|&&start| start < size).chain([&size]) {
            if start > at {
                self.push(section, NO_SYMBOL, at, start);
                at = start;
            }
        }
    }

    /// Where pieces of out-of-line code start: where functions jump (direct jumps with a 4-byte offset at the
    /// end of the instruction) or faults continue, and the code before does not run into. What ends with a call
    /// that does not return seems to run on; what another function continues at is another piece all the same.
    fn auxiliary_starts(&self, section: usize) -> Vec<u64> {
        let ends: Vec<u64> = instructions(self.elf.sections()[section].data, 0)
            .filter(|decoded| {
                let flow = decoded.instruction.flow_control();
                matches!(
                    flow,
                    FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::Exception
                )
            })
            .map(|decoded| decoded.end)
            .collect();
        let mut starts = Vec::new();
        // The sections of functions that the piece at hand is of.
        let mut users: BTreeSet<usize> = BTreeSet::new();
        for (start, from) in self.continuations(section) {
            let others = !users.is_empty() && !from.is_empty() && users.is_disjoint(&from);
            if start == 0 || ends.binary_search(&start).is_ok() || others {
                starts.push(start);
                users = from;
            } else {
                users.extend(from);
            }
        }
        starts
    }

    /// Where in a section of out-of-line code functions go on, with the sections of those functions.
    fn continuations(&self, section: usize) -> BTreeMap<u64, BTreeSet<usize>> {
        let mut found: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
        for source in 0..self.classes.len() {
            let bias = match self.classes[source] {
                Class::Text => 4,
                Class::Special(Special::ExTable) => 0,
                _ => continue,
            };
            let relocations = self.relocations(source);
            // Of an entry for faults the first field is the place that may fault, the second where it goes on.
            let mut place = None;
            for reloc in (0..relocations.len()).map(|index| relocations.get(index)) {
                let symbol = self.symbol(reloc.symbol);
                let Place::Section(target) = symbol.place else { continue };
                let user = match (bias, place) {
                    (0, Some((field, user))) if field + 4 == reloc.offset => Some(user),
                    (0, _) => None,
                    _ => Some(source),
                };
                place = (self.classes[target] == Class::Text).then_some((reloc.offset, target));
                if target == section {
                    let at = symbol.value.wrapping_add_signed(reloc.addend.saturating_add(bias));
                    found.entry(at).or_default().extend(user);
                }
            }
        }
        found
    }

    /// Offsets in a section that sections of a class refer to.
    fn references_into(&self, section: usize, from: Class) -> Vec<u64> {
        let mut starts = Vec::new();
        for source in (0..self.classes.len()).filter(|&source| self.classes[source] == from) {
            let relocations = self.relocations(source);
            for reloc in (0..relocations.len()).map(|index| relocations.get(index)) {
                let symbol = self.symbol(reloc.symbol);
                if symbol.place == Place::Section(section) {
                    starts.push(symbol.value.wrapping_add_signed(reloc.addend));
                }
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// Adds relocations for references between atoms of one section that the assembler has resolved.
    ///
    /// Between two functions of one section the distance is known when assembling, so calls of local
    /// functions and references to them carry no relocation. Cut apart, they need one.
    pub(super) fn add_resolved_references(&mut self) {
        let shared: Vec<usize> = (0..self.classes.len())
            .filter(|&section| {
                self.classes[section] == Class::Text
                    && self.first_atom[section + 1] - self.first_atom[section] > 1
            })
            .collect();
        if shared.is_empty() {
            return;
        }
        let symbols = self.section_symbols();
        for section in shared {
            let (mut more, mut unnamed) = (Vec::new(), Vec::new());
            for id in (self.first_atom[section]..self.first_atom[section + 1]).map(AtomId) {
                if !self.resolved_references(id, symbols[section], &mut more) {
                    unnamed.push(id);
                }
            }
            self.unnamed_references.extend(unnamed);
            if more.is_empty() {
                continue;
            }
            let with = self.relocations(section).with(more);
            match self.relocated[section] {
                super::NONE => {
                    self.relocated[section] = self.relocations.len() as u32;
                    self.relocations.push(with);
                }
                index => self.relocations[index as usize] = with,
            }
        }
    }

    /// Whether a symbol was found for each of them.
    fn resolved_references(&self, id: AtomId, section_symbol: u32, more: &mut Vec<Reloc>) -> bool {
        let atom = self.atom(id);
        let size = self.section(atom.section()).size;
        let mut known = self.relocations_of(id).map(|reloc| reloc.offset).peekable();
        let mut all_named = true;
        for decoded in instructions(self.bytes(id), atom.start) {
            let Some((target, field)) = decoded.relative_target() else { continue };
            while known.next_if(|&offset| offset < field).is_some() {}
            let outside = target < size && (target < atom.start || target >= atom.end);
            if known.peek() == Some(&field) || !outside {
                continue;
            }
            let named = self.atom_at(atom.section(), target as i64).and_then(|id| self.atom(id).symbol());
            let symbol = match (named, section_symbol) {
                (Some(symbol), _) => symbol,
                (None, NO_SYMBOL) => {
                    all_named = false;
                    continue;
                }
                (None, symbol) => symbol as usize,
            };
            let addend = target as i64 - self.symbol(symbol).value as i64 - (decoded.end - field) as i64;
            more.push(Reloc { offset: field, kind: R_X86_64_PC32, symbol, addend });
        }
        all_named
    }

    /// The section symbol of each section that has one.
    fn section_symbols(&self) -> Vec<u32> {
        let mut found = vec![NO_SYMBOL; self.classes.len()];
        for (index, symbol) in self.elf.symbols().iter().enumerate() {
            if let (Place::Section(section), STT_SECTION) = (symbol.place, symbol.kind) {
                found[section] = index as u32;
            }
        }
        found
    }
}

/// `data16 cs nopw`, `lea 0(%rsi),%rsi` and the like, with which assemblers fill gaps.
fn is_fill(instruction: &iced_x86::Instruction) -> bool {
    instruction.mnemonic() == iced_x86::Mnemonic::Xchg
        && instruction.op0_register() == instruction.op1_register()
}
