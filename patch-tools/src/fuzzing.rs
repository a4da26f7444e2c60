//! For the fuzzer alone: the readers of files, each as a function of bytes. Hidden, and no part of what this crate
//! promises.
//!
//! A target panics where a promise of its reader does not hold: a refusal points into the file.

use crate::build::patch::{Line, Patch};
use crate::check::ObjectFacts;
use crate::elf::{Elf, Malformed};
use crate::image::{ImageError, KernelImage};
use crate::module::Module;

/// An ELF file with all that it refers to.
pub fn elf(bytes: &[u8]) {
    match Elf::parse(bytes) {
        Ok(elf) => {
            for section in elf.sections() {
                if let Err(error) = elf.relocations(section) {
                    points_into(&error, bytes);
                }
            }
        }
        Err(error) => points_into(&error, bytes),
    }
}

/// A kernel module.
pub fn module(bytes: &[u8]) {
    let facts = ObjectFacts::parse(bytes);
    match Module::parse(bytes) {
        Ok(module) => drop(serde_json::to_string(&module).expect("what was read can be written")),
        Err(error) => {
            points_into(&error, bytes);
            assert!(facts.is_err(), "{error}");
        }
    }
}

/// A kernel image, packed or not.
pub fn image(bytes: &[u8]) {
    match KernelImage::parse(bytes) {
        Ok(image) => {
            if let Ok(Some(btf)) = image.btf() {
                btf.structure_names().for_each(|name| drop(btf.structure(name)));
            }
            let _ = image.livepatch_layout();
        }
        // Of a packed kernel it points into what was unpacked.
        Err(ImageError::Malformed(error)) if bytes.starts_with(b"\x7fELF") => points_into(&error, bytes),
        Err(error) => drop(error.to_string()),
    }
}

/// A patch of sources, applied to a file that it may fit.
pub fn patch(bytes: &[u8]) {
    match Patch::parse(bytes) {
        Ok(patch) => {
            for file in &patch.files {
                let _ = file.locate(|name| name.len() % 2 == 0);
                let _ = file.apply(bytes).map_err(|error| error.to_string());
                // A file that has what it wants to find.
                let lines = file.hunks.iter().flat_map(|hunk| &hunk.lines);
                let old: Vec<u8> = lines
                    .filter_map(|line| match line {
                        Line::Context(text) | Line::Removed(text) => Some(text.as_slice()),
                        Line::Added(_) => None,
                    })
                    .collect::<Vec<_>>()
                    .concat();
                let _ = file.apply(&old).map_err(|error| error.to_string());
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

fn points_into(error: &Malformed, bytes: &[u8]) {
    assert!(error.offset <= bytes.len() as u64, "{error} in a file of {:#x} bytes", bytes.len());
}
