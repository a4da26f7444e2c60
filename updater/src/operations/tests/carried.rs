//! Bundles and logs on a host from end to end: what an air-gapped host takes, and what it refuses with nothing changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::repository::authoring::Repository;
use ::repository::authoring::draft::{Founders, Holders};
use ::repository::bundle::create::{Along as Extras, create};
use ::repository::log::Log;
use ::repository::transport::Patience;
use ::repository::transport::file::Files;
use ::repository::transport::mirrors::{Mirror, Mirrors};
use manifests::log::{LogProof, NoteKeyKind, NoteSigner};
use manifests::{DocumentKind, Envelope, LogRefusal, SecretKey, VerifyError};
use system::clock::SystemClock;

use super::bench::{Bench, MANIFEST, Undisturbed, livepatch_only};
use super::*;
use crate::config::RepositoryConfig;
use crate::operations::apply::{Applied, Quarantine, Request};
use crate::operations::carried::{Carried, CarriedError};
use crate::operations::hold::Heeding;
use crate::operations::publication::{forks, proof_of};
use crate::operations::trust::TrustError;

const FORGE: u8 = 1;
const OWNER: u8 = 2;
const LOG: u8 = 41;
const ORIGIN: &str = "updates.example.org/log";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn noted(name: &str, seed: u8, kind: NoteKeyKind) -> String {
    NoteSigner::new(name.parse().unwrap(), &key(seed)).verifier(kind).to_string()
}

/// A policy that wants manifests in the log, as two of three witnesses have seen it.
fn edition(version: u32) -> String {
    let entry = |name: &str, seed: u8| {
        let public = key(seed).public();
        format!("  - {{name: {name}, id: {}, public: \"{public}\"}}\n", public.id())
    };
    let mut log = format!("  log {}\n", noted(ORIGIN, LOG, NoteKeyKind::Log));
    for seed in [51, 52, 53] {
        log += &format!(
            "  witness w{seed} {}\n",
            noted(&format!("w{seed}.example"), seed, NoteKeyKind::Witness)
        );
    }
    format!(
        "schema: 2\nversion: {version}\nissued: 2026-11-01T00:00:00Z\nkeys:\n{}{}roles:\n\
         - {{name: build, keys: [forge], threshold: 1}}\n- {{name: owner, keys: [owner], threshold: 1}}\n\
         rules:\n- {{document: manifest, any_of: [[build]]}}\n- {{document: policy, any_of: [[owner]]}}\n\
         - {{document: revocation, any_of: [[owner]]}}\ntransparency: |\n{log}  group all-of-us 2 w51 w52 w53\n  quorum all-of-us\n",
        entry("forge", FORGE),
        entry("owner", OWNER),
    )
}

fn signed(kind: DocumentKind, text: &str, seed: u8) -> Envelope {
    let mut envelope = Envelope::new(kind, text.as_bytes().to_vec());
    envelope.sign(&key(seed)).unwrap();
    envelope
}

