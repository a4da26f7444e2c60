//! The agent between a controller and an executor that say what a test has them say: over real TLS and a real socket, on
//! loopback.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use controller::certificates::{CertificateAuthority, HostRequest};
use fleet::facts::{Change, ChangeOutcome, HostFacts, Probes};
use fleet::local::{Answer, Look, Membership, Question, Verdict};
use fleet::protocol::{
    AttemptReport, BeginAnswer, Certificate, Challenge, Enrol, FactsWanted, Heard, Hint, Offer, Report,
    Version, paths,
};
use fleet::rollout::{Action, Fault, Outcome, Said};
use manifests::{DocumentKind, Envelope, HostId, Nonce, Period, Sha256, UtcTime};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use update_agent::client::ClientError;
use update_agent::enrol::{EnrolError, Invitation, enrol};
use update_agent::executor::Executor;
use update_agent::identity::{Directory, Identity};
use update_agent::memory::{Memory, Phase};
use update_agent::run::{Agent, MEMORY};

fn now() -> UtcTime {
    UtcTime::floor(jiff::Timestamp::now())
}

fn facts() -> HostFacts {
    HostFacts::new("one".parse().unwrap(), "6.1.0-50-amd64".parse().unwrap(), "cpu".parse().unwrap())
}

/// What the controller says and hears.
struct Controller {
    authority: CertificateAuthority,
    offers: Mutex<Vec<Offer>>,
    stop: Mutex<Vec<Sha256>>,
    manifests: Mutex<Vec<Sha256>>,
    /// How long until the next poll, in seconds.
    again: Mutex<u32>,
    begin: Mutex<VecDeque<Reply>>,
    content: Mutex<BTreeMap<Sha256, Vec<u8>>>,
    /// After so many bytes of content the connection breaks, once.
    breaks: Mutex<Option<usize>>,
    ranges: Mutex<Vec<String>>,
    /// So often nothing is looked at, wherever it is asked.
    limited: Mutex<BTreeMap<&'static str, u32>>,
    /// Answers to polls as controllers of other versions give them; nothing: as this one does.
    newer: Mutex<VecDeque<Option<&'static str>>>,
    /// When polls came.
    polls: Mutex<Vec<jiff::Timestamp>>,
    reports: Mutex<mpsc::Sender<AttemptReport>>,
    heard: Mutex<Vec<Report>>,
}

#[derive(Clone)]
enum Reply {
    Grant,
    NotNow,
    /// In words of a version to come.
    Newer,
    /// It writes a grant down, and nobody hears it.
    Lost,
}

struct Request {
    path: String,
    range: Option<String>,
    body: Vec<u8>,
    host: Option<HostId>,
}

impl Controller {
    fn hint(&self) -> Hint {
        Hint {
            version: Version,
            again: Period::from_secs(*self.again.lock().unwrap()),
            offers: self.offers.lock().unwrap().clone(),
            stop: self.stop.lock().unwrap().clone(),
            facts: FactsWanted::No,
            manifests: self.manifests.lock().unwrap().clone(),
        }
    }

