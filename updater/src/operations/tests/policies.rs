//! Policies that follow one another, and what signed revocations take back: on a host from end to end.

use std::fs;
use std::path::PathBuf;

use manifests::{DocumentKind, Envelope, SecretKey, Sha256, SuccessionError};
use system::durable;

use super::*;
use crate::operations::policy::{Installed, TakenUp};
use crate::operations::resume::Became;
use crate::operations::trust::TrustError;

const FORGE: u8 = 1;
const OWNER: u8 = 2;
const NEXT_OWNER: u8 = 3;

/// A policy of schema 2 in which one key signs manifests, and another policies and revocations.
fn edition(version: u32, owner: u8, at_boot: &str) -> String {
    let key = |name: &str, seed: u8| {
        let public = SecretKey::from_seed([seed; 32]).public();
        format!("  - {{name: {name}, id: {}, public: \"{public}\"}}\n", public.id())
    };
    format!(
        "schema: 2\nversion: {version}\nissued: 2026-11-01T00:00:00Z\n{at_boot}keys:\n{}{}roles:\n\
         - {{name: build, keys: [forge], threshold: 1}}\n- {{name: owner, keys: [owner], threshold: 1}}\n\
         rules:\n- {{document: manifest, any_of: [[build]]}}\n- {{document: policy, any_of: [[owner]]}}\n\
         - {{document: revocation, any_of: [[owner]]}}\n",
        key("forge", FORGE),
        key("owner", owner),
    )
}

/// Signs a document into a file beside the payloads.
fn signed(bench: &Bench, kind: DocumentKind, text: &str, keys: &[u8]) -> (PathBuf, Sha256) {
    let mut envelope = Envelope::new(kind, text.as_bytes().to_vec());
    for seed in keys {
        envelope.sign(&SecretKey::from_seed([*seed; 32])).unwrap();
    }
    let name = format!("{}.json", envelope.payload_digest());
    bench.write(&name, envelope.to_json().as_bytes());
    (bench.payloads().join(name), envelope.payload_digest())
}

/// Signs a manifest without touching the policy, and tells its digest.
fn manifest(bench: &Bench) -> (PathBuf, Sha256) {
    let (path, _) = signed(bench, DocumentKind::Manifest, &bench.text(&livepatch_only(MANIFEST)), &[FORGE]);
    let digest = Envelope::parse(&fs::read(&path).unwrap()).unwrap().payload_digest();
    (path, digest)
}

/// A host with the first edition in force, which its operator expected.
fn founded(at_boot: &str) -> Bench {
    let bench = Bench::new();
    let (file, fingerprint) = signed(&bench, DocumentKind::Policy, &edition(1, OWNER, at_boot), &[OWNER]);
    let installed = bench.engine().install_policy(&file, Some(fingerprint)).unwrap();
    assert_eq!((installed.version, installed.replaced, installed.fingerprint), (1, None, fingerprint));
    bench
}

fn install(bench: &Bench, version: u32, owner: u8, keys: &[u8]) -> Result<Installed, TrustError> {
    let (file, _) = signed(bench, DocumentKind::Policy, &edition(version, owner, ""), keys);
    bench.engine().install_policy(&file, None).map_err(|error| match error {
        EngineError::Trust(error) => error,
        other => panic!("{other}"),
    })
}

fn revoke(bench: &Bench, lists: &str, keys: &[u8]) -> Result<TakenUp, EngineError> {
    let text = format!("schema: 1\nissued: 2026-11-02T00:00:00Z\nreason: a bad build\n{lists}\n");
    bench.engine().revoke(&signed(bench, DocumentKind::Revocation, &text, keys).0)
}

#[test]
fn the_first_policy_is_believed_by_its_fingerprint_alone() {
    let bench = Bench::new();
    let (file, fingerprint) = signed(&bench, DocumentKind::Policy, &edition(1, OWNER, ""), &[OWNER]);
    let engine = bench.engine();
    let untold = engine.install_policy(&file, None).unwrap_err();
    assert!(
        matches!(&untold, EngineError::Trust(TrustError::Fingerprint { fingerprint: told, .. }) if *told == fingerprint),
        "{untold}"
    );
    let other = Sha256::of(b"another");
    let refused = engine.install_policy(&file, Some(other)).unwrap_err();
    assert!(matches!(
        refused,
        EngineError::Trust(TrustError::Succession { source: SuccessionError::Fingerprint { .. }, .. })
    ));
    assert!(!bench.config().policy.exists());
    engine.install_policy(&file, Some(fingerprint)).unwrap();
    assert_eq!(Sha256::of(&fs::read(bench.config().policy).unwrap()), fingerprint);
}

