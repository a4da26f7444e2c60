//! Static locals that are never matched with the running ones, but duplicated: once-flags, limits and lock
//! classes of one call site, texts, and tables that the compiler made from code.
//!
//! The kernel's macros give them their names, but anybody may call a variable `descriptor`. So the section
//! and the shape have to be what the macro makes of it; another variable of the name is live state, and
//! pairs like any other. State that a macro keeps under a name of its own, such as `___done` of `DO_ONCE`,
//! is not duplicated: what was done once, such as drawing a secret, must not be done again.

use super::names::variable;
use super::sections::{base, holds_descriptors};
use super::unit::{AtomId, Unit};
use crate::versions::{LOCK_CLASS, RATELIMIT};

/// What a duplicated variable is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Texts, descriptions and keys: nothing that a copy would lose.
    Stateless,
    /// Whether something was told, and how often: the patch starts anew.
    Counts,
}

/// Whether an atom is such a variable.
pub(crate) fn is_duplicated(unit: &Unit<'_>, atom: AtomId) -> bool {
    purpose(unit, atom).is_some()
}

/// Whether it is one, and a copy forgets what the running one knows.
pub(crate) fn starts_anew(unit: &Unit<'_>, atom: AtomId) -> bool {
    purpose(unit, atom) == Some(Purpose::Counts)
}

fn purpose(unit: &Unit<'_>, atom: AtomId) -> Option<Purpose> {
    let stem = variable(unit.name(atom));
    if !stem.numbered {
        return None;
    }
    let section = unit.section(unit.atom(atom).section());
    if holds_descriptors(section.name) {
        return Some(Purpose::Stateless);
    }
    let size = unit.atom(atom).size();
    let (fits, purpose) = match &*stem.text {
        "__func__"
        | "__FUNCTION__"
        | "__PRETTY_FUNCTION__"
        | "CSWTCH"
        | "switch.table"
        | "_entry"
        | "_entry_ptr" => (!section.is_writable(), Purpose::Stateless),
        "__key" => {
            let fits = LOCK_CLASS.contains(&size) && (size == 0 || base(section.name) == ".bss");
            (fits, Purpose::Stateless)
        }
        "__warned" | "__already_done" | "__print_once" => {
            let kept = [".data.once", ".data..once", ".data.unlikely", ".data..read_mostly"];
            (size == 1 && kept.contains(&section.name), Purpose::Counts)
        }
        "_rs" => (size >= RATELIMIT && base(section.name) == ".data", Purpose::Counts),
        // What `-fsanitize-coverage` compares the operand of a `switch` with.
        text if text.starts_with("__sancov_gen_") => (true, Purpose::Stateless),
        _ => return None,
    };
    fits.then_some(purpose)
}
