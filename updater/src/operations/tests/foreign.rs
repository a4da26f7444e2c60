//! Modules that somebody else loaded under the name of one of ours: never in force, never touched.

use system::exit::Exit;

use crate::cli::failures;
use crate::operations::resume::Became;
use crate::operations::standing::Standing;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST, livepatch_only};
use crate::simulated::machine::Insmod;

const ELSE: &str = "0123456789abcdef0123456789abcdef01234567";
const EVERY_KIND: [Insmod; 2] = [Insmod::Livepatch, Insmod::NoLivepatch];

/// A host whose committed livepatch was replaced, under its name, by somebody else's module.
fn usurped(by: Insmod) -> Bench {
    let bench = Bench::new();
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
    bench.machine.insmod_by_others("one_function", ELSE, by);
    bench
}

/// The other's module is there as it was.
fn untouched(bench: &Bench, context: &str) {
    assert_eq!(bench.machine.module_build_id("one_function").as_deref(), Some(ELSE), "{context}");
}

#[test]
fn a_foreign_module_of_our_name_is_not_in_force_and_is_shown_as_foreign() {
    for by in EVERY_KIND {
        let bench = usurped(by);
        let status = bench.engine().status().unwrap();
        let ours = &status.livepatches[0];
        assert!(!ours.live && !status.is_sound(), "{by:?}: {ours:?}");
        assert!(
            matches!(&ours.standing, Standing::Displaced { why } if why.contains(ELSE)),
            "{by:?}: {:?}",
            ours.standing
        );
        let foreign: Vec<_> = status.foreign.iter().map(|patch| patch.module.as_str()).collect();
        let shown: &[&str] = if by == Insmod::Livepatch { &["one_function"] } else { &[] };
        assert_eq!(foreign, shown, "{by:?}");
    }
}

#[test]
fn a_resume_leaves_a_foreign_module_alone_and_asks_an_operator() {
    for by in EVERY_KIND {
        let bench = usurped(by);
        let resumed = bench.resume();
        assert!(resumed.needs_operator(), "{by:?}");
        assert!(matches!(resumed.baseline[0].became, Became::Displaced { .. }), "{by:?}: {resumed:?}");
        untouched(&bench, "resume");
    }
}

#[test]
fn an_apply_where_a_foreign_module_has_the_name_is_refused_and_says_which_build_it_is() {
    for (bench, context) in [(usurped(Insmod::Livepatch), "after ours"), (Bench::new(), "before ours")] {
        bench.machine.insmod_by_others("one_function", ELSE, Insmod::Livepatch);
        let failure = failures::engine(bench.plan(&livepatch_only(MANIFEST)).unwrap_err());
        assert_eq!(failure.exit(), Exit::Refused, "{context}");
        let words = failure.for_person();
        assert!(words.contains("no other module of that name") && words.contains(ELSE), "{context}: {words}");
        untouched(&bench, context);
    }
}

#[test]
fn a_rollback_where_a_foreign_module_has_the_name_is_refused_and_unloads_nothing() {
    for by in EVERY_KIND {
        let bench = usurped(by);
        let failure = failures::engine(bench.rollback().unwrap_err());
        assert_eq!(failure.exit(), Exit::Refused, "{by:?}");
        let words = failure.for_person();
        assert!(words.contains("the module that this program loaded") && words.contains(ELSE), "{words}");
        untouched(&bench, "rollback");
    }
}

#[test]
fn a_module_that_comes_in_the_middle_is_not_unloaded_by_any_undo() {
    let mut met = 0;
    for boundary in 0..60 {
        let bench = Bench::new();
        if bench.apply_until(&livepatch_only(MANIFEST), &Cut::at(boundary)).is_ok() {
            break;
        }
        bench.machine.insmod_by_others("one_function", ELSE, Insmod::Livepatch);
        bench.resume();
        untouched(&bench, &format!("boundary {boundary}"));
        met += 1;
    }
    assert!(met > 10, "only {met} boundaries were met");
}

#[test]
fn a_livepatch_that_replaces_all_is_refused_where_it_would_replace_a_foreign_one_with_our_name() {
    let bench = usurped(Insmod::Livepatch);
    let replaced = bench.try_apply_replacing("second", 4);
    let failure = failures::engine(replaced.unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused);
    let words = failure.for_person();
    assert!(words.contains("one_function, which this program did not load"), "{words}");
    untouched(&bench, "replace");
}

#[test]
fn a_module_without_a_build_id_is_refused() {
    let bench = Bench::new();
    bench.write("one-function.ko", &super::bench::module_without_build_id("one-function"));
    let failure = failures::engine(bench.plan(&livepatch_only(MANIFEST)).unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(failure.for_person().contains("expected a build id"), "{}", failure.for_person());
}
