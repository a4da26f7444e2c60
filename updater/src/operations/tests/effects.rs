//! A fix has its effect, or it is taken back.

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST};

#[test]
fn a_layer_that_misses_the_path_in_use_goes_back_and_says_who_maps_what() {
    let bench = Bench::new();
    bench.containers.make(Trouble::WrongPath);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("see the effect of the fix in container web"), "{why}");
    assert!(why.contains("with /usr/lib/libgreet.so.1 (sha256"), "{why}");
    whole(&bench, Outcome::RolledBack, "wrong path");
}

#[test]
fn what_begins_to_map_the_old_file_during_the_settle_time_is_found_before_the_commit() {
    let bench = Bench::new();
    bench.containers.make(Trouble::OldHelper);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("expected no process to map a file that it replaces"), "{why}");
    whole(&bench, Outcome::RolledBack, "old helper");
}
