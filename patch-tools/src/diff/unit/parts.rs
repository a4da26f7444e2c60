//! Whose part a cold part is: `foo.cold` is of `foo`, and where there are several of that name, as in an object
//! that was linked from several sources, of the one that jumps to it. A module's `foo` that is also `init_module` is
//! known by the alias, and its part has the other name: so every symbol of a function is looked at.

use std::collections::HashMap;

use object::elf::STT_FUNC;

use super::{AtomId, Target, Unit};
use crate::diff::names::cold_parent;
use crate::elf::Place;

/// For each cold part the function that it was split off.
pub(super) fn find(unit: &Unit<'_>) -> HashMap<AtomId, AtomId> {
    let functions = || unit.atoms().filter(|&atom| unit.is_function(atom));
    let mut parts: Vec<(AtomId, &str)> = Vec::new();
    parts.extend(functions().filter_map(|atom| Some((atom, cold_parent(unit.name(atom))?))));
    if parts.is_empty() {
        return HashMap::new();
    }
    let mut named: HashMap<(&str, &str), Vec<AtomId>> = HashMap::new();
    for (index, symbol) in unit.elf().symbols().iter().enumerate() {
        if symbol.kind != STT_FUNC {
            continue;
        }
        let Place::Section(section) = symbol.place else { continue };
        let Some(function) = unit.atom_at(section, symbol.value as i64) else { continue };
        let known = named.entry((unit.scope_of(index), symbol.name)).or_default();
        if !known.contains(&function) {
            known.push(function);
        }
    }
    let jumps = |from: AtomId, to: AtomId| {
        let mut references = unit.references(from).into_iter();
        references.any(|reference| matches!(reference.target, Target::Atom { atom, .. } if atom == to))
    };
    let parent = |part: AtomId, name: &str| {
        // The part of a global function is local.
        let candidates = [unit.scope(part), ""].iter().find_map(|scope| named.get(&(*scope, name)))?;
        match candidates[..] {
            [only] => Some(only),
            _ => candidates.iter().copied().find(|&function| jumps(function, part)),
        }
    };
    parts.into_iter().filter_map(|(part, name)| Some((part, parent(part, name)?))).collect()
}
