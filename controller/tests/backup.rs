//! Backups, and what is so after one was put back.

mod common;

use controller::authority::Order;
use std::path::Path;
use std::sync::Arc;

use common::Hand;
use common::scene::{POLICY, Scene, begin, nonce, opened, origin, person, secret, take};
use controller::authority::Denied;
use controller::backup::{BackupError, MARGIN, Restore, backup, restore};
use controller::ledger::audit;
use controller::store::{Sqlite, Store};
use fleet::rollout::{NotNow, Proof, Stage};
use rusqlite::Connection;

struct Kept {
    directory: tempfile::TempDir,
    sqlite: Arc<Sqlite>,
    scene: Scene,
}

fn kept() -> Kept {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand::new());
    let sqlite = Arc::new(Sqlite::open(&directory.path().join("c.sqlite"), clock.clone()).unwrap());
    let scene = Scene::over(sqlite.clone(), clock, POLICY, 80);
    Kept { directory, sqlite, scene }
}

fn put_back(kept: &Kept, from: &Path, to: &Path, above: u64) -> Result<(), BackupError> {
    let by = "anna".parse().unwrap();
    let how = Restore { from, to, server: None, above, signed: &[], by };
    restore(&how, kept.scene.clock.clone(), secret("controller"), origin())
}

#[test]
fn a_restored_store_is_above_every_epoch_and_waits_for_people() {
    let kept = kept();
    let Kept { directory, sqlite, scene } = &kept;
    let (copy, new) = (directory.path().join("backup"), directory.path().join("new.sqlite"));
    let ready = scene.ready();
    scene.begin(ready[0], nonce(1)).unwrap();
    let in_backup = sqlite.size().unwrap();
    backup(sqlite, &copy).unwrap();
    // The store goes on, and hosts see that.
    let after = opened(&scene.begin(ready[1], nonce(2)).unwrap(), scene.store.now());
    assert!(after.ledger.size > in_backup);
    put_back(&kept, &copy, &new, 0).unwrap();
    let restored: Arc<dyn Store> = Arc::new(Sqlite::open(&new, scene.clock.clone()).unwrap());
    assert!(audit(&*restored, &[]).unwrap().is_ok());
    let authority = take(&restored, &scene.clock, "new").unwrap();
    assert!(authority.epoch() > after.epoch + MARGIN);
    // The host that has a grant of which the backup knows nothing is not given another before people have looked.
    let answer = begin(&authority, scene.rollout, ready[1], nonce(3));
    assert!(matches!(answer, Err(Denied::NotNow(NotNow::Stage))), "{answer:?}");
    assert!(matches!(authority.standing(scene.rollout).unwrap().0, Stage::Paused(_)));
    authority.order(scene.rollout, &Order::Resume, &person("anna", Proof::Signature)).unwrap();
    put_back(&kept, &copy, &directory.path().join("told.sqlite"), 5_000_000).unwrap();
    let told: Arc<dyn Store> =
        Arc::new(Sqlite::open(&directory.path().join("told.sqlite"), scene.clock.clone()).unwrap());
    assert!(take(&told, &scene.clock, "told").unwrap().epoch() > 5_000_000 + MARGIN);
}

#[test]
fn a_backup_that_was_changed_is_not_restored_and_nothing_is_overwritten() {
    let kept = kept();
    let Kept { directory, sqlite, scene } = &kept;
    let (copy, new) = (directory.path().join("backup"), directory.path().join("new.sqlite"));
    let head = controller::ledger::checkpoint::open(
        &scene.authority.checkpoint().unwrap(),
        &origin(),
        &secret("controller").public(),
    );
    backup(sqlite, &copy).unwrap();
    assert!(matches!(backup(sqlite, &copy), Err(BackupError::Exists { .. })));
    let db = Connection::open(&copy).unwrap();
    db.execute("UPDATE ledger SET body = CAST(body || ' ' AS BLOB) WHERE number = 9", []).unwrap();
    drop(db);
    assert!(matches!(put_back(&kept, &copy, &new, 0), Err(BackupError::Changed(_))));
    assert!(!new.exists());
    std::fs::remove_file(&copy).unwrap();
    backup(sqlite, &copy).unwrap();
    let signed = [head.unwrap()];
    let how = Restore {
        from: &copy,
        to: &new,
        server: None,
        above: 0,
        signed: &signed,
        by: "anna".parse().unwrap(),
    };
    restore(&how, scene.clock.clone(), secret("controller"), origin()).unwrap();
    assert!(matches!(put_back(&kept, &copy, &new, 0), Err(BackupError::Exists { .. })));
}
