//! A host and a repository: from a name to payloads in the store.

use std::fs;

use manifests::{HostKernel, SecretKey, Sha256};
use repository::authoring::Repository;
use repository::authoring::draft::{Founders, Holders};

use super::*;
use crate::state::payloads::Payloads;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn now() -> Timestamp {
    "2026-11-11T00:00:00Z".parse().unwrap()
}

/// A repository, a policy, and a host's store.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let holders = |seed| Holders { keys: vec![key(seed).public()], threshold: 1 };
        let founders = Founders { root: holders(1), targets: holders(2), online: holders(3) };
        Repository::init(&desk.path("repo"), &founders, now()).unwrap();
        let signer = key(9).public();
        let policy = format!(
            "schema: 1\nkeys:\n  - name: build\n    id: {}\n    public: {signer}\nroles:\n  - name: build\n    keys: [build]\n    threshold: 1\n",
            signer.id()
        );
        fs::write(desk.path("policy.yaml"), policy).unwrap();
        std::os::unix::fs::chown(desk.path("policy.yaml"), None, None).unwrap();
        fs::set_permissions(desk.path("policy.yaml"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        fs::create_dir(desk.path("store")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A livepatch for a kernel, signed by somebody.
    fn publish(&self, name: &str, version: u64, kernel: &str, signer: u8) {
        let payload = format!("{name} {version}");
        let text = format!(
            "schema: 1\nname: {name}\nversion: {version}\nissued: 2026-11-01T00:00:00Z\n\
             expires: 2026-12-01T00:00:00Z\nseverity: high\nsummary: A fix\nfixes: [CVE-2026-12345]\ntargets:\n  \
             arch: [x86_64]\n  kernels: [{kernel}]\ncomponents:\n  - kind: livepatch\n    module: fix\n    \
             payload:\n      file: fix.ko\n      sha256: {}\n      size: {}\n    kernel: {kernel}\n    patches:\n      \
             - object: vmlinux\n        functions: [{{name: cmdline_proc_show}}]\n",
            Sha256::of(payload.as_bytes()),
            payload.len()
        );
        let mut envelope = Envelope::of_manifest(text.into_bytes());
        envelope.sign(&key(signer)).unwrap();
        fs::write(self.path("m.json"), envelope.to_json()).unwrap();
        fs::write(self.path("fix.ko"), payload).unwrap();
        let repository = Repository::open(&self.path("repo")).unwrap();
        repository.add(&[self.path("m.json")], None, now()).unwrap();
        let _ = repository.sign(&key(1));
        repository.sign(&key(2)).unwrap();
        repository.publish(&[key(3)], now()).unwrap();
    }

    fn settings(&self) -> RepositoryConfig {
        RepositoryConfig {
            places: vec![format!("file://{}", self.path("repo/public").display())],
            root: self.path("repo/public/metadata/1.root.json"),
            proxy: None,
            authorities: None,
            transport: None,
        }
    }

    /// What the host knows of and lacks, without asking anybody.
    fn known(&self, floor: &TrustFloor, now: Timestamp) -> Vec<String> {
        let kernel = HostKernel { release: "6.1.0-50-amd64".parse().unwrap(), build_id: None, package: None };
        let (store, policy) = (self.path("store"), self.path("policy.yaml"));
        let judge = Judge { store: &store, policy: &policy, floor, kernel: &kernel, now };
        let known = known(&judge).unwrap();
        assert!(known.iter().all(|one| matches!(one.news, News::Lacking { .. })), "{known:?}");
        known.into_iter().map(|one| format!("{}@{}", one.name, one.version)).collect()
    }

    fn check(&self, floor: &TrustFloor) -> Vec<(String, News)> {
        let kernel = HostKernel { release: "6.1.0-50-amd64".parse().unwrap(), build_id: None, package: None };
        let mut client = refresh(&self.settings(), &self.path("store"), now()).unwrap();
        let (store, policy) = (self.path("store"), self.path("policy.yaml"));
        let judge = Judge { store: &store, policy: &policy, floor, kernel: &kernel, now: now() };
        let checked = check(&mut client, &self.settings(), &judge).unwrap();
        checked.into_iter().map(|one| (format!("{}@{}", one.name, one.version), one.news)).collect()
    }
}

#[test]
fn a_name_becomes_a_manifest_that_the_policy_judges_and_payloads_in_the_store() {
    let desk = Desk::new();
    desk.publish("greet", 1, "6.1.0-50-amd64", 9);
    desk.publish("greet", 2, "6.1.0-50-amd64", 9);
    let (settings, store) = (desk.settings(), desk.path("store"));
    let fetched = fetch(&settings, &store, &"greet".parse().unwrap(), now()).unwrap();
    assert_eq!(fetched.newer, None);
    let manifest =
        authenticate(&fetched.manifest, &desk.path("policy.yaml"), &TrustFloor::default(), now()).unwrap();
    assert_eq!(manifest.version, 2);
    let payloads = Payloads::new(&store);
    let payload = manifest.payloads().next().unwrap();
    payloads.add(payload, &fetched.payloads).unwrap();
    assert_eq!(payloads.read(&payload.sha256).unwrap(), b"greet 2");

    let old = fetch(&settings, &store, &"greet@1".parse().unwrap(), now()).unwrap();
    assert_eq!(old.newer, Some(2), "it is told of the later one");
    assert!(matches!(
        fetch(&settings, &store, &"other".parse().unwrap(), now()),
        Err(RepositoryError::NoSuchManifest(_))
    ));
    assert!(fetch(&settings, &store, &"greet@3".parse().unwrap(), now()).is_err());
}

#[test]
fn what_is_new_is_told_with_how_long_the_host_has_been_exposed() {
    let desk = Desk::new();
    desk.publish("elsewhere", 1, "6.12.1-amd64", 9);
    desk.publish("greet", 1, "6.1.0-50-amd64", 9);
    desk.publish("stranger", 1, "6.1.0-50-amd64", 8);
    let lacking =
        News::Lacking { exposed_since: "2026-11-01T00:00:00Z".parse().unwrap(), exposed_s: 864_000 };
    let news = desk.check(&TrustFloor::default());
    assert_eq!(news[0], ("elsewhere@1".to_owned(), News::ForOthers));
    assert_eq!(news[1], ("greet@1".to_owned(), lacking.clone()));
    assert!(matches!(&news[2].1, News::NotAuthentic { .. }), "{news:?}");

    let file = keep(
        &mut refresh(&desk.settings(), &desk.path("store"), now()).unwrap(),
        &desk.path("store"),
        &"greet".parse().unwrap(),
        1,
    );
    let accepted =
        authenticate(&file.unwrap(), &desk.path("policy.yaml"), &TrustFloor::default(), now()).unwrap();
    let mut floor = TrustFloor::default();
    floor.raise(&accepted);
    assert_eq!(desk.check(&floor)[1].1, News::Known);
    desk.publish("greet", 2, "6.1.0-50-amd64", 9);
    assert_eq!(desk.check(&floor)[1], ("greet@2".to_owned(), lacking));
}

#[test]
fn a_repository_that_expired_gives_nothing_and_says_so() {
    let desk = Desk::new();
    desk.publish("greet", 1, "6.1.0-50-amd64", 9);
    let late = "2026-11-19T00:00:00Z".parse().unwrap();
    let error = refresh(&desk.settings(), &desk.path("store"), late).unwrap_err();
    let failure = crate::cli::failures::repository(error);
    assert_eq!(failure.exit().code(), 4);
    assert!(failure.for_person().contains("resume, rollback and status do not need it"));
}

#[test]
fn what_a_host_has_learnt_of_and_not_applied_is_known_without_asking_anybody() {
    let desk = Desk::new();
    let nothing = TrustFloor::default();
    desk.publish("elsewhere", 1, "6.12.1-amd64", 9);
    desk.publish("greet", 1, "6.1.0-50-amd64", 9);
    desk.publish("stranger", 1, "6.1.0-50-amd64", 8);
    assert_eq!(desk.known(&nothing, now()), [""; 0], "nobody has looked yet");
    desk.check(&nothing);
    fs::rename(desk.path("repo"), desk.path("away")).unwrap();
    assert_eq!(desk.known(&nothing, now()), ["greet@1"]);
    // The repository has expired, and what it said stays said; a manifest that has, cannot be applied any more.
    assert_eq!(desk.known(&nothing, "2026-11-25T00:00:00Z".parse().unwrap()), ["greet@1"]);
    assert_eq!(desk.known(&nothing, "2026-12-02T00:00:00Z".parse().unwrap()), [""; 0]);

    let file = kept(&desk.path("store"), &"greet".parse().unwrap(), 1);
    let mut floor = TrustFloor::default();
    floor.raise(&authenticate(&file, &desk.path("policy.yaml"), &nothing, now()).unwrap());
    assert_eq!(desk.known(&floor, now()), [""; 0]);

    // A later version that was listed by a refresh and never fetched.
    fs::rename(desk.path("away"), desk.path("repo")).unwrap();
    desk.publish("greet", 2, "6.1.0-50-amd64", 9);
    refresh(&desk.settings(), &desk.path("store"), now()).unwrap().catalogue().unwrap();
    assert_eq!(desk.known(&floor, now()), ["greet@2"], "and not stranger@1, which was looked at");

    // What was tampered with is as good as none.
    let metadata = desk.path("store/repository/metadata");
    let role = fs::read_to_string(metadata.join("m1.json")).unwrap();
    fs::write(metadata.join("m1.json"), role.replace("greet/2/", "greet/9/")).unwrap();
    assert_eq!(desk.known(&nothing, now()), [""; 0]);
    fs::remove_file(metadata.join("timestamp.json")).unwrap();
    assert_eq!(desk.known(&nothing, now()), [""; 0]);
}

#[test]
fn no_way_back_asks_a_repository() {
    for (name, text) in [
        ("resume", include_str!("resume.rs")),
        ("rollback", include_str!("rollback.rs")),
        ("status", include_str!("status.rs")),
        ("standing", include_str!("standing.rs")),
    ] {
        assert!(!text.contains("repository"), "{name}");
    }
}
