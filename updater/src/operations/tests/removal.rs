//! What keeps this program on its host.

use super::*;
use crate::operations::tests::bench::Cut;

fn needed_by(bench: &Bench) -> Vec<String> {
    bench.engine().removal().unwrap().needed_by
}

#[test]
fn a_host_that_was_never_changed_needs_nothing() {
    let removal = Bench::new().engine().removal().unwrap();
    assert_eq!(removal, crate::operations::removal::Removal::default());
}

#[test]
fn a_container_on_a_fix_needs_the_program_until_it_is_rolled_back_or_removed() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    assert_eq!(needed_by(&bench), ["container web, whose files are a fix of this program"]);
    // Its mount is gone with the boot, and what it is to have is not.
    bench.reboot();
    assert_eq!(needed_by(&bench).len(), 1);
    bench.containers.remove("web");
    assert_eq!(needed_by(&bench), <[String; 0]>::default());

    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.rollback().unwrap();
    assert_eq!(needed_by(&bench), <[String; 0]>::default());
}

#[test]
fn a_livepatch_is_told_and_stands_in_no_way() {
    let bench = Bench::new();
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
    let removal = bench.engine().removal().unwrap();
    assert_eq!(removal.needed_by, <[String; 0]>::default());
    assert_eq!(removal.until_boot, ["livepatch one_function"]);
}

#[test]
fn what_is_unfinished_or_in_progress_needs_the_program() {
    let bench = Bench::new();
    assert!(bench.apply_until(MANIFEST, &Cut::at(20)).is_err());
    let needed = needed_by(&bench);
    assert!(matches!(&needed[..], [one] if one.ends_with("which is unfinished")), "{needed:?}");

    let bench = Bench::new();
    let _held = bench.hold("apply of greet");
    let needed = needed_by(&bench);
    assert!(matches!(&needed[..], [one] if one.contains("in progress (")), "{needed:?}");
}
