//! A controller as people and hosts meet it: the real program, served on loopback over real TLS.

#![allow(dead_code, reason = "each test program takes what it needs")]
#![expect(clippy::disallowed_methods, reason = "the real program is asked in real time")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fleet::protocol::{
    AttemptReport, BeginAnswer, BeginRequest, Certificate, Enrol, Heard, Hint, HostFacts, Message, Poll,
    Report, Version, paths,
};
use fleet::rollout::{Action, Said};
use manifests::{Envelope, Grant, HostId, Nonce, Policy, Sha256, TrustFloor, VerifyAt};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::scene::secret;

/// People, the controller, and what hosts believe.
pub(crate) const PEOPLE: [&str; 3] = ["owner", "anna", "ben"];

/// A fleet with a controller that runs; what is asked goes to `address`.
pub(crate) struct Fleet {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) child: Child,
    pub(crate) address: String,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn policy() -> String {
    let entry = |name: &str| {
        let public = secret(name).public();
        format!("  - {{name: {name}, id: {}, public: \"{public}\"}}\n", public.id())
    };
    let keys: String = PEOPLE.into_iter().chain(["controller"]).map(entry).collect();
    format!(
        "schema: 2\nversion: 1\nissued: 2026-10-01T00:00:00Z\nkeys:\n{keys}roles:\n\
         - {{name: owners, keys: [owner], threshold: 1}}\n- {{name: ops, keys: [anna], threshold: 1}}\n\
         - {{name: controller, keys: [controller], threshold: 1}}\nrules:\n\
         - {{document: policy, any_of: [[owners]]}}\n- {{document: manifest, any_of: [[ops]]}}\n\
         - {{document: rollout, any_of: [[ops]]}}\n- {{document: order, any_of: [[ops]]}}\n\
         - {{document: grant, any_of: [[controller]]}}\n"
    )
}

impl Fleet {
    pub(crate) fn start(rollout_policy: &str) -> Self {
        Self::start_on(rollout_policy, &[])
    }

    /// With more arguments for `serve`: where its store is.
    pub(crate) fn start_on(rollout_policy: &str, more: &[&str]) -> Self {
        Self::start_with(rollout_policy, |directory| serve(directory, "controller", more))
    }

