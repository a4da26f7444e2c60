//! Data without a symbol that no code or data of the file refers to, such as a table that file-level
//! assembler writes for the linker to collect.
//!
//! What refers to unnamed data compares it by content. This is about the rest: nothing would notice that it
//! changed. Its pieces have no identity but their order in a section, so they are compared in that order.

use std::collections::BTreeMap;

use super::equality::Equality;
use super::unit::AtomId;

/// The sections in which such data differs.
pub(crate) fn changed_sections<'d>(equality: &Equality<'_, 'd>) -> Vec<&'d str> {
    let (orig, patched) = (equality.orig, equality.patched);
    let mut sections: BTreeMap<&str, [Vec<AtomId>; 2]> = BTreeMap::new();
    let [unused_orig, unused_patched] = equality.unused_unnamed_data();
    for (side, unit, atoms) in [(0, orig, unused_orig), (1, patched, unused_patched)] {
        for atom in atoms.into_iter().filter(|&atom| !unit.is_diagnostic(atom)) {
            sections.entry(unit.section_name(atom)).or_default()[side].push(atom);
        }
    }
    let same = |[left, right]: &[Vec<AtomId>; 2]| {
        left.len() == right.len()
            && left.iter().zip(right).all(|(&a, &b)| equality.difference(a, b).is_none())
    };
    sections.retain(|_, atoms| !same(atoms));
    sections.into_keys().collect()
}
