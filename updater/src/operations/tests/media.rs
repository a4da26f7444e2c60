//! Where the memory of containers may be written.

use std::sync::atomic::Ordering;

use system::exit::Exit;

use super::*;
use crate::cli::failures;
use crate::config::CheckpointMedium;
use crate::operations::tests::bench::{Bench, MANIFEST};

fn private() -> Bench {
    let bench = Bench::new();
    bench.set(Config { checkpoint_medium: CheckpointMedium::Private, ..Config::default() });
    bench
}

#[test]
fn a_place_that_can_be_read_without_a_key_is_refused_before_anything_is_written() {
    let bench = private();
    let failure = failures::engine(bench.apply(MANIFEST).unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused);
    let words = failure.for_person();
    assert!(words.contains("checkpoint_medium: private") && words.contains("device sda without"), "{words}");
    assert!(!bench.store.path().join("checkpoints").exists());
    whole(&bench, Outcome::RolledBack, "refused");
}

#[test]
fn a_place_that_was_private_when_it_was_planned_and_is_not_any_more_gets_no_memory() {
    for looks in [1, 2] {
        let bench = private();
        bench.private_looks.store(looks, Ordering::SeqCst);
        let error = rolled_back(&bench.apply(MANIFEST).unwrap());
        assert!(
            error.contains("write down the memory of") && error.contains("device sda"),
            "{looks}: {error}"
        );
        whole(&bench, Outcome::RolledBack, "given up before the dump");
    }
    let bench = private();
    bench.private_looks.store(3, Ordering::SeqCst);
    let committed = bench.apply(MANIFEST).unwrap();
    assert_eq!(
        committed.reached,
        Reached::Ended(Outcome::Committed),
        "plan, pre-dump and dump look, nobody else"
    );
}

#[test]
fn where_the_manifest_does_without_a_checkpoint_none_is_written() {
    let bench = private();
    let text = MANIFEST.replace("without_checkpoint: fail", "without_checkpoint: restart");
    bench.apply(&text).unwrap();
    assert_eq!(bench.containers.process("web").unwrap().version, Version::Fixed);
    assert_eq!(bench.rollback().unwrap().reached, Reached::Ended(Outcome::Committed), "nor on the way back");
    let images = walk(&bench.store.path().join("checkpoints"));
    assert!(!images.iter().any(|name| name.contains("image")), "{images:?}");
}

#[test]
fn checkpoints_are_where_the_settings_say_on_every_way() {
    let (bench, elsewhere) = (Bench::new(), tempfile::tempdir().unwrap());
    bench.set(Config { checkpoints: Some(elsewhere.path().join("memory")), ..Config::default() });
    bench.containers.make(Trouble::BadFix);
    rolled_back(&bench.apply(MANIFEST).unwrap());
    whole(&bench, Outcome::RolledBack, "restored from there");
    bench.containers.mend();
    let driven = bench.apply(MANIFEST).unwrap();
    let images = elsewhere.path().join("memory").join(driven.id.as_str()).join("web/full");
    assert!(images.exists() && !bench.store.path().join("checkpoints").exists());
    bench.machine.step_wall_clock(bench.config().checkpoint_retention * 2);
    bench.engine().collect().unwrap();
    assert!(!images.exists(), "and they are collected from there");
}

/// The names of all that is below a directory.
fn walk(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let below = |path: std::path::PathBuf| {
        let mut names = walk(&path);
        names.push(path.display().to_string());
        names
    };
    entries.flat_map(|entry| below(entry.path())).collect()
}
