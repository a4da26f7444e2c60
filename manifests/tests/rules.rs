//! Policies of schema 2: alternatives of roles, scopes, revocations, one policy after another.

mod support;

use manifests::policy::scope::ComponentKind;
use manifests::policy::{PolicySchema, RevokedAtBoot, SharedKeys};
use manifests::verify::{AcceptedVersion, Standing};
use manifests::{
    DocumentKind, Envelope, Manifest, Policy, PolicyDocument, Revocation, Sha256, SuccessionError,
    TrustFloor, VerifyError, Withdrawn,
};
use support::{DURING, at, key, keys, signed, time, verify};

const TRUTH: &str = include_str!("truth.yaml");

const NAMES: [&str; 6] = ["root-1", "root-2", "forge", "alice", "bob", "duty"];

const ROLES: &str = "roles:
  - {name: owner, keys: [root-1, root-2], threshold: 2}
  - {name: build, keys: [forge], threshold: 1}
  - {name: security-review, keys: [alice, bob], threshold: 1}
  - name: emergency
    keys: [duty]
    threshold: 1
    scope: {severities: [critical]}
";

const RULES: &str = "rules:
  - {document: manifest, any_of: [[emergency], [build, security-review]]}
  - {document: policy, any_of: [[owner]]}
  - {document: revocation, any_of: [[owner], [security-review]]}
";

fn edition(version: u64) -> String {
    format!("schema: 2\nversion: {version}\nissued: 2026-11-01T00:00:00Z\n")
}

fn text() -> String {
    edition(7) + &keys(&NAMES) + ROLES + RULES
}

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes()).unwrap()
}

/// `text()` with the scope of `build` as given.
fn with_scope(scope: &str) -> Policy {
    let open = "keys: [forge], threshold: 1";
    policy(&text().replace(open, &format!("{open}, scope: {scope}")))
}

fn critical() -> String {
    TRUTH.replace("severity: high", "severity: critical")
}

#[test]
fn one_of_several_alternatives_is_enough() {
    let policy = policy(&text());
    let by_two = verify::<Manifest>(&policy, TRUTH, &["forge", "bob"]).unwrap();
    let roles: Vec<&str> = by_two.signers().roles.iter().map(|role| role.role.as_str()).collect();
    assert_eq!(roles, ["build", "security-review"]);
    let in_need = verify::<Manifest>(&policy, &critical(), &["duty"]).unwrap();
    assert_eq!(in_need.signers().roles[0].role.as_str(), "emergency");
}

#[test]
fn an_alternative_that_is_not_complete_is_told_by_what_is_nearest() {
    let policy = policy(&text());
    let error = verify::<Manifest>(&policy, TRUTH, &["root-1", "root-2"]).unwrap_err();
    assert!(
        matches!(&error, VerifyError::Threshold { role, .. } if role.as_str() == "emergency"),
        "{error:?}"
    );
    // Half of one alternative and half of another are no whole.
    let two = policy_with_pairs();
    let error = verify::<Manifest>(&two, TRUTH, &["forge", "alice"]).unwrap_err();
    assert!(matches!(&error, VerifyError::Threshold { role, .. } if role.as_str() == "b"), "{error:?}");
}

/// `[a, b]` or `[c, d]` may sign manifests; forge is a, root-1 b, alice c, bob d.
fn policy_with_pairs() -> Policy {
    let role = |name: &str, key: &str| format!("  - {{name: {name}, keys: [{key}], threshold: 1}}\n");
    let roles = [("a", "forge"), ("b", "root-1"), ("c", "alice"), ("d", "bob"), ("owner", "duty")];
    let roles: String = roles.iter().map(|(name, key)| role(name, key)).collect();
    let rules = "rules:\n  - {document: manifest, any_of: [[a, b], [c, d]]}\n  - {document: policy, any_of: [[owner]]}\n";
    policy(&format!("{}{}roles:\n{roles}{rules}", edition(1), keys(&NAMES)))
}

