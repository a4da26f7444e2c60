//! The description of the HTTP API: it is the program's, it has every route, others read it, and what the controller really
//! says is what it says there.
//!
//! After a change of the API: `UPDATE_SCHEMA=1 cargo nextest run -p controller --test openapi`. Needs `python3` with `venv`,
//! and PyPI once.

#![expect(clippy::disallowed_methods, reason = "a test reads its fixtures and asks in real time")]

mod common;
#[path = "../../repository/network/tests/peer/environment.rs"]
mod environment;
#[path = "../../manifests/tests/support/schema.rs"]
#[allow(dead_code, reason = "each test program takes what it needs")]
mod support;

use std::fs;
use std::path::Path;

use common::scene;
use common::served::{Machine, Served};
use controller::server::description;
use controller::server::limits::Limits;
use fleet::protocol::{AttemptReport, BeginRequest, Poll, Renew, Report, Version, paths};
use fleet::rollout::{Action, Said};
use manifests::{Nonce, Sha256, UtcTime};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::from_str(description()).unwrap()
}

/// Every method and path that is described.
fn operations() -> Vec<(Method, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = paths.flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |key| (key, path)));
    methods.map(|(key, path)| (key.to_uppercase().parse().unwrap(), path.clone())).collect()
}

/// A path of which each name is something.
fn concrete(path: &str) -> String {
    let digest = Sha256::of(b"something").to_string();
    path.split('/')
        .map(|part| if part.starts_with('{') { &digest } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn the_committed_description_is_that_of_the_program() {
    support::compare(env!("CARGO_MANIFEST_DIR"), "openapi.json", &document());
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_update-controller")).arg("openapi").output();
    assert_eq!(String::from_utf8(printed.unwrap().stdout).unwrap(), description());
    let served = Served::new(Limits::default());
    let answer = served.get(&served.client("127.0.0.1", None), "/v1/openapi.json");
    assert_eq!((answer.status, answer.words().as_str()), (StatusCode::OK, description()));
}

#[test]
fn what_is_described_is_served_and_nothing_else() {
    let served = Served::new(Limits::default());
    let client = served.client("127.0.0.1", None);
    let described = operations();
    for (method, path) in &described {
        for asked in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let answer = served.send(client.request(asked.clone(), served.url(&concrete(path)))).unwrap();
            // Nothing was published into this one.
            let nothing = answer.words().contains("this controller serves no repository");
            let served =
                nothing || ![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&answer.status);
            let expected = described.contains(&(asked.clone(), path.clone()));
            assert_eq!(served, expected, "{asked} {path}: {} {}", answer.status, answer.words());
        }
        assert!(
            path.starts_with("/v1/")
                || path.starts_with("/repository/")
                || ["/metrics", "/healthz", "/livez"].contains(&path.as_str()),
            "{method} {path}"
        );
    }
    let content = format!("{}{{digest}}", paths::CONTENT);
    let protocol =
        [paths::ENROL, paths::CHALLENGE, paths::RENEW, paths::POLL, paths::REPORT, paths::BEGIN, &content];
    for path in protocol {
        assert!(described.iter().any(|(_, known)| known == path), "{path}");
    }
    // A route comes in through the table alone, which describes it.
    let mut rooms = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server")];
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(room).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rooms.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let makes_routes =
                [".route(", "Router::new", ".nest(", ".merge("].iter().any(|word| text.contains(word));
            assert_eq!(makes_routes, path.ends_with("api.rs"), "{}", path.display());
        }
    }
}

/// Validates the document, and each exchange against what it says of it.
const VALIDATE: &str = r#"
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator
from jsonschema import Draft202012Validator
document, exchanges = (json.load(open(path)) for path in sys.argv[1:3])
OpenAPIV31SpecValidator(document).validate()
def check(what, content, value):
    schema = dict(content["application/json"]["schema"], components=document["components"])
    for error in Draft202012Validator(schema).iter_errors(value):
        sys.exit(f"{what}: {error.json_path}: {error.message}\n{json.dumps(value)}")
def resolved(value):
    while "$ref" in value:
        place, value = value["$ref"], document
        for name in place.split("/")[1:]:
            value = value[name]
    return value
for one in exchanges:
    operation = document["paths"][one["path"]][one["method"]]
    what = f"{one['method']} {one['path']} {one['status']}"
    if one["sent"] is not None:
        check(what + " sent", operation["requestBody"]["content"], one["sent"])
    answers = operation["responses"]
    check(what, resolved(answers.get(str(one["status"]), answers["default"]))["content"], one["got"])
print("checked", len(exchanges))
"#;

/// What was asked and answered, for the validator.
struct Exchanges<'s> {
    served: &'s Served,
    all: Vec<Value>,
}

impl Exchanges<'_> {
    /// As a host, or with the administrator's token; the answer.
    fn ask(
        &mut self,
        by: Option<&Machine>,
        (method, path): (Method, &str),
        names: &[&str],
        sent: Option<Value>,
    ) -> Value {
        let mut names = names.iter();
        let place =
            path.split('/').map(|part| if part.starts_with('{') { names.next().unwrap() } else { part });
        let url = self.served.url(&place.collect::<Vec<_>>().join("/"));
        let client = self.served.client("127.0.0.1", by.map(|machine| machine.identity.as_str()));
        let mut request = client.request(method.clone(), url);
        if by.is_none() {
            request = request.bearer_auth(&self.served.admin);
        }
        if let Some(sent) = &sent {
            request = request.body(sent.to_string());
        }
        let answer = self.served.send(request).unwrap();
        let got: Value =
            serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{path}: {}", answer.words()));
        let method = method.as_str().to_lowercase();
        self.all.push(json!({
            "method": method, "path": path, "status": answer.status.as_u16(), "sent": sent, "got": got,
        }));
        got
    }
}

