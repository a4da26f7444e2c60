//! From a source diff to a livepatch module, with the distribution's packages alone.
//!
//! [`build`] takes a [`Request`] and returns the module, a manifest fragment and a provenance record. Unlike
//! two builds of a whole kernel it compiles only the units that the patch affects, each twice, and it proves
//! that what it compiled is what runs by comparing it with the shipped image.
//!
//! | step | module |
//! |---|---|
//! | find packages, unpack them | [`packages`], [`apt`], `debian`, `deb`, [`kernel`] |
//! | put the compiler in place | [`root`] |
//! | prepare the kernel's tree, once | [`tree`], [`cache`] |
//! | read the patch, apply it beside the tree | [`patch`], `overlay` |
//! | find the affected units | [`units`], [`kbuild`] |
//! | compile them, original and patched | [`compile`], [`abi`] |
//! | match the originals with the shipped code | [`runpre`], `objects` |
//! | compare original and patched, code and types | [`crate::diff`], [`layout`] |
//! | link, write the livepatch parts | [`link`], [`crate::klp`] |
//! | describe the result | [`component`], [`provenance`], [`report`], [`failure`] |
//! | do it for many kernels, write the manifest | [`release`] |
//! | build again and compare | [`verify`] |
//! | find what a reviewer should look at | [`lint`] |
//!
//! `analysis` has the order up to the comparison, `pipeline` the rest; [`process`] is the only place that starts programs.

pub mod abi;
mod analysis;
pub mod apt;
pub mod cache;
pub mod compile;
pub mod component;
mod deb;
mod debian;
pub mod digest;
pub mod error;
pub mod failure;
mod jobs;
pub mod kbuild;
pub mod kernel;
pub mod layout;
pub mod link;
pub mod lint;
mod objects;
mod overlay;
pub mod packages;
mod padding;
pub mod patch;
mod pipeline;
pub mod process;
pub mod progress;
pub mod provenance;
pub mod release;
pub mod report;
mod request;
pub mod root;
pub mod runpre;
pub mod tree;
pub mod units;
pub mod verify;

pub use error::{BuildError, Refusal};
pub use pipeline::{Built, build};
pub use request::{PatchInput, Request, subject_of};
