//! Inputs that nobody meant: every reader of what others wrote, under a fuzzer.
//!
//! | module | what |
//! |---|---|
//! | `targets` | the readers, and where their first inputs come from |
//! | `seeds` | inputs that are made and not kept: archives, objects, kernels |
//! | [`mutate`] | changes an input blindly, the same on every machine |
//!
//! The readers themselves are functions of bytes in the crates that own them (`manifests::fuzzing` and its like). Three
//! ways lead to them: `tests/replay.rs` reads the corpus on the ordinary build; `fuzz mutate` changes it blindly, on the
//! ordinary build too; `fuzz-coverage` is libFuzzer, led by what the inputs reach, and needs a build of its own.

#![forbid(unsafe_code)]

pub mod mutate;
pub mod random;
mod seeds;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub use targets::TARGETS;

/// Says which target `fuzz-coverage` runs.
pub const TARGET_VARIABLE: &str = "UPDATE_FUZZ_TARGET";

/// A reader under test.
#[derive(Debug)]
pub struct Target {
    /// What it is called on the command line; also the folder of its corpus.
    pub name: &'static str,
    run: fn(&[u8]),
    /// Folders of the source tree that have inputs for it, besides its own.
    folders: &'static [&'static str],
    /// Inputs that are made and not kept.
    made: fn() -> Vec<Vec<u8>>,
    /// The most bytes of an input that a fuzzer should try.
    pub longest: usize,
}

impl Target {
    /// The target with this name.
    ///
    /// # Errors
    /// If there is none; all names are listed.
    pub fn named(name: &str) -> Result<&'static Self> {
        TARGETS.iter().find(|target| target.name == name).with_context(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            format!("`{name}` is no target; there are {}", names.join(", "))
        })
    }

    /// Reads one input. It panics where the reader breaks a promise.
    pub fn run(&self, input: &[u8]) {
        (self.run)(input);
    }

    /// Every input to begin with, the smallest first.
    ///
    /// # Errors
    /// If a folder cannot be read or there are no inputs.
    pub fn corpus(&self) -> Result<Vec<Vec<u8>>> {
        let mut inputs = (self.made)();
        let own = source_tree().join("fuzz/corpus").join(self.name);
        // Where all inputs are made or are those of other tests, there is none.
        let own = own.is_dir().then_some(own);
        for folder in self.folders.iter().map(|folder| source_tree().join(folder)).chain(own) {
            inputs.extend(files_below(&folder)?);
        }
        ensure!(!inputs.is_empty(), "{} has no inputs to begin with", self.name);
        inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        inputs.dedup();
        Ok(inputs)
    }
}

fn source_tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate has a workspace around it")
}

/// Contents of all files below a folder, or of the one file.
fn files_below(path: &PathBuf) -> Result<Vec<Vec<u8>>> {
    let found = || format!("reading {}", path.display());
    if path.is_file() {
        return Ok(vec![fs::read(path).with_context(found)?]);
    }
    let mut contents = Vec::new();
    for entry in fs::read_dir(path).with_context(found)? {
        contents.extend(files_below(&entry?.path())?);
    }
    Ok(contents)
}
