//! The store in a PostgreSQL server when the server goes away, comes back as another, fills up, only reads, or does not let anybody in.

#![expect(clippy::disallowed_methods, reason = "a real server is waited for in real time")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{batch, key, take};
use controller::ledger::audit;
use controller::store::postgres::{Database, DatabaseError};
use controller::store::{LeaseAnswer, LeaseRequest, Postgres, Store, StoreError, Which};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use server::Server;
use system::clock::SystemClock;

fn try_open(address: &str, password: Option<&str>) -> Result<Postgres, StoreError> {
    Postgres::open(Database::new(address, password).unwrap(), Arc::new(SystemClock))
}

fn open(address: &str) -> Postgres {
    try_open(address, None)
        .unwrap_or_else(|error| panic!("{address}: {}", system::error::with_causes(&error)))
}

/// Why a database did not do it.
fn why(error: &StoreError) -> &DatabaseError {
    let StoreError::Postgres { source, .. } = error else { panic!("{error:?}") };
    source
}

fn refused(address: &str, password: Option<&str>) -> (String, StoreError) {
    let error = try_open(address, password).err().unwrap_or_else(|| panic!("{address} was let in"));
    (system::error::with_causes(&error), error)
}

/// Writes one batch after the other while `during` does its worst; what was acknowledged, and what went wrong.
fn write_during(store: &Postgres, epoch: u64, during: impl FnOnce()) -> (BTreeSet<String>, Vec<StoreError>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut acknowledged, mut errors) = (BTreeSet::new(), Vec::new());
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let text = format!("batch {number}");
                let Ok(after) = store.size() else { continue };
                match store.commit(vec![batch(epoch, after, &number.to_string(), 0, &text)]) {
                    Ok(receipts) => {
                        receipts[0].as_ref().unwrap_or_else(|refused| panic!("{refused}"));
                        acknowledged.insert(text);
                    }
                    Err(error) => errors.push(error),
                }
                if number % 50 == 0 {
                    assert!(matches!(
                        store.lease(LeaseRequest::Renew { epoch }),
                        Ok(LeaseAnswer::Yours(_)) | Err(_)
                    ));
                }
            }
            (acknowledged, errors)
        });
        std::thread::sleep(Duration::from_millis(300));
        during();
        std::thread::sleep(Duration::from_millis(700));
        over.store(true, Ordering::Relaxed);
        writing.join().unwrap()
    })
}

/// What the ledger has, each once.
fn written(store: &Postgres) -> BTreeSet<String> {
    assert!(audit(store, &[]).unwrap().is_ok());
    let entries = store.entries(&Which::From(0), usize::MAX).unwrap();
    let texts: BTreeSet<String> =
        entries.iter().map(|(_, entry)| String::from_utf8(entry.body.clone()).unwrap()).collect();
    assert_eq!(texts.len(), entries.len(), "nothing was written twice");
    texts
}

#[test]
fn a_server_that_restarts_loses_nothing_that_was_acknowledged_and_nothing_is_written_twice() {
    let mut server = Server::start();
    let store = open(&server.make("fleet"));
    for how in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGINT] {
        let epoch = take(&store, "one", 0).epoch;
        let before = written(&store);
        let (acknowledged, errors) = write_during(&store, epoch, || {
            server.end(how);
            server.begin();
        });
        let found = written(&store);
        assert!(!acknowledged.is_empty() && acknowledged.is_subset(&found), "{how}: {errors:?}");
        // What is there and was not acknowledged is what its writer was told to be in doubt of.
        let more = found.difference(&before).filter(|text| !acknowledged.contains(*text)).count();
        let in_doubt = errors.iter().filter(|error| matches!(why(error), DatabaseError::InDoubt(_))).count();
        assert!(more <= in_doubt, "{how}: {more} more than acknowledged, {errors:?}");
        // Only one group was at its commit: all else was tried again by itself, and nobody heard of it.
        assert!(errors.len() <= 1, "{how}: {errors:?}");
        let LeaseAnswer::Nobodys = store.lease(LeaseRequest::Release { epoch }).unwrap() else { panic!() };
        server.sql(
            "fleet",
            "DELETE FROM records; DELETE FROM ledger; DELETE FROM nodes; UPDATE ledger_size SET size = 0",
        );
    }
}

