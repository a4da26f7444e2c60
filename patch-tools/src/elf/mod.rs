//! A strict reader of ELF64 x86-64 files: what every other part trusts for bounds.
//!
//! [`Elf::parse`] checks the header, the section table, every section's extent and the symbol table once, so
//! that what it hands out needs no further checks. It reads bytes that are already in memory, never
//! panics, and allocates at most in proportion to the file. The layouts are those of the `object` crate;
//! the checks are our own because a [`Malformed`] names the offset and the [`Rule`] that is broken.
//!
//! It does not apply relocations and does not know what a section means: see [`crate::module`] and
//! [`crate::image`].

pub(crate) mod entries;
mod file;
mod malformed;

pub use file::{Elf, MAX_SECTIONS, MAX_SYMBOLS, Place, Relocation, Section, Symbol};
pub use malformed::{Malformed, Rule};