    /// The body of an answer; nothing breaks the connection.
    fn answer(&self, request: &Request) -> Option<(u16, Vec<u8>)> {
        let json = |value: serde_json::Value| Some((200, serde_json::to_vec(&value).unwrap()));
        let said = |message: &dyn erased| json(message.value());
        let certificate = |request: &str| {
            let request = HostRequest::read(request).unwrap();
            Certificate {
                version: Version,
                chain: self.authority.host(&request, now()).unwrap(),
                host: request.host,
                groups: vec!["web".parse().unwrap()],
                renew_at: UtcTime::floor(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(15 * 24)),
            }
        };
        if request.path == paths::POLL {
            self.polls.lock().unwrap().push(jiff::Timestamp::now());
        }
        let mut limited = self.limited.lock().unwrap();
        let path = |(path, _): &(&&str, &mut u32)| request.path.starts_with(**path);
        if let Some((_, times)) = limited.iter_mut().find(path)
            && *times > 0
        {
            *times -= 1;
            return Some((429, b"{\"version\":1,\"error\":\"too many\"}".to_vec()));
        }
        drop(limited);
        match request.path.as_str() {
            paths::ENROL => {
                let enrol: Enrol = serde_json::from_slice(&request.body).unwrap();
                said(&certificate(&enrol.request))
            }
            paths::CHALLENGE => said(&Challenge { version: Version, nonce: Nonce::from_bytes([9; 16]) }),
            paths::RENEW => {
                let renew: fleet::protocol::Renew = serde_json::from_slice(&request.body).unwrap();
                let read = HostRequest::read(&renew.request).unwrap();
                assert!(
                    read.signed(renew.nonce.to_string().as_bytes(), &hex::decode(renew.signature).unwrap())
                );
                said(&certificate(&renew.request))
            }
            _ if request.host.is_none() => Some((401, b"{\"version\":1,\"error\":\"who\"}".to_vec())),
            paths::POLL => match self.newer.lock().unwrap().pop_front().flatten() {
                Some(answer) => Some((200, answer.to_owned().into_bytes())),
                None => said(&self.hint()),
            },
            paths::REPORT => {
                let report: Report = fleet::protocol::read(&request.body).unwrap();
                for attempt in &report.attempts {
                    self.reports.lock().unwrap().send(attempt.clone()).unwrap();
                }
                let news = vec![true; report.attempts.len()];
                self.heard.lock().unwrap().push(report);
                said(&Heard { version: Version, news })
            }
            paths::BEGIN => match self.begin.lock().unwrap().pop_front().unwrap_or(Reply::NotNow) {
                Reply::Grant => {
                    self.offers.lock().unwrap().clear();
                    said(&BeginAnswer::Granted { version: Version, grant: "a grant".to_owned() })
                }
                Reply::NotNow => said(&BeginAnswer::NotNow {
                    version: Version,
                    because: "not yet".to_owned(),
                    again: Period::from_secs(1),
                }),
                Reply::Newer => {
                    json(serde_json::json!({"answer": "later", "version": 2, "grant": "a grant"}))
                }
                Reply::Lost => None,
            },
            path => {
                let digest: Sha256 = path.strip_prefix(paths::CONTENT)?.parse().unwrap();
                let Some(content) = self.content.lock().unwrap().get(&digest).cloned() else {
                    return Some((404, b"{\"version\":1,\"error\":\"not here\"}".to_vec()));
                };
                match &request.range {
                    None => Some((200, content)),
                    Some(range) => {
                        self.ranges.lock().unwrap().push(range.clone());
                        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().unwrap();
                        Some((206, content[from..].to_vec()))
                    }
                }
            }
        }
    }
}

/// Any message as JSON.
#[expect(non_camel_case_types, reason = "a word in a test")]
trait erased {
    fn value(&self) -> serde_json::Value;
}

impl<T: serde::Serialize> erased for T {
    fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap()
    }
}

fn read_request(stream: &mut impl std::io::Read, host: Option<HostId>) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut range) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "range" => range = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, range, body, host })
}

/// Serves for as long as the test runs; its address.
fn serve(controller: &Arc<Controller>) -> String {
    let (chain, key) = controller.authority.server(&["localhost".to_owned()], now()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(controller.authority.der().clone()).unwrap();
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let controller = controller.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            // The handshake is made by the first read.
            if tls.conn.complete_io(&mut tls.sock).is_err() {
                continue;
            }
            let host = tls.conn.peer_certificates().and_then(<[_]>::first);
            let host = host.map(|certificate| controller::certificates::host_of(certificate).unwrap());
            let Some(request) = read_request(&mut tls, host) else { continue };
            let Some((status, body)) = controller.answer(&request) else { continue };
            let head = format!(
                "HTTP/1.1 {status} X\r\nRetry-After: 2\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let breaks = if request.path.starts_with(paths::CONTENT) && body.len() > 4096 {
                controller.breaks.lock().unwrap().take()
            } else {
                None
            };
            let _ = tls.write_all(head.as_bytes());
            let _ = tls.write_all(&body[..breaks.unwrap_or(body.len())]);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    });
    address
}

/// What the executor answers to begin, outcome and preflight, and what it was asked.
struct Root {
    ready: Mutex<Said>,
    begun: Mutex<Said>,
    outcome: Mutex<Answer>,
    facts: Mutex<HostFacts>,
    asked: Mutex<Vec<Question>>,
}

