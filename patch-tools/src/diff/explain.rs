//! Why a function counts as changed, down to the first instruction that differs.

use std::fmt;

use iced_x86::{Formatter as _, GasFormatter};
use serde::Serialize;

use super::changes::Reason;
use super::equality::{Difference, Equality};
use super::layout::kind_name;
use super::sections::Class;
use super::unit::code::instructions;
use super::unit::{AtomId, Reference, Target, Unit};

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
    Explanation {
        function,
        place,
        offset,
        orig: instruction_at(equality.orig, orig, offset),
        patched: instruction_at(equality.patched, at, offset),
    }
}

/// The instruction that covers an offset, as text, with what its relocations refer to.
fn instruction_at(unit: &Unit<'_>, atom: AtomId, offset: u64) -> Option<String> {
    let start = unit.atom(atom).start;
    let position = start + offset;
    let decoded = instructions(unit.bytes(atom), start).find(|decoded| decoded.end > position)?;
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.format(&decoded.instruction, &mut text);
    let mut line = format!("{:#x}: {text}", decoded.start - start);
    for reference in unit.references(atom) {
        if (decoded.start..decoded.end).contains(&reference.reloc.offset) {
            line.push_str("  # ");
            line.push_str(&describe(unit, &reference));
        }
    }
    Some(line)
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
            Class::Strings => {
                let bytes = usize::try_from(offset).ok().and_then(|offset| unit.bytes(atom).get(offset..));
                let text = bytes.and_then(|bytes| bytes.split(|&byte| byte == 0).next()).unwrap_or_default();
                format!("{:?} ({kind})", String::from_utf8_lossy(text))
            }
            _ => with_offset(&unit.label(atom), offset),
        },
    }
}
