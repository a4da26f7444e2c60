//! Policies that ask for a log: what they are, and the lies that can be told about one.

use std::cell::RefCell;

use manifests::log::tree::{self, Frontier, Position};
use manifests::log::{
    Checkpoint, History, LogEntry, LogPolicy, LogProof, LogRefusal, Note, NoteKeyKind, NoteSigner,
    Publication,
};
use manifests::{
    Envelope, Manifest, Policy, PolicyError, SecretKey, Sha256, TrustFloor, UtcTime, Verified, VerifyAt,
    VerifyError,
};

const TRUTH: &str = include_str!("truth.yaml");
const ORIGIN: &str = "updates.example.org/log";

fn key(name: &str) -> SecretKey {
    SecretKey::from_seed([name.as_bytes()[0]; 32])
}

fn signer(name: &str, secret: &'static SecretKey) -> NoteSigner<'static> {
    NoteSigner::new(name.parse().unwrap(), secret)
}

fn leak(name: &str) -> &'static SecretKey {
    Box::leak(Box::new(key(name)))
}

/// A log and three witnesses, of which `threshold` have to have seen it; none of them for `0`.
fn log_policy(threshold: usize) -> String {
    let mut text = format!("# company\nlog {}\n", signer(ORIGIN, leak("log")).verifier(NoteKeyKind::Log));
    for name in ["1", "2", "3"] {
        let key = signer(&format!("w{name}.example"), leak(name)).verifier(NoteKeyKind::Witness);
        text += &format!("witness w{name} {key} https://w{name}.example/\n");
    }
    match threshold {
        0 => text + "quorum none\n",
        more => text + &format!("group company {more} w1 w2 w3\nquorum company\n"),
    }
}

/// A host's policy in which forge signs everything, and manifests have to be logged.
fn policy(log: &str) -> Result<Policy, PolicyError> {
    let public = key("forge").public();
    let log: String = log.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!(
        "schema: 2\nversion: 1\nissued: 2026-11-01T00:00:00Z\n\
         keys: [{{name: forge, id: {}, public: \"{public}\"}}]\n\
         roles: [{{name: build, keys: [forge], threshold: 1}}]\n\
         rules:\n- {{document: manifest, any_of: [[build]]}}\n- {{document: policy, any_of: [[build]]}}\n\
         transparency: |\n{log}",
        public.id()
    );
    Policy::parse(text.as_bytes())
}

fn envelope(version: u64) -> Envelope {
    let mut envelope =
        Envelope::of_manifest(TRUTH.replace("version: 3", &format!("version: {version}")).into_bytes());
    envelope.sign(&key("forge")).unwrap();
    envelope
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log {
    entries: Vec<Vec<u8>>,
    /// How often it was asked.
    asked: RefCell<usize>,
}

impl Log {
    fn of(envelopes: &[&Envelope]) -> Self {
        let entries = envelopes.iter().map(|envelope| LogEntry::of(envelope).unwrap().to_bytes());
        Self { entries: entries.collect(), asked: RefCell::default() }
    }

    fn with(mut self, others: std::ops::Range<u64>) -> Self {
        self.entries.extend(others.map(|number| format!("other {number}").into_bytes()));
        self
    }

    fn note(&self, cosigners: &[&str]) -> Note {
        let mut frontier = Frontier::default();
        self.entries.iter().for_each(|entry| drop(frontier.append(entry)));
        let checkpoint = Checkpoint { origin: ORIGIN.parse().unwrap(), head: frontier.head() };
        let mut note = Note::unsigned(checkpoint.to_text());
        note.add(signer(ORIGIN, leak("log")).sign(note.text()));
        for name in cosigners {
            note.add(signer(&format!("w{name}.example"), leak(name)).cosign(note.text(), 1_794_000_000));
        }
        note
    }

    fn proof(&self, index: u64, cosigners: &[&str]) -> String {
        let size = self.entries.len() as u64;
        let path =
            tree::prove_inclusion(index, size, |wanted| self.nodes(wanted).ok_or(())).unwrap().unwrap();
        let note = self.note(cosigners);
        let checkpoint = Checkpoint::parse(note.text()).unwrap();
        LogProof { index, path, checkpoint, note }.to_string()
    }
}

impl History for Log {
    fn nodes(&self, wanted: &[Position]) -> Option<Vec<Sha256>> {
        *self.asked.borrow_mut() += 1;
        let node = |at: &Position| {
            let (from, to) = ((at.index << at.level) as usize, ((at.index + 1) << at.level) as usize);
            let mut frontier = Frontier::default();
            self.entries.get(from..to)?.iter().for_each(|entry| drop(frontier.append(entry)));
            Some(frontier.head().root)
        };
        wanted.iter().map(node).collect()
    }
}

fn judge(
    policy: &Policy,
    envelope: &Envelope,
    proof: Option<&str>,
    history: Option<&dyn History>,
    floor: &TrustFloor,
) -> Result<Verified<Manifest>, LogRefusal> {
    let now: UtcTime = "2026-11-10T12:00:00Z".parse().unwrap();
    let at = VerifyAt { now: now.timestamp(), floor };
    let publication = Publication { proof: proof.map(str::as_bytes), history };
    match policy.verify_published(envelope, publication, at) {
        Ok(verified) => Ok(verified),
        Err(VerifyError::NotLogged(refusal)) => {
            assert!(!refusal.expected().is_empty() && !refusal.found().is_empty());
            Err(refusal)
        }
        Err(other) => panic!("{other}"),
    }
}

fn kind(result: Result<Verified<Manifest>, LogRefusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.kind(), |_| "accepted")
}