#[test]
fn a_kind_of_document_without_a_rule_is_signed_by_nobody() {
    let silent =
        policy(&text().replace("  - {document: revocation, any_of: [[owner], [security-review]]}\n", ""));
    let error =
        verify::<Revocation>(&silent, &revocation("keys"), &["root-1", "root-2", "alice"]).unwrap_err();
    assert!(matches!(error, VerifyError::NoRule { kind: DocumentKind::Revocation }), "{error:?}");
    let first = Policy::parse(
        format!("schema: 1\n{}roles:\n  - {{name: all, keys: [alice], threshold: 1}}\n", keys(&["alice"]))
            .as_bytes(),
    )
    .unwrap();
    assert_eq!(first.schema(), PolicySchema::One);
    assert!(verify::<Manifest>(&first, TRUTH, &["alice"]).is_ok(), "schema 1 is still read");
    let error = verify::<Revocation>(&first, &revocation("keys"), &["alice"]).unwrap_err();
    assert!(matches!(error, VerifyError::NoRule { .. }), "{error:?}");
}

#[test]
fn a_signature_for_one_kind_never_counts_for_another_under_rules_for_both() {
    let policy = policy(&text());
    let revocation = revocation("keys");
    for kind in DocumentKind::ALL.into_iter().filter(|kind| *kind != DocumentKind::Revocation) {
        let other = signed(kind, &revocation, &["root-1", "root-2", "alice"]);
        let error = policy.verify::<Revocation>(&other, at(&TrustFloor::default())).unwrap_err();
        assert!(matches!(error, VerifyError::PayloadType { .. }), "{kind}: {error:?}");
        let json = other.to_json().replace(kind.payload_type(), DocumentKind::Revocation.payload_type());
        let renamed = Envelope::parse(json.as_bytes()).unwrap();
        let error = policy.verify::<Revocation>(&renamed, at(&TrustFloor::default())).unwrap_err();
        assert!(matches!(error, VerifyError::BadSignature { .. }), "{kind}: {error:?}");
    }
}

#[test]
fn no_key_satisfies_two_roles_unless_the_policy_says_so() {
    let both = |shared: &str| {
        let roles = ROLES.replace("keys: [forge]", "keys: [forge, alice]");
        edition(7) + shared + &keys(&NAMES) + &roles + RULES
    };
    let one = policy(&both("shared_keys: one-role\n"));
    assert!(verify::<Manifest>(&one, TRUTH, &["alice", "bob"]).is_ok(), "alice builds, bob reviews");
    let error = verify::<Manifest>(&one, TRUTH, &["alice"]).unwrap_err();
    assert!(
        matches!(error, VerifyError::Threshold { .. } | VerifyError::OneKeyForTwoRoles { .. }),
        "{error:?}"
    );
    let every = policy(&both("shared_keys: every-role\n"));
    assert_eq!(every.shared_keys(), SharedKeys::EveryRole);
    assert!(verify::<Manifest>(&every, TRUTH, &["alice"]).is_ok());
    assert!(Policy::parse(both("").as_bytes()).is_err());
}

