//! The power fails while the SQLite store writes: afterwards each batch is there, or nothing of it is.
//!
//! A write to SQLite's log is cut at every half kilobyte, which is every state that a disk that writes in order can be
//! left in, and sectors of what was not yet waited for are lost singly, which one that does not can leave. A process
//! that is killed shows the other half: what was acknowledged was on its way before it was said.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Hand, batch, entry, key, take};
use controller::ledger::audit;
use controller::store::{Batch, Put, Sqlite, Store, Which};

/// A group of three batches with three entries and two records each.
fn group(epoch: u64, number: u64) -> Vec<Batch> {
    let one = |at: u64| {
        let number = 3 * number + at;
        let mut batch = batch(epoch, 3 * number, "count", number, &number.to_string());
        batch.entries.push(entry("b", &"x".repeat(700)));
        batch.entries.push(entry("c", &number.to_string()));
        batch.puts.push(Put { key: key(&format!("of-{number}")), value: vec![7; 900] });
        batch
    };
    (0..3).map(one).collect()
}

/// How many batches are in a store; panics if one is there in part.
fn whole_batches(path: &Path) -> u64 {
    let store = Sqlite::open(path, Arc::new(Hand::new())).unwrap();
    let head = audit(&store, &[]).unwrap().unwrap();
    assert_eq!(head.size % 3, 0, "a batch has three entries");
    let batches = head.size / 3;
    let count = store.record(&key("count")).unwrap().map_or(0, |record| record.revision);
    assert_eq!(count, batches, "the record that counts them");
    assert_eq!(store.room("thing").unwrap().len() as u64, batches + u64::from(batches > 0));
    let streams = ["count", "b", "c"].map(|id| {
        let which = Which::Stream(controller::store::Key::new("stream", id));
        store.entries(&which, usize::MAX).unwrap().len() as u64
    });
    assert_eq!(streams, [batches; 3]);
    batches
}

/// What a disk holds at one moment: the database, and its log up to some byte.
fn image(directory: &Path, database: &[u8], log: &[u8]) -> u64 {
    let path = directory.join("image.sqlite");
    for suffix in ["-shm", "-wal"] {
        let _ = std::fs::remove_file(directory.join(format!("image.sqlite{suffix}")));
    }
    std::fs::write(&path, database).unwrap();
    std::fs::write(directory.join("image.sqlite-wal"), log).unwrap();
    whole_batches(&path)
}

#[test]
fn a_log_that_ends_anywhere_holds_whole_groups_and_all_that_were_acknowledged() {
    const GROUPS: u64 = 4;
    const SECTOR: usize = 512;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sqlite");
    let (db, wal) =
        (|| std::fs::read(&path).unwrap(), || std::fs::read(directory.path().join("c.sqlite-wal")).unwrap());
    let store = Sqlite::open(&path, Arc::new(Hand::new())).unwrap();
    let epoch = take(&store, "one", 0).epoch;
    // The length of the log at each acknowledgement.
    let mut ends = vec![wal().len()];
    for number in 0..GROUPS {
        let receipts = store.commit(group(epoch, number)).unwrap();
        assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
        ends.push(wal().len());
    }
    let (database, log) = (db(), wal());
    assert_eq!(log.len(), *ends.last().unwrap(), "nothing was written after the acknowledgement");
    let mut seen = 0;
    for end in (ends[0]..=log.len()).step_by(SECTOR).chain([log.len()]) {
        let acknowledged = ends.iter().rposition(|known| *known <= end).unwrap() as u64;
        let found = image(directory.path(), &database, &log[..end]);
        assert_eq!(found, 3 * acknowledged, "cut at {end} of {}", log.len());
        seen += 1;
    }
    assert!(seen > 60, "{seen} images");
    // One sector of the last group never reached the disk: nothing of the group did.
    for lost in (ends[GROUPS as usize - 1]..log.len()).step_by(SECTOR) {
        let mut log = log.clone();
        let end = (lost + SECTOR).min(log.len());
        if log[lost..end].iter().all(|byte| *byte == 0) {
            continue;
        }
        log[lost..end].fill(0);
        let found = image(directory.path(), &database, &log);
        assert_eq!(found, 3 * (GROUPS - 1), "lost {lost} of {}", log.len());
    }
}

#[test]
fn a_write_that_fails_half_way_leaves_nothing_and_the_next_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sqlite");
    let store = Sqlite::open(&path, Arc::new(Hand::new())).unwrap();
    let epoch = take(&store, "one", 0).epoch;
    assert!(store.commit(group(epoch, 0)).unwrap().iter().all(Result::is_ok));
    // Records and the first entry are written before the tree is.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("ALTER TABLE nodes RENAME TO elsewhere").unwrap();
    assert!(store.commit(group(epoch, 1)).is_err());
    other.execute_batch("ALTER TABLE elsewhere RENAME TO nodes").unwrap();
    assert_eq!(whole_batches(&path), 3);
    assert!(store.commit(group(epoch, 1)).unwrap().iter().all(Result::is_ok));
    assert_eq!(whole_batches(&path), 6);
}

/// Tells this test program that it is the child, and where it writes.
const CHILD: &str = "CONTROLLER_TEST_STORE";

/// Writes for ever, and says each group's number when it is acknowledged.
fn write_until_killed(path: &Path) {
    let store = Sqlite::open(path, Arc::new(Hand::new())).unwrap();
    let epoch = take(&store, "child", 0).epoch;
    for number in store.size().unwrap() / 9.. {
        assert!(store.commit(group(epoch, number)).unwrap().iter().all(Result::is_ok));
        writeln!(std::io::stderr().lock(), "acknowledged {number}").unwrap();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test program starts itself, to be killed")]
fn a_controller_that_is_killed_at_any_moment_loses_nothing_that_it_said() {
    if let Ok(path) = std::env::var(CHILD) {
        return write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sqlite");
    let mut before = 0;
    for round in 0..12_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_controller_that_is_killed_at_any_moment_loses_nothing_that_it_said",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("acknowledged ").and_then(|number| number.parse::<u64>().ok())
        });
        let mut last = said.nth(round % 5).expect("the child writes");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had still said before it died counts, too.
        last = said.last().unwrap_or(last);
        let found = whole_batches(&path);
        assert_eq!(found % 3, 0, "groups are whole");
        assert!(found >= 3 * (last + 1), "round {round}: {found} batches, and group {last} was acknowledged");
        assert!(found > before, "round {round}");
        before = found;
    }
}
