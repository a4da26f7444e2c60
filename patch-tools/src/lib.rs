//! Reading, checking, comparing and building kernel livepatch modules.
//!
//! Every module takes bytes and returns values; only `build` runs a compiler, and `signing` whoever has the keys. One line per module here:
//!
//! - [`build`]: from a source diff to a livepatch module: packages, kernel tree, compiler, run-pre matching
//! - [`check`]: whether a module would load into a kernel and patch what it says
//! - [`diff`]: what changed between two relocatable objects, and the part that a livepatch needs
//! - [`elf`]: a strict reader of ELF files; every bound is checked in this one place
//! - [`image`]: a kernel image without its debug package: kallsyms, exports with CRCs, BTF
//! - [`klp`]: writing the livepatch form of a module, which no linker writes
//! - [`module`]: what a `.ko` says about itself: functions patched, relocations, CRCs
//! - [`signing`]: private keys in files, under passphrases, and behind commands
//! - `versions`: what is known of versions of the kernel instead of being read from the one at hand

pub mod build;
pub mod check;
pub mod diff;
pub mod elf;
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
pub mod klp;
pub mod module;
pub mod signing;
mod versions;
