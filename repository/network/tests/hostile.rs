//! Lies that a repository, a mirror or somebody on the way can tell. Each test is named after its lie.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use repository::authoring::draft::Rotation;
use repository::client::ClientError;
use repository::store::Store;
use repository::transport::{FetchError, Patience, Transport as _};
use serde_json::{Value, json};
use support::{Host, ONLINE, Reply, Server, Team, days, key, now};
use update_transport::{Http, Options};

/// A copy of what a team serves, to be changed by somebody else.
struct Mirror {
    files: tempfile::TempDir,
}

impl Mirror {
    fn of(team: &Team) -> Self {
        let files = tempfile::tempdir().unwrap();
        support::copy_tree(&team.public(), files.path());
        Self { files }
    }

    fn address(&self) -> String {
        format!("file://{}", self.files.path().display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join("metadata").join(name)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut document = support::json(&fs::read(self.path(name)).unwrap());
        change(&mut document);
        fs::write(self.path(name), serde_json::to_vec(&document).unwrap()).unwrap();
    }
}

/// A repository with a manifest, a later root, and a host that knows the first root only.
fn team() -> Team {
    let team = Team::founded();
    let add = Rotation { add: vec![key(4).public()], ..Rotation::default() };
    team.repository().rotate("root", &add, now()).unwrap();
    team.add("greet", 1, b"one");
    team.signed_and_published(now());
    team
}

/// All that a host does with a repository, to the payload.
fn everything(host: &Host, place: &str) -> Result<(), ClientError> {
    let mut client = host.refresh(&[place], now())?;
    client.catalogue()?;
    for path in ["greet/1/manifest.json", "greet/1/fix.ko"] {
        let target = client.target(path)?;
        client.read(&target, 1 << 20)?;
    }
    Ok(())
}

fn refused(host: &Host, place: &str) -> String {
    let error = everything(host, place).expect_err("it was believed");
    system::error::causes(&error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The files that a host without any knowledge reads.
const READ: [&str; 5] = ["2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json", "2.m1.json"];

#[test]
fn every_byte_of_each_metadata_file_flipped() {
    let team = team();
    let host = Host::new(&team);
    let forgetful = Store::writing(host.files.path(), Arc::new(|_: &Path, _: &[u8]| Ok(())));
    for name in READ {
        assert!(team.names().contains(&name.to_owned()), "{name} of {:?}", team.names());
        let mirror = Mirror::of(&team);
        let honest = fs::read(mirror.path(name)).unwrap();
        let mut accepted = Vec::new();
        for at in 0..honest.len() {
            let mut lie = honest.clone();
            lie[at] ^= 1 << (at % 8);
            fs::write(mirror.path(name), &lie).unwrap();
            let learnt = host.refresh_keeping(&forgetful, &[&mirror.address()], now());
            let learnt = match name {
                "2.m1.json" => learnt.and_then(|mut client| client.catalogue().map(drop)),
                _ => learnt.map(drop),
            };
            if learnt.is_ok() {
                accepted.push(at);
            }
        }
        // JSON may say the same with other bytes only where nothing is signed by digest: in the names of signatures
        // that are not needed, of which there are none here.
        assert_eq!(accepted, [0_usize; 0], "{name}: {}", String::from_utf8_lossy(&honest));
    }
}

/// What a liar does to a document.
type Change = fn(&mut Value);

#[test]
fn signatures_stripped_duplicated_or_of_others() {
    let team = team();
    let lies: [(&str, Change); 4] = [
        ("all stripped", |document| document["signatures"] = json!([])),
        ("one stripped", |document| drop(document["signatures"].as_array_mut().unwrap().pop())),
        ("one twice in place of two", |document| {
            let signatures = document["signatures"].as_array_mut().unwrap();
            signatures.truncate(1);
            signatures.push(signatures[0].clone());
        }),
        ("under another key's id", |document| {
            let signatures = document["signatures"].as_array_mut().unwrap();
            let id = signatures.last().unwrap()["keyid"].clone();
            signatures[0]["keyid"] = id;
        }),
    ];
    for name in ["2.root.json", "timestamp.json"] {
        for (lie, change) in lies {
            // A timestamp has one signature; one that stands twice is refused, too.
            let mirror = Mirror::of(&team);
            mirror.change(name, change);
            let changed = fs::read(mirror.path(name)).unwrap()
                != fs::read(team.public().join("metadata").join(name)).unwrap();
            if changed {
                refused(&Host::new(&team), &mirror.address());
            } else {
                assert!(name == "timestamp.json" && lie == "under another key's id", "{name}: {lie}");
            }
        }
    }
}

#[test]
fn signatures_reordered_is_no_lie_where_nobody_pins_the_bytes_and_is_one_where_somebody_does() {
    let team = team();
    let mirror = Mirror::of(&team);
    mirror.change("2.root.json", |root| root["signatures"].as_array_mut().unwrap().reverse());
    everything(&Host::new(&team), &mirror.address()).unwrap();
    mirror.change("2.m1.json", |role| role["signatures"].as_array_mut().unwrap().reverse());
    assert!(refused(&Host::new(&team), &mirror.address()).contains("sha256 mismatch"));
}

/// Signs a document as its makers would.
fn resign(document: &mut Value, seeds: &[u8]) {
    let bytes = sigstore_tuf::canonical_json::to_canonical_bytes(&document["signed"]).unwrap();
    let signatures: Vec<Value> = seeds
        .iter()
        .map(|seed| json!({ "keyid": tuf_id(*seed), "sig": hex::encode(key(*seed).sign(&bytes)) }))
        .collect();
    document["signatures"] = Value::Array(signatures);
}

fn tuf_key(seed: u8) -> Value {
    let public = hex::encode(key(seed).public().as_bytes());
    json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public } })
}