#[test]
fn a_server_that_lost_its_end_gets_an_epoch_above_all_that_were_seen() {
    let mut primary = Server::start();
    open(&primary.make("fleet"));
    primary.end(Signal::SIGINT);
    // A standby that hears of nothing after this.
    std::fs::write(primary.data().join("standby.signal"), "").unwrap();
    let standby = primary.copy();
    std::fs::remove_file(primary.data().join("standby.signal")).unwrap();
    primary.begin();
    let (words, error) = refused(&standby.address("fleet"), None);
    assert!(matches!(why(&error), DatabaseError::ReadOnly(_)), "{words}");
    assert!(words.contains("expected the primary"), "{words}");
    let both = format!("{},{}", primary.host(), standby.host());
    let store = open(&format!("postgres://update@{both}/fleet"));
    let first = take(&store, "one", 40);
    assert_eq!(first.epoch, 41);
    store.commit(vec![batch(41, 0, "a", 0, "lost")]).unwrap()[0].clone().unwrap();
    primary.end(Signal::SIGQUIT);
    standby.sql("postgres", "SELECT pg_promote()");
    // The new one knows of no lease and of no entry. Whoever holds the old lease writes nothing there.
    assert!(store.commit(vec![batch(41, 0, "a", 0, "fenced")]).unwrap()[0].is_err());
    assert_eq!(store.size().unwrap(), 0);
    assert_eq!(take(&store, "two", 0).epoch, 42);
    store.commit(vec![batch(42, 0, "a", 0, "goes on")]).unwrap()[0].clone().unwrap();
}

#[test]
fn a_full_disk_writes_nothing_says_so_and_goes_on_when_there_is_room() {
    let server = Server::start();
    let store = open(&server.make("fleet"));
    let epoch = take(&store, "one", 0).epoch;
    // The server's own error for it, at the last of the statements.
    let full = "CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER disk_is_full BEFORE INSERT ON nodes EXECUTE FUNCTION disk_is_full()";
    server.sql("fleet", full);
    let error = store.commit(vec![batch(epoch, 0, "a", 0, "1")]).unwrap_err();
    assert!(matches!(why(&error), DatabaseError::Full(_)), "{error:?}");
    assert!(system::error::with_causes(&error).contains("disk is full: nothing was written"));
    assert_eq!((store.size().unwrap(), store.record(&key("a")).unwrap()), (0, None));
    server.sql("fleet", "DROP TRIGGER disk_is_full ON nodes");
    store.commit(vec![batch(epoch, 0, "a", 0, "1")]).unwrap()[0].clone().unwrap();
}

#[test]
fn who_stands_still_in_a_transaction_loses_it_and_keeps_nobody_waiting() {
    let server = Server::start();
    let store = open(&server.make("fleet"));
    let epoch = take(&store, "one", 0).epoch;
    // What a session of a controller has locked when it is stopped half-way.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host_path(server.directory()).port(server.port).user("update").dbname("fleet");
    let stopped = runtime.block_on(async {
        let (db, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let half = "SET idle_in_transaction_session_timeout = '5s'; BEGIN; SELECT * FROM lease FOR SHARE;
                    SELECT * FROM ledger_size FOR UPDATE";
        db.batch_execute(half).await.unwrap();
        db
    });
    let begun = std::time::Instant::now();
    store.commit(vec![batch(epoch, 0, "a", 0, "1")]).unwrap()[0].clone().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(runtime.block_on(stopped.batch_execute("COMMIT")).is_err());
}

#[test]
fn a_store_of_the_layout_before_is_brought_to_this_one_and_a_newer_one_is_refused() {
    let server = Server::start();
    let address = server.make("fleet");
    let before = include_str!("../src/store/postgres/0001-records-ledger-lease.sql");
    server.sql(
        "fleet",
        &format!(
            "{before}; CREATE TABLE layout (one boolean PRIMARY KEY DEFAULT true CHECK (one),
                                           version bigint NOT NULL, oldest bigint NOT NULL);
             INSERT INTO layout (version, oldest) VALUES (1, 1);
             INSERT INTO records VALUES ('thing/kept', 7, 'before')"
        ),
    );
    let store = open(&address);
    assert_eq!(store.record(&key("kept")).unwrap().unwrap().revision, 7);
    let digest = manifests::Sha256::of(b"new");
    store.keep_content(digest, &b"new"[..]).unwrap();
    assert!(store.has_content(digest).unwrap());
    assert_eq!(server.sql("fleet", "SELECT version, oldest FROM layout"), [["2", "1"]]);
    // Of a program after this one: expanded, this one may use it; contracted, it may not, and changes nothing.
    server.sql("fleet", "UPDATE layout SET version = 9");
    open(&address);
    server.sql("fleet", "UPDATE layout SET oldest = 9");
    let (words, error) = refused(&address, None);
    assert!(matches!(error, StoreError::Newer { oldest: 9, known: 2 }), "{words}");
    assert_eq!(server.sql("fleet", "SELECT version, oldest FROM layout"), [["9", "9"]]);
}