#[test]
fn a_role_vouches_for_nothing_beyond_its_scope() {
    let by = ["forge", "alice"];
    let limits = [
        (
            "manifests",
            "{manifests: [greet]}",
            TRUTH.to_owned(),
            TRUTH.replace("name: greet", "name: greeting"),
        ),
        (
            "manifests",
            "{manifests: [greet]}",
            TRUTH.replace("name: greet", "name: greet-2"),
            TRUTH.replace("name: greet", "name: gree"),
        ),
        ("severities", "{severities: [high, low]}", TRUTH.to_owned(), critical()),
        ("components", "{components: [livepatch, layer]}", TRUTH.to_owned(), String::new()),
        ("components", "{components: [layer]}", String::new(), TRUTH.to_owned()),
        ("groups", "{groups: [canary, edge]}", grouped("[edge]"), grouped("[edge, core]")),
        ("groups", "{groups: [canary, edge]}", grouped("[canary, edge]"), TRUTH.to_owned()),
        ("containers", BOTH_OF_WEB, labelled("web"), labelled("db")),
        ("containers", BOTH_OF_WEB, labelled("web"), TRUTH.to_owned()),
        ("containers", "{containers: [{name: tier, value: web}]}", String::new(), labelled("web")),
        ("host_exec", "{host_exec: refused}", TRUTH.to_owned(), with_program()),
    ];
    for (limit, scope, inside, outside) in limits {
        let policy = with_scope(scope);
        if !inside.is_empty() {
            verify::<Manifest>(&policy, &inside, &by).unwrap_or_else(|error| panic!("{scope}: {error:?}"));
        }
        if !outside.is_empty() {
            let error = verify::<Manifest>(&policy, &outside, &by).expect_err(scope);
            let VerifyError::ScopeExceeded { role, excess, .. } = &error else {
                panic!("{scope}: {error:?}")
            };
            assert_eq!((role.as_str(), excess.limit), ("build", limit), "{scope}");
        }
    }
    assert_eq!(
        with_scope("{components: [layer]}").roles()[1].scope.components,
        Some(vec![ComponentKind::Layer])
    );
}

const BOTH_OF_WEB: &str = "{components: [livepatch, layer], containers: [{name: tier, value: web}]}";

fn grouped(groups: &str) -> String {
    TRUTH.replace(
        "  kernels: [6.1.0-50-amd64]\n",
        &format!("  kernels: [6.1.0-50-amd64]\n  groups: {groups}\n"),
    )
}

fn labelled(tier: &str) -> String {
    let format = "    format: tar+zstd\n";
    TRUTH.replace(format, &format!("{format}    containers: {{labels: [{{name: tier, value: {tier}}}]}}\n"))
}

fn with_program() -> String {
    TRUTH.to_owned() + "probes:\n  - {kind: exec, command: [/bin/true]}\n"
}

#[test]
fn programs_on_the_host_are_refused_unless_every_role_is_allowed_them() {
    let by = ["forge", "alice"];
    for scope in ["{host_exec: refused}", "{}", "{severities: [high]}"] {
        let error = verify::<Manifest>(&with_scope(scope), &with_program(), &by).unwrap_err();
        assert!(
            matches!(error, VerifyError::ScopeExceeded { ref excess, .. } if excess.limit == "host_exec")
        );
    }
    // The builder may; the reviewer may not.
    let error = verify::<Manifest>(&with_scope("{host_exec: allowed}"), &with_program(), &by).unwrap_err();
    assert!(
        matches!(error, VerifyError::ScopeExceeded { ref role, .. } if role.as_str() == "security-review")
    );
    let both = text()
        .replace("keys: [forge], threshold: 1", "keys: [forge], threshold: 1, scope: {host_exec: allowed}")
        .replace(
            "keys: [alice, bob], threshold: 1",
            "keys: [alice, bob], threshold: 1, scope: {host_exec: allowed}",
        );
    assert!(verify::<Manifest>(&policy(&both), &with_program(), &by).is_ok());
}

#[test]
fn killing_stuck_tasks_is_within_the_scope_of_containers_too() {
    let policy = with_scope(BOTH_OF_WEB);
    let stuck = |tier: &str| {
        let kernel = "    kernel: 6.1.0-50-amd64\n";
        let rule = format!("containers: {{labels: [{{name: tier, value: {tier}}}]}}, action: kill");
        labelled("web").replace(kernel, &format!("{kernel}    transition: {{stuck: [{{{rule}}}]}}\n"))
    };
    assert!(verify::<Manifest>(&policy, &stuck("web"), &["forge", "alice"]).is_ok());
    let error = verify::<Manifest>(&policy, &stuck("db"), &["forge", "alice"]).unwrap_err();
    assert!(matches!(error, VerifyError::ScopeExceeded { ref excess, .. } if excess.limit == "containers"));
}

