//! The data layout of a unit before and after a patch.
//!
//! Objects that are alive when a livepatch is loaded keep the layout they were made with, and neither the compiler nor
//! the comparison of code sees that: a member more shifts offsets in functions, all of which can be replaced. So a
//! type that changes is refused, and so is a variable that gets another type: it keeps its value. Types come from the
//! DWARF of both versions (`types`); `changes` tells how two layouts differ.
//!
//! A patch author who knows that no object of the old layout outlives the transition says so with
//! `LIVEPATCH_LAYOUT(struct name)`, which leaves the name in a section of the patched object.
//!
//! Types are found again by name, enumerations by the names of their values. A structure that changes and gets another
//! name is only seen where something that keeps its name refers to it.

mod changes;
mod types;

pub use types::TypesError;

pub(super) use changes::{Change, changes};
pub(super) use types::{Types, read};

use crate::elf::{Elf, Malformed};

/// Where `LIVEPATCH_LAYOUT` leaves names, each ended by a zero byte.
const ACCEPTED: &str = ".update.layout";

/// The types whose change the author of the patch answers for, named as in a [`Change`].
pub(super) fn accepted(patched: &[u8]) -> Result<Vec<String>, Malformed> {
    let elf = Elf::parse(patched)?;
    let sections = elf.sections().iter().filter(|section| section.name == ACCEPTED);
    let names = sections.flat_map(|section| section.data.split(|byte| *byte == 0));
    Ok(names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}
