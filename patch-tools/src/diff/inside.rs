//! Addresses inside of replaced functions that something else keeps.
//!
//! Whoever enters a function at its start gets to the new one. An address further inside does not: a table of
//! labels (`&&label`), or a table of places that the kernel has rewritten, goes on leading into the old code.
//! Constants that only replaced functions use come along, with addresses inside of the new code; anything
//! else that keeps such an address is refused.

use std::collections::HashSet;

use object::elf::STB_LOCAL;

use super::changes::{Changes, Sides};
use super::names::cold_parent;
use super::refusal::{Refusal, Refused, Subject};
use super::sections::{Class, is_freed};
use super::unit::{AtomId, Target, Unit};

/// What keeps addresses inside of replaced functions.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    /// Constants that come along, by their patched atoms.
    pub(crate) carried: HashSet<AtomId>,
    /// Everything else that has a counterpart, by that; each is refused.
    pub(crate) kept: HashSet<AtomId>,
    pub(crate) refused: Vec<Refused>,
}

/// Looks for them in the original: it is what the running kernel has.
pub(crate) fn find(sides: &Sides<'_, '_>, changes: &Changes) -> Inside {
    let mut found = Inside::default();
    let orig = sides.orig();
    let pairs = sides.equality.pairs;
    let patched = changes.functions.keys().chain(&changes.parts).copied();
    let replaced = Replaced::new(orig, patched.filter_map(|atom| pairs.orig_of(atom)).collect());
    for (keeper, function) in keepers(orig, &replaced) {
        let counterpart = pairs.patched_of(keeper);
        match counterpart.filter(|_| is_own_constant(orig, keeper, &replaced)) {
            Some(counterpart) => {
                found.carried.insert(counterpart);
            }
            // Without a counterpart and a name it is compared and carried by content, as jump tables are.
            None if counterpart.is_none() && is_content(orig, keeper) => {}
            None => {
                let reason = Refusal::PointsInside { function: orig.label(function) };
                found.kept.extend(counterpart);
                found.refused.push(Refused { subject: subject(orig, keeper), reason });
            }
        }
    }
    found
}

/// Functions that are replaced, with their cold parts.
struct Replaced {
    atoms: HashSet<AtomId>,
    sections: HashSet<usize>,
}

impl Replaced {
    fn new(unit: &Unit<'_>, functions: HashSet<AtomId>) -> Self {
        let names: HashSet<(&str, &str)> = functions.iter().map(|&atom| unit.full_name(atom)).collect();
        let mut atoms = functions;
        let cold = |atom: &AtomId| {
            cold_parent(unit.name(*atom)).is_some_and(|parent| {
                [unit.scope(*atom), ""].iter().any(|scope| names.contains(&(*scope, parent)))
            })
        };
        atoms.extend(unit.atoms().filter(|&atom| unit.is_function(atom)).filter(cold));
        let sections = atoms.iter().map(|&atom| unit.atom(atom).section()).collect();
        Self { atoms, sections }
    }

    /// Whether a place is inside of one: behind its start, or anywhere in a cold part, which nobody calls.
    fn has_inside(&self, unit: &Unit<'_>, atom: AtomId, offset: i64) -> bool {
        let entry = unit.entry(atom) as i64 - unit.atom(atom).start as i64;
        self.atoms.contains(&atom) && (offset > entry || cold_parent(unit.name(atom)).is_some())
    }
}

/// Everything but replaced functions that refers to the inside of one, each with one such function.
fn keepers(unit: &Unit<'_>, replaced: &Replaced) -> Vec<(AtomId, AtomId)> {
    let mut found = Vec::new();
    for keeper in referring(unit, &replaced.sections).filter(|atom| !replaced.atoms.contains(atom)) {
        let inside = unit.references(keeper).into_iter().find_map(|reference| match reference.target {
            Target::Atom { atom, offset } => replaced.has_inside(unit, atom, offset).then_some(atom),
            _ => None,
        });
        found.extend(inside.map(|function| (keeper, function)));
    }
    found
}

/// Code, data and tables with a relocation that names one of the sections.
fn referring<'u>(unit: &'u Unit<'_>, sections: &HashSet<usize>) -> impl Iterator<Item = AtomId> + 'u {
    let sections = sections.clone();
    let names_one = move |atom: &AtomId| {
        unit.relocations_of(*atom).any(|reloc| match unit.symbol(reloc.symbol).place {
            crate::elf::Place::Section(section) => sections.contains(&section),
            _ => false,
        })
    };
    let kept = |atom: &AtomId| {
        let class = unit.class(unit.atom(*atom).section());
        matches!(class, Class::Text | Class::Data | Class::Table) && !is_freed(unit.section_name(*atom))
    };
    unit.atoms().filter(kept).filter(names_one)
}

/// Whether nobody but the replaced functions can notice that there are two of it.
fn is_own_constant(unit: &Unit<'_>, data: AtomId, replaced: &Replaced) -> bool {
    let section = unit.section(unit.atom(data).section());
    let local = unit.atom(data).symbol().is_some_and(|symbol| unit.symbol(symbol).binding == STB_LOCAL);
    let constant = unit.class(section.index) == Class::Data && !section.is_writable();
    let refers = |atom: AtomId| {
        unit.references(atom)
            .iter()
            .any(|reference| matches!(reference.target, Target::Atom { atom, .. } if atom == data))
    };
    local
        && constant
        && referring(unit, &HashSet::from([section.index]))
            .filter(|&user| user != data && !replaced.atoms.contains(&user))
            .all(|user| !refers(user))
}

fn is_content(unit: &Unit<'_>, atom: AtomId) -> bool {
    unit.class(unit.atom(atom).section()) == Class::Data && unit.name(atom).is_empty()
}

fn subject(unit: &Unit<'_>, atom: AtomId) -> Subject {
    match unit.name(atom) {
        "" => Subject::Section(unit.section_name(atom).to_owned()),
        name => Subject::Symbol(name.to_owned()),
    }
}
