//! Lies about who signed, when, and what came before: one test each.

use std::sync::LazyLock;

use manifests::policy::PolicyError;
use manifests::verify::{AcceptedVersion, SignatureStanding, Standing};
use manifests::{Envelope, Manifest, Policy, SecretKey, Sha256, TrustFloor, UtcTime, VerifyAt, VerifyError};

const TRUTH: &str = include_str!("truth.yaml");

/// Keys by their first letter's seed: `key("alice")`.
fn key(name: &str) -> SecretKey {
    SecretKey::from_seed([name.as_bytes()[0]; 32])
}

fn policy_text(keys: &[&str], extra: &str, roles: &str) -> String {
    let mut text = "schema: 1\nkeys:\n".to_owned();
    for name in keys {
        let public = key(name).public();
        text += &format!("  - {{name: {name}, id: {}, public: \"{public}\"{extra}}}\n", public.id());
    }
    text + "roles:\n" + roles
}

/// Two roles: `build` by one of builder and carol, `security-review` by two of alice, bob and carol.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let roles = "  - {name: build, keys: [forge, carol], threshold: 1}\n\
                 \x20 - {name: security-review, keys: [alice, bob, carol], threshold: 2}\n";
    Policy::parse(policy_text(&["forge", "alice", "bob", "carol"], "", roles).as_bytes()).unwrap()
});

fn signed_text(text: &str, by: &[&str]) -> Envelope {
    let mut envelope = Envelope::of_manifest(text.as_bytes().to_vec());
    for name in by {
        envelope.sign(&key(name)).unwrap();
    }
    // What a host sees has been through a file.
    Envelope::parse(envelope.to_json().as_bytes()).unwrap()
}

fn signed(by: &[&str]) -> Envelope {
    signed_text(TRUTH, by)
}

fn time(text: &str) -> UtcTime {
    text.parse().unwrap()
}

const DURING: &str = "2026-11-10T12:00:00Z";

fn verify_at(
    policy: &Policy,
    envelope: &Envelope,
    now: &str,
    floor: &TrustFloor,
) -> Result<u64, VerifyError> {
    let at = VerifyAt { now: time(now).timestamp(), floor };
    policy.verify::<Manifest>(envelope, at).map(|manifest| manifest.version)
}

fn verify(policy: &Policy, envelope: &Envelope) -> Result<u64, VerifyError> {
    verify_at(policy, envelope, DURING, &TrustFloor::default())
}

#[test]
fn enough_distinct_keys_make_it_authentic() {
    for by in [&["forge", "alice", "bob"][..], &["carol", "alice", "bob"], &["bob", "forge", "carol"]] {
        assert_eq!(verify(&POLICY, &signed(by)).unwrap(), 3, "{by:?}");
    }
}

