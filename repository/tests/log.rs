//! A log of what was published: growing, witnessed, read by other people's code, and lied about.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifests::log::tree::Position;
use manifests::log::{Checkpoint, LogEntry, LogPolicy, LogProof, Note, NoteKeyKind, NoteSigner, Relation};
use manifests::{DocumentKind, Sha256};
use repository::authoring::AuthoringError;
use repository::log::audit::{Oddity, audit};
use repository::log::memory::compare;
use repository::log::store::{newest, proof_path, prove};
use repository::log::{Directory, Files, Log, LogError, Memory, Tiles};
use support::{ONLINE, Team, key, now};

const LOG: u8 = 41;
const ORIGIN: &str = "updates.example.org/log";

fn entry(number: u64) -> LogEntry {
    LogEntry {
        document: DocumentKind::Manifest,
        name: "greet".parse().unwrap(),
        version: number + 1,
        sha256: Sha256::of(&number.to_be_bytes()),
        signers: vec![key(31).public().id()],
    }
}

fn entries(range: std::ops::Range<u64>) -> Vec<LogEntry> {
    range.map(entry).collect()
}

fn founded(directory: &Path) -> (Log, String) {
    let (log, vkey) = Log::init(directory, ORIGIN.parse().unwrap(), &key(LOG)).unwrap();
    (log, vkey.to_string())
}

fn policy(vkey: &str) -> LogPolicy {
    LogPolicy::of_log(&vkey.parse().unwrap())
}

/// The lines of the guide for auditors, run on a log.
#[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
fn python(log: &Path, vkey: &str) -> (bool, String) {
    let guide = include_str!("../../docs/transparency.md");
    let script = guide.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let output = Command::new("python3").args(["-c", script]).arg(log).arg(vkey).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn a_log_grows_over_full_tiles_and_every_checkpoint_of_it_is_one_that_others_verify() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (log, vkey) = founded(&path);
    assert!(python(&path, &vkey).0, "an empty log is one, too");
    let mut checkpoints: Vec<Checkpoint> = vec![log.checkpoint().unwrap().0];
    // Over the edges of tiles, and a tile and a bundle that end exactly there.
    for (from, to) in [(0, 1), (1, 3), (3, 255), (255, 256), (256, 257), (257, 512), (512, 790)] {
        let appended = log.append(&entries(from..to), &key(LOG)).unwrap();
        assert_eq!((appended.entries.len() as u64, appended.known, appended.size), (to - from, 0, to));
        let (checkpoint, note) = log.checkpoint().unwrap();
        assert_eq!(checkpoint.head.size, to);
        assert!(policy(&vkey).accept(&note).is_ok());
        let audited = audit(log.files(), &checkpoint).unwrap();
        assert_eq!(audited.len() as u64, to);
        assert!(
            audited
                .iter()
                .zip(0..)
                .all(|(one, number)| one.entry == Some(entry(number)) && one.oddity.is_none())
        );
        for earlier in &checkpoints {
            assert_eq!(compare(log.files(), earlier, &checkpoint), Relation::Consistent);
        }
        let tiles = Tiles::new(log.files(), to);
        for index in [0, to / 2, to - 1] {
            let proof = prove(&tiles, index, &checkpoint.head, &note).unwrap();
            assert!(proof.holds(&entry(index).to_bytes()) && !proof.holds(b"another"), "{index} of {to}");
            assert_eq!(LogProof::parse(proof.to_string().as_bytes()).unwrap(), proof);
        }
        let kept = log.files().read(&proof_path(&entry(to - 1).leaf()), 1 << 20).unwrap().unwrap();
        assert!(LogProof::parse(&kept).unwrap().holds(&entry(to - 1).to_bytes()));
        checkpoints.push(checkpoint);
    }
    let (verified, text) = python(&path, &vkey);
    assert!(verified && text.contains(&format!("789 greet 790 {}", entry(789).sha256)), "{text}");
    assert!(text.contains(&format!("verified: {ORIGIN} 790")), "{text}");
    // What is there already is not there twice.
    let again = log.append(&entries(780..792), &key(LOG)).unwrap();
    assert_eq!((again.known, again.entries.len(), again.size), (10, 2, 792));
    assert!(matches!(log.append(&entries(792..793), &key(7)), Err(LogError::AnotherKey { .. })));
    for (size, path) in
        [(256, "tile/0/000"), (790, "tile/0/003.p/22"), (790, "tile/1/000.p/3"), (790, "tile/entries/002")]
    {
        assert!(log.files().read(path, 1 << 20).unwrap().is_some(), "{path} of {size}");
    }
}

