//! C sources compiled when a test runs, with the options that matter of a kernel build.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;
use std::process::Command;

/// The options of a stock x86-64 kernel that shape its objects, and those that the differ needs.
const OPTIONS: &[&str] = &[
    "-c",
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-pic",
    "-fno-pie",
    "-fno-common",
    "-fno-strict-aliasing",
    "-fshort-wchar",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-sse",
    "-pg",
    "-mfentry",
    "-mrecord-mcount",
    "-ffunction-sections",
    "-fdata-sections",
    "-w",
];

/// A directory of `tests/diff`.
pub(crate) struct Case {
    pub(crate) orig: Vec<u8>,
    pub(crate) patched: Vec<u8>,
    pub(crate) expected: String,
    pub(crate) symbols: Option<Vec<u8>>,
}

impl Case {
    pub(crate) fn load(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff").join(name);
        let read = |file: &str| std::fs::read_to_string(directory.join(file));
        Self {
            orig: compile(&read("orig.c").expect(name), &[]),
            patched: compile(&read("patched.c").expect(name), &[]),
            expected: read("expect.json").expect(name),
            symbols: read("symbols.txt").ok().map(String::into_bytes),
        }
    }
}

/// Compiles a source; every one has the same name, since names of files end up in objects.
pub(crate) fn compile(source: &str, options: &[&str]) -> Vec<u8> {
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("unit.c"), source).unwrap();
    let output = Command::new("gcc")
        .args(OPTIONS)
        .args(options)
        .arg("-I")
        .arg(headers)
        .args(["-o", "unit.o", "unit.c"])
        .current_dir(directory.path())
        .output()
        .expect("gcc is needed to compile the cases");
    assert!(output.status.success(), "{}\n{source}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(directory.path().join("unit.o")).unwrap()
}
