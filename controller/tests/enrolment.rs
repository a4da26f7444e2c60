//! How hosts come in.

mod common;

use std::sync::Arc;

use common::Hand;
use common::scene::{Scene, enrol, host, newcomer, take};
use controller::authority::Denied;
use controller::enrolment::{self, Terms, TokenError};
use controller::store::{Memory, Sqlite, Store, Which};
use manifests::Nonce;

fn terms(hosts: u32) -> Terms {
    Terms {
        groups: vec!["web".parse().unwrap()],
        domain: "rack-7".parse().unwrap(),
        role: "front".parse().unwrap(),
        hosts,
        expires: "2026-11-03T00:00:00Z".parse().unwrap(),
    }
}

fn token_error<T: std::fmt::Debug>(answer: Result<T, Denied>) -> TokenError {
    match answer {
        Err(Denied::Token(error)) => error,
        other => panic!("expected a refused token, found {other:?}"),
    }
}

#[test]
fn a_token_lets_in_as_many_hosts_as_it_says_with_what_it_says() {
    let clock = Arc::new(Hand::new());
    let store: Arc<dyn Store> = Arc::new(Memory::new(clock.clone()));
    let authority = take(&store, &clock, "one").unwrap();
    let by = "anna".parse().unwrap();
    let token = enrolment::make(&authority, &terms(2), &by).unwrap();
    let first = enrolment::enrol(&authority, &token, &newcomer(1)).unwrap();
    assert_eq!((first.id, first.domain.as_str(), first.role.as_str()), (host(1), "rack-7", "front"));
    assert_eq!(first.groups, terms(2).groups);
    // The answer got lost: the same host asks again, and uses nothing up.
    let size = store.size().unwrap();
    assert_eq!(enrolment::enrol(&authority, &token, &newcomer(1)).unwrap(), first);
    assert_eq!(store.size().unwrap(), size);
    enrolment::enrol(&authority, &token, &newcomer(2)).unwrap();
    assert_eq!(token_error(enrolment::enrol(&authority, &token, &newcomer(3))), TokenError::Unknown);
    let guess = Nonce::from_bytes([7; 16]);
    assert_eq!(token_error(enrolment::enrol(&authority, &guess, &newcomer(3))), TokenError::Unknown);
    let other = enrolment::make(&authority, &terms(1), &by).unwrap();
    assert_ne!(other, token);
    assert_eq!(token_error(enrolment::enrol(&authority, &other, &newcomer(1))), TokenError::Enrolled);
    assert_eq!(token_error(enrolment::make(&authority, &terms(0), &by)), TokenError::Useless);
    clock.pass(24 * 3600);
    authority.retake().unwrap();
    let expires = terms(1).expires;
    assert_eq!(
        token_error(enrolment::enrol(&authority, &other, &newcomer(4))),
        TokenError::Expired { expires }
    );
    assert_eq!(token_error(enrolment::make(&authority, &terms(1), &by)), TokenError::Useless);
}

#[test]
fn a_token_for_one_lets_one_in_however_many_ask_at_once() {
    let scene = Scene::new();
    let token = enrolment::make(&scene.authority, &terms(1), &"anna".parse().unwrap()).unwrap();
    let good = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let (authority, token) = (&scene.authority, &token);
            move || enrolment::enrol(authority, token, &newcomer(number)).is_ok()
        };
        let all: Vec<_> = (900..920).map(|number| scope.spawn(ask(number))).collect();
        all.into_iter().map(|one| usize::from(one.join().unwrap())).sum::<usize>()
    });
    assert_eq!(good, 1);
}

#[test]
fn no_file_of_the_store_contains_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand::new());
    let sqlite = Sqlite::open(&directory.path().join("c.sqlite"), clock.clone()).unwrap();
    let store: Arc<dyn Store> = Arc::new(sqlite);
    let authority = take(&store, &clock, "one").unwrap();
    let token = enrolment::make(&authority, &terms(1), &"anna".parse().unwrap()).unwrap();
    enrolment::enrol(&authority, &token, &newcomer(1)).unwrap();
    let text = token.to_string();
    let raw: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    let hash = enrolment::hash(&token).to_string();
    let mut hashed = 0;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|found| found == wanted);
        assert!(!has(text.as_bytes()) && !has(&raw));
        hashed += usize::from(has(hash.as_bytes()));
    }
    assert!(hashed > 0, "its hash is there");
}

#[test]
fn who_made_a_token_and_who_came_in_by_it_stands_in_the_ledger() {
    let scene = Scene::new();
    enrol(&scene.authority, 300).unwrap();
    let stream = Which::Stream(controller::authority::facts::of_hosts());
    let entries = scene.store.entries(&stream, usize::MAX).unwrap();
    let text: Vec<_> =
        entries.iter().map(|(_, entry)| String::from_utf8(entry.body.clone()).unwrap()).collect();
    let (made, came) = (&text[text.len() - 2], &text[text.len() - 1]);
    assert!(made.contains("\"token-made\"") && made.contains("\"anna\""), "{made}");
    assert!(came.contains("\"enrolled\"") && came.contains(&host(300).to_string()), "{came}");
}
