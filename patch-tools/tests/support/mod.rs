//! Fixtures: modules compiled from `tests/modules/*/module.c` when a test runs.
//!
//! Kernel headers are not needed: `livepatch.h` declares the few structures. A first line `/* flags: … */` adds
//! flags for the compiler.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod kernel;

use std::path::{Path, PathBuf};
use std::process::Command;

use patch_tools::module::Module;

/// The directory with the sources.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules")
}

/// Names of all fixtures.
pub(crate) fn fixtures() -> Vec<String> {
    let entries = std::fs::read_dir(sources()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The bytes of a fixture, compiled the way kernel code is.
pub(crate) fn compile(name: &str) -> Vec<u8> {
    let source = sources().join(name).join("module.c");
    let text = std::fs::read_to_string(&source).unwrap();
    let own = text.lines().next().and_then(|line| line.strip_prefix("/* flags: ")).unwrap_or_default();
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("module.o");
    let output = Command::new("gcc")
        .args(["-c", "-O2", "-g0", "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=kernel"])
        .args(["-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"])
        .args(own.trim_end_matches(" */").split_whitespace())
        .arg("-I")
        .arg(sources())
        .arg("-o")
        .arg(&object)
        .arg(&source)
        .output()
        .expect("gcc is needed to compile the fixtures");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(object).unwrap()
}

/// A fixture, read.
pub(crate) fn module(name: &str) -> Module {
    Module::parse(&compile(name)).unwrap()
}
