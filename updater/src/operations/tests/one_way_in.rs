//! Nothing is believed before the host is held, and whoever has to wait gets a turn.

use std::io::Read;
use std::time::Duration;

use manifests::Payload;
use system::clock::Uninterrupted;

use super::bench::{Bench, MANIFEST, Undisturbed, livepatch_only};
use super::*;
use crate::operations::apply::{Applied, Quarantine, Request};
use crate::operations::hold::Heeding;
use crate::state::payloads::{PayloadDirectory, PayloadSource};

fn version(number: u32) -> String {
    livepatch_only(MANIFEST).replace("version: 3", &format!("version: {number}"))
}

#[test]
fn an_older_version_that_was_delayed_does_not_get_through() {
    let bench = Bench::new();
    let (older, newer) = (bench.sign(&version(3)), bench.sign(&version(4)));
    let payloads = PayloadDirectory(bench.payloads());
    let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &Undisturbed };
    // The program of the older version is started first, and gets to the lock last.
    let slow = bench.engine();
    let apply = |engine: &Engine, manifest| {
        let request = Request {
            manifest,
            payloads: &payloads,
            quarantine: Quarantine::Heed,
            heeding: Heeding::Heed,
            along: None,
        };
        engine.apply(&request, &listeners, &|_, _| {})
    };
    assert!(matches!(apply(&bench.engine(), &newer), Ok(Applied::Transaction { .. })));
    let refused = apply(&slow, &older).unwrap_err();
    assert!(matches!(refused, EngineError::Trust(_)), "{refused}");
    assert_eq!(crate::cli::failures::engine(refused).exit().code(), 4);
}

/// A source during whose reading another command collects.
struct Collecting<'a>(&'a Bench);

impl PayloadSource for Collecting<'_> {
    fn open(&self, payload: &Payload) -> Result<Box<dyn Read>, StoreError> {
        self.0.engine().collect().unwrap();
        PayloadDirectory(self.0.payloads()).open(payload)
    }
}

#[test]
fn a_plan_keeps_its_payloads_while_another_command_collects() {
    let bench = Bench::new();
    let manifest = bench.sign(MANIFEST);
    let payloads = Collecting(&bench);
    let request = Request {
        manifest: &manifest,
        payloads: &payloads,
        quarantine: Quarantine::Heed,
        heeding: Heeding::Heed,
        along: None,
    };
    bench.engine().plan(&request).unwrap();
    let payloads = || std::fs::read_dir(bench.store.path().join("payloads")).unwrap().count();
    assert_eq!(payloads(), 2, "both");
    bench.engine().collect().unwrap();
    assert_eq!(payloads(), 0, "nobody needs them any more");
}

#[test]
fn the_resume_of_a_boot_waits_for_its_turn_and_an_operators_is_told_who_holds_the_host() {
    let bench = Bench::new();
    bench.apply(&version(3)).unwrap();
    bench.reboot();
    let held = bench.hold("collect");
    let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &Undisturbed };
    let busy = bench.engine().resume(Turn::Now, &listeners).unwrap_err();
    assert!(busy.to_string().ends_with("collect"), "{busy}");
    let heard = Mutex::new(Vec::new());
    let told = |holder: &str| heard.lock().unwrap().push(holder.to_owned());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            bench.engine().resume(Turn::Wait { interrupt: &Uninterrupted, told: &told }, &listeners)
        });
        while heard.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap().baseline.len(), 1);
    });
    assert!(heard.lock().unwrap()[0].ends_with("collect"));
}

#[test]
fn a_look_at_the_host_does_not_refuse_whoever_changes_it() {
    let bench = Bench::new();
    bench.apply(&version(3)).unwrap();
    let apply = |version: &str| bench.apply(&MANIFEST.replace("version: 3", version));
    let Looked::Free(look) = HostLock::look(bench.store.path()).unwrap() else { panic!("nobody holds it") };
    bench.machine.hold_for(Duration::from_secs(50), look);
    apply("version: 4").unwrap();
    let Looked::Free(look) = HostLock::look(bench.store.path()).unwrap() else { panic!("nobody holds it") };
    bench.machine.hold_for(Duration::from_secs(70), look);
    let refused = apply("version: 5").unwrap_err();
    assert!(refused.to_string().ends_with("somebody who looks at it"), "a look that does not end: {refused}");
}

#[test]
fn a_journal_of_a_newer_program_is_refused_with_what_to_do() {
    let bench = Bench::new();
    bench.apply(&version(3)).unwrap();
    let journal = rusqlite::Connection::open(bench.store.path().join("journal.sqlite")).unwrap();
    journal.pragma_update(None, "user_version", 1000).unwrap();
    let refused = bench.try_engine().map(drop).unwrap_err();
    let failure = crate::cli::failures::engine(refused);
    assert_eq!(failure.exit().code(), 3);
    let words = failure.for_person();
    assert!(words.contains("layout 1000") && words.contains("install the newer update again"), "{words}");
}

#[test]
fn a_host_without_livepatch_shows_everything_else() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.rollback().unwrap();
    bench.machine.take_livepatch_away();
    let status = bench.engine().status().unwrap();
    assert!(status.no_livepatch.is_some() && status.is_sound(), "{status:?}");
    assert_eq!(status.rootfs.len(), 1);
    assert_eq!(bench.engine().journal().all().unwrap().len(), 2);
}

#[test]
fn a_key_that_was_seen_revoked_stays_so_when_the_clock_is_set_back() {
    let bench = Bench::new();
    bench.apply(&version(3)).unwrap();
    bench.revoke_key("2026-11-25T00:00:00Z");
    let manifest = bench.sign(&version(4));
    bench.plan_signed(&manifest).unwrap();
    bench.machine.step_wall_clock(Duration::from_secs(10 * 24 * 3600));
    assert!(matches!(bench.plan_signed(&manifest), Err(EngineError::Trust(_))), "revoked by now");
    bench.machine.set_wall_clock_back();
    let refused = bench.plan_signed(&manifest).unwrap_err();
    assert!(
        matches!(refused, EngineError::Trust(_)),
        "the clock went back, the revocation did not: {refused}"
    );
}

#[test]
fn a_clock_that_was_ahead_locks_nobody_out_and_evidence_that_was_wrong_can_be_forgotten() {
    let bench = Bench::new();
    bench.machine.step_wall_clock(Duration::from_secs(5 * 24 * 3600));
    bench.apply(&version(3)).unwrap();
    bench.machine.set_wall_clock_back();
    bench.plan_signed(&bench.sign(&version(4))).unwrap();
    let forgotten = bench.engine().reset_clock("a signer was ahead").unwrap();
    assert_eq!(
        forgotten.unwrap().to_string(),
        "2026-11-01T00:00:00Z",
        "what was proven is when it was issued"
    );
    assert_eq!(bench.engine().reset_clock("again").unwrap(), None);
    let audit = crate::state::floors::audit(&bench.engine().journal()).unwrap();
    assert!(audit.len() == 2 && audit[0].2.contains("a signer was ahead"), "{audit:?}");
}