    pub(crate) fn start_with(
        rollout_policy: &str,
        serve: impl FnOnce(&Path) -> (Child, String, Value),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("controller");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("grant.key"), secret("controller").to_pem().as_bytes()).unwrap();
        fs::write(directory.path().join("policy.yaml"), policy()).unwrap();
        fs::write(directory.path().join("rollout.yaml"), rollout_policy).unwrap();
        for name in PEOPLE {
            let path = directory.path().join(format!("{name}.key"));
            system::durable::replace(&path, secret(name).to_pem().as_bytes()).unwrap();
        }
        let payload = b"not a module, but it has a digest";
        fs::write(directory.path().join("fix.ko"), payload).unwrap();
        let manifest = include_str!("../../../manifests/examples/greet.yaml");
        let manifest = one_component(manifest, payload);
        let mut envelope = Envelope::new(manifests::DocumentKind::Manifest, manifest.into_bytes());
        envelope.sign(&secret("anna")).unwrap();
        fs::write(directory.path().join("manifest.json"), envelope.to_json()).unwrap();
        let (child, address, _) = serve(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { directory, child, address, runtime }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of people, as the administrator.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_update-controller"))
            .args(arguments)
            .arg("--as")
            .arg(self.path("controller/admin.yaml"))
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments = [arguments, &["--json"]].concat();
        let output = self.run(&arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn refused(&self, arguments: &[&str], code: i32, words: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }

    pub(crate) fn authority(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_pem(&fs::read(self.path("controller/ca.pem")).unwrap()).unwrap()
    }

    pub(crate) fn enrol(&self, name: &str) -> Machine {
        let made = self.ok(&["token", "--group", "web", "--domain", name]);
        let token: Nonce = made[0]["token"].as_str().unwrap().parse().unwrap();
        let machine = Machine::new(self, name);
        machine.enrol(self, token).unwrap()
    }

    pub(crate) fn rollout(&self) -> String {
        let started =
            self.ok(&["rollout", "start", "manifest.json", "--policy", "rollout.yaml", "--key", "anna.key"]);
        started.last().unwrap()["rollout"].as_str().unwrap().to_owned()
    }

    pub(crate) fn stage(&self, rollout: &str) -> String {
        self.ok(&["rollout", "status", rollout])[0]["stage"].as_str().unwrap().to_owned()
    }

    /// Waits until the controller at `address` leads.
    pub(crate) fn until_it_leads(&self) {
        for _ in 0..600 {
            let health = self
                .runtime
                .block_on(async { client(self, None).get(format!("{}/healthz", self.address)).send().await });
            if health.is_ok_and(|response| response.status().is_success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{} does not lead", self.address);
    }

    /// Lets people's commands ask the controller at `address`.
    pub(crate) fn ask_there(&self) {
        let account = self.path("controller/admin.yaml");
        let text = fs::read_to_string(&account).unwrap();
        let old = text.lines().find(|line| line.starts_with("controller:")).unwrap().to_owned();
        fs::write(&account, text.replace(&old, &format!("controller: {}", self.address))).unwrap();
    }

    pub(crate) fn until(&self, rollout: &str, stage: &str) {
        for _ in 0..300 {
            if self.stage(rollout) == stage {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("not {stage}: {:?}", self.ok(&["rollout", "status", rollout]));
    }
}

/// The example manifest with its livepatch alone, whose payload has these bytes.
pub(crate) fn one_component(text: &str, payload: &[u8]) -> String {
    let value: Value = serde_yaml::from_str(text).unwrap();
    let mut value = value;
    let components = value["components"].as_array_mut().unwrap();
    components.retain(|component| component.get("livepatch").is_some() || component["kind"] == "livepatch");
    assert_eq!(components.len(), 1, "{text}");
    value["expires"] = json!("2027-06-01T00:00:00Z");
    let mut text = serde_yaml::to_string(&value).unwrap();
    let at = text.find("sha256:").unwrap();
    let line = &text[at..at + text[at..].find('\n').unwrap()].to_owned();
    text = text.replace(line, &format!("sha256: {}", Sha256::of(payload)));
    let at = text.find("file:").unwrap();
    let line = &text[at..at + text[at..].find('\n').unwrap()].to_owned();
    text = text.replace(line, "file: fix.ko");
    let at = text.find("size:").unwrap();
    let line = &text[at..at + text[at..].find('\n').unwrap()].to_owned();
    text.replace(line, &format!("size: {}", payload.len()))
}

/// Starts a controller in a directory of the fleet's: it, its address, and what it said.
pub(crate) fn serve(directory: &Path, home: &str, more: &[&str]) -> (Child, String, Value) {
    serve_with(directory, home, more, "off", Stdio::inherit())
}

/// With a log of so much.
pub(crate) fn serve_with(
    directory: &Path,
    home: &str,
    more: &[&str],
    what: &str,
    log: Stdio,
) -> (Child, String, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_update-controller"))
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--name", "127.0.0.1", "--policy"])
        .arg(directory.join("policy.yaml"))
        .arg("--directory")
        .arg(directory.join(home))
        .args(more)
        .env("UPDATE_LOG", what)
        .env_remove("JOURNAL_STREAM")
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let said: Value = serde_json::from_str(&first).unwrap_or_else(|error| panic!("{error}: {first}"));
    let address = format!("https://{}", said["listening"].as_str().unwrap());
    (child, address, said)
}

/// A host, from outside.
pub(crate) struct Machine {
    pub(crate) key: KeyPair,
    pub(crate) name: String,
    pub(crate) client: reqwest::Client,
    pub(crate) host: HostId,
    pub(crate) boot: Nonce,
    reports: std::cell::Cell<u64>,
}

impl Machine {
    pub(crate) fn new(fleet: &Fleet, name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let client = client(fleet, None);
        let host = HostId::new(Sha256::of(&rcgen::PublicKeyData::subject_public_key_info(&key)));
        let boot = Nonce::from_bytes([7; 16]);
        Self { key, name: name.to_owned(), client, host, boot, reports: std::cell::Cell::new(0) }
    }

    pub(crate) fn request(&self) -> String {
        CertificateParams::default().serialize_request(&self.key).unwrap().pem().unwrap()
    }

    pub(crate) fn facts(&self) -> HostFacts {
        HostFacts::new(self.name.parse().unwrap(), "6.1.0-50-amd64".parse().unwrap(), "epyc".parse().unwrap())
    }

    pub(crate) fn enrol(mut self, fleet: &Fleet, token: Nonce) -> Result<Self, (StatusCode, String)> {
        let enrol = Enrol { version: Version, token, request: self.request(), facts: self.facts() };
        let certificate: Certificate = self.ask(fleet, paths::ENROL, &enrol)?;
        assert_eq!(certificate.host, self.host);
        self.client = client(fleet, Some(&(self.key.serialize_pem() + &certificate.chain)));
        Ok(self)
    }

    pub(crate) fn ask<M: Message>(
        &self,
        fleet: &Fleet,
        path: &str,
        message: &impl serde::Serialize,
    ) -> Result<M, (StatusCode, String)> {
        let body = serde_json::to_vec(message).unwrap();
        let (status, bytes) = fleet.runtime.block_on(async {
            let response =
                self.client.post(format!("{}{path}", fleet.address)).body(body).send().await.unwrap();
            (response.status(), response.bytes().await.unwrap())
        });
        if status.is_success() {
            return Ok(fleet::protocol::read(&bytes).unwrap());
        }
        let denial: Value = serde_json::from_slice(&bytes).unwrap();
        Err((status, denial["error"].as_str().unwrap().to_owned()))
    }

    pub(crate) fn poll(&self, fleet: &Fleet) -> Result<Hint, (StatusCode, String)> {
        let facts = Some(self.facts().digest());
        self.ask(fleet, paths::POLL, &Poll { version: Version, boot: self.boot, epoch: 0, facts })
    }

    pub(crate) fn say(&self, fleet: &Fleet, rollout: Sha256, nonce: Option<Nonce>, said: Said) -> bool {
        self.reports.set(self.reports.get() + 1);
        let attempt = AttemptReport { rollout, nonce, said, transaction: None, fingerprint: None };
        let report =
            Report { version: Version, number: self.reports.get(), attempts: vec![attempt], facts: None };
        self.ask::<Heard>(fleet, paths::REPORT, &report).unwrap().news[0]
    }

    pub(crate) fn begin(
        &self,
        fleet: &Fleet,
        rollout: Sha256,
        action: Action,
        nonce: Nonce,
    ) -> Result<BeginAnswer, (StatusCode, String)> {
        let request = BeginRequest { version: Version, rollout, action, nonce, epoch: 0 };
        self.ask(fleet, paths::BEGIN, &request)
    }

    pub(crate) fn fetch(&self, fleet: &Fleet, digest: Sha256, from: u64) -> (StatusCode, Vec<u8>) {
        fleet.runtime.block_on(async {
            let request = self.client.get(format!("{}{}{digest}", fleet.address, paths::CONTENT));
            let request = if from > 0 { request.header("range", format!("bytes={from}-")) } else { request };
            let response = request.send().await.unwrap();
            (response.status(), response.bytes().await.unwrap().to_vec())
        })
    }

    /// Takes what it is offered, to the end.
    pub(crate) fn apply(&self, fleet: &Fleet, rollout: Sha256) -> Nonce {
        let offered = |_: &i32| {
            let hint = self.poll(fleet).unwrap();
            let found = hint.offers.iter().any(|offer| offer.rollout == rollout);
            if !found {
                std::thread::sleep(Duration::from_millis(100));
            }
            found
        };
        assert!((0..100).any(|turn| offered(&turn)), "nothing was offered to {}", self.name);
        assert!(self.say(fleet, rollout, None, Said::Ready));
        let nonce =
            Nonce::from_bytes(*Sha256::of(self.name.as_bytes()).as_bytes().first_chunk::<16>().unwrap());
        let answer = self.begin(fleet, rollout, Action::Apply, nonce).unwrap();
        let BeginAnswer::Granted { grant, .. } = &answer else { panic!("{answer:?}") };
        let envelope = Envelope::parse(grant.as_bytes()).unwrap();
        let at = VerifyAt { now: jiff::Timestamp::now(), floor: &TrustFloor::default() };
        let grant = Policy::parse(policy().as_bytes()).unwrap().verify::<Grant>(&envelope, at).unwrap();
        assert_eq!((grant.host, grant.rollout, grant.nonce), (self.host, rollout, nonce));
        assert_eq!(self.begin(fleet, rollout, Action::Apply, nonce).unwrap(), answer, "the same bytes again");
        nonce
    }
}

pub(crate) fn client(fleet: &Fleet, identity: Option<&str>) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder().tls_certs_only([fleet.authority()]).no_proxy();
    if let Some(pem) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

pub(crate) const QUICK: &str = "schema: 1\nselector: {groups: [web]}\nwaves: {start_over: 0s, bake: 1s, largest: 100%}\n\
                     caps: {fleet: 100%, domain: 100%}\n";
