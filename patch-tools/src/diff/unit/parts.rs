//! Whose part a cold part is: `foo.cold` is of `foo`, and where there are several of that name, as in an object
//! that was linked from several sources, of the one that jumps to it.

use std::collections::HashMap;

use super::{AtomId, Target, Unit};
use crate::diff::names::cold_parent;

/// For each cold part the function that it was split off.
pub(super) fn find(unit: &Unit<'_>) -> HashMap<AtomId, AtomId> {
    let functions = || unit.atoms().filter(|&atom| unit.is_function(atom));
    let mut parts: Vec<(AtomId, &str)> = Vec::new();
    parts.extend(functions().filter_map(|atom| Some((atom, cold_parent(unit.name(atom))?))));
    if parts.is_empty() {
        return HashMap::new();
    }
    let mut named: HashMap<(&str, &str), Vec<AtomId>> = HashMap::new();
    for function in functions() {
        named.entry(unit.full_name(function)).or_default().push(function);
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