#[test]
fn several_that_open_a_new_database_at_once_make_its_layout_once() {
    let server = Server::start();
    let address = server.make("fleet");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| open(&address));
        }
    });
    assert_eq!(server.sql("fleet", "SELECT count(*) FROM lease"), [["1"]]);
}

/// A server that lets `app` in over TLS with the password `right`, its address, and the file with its authority.
fn guarded(directory: &std::path::Path) -> (Server, String, String) {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&authority).unwrap();
    let issuer = Issuer::new(params, authority);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let file = directory.join("authority.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let server = Server::start_with(|data| {
        Server::give(&data.join("server.crt"), &own.pem());
        Server::give(&data.join("server.key"), &key.serialize_pem());
        let rules = "local all update trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        Server::give(&data.join("pg_hba.conf"), rules);
        "ssl = on\n".to_owned()
    });
    server
        .sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'right'; CREATE ROLE guest LOGIN PASSWORD 'right'");
    server.sql("postgres", "CREATE DATABASE fleet OWNER app");
    let port = server.port;
    (server, format!("postgres://app@127.0.0.1:{port}/fleet"), file.display().to_string())
}

#[test]
fn only_who_has_the_password_comes_in_and_only_who_has_the_name_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address, authority) = guarded(directory.path());
    let believed = format!("{address}?sslmode=verify-full&sslrootcert={authority}");
    let store = try_open(&believed, Some("right")).unwrap();
    let tls = server.sql(
        "postgres",
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                                      WHERE usename = 'app' AND ssl AND version = 'TLSv1.3'",
    );
    assert_eq!(tls, [["2"]], "both sessions");
    drop(store);
    for wrong in [Some("wrong"), None] {
        let (words, error) = refused(&believed, wrong);
        assert!(matches!(why(&error), DatabaseError::Login(_)), "{words}: {error:?}");
        assert!(!words.contains("wrong"), "{words}");
    }
    let (words, error) = refused(&believed.replace("/fleet", "/nowhere"), Some("right"));
    assert!(matches!(why(&error), DatabaseError::Missing(_)), "{words}");
    let (words, error) = refused(&believed.replace("app@", "guest@"), Some("right"));
    assert!(matches!(why(&error), DatabaseError::Forbidden(_)), "{words}: {error:?}");
    // Another authority; the right one and another name; no TLS, which this server does not take.
    let other = directory.path().join("other.pem");
    let key = KeyPair::generate().unwrap();
    std::fs::write(&other, CertificateParams::default().self_signed(&key).unwrap().pem()).unwrap();
    let named = believed.replace("127.0.0.1", "localhost");
    for address in [believed.replace(&authority, other.to_str().unwrap()), named.clone()] {
        let (words, error) = refused(&address, Some("right"));
        assert!(matches!(why(&error), DatabaseError::Tls(_)), "{address}: {words}: {error:?}");
    }
    let (words, error) = refused(&format!("{address}?sslmode=disable"), Some("right"));
    assert!(matches!(why(&error), DatabaseError::Login(_)), "{words}: {error:?}");
    // Those who want less.
    try_open(&named.replace("verify-full", "verify-ca"), Some("right")).unwrap();
    try_open(&format!("{address}?sslmode=require"), Some("right")).unwrap();
}

#[test]
fn nobody_at_the_address_is_told_soon_and_clearly() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = std::time::Instant::now();
    let (words, error) = refused(&format!("postgres://app@127.0.0.1:{port}/fleet?sslmode=disable"), None);
    assert!(matches!(why(&error), DatabaseError::Away(_)), "{words}");
    assert!(words.contains("cannot be reached") && words.contains("refused"), "{words}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}
