//! What a stolen controller can ask, and what a host answers.

mod support;

use std::time::Duration;

use manifests::{
    Asked, Attempt, Document, DocumentKind, Grant, GrantRefusal, GrantedAction, GroupName, HostId, Nonce,
    NotAllowed, Policy, Rollout, Sha256, Share, TrustFloor, VerifyError,
};
use support::{at, key, keys, signed, time, verify};

const DOCUMENT: &str = "schema: 1
name: greet-fix
manifest: MANIFEST
policy: POLICY
issued: 2026-11-01T00:00:00Z
expires: 2026-12-01T00:00:00Z
summary: Greet politely again
groups: [web]
schedule:
  not_before: 2026-11-02T08:00:00Z
  first: [FIRST]
  then:
    - {millionths: 100000, not_before: 2026-11-03T12:00:00Z}
    - {millionths: 1000000, not_before: 2026-11-05T12:00:00Z}
rollback: {within: 7d}
";

fn host(number: u32) -> HostId {
    HostId::new(Sha256::of(&number.to_be_bytes()))
}

fn text() -> String {
    DOCUMENT
        .replace("MANIFEST", &Sha256::of(b"manifest").to_string())
        .replace("POLICY", &Sha256::of(b"policy").to_string())
        .replace("FIRST", &host(0).to_string())
}

fn grant() -> Grant {
    let json = format!(
        "{{\"schema\":1,\"id\":\"{0}\",\"rollout\":\"{1}\",\"host\":\"{2}\",\"action\":\"apply\",\"manifest\":\"{3}\",\
         \"wave\":0,\"epoch\":7,\"nonce\":\"{4}\",\"issued\":\"2026-11-10T11:59:30Z\",\
         \"expires\":\"2026-11-10T12:10:00Z\",\"ledger\":{{\"size\":9,\"root\":\"{0}\"}}}}",
        Sha256::of(b"id"),
        Sha256::of(text().as_bytes()),
        host(0),
        Sha256::of(b"manifest"),
        Nonce::from_bytes([1; 16]),
    );
    Grant::parse(json.as_bytes()).unwrap()
}

fn ask(
    action: GrantedAction,
    host: HostId,
    groups: &[&str],
    changed: Option<&str>,
    now: &str,
) -> Result<(), NotAllowed> {
    let groups: Vec<GroupName> = groups.iter().map(|group| group.parse().unwrap()).collect();
    let rollout = Rollout::parse(text().as_bytes()).unwrap();
    let asked = Asked { host, groups: &groups, changed: changed.map(time), now: time(now) };
    rollout.refuse(Sha256::of(text().as_bytes()), action, &asked)
}

#[test]
fn a_host_knows_its_own_time_whatever_a_controller_says() {
    let digest = Sha256::of(text().as_bytes());
    let early = (1..).map(host).find(|host| Share::of(digest, *host).is_within(100_000)).unwrap();
    let late = (1..).map(host).find(|host| !Share::of(digest, *host).is_within(100_000)).unwrap();
    let apply = |host, now| ask(GrantedAction::Apply, host, &["db", "web"], None, now);
    for (host, earliest, before) in [
        (host(0), "2026-11-02T08:00:00Z", "2026-11-02T07:59:59Z"),
        (early, "2026-11-03T12:00:00Z", "2026-11-03T11:59:59Z"),
        (late, "2026-11-05T12:00:00Z", "2026-11-05T11:59:59Z"),
    ] {
        let refusal = NotAllowed::TooEarly { earliest: time(earliest), now: time(before) };
        assert_eq!(apply(host, before), Err(refusal));
        assert_eq!(apply(host, earliest), Ok(()));
    }
}

#[test]
fn a_host_that_the_schedule_has_no_place_for_never_begins() {
    let text = text().replace("    - {millionths: 1000000, not_before: 2026-11-05T12:00:00Z}\n", "");
    let (rollout, digest) = (Rollout::parse(text.as_bytes()).unwrap(), Sha256::of(text.as_bytes()));
    let outside = (1..).map(host).find(|host| !Share::of(digest, *host).is_within(100_000)).unwrap();
    let groups = ["web".parse().unwrap()];
    let asked = Asked { host: outside, groups: &groups, changed: None, now: time("2026-11-30T00:00:00Z") };
    let refusal = rollout.refuse(digest, GrantedAction::Apply, &asked);
    assert!(matches!(refusal, Err(NotAllowed::NoPlace { .. })));
}

