//! This crate is bytes in, values out: no file, clock, environment, process or network.
//!
//! Its one word with the operating system is `getrandom`, for new keys.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of `std` that are the host. (`net` and `time` hold plain values, too: addresses, durations.)
const HOST: [&str; 5] = ["env", "fs", "os", "process", "thread"];

/// What else would reach for it: crates by name, sockets, and clocks.
const WORDS: [&str; 13] = [
    "libc::",
    "nix::",
    "rustix::",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
    "File::open",
    "stdin()",
];

/// Rust files below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// What a source names of the host, comments left out.
fn named(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .flat_map(|line| [line.trim(), " "])
        .collect();
    let mut found: Vec<String> =
        WORDS.iter().filter(|word| code.contains(*word)).map(ToString::to_string).collect();
    for (at, _) in code.match_indices("std::") {
        let rest = &code[at + "std::".len()..];
        let paths = match rest.strip_prefix('{') {
            Some(group) => group.split_once('}').map_or(group, |(inside, _)| inside).split(',').collect(),
            None => vec![rest],
        };
        for path in paths {
            let first = path.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            if HOST.contains(&first) {
                found.push(format!("std::{first}"));
            }
        }
    }
    found
}

#[test]
fn no_source_names_the_host() {
    let mut paths = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    assert!(paths.len() > 15);
    for path in paths {
        let found = named(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{} names {found:?}", path.display());
    }
}

#[test]
fn the_host_is_found_however_it_is_named() {
    for source in [
        "use std::fs;",
        "use std::{fmt, fs};",
        "use std::{\n    fmt,\n    process::Command,\n};",
        "let now = std::time::Instant::now();",
        "fn f() { std::env::var(\"A\"); }",
        "use std::os::unix::fs::MetadataExt as _;",
        "let pid = nix::unistd::getpid();",
        "let now = jiff::Timestamp::now();",
    ] {
        assert!(!named(source).is_empty(), "{source}");
    }
    for source in [
        "use std::fmt;",
        "use std::{fmt, io, net::IpAddr, time::Duration};",
        "// not std::fs",
        "/// As `std::fs::read`.",
        "let env = 1;",
    ] {
        assert!(named(source).is_empty(), "{source}");
    }
}

#[test]
fn no_dependency_is_the_host() {
    let cargo = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let own = cargo.split_once("[dependencies]").unwrap().1.split_once("\n[").unwrap().0;
    for host in ["libc", "nix", "rustix", "tempfile", "rusqlite", "reqwest", "tokio", "signal-hook"] {
        assert!(!own.lines().any(|line| line.starts_with(host)), "{host}");
    }
}
