//! There is one way to files of other processes, `files::foreign`: no other source may lead to them.

use std::fs;
use std::path::{Path, PathBuf};

/// What leads from a process to its files.
const WAYS: [&str; 6] = ["map_files", "/root", "/exe", "/cwd", "/fd/", "/fd\""];

/// Who may name them, and why.
const ALLOWED: [(&str, &str); 4] = [
    ("workloads/src/files/foreign.rs", "the one way"),
    ("workloads/src/criu/obstacles/descriptors.rs", "asks what descriptors are, and opens nothing"),
    ("workloads/src/packages/dpkg.rs", "its own descriptor, for a program to read from"),
    ("system/src/capture.rs", "its own descriptor, for a program to write to"),
];

/// What opens or reads a file by its path.
const OPENS: [&str; 5] = ["File::open", "OpenOptions", "File::options", "fs::read(", "read_to_string"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of code that name a way from a process to its files.
fn ways(code: &str) -> Vec<&str> {
    let without_tests = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = without_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.filter(|line| line.contains("\"/proc/{") && WAYS.iter().any(|way| line.contains(way))).collect()
}

#[test]
fn no_source_but_one_leads_to_files_of_other_processes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for room in ["system/src", "workloads/src", "updater/src"] {
        sources(&root.join(room), &mut files);
    }
    assert!(files.len() > 100, "only {} sources", files.len());
    let mut seen = Vec::new();
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        let found = ways(&code);
        if name.ends_with("tests.rs") || found.is_empty() {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(allowed, _)| *allowed == name);
        assert!(allowed.is_some(), "{name} leads to files of processes; files::foreign does: {found:#?}");
        seen.push(name.to_owned());
    }
    seen.sort();
    let mut expected = ALLOWED.map(|(name, _)| name.to_owned());
    expected.sort();
    assert_eq!(seen, expected, "who no longer needs to is no longer allowed to");
}

#[test]
fn who_asks_what_descriptors_are_opens_none() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/criu/obstacles/descriptors.rs");
    let code = fs::read_to_string(file).unwrap();
    for line in ways(&code) {
        assert!(!OPENS.iter().any(|open| line.contains(open)), "{line}");
    }
    assert!(!code.contains("File::open") && !code.contains("OpenOptions"));
}

#[test]
fn a_third_way_would_be_seen() {
    for line in [
        r#"let file = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))?;"#,
        r#"let root = PathBuf::from(format!("/proc/{pid}/root"));"#,
        r#"fs::read(format!("/proc/{}/exe", pid))"#,
        r#"File::open(format!("/proc/{pid}/fd/{number}"))"#,
    ] {
        assert_eq!(ways(line), [line]);
    }
    assert!(ways(r#"fs::read(format!("/proc/{pid}/status"))"#).is_empty());
}