#[test]
fn a_file_of_a_log_that_was_changed_is_found_and_the_log_is_not_signed_any_further() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (log, vkey) = founded(&path);
    log.append(&entries(0..300), &key(LOG)).unwrap();
    let (checkpoint, _) = log.checkpoint().unwrap();
    for file in
        ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"]
    {
        let whole = fs::read(path.join(file)).unwrap();
        for changed in [
            [&[whole[0] ^ 1], &whole[1..]].concat(),
            [&whole[..whole.len() - 1], &[whole[whole.len() - 1] ^ 1]].concat(),
            whole[..whole.len() - 1].to_vec(),
            Vec::new(),
        ] {
            fs::write(path.join(file), &changed).unwrap();
            assert!(audit(log.files(), &checkpoint).is_err(), "{file} of {} bytes", changed.len());
            if file == "tile/entries/001.p/44" && changed.len() == whole.len() {
                assert!(!python(&path, &vkey).0, "{file} of {} bytes", changed.len());
            }
        }
        if file.contains("/0/0") {
            assert!(log.append(&entries(300..301), &key(LOG)).is_err(), "{file}");
        }
        fs::write(path.join(file), whole).unwrap();
    }
    audit(log.files(), &checkpoint).unwrap();
    let text = fs::read_to_string(path.join("checkpoint")).unwrap();
    fs::write(path.join("checkpoint"), text.replace("\n300\n", "\n299\n")).unwrap();
    assert!(!python(&path, &vkey).0);
    assert!(matches!(log.append(&entries(300..301), &key(LOG)), Err(LogError::AnotherKey { .. })));
}

/// A copy of a log, to go on from differently.
fn forked(log: &Path, to: &Path) -> Log {
    support::copy_tree(log, to);
    Log::open(to).unwrap()
}

#[test]
fn a_witness_signs_only_what_continues_what_it_has_seen_and_keeps_the_evidence_of_a_fork() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (log, vkey) = founded(&path("log"));
    log.append(&entries(0..3), &key(LOG)).unwrap();
    let early = forked(&path("log"), &path("early"));
    let memory = Memory::open(&path("state")).unwrap();
    assert!(matches!(Memory::open(&path("state")), Err(LogError::Busy { .. })));
    let meet = |log: &Log| memory.meet(log.files(), &policy(&vkey));
    assert!(meet(&log).unwrap().before.is_none());
    log.append(&entries(3..260), &key(LOG)).unwrap();
    let met = meet(&log).unwrap();
    assert_eq!((met.before.unwrap().head.size, met.checkpoint.head.size), (3, 260));
    assert_eq!(meet(&log).unwrap().checkpoint.head.size, 260, "the same again is no news");

    assert!(matches!(meet(&early), Err(LogError::RolledBack { seen: 260, found: 3, .. })));
    // Another history of the same beginning, shorter, as long, and longer.
    for (name, to) in [("shorter", 100), ("as-long", 260), ("longer", 700)] {
        let fork = forked(&path("early"), &path(name));
        let others: Vec<LogEntry> = entries(1003..1000 + to);
        fork.append(&others, &key(LOG)).unwrap();
        match (meet(&fork).unwrap_err(), to) {
            (LogError::Forked { evidence, .. }, 260 | 700) => {
                assert_eq!(evidence.len(), 2);
                let (seen, shown) = (&evidence[0], &evidence[1]);
                assert_eq!(fs::read(seen).unwrap(), fs::read(path("log/checkpoint")).unwrap());
                assert_eq!(fs::read(shown).unwrap(), fs::read(path(&format!("{name}/checkpoint"))).unwrap());
                assert!(shown.starts_with(path("state/forks")));
            }
            // It has not the hashes that would prove it, and is refused all the same.
            (LogError::RolledBack { .. }, 100) => {}
            (other, _) => panic!("{name}: {other}"),
        }
    }
    assert_eq!(
        memory.seen(&ORIGIN.parse().unwrap()).unwrap().unwrap().0.head.size,
        260,
        "nothing of it was taken up"
    );
    meet(&log).unwrap();
    // Hashes of another tree than the checkpoint's prove nothing.
    let mixed = forked(&path("longer"), &path("mixed"));
    log.append(&entries(260..700), &key(LOG)).unwrap();
    fs::copy(path("log/checkpoint"), path("mixed/checkpoint")).unwrap();
    assert!(matches!(meet(&mixed), Err(LogError::Unproven { .. })));
    let stranger = NoteSigner::new(ORIGIN.parse().unwrap(), &key(7)).verifier(NoteKeyKind::Log).to_string();
    assert!(matches!(memory.meet(log.files(), &policy(&stranger)), Err(LogError::NotAccepted { .. })));
}

