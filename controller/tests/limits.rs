//! What one peer may take: many, slow and silent ones are let go, and nobody else waits for them. Real clients, on loopback.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::Duration;

use common::served::{Answered, Machine, Served, dribble, rest};
use controller::server::limits::{Limits, Rate};
use fleet::protocol::{Poll, Version, paths};
use manifests::{Nonce, Sha256};
use reqwest::StatusCode;
use system::clock::{Clock as _, SystemClock};

/// Short enough for a test, long enough for a machine with much to do.
const SHORT: Duration = Duration::from_millis(1500);

fn rate(burst: u32, every: u64) -> Rate {
    Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(every) }
}

/// It is answered "not now" with a time, in the words of the protocol.
fn assert_limited(answer: &Answered) -> u64 {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.words());
    let denial: fleet::protocol::Denial = fleet::protocol::read(&answer.body).unwrap();
    let seconds = answer.retry_after.unwrap();
    assert!(denial.error.contains(&format!("again in {seconds} s")), "{}", denial.error);
    assert!(seconds > 0);
    seconds
}

fn poll() -> Vec<u8> {
    let poll = Poll { version: Version, boot: Nonce::from_bytes([7; 16]), epoch: 0, facts: None };
    serde_json::to_vec(&poll).unwrap()
}

#[test]
fn a_handshake_that_hangs_is_let_go_and_keeps_nobody_out() {
    let served = Served::new(Limits { handshake: SHORT, ..Limits::default() });
    let mut silent = TcpStream::connect(served.address).unwrap();
    let mut babbling = TcpStream::connect(served.address).unwrap();
    babbling.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(served.get(&served.client("127.0.0.2", None), "/healthz").status, StatusCode::OK);
    for stream in [&mut silent, &mut babbling] {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // An alert at most, then the end.
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP"), "no answer without TLS");
    }
    assert_eq!(served.turned_away("handshake"), 2);
}