fn value(message: impl serde::Serialize) -> Option<Value> {
    Some(serde_json::to_value(message).unwrap())
}

#[test]
fn others_read_it_and_what_is_really_said_is_what_it_says() {
    let served = Served::new(Limits::default());
    let host = Machine::member(&served);
    let authority = &served.controller.authority;
    for number in 0..3 {
        scene::enrol(authority, number).unwrap();
    }
    let (envelope, signed) = scene::document("manifest", scene::POLICY, 3);
    authority.submit(&envelope, &signed, scene::POLICY, 1).unwrap();
    let rollout = signed.digest();
    let (id, digest) = (host.host.to_string(), rollout.to_string());
    let mut all = Exchanges { served: &served, all: Vec::new() };
    let nonce = Nonce::from_bytes([1; 16]);
    // Hosts.
    let challenge = all.ask(Some(&host), (Method::GET, paths::CHALLENGE), &[], None);
    let challenge: Nonce = challenge["nonce"].as_str().unwrap().parse().unwrap();
    let signature = rcgen::SigningKey::sign(&host.key, challenge.to_string().as_bytes()).unwrap();
    let signature = hex::encode(signature);
    let renew = Renew { version: Version, request: host.request(), nonce: challenge, signature };
    let renewed = all.ask(Some(&host), (Method::POST, paths::RENEW), &[], value(&renew));
    assert_eq!(renewed["host"], id);
    all.ask(Some(&host), (Method::POST, paths::RENEW), &[], value(renew));
    let poll = Poll { version: Version, boot: nonce, epoch: 0, facts: Some(host.facts().digest()) };
    all.ask(Some(&host), (Method::POST, paths::POLL), &[], value(poll));
    let attempt = AttemptReport {
        rollout,
        nonce: Some(nonce),
        said: Said::Applied,
        transaction: None,
        fingerprint: None,
    };
    let report = Report { version: Version, number: 1, attempts: vec![attempt], facts: Some(host.facts()) };
    all.ask(Some(&host), (Method::POST, paths::REPORT), &[], value(report));
    let begin = BeginRequest { version: Version, rollout, action: Action::Apply, nonce, epoch: 0 };
    let answer = all.ask(Some(&host), (Method::POST, paths::BEGIN), &[], value(&begin));
    assert_eq!(answer["answer"], "not-now");
    // People.
    let terms = json!({"groups": ["web"], "domain": "rack", "role": "db", "hosts": 1, "expires": UtcTime::floor(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1))});
    let token = all.ask(None, (Method::POST, "/v1/tokens"), &[], Some(terms));
    let enrol = json!({"version": 1, "token": token["token"], "request": Machine::new().request(), "facts": host.facts()});
    all.ask(None, (Method::POST, paths::ENROL), &[], Some(enrol.clone()));
    all.ask(None, (Method::POST, paths::ENROL), &[], Some(enrol));
    all.ask(None, (Method::POST, "/v1/people"), &[], Some(json!({"name": "vera", "role": "viewer"})));
    let hosts = all.ask(None, (Method::GET, "/v1/hosts"), &[], None);
    assert_eq!(hosts.as_array().unwrap().len(), 5);
    let shown = all.ask(None, (Method::GET, "/v1/hosts/{host}"), &[&id], None);
    assert_eq!(shown["host"]["id"], id.as_str(), "{shown}");
    assert_eq!(all.ask(None, (Method::GET, "/v1/exposures"), &[], None), json!([]));
    all.ask(None, (Method::GET, "/v1/exposures/{cve}"), &["CVE-2026-0001"], None);
    for change in [json!({"move": {"groups": ["fleet"], "domain": "rack-2"}}), json!({"leave": "retired"})] {
        all.ask(None, (Method::POST, "/v1/hosts/{host}"), &[&id], Some(change));
    }
    let standings = all.ask(None, (Method::GET, "/v1/rollouts"), &[], None);
    assert_eq!(standings.as_array().unwrap().len(), 1);
    let order = json!({"token": "pause"});
    all.ask(None, (Method::POST, "/v1/rollouts/{rollout}/orders"), &[&digest], Some(order));
    let standing = all.ask(None, (Method::GET, "/v1/rollouts/{rollout}"), &[&digest], None);
    assert_eq!(standing["stage"], "paused", "{standing}");
    let of = [digest.as_str(), &scene::host(0).to_string()];
    all.ask(None, (Method::GET, "/v1/rollouts/{rollout}/hosts/{host}"), &of, None);
    let nobody = Sha256::of(b"nobody").to_string();
    all.ask(None, (Method::GET, "/v1/rollouts/{rollout}"), &[&nobody], None);
    let submission = json!({"rollout": envelope.to_json(), "policy": scene::POLICY, "manifest": "{}"});
    all.ask(None, (Method::POST, "/v1/rollouts"), &[], Some(submission));
    let written = ["openapi.json", "exchanges.json"].map(|name| served.directory.path().join(name));
    fs::write(&written[0], description()).unwrap();
    fs::write(&written[1], serde_json::to_string(&all.all).unwrap()).unwrap();
    let trial = "import openapi_spec_validator, jsonschema";
    let python = environment::environment("openapi-spec-validator==0.9.0", &[], trial);
    let [document, exchanges] = written.each_ref().map(|path| path.to_str().unwrap());
    let (valid, words) = environment::run(&python, &["-c", VALIDATE, document, exchanges]);
    assert!(valid && words.contains(&format!("checked {}", all.all.len())), "{words}");
}