fn tuf_id(seed: u8) -> String {
    manifests::Sha256::of(&sigstore_tuf::canonical_json::to_canonical_bytes(&tuf_key(seed)).unwrap())
        .to_string()
}

#[test]
fn one_key_under_two_ids_to_reach_a_threshold() {
    let team = team();
    let mirror = Mirror::of(&team);
    // A root that people signed in good faith; whoever has key 50 then signs alone for two.
    let mut root = support::json(&fs::read(mirror.path("2.root.json")).unwrap());
    root["signed"]["version"] = json!(3);
    root["signed"]["keys"][tuf_id(50)] = tuf_key(50);
    root["signed"]["keys"]["another-name"] = tuf_key(50);
    root["signed"]["roles"]["timestamp"] = json!({ "keyids": [tuf_id(50), "another-name"], "threshold": 2 });
    resign(&mut root, &[1, 2]);
    fs::write(mirror.path("3.root.json"), serde_json::to_vec(&root).unwrap()).unwrap();
    let words = refused(&Host::new(&team), &mirror.address());
    assert!(words.contains("expected each key once"), "{words}");
}

#[test]
fn key_in_two_roles() {
    let directory = tempfile::tempdir().unwrap();
    let mut founders = support::founders();
    founders.online.keys = vec![key(support::TARGETS[0]).public()];
    let path = directory.path().join("repo");
    let error = repository::authoring::Repository::init(&path, &founders, now()).unwrap_err();
    assert!(error.to_string().contains("is a key of targets and of snapshot"), "{error}");
    // And of a document: the root's key is none of the timestamp.
    let team = team();
    let mirror = Mirror::of(&team);
    mirror.change("timestamp.json", |timestamp| resign(timestamp, &[1]));
    assert!(refused(&Host::new(&team), &mirror.address()).contains("timestamp"));
}

#[test]
fn a_threshold_of_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for threshold in [0, 4] {
        let mut founders = support::founders();
        founders.root.threshold = threshold;
        let path = directory.path().join("repo");
        assert!(repository::authoring::Repository::init(&path, &founders, now()).is_err(), "{threshold}");
    }
}

#[test]
fn repository_rolled_back() {
    let team = team();
    let old = Mirror::of(&team);
    team.add("greet", 2, b"two");
    team.signed_and_published(now());
    let host = Host::new(&team);
    everything(&host, &team.address()).unwrap();
    let Err(ClientError::Refresh { places }) = host.refresh(&[&old.address()], now()) else {
        panic!("believed")
    };
    assert!(places[0].1.is_rollback(), "{}", places[0].1);
    // Expired floors are floors.
    team.repository().refresh(&[key(ONLINE)], now()).unwrap();
    assert!(host.refresh(&[&old.address()], now() + days(6)).is_err());
}

