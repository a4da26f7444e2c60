//! Statements of hosts, and each way to pass off another one.

use super::*;
use crate::key::SecretKey;
use crate::statement::Subject;

const NOW: &str = "2026-11-01T12:00:00Z";
const BOOT: &str = "3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn known(name: &str, seed: u8) -> PublicKeyFile {
    PublicKeyFile::new(name.parse().unwrap(), key(seed).public())
}

/// What a host with this key says.
fn evidence(of: u8) -> Evidence {
    Evidence {
        host: Host {
            key: key(of).public().id(),
            name: Some("web-1".to_owned()),
            fleet: None,
            groups: Vec::new(),
        },
        boot: Boot { id: BOOT.parse().unwrap(), userspace: None, uptime_s: 60 },
        at: "2026-11-01T11:59:00Z".parse().unwrap(),
        nonce: Some("audit-7".parse().unwrap()),
        kernel: Kernel {
            release: "6.1.0-50-amd64".parse().unwrap(),
            version: "#1 SMP".to_owned(),
            arch: "x86_64".to_owned(),
            build_id: None,
            package: None,
            tainted: Some(0),
        },
        livepatches: Vec::new(),
        missing: Vec::new(),
        no_livepatch: None,
        workloads: Vec::new(),
        unreadable: Vec::new(),
        transactions: Vec::new(),
        policy: None,
        journal: JournalSeen { head: Head::EMPTY, broken: None },
        vulnerabilities: Vec::new(),
    }
}

/// The statement, signed by the host with this key.
fn signed(evidence: Evidence, by: u8) -> Envelope {
    let subject = vec![Subject::of("host", *evidence.host.key.digest())];
    let statement = Statement::new(subject, TYPE, evidence);
    let mut envelope = Envelope::new(crate::DocumentKind::Evidence, statement.to_json());
    envelope.sign(&key(by)).unwrap();
    envelope
}

fn checked<'a>(
    envelope: &Envelope,
    change: impl FnOnce(&mut Expected<'a>),
) -> Result<Checked, EvidenceError> {
    // They live as long as whatever is expected.
    let keys = Box::leak(Box::new([known("web-1", 1), known("web-2", 2)]));
    let mut expected = Expected {
        keys,
        host: None,
        boot: None,
        nonce: None,
        max_age: SignedDuration::from_mins(5),
        now: NOW.parse().unwrap(),
    };
    change(&mut expected);
    check(envelope, &expected)
}

#[test]
fn what_a_host_says_of_itself_now_is_believed_as_its_word() {
    let envelope = signed(evidence(1), 1);
    let nonce = "audit-7".parse().unwrap();
    let boot = BOOT.parse().unwrap();
    let found = checked(&envelope, |expected| {
        (expected.host, expected.boot, expected.nonce) = (Some("web-1"), Some(&boot), Some(&nonce));
    });
    let found = found.unwrap();
    assert_eq!((found.signer.as_str(), found.age.as_secs()), ("web-1", 60));
    assert!(matches!(found.said, Said::Evidence(said) if said.predicate == evidence(1)));
    let id = key(1).public().id().to_string();
    assert!(
        checked(&envelope, |expected| expected.host = Some(&id)).is_ok(),
        "a host is known by its key, too"
    );
}

#[test]
fn what_another_host_signed_is_refused() {
    let of_two = signed(evidence(2), 2);
    assert!(matches!(
        checked(&of_two, |expected| expected.host = Some("web-1")),
        Err(EvidenceError::WrongHost { .. })
    ));
    // One host in the name of another.
    assert!(matches!(checked(&signed(evidence(1), 2), |_| {}), Err(EvidenceError::OtherHost { .. })));
    assert!(matches!(checked(&signed(evidence(3), 3), |_| {}), Err(EvidenceError::UnknownSigner { .. })));
    let unsigned = Envelope::new(crate::DocumentKind::Evidence, b"{}".to_vec());
    assert!(matches!(checked(&unsigned, |_| {}), Err(EvidenceError::UnknownSigner { .. })));
    // Another key under a known name.
    let json = signed(evidence(1), 3).to_json();
    let [three, one] = [3, 1].map(|seed| key(seed).public().id().to_string());
    let forged = Envelope::parse(json.replace(&three, &one).as_bytes()).unwrap();
    assert!(matches!(checked(&forged, |_| {}), Err(EvidenceError::BadSignature { .. })));
}

#[test]
fn what_is_of_another_boot_time_or_question_is_refused() {
    let envelope = signed(evidence(1), 1);
    let other = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    assert!(matches!(
        checked(&envelope, |expected| expected.boot = Some(&other)),
        Err(EvidenceError::WrongBoot { .. })
    ));
    let question = "audit-8".parse().unwrap();
    assert!(matches!(
        checked(&envelope, |expected| expected.nonce = Some(&question)),
        Err(EvidenceError::WrongNonce { .. })
    ));
    let unasked = signed(Evidence { nonce: None, ..evidence(1) }, 1);
    assert!(matches!(
        checked(&unasked, |expected| expected.nonce = Some(&question)),
        Err(EvidenceError::WrongNonce { found: None, .. })
    ));
    assert!(matches!(
        checked(&envelope, |expected| expected.now = "2026-11-01T12:05:00Z".parse().unwrap()),
        Err(EvidenceError::TooOld { .. })
    ));
    assert!(matches!(
        checked(&envelope, |expected| expected.now = "2026-11-01T11:53:59Z".parse().unwrap()),
        Err(EvidenceError::FromTheFuture { .. })
    ));
}

#[test]
fn what_is_no_statement_of_a_host_is_refused_even_when_it_is_signed() {
    let sign = |payload: &[u8], kind| {
        let mut envelope = Envelope::new(kind, payload.to_vec());
        envelope.sign(&key(1)).unwrap();
        checked(&envelope, |_| {})
    };
    let kind = crate::DocumentKind::Evidence;
    let good = Statement::new(vec![Subject::of("host", Sha256::of(b""))], TYPE, evidence(1)).to_json();
    assert!(sign(&good, kind).is_ok());
    assert!(matches!(sign(&good, crate::DocumentKind::Manifest), Err(EvidenceError::PayloadType { .. })));
    let text = String::from_utf8(good).unwrap();
    for (what, other) in [("host-evidence:v1", "host-evidence:v2"), (r#""host":"#, r#""more":1,"host":"#)] {
        assert!(text.contains(what));
        assert!(matches!(
            sign(text.replacen(what, other, 1).as_bytes(), kind),
            Err(EvidenceError::Statement(_))
        ));
    }
    assert!(matches!(sign(b"{}", kind), Err(EvidenceError::Statement(_))));
}