fn verdict(said: Said, why: &str) -> Answer {
    Answer::Said(Verdict { said, why: why.to_owned(), transaction: None })
}

impl Root {
    fn answer(&self, question: Question, host: Option<HostId>) -> Answer {
        self.asked.lock().unwrap().push(question.clone());
        match question {
            Question::Look { .. } => Answer::Host(Box::new(Look {
                host,
                groups: Vec::new(),
                facts: self.facts.lock().unwrap().clone(),
                boot: Nonce::from_bytes([5; 16]),
                epoch: 3,
            })),
            Question::Preflight { what } => {
                assert!(what.spool.is_dir());
                verdict(*self.ready.lock().unwrap(), "")
            }
            Question::Attempt { .. } => {
                let count = self.asked.lock().unwrap().len();
                Answer::Nonce { nonce: Nonce::from_bytes([u8::try_from(count).unwrap(); 16]) }
            }
            Question::Begin { grant, .. } => {
                assert_eq!(grant, "a grant", "it is handed on as it is");
                verdict(*self.begun.lock().unwrap(), "because of 17 reasons")
            }
            Question::Outcome { .. } => self.outcome.lock().unwrap().clone(),
            Question::Stop { .. } => Answer::Stopped,
        }
    }

    fn asked(&self, what: impl Fn(&Question) -> bool) -> usize {
        self.asked.lock().unwrap().iter().filter(|question| what(question)).count()
    }
}

