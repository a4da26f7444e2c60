//! A journal that somebody changes beside this program: edited in place, rows taken away, put in another order, cut off.

use manifests::chain::{Fault, Head, check_exported};

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST};
use crate::state::chain::Sound;

/// A host with a transaction and its way back, and a hold that was put on and taken off.
fn host() -> Bench {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    bench.rollback().unwrap();
    let engine = bench.engine();
    engine.put_hold("4h".parse().unwrap(), &"the fair".parse().unwrap()).unwrap();
    engine.take_hold_off().unwrap();
    bench
}

fn check(bench: &Bench, seen: &[Head]) -> Result<Sound, JournalError> {
    bench.engine().journal().check_chain(seen)
}

fn head(bench: &Bench) -> Head {
    check(bench, &[]).unwrap().head
}

/// What somebody with root does to the database, and the first record at which that shows.
fn tampered(bench: &Bench, sql: &str) -> (u64, String, Fault) {
    let db = rusqlite::Connection::open(bench.store.path().join("journal.sqlite")).unwrap();
    db.execute_batch(sql).unwrap();
    drop(db);
    match check(bench, &[]) {
        Err(JournalError::Broken(broken)) => (broken.seq, broken.kind, broken.fault),
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn a_journal_that_nobody_touched_holds_and_its_records_check_elsewhere() {
    let bench = host();
    let sound = check(&bench, &[]).unwrap();
    assert_eq!((sound.begins.as_str(), sound.forgotten, sound.adopted), ("a new journal", 0, 0));
    let mut lines = Vec::new();
    let engine = bench.engine();
    let reached = engine
        .export(Head::EMPTY, None, &mut |exported| {
            lines.extend_from_slice(serde_json::to_string(exported).unwrap().as_bytes());
            lines.push(b'\n');
            Ok(())
        })
        .unwrap();
    assert_eq!(reached, sound.head);
    assert_eq!(check_exported(&lines, &[]).unwrap(), sound.head);
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.lines().count() as u64, sound.head.seq);
    let cut: Vec<&str> = text.lines().take(10).collect();
    assert!(check_exported(cut.join("\n").as_bytes(), &[sound.head]).is_err(), "its end was cut off");
}

#[test]
fn each_record_says_who_ran_the_command() {
    let bench = host();
    let journal_of = bench.engine();
    let stored = journal_of.journal().last().unwrap().unwrap();
    let by = stored.by.expect("an author");
    assert_eq!((by.author.uid, by.grant), (nix::unistd::getuid().as_raw(), None));
    for exported in journal_of.journal().records(1, usize::MAX).unwrap() {
        let by: serde_json::Value = serde_json::from_str(&exported.record.by).unwrap();
        assert_eq!(by["uid"], nix::unistd::getuid().as_raw(), "{exported:?}");
        assert!(exported.fields.is_some(), "{exported:?}");
    }
}

#[test]
fn a_row_that_is_edited_in_place_is_named() {
    for sql in [
        "UPDATE transactions SET origin = replace(origin, 'greet', 'other') WHERE rowid = 1",
        "UPDATE events SET at = '2020-01-01T00:00:00Z' WHERE seq = 2",
        "UPDATE events SET event = replace(event, 'committed', 'rolled-back')",
        "UPDATE audit SET who = 'uid 1000'",
        "UPDATE transactions SET manifest = NULL",
    ] {
        let (seq, _, fault) = tampered(&host(), sql);
        assert!(matches!(fault, Fault::Content { .. }) && seq > 1, "{sql}: {seq} {fault}");
    }
}

#[test]
fn a_record_that_is_edited_taken_away_or_put_elsewhere_is_named() {
    let edited = tampered(&host(), "UPDATE chain SET by = '{\"uid\":1000}' WHERE seq = 5");
    assert!(matches!(edited, (5, _, Fault::Hash { .. })), "{edited:?}");
    let removed = tampered(&host(), "DELETE FROM chain WHERE seq = 5");
    assert!(matches!(removed, (6, _, Fault::Number { expected: 5, found: 6 })), "{removed:?}");
    let swapped = tampered(
        &host(),
        "UPDATE chain SET seq = -5 WHERE seq = 5; UPDATE chain SET seq = 5 WHERE seq = 6;
         UPDATE chain SET seq = 6 WHERE seq = -5",
    );
    assert!(matches!(swapped, (5, _, Fault::Previous { .. })), "{swapped:?}");
    let (seq, _, fault) = tampered(&host(), "DELETE FROM chain");
    assert!(matches!(fault, Fault::Unrecorded) && seq == 1, "{fault}");
    // The first records, so that the rest begins the chain.
    let beheaded = tampered(&host(), "DELETE FROM chain WHERE seq < 4");
    assert!(matches!(beheaded, (4, _, Fault::Number { expected: 1, found: 4 })), "{beheaded:?}");
    let garbage = tampered(&host(), "UPDATE chain SET hash = 'x' WHERE seq = 3");
    assert!(matches!(garbage, (3, _, Fault::Hash { .. })), "{garbage:?}");
}

#[test]
fn a_row_that_is_taken_away_or_put_in_is_named() {
    let gone = tampered(&host(), "DELETE FROM audit WHERE seq = 1");
    assert!(matches!(&gone, (_, kind, Fault::Gone) if kind == "audit"), "{gone:?}");
    let gone = tampered(&host(), "DELETE FROM events WHERE seq = 3");
    assert!(matches!(&gone, (_, kind, Fault::Gone) if kind == "event"), "{gone:?}");
    let put = tampered(
        &host(),
        "INSERT INTO audit (at, who, what) VALUES ('2026-11-01T00:00:00Z', 'uid 0', 'nothing')",
    );
    assert!(matches!(&put, (_, kind, Fault::Unrecorded) if kind == "audit"), "{put:?}");
    // A whole transaction, as if it had been forgotten.
    let whole = tampered(&host(), "DELETE FROM events; DELETE FROM transactions");
    assert!(matches!(&whole, (_, kind, Fault::Gone) if kind == "transaction"), "{whole:?}");
}

#[test]
fn an_end_that_was_cut_off_shows_by_a_head_that_somebody_kept() {
    let bench = host();
    let kept = head(&bench);
    let db = rusqlite::Connection::open(bench.store.path().join("journal.sqlite")).unwrap();
    // The hold and its end, with their records.
    db.execute_batch("DELETE FROM audit; DELETE FROM chain WHERE kind = 'audit'").unwrap();
    drop(db);
    let now = head(&bench);
    assert!(now.seq < kept.seq, "by itself the journal holds");
    let Err(JournalError::Broken(broken)) = check(&bench, &[kept]) else { panic!("it was not noticed") };
    assert_eq!(broken.fault, Fault::Truncated { expected: kept.seq, found: now.seq });
    // Records that come in their place have other hashes.
    bench.engine().put_hold("4h".parse().unwrap(), &"another".parse().unwrap()).unwrap();
    bench.engine().take_hold_off().unwrap();
    let Err(JournalError::Broken(broken)) = check(&bench, &[kept]) else { panic!("it was not noticed") };
    assert!(matches!(broken.fault, Fault::Rewritten { .. }), "{broken}");
}

#[test]
fn what_the_journal_forgets_is_recorded_and_it_holds() {
    let bench = host();
    let before = head(&bench);
    bench.set(Config { journal_retention: std::time::Duration::ZERO, ..Config::default() });
    bench.engine().collect().unwrap();
    let sound = check(&bench, &[before]).unwrap();
    assert_eq!(sound.forgotten, 2);
    assert_eq!(bench.engine().journal().all().unwrap().len(), 0);
}

#[test]
fn a_step_takes_as_many_synced_writes_as_it_has_events() {
    let bench = Bench::new();
    bench.apply(MANIFEST).unwrap();
    let engine = bench.engine();
    let journal = engine.journal();
    let records = journal.records(0, usize::MAX).unwrap();
    let events = journal.last().unwrap().unwrap().events.len();
    let of = |kind: &str| records.iter().filter(|exported| exported.record.kind == kind).count();
    assert_eq!((of("event"), of("transaction"), of("start")), (events, 1, 1));
    assert_eq!(records.len(), events + 2, "nothing is written for the chain alone");
}
