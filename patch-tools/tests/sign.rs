//! `patch-tools sign` from outside: what it writes, and what it refuses to write.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use manifests::{Envelope, SecretKey};

const TRUTH: &str = include_str!("../../manifests/tests/truth.yaml");

/// A directory with a manifest and two private keys.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(desk.path("fix.yaml"), TRUTH).unwrap();
        for (name, seed) in [("forge.key", 1), ("alice.key", 2)] {
            fs::write(desk.path(name), SecretKey::from_seed([seed; 32]).to_pem().as_bytes()).unwrap();
            fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sign(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_patch-tools"))
            .arg("sign")
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn refused(&self, arguments: &[&str], words: &str) {
        let output = self.sign(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(words), "{words:?} is not in {stderr}");
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn signers(path: &Path) -> Vec<String> {
    let envelope = Envelope::parse(&fs::read(path).unwrap()).unwrap();
    let message = envelope.signed_bytes();
    let name = |seed: u8, name: &str| (SecretKey::from_seed([seed; 32]).public(), name.to_owned());
    let known = [name(1, "forge"), name(2, "alice")];
    let of = |signature: &manifests::envelope::Signature| {
        let (key, name) = known.iter().find(|(key, _)| key.id() == signature.key).unwrap();
        assert!(key.verifies(&message, &signature.bytes), "{name}'s signature does not hold");
        name.clone()
    };
    envelope.signatures().iter().map(of).collect()
}

#[test]
fn a_manifest_goes_into_an_envelope_as_its_very_bytes_and_more_signatures_are_added_in_place() {
    let desk = Desk::new();
    let output = desk.sign(&["fix.yaml", "--key", "forge.key"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = desk.path("fix.manifest.json");
    assert_eq!(signers(&path), ["forge"]);
    assert_eq!(Envelope::parse(&fs::read(&path).unwrap()).unwrap().unverified_payload(), TRUTH.as_bytes());

    assert!(desk.sign(&["fix.manifest.json", "--key", "alice.key"]).status.success());
    assert_eq!(signers(&path), ["forge", "alice"]);
    assert_eq!(desk.files(), ["alice.key", "fix.manifest.json", "fix.yaml", "forge.key"]);
}

#[test]
fn a_key_signs_an_envelope_once() {
    let desk = Desk::new();
    assert!(desk.sign(&["fix.yaml", "--key", "forge.key"]).status.success());
    let before = fs::read(desk.path("fix.manifest.json")).unwrap();
    desk.refused(&["fix.manifest.json", "--key", "forge.key"], "signed with this key already");
    assert_eq!(fs::read(desk.path("fix.manifest.json")).unwrap(), before);
}

#[test]
fn an_envelope_with_signatures_is_not_written_over_by_a_new_one() {
    let desk = Desk::new();
    assert!(desk.sign(&["fix.yaml", "--key", "forge.key"]).status.success());
    desk.refused(&["fix.yaml", "--key", "alice.key"], "exists already");
}

#[test]
fn what_no_host_could_read_is_not_signed() {
    let desk = Desk::new();
    fs::write(desk.path("bad.yaml"), TRUTH.replace("severity: high", "severity: urgent")).unwrap();
    desk.refused(&["bad.yaml", "--key", "forge.key"], "unknown variant `urgent`");
    fs::write(desk.path("bad.json"), "{}").unwrap();
    desk.refused(&["bad.json", "--key", "forge.key"], "not a signed envelope");
    let other = Envelope::of_manifest(TRUTH.into()).to_json().replace("manifest.v1", "other.v1");
    fs::write(desk.path("other.json"), other).unwrap();
    desk.refused(&["other.json", "--key", "forge.key"], "expected payload type");
    desk.refused(&["/dev/zero", "--key", "forge.key"], "found more");
    assert!(!desk.path("bad.manifest.json").exists());
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let desk = Desk::new();
    fs::set_permissions(desk.path("forge.key"), fs::Permissions::from_mode(0o640)).unwrap();
    desk.refused(&["fix.yaml", "--key", "forge.key"], "expected mode 0600, found 0640");
    desk.refused(&["fix.yaml", "--key", "fix.yaml"], "is not a private key");
    desk.refused(&["fix.yaml", "--key", "none.key"], "cannot read none.key");
}

#[test]
fn an_envelope_can_go_to_standard_output_or_to_a_named_file() {
    let desk = Desk::new();
    let output = desk.sign(&["fix.yaml", "--key", "forge.key", "-o", "-"]);
    assert_eq!(Envelope::parse(&output.stdout).unwrap().signatures().len(), 1);
    assert!(desk.sign(&["fix.yaml", "--key", "forge.key", "--out", "a.json"]).status.success());
    assert!(desk.sign(&["a.json", "--key", "alice.key", "--out", "b.json"]).status.success());
    assert_eq!(signers(&desk.path("a.json")), ["forge"]);
    assert_eq!(signers(&desk.path("b.json")), ["forge", "alice"]);
    desk.refused(&["fix.yaml", "--key", "alice.key", "--out", "b.json"], "exists already");
}

#[test]
fn whatever_people_sign_is_signed_as_what_it_is_and_what_machines_sign_is_not() {
    let desk = Desk::new();
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let kinds = [
        ("policy", "manifests/examples/policy/policy-2.yaml", "policy, edition 7"),
        (
            "revocation",
            "manifests/tests/revocations/truth.yaml",
            "revocation: The build key was on a stolen laptop",
        ),
        ("rollout", "fuzz/corpus/rollout/truth.yaml", "rollout of greet-fix, manifest 05b3abf2"),
    ];
    for (kind, document, words) in kinds {
        let name = format!("{kind}-document.yaml");
        fs::copy(documents.join(document), desk.path(&name)).unwrap();
        let output = desk.sign(&[&name, "--type", kind, "--key", "forge.key"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.starts_with(words), "{kind}: {said}");
        let envelope =
            Envelope::parse(&fs::read(desk.path(&format!("{kind}-document.{kind}.json"))).unwrap());
        let envelope = envelope.unwrap();
        assert_eq!(envelope.kind().map(|kind| kind.to_string()).as_deref(), Some(kind));
        // A second person needs not say what it is.
        let signed = format!("{kind}-document.{kind}.json");
        assert!(desk.sign(&[&signed, "--key", "alice.key"]).status.success(), "{kind}");
        // It is nothing else.
        for other in
            ["manifest", "policy", "revocation", "rollout"].into_iter().filter(|other| *other != kind)
        {
            desk.refused(&[&name, "--type", other, "--key", "forge.key"], "that a host could read");
        }
    }
    let output = desk.sign(&["fix.yaml", "--type", "grant", "--key", "forge.key"]);
    assert_eq!(output.status.code(), Some(2), "grants are machines'");
    desk.refused(&["fix.yaml", "--type", "evidence", "--key", "forge.key"], "that a host could read");
    let grant = Envelope::new(manifests::DocumentKind::Grant, b"{}".to_vec()).to_json();
    fs::write(desk.path("grant.json"), grant).unwrap();
    desk.refused(
        &["grant.json", "--key", "forge.key"],
        "expected payload type of a manifest, policy, revocation, rollout or evidence",
    );
}

#[test]
fn provenance_and_the_word_of_a_rebuild_are_signed_as_they_are() {
    use manifests::Sha256;
    use manifests::provenance::{Origin, REBUILD, Rebuild};
    use manifests::statement::{Statement, Subject};

    let desk = Desk::new();
    let module = Sha256::of(b"module");
    let predicate = Rebuild {
        kernel: "6.1.0-50-amd64".parse().unwrap(),
        identical: true,
        rebuilt: module,
        patches: Vec::new(),
        by: "patch-tools".to_owned(),
    };
    let statement = Statement::new(vec![Subject::of("fix.ko", module)], REBUILD, predicate).to_json();
    fs::write(desk.path("fix.rebuild.json"), &statement).unwrap();
    let output = desk.sign(&["fix.rebuild.json", "--type", "evidence", "--key", "forge.key"]);
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(words.contains("a rebuild with the same bytes, of fix.ko"), "{words}");
    let signed = desk.path("fix.rebuild.evidence.json");
    let envelope = Envelope::parse(&fs::read(&signed).unwrap()).unwrap();
    assert_eq!(envelope.unverified_payload(), statement);
    assert!(Origin::parse(envelope.unverified_payload(), module).is_ok());
    assert!(desk.sign(&["fix.rebuild.evidence.json", "--key", "alice.key"]).status.success());
    assert_eq!(signers(&signed), ["forge", "alice"]);
    desk.refused(&["fix.rebuild.json", "--key", "forge.key"], "not an envelope");
}