#[test]
fn a_manifest_counts_when_it_is_logged_and_enough_witnesses_have_seen_the_log() {
    let (policy, envelope, floor) = (policy(&log_policy(2)).unwrap(), envelope(3), TrustFloor::default());
    let log = Log::default().with(0..5);
    let log =
        Log { entries: [log.entries, Log::of(&[&envelope]).entries].concat(), ..Log::default() }.with(6..9);
    let verified = judge(&policy, &envelope, Some(&log.proof(5, &["1", "3"])), None, &floor).unwrap();
    let logged = verified.logged().unwrap();
    assert_eq!((logged.index, logged.head.size, logged.origin.as_str()), (5, 9, ORIGIN));
    let names: Vec<&str> = logged.cosigners.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["w1", "w3"]);

    let refused = |proof: Option<&str>| kind(judge(&policy, &envelope, proof, None, &floor));
    assert_eq!(refused(None), "not-logged");
    assert_eq!(refused(Some("c2sp.org/tlog-proof@v1\n")), "malformed-log-proof");
    assert_eq!(refused(Some(&log.proof(5, &["1"]))), "too-few-witnesses");
    assert_eq!(refused(Some(&log.proof(5, &[]))), "too-few-witnesses");
    assert_eq!(refused(Some(&log.proof(4, &["1", "2"]))), "not-in-log", "a proof of another entry");
    let proof = log.proof(5, &["1", "2"]);
    assert_eq!(refused(Some(&proof.replace("index 5", "index 6"))), "not-in-log");
    assert_eq!(refused(Some(&proof.replace("\n9\n", "\n10\n"))), "bad-checkpoint", "its size was changed");
    assert_eq!(refused(Some(&proof.replace(ORIGIN, "elsewhere.example/log"))), "unknown-log");
    // The cosignatures of one checkpoint under another.
    let later = log.clone().with(9..10);
    let (mixed, _) = later
        .proof(5, &["1", "2"])
        .split_once("\u{2014} w1")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let stale = &proof[proof.find("\u{2014} w1").unwrap()..];
    assert_eq!(refused(Some(&(mixed + stale))), "bad-checkpoint");
    // A policy that asks for nothing is as it was.
    let plain = manifests_policy_without_log();
    assert!(
        plain
            .verify::<Manifest>(
                &envelope,
                VerifyAt { now: "2026-11-10T12:00:00Z".parse().unwrap(), floor: &floor }
            )
            .unwrap()
            .logged()
            .is_none()
    );
}