#[test]
fn a_policy_follows_only_with_the_word_of_the_one_before_and_its_own() {
    let bench = founded("");
    for (keys, what) in [
        (&[NEXT_OWNER][..], "the new owner alone"),
        (&[OWNER], "the old owner alone"),
        (&[FORGE], "somebody else"),
    ] {
        let refused = install(&bench, 2, NEXT_OWNER, keys).unwrap_err();
        assert!(matches!(refused, TrustError::Succession { .. }), "{what}: {refused}");
    }
    let installed = install(&bench, 2, NEXT_OWNER, &[OWNER, NEXT_OWNER]).unwrap();
    assert_eq!((installed.version, installed.replaced), (2, Some(1)));
    // The old owner has no say any more, and an earlier edition is none.
    assert!(install(&bench, 3, OWNER, &[OWNER]).is_err());
    assert!(install(&bench, 1, NEXT_OWNER, &[OWNER, NEXT_OWNER]).is_err());
    assert!(bench.plan_signed(&manifest(&bench).0).is_ok());
}

#[test]
fn a_policy_that_somebody_puts_back_is_out_of_force_until_an_accepted_one_is_there_again() {
    let bench = founded("");
    let first = fs::read(bench.config().policy).unwrap();
    let (file, _) = signed(&bench, DocumentKind::Policy, &edition(2, NEXT_OWNER, ""), &[OWNER, NEXT_OWNER]);
    bench.engine().install_policy(&file, None).unwrap();
    fs::write(bench.config().policy, first).unwrap();
    let refused = bench.plan_signed(&manifest(&bench).0).unwrap_err();
    assert!(matches!(refused, EngineError::Trust(TrustError::PolicyReplaced { .. })), "{refused}");
    // Or nothing is there at all: what was accepted is remembered.
    durable::forget(&bench.config().policy).unwrap();
    assert!(install(&bench, 3, OWNER, &[OWNER]).is_err(), "the first edition's owner");
    bench.engine().install_policy(&file, None).unwrap();
    assert!(bench.plan_signed(&manifest(&bench).0).is_ok());
}

#[test]
fn a_revocation_by_who_may_not_revoke_is_not_taken_up() {
    let bench = founded("");
    let (_, digest) = manifest(&bench);
    assert!(revoke(&bench, &format!("manifests: [{digest}]"), &[FORGE]).is_err());
    assert!(bench.plan_signed(&manifest(&bench).0).is_ok());
}

#[test]
fn what_is_revoked_is_refused_and_shown_where_it_is_in_force_and_not_brought_back_by_a_boot() {
    let bench = founded("");
    let (file, digest) = manifest(&bench);
    bench.apply_signed(&file).unwrap();
    assert!(bench.engine().status().unwrap().is_sound());
    let taken = revoke(&bench, &format!("manifests: [{digest}]"), &[OWNER]).unwrap();
    assert_eq!((taken.manifests, taken.reason.as_str()), (1, "a bad build"));

    let refused = bench.plan_signed(&file).unwrap_err();
    let why = format!("{refused:?}");
    assert!(why.contains("ManifestRevoked"), "{why}");
    let status = bench.engine().status().unwrap();
    assert!(status.livepatches[0].live && status.livepatches[0].revoked.is_some() && !status.is_sound());

    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    let resumed = bench.resume();
    assert!(matches!(resumed.baseline[0].became, Became::Revoked { .. }) && resumed.needs_operator());
    assert!(bench.machine.modules().is_empty());
    bench.rollback().unwrap();
    assert!(bench.engine().status().unwrap().is_sound(), "it was given up");
}

#[test]
fn a_policy_can_have_what_is_revoked_brought_back_and_told() {
    let bench = founded("revoked_at_boot: warn\n");
    let (file, _) = manifest(&bench);
    bench.apply_signed(&file).unwrap();
    let payload = bench.engine().status().unwrap().livepatches[0].payload.clone();
    revoke(&bench, &format!("payloads: [{payload}]"), &[OWNER]).unwrap();
    bench.engine().mark_stopping().unwrap();
    bench.reboot();
    assert_eq!(bench.resume().baseline[0].became, Became::Reapplied);
    assert!(bench.engine().status().unwrap().livepatches[0].revoked.is_some());
}
