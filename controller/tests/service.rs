//! The real program, served on loopback over real TLS, and asked by people's commands and by hosts.

#![expect(clippy::disallowed_methods, reason = "the real program is asked in real time")]

mod common;
#[path = "common/outside.rs"]
mod outside;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet::protocol::{BeginAnswer, Certificate, Challenge, Hint, Poll, Renew, Version, paths};
use fleet::rollout::{Action, Fault, Outcome, Said};
use manifests::{Envelope, Nonce, Sha256};
use outside::{Fleet, Machine, QUICK, client, serve, serve_with};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use reqwest::StatusCode;

#[test]
fn two_hosts_take_a_manifest_from_the_token_to_the_end() {
    let fleet = Fleet::start(QUICK);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    assert!(hosts[0].poll(&fleet).unwrap().offers.is_empty());
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    let mut order = hosts.iter().collect::<Vec<_>>();
    fleet.until(&rollout, "running");
    // Who is in the first wave was drawn.
    let offers = |host: &&Machine| host.poll(&fleet).unwrap().offers.is_empty();
    order.sort_by_key(offers);
    for host in order {
        let nonce = host.apply(&fleet, digest);
        assert!(host.say(&fleet, digest, Some(nonce), Said::Applied));
        assert!(!host.say(&fleet, digest, Some(nonce), Said::Applied), "said before");
    }
    fleet.until(&rollout, "completed");
    // What hosts fetch: documents by what they carry, payloads from any byte.
    let (status, document) = hosts[0].fetch(&fleet, digest, 0);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(Envelope::parse(&document).unwrap().payload_digest(), digest);
    let payload = fs::read(fleet.path("fix.ko")).unwrap();
    let (status, rest) = hosts[1].fetch(&fleet, Sha256::of(&payload), 10);
    assert_eq!((status, &rest[..]), (StatusCode::PARTIAL_CONTENT, &payload[10..]));
    assert_eq!(hosts[0].fetch(&fleet, Sha256::of(b"nothing"), 0).0, StatusCode::NOT_FOUND);
    // Why a host got it.
    let told = fleet.ok(&["rollout", "explain", &rollout[..12], "one"]);
    let lines = told[0]["explanation"]["lines"].to_string();
    assert!(lines.contains("told to begin") && lines.contains("completed"), "{lines}");
    // Watched to its end: what the exit code says.
    assert_eq!(fleet.run(&["rollout", "watch", &rollout]).status.code(), Some(0));
    let text = String::from_utf8(fleet.run(&["rollout", "status"]).stdout).unwrap();
    assert!(text.contains("completed") && text.contains("wave 2"), "{text}");
}

#[test]
fn a_host_that_is_hurt_halts_it_and_all_go_back() {
    let fleet = Fleet::start(QUICK);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    fleet.until(&rollout, "running");
    let first = hosts.iter().find(|host| !host.poll(&fleet).unwrap().offers.is_empty()).unwrap();
    let other = hosts.iter().find(|host| host.host != first.host).unwrap();
    let nonce = first.apply(&fleet, digest);
    assert!(first.say(&fleet, digest, Some(nonce), Said::Applied));
    assert!(first.say(&fleet, digest, Some(nonce), Said::Hurt { fault: Fault::Splat }));
    fleet.until(&rollout, "rolling-back");
    assert!(other.poll(&fleet).unwrap().offers.is_empty(), "nobody begins after a halt");
    let offers = first.poll(&fleet).unwrap().offers;
    assert_eq!(offers[0].action, Action::Rollback);
    let back = Nonce::from_bytes([9; 16]);
    let answer = first.begin(&fleet, digest, Action::Rollback, back).unwrap();
    assert!(matches!(answer, BeginAnswer::Granted { .. }), "{answer:?}");
    assert!(first.say(&fleet, digest, Some(back), Said::RolledBack));
    assert_eq!(fleet.run(&["rollout", "watch", &rollout]).status.code(), Some(1));
    assert_eq!(fleet.stage(&rollout), "rolled-back");
    // After a halt there is no resuming, whoever signs.
    fleet.refused(&["rollout", "resume", &rollout, "--key", "anna.key"], 3, "cannot follow");
}

