//! For the tidy tests of all crates: which lines of a pure room name the operating system.
//!
//! A room is pure when the same values in give the same values out. So its sources may not even name what reads a
//! file, a clock, the environment or the network; its tests may. Comments are not looked at.

use std::fs;
use std::path::{Path, PathBuf};

/// What no pure room names.
const IMPURE: [&str; 11] = [
    "std::fs",
    "std::process",
    "std::net",
    "std::env",
    "std::thread",
    "std::io::std",
    "nix::",
    "libc",
    "Instant",
    "SystemTime",
    "system::command",
];

/// The lines of these files, and of the files in these directories, that name the operating system: `FILE:LINE: TEXT`.
pub(crate) fn impure_lines(rooms: &[&str]) -> Vec<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for room in rooms {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join(room);
        let before = files.len();
        collect(&room, &mut files);
        assert!(files.len() > before, "{} holds no source", room.display());
    }
    files
        .iter()
        .flat_map(|file| judge(&file.display().to_string(), &fs::read_to_string(file).unwrap()))
        .collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.for_each(|entry| collect(&entry, files));
    } else if path.extension().is_some_and(|end| end == "rs") && !path.to_string_lossy().ends_with("tests.rs")
    {
        files.push(path.to_owned());
    }
}

fn judge(name: &str, source: &str) -> Vec<String> {
    let code = source.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let named = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        // `use std::{fs, io}` names it as well.
        let grouped = code.contains("std::{")
            && ["fs", "net", "env", "process"].iter().any(|name| has_word(code, name));
        grouped || IMPURE.iter().any(|word| names(code, word))
    };
    (1..)
        .zip(code)
        .filter(|(_, line)| named(line))
        .map(|(at, line)| format!("{name}:{at}: {}", line.trim()))
        .collect()
}

/// `nix::` is not named by `unix::`.
fn names(code: &str, word: &str) -> bool {
    let begins = |at: usize| !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    code.match_indices(word).any(|(at, _)| begins(at))
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == word)
}

#[test]
fn a_line_that_names_the_operating_system_is_told_with_its_place() {
    let source = "use std::path::Path;\nuse std::os::unix::ffi::OsStrExt;\n// std::fs in a comment\nuse std::fs::read;\nuse std::{io, env};\n\
                  let now = Instant::now();\n#[cfg(test)]\nuse std::fs;\n";
    let told = judge("a.rs", source);
    assert_eq!(
        told,
        ["a.rs:4: use std::fs::read;", "a.rs:5: use std::{io, env};", "a.rs:6: let now = Instant::now();"]
    );
}