#[test]
fn repository_mixed() {
    let team = team();
    let old = Mirror::of(&team);
    team.add("greet", 2, b"two");
    team.signed_and_published(now());
    // A new timestamp over an old snapshot, a new snapshot over old roles.
    for (lie, name) in [("snapshot", "3.snapshot.json"), ("role", "3.m1.json")] {
        let mirror = Mirror::of(&team);
        let before = if lie == "snapshot" { "2.snapshot.json" } else { "2.m1.json" };
        fs::copy(old.path(before), mirror.path(name)).unwrap();
        refused(&Host::new(&team), &mirror.address());
    }
}

#[test]
fn repository_frozen() {
    let team = team();
    let host = Host::new(&team);
    let frozen = Mirror::of(&team);
    everything(&host, &frozen.address()).unwrap();
    let week = now() + days(7);
    let Err(ClientError::Refresh { places }) = host.refresh(&[&frozen.address()], week) else {
        panic!("believed")
    };
    assert!(places[0].1.is_expiry());
}

#[test]
fn half_updated_mirror() {
    let team = team();
    let mirror = Mirror::of(&team);
    team.add("greet", 2, b"two");
    team.signed_and_published(now());
    // It got the timestamp and not yet what that speaks of.
    fs::copy(team.public().join("metadata/timestamp.json"), mirror.path("timestamp.json")).unwrap();
    let host = Host::new(&team);
    assert!(refused(&host, &mirror.address()).contains("not found"));
    // The next place has all of it.
    let mut client = host.refresh(&[&mirror.address(), &team.address()], now()).unwrap();
    assert_eq!(client.catalogue().unwrap().len(), 2);
}

#[test]
fn target_with_other_bytes() {
    let team = team();
    let mirror = Mirror::of(&team);
    let directory = mirror.files.path().join("targets/greet/1");
    for lie in [&b"two"[..], b"on", b"onee", b""] {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            if entry.file_name().to_string_lossy().ends_with("fix.ko") {
                fs::write(entry.path(), lie).unwrap();
            }
        }
        refused(&Host::new(&team), &mirror.address());
    }
}

#[test]
fn target_names_that_climb_out() {
    let team = team();
    let mirror = Mirror::of(&team);
    fs::write(mirror.files.path().join("secret"), "one").unwrap();
    // The people themselves list it.
    let path = "greet/1/../../../secret";
    for name in [path, "../../secret", "/etc/passwd", "\n../secret", "a/\t../../../secret"] {
        let mut role = support::json(&fs::read(mirror.path("2.m1.json")).unwrap());
        let digest = manifests::Sha256::of(b"one").to_string();
        role["signed"]["targets"][name] = json!({ "length": 3, "hashes": { "sha256": digest } });
        resign(&mut role, &support::TARGETS);
        let bytes = serde_json::to_vec(&role).unwrap();
        let mut snapshot = support::json(&fs::read(mirror.path("2.snapshot.json")).unwrap());
        snapshot["signed"]["meta"]["m1.json"] = pin(2, &bytes);
        resign(&mut snapshot, &[ONLINE]);
        let snapshot = serde_json::to_vec(&snapshot).unwrap();
        let mut timestamp = support::json(&fs::read(mirror.path("timestamp.json")).unwrap());
        timestamp["signed"]["meta"]["snapshot.json"] = pin(2, &snapshot);
        resign(&mut timestamp, &[ONLINE]);
        let lies = tempfile::tempdir().unwrap();
        support::copy_tree(mirror.files.path(), lies.path());
        let write =
            |name: &str, bytes: &[u8]| fs::write(lies.path().join("metadata").join(name), bytes).unwrap();
        write("2.m1.json", &bytes);
        write("2.snapshot.json", &snapshot);
        write("timestamp.json", &serde_json::to_vec(&timestamp).unwrap());
        let host = Host::new(&team);
        let mut client = host.refresh(&[&format!("file://{}", lies.path().display())], now()).unwrap();
        assert_eq!(client.catalogue().unwrap().len(), 1, "no name of a manifest");
        match client.target(name) {
            Err(ClientError::NoSuchTarget { .. }) => {}
            Ok(target) => assert!(client.read(&target, 100).is_err(), "{name} was read from outside"),
            Err(other) => panic!("{other}"),
        }
    }
}

fn pin(version: u64, bytes: &[u8]) -> Value {
    let digest = manifests::Sha256::of(bytes).to_string();
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": digest } })
}