#[test]
fn heads_that_come_slowly_or_not_at_all_end_the_connection() {
    let served = Served::new(Limits { head: SHORT, ..Limits::default() });
    let mut slow = served.wire(None);
    let line = b"GET /healthz HTTP/1.1\r\nX-Slow: ";
    let letters = std::iter::once(line.to_vec()).chain(std::iter::repeat_n(b"a".to_vec(), 200));
    assert!(dribble(&mut slow, letters, Duration::from_millis(100)) < 200, "it was listened to for 20 s");
    // Who says nothing after the handshake, and nothing after an answer.
    let mut silent = served.wire(None);
    silent.flush().unwrap();
    assert_eq!(rest(&mut silent), "");
    let mut idle = served.wire(None);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let answer = rest(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    assert_eq!(served.turned_away("head"), 3);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let served = Served::new(Limits::default());
    for head in ["X: a\r\n".repeat(100), format!("X: {}\r\n", "a".repeat(200 << 10))] {
        let mut wire = served.wire(None);
        let _ = wire.write_all(format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes());
        let answer = rest(&mut wire);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(served.get(&served.client("127.0.0.2", None), "/healthz").status, StatusCode::OK);
}

#[test]
fn bodies_that_come_slowly_or_break_off_are_given_up() {
    let limits = Limits { body: SHORT, silence: SHORT, pace: 1000, ..Limits::default() };
    let served = Served::new(limits);
    let host = Machine::member(&served);
    let mut slow = served.wire(Some(&host.identity));
    let head = format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", paths::POLL);
    let pieces = std::iter::once(head.clone().into_bytes()).chain(std::iter::repeat_n(b" ".to_vec(), 25));
    dribble(&mut slow, pieces, Duration::from_millis(100));
    assert!(rest(&mut slow).starts_with("HTTP/1.1 408"));
    // A payload that never stops coming, and never comes.
    let payload = Sha256::of(b"payload");
    let head = format!(
        "PUT /v1/payloads/{payload} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 100000000\r\n\r\n",
        served.admin
    );
    let mut slow = served.wire(None);
    let pieces = std::iter::once(head.into_bytes()).chain(std::iter::repeat_n(vec![0; 20], 40));
    dribble(&mut slow, pieces, Duration::from_millis(100));
    assert!(rest(&mut slow).starts_with("HTTP/1.1 408"));
    assert!(!served.controller.content.has(payload).unwrap());
    assert_eq!(served.turned_away("body"), 2);
    // One that breaks off is no message, and no payload.
    let mut broken = served.wire(Some(&host.identity));
    broken
        .write_all(
            format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{", paths::POLL).as_bytes(),
        )
        .unwrap();
    broken.conn.send_close_notify();
    broken.flush().unwrap();
    broken.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(!rest(&mut broken).starts_with("HTTP/1.1 200"));
    assert_eq!(host.ask(&served, paths::POLL, poll()).status, StatusCode::OK);
}

#[test]
fn whoever_does_not_take_an_answer_is_let_go() {
    let served = Served::new(Limits { silence: SHORT, connections_per_address: 1, ..Limits::default() });
    let host = Machine::member(&served);
    let payload = vec![7; 64 << 20];
    let digest = Sha256::of(&payload);
    let mut arriving = served.controller.content.begin(digest).unwrap();
    arriving.more(&payload).unwrap();
    arriving.end().unwrap();
    let mut wire = served.wire(Some(&host.identity));
    wire.write_all(format!("GET {}{digest} HTTP/1.1\r\nHost: a\r\n\r\n", paths::CONTENT).as_bytes()).unwrap();
    let mut some = [0; 100];
    wire.read_exact(&mut some).unwrap();
    // It has the one connection that its address may have, until the controller has waited long enough.
    let client = served.client("127.0.0.1", None);
    let again = || served.send(client.get(served.url("/healthz")));
    assert!(again().is_err());
    let came = (0..100).any(|_| {
        SystemClock.sleep(Duration::from_millis(100));
        again().is_ok()
    });
    assert!(came, "it is waited for still");
    assert!(served.turned_away("connections") > 0);
    // All of it is there for whoever takes it.
    drop(wire);
    let client = served.client("127.0.0.3", Some(&host.identity));
    assert_eq!(served.get(&client, &format!("{}{digest}", paths::CONTENT)).body.len(), payload.len());
}

#[test]
fn an_address_with_too_many_connections_keeps_no_other_out() {
    let served = Served::new(Limits { connections_per_address: 3, ..Limits::default() });
    let mut all: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    let closed = all.iter_mut().map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut byte = [0];
        !matches!(stream.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert_eq!(closed.filter(|closed| *closed).count(), 7);
    assert_eq!(served.get(&served.client("127.0.0.2", None), "/healthz").status, StatusCode::OK);
    assert_eq!(served.turned_away("connections"), 7);
    drop(all);
    let client = served.client("127.0.0.1", None);
    let served_again = (0..100).any(|_| {
        SystemClock.sleep(Duration::from_millis(50));
        served.send(client.get(served.url("/healthz"))).is_ok()
    });
    assert!(served_again);
}

#[test]
fn when_the_house_is_full_whoever_comes_waits_for_a_place() {
    let served = Served::new(Limits { connections: 2, ..Limits::default() });
    let places: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    let (client, url) = (served.client("127.0.0.2", None), served.url("/healthz"));
    let mut waiting = served.runtime.spawn(async move { client.get(url).send().await.unwrap().status() });
    let early = served.runtime.block_on(async { tokio::time::timeout(SHORT, &mut waiting).await });
    assert!(early.is_err(), "there is no place");
    drop(places);
    assert_eq!(served.runtime.block_on(waiting).unwrap(), StatusCode::OK);
}

#[test]
fn each_address_host_and_person_has_a_rate_of_its_own() {
    let limits =
        Limits { address: rate(20, 30), host: rate(5, 30), person: rate(40, 30), ..Limits::default() };
    let served = Served::new(limits);
    // An address.
    let client = served.client("127.0.0.2", None);
    let answers: Vec<Answered> = (0..25).map(|_| served.get(&client, "/healthz")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::OK).count(), 20);
    assert!(assert_limited(answers.last().unwrap()) <= 30);
    assert_eq!(served.get(&served.client("127.0.0.3", None), "/healthz").status, StatusCode::OK);
    // A host, wherever it comes from; the other one does not notice.
    let (one, two) = (Machine::member(&served), Machine::member(&served));
    let ask = |machine: &Machine, from: &str| {
        let client = served.client(from, Some(&machine.identity));
        served.send(client.post(served.url(paths::POLL)).body(poll())).unwrap()
    };
    for turn in 0..5 {
        assert_eq!(ask(&one, &format!("127.0.1.{turn}")).status, StatusCode::OK);
    }
    assert_limited(&ask(&one, "127.0.1.9"));
    assert_eq!(ask(&two, "127.0.1.9").status, StatusCode::OK);
    // A person, too.
    let look = |turn: usize| {
        let client = served.client(&format!("127.0.2.{turn}"), None);
        served.send(client.get(served.url("/v1/hosts")).bearer_auth(&served.admin)).unwrap()
    };
    assert_eq!((served.turned_away("address"), served.turned_away("host")), (5, 1));
    let answers: Vec<Answered> = (1..=40).map(look).collect();
    assert_limited(answers.last().unwrap());
    assert_eq!(
        answers.iter().filter(|answer| answer.status == StatusCode::OK).count(),
        38,
        "two were metrics"
    );
}

#[test]
fn an_address_that_shows_wrong_tokens_is_slowed_and_a_right_one_among_them_is_not_looked_at() {
    let served = Served::new(Limits { wrong_tokens: rate(3, 2), ..Limits::default() });
    let token = served.token(2);
    let guess = |number: u8| Machine::new().enrol(&served, "127.0.0.2", Nonce::from_bytes([number; 16]));
    for number in 0..4 {
        assert_eq!(guess(number).status, StatusCode::FORBIDDEN);
    }
    assert_limited(&guess(9));
    let mut newcomer = Machine::new();
    let seconds = assert_limited(&newcomer.enrol(&served, "127.0.0.2", token));
    // People's tokens are guessed no faster, and what needs no token is answered.
    let client = served.client("127.0.0.2", None);
    assert_limited(&served.send(client.get(served.url("/v1/hosts")).bearer_auth(&served.admin)).unwrap());
    assert_eq!(served.get(&client, "/healthz").status, StatusCode::OK);
    // Elsewhere nobody notices; and who waits as long as told comes in.
    assert!(Machine::new().enrol(&served, "127.0.0.3", token).status.is_success());
    SystemClock.sleep(Duration::from_secs(seconds));
    assert!(newcomer.enrol(&served, "127.0.0.2", token).status.is_success());
    assert_eq!(served.turned_away("wrong-tokens"), 3);
    for _ in 0..4 {
        let status = served.send(client.get(served.url("/v1/hosts")).bearer_auth("guess")).unwrap().status;
        assert!([StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&status));
    }
    assert_limited(&served.send(client.get(served.url("/v1/hosts")).bearer_auth(&served.admin)).unwrap());
}
