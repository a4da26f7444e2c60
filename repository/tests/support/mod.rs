//! A team with a repository, a static web server that can lie, and a host.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use manifests::{Envelope, SecretKey, Sha256, UtcTime};
use repository::authoring::Repository;
use repository::authoring::draft::{Founders, Holders};
use repository::client::{Client, ClientError};
use repository::store::Store;
use repository::transport::mirrors::{Mirror, Mirrors};
use repository::transport::{Patience, Transport};
use system::clock::{Clock as _, SystemClock};

/// Nothing here depends on when it runs.
pub(crate) fn now() -> Timestamp {
    "2026-11-10T12:00:00Z".parse().unwrap()
}

pub(crate) fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

pub(crate) const ROOTS: [u8; 3] = [1, 2, 3];
pub(crate) const TARGETS: [u8; 2] = [11, 12];
pub(crate) const ONLINE: u8 = 21;

/// People with keys, and the directory in which they make a repository.
pub(crate) struct Team {
    pub(crate) files: tempfile::TempDir,
}

impl Team {
    /// A repository that is published: two of three for the root, two of two for what is in it.
    pub(crate) fn founded() -> Self {
        let team = Self { files: tempfile::tempdir().unwrap() };
        Repository::init(&team.path(), &founders(), now()).unwrap();
        team.signed_and_published(now());
        team
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.files.path().join("repo")
    }

    pub(crate) fn public(&self) -> PathBuf {
        self.path().join("public")
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::open(&self.path()).unwrap()
    }

    /// Everybody signs what is theirs.
    pub(crate) fn signed(&self) {
        for seed in ROOTS.into_iter().take(2).chain(TARGETS) {
            // Not everybody has something to sign each time.
            let _ = self.repository().sign(&key(seed));
        }
    }

    pub(crate) fn signed_and_published(&self, now: Timestamp) {
        self.signed();
        self.repository().publish(&[key(ONLINE)], now).unwrap();
    }

    /// A signed manifest with one payload, staged.
    pub(crate) fn add(&self, name: &str, version: u64, payload: &[u8]) {
        let path = self.manifest(name, version, payload);
        self.repository().add(&[path], None, now()).unwrap();
    }

    pub(crate) fn manifest(&self, name: &str, version: u64, payload: &[u8]) -> PathBuf {
        let directory = self.files.path().join(format!("{name}-{version}"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("fix.ko"), payload).unwrap();
        let mut envelope = Envelope::of_manifest(manifest(name, version, payload).into_bytes());
        envelope.sign(&key(31)).unwrap();
        let path = directory.join("m.json");
        fs::write(&path, envelope.to_json()).unwrap();
        path
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        fs::read(self.public().join("metadata/1.root.json")).unwrap()
    }

    /// The address of what is served, on this disk.
    pub(crate) fn address(&self) -> String {
        format!("file://{}", self.public().display())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.public().join("metadata"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn founders() -> Founders {
    let holders = |seeds: &[u8], threshold| Holders {
        keys: seeds.iter().map(|seed| key(*seed).public()).collect(),
        threshold,
    };
    Founders { root: holders(&ROOTS, 2), targets: holders(&TARGETS, 2), online: holders(&[ONLINE], 1) }
}

pub(crate) fn manifest(name: &str, version: u64, payload: &[u8]) -> String {
    format!(
        "schema: 1\nname: {name}\nversion: {version}\nissued: 2026-11-01T00:00:00Z\n\
         expires: 2027-03-01T00:00:00Z\nseverity: high\nsummary: A fix\ntargets:\n  arch: [x86_64]\n  \
         kernels: [6.1.0-50-amd64]\ncomponents:\n  - kind: livepatch\n    module: fix\n    payload:\n      \
         file: fix.ko\n      sha256: {}\n      size: {}\n    kernel: 6.1.0-50-amd64\n    patches:\n      \
         - object: vmlinux\n        functions: [{{name: cmdline_proc_show}}]\n",
        Sha256::of(payload),
        payload.len()
    )
}

/// What a host has: its store, and a transport.
pub(crate) struct Host {
    pub(crate) files: tempfile::TempDir,
    pub(crate) root: Vec<u8>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) patience: Patience,
}

impl Host {
    pub(crate) fn new(team: &Team) -> Self {
        Self {
            files: tempfile::tempdir().unwrap(),
            root: team.root(),
            transport: Arc::new(repository::transport::file::Files),
            patience: Patience::default(),
        }
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.files.path())
    }

    pub(crate) fn refresh(&self, places: &[&str], now: Timestamp) -> Result<Client, ClientError> {
        self.refresh_keeping(&self.store(), places, now)
    }

    pub(crate) fn refresh_keeping(
        &self,
        store: &Store,
        places: &[&str],
        now: Timestamp,
    ) -> Result<Client, ClientError> {
        let places = places.iter().map(|place| Mirror::parse(place).unwrap()).collect();
        let mirrors = Mirrors::new(places, self.transport.clone(), self.patience, Arc::new(SystemClock));
        Client::refresh(&self.root, &mirrors, store, now)
    }

    /// What is kept, by name.
    pub(crate) fn kept(&self) -> BTreeMap<String, Vec<u8>> {
        tree(self.files.path())
    }
}

/// All files below a directory.
pub(crate) fn tree(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            files.extend(
                tree(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)),
            );
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What a server does with a file.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Serve it, with ranges.
    Honest,
    /// All of it, whatever part was asked for.
    Whole,
    Status(u16),
    Redirect(String),
    /// It never ends.
    Endless,
    /// One byte at a time, with this pause.
    Drip(Duration),
    /// The connection is closed after so many bytes.
    Cut(usize),
    /// A part that was not asked for.
    AnotherPart,
    /// Says nothing at all.
    Silent,
}

/// A static web server on loopback.
pub(crate) struct Server {
    pub(crate) address: String,
    /// Path and first byte of each request.
    pub(crate) requests: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Server {
    pub(crate) fn new(
        directory: PathBuf,
        reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
        let (log, reply) = (requests.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (directory, log, reply) = (directory.clone(), log.clone(), reply.clone());
                std::thread::spawn(move || {
                    // The client may hang up.
                    let _ = answer(stream, &directory, &log, &*reply);
                });
            }
        });
        Self { address, requests }
    }