struct Scene {
    directory: tempfile::TempDir,
    controller: Arc<Controller>,
    root: Arc<Root>,
    address: String,
    reports: mpsc::Receiver<AttemptReport>,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::open(directory.path(), now()).unwrap();
        let (sender, reports) = mpsc::channel();
        let controller = Arc::new(Controller {
            authority,
            offers: Mutex::default(),
            stop: Mutex::default(),
            manifests: Mutex::default(),
            again: Mutex::new(1),
            begin: Mutex::default(),
            content: Mutex::default(),
            breaks: Mutex::default(),
            ranges: Mutex::default(),
            limited: Mutex::default(),
            newer: Mutex::default(),
            polls: Mutex::default(),
            reports: Mutex::new(sender),
            heard: Mutex::default(),
        });
        let root = Arc::new(Root {
            ready: Mutex::new(Said::Ready),
            begun: Mutex::new(Said::Applied),
            outcome: Mutex::new(Answer::NeverBegan),
            facts: Mutex::new(facts()),
            asked: Mutex::default(),
        });
        let address = serve(&controller);
        let listener = UnixListener::bind(directory.path().join("executor.sock")).unwrap();
        let answers = root.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let answer = answers.answer(serde_json::from_str(&line).unwrap(), None);
                let _ = writeln!(stream, "{}", serde_json::to_string(&answer).unwrap());
            }
        });
        std::fs::create_dir(directory.path().join("agent")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { directory, controller, root, address, reports, runtime }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    fn executor(&self) -> Executor {
        Executor { socket: self.directory.path().join("executor.sock") }
    }

    fn enrol(&self, fingerprint: Sha256) -> Result<Membership, EnrolError> {
        let directory = Directory(self.home());
        let identity = Identity::open(&directory).unwrap();
        let token = Nonce::from_bytes([8; 16]);
        let invitation = Invitation { controller: &self.address, token, fingerprint };
        let settings = self.directory.path().join("fleet.yaml");
        self.runtime.block_on(enrol(&invitation, &directory, &identity, &self.executor(), &settings))
    }

    fn member(&self) -> Membership {
        self.enrol(self.controller.authority.fingerprint()).unwrap()
    }

    /// Offers a rollout with one payload.
    fn offer(&self, payload: &[u8]) -> Sha256 {
        let text = include_str!("../../manifests/examples/greet.yaml");
        let mut document: serde_json::Value = manifests::yaml::from_slice(text.as_bytes(), 1 << 20).unwrap();
        let components = document["components"].as_array_mut().unwrap();
        components.truncate(1);
        components[0]["payload"] =
            serde_json::json!({"file": "fix.ko", "sha256": Sha256::of(payload), "size": payload.len()});
        let manifest = Envelope::new(DocumentKind::Manifest, serde_json::to_vec(&document).unwrap());
        let rollout =
            Envelope::new(DocumentKind::Rollout, b"a rollout, which the agent does not read".to_vec());
        let mut content = self.controller.content.lock().unwrap();
        content.insert(Sha256::of(payload), payload.to_vec());
        for envelope in [&manifest, &rollout] {
            content.insert(envelope.payload_digest(), envelope.to_json().into_bytes());
        }
        let (rollout, manifest) = (rollout.payload_digest(), manifest.payload_digest());
        *self.controller.offers.lock().unwrap() =
            vec![Offer { rollout, manifest, action: Action::Apply, earliest: now() }];
        rollout
    }

    /// Runs the agent until that many reports of attempts were heard.
    fn run(&self, member: &Membership, reports: usize) -> Vec<AttemptReport> {
        let mut heard = Vec::new();
        self.run_until(member, || {
            heard.extend(self.reports.try_recv());
            heard.len() >= reports
        });
        heard
    }

    /// Runs the agent for so many polls more.
    fn poll(&self, member: &Membership, polls: usize) {
        let until = self.controller.polls.lock().unwrap().len() + polls;
        self.run_until(member, || self.controller.polls.lock().unwrap().len() >= until);
    }

    /// The facts that were heard.
    fn told(&self) -> Vec<HostFacts> {
        self.controller.heard.lock().unwrap().iter().filter_map(|report| report.facts.clone()).collect()
    }

    fn run_until(&self, member: &Membership, mut is_over: impl FnMut() -> bool) {
        let agent = Agent::new(self.home(), member.clone(), self.executor()).unwrap();
        let end = async {
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let patience = Duration::from_secs(60);
        self.runtime
            .block_on(async { tokio::time::timeout(patience, agent.run(end)).await })
            .unwrap_or_else(|_| panic!("asked: {:?}", self.root.asked.lock().unwrap()));
    }

    fn memory(&self) -> Memory {
        Memory::read(&self.home().join(MEMORY)).unwrap()
    }
}

#[test]
fn a_host_comes_in_by_a_token_and_a_fingerprint_and_twice_is_once() {
    let scene = Scene::new();
    let refused = scene.enrol(Sha256::of(b"another authority")).unwrap_err();
    assert!(matches!(refused, EnrolError::Client(ClientError::Reach { .. })), "{refused:?}");
    assert!(!scene.directory.path().join("fleet.yaml").exists());
    let member = scene.member();
    assert_eq!(scene.member(), member, "the same key");
    let bytes = std::fs::read(scene.directory.path().join("fleet.yaml")).unwrap();
    assert_eq!(Membership::parse(&bytes).unwrap(), member);
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["key.pem", "certificate.pem", "ca.pem", MEMORY] {
        assert_eq!(mode(scene.home().join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(scene.directory.path().join("fleet.yaml")), 0o644);
    // For whoever fetches from a repository that the controller serves, as nobody.
    let authority = scene.directory.path().join("fleet-ca.pem");
    assert_eq!(std::fs::read(&authority).unwrap(), std::fs::read(scene.home().join("ca.pem")).unwrap());
    assert_eq!(mode(authority), 0o644);
    assert!(scene.memory().renew_at.unwrap() > now());
}

#[test]
fn an_offer_is_fetched_over_a_break_judged_begun_and_told() {
    let scene = Scene::new();
    let member = scene.member();
    let payload: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
    let rollout = scene.offer(&payload);
    *scene.controller.breaks.lock().unwrap() = Some(30_000);
    scene.controller.begin.lock().unwrap().extend([Reply::NotNow, Reply::Grant]);
    *scene.root.outcome.lock().unwrap() = verdict(Said::Applied, "");
    let heard = scene.run(&member, 2);
    assert_eq!(heard.iter().map(|report| report.said).collect::<Vec<_>>(), [Said::Ready, Said::Applied]);
    assert_eq!((heard[0].nonce, heard[1].rollout), (None, rollout));
    assert_eq!(*scene.controller.ranges.lock().unwrap(), ["bytes=30000-"]);
    let spooled = scene.home().join("spool").join(rollout.to_string()).join(Sha256::of(&payload).to_string());
    assert_eq!(std::fs::read(spooled).unwrap(), payload);
    assert_eq!(scene.root.asked(|asked| matches!(asked, Question::Preflight { .. })), 1, "it stays ready");
    assert_eq!(scene.root.asked(|asked| matches!(asked, Question::Begin { .. })), 1);
    let memory = scene.memory();
    assert_eq!(memory.attempts.len(), 1, "one was not now");
    assert_eq!(Some(memory.attempts[0].nonce), heard[1].nonce);
    let numbers: Vec<u64> =
        scene.controller.heard.lock().unwrap().iter().map(|report| report.number).collect();
    assert_eq!(numbers, [1, 2]);
    // While it bakes, the kernel complains.
    *scene.root.outcome.lock().unwrap() = verdict(Said::Hurt { fault: Fault::Splat }, "taint 512");
    let heard = scene.run(&member, 1);
    assert_eq!(heard[0].said, Said::Hurt { fault: Fault::Splat });
    assert_eq!(heard[0].fingerprint, Some(Sha256::of(b"taint 000")));
    assert_eq!(scene.memory().attempts[0].phase, Phase::Told);
}

#[test]
fn what_the_executor_declines_is_told_in_its_own_words_and_not_as_busy() {
    let scene = Scene::new();
    let member = scene.member();
    scene.offer(b"payload");
    scene.controller.begin.lock().unwrap().push_back(Reply::Grant);
    let forged = Said::Declined { outcome: Outcome::NotAuthentic };
    *scene.root.begun.lock().unwrap() = forged;
    let heard = scene.run(&member, 2);
    assert_eq!(heard[1].said, forged);
    assert!(heard[1].nonce.is_some() && heard[1].fingerprint.is_some());
}

#[test]
fn a_grant_that_was_lost_on_the_way_is_closed() {
    let scene = Scene::new();
    let member = scene.member();
    scene.offer(b"payload");
    scene.controller.begin.lock().unwrap().push_back(Reply::Lost);
    let heard = scene.run(&member, 2);
    assert_eq!(heard[1].said, Said::Declined { outcome: Outcome::Busy });
    assert!(heard[1].nonce.is_some());
    assert_eq!(scene.root.asked(|asked| matches!(asked, Question::Begin { .. })), 0);
}

#[test]
fn an_agent_that_died_in_the_middle_asks_what_became_of_it_and_hands_stops_on() {
    let scene = Scene::new();
    let member = scene.member();
    let (rollout, nonce) = (Sha256::of(b"rollout"), Nonce::from_bytes([3; 16]));
    let mut memory = scene.memory();
    memory.attempt(rollout, Action::Rollback, nonce, now());
    // Its certificate is due, too.
    memory.renew_at = Some(now());
    memory.write(&scene.home().join(MEMORY)).unwrap();
    let before = std::fs::read_to_string(scene.home().join("certificate.pem")).unwrap();
    *scene.root.outcome.lock().unwrap() = verdict(Said::RolledBack, "");
    *scene.controller.stop.lock().unwrap() = vec![rollout];
    let heard = scene.run(&member, 1);
    assert_eq!((heard[0].said, heard[0].nonce), (Said::RolledBack, Some(nonce)));
    assert_ne!(std::fs::read_to_string(scene.home().join("certificate.pem")).unwrap(), before);
    assert!(scene.memory().renew_at.unwrap() > now());
}

#[test]
fn what_is_not_what_its_digest_says_is_not_kept() {
    let scene = Scene::new();
    let member = scene.member();
    let rollout = scene.offer(b"the payload");
    scene.controller.content.lock().unwrap().insert(Sha256::of(b"the payload"), b"the pAyload".to_vec());
    let agent = Agent::new(scene.home(), member, scene.executor()).unwrap();
    scene.runtime.block_on(async { agent.run(tokio::time::sleep(Duration::from_secs(3))).await });
    assert_eq!(scene.root.asked(|asked| matches!(asked, Question::Preflight { .. })), 0);
    let spooled = std::fs::read_dir(scene.home().join("spool").join(rollout.to_string())).unwrap();
    let names: Vec<String> = spooled.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2, "the documents alone: {names:?}");
}

#[test]
fn what_the_host_is_like_is_told_when_it_changes_and_only_then() {
    let scene = Scene::new();
    let member = scene.member();
    scene.poll(&member, 3);
    assert_eq!(scene.told(), [], "enrolment has told it");
    let change = Change {
        transaction: "t-1".parse().unwrap(),
        rollout: Sha256::of(b"rollout"),
        action: Action::Apply,
        until: now(),
        outcome: ChangeOutcome::Committed,
        transition_ms: Some(12),
        probes: Probes { held: 1, failed: 0 },
        taints: 0,
        splats: 0,
        restarted: Vec::new(),
        unreachable_min: 0,
    };
    let changed = HostFacts { changes: vec![change], ..facts() };
    *scene.root.facts.lock().unwrap() = changed.clone();
    scene.poll(&member, 3);
    assert_eq!(scene.told(), std::slice::from_ref(&changed));
    // Another process knows what was told.
    scene.poll(&member, 3);
    assert_eq!(scene.told().len(), 1);
    // What the executor cannot know, the agent adds: for how long no controller answered.
    let memory = Memory { unreachable_min: 7, ..scene.memory() };
    memory.write(&scene.home().join(MEMORY)).unwrap();
    scene.poll(&member, 3);
    let told = scene.told();
    assert_eq!((told.len(), told[1].changes[0].unreachable_min), (2, 7));
}

#[test]
fn manifests_that_the_fleet_names_are_fetched_once_and_kept_for_the_executor_as_long() {
    let scene = Scene::new();
    let member = scene.member();
    scene.offer(b"a payload");
    let manifest = scene.controller.offers.lock().unwrap().pop().unwrap().manifest;
    *scene.controller.manifests.lock().unwrap() = vec![manifest];
    scene.poll(&member, 3);
    let directory = scene.home().join("manifests");
    let file = directory.join(manifest.to_string());
    assert_eq!(Envelope::parse(&std::fs::read(&file).unwrap()).unwrap().payload_digest(), manifest);
    let with = |question: &Question| *question == Question::Look { manifests: Some(directory.clone()) };
    // Once without it, and once with; then the answer is believed for a while.
    assert_eq!(scene.root.asked(with), 2);
    std::fs::write(directory.join("what is this"), b"?").unwrap();
    scene.controller.manifests.lock().unwrap().clear();
    scene.poll(&member, 2);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

/// A number of a process in `/proc/PID/status`.
fn status(path: &Path, field: &str) -> u64 {
    let text = std::fs::read_to_string(path.join("status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The agent as a program: what it costs a host that has nothing to do. `UPDATE_AGENT` names another build of it, which is
/// looked at for two minutes.
#[test]
fn an_idle_agent_is_one_small_thread_that_wakes_for_polls_alone() {
    let scene = Scene::new();
    scene.member();
    let program = std::env::var_os("UPDATE_AGENT");
    // Without optimisation, and with the libraries that a static program does not map.
    let (limit_kb, seconds) = if program.is_some() { (8 << 10, 120) } else { (32 << 10, 11) };
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_update-agent").into());
    let mut child = std::process::Command::new(program)
        .arg("--directory")
        .arg(scene.home())
        .arg("--settings")
        .arg(scene.directory.path().join("fleet.yaml"))
        .arg("--socket")
        .arg(scene.directory.path().join("executor.sock"))
        .arg("run")
        .env("UPDATE_LOG", "off")
        .spawn()
        .unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let mut until = |polls: usize| {
        while scene.controller.polls.lock().unwrap().len() < polls {
            assert_eq!(child.try_wait().unwrap(), None, "it goes on until it is ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let switches = || status(&process, "voluntary_ctxt_switches");
    until(5);
    let before = switches();
    until(15);
    let each = (switches() - before) / 10;
    *scene.controller.again.lock().unwrap() = 600;
    until(16);
    // The last one's answer is on its way.
    std::thread::sleep(Duration::from_secs(2));
    let (before, threads) = (switches(), status(&process, "Threads"));
    std::thread::sleep(Duration::from_secs(seconds));
    let (woken, rss) = (switches() - before, status(&process, "VmRSS"));
    child.kill().unwrap();
    child.wait().unwrap();
    println!(
        "agent: {rss} kB resident, {threads} thread(s), {each} waits a poll, {woken} in {seconds} s between polls"
    );
    assert!(rss <= limit_kb, "expected at most {limit_kb} kB resident, found {rss}");
    assert_eq!((threads, woken), (1, 0), "nothing but polls wakes it");
}

#[test]
fn a_controller_that_asks_to_wait_is_heeded_and_is_no_failure_of_the_host() {
    let scene = Scene::new();
    *scene.controller.limited.lock().unwrap() = [(paths::ENROL, 1)].into();
    let refused = scene.enrol(scene.controller.authority.fingerprint()).unwrap_err();
    let EnrolError::Client(ClientError::Limited { after, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(after, Duration::from_secs(2));
    let member = scene.member();
    scene.offer(b"payload");
    let everywhere = [paths::POLL, paths::CONTENT, paths::REPORT, paths::BEGIN].map(|path| (path, 1));
    *scene.controller.limited.lock().unwrap() = everywhere.into();
    scene.controller.begin.lock().unwrap().push_back(Reply::Grant);
    let heard = scene.run(&member, 2);
    // What was not looked at was asked again; nothing of it was told as anything that happened to the host.
    assert_eq!(heard.iter().map(|report| report.said).collect::<Vec<_>>(), [Said::Ready, Said::Applied]);
    assert_eq!(scene.root.asked(|asked| matches!(asked, Question::Begin { .. })), 1);
    assert_eq!(scene.memory().attempts.len(), 1, "the attempt that was turned away is no attempt");
    let polls = scene.controller.polls.lock().unwrap();
    let least = jiff::SignedDuration::from_secs(2);
    let waited = polls.windows(2).filter(|pair| pair[1].duration_since(pair[0]) >= least).count();
    assert!(waited >= 4, "it waits as long as it is told: {polls:?}");
}

#[test]
fn a_certificate_that_ran_out_before_its_time_is_renewed_by_the_key() {
    let scene = Scene::new();
    let member = scene.member();
    scene.offer(b"payload");
    let past = UtcTime::floor(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(31 * 24));
    let directory = Directory(scene.home());
    let request = Identity::open(&directory).unwrap().request().unwrap();
    let expired = scene.controller.authority.host(&HostRequest::read(&request).unwrap(), past).unwrap();
    directory.keep(&directory.certificate(), &expired).unwrap();
    // The clock by which it would be renewed was wrong.
    assert!(scene.memory().renew_at.unwrap() > now());
    assert_eq!(scene.run(&member, 1)[0].said, Said::Ready);
    assert_ne!(std::fs::read_to_string(directory.certificate()).unwrap(), expired);
}

#[test]
fn a_controller_of_another_version_is_not_half_understood_and_changes_nothing() {
    let scene = Scene::new();
    let member = scene.member();
    let answers = [
        r#"{"version":2,"again":"1s","offers":[],"stop":[],"facts":"no"}"#,
        r#"{"version":1,"again":"1s","offers":[],"stop":[],"facts":"no","hurry":true}"#,
        r#"{"version":1,"again":"1s","offers":[],"stop":[],"facts":"some"}"#,
        r#"{"version":1,"offers":[],"stop":[],"facts":"no"}"#,
        "<html>",
    ];
    // Between them one that it understands: it asks again each time, and does not wait longer and longer.
    scene
        .controller
        .newer
        .lock()
        .unwrap()
        .extend(answers.into_iter().flat_map(|answer| [Some(answer), None]));
    let agent = Agent::new(scene.home(), member.clone(), scene.executor()).unwrap();
    let all_given = async {
        while !scene.controller.newer.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = Duration::from_secs(60);
    scene.runtime.block_on(async { tokio::time::timeout(patience, agent.run(all_given)).await }).unwrap();
    assert_eq!(scene.root.asked(|asked| !matches!(asked, Question::Look { .. })), 0);
    // An answer to begin that it cannot read lets it begin nothing, and the grant that there may be is closed.
    let rollout = scene.offer(b"payload");
    scene.controller.begin.lock().unwrap().push_back(Reply::Newer);
    let heard = scene.run(&member, 2);
    assert_eq!(heard[0].said, Said::Ready);
    assert_eq!((heard[1].said, heard[1].rollout), (Said::Declined { outcome: Outcome::Busy }, rollout));
    assert_eq!(scene.root.asked(|asked| matches!(asked, Question::Begin { .. })), 0);
}
