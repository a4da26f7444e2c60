//! What a host learns of an honest repository, and what it keeps of it.

mod support;

use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use repository::client::ClientError;
use repository::client::catalogue;
use repository::store::Store;
use repository::transport::mirrors::{Mirror, Mirrors};
use support::{Host, ONLINE, Team, days, key, now, signed_version};
use system::clock::SystemClock;

#[test]
fn a_host_finds_manifests_by_name_takes_them_by_their_digests_and_fetches_nothing_twice() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    team.add("greet", 2, b"two");
    team.add("other", 7, b"seven");
    team.signed_and_published(now());
    let host = Host::new(&team);
    let mut client = host.refresh(&[&team.address()], now()).unwrap();
    let found: Vec<(String, u64)> = client
        .catalogue()
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name.to_string(), entry.version))
        .collect();
    assert_eq!(found, [("greet".to_owned(), 1), ("greet".to_owned(), 2), ("other".to_owned(), 7)]);
    let greet = "greet".parse().unwrap();
    let versions = client.versions(&greet).unwrap();
    assert_eq!(versions.len(), 2);
    let note = versions[1].note.as_ref().unwrap();
    assert_eq!((note.issued.to_string().as_str(), note.kernels.len()), ("2026-11-01T00:00:00Z", 1));
    let target = client.target(&catalogue::path(&greet, 2, "fix.ko")).unwrap();
    assert_eq!(client.read(&target, 100).unwrap(), b"two");
    assert!(matches!(client.target("greet/3/manifest.json"), Err(ClientError::NoSuchTarget { .. })));
    assert!(client.fetched() > 1000);

    // The next day, nothing is new.
    let mut client = host.refresh(&[&team.address()], now()).unwrap();
    assert_eq!(client.catalogue().unwrap().len(), 3);
    let timestamp = std::fs::metadata(team.public().join("metadata/timestamp.json")).unwrap().len();
    assert_eq!(client.fetched(), timestamp, "the timestamp, and nothing that is known");
}

#[test]
fn a_root_that_changed_twice_is_followed_from_the_pinned_one() {
    let team = Team::founded();
    for seed in [4, 5] {
        let add =
            repository::authoring::draft::Rotation { add: vec![key(seed).public()], ..Default::default() };
        team.repository().rotate("root", &add, now()).unwrap();
        team.signed_and_published(now());
    }
    let host = Host::new(&team);
    let client = host.refresh(&[&team.address()], now()).unwrap();
    assert_eq!(client.trusted().root().version, 3);
    // A host that knew the second already needs the third only, and a pinned root is where it begins anew.
    assert_eq!(host.refresh(&[&team.address()], now()).unwrap().trusted().root().version, 3);
    assert_eq!(signed_version(&host.kept()["root_history/2.root.json"]), 2);
}

#[test]
fn a_power_cut_at_any_write_leaves_whole_files_and_no_older_floor() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    team.signed_and_published(now());
    let before = Host::new(&team);
    before.refresh(&[&team.address()], now()).unwrap().catalogue().unwrap();
    let old = before.kept();
    // Everything changes, so that everything is written.
    let add = repository::authoring::draft::Rotation { add: vec![key(4).public()], ..Default::default() };
    team.repository().rotate("root", &add, now()).unwrap();
    team.repository().rotate("targets", &Default::default(), now()).unwrap();
    team.add("greet", 2, b"two");
    team.signed_and_published(now());
    let mut cuts = 0;
    for kind in [Cut::Before, Cut::Within, Cut::After] {
        for at in 1.. {
            let host = Host::new(&team);
            for (name, bytes) in &old {
                let path = host.files.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let disk = Arc::new(Disk { writes: AtomicUsize::new(0), at, kind });
            let writing = disk.clone();
            let store =
                Store::writing(host.files.path(), Arc::new(move |path, bytes| writing.write(path, bytes)));
            let outcome = host.refresh_keeping(&store, &[&team.address()], now());
            let outcome = outcome.and_then(|mut client| client.catalogue());
            if disk.writes.load(Ordering::SeqCst) < at {
                assert_eq!(outcome.unwrap().len(), 2, "without a cut");
                break;
            }
            cuts += 1;
            if !matches!(kind, Cut::After) {
                assert!(outcome.is_err(), "what was not kept is acted upon: {kind:?} {at}");
            }
            for (name, bytes) in host.kept() {
                if name.rsplit('/').next().unwrap().starts_with(".incoming-") {
                    continue;
                }
                let version = signed_version(&bytes);
                let floor = old.get(&name).map_or(0, |old| signed_version(old));
                assert!(version >= floor, "{name} went back");
            }
            // The next boot.
            let mut client = host.refresh(&[&team.address()], now()).unwrap();
            assert_eq!(client.catalogue().unwrap().len(), 2, "{kind:?} {at}");
        }
    }
    assert!(cuts >= 15, "only {cuts} cuts: every file was to change");
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Before,
    Within,
    After,
}