#[test]
fn a_role_that_lists_names_of_others() {
    let team = Team::founded();
    let holders = repository::authoring::draft::Holders { keys: vec![key(61).public()], threshold: 1 };
    team.add("greet", 1, b"one");
    let role = team.repository().delegate("kernel-", &holders, now()).unwrap();
    team.repository().sign(&key(61)).unwrap();
    team.signed_and_published(now());
    // Who holds kernel- lists a manifest of another name.
    let name = format!("1.{role}.json");
    let mirror = Mirror::of(&team);
    let mut document = support::json(&fs::read(mirror.path(&name)).unwrap());
    for lie in ["greet/9/manifest.json", "kernel-x/1/manifest.json"] {
        let digest = manifests::Sha256::of(b"x").to_string();
        document["signed"]["targets"][lie] = json!({ "length": 1, "hashes": { "sha256": digest } });
    }
    resign(&mut document, &[61]);
    let bytes = serde_json::to_vec(&document).unwrap();
    fs::write(mirror.path(&name), &bytes).unwrap();
    mirror.change("2.snapshot.json", |snapshot| {
        snapshot["signed"]["meta"][format!("{role}.json")] = pin(1, &bytes);
        resign(snapshot, &[ONLINE]);
    });
    let snapshot = fs::read(mirror.path("2.snapshot.json")).unwrap();
    mirror.change("timestamp.json", |timestamp| {
        timestamp["signed"]["meta"]["snapshot.json"] = pin(2, &snapshot);
        resign(timestamp, &[ONLINE]);
    });
    let mut client = Host::new(&team).refresh(&[&mirror.address()], now()).unwrap();
    let names: Vec<String> =
        client.catalogue().unwrap().iter().map(|entry| format!("{}@{}", entry.name, entry.version)).collect();
    assert_eq!(names, ["greet@1", "kernel-x@1"]);
    assert!(matches!(client.target("greet/9/manifest.json"), Err(ClientError::NoSuchTarget { .. })));
}

fn http(silence: Duration) -> Arc<Http> {
    Arc::new(Http::new(&Options { silence, proxy: None, authorities: None }).unwrap())
}

/// A host that speaks HTTP. Patient, since the machine that tests may be busy.
fn online(team: &Team) -> Host {
    let mut host = Host::new(team);
    host.transport = http(Duration::from_secs(60));
    host
}

/// The same with little patience.
fn impatient(team: &Team) -> Host {
    let mut host = Host::new(team);
    host.transport = http(Duration::from_secs(1));
    host.patience = Patience { silence: Duration::from_secs(1), slowest: 1000 };
    host
}

fn lying(team: &Team, file: &'static str, reply: Reply) -> Server {
    Server::new(team.public(), move |path, _| match path.ends_with(file) {
        true => reply.clone(),
        false => Reply::Honest,
    })
}

#[test]
fn an_honest_server_is_no_liar() {
    let team = team();
    let server = Server::honest(team.public());
    everything(&online(&team), &server.address).unwrap();
}

#[test]
fn endless_data() {
    let team = team();
    for file in
        ["/2.root.json", "/timestamp.json", "/2.snapshot.json", "/1.targets.json", "/2.m1.json", ".fix.ko"]
    {
        let server = lying(&team, file, Reply::Endless);
        let words = refused(&online(&team), &server.address);
        assert!(words.contains("bytes, found more"), "{file}: {words}");
    }
}

#[test]
fn slow_data() {
    let team = team();
    for (file, reply) in [
        ("/timestamp.json", Reply::Drip(Duration::from_millis(20))),
        ("/2.snapshot.json", Reply::Silent),
        ("/2.m1.json", Reply::Drip(Duration::from_secs(10))),
    ] {
        let server = lying(&team, file, reply);
        let words = refused(&impatient(&team), &server.address);
        assert!(
            ["bytes a second", "fell silent", "does not answer", "timed out"]
                .iter()
                .any(|word| words.contains(word)),
            "{file}: {words}"
        );
    }
}