    pub(crate) fn honest(directory: PathBuf) -> Self {
        Self::new(directory, |_, _| Reply::Honest)
    }
}

fn answer(
    mut stream: TcpStream,
    directory: &Path,
    log: &Mutex<Vec<(String, u64)>>,
    reply: &(dyn Fn(&str, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<u64>().ok();
        }
    }
    let count = {
        let mut log = log.lock().unwrap();
        log.push((path.clone(), from.unwrap_or(0)));
        log.iter().filter(|(one, _)| *one == path).count()
    };
    let bytes = fs::read(directory.join(path.split('?').next().unwrap_or("").trim_start_matches('/')));
    let mut head = |status: &str, more: &str| {
        stream.write_all(format!("HTTP/1.1 {status} x\r\n{more}connection: close\r\n\r\n").as_bytes())
    };
    match (reply(&path, count), bytes) {
        (Reply::Status(status), _) => head(&status.to_string(), "content-length: 0\r\n"),
        (Reply::Redirect(to), _) => head("302", &format!("location: {to}\r\ncontent-length: 0\r\n")),
        (Reply::Silent, _) => {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.read(&mut [0; 64]);
            Ok(())
        }
        (Reply::Endless, _) => {
            head("200", "")?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
        (_, Err(_)) => head("404", "content-length: 0\r\n"),
        (Reply::Drip(pause), Ok(bytes)) => {
            head("200", &format!("content-length: {}\r\n", bytes.len()))?;
            for byte in bytes {
                stream.write_all(&[byte])?;
                SystemClock.sleep(pause);
            }
            Ok(())
        }
        (Reply::AnotherPart, Ok(bytes)) => {
            head("206", &format!("content-range: bytes 1-9/{}\r\ncontent-length: 9\r\n", bytes.len()))?;
            stream.write_all(&bytes[1..10])
        }
        (Reply::Cut(after), Ok(bytes)) => {
            let rest = &bytes[from.unwrap_or(0) as usize..];
            let (status, range) = part(from, bytes.len());
            head(status, &format!("{range}content-length: {}\r\n", rest.len()))?;
            stream.write_all(&rest[..after.min(rest.len())])
        }
        (Reply::Whole, Ok(bytes)) => {
            head("200", &format!("content-length: {}\r\n", bytes.len()))?;
            stream.write_all(&bytes)
        }
        (Reply::Honest, Ok(bytes)) => {
            let rest = &bytes[(from.unwrap_or(0) as usize).min(bytes.len())..];
            let (status, range) = part(from, bytes.len());
            head(status, &format!("{range}content-length: {}\r\n", rest.len()))?;
            stream.write_all(rest)
        }
    }
}

fn part(from: Option<u64>, length: usize) -> (&'static str, String) {
    match from {
        None => ("200", String::new()),
        Some(from) => ("206", format!("content-range: bytes {from}-{}/{length}\r\n", length - 1)),
    }
}

/// A document of a repository as JSON.
pub(crate) fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

pub(crate) fn signed_version(bytes: &[u8]) -> u64 {
    json(bytes)["signed"]["version"].as_u64().unwrap()
}

pub(crate) fn time(text: &str) -> UtcTime {
    text.parse().unwrap()
}