#[test]
fn what_one_alternative_may_not_vouch_for_another_may() {
    let policy = policy(&text());
    let error = verify::<Manifest>(&policy, TRUTH, &["duty"]).unwrap_err();
    assert!(matches!(error, VerifyError::ScopeExceeded { ref role, .. } if role.as_str() == "emergency"));
    assert_eq!(error.expected(), "severities within what emergency may vouch for: critical");
    assert_eq!(error.found(), "high");
    let all = verify::<Manifest>(&policy, TRUTH, &["duty", "forge", "alice"]).unwrap();
    assert_eq!(all.signers().roles.len(), 2, "build and security-review");
    assert_eq!(all.signers().signatures[0].standing, Standing::NotNeeded);
}

/// A revocation of this list: `keys`, `manifests` or `payloads` with what `truth.yaml` has.
fn revocation(list: &str) -> String {
    let entry = match list {
        "keys" => key("forge").public().id().to_string(),
        "manifests" => Sha256::of(TRUTH.as_bytes()).to_string(),
        _ => "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
    };
    format!("schema: 1\nissued: 2026-11-09T00:00:00Z\nreason: Stolen\n{list}: [{entry}]\n")
}

#[test]
fn what_a_revocation_names_does_not_count_any_more_and_for_good() {
    let policy = policy(&text());
    let envelope = signed(DocumentKind::Manifest, TRUTH, &["forge", "alice"]);
    for list in ["keys", "manifests", "payloads"] {
        let mut floor = TrustFloor::default();
        assert!(policy.verify::<Manifest>(&envelope, at(&floor)).is_ok());
        floor.raise(&verify::<Revocation>(&policy, &revocation(list), &["alice"]).unwrap());
        let since = time("2026-11-09T00:00:00Z");
        assert_eq!(floor.clock, Some(since));
        // A clock set back, as far as the evidence allows, and a policy that knows nothing of it.
        let earlier = manifests::VerifyAt { now: time("2026-11-08T23:58:00Z").timestamp(), floor: &floor };
        for when in [at(&floor), earlier] {
            let error = policy.verify::<Manifest>(&envelope, when).unwrap_err();
            match (list, &error) {
                ("keys", VerifyError::KeyRevoked { key, since: at }) => {
                    assert_eq!((key.as_str(), *at), ("forge", since));
                }
                ("manifests", VerifyError::ManifestRevoked { since: at, .. }) => assert_eq!(*at, since),
                ("payloads", VerifyError::PayloadRevoked { file, .. }) => {
                    assert_eq!(file.as_str(), "greet.tar.zst");
                }
                _ => panic!("{list}: {error:?}"),
            }
        }
    }
}

#[test]
fn what_is_in_force_is_told_as_revoked() {
    let policy = policy(&text());
    let manifest = Manifest::parse(TRUTH.as_bytes()).unwrap();
    let digest = Sha256::of(TRUTH.as_bytes());
    let mut floor = TrustFloor::default();
    assert_eq!(floor.revoked.withdrawn(&manifest, digest), None);
    floor.raise(&verify::<Revocation>(&policy, &revocation("payloads"), &["alice"]).unwrap());
    assert!(matches!(floor.revoked.withdrawn(&manifest, digest), Some(Withdrawn::Payload { .. })));
    floor.raise(&verify::<Revocation>(&policy, &revocation("manifests"), &["alice"]).unwrap());
    assert!(matches!(floor.revoked.withdrawn(&manifest, digest), Some(Withdrawn::Manifest { .. })));
    assert_eq!(policy.revoked_at_boot(), RevokedAtBoot::Refuse);
}

