//! All of one manifest in one file, and what can be wrong with such a file.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use manifests::Sha256;
use repository::bundle::archive::ArchiveError;
use repository::bundle::create::{Along, CreateError, create};
use repository::bundle::{Bundle, BundleError};
use repository::client::{Client, ClientError};
use repository::log::{Files as _, Log};
use repository::store::Store;
use repository::transport::Patience;
use repository::transport::file::Files;
use repository::transport::mirrors::{Mirror, Mirrors};
use support::{Team, key, now};
use system::clock::SystemClock;

fn mirrors(team: &Team) -> Mirrors {
    let mirror = Mirror::parse(&team.address()).unwrap();
    Mirrors::new(vec![mirror], Arc::new(Files), Patience::default(), Arc::new(SystemClock))
}

/// A repository with a log, and a bundle of `greet@2` of it.
fn made() -> (Team, PathBuf) {
    let team = Team::founded();
    Log::init(&team.repository().log(), "updates.example.org/log".parse().unwrap(), &key(41)).unwrap();
    team.add("greet", 1, b"one");
    team.add("greet", 2, b"two, which is longer");
    team.signed();
    team.repository().publish_logged(&[key(support::ONLINE)], Some(&key(41)), now()).unwrap();
    let out = team.files.path().join("greet.upd");
    let along = Along { policy: Some(b"{}".to_vec()), revocations: vec![b"{\"a\":1}".to_vec()] };
    let created =
        create(&out, &team.root(), &mirrors(&team), (&"greet".parse().unwrap(), None), &along, now())
            .unwrap();
    assert_eq!((created.head.version, created.logged, created.payloads), (2, true, 1));
    (team, out)
}

fn client(bundle: &Bundle, root: &[u8], store: &Path) -> Result<Client, ClientError> {
    let places = Mirrors::new(
        vec![Bundle::place()],
        Arc::new(bundle.clone()),
        Patience::default(),
        Arc::new(SystemClock),
    );
    Client::refresh(root, &places, &Store::new(store), now())
}

#[test]
fn a_client_reads_a_bundle_as_it_reads_the_repository_that_it_is_of() {
    let (team, path) = made();
    assert!(Bundle::is_meant(&path));
    let bundle = Bundle::open(&path).unwrap();
    let store = tempfile::tempdir().unwrap();
    let mut client = client(&bundle, &team.root(), store.path()).unwrap();
    let listed = client.target("greet/2/manifest.json").unwrap();
    assert_eq!(client.read(&listed, 1 << 20).unwrap(), bundle.envelope().unwrap());
    let payload = client.target("greet/2/fix.ko").unwrap();
    assert_eq!(client.read(&payload, 1 << 20).unwrap(), b"two, which is longer");
    assert_eq!(bundle.policy().unwrap().unwrap(), b"{}");
    assert_eq!(bundle.revocations().unwrap(), [b"{\"a\":1}".to_vec()]);
    assert!(bundle.read("checkpoint", 1 << 16).unwrap().is_some());
    assert!(bundle.members().any(|(name, _)| name.starts_with("log/proof/")));
    // What was not taken along is listed, and not there.
    let other = client.target("greet/1/fix.ko").unwrap();
    assert!(client.read(&other, 1 << 20).is_err());
    // A bundle is made as a whole or not at all.
    let nowhere = team.files.path().join("none.upd");
    let made = create(
        &nowhere,
        &team.root(),
        &mirrors(&team),
        (&"greet".parse().unwrap(), Some(9)),
        &Along::default(),
        now(),
    );
    assert!(matches!(made, Err(CreateError::NoSuchManifest { .. })) && !nowhere.exists());
    fs::write(
        team.public().join(format!("targets/greet/2/{}.fix.ko", Sha256::of(b"two, which is longer"))),
        "two, which is LONGER",
    )
    .unwrap();
    let changed = create(
        &nowhere,
        &team.root(),
        &mirrors(&team),
        (&"greet".parse().unwrap(), None),
        &Along::default(),
        now(),
    );
    assert!(matches!(changed, Err(CreateError::Payload { .. })) && !nowhere.exists());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
fn another_program_unpacks_it_and_every_target_has_the_digest_that_is_its_name() {
    let (_team, path) = made();
    let into = tempfile::tempdir().unwrap();
    let output = Command::new("tar").arg("xf").arg(&path).arg("-C").arg(into.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut targets = 0;
    for entry in fs::read_dir(into.path().join("targets")).unwrap() {
        let entry = entry.unwrap();
        let digest = Sha256::of(&fs::read(entry.path()).unwrap());
        assert_eq!(entry.file_name().to_str().unwrap(), digest.to_string());
        targets += 1;
    }
    assert_eq!(targets, 2);
}

#[test]
fn a_bundle_of_another_repository_is_refused_by_the_root_that_a_host_pins() {
    let (_team, path) = made();
    let stranger = Team { files: tempfile::tempdir().unwrap() };
    let holders =
        |seed| repository::authoring::draft::Holders { keys: vec![key(seed).public()], threshold: 1 };
    let founders = repository::authoring::draft::Founders {
        root: holders(91),
        targets: holders(92),
        online: holders(93),
    };
    let repository = repository::authoring::Repository::init(&stranger.path(), &founders, now()).unwrap();
    repository.sign(&key(91)).unwrap();
    repository.sign(&key(92)).unwrap();
    repository.publish(&[key(93)], now()).unwrap();
    let store = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&path).unwrap();
    assert!(matches!(client(&bundle, &stranger.root(), store.path()), Err(ClientError::Refresh { .. })));
}

fn open(bytes: &[u8]) -> Result<Bundle, BundleError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.upd");
    fs::write(&path, bytes).unwrap();
    Bundle::open(&path)
}

