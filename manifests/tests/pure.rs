//! This crate is bytes in, values out: no file, clock, environment, process or network.

use std::fs;
use std::path::{Path, PathBuf};

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

#[test]
fn no_source_names_the_host() {
    let mut paths = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    assert!(paths.len() > 15);
    let host = [
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "std::os",
        "TcpStream",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
    ];
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for word in host {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}
