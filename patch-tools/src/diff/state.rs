//! Live state that a change would lose.
//!
//! Where the patched functions use a new variable instead of one that the running kernel has, the new one
//! starts with its initial value, and what the old one has counted or listed is forgotten. Names do not tell:
//! a variable may be renamed, move into a function or out of it, and get another shape on the way. So the
//! rule is about what is there: a variable that the changed functions no longer use, together with new
//! writable data that they use now, is taken for a replacement. Functions that exist on one side only belong
//! to those that call them.

use std::collections::HashSet;

use super::changes::{Sides, is_cold};
use super::duplicated::is_duplicated;
use super::names::variable;
use super::sections::{Class, is_freed};
use super::unit::{AtomId, Target, Unit};

/// Variables of the original that give way to new ones, and one of the new ones.
pub(crate) fn replaced(sides: &Sides<'_, '_>, changed: &[AtomId]) -> Option<(Vec<AtomId>, AtomId)> {
    let pairs = sides.equality.pairs;
    let originals: Vec<AtomId> = changed.iter().filter_map(|&atom| pairs.orig_of(atom)).collect();
    let mut gone = alone(sides.orig(), &originals, |atom| pairs.patched_of(atom).is_none());
    // Static locals that vanish have a rule of their own.
    gone.retain(|&atom| !variable(sides.orig().name(atom)).numbered);
    if gone.is_empty() {
        return None;
    }
    let new = alone(sides.patched(), changed, |atom| pairs.orig_of(atom).is_none());
    Some((gone, *new.first()?))
}

/// Named writable variables without a counterpart that functions use, themselves and through other things
/// without a counterpart.
fn alone(unit: &Unit<'_>, functions: &[AtomId], is_alone: impl Fn(AtomId) -> bool) -> Vec<AtomId> {
    let mut seen: HashSet<AtomId> = functions.iter().copied().collect();
    let mut queue = functions.to_vec();
    let mut found = Vec::new();
    while let Some(atom) = queue.pop() {
        for reference in unit.references(atom) {
            let Target::Atom { atom: target, .. } = reference.target else { continue };
            let section = unit.section(unit.atom(target).section());
            let class = unit.class(section.index);
            let belongs = is_alone(target) || (unit.is_function(target) && is_cold(unit, target));
            if !belongs || !matches!(class, Class::Text | Class::Data) || !seen.insert(target) {
                continue;
            }
            queue.push(target);
            let variable = class == Class::Data && section.is_writable() && !is_freed(section.name);
            if variable && !unit.name(target).is_empty() && !is_duplicated(unit, target) {
                found.push(target);
            }
        }
    }
    found.sort_unstable();
    found
}