/// A host whose policy wants a log, and a repository elsewhere.
struct World {
    bench: Bench,
    files: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        let world = Self { bench, files: tempfile::tempdir().unwrap() };
        let envelope = signed(DocumentKind::Policy, &edition(2), OWNER);
        world.bench.write("first.json", envelope.to_json().as_bytes());
        let file = world.bench.payloads().join("first.json");
        world.engine().install_policy(&file, Some(envelope.payload_digest())).unwrap();
        world.found("repo");
        world
    }

    fn engine(&self) -> Engine {
        self.bench.engine()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn now(&self) -> jiff::Timestamp {
        self.engine().host.clock.now()
    }

    /// Whose keys sign root, targets and the day of a repository.
    fn holders(name: &str) -> [u8; 3] {
        let first = match name {
            "repo" => 11,
            "fork" => 21,
            _ => 31,
        };
        [first, first + 1, first + 2]
    }

    /// A repository with a log.
    fn found(&self, name: &str) {
        let [root, targets, online] = Self::holders(name);
        let holders = |seed| Holders { keys: vec![key(seed).public()], threshold: 1 };
        let founders = Founders { root: holders(root), targets: holders(targets), online: holders(online) };
        let repository = Repository::init(&self.path(name), &founders, self.now()).unwrap();
        repository.sign(&key(root)).unwrap();
        repository.sign(&key(targets)).unwrap();
        repository.publish(&[key(online)], self.now()).unwrap();
        Log::init(&repository.log(), ORIGIN.parse().unwrap(), &key(LOG)).unwrap();
    }

    fn repository(&self, name: &str) -> Repository {
        Repository::open(&self.path(name)).unwrap()
    }

    /// The livepatch of the bench as a version of a manifest, published.
    fn publish(&self, repository: &str, version: u64) {
        let [_, targets, online] = Self::holders(repository);
        let text = livepatch_only(MANIFEST).replace("version: 3", &format!("version: {version}"));
        let envelope = signed(DocumentKind::Manifest, &self.bench.text(&text), FORGE);
        let file = self.bench.payloads().join("m.json");
        fs::write(&file, envelope.to_json()).unwrap();
        let at = self.repository(repository);
        at.add(&[file], None, self.now()).unwrap();
        at.sign(&key(targets)).unwrap();
        at.publish_logged(&[key(online)], Some(&key(LOG)), self.now()).unwrap();
    }

    /// Has witnesses sign whatever they are shown.
    fn cosign(&self, repository: &str, witnesses: &[u8]) {
        let log = Log::open(&self.repository(repository).log()).unwrap();
        let (_, mut note) = log.checkpoint().unwrap();
        for seed in witnesses {
            let secret = key(*seed);
            let signer = NoteSigner::new(format!("w{seed}.example").parse().unwrap(), &secret);
            note.add(signer.cosign(note.text(), 1_795_000_000));
        }
        log.collect(&[(PathBuf::from("cosigned"), note)]).unwrap();
    }

    fn root(&self, repository: &str) -> PathBuf {
        self.path(repository).join("public/metadata/1.root.json")
    }

    fn bundle(&self, repository: &str, version: u64, extras: &Extras) -> PathBuf {
        let mirror =
            Mirror::parse(&format!("file://{}", self.path(repository).join("public").display())).unwrap();
        let places = Mirrors::new(vec![mirror], Arc::new(Files), Patience::default(), Arc::new(SystemClock));
        let out = self.path(&format!("{repository}-{version}.upd"));
        let wanted = ("greet".parse().unwrap(), Some(version));
        let root = fs::read(self.root(repository)).unwrap();
        create(&out, &root, &places, (&wanted.0, wanted.1), extras, self.now()).unwrap();
        out
    }

    /// From now on the host takes bundles of this repository alone.
    fn pin(&self, repository: &str) {
        let root = self.root(repository);
        let settings =
            RepositoryConfig { places: Vec::new(), root, proxy: None, authorities: None, transport: None };
        self.bench.set(Config { repository: Some(settings), ..Config::default() });
    }

    fn open(&self, bundle: &Path) -> Result<Arc<Carried>, CarriedError> {
        let config = self.bench.config();
        Carried::open(bundle, &config, &config.store, self.now()).map(Arc::new)
    }

    fn act<R>(
        &self,
        bundle: &Path,
        act: impl FnOnce(&Engine, &Request<'_>) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        let carried = self.open(bundle).unwrap();
        let request = Request {
            manifest: carried.manifest(),
            payloads: &carried,
            quarantine: Quarantine::Heed,
            heeding: Heeding::Heed,
            along: Some(carried.along()),
        };
        let done = act(&self.engine(), &request)?;
        carried.remember(&self.bench.config().store, self.now()).unwrap();
        Ok(done)
    }

    fn apply(&self, bundle: &Path) -> Result<Applied, EngineError> {
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &Undisturbed };
        self.act(bundle, |engine, request| engine.apply(request, &listeners, &|_, _| {}))
    }

    /// Why a bundle is not applied; the host is what it was.
    fn refused(&self, bundle: &Path) -> TrustError {
        let before = self.state();
        let refused = self.apply(bundle).unwrap_err();
        assert_eq!(self.state(), before, "{refused}");
        let EngineError::Trust(error) = refused else { panic!("{refused}") };
        error
    }

    fn not_logged(&self, bundle: &Path) -> LogRefusal {
        match self.refused(bundle) {
            TrustError::NotAuthentic { source: VerifyError::NotLogged(refusal), .. } => refusal,
            other => panic!("{other}"),
        }
    }

    /// What a refusal must not change.
    fn state(&self) -> (Vec<u8>, String, Vec<String>, bool) {
        let floor = self.engine().floor().unwrap();
        let policy = fs::read(self.bench.config().policy).unwrap();
        let metadata = self.bench.config().store.join("repository").exists();
        (policy, serde_json::to_string(&floor).unwrap(), self.bench.machine.modules(), metadata)
    }
}

