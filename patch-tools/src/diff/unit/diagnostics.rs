//! Data that clang makes for UBSAN: a place in the source and the types that are involved, without a symbol.
//!
//! GCC gives such data sections of its own (`.data..Lubsan_data12`), clang those of any unnamed data
//! (`.data..L__unnamed_12`). What it is for shows where it is used: the reporting functions get its address.

use std::collections::HashSet;

use super::{AtomId, Target, Unit};
use crate::diff::sections::Class;

/// Unnamed data whose address goes to reporting functions only.
pub(super) fn find(unit: &Unit<'_>) -> HashSet<AtomId> {
    if !unit.sections().iter().any(|section| section.name.starts_with(".data..L__unnamed_")) {
        return HashSet::new();
    }
    let is_unnamed = |atom: AtomId| {
        unit.name(atom).is_empty() && unit.section_name(atom).starts_with(".data..L__unnamed_")
    };
    let (mut reported, mut used) = (HashSet::new(), HashSet::new());
    for atom in unit.atoms() {
        let is_code = unit.class(unit.atom(atom).section()) == Class::Text;
        // Since the last call; they are its arguments.
        let mut loaded = Vec::new();
        for reference in unit.references(atom) {
            match reference.target {
                Target::Atom { atom: data, .. } if is_unnamed(data) && is_code => loaded.push(data),
                Target::Atom { atom: data, .. } if is_unnamed(data) => used.extend([data]),
                Target::Undefined { name, .. } if reference.branch && name.starts_with("__ubsan_handle_") => {
                    reported.extend(loaded.drain(..));
                }
                _ if reference.branch => used.extend(loaded.drain(..)),
                _ => {}
            }
        }
        used.extend(loaded);
    }
    reported.retain(|atom| !used.contains(atom));
    reported
}
