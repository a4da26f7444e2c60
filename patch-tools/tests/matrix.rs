//! Every behaviour of `tests/diff` with every compiler that kernels are built with, and both kinds of ftrace
//! records.
//!
//! The test command takes the compilers on the path, of which `gcc-12` is one. With `UPDATE_EXAM` set all of them
//! are needed: `cargo run -p patch-tools --example fetch-compilers` unpacks them into the cache. `UPDATE_MATRIX` names
//! some of them; `UPDATE_MATRIX_KERNELS` names kernels, which `patch-tools build` has prepared, whose compilers are taken with
//! the options that the distribution has configured. A case is left
//! out for a compiler only where its `expect.json` names a feature that the compiler lacks, and of all cells at
//! most one in twenty.

mod compiled;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use compiled::behaviour::{Expected, Names, check};
use compiled::compilers::{ALL, Compiler, Records};
use compiled::{Case, sources};

/// What became of one case with one compiler.
enum Outcome {
    Holds,
    LeftOut(String),
    Fails(String),
}

fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(sources()).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> = directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn try_case(name: &str, compiler: &Compiler, records: Records) -> Outcome {
    let expected = std::fs::read_to_string(sources().join(name).join("expect.json")).unwrap();
    let expected: Expected = serde_json::from_str(&expected).unwrap();
    if let Some(feature) = expected.needs.filter(|feature| compiler.lacks(feature)) {
        return Outcome::LeftOut(feature);
    }
    let tried = || check(&Case::compiled_by(name, compiler, records), Names::OfTheSource);
    match std::panic::catch_unwind(tried) {
        Ok(Ok(())) => Outcome::Holds,
        Ok(Err(error)) => Outcome::Fails(format!("{}\n{error}", error.root_cause())),
        Err(_) => Outcome::Fails("a panic".to_owned()),
    }
}

/// Those on the path; in an exam all; or those that are named.
fn compilers() -> Vec<Compiler> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(kernels) = set("UPDATE_MATRIX_KERNELS") {
        return kernels.split(',').map(Compiler::of_kernel).collect();
    }
    if let Some(wanted) = set("UPDATE_MATRIX") {
        let wanted = ALL.into_iter().filter(|name| wanted.split(',').any(|one| one == *name));
        return wanted.map(|name| Compiler::find(name).expect(name)).collect();
    }
    let exam = set("UPDATE_EXAM").is_some();
    let find = |name| if exam { Compiler::find(name) } else { Compiler::on_path(name) };
    let compilers: Vec<Compiler> = ALL.into_iter().filter_map(find).collect();
    let found: Vec<String> = compilers.iter().map(Compiler::label).collect();
    assert!(found.iter().any(|name| name == "gcc-12"), "gcc-12 is needed, found {found:?}");
    assert!(!exam || found == ALL, "the exam needs {ALL:?} (examples/fetch-compilers), found {found:?}");
    compilers
}

#[test]
fn every_behaviour_holds_with_every_compiler_and_both_kinds_of_ftrace_records() {
    let compilers = compilers();
    let mut cells = Vec::new();
    for compiler in &compilers {
        for records in [Records::Calls, Records::NoOps] {
            cells.extend(cases().into_iter().map(|case| (compiler, records, case)));
        }
    }
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((compiler, records, case)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = try_case(case, compiler, *records);
                    if let Outcome::Fails(why) = &outcome {
                        // At once: all of them take a while.
                        eprintln!("FAILED: {} {records:?} {case}: {why}", compiler.label());
                    }
                    let key = (compiler.label(), format!("{records:?}"), case.clone());
                    outcomes.lock().unwrap().insert(key, outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let mut table: BTreeMap<(&str, &str), [usize; 3]> = BTreeMap::new();
    let (mut left_out, mut failed) = (0, 0);
    for ((compiler, records, case), outcome) in &outcomes {
        let row = table.entry((compiler, records)).or_default();
        match outcome {
            Outcome::Holds => row[0] += 1,
            Outcome::LeftOut(feature) => {
                row[1] += 1;
                left_out += 1;
                println!("left out: {compiler} {records} {case}: no {feature}");
            }
            Outcome::Fails(_) => {
                row[2] += 1;
                failed += 1;
            }
        }
    }
    for ((compiler, records), [hold, left_out, fail]) in &table {
        println!("{compiler:9} {records:6} {hold:4} hold {left_out:3} left out {fail:3} fail");
    }
    assert_eq!(failed, 0, "of {} cells", outcomes.len());
    assert!(left_out * 20 <= outcomes.len(), "{left_out} of {} cells are left out", outcomes.len());
}
