//! Where ftrace may redirect a function: the five bytes at its start.
//!
//! Compilers put a call of `__fentry__` there. Later tools may have made it a no-op and kept its relocation,
//! with a type that does nothing (`objtool --mnop`, `recordmcount`), and compilers can do so themselves and
//! only list the place (`-mnop-mcount`). A list of patchable entries counts where the no-ops are at the start;
//! those before it (`-fpatchable-function-entry=16,16`) are room for thunks, which ftrace does not use.

use iced_x86::Mnemonic;
use object::elf::R_X86_64_NONE;

use super::sections::Special;
use super::special::Entries;
use super::unit::code::instructions;
use super::unit::{AtomId, Bias, Target, Unit};

/// `endbr64` may come first.
const ENDBR: u64 = 4;

/// `nopl 0(%rax,%rax,1)`: what a call of five bytes becomes.
const NO_OP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Whether ftrace can redirect the function.
pub(crate) fn has_fentry(unit: &Unit<'_>, atom: AtomId, entries: &Entries) -> bool {
    ftrace_site(unit, atom, entries).is_some() || is_patchable(unit, atom, entries)
}

/// Offset of the function's first traceable instruction in its section.
pub(crate) fn ftrace_site(unit: &Unit<'_>, atom: AtomId, entries: &Entries) -> Option<u64> {
    fentry_call(unit, atom).or_else(|| listed(unit, atom, entries, Special::McountLoc))
}

/// The call of `__fentry__`, or what has become of it.
fn fentry_call(unit: &Unit<'_>, atom: AtomId) -> Option<u64> {
    let entry = unit.entry(atom);
    let reference = unit.references_within(atom, entry..entry + ENDBR + 4).into_iter().next()?;
    let Target::Undefined { name: "__fentry__", .. } = reference.target else { return None };
    let start = reference.reloc.offset.checked_sub(1)?;
    let is_no_op = || {
        let at = (start - unit.atom(atom).start) as usize;
        reference.reloc.kind == R_X86_64_NONE && unit.bytes(atom).get(at..at + 5) == Some(&NO_OP)
    };
    (reference.branch || is_no_op()).then_some(start)
}

/// The place at the function's start that a table lists.
fn listed(unit: &Unit<'_>, atom: AtomId, entries: &Entries, table: Special) -> Option<u64> {
    let entry = unit.entry(atom);
    entries.of(atom).iter().filter(|one| one.table == table).find_map(|one| {
        let reloc = unit.relocations(one.section()).within(entries.range(one)).next()?;
        let Target::Atom { atom: target, offset } = unit.target(&reloc, Bias::NONE) else { return None };
        let place = unit.atom(target).start.checked_add_signed(offset)?;
        (target == atom && (entry..=entry + ENDBR).contains(&place)).then_some(place)
    })
}

fn is_patchable(unit: &Unit<'_>, atom: AtomId, entries: &Entries) -> bool {
    listed(unit, atom, entries, Special::PatchableEntries).is_some_and(|place| {
        let at = (place - unit.atom(atom).start) as usize;
        let code = unit.bytes(atom).get(at..).unwrap_or_default();
        instructions(code, place).next().is_some_and(|first| first.instruction.mnemonic() == Mnemonic::Nop)
    })
}
