//! C sources compiled when a test runs, with the options that matter of a kernel build.
//!
//! A first line `/* options: … */` adds options for the compiler. A case with a file `beside.c` is about an object
//! that was linked from two sources.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod behaviour;
pub(crate) mod compilers;

use std::path::{Path, PathBuf};

use compilers::{Compiler, Records};

/// A directory of `tests/diff`.
pub(crate) struct Case {
    pub(crate) orig: Vec<u8>,
    pub(crate) patched: Vec<u8>,
    pub(crate) expected: String,
    pub(crate) symbols: Option<Vec<u8>>,
}

impl Case {
    pub(crate) fn load(name: &str) -> Self {
        Self::compiled_by(name, &Compiler::reference(), Records::Calls)
    }

    pub(crate) fn compiled_by(name: &str, compiler: &Compiler, records: Records) -> Self {
        let directory = sources().join(name);
        let read = |file: &str| std::fs::read_to_string(directory.join(file));
        let beside = read("beside.c").ok().map(|source| compile_by(&source, &[], compiler, records));
        let compiled = |file| {
            let source = read(file).expect(name);
            let options = source.lines().next().and_then(|line| line.strip_prefix("/* options: "));
            let options: Vec<&str> =
                options.unwrap_or_default().trim_end_matches(" */").split_whitespace().collect();
            let object = compile_by(&source, &options, compiler, records);
            match &beside {
                Some(beside) => behaviour::link(&[&object, beside]),
                None => object,
            }
        };
        Self {
            orig: compiled("orig.c"),
            patched: compiled("patched.c"),
            expected: read("expect.json").expect(name),
            symbols: read("symbols.txt").ok().map(String::into_bytes),
        }
    }
}

/// The directory with the cases.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff")
}

/// Compiles a source. Every one has the same name, since names of files end up in objects, unless it has a line
/// `/* file: other.c */`.
pub(crate) fn compile(source: &str, options: &[&str]) -> Vec<u8> {
    compile_by(source, options, &Compiler::reference(), Records::Calls)
}

/// The same by a compiler of choice.
pub(crate) fn compile_by(source: &str, options: &[&str], compiler: &Compiler, records: Records) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let unit = source
        .lines()
        .find_map(|line| line.strip_prefix("/* file: "))
        .map_or("unit", |name| name.trim_end_matches(" */").trim_end_matches(".c"));
    std::fs::write(directory.path().join(unit).with_extension("c"), source).unwrap();
    compiler.compile(directory.path(), unit, options, records);
    std::fs::read(directory.path().join(unit).with_extension("o")).unwrap()
}
