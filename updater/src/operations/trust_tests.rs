use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use manifests::SecretKey;

use super::*;
use crate::state::floors::{FloorSeen, look_at_floor, raise_floor, read_floor};
use crate::state::journal::Journal;

/// A directory with a policy of one role and one key, and a manifest that this key has signed.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let public = SecretKey::from_seed([1; 32]).public();
        let policy = format!(
            "schema: 1\nkeys: [{{name: forge, id: {}, public: {public}}}]\n\
             roles: [{{name: build, keys: [forge], threshold: 1}}]\n",
            public.id()
        );
        let desk = Self { directory };
        fs::write(desk.path("policy.yaml"), policy).unwrap();
        desk.sign(3);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn sign(&self, version: u64) {
        let text = include_str!("../../../manifests/tests/truth.yaml");
        let text = text.replace("version: 3", &format!("version: {version}"));
        let mut envelope = Envelope::of_manifest(text.into_bytes());
        envelope.sign(&SecretKey::from_seed([1; 32])).unwrap();
        fs::write(self.path("m.json"), envelope.to_json()).unwrap();
    }

    fn authenticate(&self, floor: &TrustFloor) -> Result<Verified<Manifest>, TrustError> {
        let now = "2026-11-10T12:00:00Z".parse().unwrap();
        authenticate(&self.path("m.json"), &self.path("policy.yaml"), floor, now)
    }
}

#[test]
fn floors_come_back_from_the_journal_as_they_were_raised() {
    let desk = Desk::new();
    let store = desk.directory.path();
    assert_eq!(look_at_floor(store).unwrap(), FloorSeen::Floor(TrustFloor::default()), "no journal yet");

    let mut journal = Journal::open(store).unwrap();
    assert_eq!(read_floor(&journal).unwrap(), TrustFloor::default());
    let accepted = desk.authenticate(&TrustFloor::default()).unwrap();
    raise_floor(&mut journal, &accepted).unwrap();
    let floor = read_floor(&journal).unwrap();
    let mut expected = TrustFloor::default();
    expected.raise(&accepted);
    assert_eq!(floor, expected);
    assert_eq!(look_at_floor(store).unwrap(), FloorSeen::Floor(floor.clone()));

    desk.authenticate(&floor).unwrap();
    desk.sign(2);
    let refused = desk.authenticate(&floor).unwrap_err();
    let TrustError::NotAuthentic { source: VerifyError::VersionBelowFloor { floor: 3, .. }, .. } = refused
    else {
        panic!("{refused:?}");
    };
}

#[test]
fn a_journal_that_is_none_is_an_error_and_not_an_empty_memory() {
    let desk = Desk::new();
    fs::write(desk.path("journal.sqlite"), "not a database, and long enough to be looked at as one").unwrap();
    assert!(matches!(look_at_floor(desk.directory.path()), Err(FloorError::Damaged { .. })));
}

#[test]
fn a_policy_that_others_can_write_is_refused() {
    let desk = Desk::new();
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(desk.path("policy.yaml"), fs::Permissions::from_mode(mode)).unwrap();
        let refused = desk.authenticate(&TrustFloor::default()).unwrap_err();
        assert!(
            matches!(refused, TrustError::PolicyUnsafe { mode: found, .. } if found == mode),
            "{refused:?}"
        );
    }
    fs::set_permissions(desk.path("policy.yaml"), fs::Permissions::from_mode(0o644)).unwrap();
    desk.authenticate(&TrustFloor::default()).unwrap();
}

#[test]
fn a_manifest_of_100_mb_is_refused_by_its_size_alone() {
    let desk = Desk::new();
    // Sparse: it has the size and no bytes on disk.
    File::create(desk.path("m.json")).unwrap().set_len(100 << 20).unwrap();
    let refused = desk.authenticate(&TrustFloor::default()).unwrap_err();
    assert!(matches!(refused, TrustError::TooLarge { what: "manifest", found: Some(104_857_600), .. }));
}

#[test]
fn an_endless_manifest_is_refused_after_the_largest_size() {
    let refused = read_envelope(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(refused, TrustError::TooLarge { what: "manifest", found: None, .. }));
}

#[test]
fn a_bare_manifest_is_not_signed() {
    let desk = Desk::new();
    fs::write(desk.path("m.json"), include_str!("../../../manifests/tests/truth.yaml")).unwrap();
    let refused = desk.authenticate(&TrustFloor::default()).unwrap_err();
    assert!(matches!(refused, TrustError::NotAnEnvelope { .. }));
}

fn payload_of(bytes: &[u8]) -> Payload {
    let size = bytes.len() as u64;
    Payload { file: "fix.ko".parse().unwrap(), sha256: Sha256::of(bytes), size }
}

#[test]
fn a_payload_is_told_missing_long_short_changed_or_right() {
    let directory = tempfile::tempdir().unwrap();
    let payload = payload_of(b"a module");
    let compare = || compare_payload(&payload, directory.path());
    let path = directory.path().join("fix.ko");
    assert_eq!(compare(), PayloadState::Missing);
    fs::write(&path, b"a modul").unwrap();
    assert_eq!(compare(), PayloadState::Size { found: 7 });
    fs::write(&path, b"a module!").unwrap();
    assert_eq!(compare(), PayloadState::Size { found: 9 });
    fs::write(&path, b"a mOdule").unwrap();
    assert_eq!(compare(), PayloadState::Digest { found: Sha256::of(b"a mOdule") });
    fs::write(&path, b"a module").unwrap();
    assert_eq!(compare(), PayloadState::Matches);
}

#[test]
fn a_payload_that_is_a_pipe_does_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&directory.path().join("fix.ko"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let state = compare_payload(&payload_of(b"x"), directory.path());
    assert!(matches!(state, PayloadState::Unreadable { .. }), "{state:?}");
}
