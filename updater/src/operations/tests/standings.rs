//! What `update status` and `update resume` say of hosts that are not, or not quite, as they were committed,
//! and that one container's trouble is not the host's.

use system::exit::Exit;

use super::*;
use crate::cli::failures;
use crate::operations::resume::{Became, Resumed};
use crate::operations::standing::Standing;
use crate::operations::tests::bench::{Bench, Cut, MANIFEST, Undisturbed, livepatch_only};

/// A host with everything committed and shut down in order.
fn committed() -> Bench {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.engine().mark_stopping().unwrap();
    bench
}

/// Status and resume agree, and the resume's word on the container.
fn agreed(bench: &Bench, expected: Exit) -> Resumed {
    let resumed = bench.resume();
    let sound = bench.engine().status().unwrap().is_sound();
    assert_eq!(sound, !resumed.needs_operator(), "{resumed:?}");
    assert_eq!(sound, expected == Exit::Done, "{resumed:?}");
    resumed
}

#[test]
fn a_reboot_into_another_kernel_is_sound_for_status_and_resume() {
    let bench = committed();
    bench.reboot_into("6.1.0-51-amd64");
    let resumed = agreed(&bench, Exit::Done);
    assert!(
        matches!(&resumed.baseline[0].became, Became::LeftAlone { why } if why.contains("is for kernel 6.1.0-50"))
    );
    let status = bench.engine().status().unwrap();
    assert!(
        matches!(status.livepatches[0].standing, Standing::OtherKernel { .. }) && !status.livepatches[0].live
    );
}

#[test]
fn a_container_that_was_removed_is_sound_for_status_and_resume() {
    let bench = committed();
    bench.reboot();
    bench.containers.remove("web");
    let resumed = agreed(&bench, Exit::Done);
    assert!(matches!(&resumed.baseline[1].became, Became::LeftAlone { why } if why.contains("is not there")));
}

#[test]
fn a_container_that_somebody_started_on_other_files_needs_an_operator() {
    let old = Bench::new().containers.mounted("web");
    let bench = committed();
    bench.reboot();
    bench.containers.start_by_others("web", Some(old));
    let resumed = agreed(&bench, Exit::NeedsOperator);
    assert!(
        matches!(&resumed.baseline[1].became, Became::Displaced { why } if why.contains("on other files"))
    );
}

#[test]
fn a_status_during_an_apply_says_that_it_is_in_progress() {
    struct Looking<'a>(&'a Bench, std::sync::Mutex<Vec<status::Status>>);
    impl system::clock::Interrupt for Looking<'_> {
        fn asked(&self) -> bool {
            false
        }
    }
    impl Boundaries for Looking<'_> {
        fn reached(
            &self,
            _: &crate::transaction::driver::Boundary<'_>,
        ) -> crate::transaction::driver::Onward {
            self.1.lock().unwrap().push(self.0.engine().status().unwrap());
            crate::transaction::driver::Onward::Continue
        }
    }
    let bench = Bench::new();
    let looking = Looking(&bench, std::sync::Mutex::default());
    bench.apply_until(MANIFEST, &looking).unwrap();
    let seen = looking.1.into_inner().unwrap();
    assert!(seen.len() > 50 && seen.iter().all(status::Status::is_sound));
    let open: Vec<_> = seen.iter().filter(|status| !status.unfinished.is_empty()).collect();
    assert!(open.len() > 50);
    assert!(open.iter().all(|status| status.in_progress.as_deref().is_some_and(|who| who.contains("greet"))));
}

#[test]
fn an_interrupted_apply_is_not_in_progress() {
    let bench = Bench::new();
    assert!(bench.apply_until(MANIFEST, &Cut::at(20)).is_err());
    let status = bench.engine().status().unwrap();
    assert!(!status.is_sound() && status.in_progress.is_none() && status.unfinished.len() == 1);
}

#[test]
fn a_container_that_cannot_be_read_is_told_and_stands_in_nobodys_way() {
    let bench = Bench::new();
    bench.containers.lose_bundle("stale");
    let plan = bench.plan(MANIFEST).unwrap();
    assert!(
        plan.notes.iter().any(|note| note.contains("container stale cannot be read")),
        "{:?}",
        plan.notes
    );
    assert!(bench.apply_until(MANIFEST, &Cut::at(40)).is_err());
    assert_eq!(bench.resume().transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    bench.apply(MANIFEST).unwrap();
    whole(&bench, Outcome::Committed, "an unreadable neighbour");
    assert!(bench.engine().status().unwrap().unreadable[0].contains("container stale"));
}

#[test]
fn an_affected_container_without_its_bundle_is_refused_by_name_and_a_livepatch_is_not() {
    let bench = Bench::new();
    bench.containers.lose_bundle("web");
    let failure = failures::engine(bench.plan(MANIFEST).unwrap_err());
    assert_eq!(failure.exit(), Exit::Refused);
    let words = failure.for_person();
    assert!(words.contains("container web: expected a container that can be restarted"), "{words}");
    bench.apply(&livepatch_only(MANIFEST)).unwrap();
}

#[test]
fn a_runtime_that_does_not_answer_leaves_the_transaction_open_and_asks_an_operator() {
    let bench = Bench::new();
    assert!(bench.apply_until(MANIFEST, &Cut::at(40)).is_err());
    bench.containers.make(Trouble::NoRuntime);
    let resumed = bench.resume();
    assert!(matches!(resumed.transactions[0].reached, Reached::NeedsOperator(_)), "{resumed:?}");
    bench.containers.mend();
    assert_eq!(bench.resume().transactions[0].reached, Reached::Ended(Outcome::RolledBack));
    whole(&bench, Outcome::RolledBack, "mended");
}

#[test]
fn a_baseline_that_cannot_be_looked_at_is_told_item_by_item() {
    let bench = committed();
    bench.reboot();
    bench.containers.make(Trouble::NoRuntime);
    let resumed = agreed(&bench, Exit::NeedsOperator);
    assert_eq!(resumed.baseline[0].became, Became::Reapplied);
    assert!(
        matches!(&resumed.baseline[1].became, Became::Failed { why } if why.contains("runc is not installed"))
    );
}

#[test]
fn a_resume_that_cannot_go_on_says_what_is_open_and_needs_an_operator() {
    let bench = Bench::new();
    assert!(bench.apply_until(MANIFEST, &Cut::at(40)).is_err());
    let error = bench.resume_until(&Cut::at(5)).unwrap_err();
    let id = bench.engine().journal().unfinished().unwrap()[0].id.to_string();
    let failure = failures::engine(error);
    assert_eq!(failure.exit(), Exit::NeedsOperator);
    let words = failure.for_person();
    assert!(words.contains(&format!("transaction {id} is half-way")), "{words}");
    assert!(!words.contains("nothing was changed"), "{words}");
}

#[test]
fn a_resume_that_fails_after_it_ended_a_transaction_says_so() {
    let bench = Bench::new();
    assert!(bench.apply_until(MANIFEST, &Cut::at(40)).is_err());
    let id = bench.engine().journal().unfinished().unwrap()[0].id.to_string();
    rusqlite::Connection::open(bench.store.path().join("journal.sqlite"))
        .unwrap()
        .execute("INSERT INTO baseline_livepatches (module, value, tx) VALUES ('x', 'no json', ?1)", [&id])
        .unwrap();
    let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &Undisturbed };
    let failure = failures::engine(bench.engine().resume(Turn::Now, &listeners).unwrap_err());
    assert_eq!(failure.exit(), Exit::NeedsOperator);
    let words = failure.for_person();
    assert!(words.contains(&format!("transaction {id} was rolled back")), "{words}");
}
