//! Why a function counts as changed, down to the first instruction that differs.

use std::fmt;

use iced_x86::{Formatter as _, GasFormatter};
use serde::Serialize;

use super::changes::Reason;
use super::equality::{Difference, Equality};
use super::layout::kind_name;
use super::mergeable::text;
use super::sections::Class;
use super::unit::code::{Decoded, instructions};
use super::unit::{AtomId, Reference, Target, Unit, width};

/// Why a function counts as changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The function.
    pub function: String,
    /// Where the difference is: in the function itself, in a part of it, or in a table.
    pub place: String,
    /// Offset of the first difference from the start of that place, in bytes.
    pub offset: u64,
    /// The instruction there in the original, if it has one.
    pub orig: Option<String>,
    /// The instruction there in the patched version, if it has one.
    pub patched: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: {}, first difference at {:#x}", self.function, self.place, self.offset)?;
        let end = "(no instruction: the code ends here)";
        writeln!(formatter, "  - {}", self.orig.as_deref().unwrap_or(end))?;
        write!(formatter, "  + {}", self.patched.as_deref().unwrap_or(end))
    }
}

/// Explains a change of the patched function `atom`.
pub(crate) fn explain(equality: &Equality<'_, '_>, atom: AtomId, reason: Reason) -> Explanation {
    let function = equality.patched.label(atom);
    let (place, at, difference) = match reason {
        Reason::Forced => {
            let place = "replaced because the patch author asks for it".to_owned();
            return Explanation { function, place, offset: 0, orig: None, patched: None };
        }
        Reason::Own(difference) => ("code".to_owned(), atom, difference),
        Reason::Part(part, difference) => {
            (format!("its part {}", equality.patched.label(part)), part, difference)
        }
    };
    let Some(orig) = equality.pairs.orig_of(at) else {
        return Explanation { function, place, offset: 0, orig: None, patched: None };
    };
    let offset = match difference {
        Difference::Contents { offset } => offset,
        Difference::Size => equality.orig.atom(orig).size().min(equality.patched.atom(at).size()),
        Difference::Entry { table } => {
            let place = format!("entry in {} of the {place}", table.section());
            return Explanation { function, place, offset: 0, orig: None, patched: None };
        }
    };
    let (left, right) = (Listing::of(equality.orig, orig), Listing::of(equality.patched, at));
    let (first, second) = match first_difference(equality, &left, &right) {
        Some(index) => (left.code.get(index), right.code.get(index)),
        None => (left.covering(offset), right.covering(offset)),
    };
    Explanation {
        function,
        place,
        offset: first.or(second).map_or(offset, |decoded| decoded.start - left.start),
        orig: first.map(|decoded| left.text(decoded)),
        patched: second.map(|decoded| right.text(decoded)),
    }
}

/// The instructions of one side.
struct Listing<'u, 'd> {
    unit: &'u Unit<'d>,
    atom: AtomId,
    start: u64,
    code: Vec<Decoded>,
    references: Vec<Reference<'d>>,
}

impl<'u, 'd> Listing<'u, 'd> {
    fn of(unit: &'u Unit<'d>, atom: AtomId) -> Self {
        let start = unit.atom(atom).start;
        let code = instructions(unit.bytes(atom), start).collect();
        Self { unit, atom, start, code, references: unit.references(atom) }
    }

    fn covering(&self, offset: u64) -> Option<&Decoded> {
        self.code.iter().find(|decoded| decoded.end > self.start + offset)
    }

    fn references_in(&self, decoded: &Decoded) -> &[Reference<'d>] {
        let first = self.references.partition_point(|reference| reference.reloc.offset < decoded.start);
        let end = self.references.partition_point(|reference| reference.reloc.offset < decoded.end);
        &self.references[first..end]
    }

    /// The instruction's bytes, zero where a relocation fills them in.
    fn masked(&self, decoded: &Decoded) -> Vec<u8> {
        let range = (decoded.start - self.start) as usize..(decoded.end - self.start) as usize;
        let mut bytes = self.unit.bytes(self.atom).get(range).unwrap_or_default().to_vec();
        for reference in self.references_in(decoded) {
            let start = (reference.reloc.offset - decoded.start) as usize;
            bytes
                .iter_mut()
                .skip(start)
                .take(width(reference.reloc.kind).unwrap_or(0) as usize)
                .for_each(|b| *b = 0);
        }
        bytes
    }

    /// The instruction as text, with what its relocations refer to.
    fn text(&self, decoded: &Decoded) -> String {
        let mut text = String::new();
        let mut formatter = GasFormatter::new();
        formatter.options_mut().set_space_after_operand_separator(true);
        formatter.options_mut().set_branch_leading_zeros(false);
        formatter.options_mut().set_uppercase_hex(false);
        // Addresses count from the start of the function.
        let mut instruction = decoded.instruction;
        if decoded.is_direct_branch() {
            instruction.set_near_branch64(instruction.near_branch64().wrapping_sub(self.start));
        }
        formatter.format(&instruction, &mut text);
        let mut line = format!("{:#x}: {text}", decoded.start - self.start);
        for reference in self.references_in(decoded) {
            line.push_str("  # ");
            line.push_str(&describe(self.unit, reference));
        }
        line
    }
}

/// The first instruction that says something else. Distances of jumps within the function are set aside: they
/// change with everything behind them. `None` if only those differ.
fn first_difference(
    equality: &Equality<'_, '_>,
    left: &Listing<'_, '_>,
    right: &Listing<'_, '_>,
) -> Option<usize> {
    let same = |a: &Decoded, b: &Decoded| {
        let (to, from) = (left.references_in(a), right.references_in(b));
        if to.is_empty() && from.is_empty() && a.is_direct_branch() && b.is_direct_branch() {
            return a.instruction.mnemonic() == b.instruction.mnemonic();
        }
        left.masked(a) == right.masked(b)
            && to.len() == from.len()
            && to.iter().zip(from).all(|(a, b)| equality.same_target(a.target, b.target, 0))
    };
    let common = left.code.iter().zip(&right.code).position(|(a, b)| !same(a, b));
    let shorter = left.code.len().min(right.code.len());
    common.or((left.code.len() != right.code.len()).then_some(shorter))
}

fn describe(unit: &Unit<'_>, reference: &Reference<'_>) -> String {
    let kind = kind_name(reference.reloc.kind);
    let with_offset = |name: &str, offset: i64| match offset {
        0 => format!("{name} ({kind})"),
        offset if offset < 0 => format!("{name}-{:#x} ({kind})", offset.unsigned_abs()),
        offset => format!("{name}+{offset:#x} ({kind})"),
    };
    match reference.target {
        Target::Undefined { name, offset } => with_offset(name, offset),
        Target::Absolute { value } => with_offset("", value as i64),
        Target::Section { section, offset } => with_offset(unit.section(section).name, offset),
        Target::Atom { atom, offset } => match unit.class(unit.atom(atom).section()) {
            Class::Strings => format!("{:?} ({kind})", text(unit, atom, offset)),
            _ => with_offset(&unit.label(atom), offset),
        },
    }
}