#[test]
fn an_air_gapped_host_takes_manifest_policy_and_revocations_from_one_file_with_its_policy_and_floors_alone() {
    let world = World::new();
    world.publish("repo", 3);
    world.cosign("repo", &[51, 53]);
    world.pin("repo");
    let policy = signed(DocumentKind::Policy, &edition(3), OWNER);
    let gone = manifests::Sha256::of(b"a bad build");
    let revocation =
        format!("schema: 1\nissued: 2026-11-02T00:00:00Z\nreason: a bad build\npayloads: [{gone}]\n");
    let revocation = signed(DocumentKind::Revocation, &revocation, OWNER);
    let extras = Extras {
        policy: Some(policy.to_json().into_bytes()),
        revocations: vec![revocation.to_json().into_bytes()],
    };
    let bundle = world.bundle("repo", 3, &extras);
    let before = world.state();
    let plan = world.act(&bundle, |engine, request| engine.plan(request)).unwrap();
    assert!(!plan.is_empty());
    assert_eq!(world.state().0, before.0, "a plan puts no policy in force");
    assert_eq!(world.state().1, before.1);

    let Applied::Transaction { driven, .. } = world.apply(&bundle).unwrap() else {
        panic!("nothing was done")
    };
    assert_eq!(driven.reached, Reached::Ended(Outcome::Committed));
    assert_eq!(world.bench.machine.modules(), ["one_function"]);
    let floor = world.engine().floor().unwrap();
    assert_eq!(floor.policy.unwrap().version, 3);
    assert!(floor.revoked.payloads.contains_key(&gone));
    assert_eq!(floor.logs[&ORIGIN.parse().unwrap()].head.size, 1);
    assert_eq!(fs::read(world.bench.config().policy).unwrap(), edition(3).into_bytes());
    // The same file once more is nothing new, and stays authentic.
    assert!(matches!(world.apply(&bundle).unwrap(), Applied::Nothing(_)));
    // A later bundle continues the log by the hashes in it.
    world.publish("repo", 4);
    world.cosign("repo", &[52, 53]);
    let later = world.bundle("repo", 4, &Extras::default());
    world.apply(&later).unwrap();
    assert_eq!(world.engine().floor().unwrap().logs[&ORIGIN.parse().unwrap()].head.size, 2);
    let leftovers = fs::read_dir(&world.bench.config().store).unwrap();
    let leftovers: Vec<_> = leftovers.map(|entry| entry.unwrap().file_name()).collect();
    assert!(leftovers.iter().all(|name| !name.to_string_lossy().starts_with(".incoming")), "{leftovers:?}");
}