fn manifests_policy_without_log() -> Policy {
    let public = key("forge").public();
    let text = format!(
        "schema: 1\nkeys: [{{name: forge, id: {}, public: \"{public}\"}}]\nroles: [{{name: build, keys: [forge], threshold: 1}}]\n",
        public.id()
    );
    Policy::parse(text.as_bytes()).unwrap()
}

#[test]
fn who_signed_is_part_of_what_is_logged() {
    let (policy, floor) = (policy(&log_policy(1)).unwrap(), TrustFloor::default());
    let logged = envelope(3);
    let proof = Log::of(&[&logged]).proof(0, &["1"]);
    assert_eq!(kind(judge(&policy, &logged, Some(&proof), None, &floor)), "accepted");
    let mut more = logged.clone();
    more.sign(&key("stolen")).unwrap();
    assert_eq!(kind(judge(&policy, &more, Some(&proof), None, &floor)), "not-in-log");
}

#[test]
fn a_log_continues_what_a_host_has_seen_of_it_or_is_refused() {
    let with_witnesses = policy(&log_policy(2)).unwrap();
    let alone = policy(&log_policy(0)).unwrap();
    let (first, second) = (envelope(3), envelope(4));
    let early = Log::of(&[&first]).with(1..4);
    let mut floor = TrustFloor::default();
    let seen = judge(&alone, &first, Some(&early.proof(0, &["1", "2"])), None, &floor).unwrap();
    floor.raise(&seen);
    assert_eq!(floor.logs.len(), 1);

    let later =
        Log { entries: [early.entries.clone(), Log::of(&[&second]).entries].concat(), ..Log::default() };
    let proof = later.proof(4, &["1", "2"]);
    let judged = |policy, history| kind(judge(policy, &second, Some(&proof), history, &floor));
    assert_eq!(judged(&alone, Some(&later)), "accepted", "the log proves it");
    assert_eq!(judged(&alone, None), "log-unproven", "nobody proves it");
    assert_eq!(judged(&with_witnesses, None), "accepted", "witnesses have seen it");
    assert!(*later.asked.borrow() > 0);

    // A fork: the log signs another history to this host, even one that witnesses would sign.
    let fork = Log::of(&[&first, &second]).with(7..12);
    let forked = fork.proof(1, &["1", "2"]);
    for policy in [&alone, &with_witnesses] {
        match judge(policy, &second, Some(&forked), Some(&fork), &floor).unwrap_err() {
            LogRefusal::Forked { seen, shown, .. } => {
                assert_eq!(seen, early.note(&["1", "2"]).to_string());
                assert_eq!(shown, fork.note(&["1", "2"]).to_string());
            }
            other => panic!("{other}"),
        }
    }
    let same_size = Log::of(&[&first, &second]).with(7..9);
    assert_eq!(same_size.entries.len(), early.entries.len());
    let forked = same_size.proof(1, &["1", "2"]);
    assert_eq!(
        kind(judge(&with_witnesses, &second, Some(&forked), None, &floor)),
        "log-forked",
        "without its hashes"
    );
    // Hashes of something else prove nothing, neither a fork nor a continuation.
    assert_eq!(judged(&alone, Some(&fork)), "log-unproven");

    // Rolled back: an earlier checkpoint, unless the log shows that it is of the same history.
    floor.raise(&judge(&alone, &second, Some(&proof), Some(&later), &floor).unwrap());
    let old = early.proof(0, &["1", "2"]);
    // The version floor is the manifest's own affair: another manifest of the early log.
    let floor = TrustFloor { versions: Default::default(), ..floor };
    assert_eq!(kind(judge(&with_witnesses, &first, Some(&old), None, &floor)), "log-rolled-back");
    assert_eq!(kind(judge(&with_witnesses, &first, Some(&old), Some(&early), &floor)), "log-rolled-back");
    let again = judge(&with_witnesses, &first, Some(&old), Some(&later), &floor).unwrap();
    let mut kept = floor.clone();
    kept.raise(&again);
    assert_eq!(kept.logs, floor.logs, "what was seen stays the newest");
}