#[test]
fn a_rollout_is_for_its_groups_and_a_host_without_any_gets_nothing() {
    for groups in [&["db"][..], &[]] {
        let refusal = ask(GrantedAction::Apply, host(0), groups, None, "2026-11-10T00:00:00Z");
        assert!(matches!(refusal, Err(NotAllowed::Groups { .. })));
    }
}

#[test]
fn a_way_back_undoes_what_the_rollout_began_and_not_for_long() {
    let back = |changed, now| ask(GrantedAction::Rollback, host(0), &["web"], changed, now);
    assert_eq!(back(None, "2026-11-03T00:00:00Z"), Err(NotAllowed::NothingBegun));
    assert_eq!(back(Some("2026-11-02T09:00:00Z"), "2026-11-09T09:00:00Z"), Ok(()));
    let over = back(Some("2026-11-02T09:00:00Z"), "2026-11-09T09:00:01Z");
    assert!(matches!(over, Err(NotAllowed::WayBackOver { .. })));
}

#[test]
fn documents_that_contradict_themselves_are_refused() {
    assert!(Rollout::parse(text().as_bytes()).is_ok());
    for (from, to) in [
        ("expires: 2026-12-01", "expires: 2026-10-01"),
        ("expires: 2026-12-01", "expires: 2028-12-01"),
        ("groups: [web]", "groups: []"),
        ("groups: [web]", "groups: [web, web]"),
        ("millionths: 100000,", "millionths: 0,"),
        ("millionths: 100000,", "millionths: 1000000,"),
        ("millionths: 1000000,", "millionths: 1000001,"),
        ("2026-11-05T12:00:00Z", "2026-11-03T11:00:00Z"),
        ("2026-11-03T12:00:00Z", "2026-11-02T07:00:00Z"),
        ("rollback: {within: 7d}", "rollback: {within: 7d, until: 1d}"),
        ("summary: Greet politely again\n", ""),
    ] {
        let changed = text().replace(from, to);
        assert_ne!(changed, text(), "{from}");
        assert!(Rollout::parse(changed.as_bytes()).is_err(), "{from} -> {to} was taken");
    }
    let first = host(0).to_string();
    let twice = text().replace(&first, &format!("{first}, {first}"));
    assert!(Rollout::parse(twice.as_bytes()).is_err());
}

#[test]
fn a_grant_is_for_one_host_one_attempt_and_two_minutes() {
    let grant = grant();
    let attempt = Attempt {
        host: host(0),
        rollout: Sha256::of(text().as_bytes()),
        manifest: Sha256::of(b"manifest"),
        nonce: Nonce::from_bytes([1; 16]),
        age: Duration::from_secs(120),
        epoch: 7,
    };
    assert_eq!(grant.refuse(&attempt), Ok(()));
    let other = Sha256::of(b"other");
    let refusal = |attempt: Attempt| grant.refuse(&attempt).unwrap_err();
    assert!(matches!(refusal(Attempt { host: host(1), ..attempt }), GrantRefusal::Host { .. }));
    assert!(matches!(refusal(Attempt { rollout: other, ..attempt }), GrantRefusal::Rollout { .. }));
    assert!(matches!(refusal(Attempt { manifest: other, ..attempt }), GrantRefusal::Manifest { .. }));
    assert_eq!(refusal(Attempt { nonce: Nonce::from_bytes([2; 16]), ..attempt }), GrantRefusal::Nonce);
    assert_eq!(refusal(Attempt { epoch: 8, ..attempt }), GrantRefusal::Epoch { seen: 8, found: 7 });
    let late = refusal(Attempt { age: Duration::from_secs(121), ..attempt });
    assert_eq!(late.to_string(), "the grant came 121 s after it was asked for: expected at most 120 s");
}

