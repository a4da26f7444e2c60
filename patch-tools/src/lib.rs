//! Reading, checking, comparing and building kernel livepatch modules.
//!
//! Every module takes bytes and returns values; only `build` runs a compiler. One line per module here:
//!
//! - [`elf`]: a strict reader of ELF files; every bound is checked in this one place
//! - [`module`]: what a `.ko` says about itself: functions patched, relocations, CRCs

pub mod elf;
pub mod module;