#[test]
fn a_bundle_with_an_older_or_unsigned_policy_is_refused_whole() {
    let world = World::new();
    world.publish("repo", 3);
    world.cosign("repo", &[51, 52]);
    for (what, policy) in [
        ("older", signed(DocumentKind::Policy, &edition(1), OWNER)),
        ("by somebody else", signed(DocumentKind::Policy, &edition(3), FORGE)),
        ("the same edition with other bytes", signed(DocumentKind::Policy, &(edition(2) + "# x\n"), OWNER)),
    ] {
        let extras = Extras { policy: Some(policy.to_json().into_bytes()), revocations: Vec::new() };
        let refused = world.refused(&world.bundle("repo", 3, &extras));
        assert!(matches!(refused, TrustError::Succession { .. }), "{what}: {refused}");
        assert_eq!(crate::cli::failures::trust(refused).exit().code(), 4, "{what}");
    }
    let revocation = "schema: 1\nissued: 2026-11-02T00:00:00Z\nreason: nothing\nkeys: []\n";
    let foreign = signed(
        DocumentKind::Revocation,
        &revocation.replace("keys: []", &format!("keys: [{}]", key(FORGE).public().id())),
        FORGE,
    );
    let extras = Extras { policy: None, revocations: vec![foreign.to_json().into_bytes()] };
    let refused = world.refused(&world.bundle("repo", 3, &extras));
    assert!(matches!(refused, TrustError::NotAuthentic { .. }), "{refused}");
    // A revocation of its own key comes along: the manifest does not count any more.
    let own = signed(
        DocumentKind::Revocation,
        &revocation.replace("keys: []", &format!("keys: [{}]", key(FORGE).public().id())),
        OWNER,
    );
    let extras = Extras { policy: None, revocations: vec![own.to_json().into_bytes()] };
    let refused = world.refused(&world.bundle("repo", 3, &extras));
    assert!(
        matches!(refused, TrustError::NotAuthentic { source: VerifyError::KeyRevoked { .. }, .. }),
        "{refused}"
    );
    // And with the edition that is in force it is fine.
    let same = signed(DocumentKind::Policy, &edition(2), OWNER);
    let extras = Extras { policy: Some(same.to_json().into_bytes()), revocations: Vec::new() };
    world.apply(&world.bundle("repo", 3, &extras)).unwrap();
}

#[test]
fn proofs_that_are_stripped_too_few_witnesses_and_forks_are_refused_and_a_fork_is_kept() {
    let world = World::new();
    world.publish("repo", 3);
    let unseen = world.not_logged(&world.bundle("repo", 3, &Extras::default()));
    assert_eq!(unseen.kind(), "too-few-witnesses");
    world.cosign("repo", &[51]);
    assert_eq!(world.not_logged(&world.bundle("repo", 3, &Extras::default())).kind(), "too-few-witnesses");
    world.cosign("repo", &[51, 52]);
    let log = world.repository("repo").log();
    let good = world.bundle("repo", 3, &Extras::default());
    // Stripped: the same repository without its log.
    fs::rename(&log, world.path("log-aside")).unwrap();
    let stripped = world.path("stripped.upd");
    fs::rename(world.bundle("repo", 3, &Extras::default()), &stripped).unwrap();
    fs::rename(world.path("log-aside"), &log).unwrap();
    assert_eq!(world.not_logged(&stripped).kind(), "not-logged");
    let good_again = world.bundle("repo", 3, &Extras::default());
    assert_eq!(good, good_again);
    world.apply(&good).unwrap();

    // Another history by the same log, that witnesses have signed who should not have.
    world.found("fork");
    world.publish("fork", 4);
    world.cosign("fork", &[51, 52, 53]);
    let forked = world.not_logged(&world.bundle("fork", 4, &Extras::default()));
    assert_eq!(forked.kind(), "log-forked");
    let kept = fs::read_dir(forks(&world.bench.config().store)).unwrap().count();
    assert_eq!(kept, 2, "both checkpoints are evidence");
    world.publish("fork", 5);
    world.cosign("fork", &[51, 52, 53]);
    assert_eq!(
        world.not_logged(&world.bundle("fork", 5, &Extras::default())).kind(),
        "log-forked",
        "and a longer one"
    );

    // Rolled back: a bundle of before.
    world.publish("repo", 4);
    world.cosign("repo", &[51, 52]);
    let early = world.path("early.upd");
    fs::rename(world.bundle("repo", 4, &Extras::default()), &early).unwrap();
    world.publish("repo", 5);
    world.cosign("repo", &[51, 52]);
    world.apply(&world.bundle("repo", 5, &Extras::default())).unwrap();
    let refused = world.refused(&early);
    assert!(
        matches!(refused, TrustError::NotAuthentic { source: VerifyError::VersionBelowFloor { .. }, .. }),
        "{refused}"
    );
}