#[test]
fn a_log_policy_means_what_it_seems_to() {
    let text = log_policy(2);
    let good: LogPolicy = text.parse().unwrap();
    assert_eq!(
        (good.logs().len(), good.witnesses().count(), good.needed().as_str()),
        (1, 3, "2 of w1, w2, w3")
    );
    let nested = text.replace("group company 2 w1 w2 w3", "group a all w1 w2\ngroup company any a w3");
    let nested: LogPolicy = nested.parse().unwrap();
    let log = Log::default().with(0..3);
    for (cosigners, accepted) in
        [(&["1", "2"][..], true), (&["3"], true), (&["1"], false), (&["2"], false), (&[], false)]
    {
        assert_eq!(nested.accept(&log.note(cosigners)).is_ok(), accepted, "{cosigners:?}");
    }
    let single: LogPolicy =
        text.replace("group company 2 w1 w2 w3\nquorum company", "quorum w2").parse().unwrap();
    assert!(single.accept(&log.note(&["2"])).is_ok() && single.accept(&log.note(&["1", "3"])).is_err());

    let log_key = signer(ORIGIN, leak("log")).verifier(NoteKeyKind::Log).to_string();
    let log_as_witness = signer(ORIGIN, leak("log")).verifier(NoteKeyKind::Witness).to_string();
    let w1 = signer("w1.example", leak("1")).verifier(NoteKeyKind::Witness).to_string();
    for (what, bad) in [
        ("no quorum", text.replace("quorum company\n", "")),
        ("two quorums", format!("{text}quorum none\n")),
        ("no log", text.replace("log updates", "# log updates")),
        ("an unknown name", text.replace("quorum company", "quorum compani")),
        ("a group before its members", text.replace("witness w3", "group early 1 w3\nwitness w3")),
        ("a threshold of nobody", text.replace("company 2", "company 0")),
        ("a threshold of too many", text.replace("company 2", "company 4")),
        ("a threshold with a sign", text.replace("company 2", "company +2")),
        ("a member twice", text.replace("w1 w2 w3", "w1 w1 w3")),
        ("a member of two groups", text.replace("quorum", "group other 1 w1\nquorum")),
        ("a name twice", text.replace("witness w2", "witness w1")),
        ("the name of nobody", text.replace("witness w2", "witness none")),
        ("a key twice", text.replace("quorum", &format!("witness w9 {w1}\nquorum"))),
        ("a log as its own witness", text.replace("quorum", &format!("witness w9 {log_as_witness}\nquorum"))),
        ("a log's key as a witness's", text.replace("quorum", &format!("witness w9 {log_key}\nquorum"))),
        ("a changed key", text.replacen("+", "+0", 1)),
        ("another line", format!("{text}threshold 2\n")),
        ("a group without members", text.replace("company 2 w1 w2 w3", "company 2")),
        ("a carriage return", text.replace('\n', "\r\n")),
    ] {
        assert!(bad.parse::<LogPolicy>().is_err(), "{what} was taken");
        assert!(what == "a carriage return" || policy(&bad).is_err(), "{what} was taken in a policy");
    }
    let policy = policy(&text).unwrap();
    assert_eq!(policy.transparency().unwrap().as_str(), text);
    let schema_1 = "schema: 1\ntransparency: |\n  quorum none\nkeys: []\nroles: []\n";
    assert!(Policy::parse(schema_1.as_bytes()).is_err());
}

#[test]
fn an_entry_has_one_spelling() {
    let entry = LogEntry::of(&envelope(3)).unwrap();
    let bytes = entry.to_bytes();
    assert_eq!(LogEntry::parse(&bytes).unwrap(), entry);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with(r#"{"document":"manifest","name":""#), "{text}");
    for bad in [
        text.replace(':', ": "),
        text.replace("\"version\":3", "\"version\":3,\"more\":1"),
        format!("{text}\n"),
        String::new(),
    ] {
        assert!(LogEntry::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let policy = Envelope::new(manifests::DocumentKind::Policy, b"schema: 2\n".to_vec());
    assert!(LogEntry::of(&policy).is_err());
}