#[test]
fn what_is_not_a_grant_is_refused() {
    let good = serde_json::to_string(&grant()).unwrap();
    assert!(Grant::parse(good.as_bytes()).is_ok());
    for (from, to) in [
        ("\"epoch\":7", "\"epoch\":0"),
        ("\"epoch\":7", "\"epoch\":9007199254740992"),
        ("\"size\":9", "\"size\":9007199254740992"),
        ("12:10:00Z", "11:59:30Z"),
        ("2026-11-10T12:10:00Z", "2026-11-12T12:10:00Z"),
        ("\"action\":\"apply\"", "\"action\":\"retry\""),
        ("\"wave\":0", "\"wave\":-1"),
        ("\"wave\":0", "\"wave\":0,\"wave\":1"),
        ("\"wave\":0", "\"wave\":0,\"force\":true"),
    ] {
        let changed = good.replace(from, to);
        assert_ne!(changed, good, "{from}");
        assert!(Grant::parse(changed.as_bytes()).is_err(), "{from} -> {to} was taken");
    }
    let padded = format!("{good}{}", " ".repeat(16 << 10));
    assert!(Grant::parse(padded.as_bytes()).is_err(), "too large");
}

/// `ops` may sign rollouts of greet-fix to web, and the controller grants; neither may do the other's.
fn policy() -> Policy {
    let text = format!(
        "schema: 2\nversion: 1\nissued: 2026-10-01T00:00:00Z\n{}roles:\n\
         - {{name: owners, keys: [root], threshold: 1}}\n\
         - {{name: ops, keys: [anna, ben], threshold: 2, scope: {{manifests: [greet], groups: [web]}}}}\n\
         - {{name: controller, keys: [controller], threshold: 1}}\n\
         rules:\n- {{document: policy, any_of: [[owners]]}}\n- {{document: rollout, any_of: [[ops]]}}\n\
         - {{document: grant, any_of: [[controller]]}}\n",
        keys(&["root", "anna", "ben", "controller"])
    );
    Policy::parse(text.as_bytes()).unwrap()
}

#[test]
fn people_sign_rollouts_and_controllers_sign_grants_and_nothing_else() {
    let policy = policy();
    let by_people = verify::<Rollout>(&policy, &text(), &["anna", "ben"]);
    assert_eq!(by_people.unwrap().name.as_str(), "greet-fix");
    assert!(verify::<Rollout>(&policy, &text(), &["controller"]).is_err());
    let json = serde_json::to_string(&grant()).unwrap();
    assert!(verify::<Grant>(&policy, &json, &["controller"]).is_ok());
    assert!(verify::<Grant>(&policy, &json, &["anna", "ben"]).is_err());
    assert_ne!(key("anna").public().id(), key("controller").public().id());
}

#[test]
fn a_rollout_beyond_the_scope_of_who_signed_it_is_refused() {
    let (policy, floor) = (policy(), TrustFloor::default());
    for (from, to) in [("name: greet-fix", "name: greeting"), ("groups: [web]", "groups: [web, db]")] {
        let wide = signed(DocumentKind::Rollout, &text().replace(from, to), &["anna", "ben"]);
        let refusal = policy.verify::<Rollout>(&wide, at(&floor)).unwrap_err();
        assert!(matches!(refusal, VerifyError::ScopeExceeded { .. }), "{refusal}");
    }
}

#[test]
fn a_revoked_manifest_is_neither_rolled_out_nor_granted_and_can_still_be_taken_back() {
    let (policy, mut floor) = (policy(), TrustFloor::default());
    floor.revoked.manifests.insert(Sha256::of(b"manifest"), time("2026-11-09T00:00:00Z"));
    let rollout = signed(DocumentKind::Rollout, &text(), &["anna", "ben"]);
    let refusal = policy.verify::<Rollout>(&rollout, at(&floor)).unwrap_err();
    assert!(matches!(refusal, VerifyError::ManifestRevoked { .. }));
    let json = |action| serde_json::to_string(&Grant { action, ..grant() }).unwrap();
    let verify = |action| {
        policy
            .verify::<Grant>(&signed(DocumentKind::Grant, &json(action), &["controller"]), at(&floor))
            .map(|_| ())
    };
    assert!(matches!(verify(GrantedAction::Apply), Err(VerifyError::ManifestRevoked { .. })));
    assert!(verify(GrantedAction::Rollback).is_ok());
}