fn archive(bytes: &[u8]) -> ArchiveError {
    match open(bytes) {
        Err(BundleError::Archive { source, .. }) => source,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// Where each header begins.
fn headers(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (0, Vec::new());
    while bytes[at] != 0 {
        found.push(at);
        let size = std::str::from_utf8(&bytes[at + 124..at + 135]).unwrap();
        at += 512 + usize::from_str_radix(size, 8).unwrap().next_multiple_of(512);
    }
    found
}

/// A header with a right checksum, for names and sizes that nobody should write.
fn header(name: &[u8], size: &[u8], kind: u8) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..124].copy_from_slice(b"0000644\x000000000\x000000000\x00");
    header[124..124 + size.len()].copy_from_slice(size);
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn a_file_that_is_not_whole_or_says_two_things_is_no_bundle() {
    let (_team, path) = made();
    let whole = fs::read(&path).unwrap();
    open(&whole).unwrap();
    let headers = headers(&whole);
    for end in [0, 1, 511, 512, 1024, whole.len() / 2, whole.len() - 1024, whole.len() - 512, whole.len() - 1]
    {
        let cut = &whole[..end];
        assert!(matches!(archive(cut), ArchiveError::Truncated { .. }), "cut at {end}: {}", archive(cut));
    }
    for more in [&b"x"[..], &[0; 512], &whole] {
        let longer = [&whole, more].concat();
        assert!(matches!(archive(&longer), ArchiveError::Trailing { .. }), "{} more", more.len());
    }
    let (one, two) = (headers[1], headers[2]);
    let twice = [&whole[..two], &whole[one..two], &whole[two..]].concat();
    assert!(matches!(archive(&twice), ArchiveError::Twice { .. }));
    let insert = |header: Vec<u8>| [&whole[..one], &header, &whole[one..]].concat();
    for name in [
        "../x",
        "/etc/passwd",
        "metadata/../x.json",
        "targets/../../x",
        "log/tile/../x",
        "log/tile//x",
        "x",
        "metadata/x",
        "targets/abc",
        "bundle.json/x",
        "log/tile/.x",
        "revocations/",
    ] {
        let found = archive(&insert(header(name.as_bytes(), b"00000000000\0", b'0')));
        assert!(matches!(found, ArchiveError::Name { .. }), "{name}: {found}");
    }
    // Links, directories, other spellings of a size, names that are not text.
    for (name, size, kind) in [
        (&b"policy.json"[..], &b"00000000000\0"[..], b'2'),
        (b"metadata", b"00000000000\0", b'5'),
        (b"metadata/x.json", b"0000000000 \0", b'0'),
        (b"metadata/x.json", b"\x80\0\0\0\0\0\0\0\0\0\0\0", b'0'),
        (b"metadata/\xff.json", b"00000000000\0", b'0'),
        (b"metadata/x.json", b"00000000000\0", b'x'),
    ] {
        assert!(
            matches!(archive(&insert(header(name, size, kind))), ArchiveError::Header { .. }),
            "{name:?} {kind}"
        );
    }
    let huge = archive(&insert(header(b"metadata/x.json", b"00100000000\0", b'0')));
    assert!(matches!(huge, ArchiveError::TooLarge { .. }), "{huge}");
    let endless =
        archive(&insert(header(format!("targets/{}", Sha256::of(b"x")).as_bytes(), b"77777777777\0", b'0')));
    assert!(matches!(endless, ArchiveError::Truncated { .. }), "{endless}");
    let mut padded = whole.clone();
    padded[one - 1] = 1;
    assert!(matches!(archive(&padded), ArchiveError::Padding { .. }));
    let mut other = whole.clone();
    other[100] = b'7';
    assert!(matches!(archive(&other), ArchiveError::Header { at: 0 }));
    // The first member says what it is.
    assert!(matches!(open(&whole[one..]), Err(BundleError::Lacks { .. })));
    let later = String::from_utf8_lossy(&whole[512..one]).replace("\"bundle\":1", "\"bundle\":2");
    let later = [&whole[..512], later.as_bytes(), &whole[one..]].concat();
    assert!(matches!(open(&later), Err(BundleError::Format { found: 2, .. })));
    let changed = String::from_utf8_lossy(&whole[512..one]).replace("\"version\"", "\"versiom\"");
    let changed = [&whole[..512], changed.as_bytes(), &whole[one..]].concat();
    assert!(matches!(open(&changed), Err(BundleError::Head { .. })));
    // Every bit of every header matters.
    for at in headers {
        for byte in [0, 99, 100, 110, 124, 140, 150, 156, 157, 256, 257, 300, 345, 511] {
            let mut flipped = whole.clone();
            flipped[at + byte] ^= 0x20;
            assert!(open(&flipped).is_err(), "byte {byte} of the header at {at}");
        }
    }
}
