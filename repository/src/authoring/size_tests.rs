//! What a host fetches of a repository with ten thousand manifests.

use std::sync::Arc;

use manifests::{SecretKey, Severity};
use system::clock::{Clock as _, SystemClock};

use super::draft::{Batch, Founders, Holders, listed};
use super::*;
use crate::client::Client;
use crate::client::catalogue::{MANIFEST, Note};
use crate::store::Store;
use crate::transport::Patience;
use crate::transport::file::Files;
use crate::transport::mirrors::{Mirror, Mirrors};

/// The most that a refresh may move, in bytes.
const BUDGET: u64 = 100_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn now() -> Timestamp {
    "2026-11-10T12:00:00Z".parse().unwrap()
}

fn list(batch: &mut Batch<'_>, name: &str) {
    let note = Note {
        severity: Severity::High,
        issued: "2026-11-01T00:00:00Z".parse().unwrap(),
        expires: "2026-12-01T00:00:00Z".parse().unwrap(),
        fixes: vec!["CVE-2026-12345".parse().unwrap()],
        kernels: vec!["6.1.0-50-amd64".parse().unwrap()],
        layers: false,
    };
    let files = vec![
        (MANIFEST.to_owned(), listed(name.as_bytes(), Some(note))),
        ("livepatch-fix.ko".to_owned(), listed(name.as_bytes(), None)),
    ];
    batch.list(name, 1, files).unwrap();
}

fn published(repository: &Repository) {
    repository.sign(&key(1)).unwrap_or_default();
    repository.sign(&key(2)).unwrap();
    repository.publish(&[key(3)], now()).unwrap();
}

struct Desk {
    files: tempfile::TempDir,
}

impl Desk {
    fn founded(names: impl Iterator<Item = String>) -> (Self, Repository) {
        let files = tempfile::tempdir().unwrap();
        let holders = |seed| Holders { keys: vec![key(seed).public()], threshold: 1 };
        let founders = Founders { root: holders(1), targets: holders(2), online: holders(3) };
        let repository = Repository::init(&files.path().join("repo"), &founders, now()).unwrap();
        let mut batch = Batch::new(&repository, now()).unwrap();
        names.for_each(|name| list(&mut batch, &name));
        batch.save().unwrap();
        published(&repository);
        (Self { files }, repository)
    }

    fn client(&self, host: &str) -> Client {
        let address = format!("file://{}", self.files.path().join("repo/public").display());
        let mirrors = Mirrors::new(
            vec![Mirror::parse(&address).unwrap()],
            Arc::new(Files),
            Patience::default(),
            Arc::new(SystemClock),
        );
        let root = std::fs::read(self.files.path().join("repo/public/metadata/1.root.json")).unwrap();
        Client::refresh(&root, &mirrors, &Store::new(&self.files.path().join(host)), now()).unwrap()
    }
}

#[test]
fn with_ten_thousand_manifests_a_refresh_moves_at_most_a_hundred_kilobytes() {
    let (desk, repository) = Desk::founded((0..10_000).map(|n| format!("cve-2026-{n:05}")));
    let served = repository.status(now()).unwrap();
    let roles = served.roles.len() - 4;
    assert_eq!(served.roles.iter().map(|role| role.manifests).sum::<usize>(), 10_000);
    let mut told = vec![format!("{roles} roles")];
    let mut within = |what: &str, bytes: u64| {
        assert!(bytes <= BUDGET, "{what}: {bytes} bytes");
        told.push(format!("{what}: {:.1} KB", bytes as f64 / 1000.0));
    };

    // A host that knows nothing and wants one manifest.
    let mut client = desk.client("new");
    assert_eq!(client.versions(&"cve-2026-04711".parse().unwrap()).unwrap().len(), 1);
    within("a new host, one manifest", client.fetched());
    // One that knows everything.
    let mut client = desk.client("old");
    assert_eq!(client.catalogue().unwrap().len(), 10_000);
    let all = client.fetched();
    let client = desk.client("old");
    within("an old host, nothing new", client.fetched());
    repository.refresh(&[key(3)], now()).unwrap();
    let mut client = desk.client("old");
    assert_eq!(client.catalogue().unwrap().len(), 10_000);
    within("an old host, the daily refresh", client.fetched());

    // New manifests: one, and then as many as it takes to split a role.
    let (mut next, mut at_once) = (10_000, 1);
    loop {
        let before = repository.status(now()).unwrap().roles.len();
        let mut batch = Batch::new(&repository, now()).unwrap();
        for n in next..next + at_once {
            list(&mut batch, &format!("cve-2026-{n:05}"));
        }
        next += at_once;
        batch.save().unwrap();
        published(&repository);
        let mut client = desk.client("old");
        assert_eq!(client.catalogue().unwrap().len(), next);
        let split =
            if repository.status(now()).unwrap().roles.len() > before { ", and a split role" } else { "" };
        within(&format!("an old host, new manifests: {at_once}{split}"), client.fetched());
        if !split.is_empty() {
            break;
        }
        at_once = 20;
    }
    let begun = SystemClock.elapsed();
    desk.client("old");
    let lasted = SystemClock.elapsed() - begun;
    println!("{}; all of it once: {:.1} MB; a refresh lasts {lasted:?}", told.join("; "), all as f64 / 1e6);
}