#[test]
fn redirects_elsewhere() {
    let team = team();
    let elsewhere = Server::honest(team.public());
    let secret = format!("file://{}", team.public().join("metadata/timestamp.json").display());
    let targets = [
        format!("{}/metadata/timestamp.json", elsewhere.address),
        secret,
        "//127.0.0.2/metadata/timestamp.json".to_owned(),
        "https://127.0.0.1/".to_owned(),
    ];
    for to in targets {
        let server = lying(&team, "/timestamp.json", Reply::Redirect(to.clone()));
        let words = refused(&online(&team), &server.address);
        assert!(
            words.contains("redirects to") && words.contains("expected the same server"),
            "{to}: {words}"
        );
    }
    assert!(elsewhere.requests.lock().unwrap().is_empty(), "nobody went there");
    // Within the server it is one of its own affairs; round and round it is not.
    let moved = lying(
        &team,
        "/timestamp.json",
        Reply::Redirect("/metadata/../metadata/./timestamp.json?again".to_owned()),
    );
    everything(&online(&team), &moved.address).unwrap();
    let round = lying(&team, "/timestamp.json", Reply::Redirect("/metadata/timestamp.json".to_owned()));
    assert!(refused(&online(&team), &round.address).contains("on and on"));
}

#[test]
fn errors_in_place_of_files() {
    let team = team();
    for status in [400, 401, 500, 503, 204, 304] {
        let server = lying(&team, "/timestamp.json", Reply::Status(status));
        assert!(refused(&online(&team), &server.address).contains(&format!("status {status}")), "{status}");
    }
    let gone = lying(&team, "/timestamp.json", Reply::Status(404));
    assert!(refused(&online(&team), &gone.address).contains("timestamp.json not found"));
}

#[test]
fn connections_cut_in_the_middle() {
    let team = team();
    for file in ["/2.root.json", "/timestamp.json", "/2.m1.json", ".manifest.json", ".fix.ko"] {
        let server = lying(&team, file, Reply::Cut(2));
        refused(&online(&team), &server.address);
    }
}

#[test]
fn another_part_of_a_file_than_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "0123456789").unwrap();
    let from = |reply: Reply| {
        let server = Server::new(directory.path().to_owned(), move |_, _| reply.clone());
        let url = format!("{}/file", server.address).parse().unwrap();
        http(Duration::from_secs(1)).open(&url, 4)
    };
    let body = |found: Result<Option<repository::transport::Body>, FetchError>| {
        let mut text = String::new();
        let body = found.unwrap().unwrap();
        std::io::Read::read_to_string(&mut { body.bytes }, &mut text).unwrap();
        (body.from, text)
    };
    assert_eq!(body(from(Reply::Honest)), (4, "456789".to_owned()));
    assert_eq!(body(from(Reply::Whole)), (0, "0123456789".to_owned()), "a server without ranges");
    assert!(matches!(from(Reply::AnotherPart), Err(FetchError::Range { expected: 4, .. })));
}

#[test]
fn the_helper_tells_the_same_as_the_transport_itself() {
    let team = team();
    let server = Server::honest(team.public());
    let helper = |program: &Path| {
        Arc::new(repository::transport::helper::Helper(repository::transport::helper::Network {
            program: program.to_owned(),
            proxy: None,
            authorities: None,
            patience: Patience { silence: Duration::from_secs(3), slowest: 1000 },
        }))
    };
    // It runs as nobody, who need not be able to reach the place where it was built.
    let installed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(installed.path(), Permissions::from_mode(0o755)).unwrap();
    let program = &installed.path().join("update-transport");
    std::fs::copy(env!("CARGO_BIN_EXE_update-transport"), program).unwrap();
    let mut host = online(&team);
    host.transport = helper(program);
    everything(&host, &server.address).unwrap();
    // Lies reach us as words, not as bytes.
    let lies = [
        (Reply::Endless, "bytes, found more"),
        (Reply::Redirect("http://127.0.0.2/".to_owned()), "expected the same server"),
        (Reply::Silent, "timed out"),
        (Reply::Status(500), "status 500"),
        (Reply::Cut(3), "cannot fetch"),
    ];
    for (lie, word) in lies {
        let server = lying(&team, "/timestamp.json", lie.clone());
        let mut host = online(&team);
        host.transport = helper(program);
        let words = refused(&host, &server.address);
        assert!(words.contains(word), "{lie:?}: {words}");
    }
    // One that is somebody else's program, or none.
    for (program, word) in
        [("/bin/echo", "cannot fetch"), ("/bin/true", "cannot fetch"), ("/nonexistent", "cannot start")]
    {
        let mut host = online(&team);
        host.transport = helper(Path::new(program));
        let words = refused(&host, &server.address);
        assert!(words.contains(word), "{program}: {words}");
    }
}
