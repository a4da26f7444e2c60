//! Writing the livepatch form of a module: the relocations and symbols that no linker writes.
//!
//! - [`write`](mod@write): a relocatable ELF file from sections, symbols and relocations
//! - [`names`]: how such a symbol is called, before and after linking
//! - [`finish()`]: turns a linked module into its final form
//!
//! The comparison emits an object whose references to the running kernel are undefined symbols with an
//! [intermediate name](names). `ld -r` carries those along like any other. After linking, [`finish()`] moves
//! their relocations to `.klp.rela.<object><section>` and gives the symbols their final names and the
//! section index `SHN_LIVEPATCH`, as `Documentation/livepatch/module-elf-format.rst` lays down.

pub mod names;
pub mod write;

mod finish;

pub use finish::{FinishError, finish};
