//! Somebody edits the database; the ledger says so.

mod common;

use std::sync::Arc;

use common::scene::{POLICY, Scene, nonce, origin, secret};
use common::{Hand, rewrite};
use controller::ledger::{Finding, audit, checkpoint, tree};
use controller::store::{Sqlite, Store};
use manifests::{LedgerHead, Sha256};
use rusqlite::Connection;

struct Edited {
    directory: tempfile::TempDir,
    clock: Arc<Hand>,
    /// What somebody outside has kept.
    kept: LedgerHead,
}

impl Edited {
    /// A store with a running rollout, closed, and a checkpoint that somebody has kept.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand::new());
        let store = Sqlite::open(&directory.path().join("c.sqlite"), clock.clone()).unwrap();
        let scene = Scene::over(Arc::new(store), clock.clone(), POLICY, 80);
        let ready = scene.ready();
        scene.begin(ready[0], nonce(1)).unwrap();
        let note = scene.authority.checkpoint().unwrap();
        let kept = checkpoint::open(&note, &origin(), &secret("controller").public()).unwrap();
        scene.begin(ready[1], nonce(2)).unwrap();
        Self { directory, clock, kept }
    }

    /// The same once more, for another edit.
    fn copy(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(self.path(), directory.path().join("c.sqlite")).unwrap();
        Self { directory, clock: self.clock.clone(), kept: self.kept }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("c.sqlite")
    }

    fn edit(&self, sql: &str) {
        assert!(Connection::open(self.path()).unwrap().execute(sql, []).unwrap() > 0, "{sql}");
    }

    fn audit(&self, kept: &[LedgerHead]) -> Result<LedgerHead, Finding> {
        audit(&Sqlite::open(&self.path(), self.clock.clone()).unwrap(), kept).unwrap()
    }
}

#[test]
fn an_untouched_store_is_what_was_signed() {
    let edited = Edited::new();
    assert_eq!(edited.audit(&[edited.kept]).unwrap().size, edited.kept.size + 1);
}

#[test]
fn every_edit_of_a_row_of_the_ledger_is_found() {
    let edits = [
        "UPDATE ledger SET body = CAST(replace(body, 'granted', 'applied') AS BLOB) WHERE body LIKE '%granted%'",
        "UPDATE ledger SET body = CAST(body || ' ' AS BLOB) WHERE number = 3",
        "UPDATE ledger SET stream = 'fleet/other' WHERE number = 5",
        "UPDATE ledger SET number = -1 WHERE number = 0",
        "DELETE FROM ledger WHERE number = 4",
        "UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND number = 2",
        "UPDATE nodes SET hash = zeroblob(32) WHERE level = 3 AND number = 1",
    ];
    // Closed, it is all in one file.
    let whole = Edited::new();
    assert!(whole.copy().audit(&[whole.kept]).is_ok());
    for edit in edits {
        let edited = whole.copy();
        edited.edit(edit);
        assert!(edited.audit(&[]).is_err(), "{edit}");
    }
    let edited = whole.copy();
    edited.edit("DELETE FROM nodes WHERE level = 2 AND number = 0");
    let store = Sqlite::open(&edited.path(), edited.clock.clone()).unwrap();
    assert!(audit(&store, &[]).is_err(), "what is missing cannot be read");
}

#[test]
fn a_history_that_was_rewritten_with_all_its_hashes_is_not_the_one_that_was_signed() {
    let edited = Edited::new();
    let forged = rewrite(&edited.path(), |number, entry| {
        if number == 7 {
            entry.body.push(b' ');
        }
        true
    });
    assert_eq!(edited.audit(&[]).unwrap(), forged, "by itself it is whole");
    assert_eq!(edited.audit(&[edited.kept]), Err(Finding::Rewritten { signed: edited.kept }));
    // Whoever has seen the head before gets no proof of this one either.
    let store = Sqlite::open(&edited.path(), edited.clock.clone()).unwrap();
    let proof = tree::prove_consistency(edited.kept.size, forged.size, |wanted| store.nodes(wanted)).unwrap();
    assert!(!tree::extends(&forged, &edited.kept, &proof.unwrap()));
}

#[test]
fn a_history_that_was_cut_short_is_found_by_whoever_has_seen_more() {
    let edited = Edited::new();
    let most = edited.audit(&[]).unwrap();
    let cut = rewrite(&edited.path(), |number, _| number + 1 < most.size);
    assert_eq!(edited.audit(&[edited.kept]).unwrap(), cut, "as far as this one was seen it is the same");
    let (expected, found) = (most.size, cut.size);
    assert_eq!(edited.audit(&[most]), Err(Finding::Short { expected, found }));
    let other = LedgerHead { size: 3, root: Sha256::of(b"another") };
    assert_eq!(edited.audit(&[other]), Err(Finding::Rewritten { signed: other }));
}