/// A disk without power from its n-th write on.
struct Disk {
    writes: AtomicUsize,
    at: usize,
    kind: Cut,
}

impl Disk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let count = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let off = || Err(io::Error::other("the power is off"));
        if count < self.at {
            return system::durable::replace(path, bytes);
        }
        match (count == self.at, self.kind) {
            (true, Cut::Within) => {
                // What `durable` leaves before its rename.
                std::fs::write(path.with_file_name(".incoming-half"), &bytes[..bytes.len() / 2])?;
                off()
            }
            (true, Cut::After) => {
                system::durable::replace(path, bytes)?;
                off()
            }
            _ => off(),
        }
    }
}

#[test]
fn a_full_disk_stops_a_refresh_instead_of_letting_it_forget() {
    let team = Team::founded();
    let host = Host::new(&team);
    let full = |_: &Path, _: &[u8]| Err(io::ErrorKind::StorageFull.into());
    let store = Store::writing(host.files.path(), Arc::new(full));
    let error = host.refresh_keeping(&store, &[&team.address()], now()).unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error}");
}

#[test]
fn an_expired_repository_is_told_as_such_and_what_is_kept_stays() {
    let team = Team::founded();
    let host = Host::new(&team);
    host.refresh(&[&team.address()], now()).unwrap();
    let kept = host.kept();
    let late = now() + days(8);
    let Err(ClientError::Refresh { places }) = host.refresh(&[&team.address()], late) else {
        panic!("accepted")
    };
    assert!(places[0].1.is_expiry(), "{}", places[0].1);
    assert_eq!(host.kept(), kept);
    team.repository().refresh(&[key(ONLINE)], late).unwrap();
    host.refresh(&[&team.address()], late).unwrap();
}

/// Fails in the middle of files.
struct Unreliable(Mutex<u32>);

impl repository::transport::Transport for Unreliable {
    fn open(
        &self,
        url: &url::Url,
        from: u64,
    ) -> Result<Option<repository::transport::Body>, repository::transport::FetchError> {
        let body = repository::transport::file::Files.open(url, from)?;
        let mut times = self.0.lock().unwrap();
        *times += 1;
        Ok(body.map(|body| repository::transport::Body {
            from: body.from,
            bytes: if *times < 4 { Box::new(body.bytes.take(10)) } else { body.bytes },
        }))
    }
}

#[test]
fn a_target_goes_on_where_it_stopped_at_the_next_place() {
    let team = Team::founded();
    let payload: Vec<u8> = (0..100).collect();
    team.add("greet", 1, &payload);
    team.signed_and_published(now());
    let host = Host::new(&team);
    let mut client = host.refresh(&[&team.address()], now()).unwrap();
    let target = client.target("greet/1/fix.ko").unwrap();
    let places = vec![Mirror::parse(&team.address()).unwrap(); 4];
    let place = format!("greet/1/{}.fix.ko", target.sha256().unwrap());
    let transport = Arc::new(Unreliable(Mutex::new(0)));
    let mirrors = Mirrors::new(places, transport, Default::default(), Arc::new(SystemClock));
    let mut bytes = Vec::new();
    mirrors.target(&place, 0, 100).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, payload);
    // Three are too few.
    let transport = Arc::new(Unreliable(Mutex::new(0)));
    let places = vec![Mirror::parse(&team.address()).unwrap(); 3];
    let mirrors = Mirrors::new(places, transport, Default::default(), Arc::new(SystemClock));
    let error = mirrors.target(&place, 0, 100).unwrap().unwrap().read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("expected 100 bytes, found 30"), "{error}");
}
