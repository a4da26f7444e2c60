//! A controller that serves a repository: asked by the client that hosts have, and by whoever wants more of it.

mod common;
#[path = "../../repository/tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use common::served::{Served, rest};
use controller::server::repository::Repository;
use reqwest::StatusCode;
use support::{Host, ONLINE, Team, days, key, now};
use update_transport::{Http, Options};

fn served(team: &Team) -> Served {
    Served::with(Repository::open(&team.path()).unwrap())
}

/// A host that believes the controller's authority and no other, as its `update.yaml` says.
fn host(team: &Team, served: &Served) -> Host {
    let mut host = Host::new(team);
    let authorities = served.directory.path().join("believed.pem");
    fs::write(&authorities, &served.controller.certificates.pem).unwrap();
    let options = Options { silence: Duration::from_secs(60), proxy: None, authorities: Some(authorities) };
    host.transport = Arc::new(Http::new(&options).unwrap());
    host
}

#[test]
fn a_host_refreshes_and_fetches_from_its_controller() {
    let team = Team::founded();
    team.add("greet", 1, b"the bytes of a module");
    team.signed_and_published(now());
    let served = served(&team);
    let (host, place) = (host(&team, &served), served.url("/repository"));
    let mut client = host.refresh(&[&place], now()).unwrap();
    assert_eq!(client.catalogue().unwrap().len(), 1);
    let manifest = client.target("greet/1/manifest.json").unwrap();
    let manifest = client.read(&manifest, 1 << 20).unwrap();
    assert!(manifests::Envelope::parse(&manifest).is_ok());
    let payload = client.target("greet/1/fix.ko").unwrap();
    assert_eq!(client.read(&payload, 1 << 20).unwrap(), b"the bytes of a module");
    // What broke off goes on.
    let mut rest = Vec::new();
    client.open(&payload, 10).unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest == b"the bytes of a module"[10..] || rest == b"the bytes of a module", "{rest:?}");
    // What is published meanwhile is there at once.
    team.add("greet", 2, b"another");
    team.signed_and_published(now());
    assert_eq!(host.refresh(&[&place], now()).unwrap().catalogue().unwrap().len(), 2);
    team.repository().refresh(&[key(ONLINE)], now() + days(5)).unwrap();
    host.refresh(&[&place], now() + days(8)).unwrap();
    // Somebody else's authority is not believed.
    let stranger = support::Host { transport: Arc::new(other()), ..Host::new(&team) };
    assert!(stranger.refresh(&[&place], now()).is_err());
}

fn other() -> Http {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let other = controller::certificates::CertificateAuthority::open(
        directory.path(),
        "2026-11-01T00:00:00Z".parse().unwrap(),
    );
    fs::write(&path, other.unwrap().pem).unwrap();
    let silence = Duration::from_secs(60);
    Http::new(&Options { silence, proxy: None, authorities: Some(path) }).unwrap()
}

#[test]
fn odd_names_are_found_and_nothing_else_is_served() {
    let team = Team::founded();
    let public = team.public();
    fs::create_dir_all(public.join("targets/a b")).unwrap();
    fs::write(public.join("targets/a b/1.ü?#%.ko"), b"0123456789").unwrap();
    fs::write(public.join("targets/a b/empty"), b"").unwrap();
    fs::write(public.join("metadata/1.kernel%2Fx.json"), b"{}").unwrap();
    fs::write(public.join("beside"), b"beside").unwrap();
    let served = served(&team);
    let get = |path: &str, range: &str| {
        let mut wire = served.wire(None);
        let range = if range.is_empty() { String::new() } else { format!("range: {range}\r\n") };
        write!(wire, "GET /repository/{path} HTTP/1.1\r\nhost: here\r\n{range}connection: close\r\n\r\n")
            .unwrap();
        let answer = rest(&mut wire);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer}"));
        (head.split(' ').nth(1).unwrap().to_owned(), head.to_ascii_lowercase(), body.to_owned())
    };
    let found = |path: &str, range: &str| {
        let (status, _, body) = get(path, range);
        (status, body)
    };
    let is = |status: &str, body: &str| (status.to_owned(), body.to_owned());
    let odd = "targets/a%20b/1.%C3%BC%3F%23%25.ko";
    assert_eq!(found(odd, ""), is("200", "0123456789"));
    assert_eq!(found("metadata/1.kernel%2Fx.json", ""), is("200", "{}"));
    assert_eq!(found("metadata/1.kernel%252Fx.json", ""), is("200", "{}"));
    assert_eq!(found("targets/a%20b/empty", ""), is("200", ""));
    assert_eq!(found(odd, "bytes=4-"), is("206", "456789"));
    assert_eq!(found(odd, "bytes=4-5"), is("206", "45"));
    assert_eq!(found(odd, "bytes=-3"), is("206", "789"));
    assert_eq!(found(odd, "bytes=0-0,2-2"), is("200", "0123456789"));
    assert_eq!(found(odd, "bytes=10-").0, "416");
    assert!(get(odd, "bytes=4-5").1.contains("content-range: bytes 4-5/10"));
    // No list, no way out, in no spelling.
    for path in [
        "",
        "metadata",
        "metadata/",
        "targets/",
        "targets/a%20b",
        "targets/a%20b/",
        "beside",
        "targets/../beside",
        "targets/%2e%2e/beside",
        "targets/..%2fbeside",
        "targets/%2fetc/passwd",
        "targets//etc/passwd",
        "targets/a%20b/..%2f..%2fbeside",
        "../v1/hosts",
        "metadata/..%2f..%2fstaged",
        "targets/a%20b/%00",
    ] {
        let (status, _, body) = get(path, "");
        assert!(["404", "400"].contains(&status.as_str()), "{path}: {status} {body}");
        assert!(!body.contains("root:") && body != "beside", "{path}: {body}");
    }
    // Not even with the rights of an administrator is there anything to change.
    let client = served.client("127.0.0.1", None);
    let put = client.put(served.url("/repository/targets/new")).bearer_auth(&served.admin).body("x");
    assert_eq!(served.send(put).unwrap().status, StatusCode::METHOD_NOT_ALLOWED);
}
