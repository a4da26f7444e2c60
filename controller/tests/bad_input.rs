//! What hosts, and whoever says to be one, could do to a controller over the network: each is answered, changes nothing that
//! it should not, and keeps nobody else out.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use common::scene;
use common::served::{Machine, Served, Wire, rest};
use controller::authority::facts::Departure;
use controller::certificates::HostRequest;
use controller::server::limits::Limits;
use controller::store::Memory;
use fleet::protocol::{
    AttemptReport, BeginAnswer, BeginRequest, Certificate, Challenge, Denial, FactsWanted, Heard, Hint, Poll,
    Renew, Report, Version, paths,
};
use fleet::rollout::{Action, Fault, HostState, Outcome, Said, Stage};
use jiff::{SignedDuration, Timestamp};
use manifests::{
    DocumentKind, Envelope, Grant, HostId, Nonce, Rollout, Sha256, TrustFloor, UtcTime, Verified, VerifyAt,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use system::clock::{Clock, SystemClock};

const POLICY: &str = "schema: 1\nselector: {groups: [fleet]}\nwaves: {start_over: 0s, bake: 1h, largest: 100%}\n\
                      caps: {fleet: 100%, domain: 100%}\n";

/// The machine's clock, and so many hours beside it.
struct Skewed(i64);

impl Clock for Skewed {
    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_hours(self.0)
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

/// A signed rollout for these hosts that all may begin, by whatever clock.
fn document(name: &str, hosts: &[HostId]) -> (Envelope, Verified<Rollout>) {
    let now = SystemClock.now();
    let at = |hours| UtcTime::floor(now + SignedDuration::from_hours(hours));
    let first: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let text = format!(
        "schema: 1\nname: {name}\nmanifest: {}\npolicy: {}\nissued: {}\nexpires: {}\nsummary: A fix\n\
         groups: [fleet]\nschedule:\n  not_before: {}\n  first: [{}]\n  \
         then: [{{millionths: 1000000, not_before: {}}}]\nrollback: {{within: 7d}}\n",
        Sha256::of(name.as_bytes()),
        Sha256::of(POLICY.as_bytes()),
        at(-48),
        at(24 * 40),
        at(-47),
        first.join(", "),
        at(-46),
    );
    let mut envelope = Envelope::new(DocumentKind::Rollout, text.into_bytes());
    envelope.sign(&scene::secret("anna")).unwrap();
    let document = scene::trust().verify(&envelope, VerifyAt { now, floor: &TrustFloor::default() }).unwrap();
    (envelope, document)
}

/// A fleet of two with a rollout that both could begin.
struct Fleet {
    served: Served,
    hosts: [Machine; 2],
    rollout: Sha256,
}

impl Fleet {
    fn new(hours: i64) -> Self {
        let clock = Arc::new(Skewed(hours));
        let served = Served::over(Arc::new(Memory::new(clock.clone())), clock, Limits::default());
        let hosts = [Machine::member(&served), Machine::member(&served)];
        let mut fleet = Self { served, hosts, rollout: Sha256::of(b"") };
        fleet.rollout = fleet.submit("fix");
        fleet
    }

    fn submit(&self, name: &str) -> Sha256 {
        let (envelope, document) = document(name, &[self.hosts[0].host, self.hosts[1].host]);
        self.served.controller.authority.submit(&envelope, &document, POLICY, 1).unwrap();
        let rollout = document.digest();
        self.until(rollout, &Stage::Running);
        rollout
    }

    fn until(&self, rollout: Sha256, stage: &Stage) {
        let there = (0..600).any(|_| {
            SystemClock.sleep(Duration::from_millis(100));
            self.served.controller.authority.standing(rollout).unwrap().0 == *stage
        });
        assert!(there, "{:?}", self.served.controller.authority.standing(rollout));
    }

    /// A host of the wave that is open, and the other one.
    fn first(&self) -> (&Machine, &Machine) {
        let [one, two] = &self.hosts;
        let offered = (0..600).find_map(|_| {
            SystemClock.sleep(Duration::from_millis(100));
            let has = |host: &Machine| !poll(&self.served, host).offers.is_empty();
            (has(one)).then_some((one, two)).or_else(|| has(two).then_some((two, one)))
        });
        offered.expect("somebody is offered it")
    }

    fn state(&self, host: &Machine) -> HostState {
        self.served.controller.authority.host_state(self.rollout, host.host).unwrap().unwrap()
    }

    fn report(&self, host: &Machine, attempts: Vec<AttemptReport>) -> Heard {
        let report = Report { version: Version, number: 1, attempts, facts: None };
        host.say(&self.served, paths::REPORT, &report).unwrap()
    }

    fn attempt(&self, nonce: Option<Nonce>, said: Said) -> AttemptReport {
        AttemptReport { rollout: self.rollout, nonce, said, transaction: None, fingerprint: None }
    }

    fn begin(
        &self,
        host: &Machine,
        rollout: Sha256,
        nonce: Nonce,
        epoch: u64,
    ) -> Result<BeginAnswer, (StatusCode, String)> {
        let request = BeginRequest { version: Version, rollout, action: Action::Apply, nonce, epoch };
        host.say(&self.served, paths::BEGIN, &request)
    }
}

fn nonce(number: u8) -> Nonce {
    Nonce::from_bytes([number; 16])
}

fn question(host: &Machine) -> Poll {
    Poll { version: Version, boot: nonce(7), epoch: 0, facts: Some(host.facts().digest()) }
}

fn poll(served: &Served, host: &Machine) -> Hint {
    host.say(served, paths::POLL, &question(host)).unwrap()
}

fn bytes(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap()
}

/// Asks once more over a connection that stays; the status of the answer.
fn again(wire: &mut BufReader<Wire>, path: &str, body: &[u8]) -> u16 {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    wire.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut line = String::new();
    wire.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    let mut length = 0;
    while line.trim() != "" {
        line.clear();
        wire.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    wire.read_exact(&mut vec![0; length]).unwrap();
    status
}

#[test]
fn a_host_that_is_revoked_between_two_requests_of_one_connection_is_answered_nothing_more() {
    let fleet = Fleet::new(0);
    let host = &fleet.hosts[0];
    let mut wire = BufReader::new(fleet.served.wire(Some(&host.identity)));
    let poll = bytes(&question(host));
    assert_eq!(again(&mut wire, paths::POLL, &poll), 200);
    assert_eq!(again(&mut wire, paths::POLL, &poll), 200);
    let by = "admin".parse().unwrap();
    fleet.served.controller.authority.dismiss(host.host, Departure::Revoked, &by).unwrap();
    let begin = BeginRequest {
        version: Version,
        rollout: fleet.rollout,
        action: Action::Apply,
        nonce: nonce(1),
        epoch: 0,
    };
    let report = Report { version: Version, number: 1, attempts: Vec::new(), facts: Some(host.facts()) };
    for (path, body) in [(paths::POLL, poll), (paths::BEGIN, bytes(&begin)), (paths::REPORT, bytes(&report))]
    {
        assert_eq!(again(&mut wire, path, &body), 403, "{path}");
    }
    // Nor does it fetch anything, or get another certificate.
    let client = fleet.served.client("127.0.0.1", Some(&host.identity));
    let content = format!("{}{}", paths::CONTENT, fleet.rollout);
    assert_eq!(fleet.served.get(&client, &content).status, StatusCode::FORBIDDEN);
    assert_eq!(renew(&fleet.served, host).unwrap_err().0, StatusCode::FORBIDDEN);
    assert!(
        fleet.served.controller.authority.hosts().unwrap().iter().all(|known| known.host.id != host.host)
    );
}

fn renew(served: &Served, host: &Machine) -> Result<Certificate, (StatusCode, String)> {
    let client = served.client("127.0.0.1", None);
    let challenge: Challenge = fleet::protocol::read(&served.get(&client, paths::CHALLENGE).body).unwrap();
    let signature = rcgen::SigningKey::sign(&host.key, challenge.nonce.to_string().as_bytes()).unwrap();
    let (request, signature) = (host.request(), hex::encode(signature));
    let question = Renew { version: Version, request, nonce: challenge.nonce, signature };
    let answer = served.send(client.post(served.url(paths::RENEW)).body(bytes(&question))).unwrap();
    match answer.status.is_success() {
        true => Ok(fleet::protocol::read(&answer.body).unwrap()),
        false => Err((answer.status, answer.words())),
    }
}

#[test]
fn a_certificate_that_ran_out_or_is_another_fleets_does_not_connect_and_its_key_comes_back() {
    let served = Served::new(Limits::default());
    let mut host = Machine::member(&served);
    let past = UtcTime::floor(SystemClock.now() - SignedDuration::from_hours(31 * 24));
    let request = HostRequest::read(&host.request()).unwrap();
    let expired = served.controller.certificates.host(&request, past).unwrap();
    host.identity = host.key.serialize_pem() + &expired;
    let elsewhere = Machine::member(&Served::new(Limits::default()));
    for identity in [&host.identity, &elsewhere.identity] {
        let client = served.client("127.0.0.1", Some(identity));
        let sent = served.send(client.post(served.url(paths::POLL)).body(bytes(&question(&host))));
        assert!(sent.is_err(), "{sent:?}");
    }
    assert_eq!(renew(&served, &host).unwrap().host, host.host);
}

#[test]
fn a_grant_is_for_one_host_one_rollout_and_one_attempt_and_a_replay_of_the_question_gets_the_same_bytes() {
    let fleet = Fleet::new(0);
    let (first, other) = fleet.first();
    assert_eq!(fleet.report(first, vec![fleet.attempt(None, Said::Ready)]).news, [true]);
    let BeginAnswer::Granted { grant, .. } = fleet.begin(first, fleet.rollout, nonce(1), 0).unwrap() else {
        panic!("it may begin")
    };
    let replayed = fleet.begin(first, fleet.rollout, nonce(1), 0).unwrap();
    assert!(matches!(&replayed, BeginAnswer::Granted { grant: again, .. } if *again == grant));
    let not_now = |answer: Result<BeginAnswer, (StatusCode, String)>| match answer.unwrap() {
        BeginAnswer::NotNow { because, .. } => because,
        granted => panic!("{granted:?}"),
    };
    // Another attempt, somebody else with the same nonce, and the same nonce for another rollout.
    assert!(not_now(fleet.begin(first, fleet.rollout, nonce(2), 0)).contains("another attempt"));
    not_now(fleet.begin(other, fleet.rollout, nonce(1), 0));
    let second = fleet.submit("another");
    not_now(fleet.begin(first, second, nonce(1), 0));
    // A rollout that there is not, and an epoch that cannot be.
    assert_eq!(fleet.begin(first, Sha256::of(b"none"), nonce(3), 0).unwrap_err().0, StatusCode::NOT_FOUND);
    let ahead = fleet.begin(first, fleet.rollout, nonce(1), u64::MAX).unwrap_err();
    assert!(ahead.0 == StatusCode::UNPROCESSABLE_ENTITY && ahead.1.contains("epoch"), "{ahead:?}");
    // When it has ended, its nonce begins nothing more.
    assert_eq!(fleet.report(first, vec![fleet.attempt(Some(nonce(1)), Said::Applied)]).news, [true]);
    not_now(fleet.begin(first, fleet.rollout, nonce(1), 0));
}

#[test]
fn a_lying_host_changes_nothing_but_what_is_said_of_itself() {
    let fleet = Fleet::new(0);
    let (first, other) = fleet.first();
    let before = (fleet.state(first), fleet.state(other));
    // Of attempts that it never had, and of a rollout that there is not.
    let lies = [
        Said::Applied,
        Said::Hurt { fault: Fault::Splat },
        Said::RolledBack,
        Said::NotRolledBack,
        Said::Declined { outcome: Outcome::NotNeeded },
    ];
    for said in lies {
        let heard = fleet.report(other, vec![fleet.attempt(Some(nonce(9)), said)]);
        assert_eq!(heard.news, [false], "{said:?}");
    }
    let nowhere = AttemptReport { rollout: Sha256::of(b"none"), ..fleet.attempt(None, Said::Ready) };
    assert_eq!(fleet.report(other, vec![nowhere]).news, [false]);
    assert_eq!((fleet.state(first), fleet.state(other)), before);
    // Once another one has begun, with that one's nonce.
    fleet.report(first, vec![fleet.attempt(None, Said::Ready)]);
    assert!(matches!(fleet.begin(first, fleet.rollout, nonce(1), 0), Ok(BeginAnswer::Granted { .. })));
    let granted = fleet.state(first);
    assert_eq!(fleet.report(other, vec![fleet.attempt(Some(nonce(1)), Said::Applied)]).news, [false]);
    assert_eq!((fleet.state(first), fleet.state(other)), (granted, before.1));
    // In another one's name: there is no field for that.
    let mut forged: Value = serde_json::to_value(fleet.attempt(Some(nonce(1)), Said::Applied)).unwrap();
    forged["host"] = json!(first.host);
    let report = json!({"version": 1, "number": 2, "attempts": [forged]});
    let answer = other.ask(&fleet.served, paths::REPORT, report.to_string());
    assert!(answer.status == StatusCode::BAD_REQUEST && answer.words().contains("unknown field `host`"));
    // Numbers that cannot grow, and facts that are not what their digest says, cost nobody but itself anything.
    let report =
        Report { version: Version, number: u64::MAX, attempts: Vec::new(), facts: Some(other.facts()) };
    assert!(other.say::<Heard>(&fleet.served, paths::REPORT, &report).is_ok());
    let question = Poll { facts: Some(Sha256::of(b"a lie")), epoch: u64::MAX, ..question(other) };
    let hint: Hint = other.say(&fleet.served, paths::POLL, &question).unwrap();
    assert_eq!(hint.facts, FactsWanted::Yes);
    assert!(fleet.served.controller.authority.epoch() < 1000, "no host moves the epoch by a poll");
    assert_eq!(fleet.report(first, vec![fleet.attempt(Some(nonce(1)), Said::Applied)]).news, [true]);
}

#[test]
fn clocks_that_are_hours_off_take_nothing_away_and_give_nothing() {
    for hours in [-7, 7] {
        let fleet = Fleet::new(hours);
        let (first, _) = fleet.first();
        assert_eq!(renew(&fleet.served, first).unwrap().host, first.host, "{hours} h");
        assert_eq!(fleet.report(first, vec![fleet.attempt(None, Said::Ready)]).news, [true]);
        let BeginAnswer::Granted { grant, .. } = fleet.begin(first, fleet.rollout, nonce(1), 0).unwrap()
        else {
            panic!("{hours} h: it may begin")
        };
        // As a host reads it, whose clock is right.
        let envelope = Envelope::parse(grant.as_bytes()).unwrap();
        let at = VerifyAt { now: SystemClock.now(), floor: &TrustFloor::default() };
        let grant = scene::trust().verify::<Grant>(&envelope, at);
        assert_eq!(grant.unwrap().nonce, nonce(1), "{hours} h");
        assert_eq!(fleet.report(first, vec![fleet.attempt(Some(nonce(1)), Said::Applied)]).news, [true]);
    }
    // A token counts by the controller's clock: it made the token, and says when it ends.
    let clock = Arc::new(Skewed(7));
    let served = Served::over(Arc::new(Memory::new(clock.clone())), clock, Limits::default());
    let terms = |hours| {
        let expires = UtcTime::floor(SystemClock.now() + SignedDuration::from_hours(hours));
        json!({"groups": ["fleet"], "domain": "rack", "role": "db", "hosts": 1, "expires": expires})
            .to_string()
    };
    let client = served.client("127.0.0.1", None);
    let made = |hours| {
        let request = client.post(served.url("/v1/tokens")).bearer_auth(&served.admin).body(terms(hours));
        served.send(request).unwrap()
    };
    let late = made(6);
    assert!(
        late.status == StatusCode::FORBIDDEN && late.words().contains("a time to come"),
        "{}",
        late.words()
    );
    assert_eq!(made(8).status, StatusCode::OK);
}

#[test]
fn whoever_speaks_another_version_is_told_which_one_is_spoken_here() {
    let fleet = Fleet::new(0);
    let host = &fleet.hosts[0];
    let refused = |path: &str, body: &Value, words: &[&str]| {
        let answer = host.ask(&fleet.served, path, body.to_string());
        // In the words of this version, so that a newer one knows what it talks to.
        let denial: Denial = fleet::protocol::read(&answer.body).unwrap();
        assert!(words.iter().all(|word| denial.error.contains(word)), "{path}: {}", denial.error);
        answer.status
    };
    let poll = serde_json::to_value(question(host)).unwrap();
    let with = |value: &Value, key: &str, new: Value| {
        let mut value = value.clone();
        value[key] = new;
        value
    };
    // One forward: another path, another version, a field and a kind that are not known here.
    assert_eq!(refused("/v2/poll", &poll, &["nothing here"]), StatusCode::NOT_FOUND);
    let bad = StatusCode::BAD_REQUEST;
    assert_eq!(refused(paths::POLL, &with(&poll, "version", json!(2)), &["version 2", "expected 1"]), bad);
    assert_eq!(refused(paths::POLL, &with(&poll, "mood", json!("good")), &["unknown field `mood`"]), bad);
    let known = serde_json::to_value(fleet.attempt(None, Said::Ready)).unwrap();
    let kind = with(&known, "said", json!({"said": "thrilled"}));
    let report = json!({"version": 1, "number": 1, "attempts": [known, kind]});
    let before = fleet.state(host);
    assert_eq!(refused(paths::REPORT, &report, &["unknown variant `thrilled`"]), bad);
    assert_eq!(fleet.state(host), before, "half of a report is not heard");
    // One back: what came to a message later may be missing, what always was there may not.
    let mut older = poll.clone();
    older.as_object_mut().unwrap().remove("facts");
    let hint: Hint =
        fleet::protocol::read(&host.ask(&fleet.served, paths::POLL, older.to_string()).body).unwrap();
    assert_eq!(hint.facts, FactsWanted::Yes);
    older.as_object_mut().unwrap().remove("boot");
    assert_eq!(refused(paths::POLL, &older, &["missing field `boot`"]), bad);
    older.as_object_mut().unwrap().remove("version");
    assert_eq!(refused(paths::POLL, &older, &["missing field `version`"]), bad);
}

#[test]
fn what_is_no_question_is_refused_whatever_it_looks_like() {
    let fleet = Fleet::new(0);
    let host = &fleet.hosts[0];
    let poll = bytes(&question(host));
    let text = String::from_utf8(poll.clone()).unwrap();
    let nested = format!("{{\"version\":1,\"boot\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    let bodies: [Vec<u8>; 7] = [
        poll[..poll.len() / 2].to_vec(),
        [&poll[..], b" {}"].concat(),
        text.replace("\"epoch\":0", "\"epoch\":0,\"epoch\":1").into_bytes(),
        text.replace("\"epoch\":0", "\"epoch\":1e400").into_bytes(),
        text.replace("\"epoch\":0", "\"epoch\":\"\\u0000\"").into_bytes(),
        [b"\xef\xbb\xbf", &poll[..]].concat(),
        nested.into_bytes(),
    ];
    for body in bodies {
        let answer = host.ask(&fleet.served, paths::POLL, body.clone());
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(&body));
    }
    // Names in paths that are none, and ranges.
    let client = fleet.served.client("127.0.0.1", Some(&host.identity));
    for name in ["..%2f..%2fca.key", "%00", "A", &"g".repeat(64), &"a".repeat(65), "%ff"] {
        let answer = fleet.served.get(&client, &format!("{}{name}", paths::CONTENT));
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {}", answer.words());
        fleet::protocol::read::<Denial>(&answer.body).unwrap();
    }
    let payload = b"payload";
    let mut arriving = fleet.served.controller.content.begin(Sha256::of(payload)).unwrap();
    arriving.more(payload).unwrap();
    arriving.end().unwrap();
    let url = fleet.served.url(&format!("{}{}", paths::CONTENT, Sha256::of(payload)));
    for (range, status) in [
        ("bytes=7-", 206),
        ("bytes=8-", 416),
        ("bytes=-5", 400),
        ("bytes=0-1,3-4", 400),
        ("rows=1-", 400),
        ("bytes=99999999999999999999-", 400),
    ] {
        let answer = fleet.served.send(client.get(&url).header("range", range)).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{range}");
    }
    // Two lengths, a length that is none, and both ways to say where a body ends.
    for fields in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: -1",
        "Content-Length: 99999999999999999999",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
    ] {
        let mut wire = fleet.served.wire(Some(&host.identity));
        let head = format!("POST {} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{{}}", paths::POLL);
        wire.write_all(head.as_bytes()).unwrap();
        let answer = rest(&mut wire);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{fields}: {answer}");
    }
    // All of that cost nobody anything.
    assert_eq!(host.ask(&fleet.served, paths::POLL, poll).status, StatusCode::OK);
}