#[test]
fn a_revocation_is_signed_like_everything_else() {
    let policy = policy(&text());
    let error = verify::<Revocation>(&policy, &revocation("keys"), &["forge"]).unwrap_err();
    assert!(matches!(error, VerifyError::Threshold { .. }), "{error:?}");
    // The key that a host has seen revoked cannot revoke others.
    let mut floor = TrustFloor::default();
    floor.revoked.keys.insert(key("alice").public().id(), time(DURING));
    let by_stolen = signed(DocumentKind::Revocation, &revocation("keys"), &["alice"]);
    let error = policy.verify::<Revocation>(&by_stolen, at(&floor)).unwrap_err();
    assert!(matches!(error, VerifyError::KeyRevoked { .. }), "{error:?}");
}

/// The edition after `text()`: bob goes, and carol owns with root-1.
fn next() -> String {
    let names = ["root-1", "carol", "forge", "alice", "duty"];
    let roles = ROLES.replace("[root-1, root-2]", "[root-1, carol]").replace("[alice, bob]", "[alice]");
    edition(8) + &keys(&names) + &roles + RULES
}

fn succeed(before: &Policy, next: &str, by: &[&str], floor: &TrustFloor) -> Result<u64, SuccessionError> {
    let envelope = signed(DocumentKind::Policy, next, by);
    before.successor(&envelope, at(floor)).map(|next| next.edition().version)
}

#[test]
fn a_policy_is_followed_by_one_that_its_holders_and_the_new_ones_signed() {
    let (before, floor) = (policy(&text()), TrustFloor::default());
    assert_eq!(succeed(&before, &next(), &["root-1", "root-2", "carol"], &floor).unwrap(), 8);
    let old_only = succeed(&before, &next(), &["root-1", "root-2"], &floor).unwrap_err();
    assert!(matches!(old_only, SuccessionError::OwnRules(VerifyError::Threshold { .. })), "{old_only:?}");
    let new_only = succeed(&before, &next(), &["root-1", "carol"], &floor).unwrap_err();
    assert!(matches!(new_only, SuccessionError::RulesBefore(VerifyError::Threshold { .. })), "{new_only:?}");
    let others = succeed(&before, &next(), &["forge", "alice", "duty"], &floor).unwrap_err();
    assert!(matches!(others, SuccessionError::RulesBefore(_)), "{others:?}");
}

#[test]
fn a_policy_that_is_rolled_back_is_refused() {
    let owners = ["root-1", "root-2", "carol"];
    let before = policy(&text());
    let envelope = signed(DocumentKind::Policy, &next(), &owners);
    let mut floor = TrustFloor::default();
    floor.raise(&before.successor(&envelope, at(&floor)).unwrap());
    assert_eq!(floor.policy.map(|seen| seen.version), Some(8));

    let older = succeed(&before, &text(), &owners, &floor).unwrap_err();
    let SuccessionError::RulesBefore(VerifyError::VersionBelowFloor { kind, floor: 8, found: 7, .. }) =
        &older
    else {
        panic!("{older:?}")
    };
    assert_eq!(*kind, DocumentKind::Policy);
    let other =
        succeed(&before, &next().replace("[duty]", "[duty]\n    # other"), &owners, &floor).unwrap_err();
    assert!(
        matches!(other, SuccessionError::RulesBefore(VerifyError::VersionReused { version: 8, .. })),
        "{other:?}"
    );
    assert_eq!(succeed(&before, &next(), &owners, &floor).unwrap(), 8, "the same once more");
    // A host that was restored from a backup remembers nothing, and still has its policy.
    let nothing = succeed(
        &policy(&text()),
        &text().replace("version: 7", "version: 6"),
        &owners,
        &TrustFloor::default(),
    );
    assert!(matches!(
        nothing,
        Err(SuccessionError::RulesBefore(VerifyError::VersionBelowFloor { floor: 7, .. }))
    ));
}