#[test]
fn a_verified_manifest_tells_who_signed_for_which_role() {
    let floor = TrustFloor::default();
    let at = VerifyAt { now: time(DURING).timestamp(), floor: &floor };
    let envelope = signed(&["carol", "alice", "bob"]);
    let verified = POLICY.verify::<Manifest>(&envelope, at).unwrap();
    assert_eq!(verified.digest(), Sha256::of(TRUTH.as_bytes()));
    let roles: Vec<String> = verified
        .signers()
        .roles
        .iter()
        .map(|role| {
            format!("{}: {:?}", role.role, role.signed.iter().map(|k| k.as_str()).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(roles, ["build: [\"carol\"]", "security-review: [\"alice\", \"bob\"]"]);
}

#[test]
fn unsigned_is_refused() {
    assert!(matches!(verify(&POLICY, &signed(&[])), Err(VerifyError::Unsigned { needed: 3, .. })));
}

#[test]
fn signatures_by_keys_of_nobody_are_refused() {
    let error = verify(&POLICY, &signed(&["mallory", "zoe", "xaver"])).unwrap_err();
    assert!(matches!(error, VerifyError::UnknownSigners { ref found } if found.len() == 3), "{error:?}");
}

#[test]
fn a_signature_by_the_wrong_key_under_a_known_name_is_refused() {
    let json = signed(&["mallory", "alice", "bob"])
        .to_json()
        .replace(&key("mallory").public().id().to_string(), &key("forge").public().id().to_string());
    let error = verify(&POLICY, &Envelope::parse(json.as_bytes()).unwrap()).unwrap_err();
    assert!(
        matches!(error, VerifyError::BadSignature { ref key, .. } if key.as_str() == "forge"),
        "{error:?}"
    );
}

#[test]
fn a_bad_signature_is_refused_even_when_the_others_suffice() {
    let json = signed(&["forge", "alice", "bob", "mallory"])
        .to_json()
        .replace(&key("mallory").public().id().to_string(), &key("carol").public().id().to_string());
    let error = verify(&POLICY, &Envelope::parse(json.as_bytes()).unwrap()).unwrap_err();
    assert!(
        matches!(error, VerifyError::BadSignature { ref key, .. } if key.as_str() == "carol"),
        "{error:?}"
    );
}

#[test]
fn a_role_without_enough_signatures_is_named() {
    let error = verify(&POLICY, &signed(&["forge", "alice"])).unwrap_err();
    let VerifyError::Threshold { role, threshold: 2, signed: by } = &error else { panic!("{error:?}") };
    assert_eq!((role.as_str(), by.len()), ("security-review", 1));
    assert_eq!(error.expected(), "2 distinct keys for role security-review");
    assert_eq!(error.found(), "1 (alice)");

    let error = verify(&POLICY, &signed(&["alice", "bob"])).unwrap_err();
    assert!(matches!(&error, VerifyError::Threshold { role, .. } if role.as_str() == "build"), "{error:?}");
}

#[test]
fn one_key_does_not_sign_for_two_roles() {
    let error = verify(&POLICY, &signed(&["carol", "alice"])).unwrap_err();
    let VerifyError::OneKeyForTwoRoles { keys, needed: 3, .. } = &error else { panic!("{error:?}") };
    assert_eq!(keys.len(), 2);
}

#[test]
fn changed_bytes_are_refused() {
    let mut json: serde_json::Value =
        serde_json::from_str(&signed(&["forge", "alice", "bob"]).to_json()).unwrap();
    let other = Envelope::of_manifest(TRUTH.replace("version: 3", "version: 4").into_bytes()).to_json();
    json["payload"] = serde_json::from_str::<serde_json::Value>(&other).unwrap()["payload"].clone();
    let envelope = Envelope::parse(json.to_string().as_bytes()).unwrap();
    assert!(matches!(verify(&POLICY, &envelope), Err(VerifyError::BadSignature { .. })));
}

#[test]
fn another_payload_type_is_refused_and_is_part_of_what_is_signed() {
    let json = signed(&["forge", "alice", "bob"]).to_json().replace("manifest.v1+yaml", "manifest.v2+yaml");
    let envelope = Envelope::parse(json.as_bytes()).unwrap();
    let floor = TrustFloor::default();
    let at = VerifyAt { now: time(DURING).timestamp(), floor: &floor };
    let examined = POLICY.examine::<Manifest>(&envelope, at);
    assert!(matches!(examined.outcome, Err(VerifyError::PayloadType { .. })));
    let holds = |s: &SignatureStanding| s.standing != Standing::DoesNotVerify;
    assert!(!examined.signers.signatures.iter().any(holds));
}

#[test]
fn what_is_not_a_manifest_is_not_parsed_before_its_signatures_hold() {
    let garbage = "*not: yaml";
    assert!(matches!(verify(&POLICY, &signed_text(garbage, &["forge"])), Err(VerifyError::Threshold { .. })));
    let error = verify(&POLICY, &signed_text(garbage, &["forge", "alice", "bob"])).unwrap_err();
    assert!(matches!(error, VerifyError::Malformed { .. }), "{error:?}");
}

#[test]
fn time_is_from_five_minutes_before_issued_until_expires() {
    let at = |now| verify_at(&POLICY, &signed(&["forge", "alice", "bob"]), now, &TrustFloor::default());
    assert!(matches!(at("2026-10-31T23:54:59Z"), Err(VerifyError::FromTheFuture { .. })));
    assert!(at("2026-10-31T23:55:00Z").is_ok());
    assert!(at("2026-11-30T23:59:59Z").is_ok());
    assert!(matches!(at("2026-12-01T00:00:00Z"), Err(VerifyError::Expired { .. })));
}

#[test]
fn an_older_version_than_accepted_before_is_refused() {
    let digest = Sha256::of(TRUTH.as_bytes());
    let floor = |version, manifest| TrustFloor {
        versions: [("greet".parse().unwrap(), AcceptedVersion { version, manifest })].into(),
        ..TrustFloor::default()
    };
    let at = |floor| verify_at(&POLICY, &signed(&["forge", "alice", "bob"]), DURING, &floor);
    assert!(at(floor(2, Sha256::of(b"two"))).is_ok());
    assert!(at(floor(3, digest)).is_ok(), "the same manifest again");
    assert!(matches!(at(floor(3, Sha256::of(b"other"))), Err(VerifyError::VersionReused { version: 3, .. })));
    assert!(matches!(at(floor(4, digest)), Err(VerifyError::VersionBelowFloor { floor: 4, found: 3, .. })));
}

#[test]
fn a_clock_that_went_back_is_refused() {
    let floor = TrustFloor { clock: Some(time("2026-11-10T12:00:00Z")), ..TrustFloor::default() };
    let at = |now| verify_at(&POLICY, &signed(&["forge", "alice", "bob"]), now, &floor);
    assert!(at("2026-11-10T11:55:00Z").is_ok(), "within the allowed skew");
    assert!(matches!(at("2026-11-10T11:54:59Z"), Err(VerifyError::ClockBehind { .. })));
}

#[test]
fn a_clock_within_the_skew_does_not_revive_what_has_expired() {
    let floor = TrustFloor { clock: Some(time("2026-12-01T00:00:00Z")), ..TrustFloor::default() };
    let error = verify_at(&POLICY, &signed(&["forge", "alice", "bob"]), "2026-11-30T23:58:00Z", &floor);
    assert!(matches!(error, Err(VerifyError::Expired { .. })));
}

#[test]
fn accepting_a_manifest_raises_the_floor_and_never_lowers_it() {
    let mut floor = TrustFloor::default();
    for (version, issued) in [(3, "2026-11-02"), (2, "2026-11-03"), (5, "2026-11-01")] {
        let text = TRUTH
            .replace("version: 3", &format!("version: {version}"))
            .replace("issued: 2026-11-01", &format!("issued: {issued}"));
        let envelope = signed_text(&text, &["forge", "alice", "bob"]);
        let empty = TrustFloor::default();
        let at = VerifyAt { now: time(DURING).timestamp(), floor: &empty };
        floor.raise::<Manifest>(&POLICY.verify(&envelope, at).unwrap());
    }
    assert_eq!(floor.clock, Some(time("2026-11-03T00:00:00Z")));
    assert_eq!(floor.versions.values().map(|seen| seen.version).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_clock_that_was_once_ahead_does_not_lock_the_host_out() {
    let mut floor = TrustFloor::default();
    let envelope = signed(&["forge", "alice", "bob"]);
    // Four weeks ahead, as far as this manifest allows.
    let at = VerifyAt { now: time("2026-11-30T00:00:00Z").timestamp(), floor: &TrustFloor::default() };
    floor.raise::<Manifest>(&POLICY.verify(&envelope, at).unwrap());
    assert_eq!(verify_at(&POLICY, &envelope, "2026-11-02T00:00:00Z", &floor).unwrap(), 3);
}

#[test]
fn an_operator_can_forget_the_evidence_of_time_and_nothing_else() {
    let mut floor = TrustFloor::default();
    let at = VerifyAt { now: time(DURING).timestamp(), floor: &TrustFloor::default() };
    floor.raise::<Manifest>(&POLICY.verify(&signed(&["forge", "alice", "bob"]), at).unwrap());
    floor.revoked.keys.insert(key("bob").public().id(), time(DURING));
    let mut without = floor.clone();
    assert_eq!(without.reset_clock(), Some(time("2026-11-01T00:00:00Z")));
    assert_eq!(without, TrustFloor { clock: None, ..floor });
}

/// `carol` is revoked from the 5th of November on, or as `revoked` says.
fn revoking(revoked: &str) -> Policy {
    let roles = "  - {name: build, keys: [carol], threshold: 1}\n";
    Policy::parse(policy_text(&["carol"], revoked, roles).as_bytes()).unwrap()
}

#[test]
fn a_clock_set_back_does_not_revive_a_revoked_key() {
    let policy = revoking(", revoked: 2026-11-05T00:00:00Z");
    let back = "2026-11-04T00:00:00Z";
    let mut floor = TrustFloor::default();
    assert!(!floor.see(&policy, time(back).timestamp()), "announced, not in force");
    assert!(verify_at(&policy, &signed(&["carol"]), back, &floor).is_ok());

    assert!(floor.see(&policy, time(DURING).timestamp()));
    assert!(!floor.see(&policy, time(DURING).timestamp()), "seen before");
    let error = verify_at(&policy, &signed(&["carol"]), back, &floor).unwrap_err();
    assert!(matches!(&error, VerifyError::KeyRevoked { key, .. } if key.as_str() == "carol"), "{error:?}");
}

#[test]
fn a_policy_that_forgets_a_revocation_does_not_revive_the_key() {
    let mut floor = TrustFloor::default();
    floor.see(&revoking(", revoked: 2026-11-05T00:00:00Z"), time(DURING).timestamp());
    let error = verify_at(&revoking(""), &signed(&["carol"]), DURING, &floor).unwrap_err();
    assert!(
        matches!(&error, VerifyError::KeyRevoked { since, .. } if *since == time("2026-11-05T00:00:00Z"))
    );
}

#[test]
fn evidence_of_time_puts_a_revocation_and_the_end_of_a_key_in_force() {
    let floor = TrustFloor { clock: Some(time("2026-11-05T00:03:00Z")), ..TrustFloor::default() };
    let within_the_skew = "2026-11-04T23:59:00Z";
    let revoked =
        verify_at(&revoking(", revoked: 2026-11-05T00:00:00Z"), &signed(&["carol"]), within_the_skew, &floor);
    assert!(matches!(revoked, Err(VerifyError::KeyRevoked { .. })), "{revoked:?}");
    let expired = verify_at(
        &revoking(", not_after: 2026-11-05T00:00:00Z"),
        &signed(&["carol"]),
        within_the_skew,
        &floor,
    );
    assert!(matches!(expired, Err(VerifyError::KeyExpired { .. })), "{expired:?}");
}

#[test]
fn a_revoked_key_does_not_count_whenever_it_signed() {
    let roles = "  - {name: build, keys: [forge, carol], threshold: 1}\n";
    let text =
        policy_text(&["forge", "carol"], "", roles).replacen("}", ", revoked: 2026-11-05T00:00:00Z}", 1);
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let error = verify(&policy, &signed(&["forge"])).unwrap_err();
    assert!(matches!(&error, VerifyError::KeyRevoked { key, .. } if key.as_str() == "forge"), "{error:?}");
    assert!(verify(&policy, &signed(&["forge", "carol"])).is_ok(), "another key stands in");
    let before = verify_at(&policy, &signed(&["forge"]), "2026-11-04T23:59:59Z", &TrustFloor::default());
    assert!(before.is_ok(), "a revocation that is announced and not in force");
}

#[test]
fn a_key_past_its_time_does_not_count() {
    let roles = "  - {name: build, keys: [forge], threshold: 1}\n";
    let text = policy_text(&["forge"], ", not_after: 2026-11-05T00:00:00Z", roles);
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let at = |now| verify_at(&policy, &signed(&["forge"]), now, &TrustFloor::default());
    assert!(at("2026-11-05T00:00:00Z").is_ok());
    assert!(matches!(at("2026-11-05T00:00:01Z"), Err(VerifyError::KeyExpired { .. })));
}

/// Reads a policy that is wrong and gives the refusal.
fn refused(text: &str) -> PolicyError {
    Policy::parse(text.as_bytes()).expect_err(text)
}

#[test]
fn a_policy_that_does_not_mean_what_it_seems_to_is_refused() {
    let one = |role: &str| policy_text(&["forge", "carol"], "", &format!("  - {{{role}}}\n"));
    let good = one("name: build, keys: [forge], threshold: 1");
    Policy::parse(good.as_bytes()).unwrap();

    let zero = one("name: build, keys: [forge], threshold: 0");
    assert!(matches!(refused(&zero), PolicyError::Threshold { threshold: 0, .. }));
    let more = one("name: build, keys: [forge], threshold: 2");
    assert!(matches!(refused(&more), PolicyError::Threshold { threshold: 2, keys: 1, .. }));
    let none = one("name: build, keys: [], threshold: 1");
    assert!(matches!(refused(&none), PolicyError::Threshold { keys: 0, .. }));
    let stranger = one("name: build, keys: [mallory], threshold: 1");
    assert!(matches!(refused(&stranger), PolicyError::UnknownKey { .. }));
    let twice = one("name: build, keys: [forge, forge], threshold: 2");
    assert!(matches!(refused(&twice), PolicyError::RoleKeyTwice { .. }));

    let role = "  - {name: build, keys: [forge], threshold: 1}\n";
    let roles = policy_text(&["forge"], "", &role.repeat(2));
    assert!(matches!(refused(&roles), PolicyError::RoleTwice { .. }));
    let review = "  - {name: review, keys: [forge], threshold: 1}\n";
    let shared = policy_text(&["forge"], "", &(role.to_owned() + review));
    assert!(matches!(refused(&shared), PolicyError::TooFewKeys { needed: 2, reachable: 1 }));

    let name = policy_text(&["forge", "forge"], "", role);
    assert!(matches!(refused(&name), PolicyError::NameTwice { .. }));
    // One seed for all names in f.
    let key = policy_text(&["forge", "fake"], "", role);
    assert!(matches!(refused(&key), PolicyError::KeyTwice { .. }));
    let id = good.replacen(&self::key("forge").public().id().to_string(), &"0".repeat(64), 1);
    assert!(matches!(refused(&id), PolicyError::WrongId { .. }));

    assert!(matches!(refused("schema: 1\nkeys: []\nroles: []\n"), PolicyError::Count { .. }));
    assert!(matches!(refused(&(good.clone() + "extra: 1\n")), PolicyError::Yaml(_)));
    assert!(matches!(refused(&(good.clone() + "roles: []\n")), PolicyError::Yaml(_)));
    let weak = hex::encode([&[1][..], &[0; 31]].concat());
    let weak = good.replacen(&self::key("forge").public().to_string(), &weak, 1);
    assert!(matches!(refused(&weak), PolicyError::Yaml(_)));
}

#[test]
fn how_long_a_signature_has_to_be_is_a_matter_of_the_key_that_it_is_of() {
    let honest = signed(&["forge", "alice", "bob"]);
    // One that a stranger made by an algorithm that is not known here, as long as ML-DSA-87's, changes nothing.
    let mut envelope = honest.clone();
    envelope.add(&key("zoe").public(), vec![7; 4627]).unwrap();
    let envelope = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
    assert_eq!(verify(&POLICY, &envelope).unwrap(), 3);
    // Under the name of a known key it has to be of that key, and of its length.
    let of_carol = key("carol").sign(&honest.signed_bytes());
    let lies =
        [of_carol[..63].to_vec(), [&of_carol[..], &[0]].concat(), of_carol[..32].to_vec(), vec![7; 4627]];
    for lie in lies {
        let mut envelope = honest.clone();
        let length = lie.len();
        envelope.add(&key("carol").public(), lie).unwrap();
        assert!(verify(&POLICY, &envelope).is_err(), "one of {length} bytes was believed");
    }
    let mut envelope = honest.clone();
    envelope.add(&key("carol").public(), of_carol).unwrap();
    assert_eq!(verify(&POLICY, &envelope).unwrap(), 3);
}

#[test]
fn signatures_stripped_duplicated_or_reordered() {
    let whole = signed(&["forge", "alice", "bob"]);
    let signatures = || whole.signatures().iter().cloned();
    let with = |signatures: Vec<manifests::envelope::Signature>| {
        let mut envelope = Envelope::of_manifest(TRUTH.as_bytes().to_vec());
        for signature in signatures {
            let names = ["forge", "alice", "bob"];
            let of = names.iter().find(|name| key(name).public().id() == signature.key).unwrap();
            envelope.add(&key(of).public(), signature.bytes).unwrap();
        }
        Envelope::parse(envelope.to_json().as_bytes()).unwrap()
    };
    // Any one stripped is one too few.
    for gone in 0..3 {
        let rest = signatures().enumerate().filter(|(at, _)| *at != gone).map(|(_, one)| one).collect();
        let refused = verify(&POLICY, &with(rest)).unwrap_err();
        assert!(refused.to_string().ends_with("has too few signatures"), "{gone}: {refused}");
    }
    // The order says nothing.
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let all: Vec<_> = signatures().collect();
        assert_eq!(verify(&POLICY, &with(order.map(|at| all[at].clone()).to_vec())).unwrap(), 3, "{order:?}");
    }
    // One that stands twice, and one that stands under another's name.
    let text = whole.to_json();
    let id = |name: &str| key(name).public().id().to_string();
    let twice = text.replace(&id("bob"), &id("alice"));
    assert!(Envelope::parse(twice.as_bytes()).is_err());
    let swapped =
        text.replace(&id("bob"), "BOB").replace(&id("alice"), &id("bob")).replace("BOB", &id("alice"));
    assert!(verify(&POLICY, &Envelope::parse(swapped.as_bytes()).unwrap()).is_err());
}
