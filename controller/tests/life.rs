//! A controller's own life: whether it is well, and how it ends.

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::served::{Served, rest};
use controller::server::limits::Limits;
use controller::store::{LeaseAnswer, LeaseRequest};
use manifests::Sha256;
use reqwest::StatusCode;
use system::clock::{Clock as _, SystemClock};

/// Asks until it is answered with this status; the words.
fn until(served: &Served, path: &str, status: StatusCode) -> String {
    let client = served.client("127.0.0.7", None);
    let answer = (0..300).find_map(|_| {
        let answer = served.get(&client, path);
        SystemClock.sleep(Duration::from_millis(100));
        (answer.status == status).then(|| answer.words())
    });
    answer.unwrap_or_else(|| panic!("{path} is not {status}"))
}

#[test]
fn without_the_lease_it_lives_and_is_not_well_and_changes_nothing() {
    let served = Served::new(Limits::default());
    assert_eq!(until(&served, "/healthz", StatusCode::OK), "ok\n");
    let store = served.controller.authority.store();
    let epoch = served.controller.authority.epoch();
    // Another one takes it in the moment in which it is free.
    store.lease(LeaseRequest::Release { epoch }).unwrap();
    let taken = store.lease(LeaseRequest::Take { holder: "two".to_owned(), above: 0 }).unwrap();
    let LeaseAnswer::Yours(taken) = taken else { panic!("{taken:?}") };
    let words = until(&served, "/healthz", StatusCode::SERVICE_UNAVAILABLE);
    assert!(words.contains("two leads this fleet"), "{words}");
    assert_eq!(until(&served, "/livez", StatusCode::OK), "ok\n");
    let client = served.client("127.0.0.1", None);
    let person = r#"{"name":"vera","role":"viewer"}"#;
    let admit = client.post(served.url("/v1/people")).bearer_auth(&served.admin).body(person);
    let answer = served.send(admit).unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.words());
    // It comes back by itself.
    store.lease(LeaseRequest::Release { epoch: taken.epoch }).unwrap();
    assert_eq!(until(&served, "/healthz", StatusCode::OK), "ok\n");
    assert!(served.controller.authority.epoch() > taken.epoch);
}

#[test]
fn what_is_under_way_when_it_ends_may_end_and_nobody_new_comes_in() {
    let mut served = Served::new(Limits { farewell: Duration::from_secs(30), ..Limits::default() });
    let payload = b"half of it, and the other half";
    let digest = Sha256::of(payload);
    let mut wire = served.wire(None);
    let head = format!(
        "PUT /v1/payloads/{digest} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        served.admin,
        payload.len()
    );
    wire.write_all(&[head.as_bytes(), &payload[..10]].concat()).unwrap();
    // A connection that waits for nothing holds nothing up.
    let mut idle = served.wire(None);
    idle.flush().unwrap();
    assert_eq!(until(&served, "/livez", StatusCode::OK), "ok\n");
    served.ask_to_end();
    let closed = (0..300).any(|_| {
        SystemClock.sleep(Duration::from_millis(100));
        TcpStream::connect(served.address).is_err()
    });
    assert!(closed, "it still takes connections");
    wire.write_all(&payload[10..]).unwrap();
    assert!(rest(&mut wire).starts_with("HTTP/1.1 201"));
    assert!(served.controller.content.has(digest).unwrap());
    served.end();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it really takes")]
fn who_hangs_does_not_keep_it_from_ending() {
    let mut served = Served::new(Limits { farewell: Duration::from_secs(1), ..Limits::default() });
    let mut wire = served.wire(None);
    let digest = Sha256::of(b"never");
    let head = format!(
        "PUT /v1/payloads/{digest} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\nx",
        served.admin
    );
    wire.write_all(head.as_bytes()).unwrap();
    let silent = TcpStream::connect(served.address).unwrap();
    assert_eq!(until(&served, "/livez", StatusCode::OK), "ok\n");
    let begun = Instant::now();
    served.end();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!served.controller.content.has(digest).unwrap());
    drop(silent);
}