#[test]
fn the_first_policy_is_the_one_that_is_expected_and_signed_under_its_own_rules() {
    let floor = TrustFloor::default();
    let fingerprint = Sha256::of(text().as_bytes());
    let by_owners = signed(DocumentKind::Policy, &text(), &["root-1", "root-2"]);
    let first = PolicyDocument::found(&by_owners, fingerprint, at(&floor)).unwrap();
    assert_eq!(first.policy().edition().map(|edition| edition.version), Some(7));
    let other = PolicyDocument::found(&by_owners, Sha256::of(b"other"), at(&floor)).unwrap_err();
    assert!(matches!(other, SuccessionError::Fingerprint { .. }), "{other:?}");
    let unsigned = signed(DocumentKind::Policy, &text(), &["root-1"]);
    let unsigned = PolicyDocument::found(&unsigned, fingerprint, at(&floor)).unwrap_err();
    assert!(matches!(unsigned, SuccessionError::OwnRules(_)), "{unsigned:?}");
    let seen = AcceptedVersion { version: 8, manifest: fingerprint };
    let later = TrustFloor { policy: Some(seen), ..TrustFloor::default() };
    assert!(PolicyDocument::found(&by_owners, fingerprint, at(&later)).is_err(), "not even by hand");
}

#[test]
fn a_policy_of_schema_1_cannot_be_signed() {
    let text =
        format!("schema: 1\n{}roles:\n  - {{name: all, keys: [alice], threshold: 1}}\n", keys(&["alice"]));
    let envelope = signed(DocumentKind::Policy, &text, &["alice"]);
    let floor = TrustFloor::default();
    let error = PolicyDocument::found(&envelope, Sha256::of(text.as_bytes()), at(&floor)).unwrap_err();
    assert!(matches!(error, SuccessionError::Unreadable(_)), "{error:?}");
}

#[test]
fn a_new_policy_that_revokes_a_key_is_remembered_for_it() {
    let revoked = next().replacen("name: forge,", "name: forge, revoked: 2026-10-01T00:00:00Z,", 1);
    // A rule that nobody can fill any more is no rule.
    assert!(Policy::parse(revoked.as_bytes()).is_err());
    let revoked = next().replacen("name: duty,", "name: duty, revoked: 2026-10-01T00:00:00Z,", 1);
    let spare = keys(&["spare"]).replace("keys:\n", "");
    let revoked = revoked.replace("roles:\n", &(spare + "roles:\n")).replace("[duty]", "[duty, spare]");
    let envelope = signed(DocumentKind::Policy, &revoked, &["root-1", "root-2", "carol"]);
    let mut floor = TrustFloor::default();
    floor.raise(&policy(&text()).successor(&envelope, at(&floor)).unwrap());
    assert_eq!(floor.revoked.keys.keys().copied().collect::<Vec<_>>(), [key("duty").public().id()]);
}

#[test]
fn no_flipped_byte_of_a_signed_document_is_accepted() {
    let policy = policy(&text());
    let floor = TrustFloor::default();
    let sound = [
        signed(DocumentKind::Policy, &next(), &["root-1", "root-2", "carol"]),
        signed(DocumentKind::Revocation, &revocation("keys"), &["alice"]),
        signed(DocumentKind::Manifest, TRUTH, &["forge", "alice"]),
    ];
    let accepted = |bytes: &[u8]| {
        let Ok(envelope) = Envelope::parse(bytes) else { return false };
        policy.successor(&envelope, at(&floor)).is_ok()
            || policy.verify::<Revocation>(&envelope, at(&floor)).is_ok()
            || policy.verify::<Manifest>(&envelope, at(&floor)).is_ok()
    };
    for envelope in sound {
        let json = envelope.to_json().into_bytes();
        assert!(accepted(&json));
        for index in 0..json.len() {
            let mut flipped = json.clone();
            flipped[index] ^= 1;
            let blank = |byte: u8| byte.is_ascii_whitespace();
            let harmless = blank(json[index]) && blank(flipped[index]);
            assert!(harmless || !accepted(&flipped), "byte {index} of {:?}", envelope.kind());
        }
    }
}