#[test]
fn a_host_that_came_back_waits_for_a_signature_and_says_so() {
    let fleet = Fleet::start(QUICK);
    let host = fleet.enrol("one");
    let first = fleet.rollout();
    let nonce = host.apply(&fleet, first.parse().unwrap());
    assert!(host.say(&fleet, first.parse().unwrap(), Some(nonce), Said::Hurt { fault: Fault::Restored }));
    fleet.until(&first, "rolled-back");
    let again = fleet.rollout();
    fleet.until(&again, "completed");
    let told = fleet.ok(&["rollout", "explain", &again, "one"]);
    assert_eq!(told[0]["came_back"], true);
    assert!(host.poll(&fleet).unwrap().offers.is_empty());
    fleet.refused(&["rollout", "retry", &again, "one"], 3, "expected a signed order, found a token");
    fleet.refused(&["rollout", "retry", &again], 2, "HOST");
    fleet.ok(&["rollout", "retry", &again, "one", "--key", "anna.key"]);
    let told = fleet.ok(&["rollout", "explain", &again, "one"]);
    assert_eq!(told[0]["came_back"], false);
    let lines = told[0]["explanation"]["lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["text"] == "may have it again: anna said so"), "{lines:?}");
    let nonce = host.apply(&fleet, again.parse().unwrap());
    assert!(host.say(&fleet, again.parse().unwrap(), Some(nonce), Said::Applied));
    fleet.refused(
        &["rollout", "retry", &again, "--all", "--key", "anna.key"],
        3,
        "no host came back from manifest",
    );
}

#[test]
fn a_wave_that_took_all_hosts_of_the_next_is_shown_as_the_only_one() {
    let fleet = Fleet::start(QUICK);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    fleet.until(&rollout, "running");
    let first = hosts.iter().find(|host| !host.poll(&fleet).unwrap().offers.is_empty()).unwrap();
    let other = hosts.iter().find(|host| host.host != first.host).unwrap();
    assert!(first.say(&fleet, digest, None, Said::Declined { outcome: Outcome::Refused }));
    // The wave is undecided, and takes the other host.
    let nonce = other.apply(&fleet, digest);
    let shown = fleet.ok(&["rollout", "status", &rollout]).remove(0);
    assert_eq!(shown["waves"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(shown["waves"][0]["hosts"], 2);
    assert!(other.say(&fleet, digest, Some(nonce), Said::Applied));
    fleet.until(&rollout, "completed");
}

#[test]
fn a_token_slows_down_and_only_a_signature_lets_begin() {
    let fleet = Fleet::start(&format!("{QUICK}approvals: {{start: 1}}\n"));
    let host = fleet.enrol("one");
    let rollout = fleet.rollout();
    fleet.until(&rollout, "awaiting-approval");
    fleet.refused(&["rollout", "approve", &rollout], 3, "signature");
    // Somebody whom the hosts' policy does not let sign orders.
    fleet.refused(&["rollout", "approve", &rollout, "--key", "ben.key"], 3, "ops");
    assert!(host.poll(&fleet).unwrap().offers.is_empty());
    fleet.ok(&["rollout", "approve", &rollout, "--key", "anna.key"]);
    fleet.until(&rollout, "running");
    fleet.ok(&["rollout", "pause", &rollout]);
    assert_eq!(fleet.run(&["rollout", "watch", &rollout]).status.code(), Some(6));
    assert!(host.poll(&fleet).unwrap().offers.is_empty(), "paused");
    fleet.ok(&["rollout", "resume", &rollout]);
    fleet.until(&rollout, "running");
    fleet.ok(&["rollout", "abort", &rollout]);
    assert_eq!(fleet.run(&["rollout", "watch", &rollout]).status.code(), Some(1));
    // Who only looks may not even pause.
    fleet.ok(&["person", "vera", "--role", "viewer", "--out", "vera.yaml"]);
    let asked = Command::new(env!("CARGO_BIN_EXE_update-controller"))
        .args(["rollout", "pause", &rollout, "--as", "vera.yaml"])
        .current_dir(fleet.directory.path())
        .output()
        .unwrap();
    assert_eq!(asked.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("expected at least operator"));
}

#[test]
fn what_people_did_not_sign_or_hand_in_is_not_accepted() {
    let fleet = Fleet::start(QUICK);
    let start = |policy: &str, key: &str| -> Vec<String> {
        ["rollout", "start", "manifest.json", "--policy", policy, "--key", key].map(str::to_owned).to_vec()
    };
    let refused = |arguments: Vec<String>, words: &str| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fleet.refused(&arguments, 3, words);
    };
    refused(start("rollout.yaml", "anna.key"), "expected at least one host");
    let _host = fleet.enrol("one");
    fs::write(fleet.path("never.yaml"), QUICK.replace("start_over: 0s", "first: 0, start_over: 0s")).unwrap();
    refused(start("never.yaml", "anna.key"), "first");
    let payload = fs::read(fleet.path("fix.ko")).unwrap();
    fs::write(fleet.path("fix.ko"), b"other bytes").unwrap();
    refused(start("rollout.yaml", "anna.key"), "expected content with the digest");
    fs::remove_file(fleet.path("fix.ko")).unwrap();
    refused(start("rollout.yaml", "anna.key"), "fix.ko");
    fs::write(fleet.path("fix.ko"), payload).unwrap();
    refused(start("rollout.yaml", "ben.key"), "ops");
    assert_eq!(fleet.ok(&["rollout", "status"]).len(), 0);
}

#[test]
fn who_is_not_of_the_fleet_is_answered_nothing() {
    let fleet = Fleet::start(QUICK);
    let (one, two) = (fleet.enrol("one"), fleet.enrol("two"));
    // Nobody, a guessed token, a token that is used up.
    let nobody = Machine::new(&fleet, "nobody");
    assert_eq!(nobody.poll(&fleet).unwrap_err().0, StatusCode::UNAUTHORIZED);
    let guess = Machine::new(&fleet, "guess").enrol(&fleet, Nonce::from_bytes([1; 16])).err().unwrap();
    assert_eq!(guess.0, StatusCode::FORBIDDEN);
    let token: Nonce = fleet.ok(&["token", "--group", "web"])[0]["token"].as_str().unwrap().parse().unwrap();
    assert!(Machine::new(&fleet, "three").enrol(&fleet, token).is_ok());
    assert!(Machine::new(&fleet, "four").enrol(&fleet, token).is_err());
    // A certificate of another fleet does not even connect.
    let elsewhere = Fleet::start(QUICK);
    let stranger = elsewhere.enrol("stranger");
    let connected = fleet.runtime.block_on(async {
        let url = format!("{}{}", fleet.address, paths::POLL);
        stranger.client.post(url).send().await.is_ok()
    });
    assert!(!connected);
    // A host that is revoked, whatever its certificate says; it does not come back with that key.
    let id = one.host.to_string();
    fleet.ok(&["hosts", "revoke", &id]);
    assert_eq!(one.poll(&fleet).unwrap_err().0, StatusCode::FORBIDDEN);
    assert!(one.enrol(&fleet, token).is_err());
    // Two machines with one key: neither begins.
    for boot in [1, 2, 1] {
        let poll = Poll { version: Version, boot: Nonce::from_bytes([boot; 16]), epoch: 0, facts: None };
        let _: Hint = two.ask(&fleet, paths::POLL, &poll).unwrap();
    }
    let begun = two.begin(&fleet, Sha256::of(b"any"), Action::Apply, Nonce::from_bytes([3; 16]));
    assert!(begun.unwrap_err().1.contains("two machines have its key"));
    let hosts = fleet.ok(&["hosts", "list"]);
    assert_eq!(hosts.len(), 2, "the revoked one is gone");
    assert!(hosts.iter().any(|host| host["cloned"] == true));
}

#[test]
fn a_certificate_is_renewed_by_the_key_alone_and_by_no_other() {
    let fleet = Fleet::start(QUICK);
    let host = fleet.enrol("one");
    let challenge = || -> Challenge {
        let bytes = fleet.runtime.block_on(async {
            let url = format!("{}{}", fleet.address, paths::CHALLENGE);
            host.client.get(url).send().await.unwrap().bytes().await.unwrap()
        });
        fleet::protocol::read(&bytes).unwrap()
    };
    let sign = |key: &KeyPair, nonce: &Nonce| {
        hex::encode(rcgen::SigningKey::sign(key, nonce.to_string().as_bytes()).unwrap())
    };
    let renew = |request: String, nonce: Nonce, signature: String| {
        let renew = Renew { version: Version, request, nonce, signature };
        host.ask::<Certificate>(&fleet, paths::RENEW, &renew)
    };
    let nonce = challenge().nonce;
    let renewed = renew(host.request(), nonce, sign(&host.key, &nonce)).unwrap();
    assert_eq!((renewed.host, renewed.groups), (host.host, vec!["web".parse().unwrap()]));
    assert!(renew(host.request(), nonce, sign(&host.key, &nonce)).is_err(), "a challenge counts once");
    let nonce = challenge().nonce;
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert!(renew(host.request(), nonce, sign(&other, &nonce)).is_err(), "signed by another key");
    let nonce = challenge().nonce;
    let stranger = CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
    let refused = renew(stranger, nonce, sign(&other, &nonce)).unwrap_err();
    assert_eq!(refused.0, StatusCode::FORBIDDEN, "a key that is not of the fleet: {}", refused.1);
}

#[test]
fn what_is_malformed_oversized_or_slow_is_answered_and_harms_nobody() {
    let fleet = Fleet::start(QUICK);
    let host = fleet.enrol("one");
    let post = |path: &str, body: Vec<u8>| {
        fleet.runtime.block_on(async {
            host.client.post(format!("{}{path}", fleet.address)).body(body).send().await.unwrap().status()
        })
    };
    for body in [&b""[..], b"{", b"null", b"{\"version\":2}", &[0xff; 100]] {
        for path in [paths::POLL, paths::REPORT, paths::BEGIN, paths::ENROL, paths::RENEW] {
            assert_eq!(post(path, body.to_vec()), StatusCode::BAD_REQUEST, "{path} {body:?}");
        }
    }
    assert_eq!(post(paths::POLL, vec![b' '; 5000]), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post(paths::REPORT, vec![b' '; 1100 << 10]), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post("/v1/nothing", Vec::new()), StatusCode::NOT_FOUND);
    // Many who connect and say nothing keep nobody out.
    let address = fleet.address.trim_start_matches("https://").to_owned();
    let idle: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    assert!(host.poll(&fleet).is_ok());
    drop(idle);
    // People without a token, and with another.
    for token in [None, Some("0000")] {
        let status = fleet.runtime.block_on(async {
            let request = host.client.get(format!("{}/v1/hosts", fleet.address));
            let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
            request.send().await.unwrap().status()
        });
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
}

#[test]
fn who_is_killed_goes_on_where_it_was_and_a_backup_comes_back_paused() {
    let mut fleet = Fleet::start(QUICK);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    fleet.until(&rollout, "running");
    fleet.ok(&["backup", "--directory", "controller", "copy.sqlite"]);
    fleet.child.kill().unwrap();
    fleet.child.wait().unwrap();
    // It waits until its lease has run out; and the port may be another one.
    (fleet.child, fleet.address, _) = serve(fleet.directory.path(), "controller", &[]);
    fleet.ask_there();
    fleet.until_it_leads();
    assert_eq!(fleet.stage(&rollout), "running");
    let first = hosts.iter().find(|host| !host.poll(&fleet).unwrap().offers.is_empty()).unwrap();
    let nonce = first.apply(&fleet, digest);
    assert!(first.say(&fleet, digest, Some(nonce), Said::Applied));
    // It ends in order when asked to, and gives its lease back.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(fleet.child.id() as i32), nix::sys::signal::SIGTERM)
        .unwrap();
    assert!(fleet.child.wait().unwrap().success());
    fs::rename(fleet.path("controller/controller.sqlite"), fleet.path("lost.sqlite")).unwrap();
    for rest in ["-wal", "-shm"] {
        let _ = fs::remove_file(fleet.path(&format!("controller/controller.sqlite{rest}")));
    }
    fleet.ok(&["restore", "--directory", "controller", "copy.sqlite"]);
    (fleet.child, fleet.address, _) = serve(fleet.directory.path(), "controller", &[]);
    fleet.ask_there();
    assert_eq!(fleet.stage(&rollout), "paused");
}

#[test]
fn metrics_health_and_checkpoint_tell_how_it_is() {
    let fleet = Fleet::start(QUICK);
    let _host = fleet.enrol("one");
    let _ = fleet.rollout();
    let account = fs::read_to_string(fleet.path("controller/admin.yaml")).unwrap();
    let token =
        account.lines().find_map(|line| line.strip_prefix("token: ")).unwrap().trim_matches('\'').to_owned();
    let get = |path: &str| {
        fleet.runtime.block_on(async {
            let request = client(&fleet, None).get(format!("{}{path}", fleet.address)).bearer_auth(&token);
            request.send().await.unwrap().text().await.unwrap()
        })
    };
    assert_eq!(get("/healthz"), "ok\n");
    let metrics = get("/metrics");
    assert!(
        metrics.contains("update_controller_hosts 1") && metrics.contains("update_controller_leads 1"),
        "{metrics}"
    );
    let output = fleet.run(&["checkpoint"]);
    let note = String::from_utf8(output.stdout).unwrap();
    assert!(note.starts_with("update/") && note.contains('\u{2014}'), "{note}");
}

#[test]
fn a_ledger_that_somebody_edits_is_named_by_everything_that_reads_it() {
    let mut fleet = Fleet::start(QUICK);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    fleet.until(&rollout, "running");
    let first = hosts.iter().find(|host| !host.poll(&fleet).unwrap().offers.is_empty()).unwrap();
    assert!(first.say(&fleet, digest, None, Said::Ready));
    let database = fleet.path("controller/controller.sqlite");
    let edit = |sql: &str| {
        let db = rusqlite::Connection::open(&database).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        assert!(db.execute(sql, []).unwrap() > 0, "{sql}");
    };
    edit("UPDATE ledger SET body = CAST(body || ' ' AS BLOB) WHERE number = 1");
    // While it runs: at once where the ledger is told from, soon elsewhere, and nobody begins.
    fleet.refused(&["rollout", "explain", &rollout, &first.host.to_string()], 6, "was edited");
    for command in [
        &["hosts", "list"][..],
        &["rollout", "status"],
        &["rollout", "status", &rollout],
        &["rollout", "watch", &rollout],
        &["checkpoint"],
    ] {
        fleet.refused(command, 6, "the ledger was edited in the store");
    }
    let refused = first.begin(&fleet, digest, Action::Apply, Nonce::from_bytes([1; 16])).unwrap_err();
    assert!(refused.0 == StatusCode::INTERNAL_SERVER_ERROR && refused.1.contains("edited"), "{refused:?}");
    // It ends in order, and does not begin again; nor is the store copied.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(fleet.child.id() as i32), nix::sys::signal::SIGTERM)
        .unwrap();
    assert!(fleet.child.wait().unwrap().success());
    let serve = ["serve", "--directory", "controller", "--listen", "127.0.0.1:0"];
    let backup = ["backup", "--directory", "controller", "copy.sqlite"];
    for command in [&serve[..], &backup] {
        fleet.refused(command, 4, "an entry or a hash was changed");
    }
    assert!(!fleet.path("copy.sqlite").exists());
    edit("UPDATE ledger SET body = CAST(rtrim(body) AS BLOB) WHERE number = 1");
    fleet.ok(&backup);
    // Cut off with all that is above it, it is whole by itself. The head that was kept beside it knows more.
    common::rewrite(&database, |number, _| number < 5);
    fs::remove_file(fleet.path("copy.sqlite")).unwrap();
    for command in [&serve[..], &backup] {
        fleet.refused(command, 4, "the ledger lost entries");
    }
    common::rewrite(&database, |_, entry| {
        entry.body.push(b' ');
        true
    });
    fs::write(fleet.path("controller/ledger.checkpoint"), "anything").unwrap();
    fleet.refused(&serve, 4, "not a checkpoint");
}

#[test]
fn an_edit_that_nobody_asks_about_is_found_all_the_same() {
    let fleet = Fleet::start(QUICK);
    let token = fleet.ok(&["token", "--group", "web"]);
    assert!(token[0]["token"].is_string());
    let db = rusqlite::Connection::open(fleet.path("controller/controller.sqlite")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(db.execute("DELETE FROM ledger WHERE number = 1", []).unwrap(), 1);
    let health = || {
        fleet.runtime.block_on(async {
            let response =
                client(&fleet, None).get(format!("{}/healthz", fleet.address)).send().await.unwrap();
            (response.status(), response.text().await.unwrap())
        })
    };
    let found = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        health().0 == StatusCode::SERVICE_UNAVAILABLE
    });
    assert!(found && health().1.contains("the ledger was edited"), "{:?}", health());
    fleet.refused(&["hosts", "list"], 6, "the ledger has a gap");
}

#[test]
fn the_log_names_hosts_and_rollouts_in_fields_and_no_secret_however_much_is_logged() {
    let logged = |directory: &Path| {
        let log = fs::File::create(directory.join("log")).unwrap();
        serve_with(directory, "controller", &[], "trace", log.into())
    };
    let mut fleet = Fleet::start_with(QUICK, logged);
    let made = fleet.ok(&["token", "--group", "web"]);
    let token = made[0]["token"].as_str().unwrap().to_owned();
    let host = Machine::new(&fleet, "one").enrol(&fleet, token.parse().unwrap()).unwrap();
    let rollout = fleet.rollout();
    fleet.until(&rollout, "running");
    let nonce = host.apply(&fleet, rollout.parse().unwrap());
    assert!(host.say(&fleet, rollout.parse().unwrap(), Some(nonce), Said::Applied));
    fleet.ok(&["hosts", "revoke", &host.host.to_string()]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(fleet.child.id() as i32), nix::sys::signal::SIGTERM)
        .unwrap();
    assert!(fleet.child.wait().unwrap().success());
    let log = fs::read_to_string(fleet.path("log")).unwrap();
    let id = host.host;
    for (words, field) in [
        ("a host came in", format!("host={id}")),
        ("a host came in", "name=one".to_owned()),
        ("a rollout was handed in", format!("rollout={rollout}")),
        ("a rollout was handed in", "by=admin".to_owned()),
        ("a host may begin", format!("host={id}")),
        ("a host reports", format!("rollout={rollout}")),
        ("a host was moved or has left", format!("host={id}")),
    ] {
        let line = log.lines().find(|line| line.contains(words) && line.contains(&field));
        assert!(line.is_some_and(|line| line.contains("INFO")), "{words} {field}: {log}");
    }
    let account = fs::read_to_string(fleet.path("controller/admin.yaml")).unwrap();
    let admin = account.lines().find_map(|line| line.strip_prefix("token: ")).unwrap().trim_matches('\'');
    let key = fs::read_to_string(fleet.path("controller/grant.key")).unwrap();
    for secret in [token.as_str(), admin, key.lines().nth(1).unwrap()] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[test]
fn whoever_asks_too_much_is_told_to_ask_again_and_when() {
    let slow = |directory: &Path| {
        serve_with(directory, "controller", &["--address-rate", "1"], "off", Stdio::inherit())
    };
    let fleet = Fleet::start_with(QUICK, slow);
    let refused = (0..100).map(|_| fleet.run(&["hosts", "list"])).find(|output| !output.status.success());
    let output = refused.expect("ten at once, and one a second");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{words}");
    assert!(words.contains("too many requests: ask again in 1 s"), "{words}");
}
