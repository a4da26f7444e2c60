//! Compares an original and a patched relocatable object.
//!
//! - [`symbols`]: the symbols of the running objects, from kallsyms, readelf, ELF or an image
//! - [`Report`] and its parts: what was found, as plain values
//! - [`Refusal`]: the rules that a change must keep
//!
//! The comparison itself lands next, in this shape:
//!
//! ```ignore
//! pub struct Options<'o> {
//!     pub object: ObjectName,                       // the object that the file is part of
//!     pub symbols: Option<&'o SymbolTable>,         // symbols and exports of the running objects
//!     pub provided: &'o BTreeSet<String>,           // new globals of the patch's other files
//!     pub addresses: &'o BTreeMap<String, u64>,     // local symbols that run-pre matching has located
//! }
//! pub fn new_globals(orig: &[u8], patched: &[u8]) -> Result<Vec<String>, DiffError>;
//! pub fn compare<'d>(orig: &'d [u8], patched: &'d [u8], options: &Options<'_>) -> Result<Diff<'d>, DiffError>;
//! impl Diff<'_> {
//!     pub fn report(&self) -> &Report;
//!     pub fn emit(&self) -> Result<Vec<u8>, EmitError>;   // input of `ld -r`; klp symbols still undefined
//!     pub fn explain(&self, function: &str) -> Option<Explanation>;
//! }
//! // crate::klp: after `ld -r` and modpost
//! pub fn finish(module: &[u8]) -> Result<Vec<u8>, FinishError>;
//! ```
//!
//! A patch author's header marks callbacks by a pointer to the function in a section
//! `.update.callbacks.pre_patch` (and `post_patch`, `pre_unpatch`, `post_unpatch`), and functions to
//! replace although they look the same, or to leave alone, by a pointer in `.update.force` or
//! `.update.ignore`.

mod refusal;
mod report;
pub mod symbols;

pub use refusal::{Refusal, Refused, Subject};
pub use report::{
    Callback, CallbackKind, Ignored, IgnoredReason, KlpRelocation, Replacement, Report, Verdict,
};