#[test]
fn cosignatures_come_into_the_checkpoint_and_into_the_proof_of_every_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (log, vkey) = founded(&path);
    log.append(&entries(0..5), &key(LOG)).unwrap();
    let (_, mut note) = log.checkpoint().unwrap();
    let (first, second) = (key(51), key(52));
    let witness = |name: &str, secret| NoteSigner::new(name.parse().unwrap(), secret);
    let (w1, w2) = (witness("w1.example", &first), witness("w2.example", &second));
    note.add(w1.cosign(note.text(), 1_794_000_000));
    assert_eq!(log.collect(&[(PathBuf::from("w1"), note.clone())]).unwrap(), 1);
    assert_eq!(log.collect(&[(PathBuf::from("w1"), note.clone())]).unwrap(), 0, "twice is once");
    note.add(w2.cosign(note.text(), 1_794_000_001));
    assert_eq!(log.collect(&[(PathBuf::from("w2"), note)]).unwrap(), 1);
    let keys = [&w1, &w2].map(|one| one.verifier(NoteKeyKind::Witness));
    let text = format!(
        "log {vkey}\nwitness a {}\nwitness b {}\ngroup both all a b\nquorum both\n",
        keys[0], keys[1]
    );
    let policy: LogPolicy = text.parse().unwrap();
    for number in 0..5 {
        let proof = log.files().read(&proof_path(&entry(number).leaf()), 1 << 20).unwrap().unwrap();
        let proof = LogProof::parse(&proof).unwrap();
        assert!(proof.holds(&entry(number).to_bytes()));
        assert_eq!(policy.accept(&proof.note).unwrap().cosigners.len(), 2);
    }
    // A checkpoint that is not the newest any more.
    let (_, old) = log.checkpoint().unwrap();
    log.append(&entries(5..6), &key(LOG)).unwrap();
    assert!(matches!(log.collect(&[(PathBuf::from("late"), old)]), Err(LogError::AnotherCheckpoint { .. })));
    let (_, note): (_, Note) = newest(log.files()).unwrap();
    assert!(policy.accept(&note).is_err(), "nobody has seen the new one");
}

#[test]
fn what_is_published_is_logged_first_and_a_second_content_of_a_version_is_found() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    team.signed_and_published(now());
    let (log, _) = founded(&team.repository().log());
    team.add("greet", 2, b"two");
    team.add("other", 1, b"three");
    team.signed();
    let refused = team.repository().publish(&[key(ONLINE)], now());
    assert!(matches!(refused, Err(AuthoringError::NoLogKey { .. })), "{refused:?}");
    let stranger = team.repository().publish_logged(&[key(ONLINE)], Some(&key(7)), now());
    assert!(matches!(stranger, Err(AuthoringError::Log(_))), "{stranger:?}");
    assert!(
        !team.names().iter().any(|name| name.starts_with("3.m1")),
        "nothing is published that is not logged"
    );
    let published = team.repository().publish_logged(&[key(ONLINE)], Some(&key(LOG)), now()).unwrap();
    // What was published before there was a log comes along with its role.
    let logged: Vec<String> = published
        .logged
        .unwrap()
        .entries
        .iter()
        .map(|(_, entry)| format!("{}@{}", entry.name, entry.version))
        .collect();
    assert_eq!(logged, ["greet@1", "greet@2", "other@1"]);
    let (checkpoint, _) = log.checkpoint().unwrap();
    assert!(audit(log.files(), &checkpoint).unwrap().iter().all(|one| one.oddity.is_none()));
    let other = LogEntry {
        sha256: Sha256::of(b"another"),
        ..LogEntry::clone(audit(log.files(), &checkpoint).unwrap()[1].entry.as_ref().unwrap())
    };
    log.append(&[other], &key(LOG)).unwrap();
    let (checkpoint, _) = log.checkpoint().unwrap();
    let found = audit(log.files(), &checkpoint).unwrap();
    assert_eq!(found[3].oddity, Some(Oddity::SecondContent { earlier: 1 }));
    // A refresh concerns no log.
    team.repository().refresh(&[key(ONLINE)], now()).unwrap();
}

#[test]
fn a_log_in_memory_is_read_as_one_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = founded(&directory.path().join("log"));
    log.append(&entries(0..300), &key(LOG)).unwrap();
    let (checkpoint, _) = log.checkpoint().unwrap();
    let tiles = Tiles::new(log.files(), 300);
    tiles.head().unwrap();
    let taken: BTreeMap<String, Vec<u8>> = tiles.taken();
    assert!(taken.len() < 4, "a root takes the tiles on the right edge: {:?}", taken.keys());
    assert_eq!(Tiles::new(&taken, 300).head().unwrap(), checkpoint.head);
    let missing = Tiles::new(&taken, 300).hashes_of(&[Position { level: 0, index: 5 }]);
    assert!(missing.is_err() || taken.contains_key("tile/0/000"));
    assert!(newest(&Directory(directory.path().join("nowhere"))).is_err());
}