#[test]
fn a_bundle_of_another_repository_or_of_an_earlier_state_of_it_is_refused_by_a_host_that_pins_a_root() {
    let world = World::new();
    world.publish("repo", 3);
    world.cosign("repo", &[51, 52]);
    world.found("foreign");
    world.publish("foreign", 3);
    world.cosign("foreign", &[51, 52]);
    let foreign = world.bundle("foreign", 3, &Extras::default());
    let early = world.path("early.upd");
    fs::rename(world.bundle("repo", 3, &Extras::default()), &early).unwrap();
    world.pin("repo");
    let refused = world.open(&foreign).unwrap_err();
    assert!(matches!(refused, CarriedError::Repository(_)), "{refused}");
    assert_eq!(crate::cli::failures::carried(refused).exit().code(), 4);

    world.publish("repo", 4);
    world.cosign("repo", &[51, 52]);
    world.apply(&world.bundle("repo", 4, &Extras::default())).unwrap();
    let refused = world.open(&early).unwrap_err();
    assert!(
        matches!(refused, CarriedError::Repository(_)),
        "what it says of the repository is older: {refused}"
    );
    // A host that pins no root asks its policy and its floors.
    world.bench.set(Config::default());
    let refused = world.refused(&early);
    assert!(
        matches!(refused, TrustError::NotAuthentic { source: VerifyError::VersionBelowFloor { .. }, .. }),
        "{refused}"
    );

    // Past the end of its timestamp, only who pins no root takes it.
    world.publish("repo", 5);
    world.cosign("repo", &[51, 52]);
    let late = world.bundle("repo", 5, &Extras::default());
    world.pin("repo");
    let config = world.bench.config();
    let then = world.now() + jiff::SignedDuration::from_hours(8 * 24);
    let refused = Carried::open(&late, &config, &config.store, then).unwrap_err();
    assert!(matches!(refused, CarriedError::Repository(_)), "{refused}");
    world.bench.set(Config::default());
    let config = world.bench.config();
    Carried::open(&late, &config, &config.store, then).unwrap();
}

#[test]
fn a_payload_that_is_not_the_signed_one_is_refused_before_anything_begins() {
    let world = World::new();
    world.publish("repo", 3);
    world.cosign("repo", &[51, 52]);
    let bundle = world.bundle("repo", 3, &Extras::default());
    let mut bytes = fs::read(&bundle).unwrap();
    let payload = fs::read(world.bench.payloads().join("one-function.ko")).unwrap();
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let before = world.state();
    let refused = world.apply(&bundle).unwrap_err();
    assert!(matches!(refused, EngineError::Payload(StoreError::Changed { .. })), "{refused}");
    assert_eq!(crate::cli::failures::engine(refused).exit().code(), 4);
    assert_eq!(world.state(), before);
}

#[test]
fn a_manifest_that_is_a_file_is_judged_by_the_proof_beside_it() {
    let world = World::new();
    world.publish("repo", 3);
    world.cosign("repo", &[52, 53]);
    let manifest = world.bench.payloads().join("m.json");
    let refused = world.bench.plan_signed(&manifest).unwrap_err();
    assert_eq!(crate::cli::failures::engine(refused).exit().code(), 4);
    let log = world.repository("repo").log();
    let proof = fs::read_dir(log.join("proof")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&proof, proof_of(&manifest)).unwrap();
    assert!(proof_of(&manifest).to_string_lossy().ends_with(LogProof::EXTENSION));
    world.bench.plan_signed(&manifest).unwrap();
    world.bench.apply_signed(&manifest).unwrap();
    // The next one: the log went on, and witnesses say so; then without their word, only its hashes do.
    world.publish("repo", 4);
    let leaf =
        manifests::LogEntry::of(&Envelope::parse(&fs::read(&manifest).unwrap()).unwrap()).unwrap().leaf();
    let proof = log.join(::repository::log::store::proof_path(&leaf));
    fs::copy(&proof, proof_of(&manifest)).unwrap();
    assert!(world.bench.plan_signed(&manifest).is_err(), "nobody has seen it");
    world.cosign("repo", &[52, 53]);
    fs::copy(&proof, proof_of(&manifest)).unwrap();
    world.bench.plan_signed(&manifest).unwrap();
    // What a controller brings is proven by what this host has of its repository.
    let kept = repository_kept(&world, 4);
    fs::rename(proof_of(&manifest), proof_of(&kept)).unwrap();
    world.bench.plan_signed(&manifest).unwrap();
}

fn repository_kept(world: &World, version: u64) -> PathBuf {
    let kept =
        crate::operations::repository::kept(&world.bench.config().store, &"greet".parse().unwrap(), version);
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    kept
}
