//! Documents that are no manifests, policies or revocations, one file per lie, and the words they are
//! refused with.
//!
//! Each lie is `truth.yaml` with one thing wrong, so a refusal is for that thing.

#![expect(clippy::disallowed_methods, reason = "a test reads its fixtures")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use manifests::{Manifest, Policy, Revocation};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// An error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, " / {error}");
        cause = error.source();
    }
    line
}

/// What the files of `folder` are refused with, one line each.
fn refusals<T, E: Error + 'static>(folder: &Path, parse: fn(&[u8]) -> Result<T, E>) -> String {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut refusals = String::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let line = match parse(&fs::read(&path).unwrap()) {
            Ok(_) => "TAKEN".to_owned(),
            Err(error) => chain(&error),
        };
        let _ = writeln!(refusals, "{name}: {line}");
    }
    assert!(!refusals.contains(": TAKEN"), "{refusals}");
    refusals
}

#[test]
fn the_documents_that_the_lies_are_made_from_are_true() {
    Manifest::parse(&fs::read(folder().join("truth.yaml")).unwrap()).unwrap();
    Policy::parse(&fs::read(folder().join("policies/truth.yaml")).unwrap()).unwrap();
    Revocation::parse(&fs::read(folder().join("revocations/truth.yaml")).unwrap()).unwrap();
}

#[test]
fn every_lie_is_refused_for_what_is_wrong_with_it() {
    insta::assert_snapshot!(refusals(&folder().join("lies"), Manifest::parse));
}

#[test]
fn every_lie_in_a_policy_is_refused_for_what_is_wrong_with_it() {
    insta::assert_snapshot!(refusals(&folder().join("policies/lies"), Policy::parse));
}

#[test]
fn every_lie_in_a_revocation_is_refused_for_what_is_wrong_with_it() {
    insta::assert_snapshot!(refusals(&folder().join("revocations/lies"), Revocation::parse));
}

#[test]
fn a_manifest_past_the_size_limit_is_refused_before_it_is_parsed() {
    let mut large = fs::read(folder().join("truth.yaml")).unwrap();
    large.resize(Manifest::MAX_BYTES + 1, b'\n');
    assert!(chain(&Manifest::parse(&large).unwrap_err()).contains("at most 1048576 bytes, found 1048577"));
    large.truncate(Manifest::MAX_BYTES);
    Manifest::parse(&large).unwrap();
}

/// Inputs that make naive parsers slow or deep: each of the largest size allowed.
#[test]
fn no_input_of_the_largest_size_takes_long() {
    let repeat = |text: &str| text.repeat(Manifest::MAX_BYTES / text.len());
    let inputs = [
        repeat("["),
        repeat("{"),
        repeat("- "),
        repeat("? "),
        repeat("a: "),
        repeat("[]"),
        repeat("\""),
        repeat("'"),
        repeat("a\n"),
        repeat("#"),
        repeat("&a "),
        repeat("!a "),
        repeat("{a: "),
        repeat("[a, "),
        repeat("\t"),
        repeat("%a\n"),
        repeat("---\n"),
        repeat("|\n"),
        repeat("\u{0}"),
        format!("a: {}", repeat("b ")),
        format!("a: \"{}", repeat("\\u0041")),
        (0..80_000).map(|n| format!("k{n}: 1\n")).collect::<String>(),
        format!("a: [{}]", "1,".repeat(500_000)),
    ];
    for input in inputs {
        let begun = Instant::now();
        let input = &input.as_bytes()[..input.len().min(Manifest::MAX_BYTES)];
        assert!(Manifest::parse(input).is_err());
        let took = begun.elapsed();
        let start = String::from_utf8_lossy(&input[..12]).into_owned();
        // Unoptimised and on a busy machine; quadratic behaviour would take many minutes.
        assert!(took < Duration::from_secs(60), "{start:?} took {took:?}");
    }
}
