//! Several controllers of one fleet on one database: real programs, real hosts' questions, a real server.

#![expect(clippy::disallowed_methods, reason = "real programs are started and waited for in real time")]

mod common;
#[path = "common/outside.rs"]
mod outside;
#[path = "common/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use controller::authority::facts::{Fact, of_rollout, of_store};
use controller::ledger::audit;
use controller::store::postgres::Database;
use controller::store::{Postgres, Sqlite, Store, Which};
use fleet::protocol::{BeginAnswer, BeginRequest, Version, paths};
use fleet::rollout::{Action, Event, Said};
use manifests::{Nonce, Sha256};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outside::{Fleet, QUICK, serve};
use reqwest::StatusCode;
use server::Server;
use system::clock::SystemClock;

/// What controllers of one fleet have in common.
const COMMON: [&str; 4] = ["ca.key", "ca.pem", "grant.key", "ledger.name"];

/// A second controller, in a directory of its own.
struct Second {
    child: Child,
    address: String,
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn second(fleet: &Fleet, database: &str) -> Second {
    fs::create_dir(fleet.path("second")).unwrap();
    for name in COMMON {
        fs::copy(fleet.path("controller").join(name), fleet.path("second").join(name)).unwrap();
    }
    let (child, address, said) = serve(fleet.directory.path(), "second", &["--database", database]);
    assert_eq!(said["leads"], false, "{said}");
    Second { child, address }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

fn store(database: &str) -> Postgres {
    Postgres::open(Database::new(database, None).unwrap(), Arc::new(SystemClock)).unwrap()
}

/// The epochs of the leases in the ledger, in their order, each with the number of its entry.
fn leases(store: &Postgres) -> Vec<(u64, u64)> {
    let entries = store.entries(&Which::Stream(of_store()), usize::MAX).unwrap();
    let epoch = |(number, entry): &(u64, _)| match Fact::read(entry).unwrap() {
        Fact::LeaseTaken { epoch, .. } => Some((*number, epoch)),
        _ => None,
    };
    entries.iter().filter_map(epoch).collect()
}

/// The grants of a rollout: number of the entry, and epoch.
fn grants(store: &Postgres, rollout: Sha256) -> Vec<(u64, u64)> {
    let entries = store.entries(&Which::Stream(of_rollout(rollout)), usize::MAX).unwrap();
    let grant = |(number, entry): &(u64, _)| match Fact::read(entry).unwrap() {
        Fact::Happened { event: Event::Granted { epoch, .. }, .. } => Some((*number, epoch)),
        _ => None,
    };
    entries.iter().filter_map(grant).collect()
}

#[test]
fn a_holder_that_is_stopped_is_followed_and_writes_nothing_when_it_wakes() {
    let server = Server::start();
    let database = server.make("fleet");
    let mut fleet = Fleet::start_on(QUICK, &["--database", &database]);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let second = second(&fleet, &database);
    let first = fleet.address.clone();
    // Asked of the one that does not lead: payload, documents and all get to the one that does.
    fleet.address = second.address.clone();
    fleet.ask_there();
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    fleet.until(&rollout, "running");
    // Who does not lead says who does: hosts ask the next, people's commands that one.
    let (status, words) = hosts[0].poll(&fleet).unwrap_err();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(words, format!("{first} leads this fleet, and not this controller"));
    // A question that comes while the holder stands still is read by it when it wakes.
    let who = hosts.iter().find(|host| {
        fleet.address = first.clone();
        !host.poll(&fleet).unwrap().offers.is_empty()
    });
    let host = who.unwrap();
    assert!(host.say(&fleet, digest, None, Said::Ready));
    let before = leases(&store(&database));
    send(&fleet.child, Signal::SIGSTOP);
    let stopped = Instant::now();
    let begin = |nonce: u8| BeginRequest {
        version: Version,
        rollout: digest,
        action: Action::Apply,
        nonce: Nonce::from_bytes([nonce; 16]),
        epoch: 0,
    };
    // Sent while others are asked, below.
    let asked = {
        let request = host.client.post(format!("{first}{}", paths::BEGIN));
        let request = request.body(serde_json::to_vec(&begin(1)).unwrap());
        fleet.runtime.spawn(async move { request.send().await.map(|response| response.status()) })
    };
    fleet.address = second.address.clone();
    fleet.until_it_leads();
    let took = stopped.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(40), "{took:?}");
    println!("followed after {took:?}");
    // It has what was handed in to the other one, and lets the host begin, under a higher epoch.
    let payload = fs::read(fleet.path("fix.ko")).unwrap();
    assert_eq!(host.fetch(&fleet, Sha256::of(&payload), 0).1, payload);
    let hint = host.poll(&fleet).unwrap();
    assert_eq!(hint.offers.len(), 1, "{hint:?}");
    send(&fleet.child, Signal::SIGCONT);
    // Whatever the holder of old was asked, it did not answer with a grant.
    if let Ok(status) = fleet.runtime.block_on(asked).unwrap() {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let answer = host.begin(&fleet, digest, Action::Apply, Nonce::from_bytes([2; 16])).unwrap();
    assert!(matches!(answer, BeginAnswer::Granted { .. }), "{answer:?}");
    // Long enough for whatever it had left to do.
    std::thread::sleep(Duration::from_secs(3));
    fleet.address = first;
    assert_eq!(hosts[1].poll(&fleet).unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
    let store = store(&database);
    let all = leases(&store);
    let (since, epoch) = *all.last().unwrap();
    assert_eq!(all.len(), before.len() + 1, "{all:?}");
    assert!(epoch > before.last().unwrap().1);
    let grants = grants(&store, digest);
    assert_eq!(grants.len(), 1);
    assert!(grants[0].0 > since && grants[0].1 == epoch, "{grants:?}");
    assert!(audit(&store, &[]).unwrap().is_ok());
}

#[test]
fn a_holder_that_is_killed_is_followed_after_its_lease_and_one_that_ends_at_once() {
    let server = Server::start();
    let database = server.make("fleet");
    let mut fleet = Fleet::start_on(QUICK, &["--database", &database]);
    let host = fleet.enrol("one");
    let mut second = second(&fleet, &database);
    let begun = Instant::now();
    fleet.child.kill().unwrap();
    fleet.child.wait().unwrap();
    fleet.address = second.address.clone();
    fleet.until_it_leads();
    println!("followed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(40));
    assert!(host.poll(&fleet).is_ok());
    // The first comes back and waits; the second ends in order, and need not be waited for.
    let (child, address, said) = serve(fleet.directory.path(), "controller", &["--database", &database]);
    assert_eq!(said["leads"], false);
    fleet.child = child;
    let begun = Instant::now();
    send(&second.child, Signal::SIGTERM);
    assert!(second.child.wait().unwrap().success());
    fleet.address = address;
    fleet.until_it_leads();
    println!("followed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(host.poll(&fleet).is_ok());
    let epochs: Vec<u64> = leases(&store(&database)).into_iter().map(|(_, epoch)| epoch).collect();
    assert!(epochs.is_sorted_by(|one, next| one < next) && epochs.len() == 3, "{epochs:?}");
}

#[test]
fn a_database_that_restarts_is_waited_for_and_the_same_controller_goes_on() {
    let mut server = Server::start();
    let database = server.make("fleet");
    let fleet = Fleet::start_on(QUICK, &["--database", &database]);
    let host = fleet.enrol("one");
    server.end(Signal::SIGINT);
    // It says what is wrong, and to ask again.
    let (status, words) = host.poll(&fleet).unwrap_err();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{words}");
    server.begin();
    let begun = Instant::now();
    while host.poll(&fleet).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(40));
        std::thread::sleep(Duration::from_millis(100));
    }
    fleet.enrol("two");
    assert!(audit(&store(&database), &[]).unwrap().is_ok());
}

/// A command of the controller's on a database.
fn command(fleet: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_update-controller"))
        .args(arguments)
        .current_dir(fleet)
        .env("UPDATE_LOG", "off")
        .output()
        .unwrap()
}

fn refused(fleet: &Path, arguments: &[&str], code: i32, words: &str) {
    let output = command(fleet, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {said}");
}

#[test]
fn a_controller_that_is_not_of_the_fleet_is_refused_and_makes_nothing() {
    let server = Server::start();
    let database = server.make("fleet");
    let fleet = Fleet::start_on(QUICK, &["--database", &database]);
    let here = fleet.directory.path();
    let serve = |home: &'static str| {
        ["serve", "--listen", "127.0.0.1:0", "--database", &database, "--directory", home]
    };
    refused(here, &serve("stranger"), 3, "copy them from the directory of another controller");
    assert_eq!(fs::read_dir(fleet.path("stranger")).unwrap().count(), 0);
    // Another fleet's directory.
    let other = server.make("other");
    let (mut child, ..) = outside::serve(here, "foreign", &["--database", &other]);
    child.kill().unwrap();
    child.wait().unwrap();
    refused(here, &serve("foreign"), 3, "the store is of another fleet");
    // A password has no place where everybody reads it.
    let open = "postgres://update:secret@127.0.0.1/fleet";
    refused(here, &["migrate", "--database", open], 2, "expected no password in it");
    let file = fleet.path("password");
    fs::write(&file, "secret\n").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(here, &["migrate", "--database", &database, "--database-password", "password"], 2, "chmod 600");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let done = command(here, &["migrate", "--database", &database, "--database-password", "password"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn restore<'a>(into: &[&'a str]) -> Vec<&'a str> {
    [&["restore", "--directory", "controller"], into, &["copy.sqlite"]].concat()
}

#[test]
fn a_backup_of_a_database_comes_back_paused_into_either_kind_of_store() {
    let server = Server::start();
    let database = server.make("fleet");
    let mut fleet = Fleet::start_on(QUICK, &["--database", &database]);
    let here = fleet.directory.path().to_owned();
    fleet.enrol("one");
    let rollout = fleet.rollout();
    fleet.until(&rollout, "running");
    let copied = command(&here, &["backup", "--database", &database, "copy.sqlite"]);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let original = audit(&store(&database), &[]).unwrap().unwrap();
    let copy = Sqlite::open(&fleet.path("copy.sqlite"), Arc::new(SystemClock)).unwrap();
    let head = audit(&copy, &[original]);
    assert!(
        head.unwrap().is_ok_and(|head| head.size <= original.size) || copy.size().unwrap() < original.size
    );
    drop(copy);
    // Nothing is put on top of something.
    refused(&here, &restore(&["--database", &database]), 3, "expected an empty one");
    send(&fleet.child, Signal::SIGTERM);
    fleet.child.wait().unwrap();
    let new = server.make("new");
    let done = command(&here, &restore(&["--database", &new]));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!fleet.path("controller/restored.sqlite.partial").exists());
    let restored = store(&new);
    assert!(audit(&restored, &[]).unwrap().is_ok());
    let last = |store: &Postgres| leases(store).last().unwrap().1;
    assert!(last(&restored) > last(&store(&database)) + 65_536);
    // The payload is in the directory, and gets into the database from there.
    (fleet.child, fleet.address, _) = serve(&here, "controller", &["--database", &new]);
    fleet.ask_there();
    assert_eq!(fleet.stage(&rollout), "paused");
    assert!(restored.has_content(Sha256::of(&fs::read(fleet.path("fix.ko")).unwrap())).unwrap());
    send(&fleet.child, Signal::SIGTERM);
    fleet.child.wait().unwrap();
    // Into a file, too.
    let done = command(&here, &restore(&[]));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    (fleet.child, fleet.address, _) = serve(&here, "controller", &[]);
    fleet.ask_there();
    assert_eq!(fleet.stage(&rollout), "paused");
}
