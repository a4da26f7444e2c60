//! What a relocation refers to: an atom and an offset in it, whatever symbol the assembler wrote it with.
//!
//! The assembler replaces local symbols by their section's symbol and an offset. In a section with one atom
//! that is harmless; in one with several the exact offset decides, and for PC-relative operands it depends
//! on the length of the instruction.

use std::ops::Range;

use object::elf::{R_X86_64_PC8, R_X86_64_PC16, R_X86_64_PC32, R_X86_64_PLT32, STT_SECTION};

use super::code::instructions;
use super::{AtomId, Reloc, Unit};
use crate::diff::names::is_marker;
use crate::diff::sections::Class;
use crate::elf::Place;

/// Distance from a PC-relative field to the end of its instruction; zero in data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bias(pub(crate) i64);

impl Bias {
    pub(crate) const NONE: Self = Self(0);
    /// A direct call or jump ends with its field.
    pub(crate) const BRANCH: Self = Self(4);
}

/// What a relocation refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'d> {
    /// This many bytes from the start of an atom, which may be outside of it.
    Atom { atom: AtomId, offset: i64 },
    /// A section that is not cut into atoms.
    Section { section: usize, offset: i64 },
    /// A symbol that another file defines.
    Undefined { name: &'d str, offset: i64 },
    /// A number.
    Absolute { value: u64 },
}

/// A relocation with what it refers to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference<'d> {
    /// The relocation; its offset counts from the section's start.
    pub(crate) reloc: Reloc,
    /// What it refers to.
    pub(crate) target: Target<'d>,
    /// Whether it is the operand of a direct call or jump, as opposed to an address that is taken.
    pub(crate) branch: bool,
}

impl<'d> Unit<'d> {
    /// The references of an atom, by offset.
    pub(crate) fn references(&self, id: AtomId) -> Vec<Reference<'d>> {
        let atom = self.atom(id);
        self.references_within(id, atom.start..atom.end)
    }

    /// The references in a part of an atom; its offsets count from the section's start.
    pub(crate) fn references_within(&self, id: AtomId, offsets: Range<u64>) -> Vec<Reference<'d>> {
        let section = self.atom(id).section();
        let is_code = matches!(self.class(section), Class::Text | Class::Replacement | Class::Auxiliary);
        let relocations = self.relocations(section).within(offsets);
        if !is_code {
            return relocations
                .map(|reloc| Reference { reloc, target: self.target(&reloc, Bias::NONE), branch: false })
                .collect();
        }
        if relocations.len() == 0 {
            return Vec::new();
        }
        let mut decoded = instructions(self.bytes(id), self.atom(id).start).peekable();
        relocations
            .map(|reloc| {
                while decoded.next_if(|decoded| decoded.end <= reloc.offset).is_some() {}
                let inside = decoded.peek().filter(|decoded| decoded.start <= reloc.offset);
                let branch = inside.is_some_and(|decoded| decoded.is_direct_branch());
                let bias = match inside {
                    Some(decoded) if is_relative(reloc.kind) => Bias((decoded.end - reloc.offset) as i64),
                    None if is_relative(reloc.kind) => Bias::BRANCH,
                    _ => Bias::NONE,
                };
                Reference { reloc, target: self.target(&reloc, bias), branch }
            })
            .collect()
    }

    /// What a relocation refers to.
    pub(crate) fn target(&self, reloc: &Reloc, bias: Bias) -> Target<'d> {
        let addend = reloc.addend.saturating_add(bias.0);
        if reloc.symbol == 0 {
            return Target::Absolute { value: addend as u64 };
        }
        let symbol = self.symbol(reloc.symbol);
        match symbol.place {
            Place::Undefined | Place::Reserved(_) => Target::Undefined { name: symbol.name, offset: addend },
            Place::Absolute => Target::Absolute { value: symbol.value.wrapping_add_signed(addend) },
            Place::Section(section) => {
                let position = (symbol.value as i64).saturating_add(addend);
                let by_position = symbol.kind == STT_SECTION || is_marker(symbol.name);
                let at = if by_position { position } else { symbol.value as i64 };
                match self.atom_at(section, at) {
                    Some(atom) => {
                        Target::Atom { atom, offset: position.saturating_sub(self.atom(atom).start as i64) }
                    }
                    None => Target::Section { section, offset: position },
                }
            }
        }
    }

    /// The atom of a section that holds an offset, or the last one before it.
    pub(crate) fn atom_at(&self, section: usize, offset: i64) -> Option<AtomId> {
        let (first, end) = (self.first_atom[section], self.first_atom[section + 1]);
        if end <= first + 1 {
            return (first < end).then_some(AtomId(first));
        }
        let atoms = &self.atoms[first as usize..end as usize];
        let after = atoms.partition_point(|atom| atom.start as i64 <= offset);
        Some(AtomId(first + after.saturating_sub(1) as u32))
    }
}

/// Whether a relocation counts from its own place.
pub(crate) fn is_relative(kind: u32) -> bool {
    matches!(kind, R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_PC16 | R_X86_64_PC8)
}

/// Bytes that a relocation fills in, or `None` for a type that no kernel module uses.
pub(crate) fn width(kind: u32) -> Option<u64> {
    use object::elf::{R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_NONE, R_X86_64_PC64};
    match kind {
        R_X86_64_NONE => Some(0),
        R_X86_64_64 | R_X86_64_PC64 => Some(8),
        R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_32 | R_X86_64_32S => Some(4),
        _ => None,
    }
}
