//! Health queries: what a server of metrics says of hosts with the change and of those that wait for it, and what becomes of
//! a rollout when it says something strange, or nothing.

#![expect(clippy::disallowed_methods, reason = "real programs are started and waited for in real time")]

mod common;
#[path = "common/metrics.rs"]
mod metrics;
#[path = "common/outside.rs"]
mod outside;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use controller::prometheus::{Asking, MAX_ANSWER, Prometheus};
use fleet::rollout::{Said, Unanswered};
use manifests::Sha256;
use metrics::{Answer, Metrics, nobody};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outside::{Fleet, Machine, QUICK, client, serve};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;

const ERRORS: &str =
    "health: [{name: errors, query: 'max by (instance) (errors)', worse: higher, ratio: 2.0}]\n";

fn policy() -> String {
    format!("{QUICK}{ERRORS}")
}

/// The host of the first wave, and the other one.
fn in_order<'h>(fleet: &Fleet, hosts: &'h [Machine; 2]) -> (&'h Machine, &'h Machine) {
    let [one, two] = hosts;
    match one.poll(fleet).unwrap().offers.is_empty() {
        false => (one, two),
        true => (two, one),
    }
}

fn take(fleet: &Fleet, host: &Machine, rollout: Sha256) {
    let nonce = host.apply(fleet, rollout);
    assert!(host.say(fleet, rollout, Some(nonce), Said::Applied));
}

/// Waits until a rollout looks like that.
fn until(fleet: &Fleet, rollout: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..300 {
        let mut said = fleet.ok(&["rollout", "status", rollout]);
        if is(&said[0]) {
            return said.remove(0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not {what}: {:#?}", fleet.ok(&["rollout", "status", rollout]));
}

/// Why the rollout waits for an answer, if it does.
fn owed(status: &Value) -> Option<&str> {
    let waiting = status["waiting"].as_array()?.iter().find(|reason| reason["waits-for"] == "health")?;
    waiting["because"]["why"].as_str()
}

fn metrics_of(fleet: &Fleet) -> String {
    let account = fs::read_to_string(fleet.path("controller/admin.yaml")).unwrap();
    let token = account.lines().find_map(|line| line.strip_prefix("token: ")).unwrap().to_owned();
    fleet.runtime.block_on(async {
        let asked = client(fleet, None).get(format!("{}/metrics", fleet.address)).bearer_auth(token);
        asked.send().await.unwrap().text().await.unwrap()
    })
}

/// The controller ends and is started again with other arguments.
fn serve_again(fleet: &mut Fleet, more: &[&str]) {
    // In order: the next one need not wait for the lease to run out.
    kill(Pid::from_raw(fleet.child.id() as i32), Signal::SIGTERM).unwrap();
    fleet.child.wait().unwrap();
    let (child, address, _) = serve(fleet.directory.path(), "controller", more);
    (fleet.child, fleet.address) = (child, address);
    fleet.ask_there();
    fleet.until_it_leads();
}

#[test]
fn a_rollout_waits_for_an_answer_says_so_and_goes_on_with_one() {
    let server = Metrics::start(Answer::Status(500));
    let address = format!("http://{}", server.address);
    let mut fleet = Fleet::start(&policy());
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    // Whoever knows nobody to ask takes no such rollout.
    let start = ["rollout", "start", "manifest.json", "--policy", "rollout.yaml", "--key", "anna.key"];
    fleet.refused(&start, 3, "the policy's health query errors cannot be asked");
    serve_again(&mut fleet, &["--prometheus", &address]);
    let rollout = fleet.rollout();
    let digest: Sha256 = rollout.parse().unwrap();
    fleet.until(&rollout, "running");
    let (first, second) = in_order(&fleet, &hosts);
    take(&fleet, first, digest);
    let status = until(&fleet, &rollout, "waiting", |status| owed(status) == Some("status"));
    let words = status["waiting"].to_string();
    assert!(words.contains("by errors") && words.contains("the server answers with status 500"), "{words}");
    assert_eq!(status["latest_health"]["errors"]["because"]["code"], 500);
    let said = metrics_of(&fleet);
    assert!(
        said.contains("update_controller_health_asked_total{query=\"errors\",outcome=\"status\"}"),
        "{said}"
    );
    assert!(
        said.contains("update_controller_rollout_health{query=\"errors\",outcome=\"status\",rollout="),
        "{said}"
    );
    let told = fleet.ok(&["rollout", "explain", &rollout, "two"])[0]["explanation"]["lines"].to_string();
    assert!(told.contains("by errors nobody can say"), "{told}");
    let text = String::from_utf8(fleet.run(&["rollout", "status"]).stdout).unwrap();
    assert!(
        text.contains("  health by errors: nobody can say: the server answers with status 500"),
        "{text}"
    );
    // Watched for long enough, and still the wave does not pass; the same of a controller that asks nobody.
    until(&fleet, &rollout, "watched", |status| status["hosts"]["good"] == 1);
    serve_again(&mut fleet, &[]);
    until(&fleet, &rollout, "asked of nobody", |status| {
        status["latest_health"]["errors"]["because"]["why"] == "nobody-to-ask"
    });
    let status = until(&fleet, &rollout, "waiting", |status| owed(status).is_some());
    assert_eq!(
        (&status["waves"][0]["passed"], &status["stage"]),
        (&Value::from(false), &Value::from("running"))
    );
    assert!(second.poll(&fleet).unwrap().offers.is_empty());
    // An answer: it passes, and the last host has nobody to be compared with.
    server.says(Answer::numbers(&[("one:9100", "0"), ("two:9100", "0"), ("somebody:9100", "7")]));
    serve_again(&mut fleet, &["--prometheus", &address]);
    take(&fleet, second, digest);
    fleet.until(&rollout, "completed");
    let asked = server.asked.lock().unwrap();
    let (head, body) = asked.last().unwrap();
    assert_eq!(head[0], "POST /api/v1/query HTTP/1.1");
    assert_eq!(body, "query=max+by+%28instance%29+%28errors%29");
}

#[test]
fn whatever_is_strange_is_no_answer_and_what_is_worse_pauses() {
    let server = Metrics::start(Answer::Text("<html>".to_owned()));
    let fleet = Fleet::start_on(&policy(), &["--prometheus", &format!("http://{}", server.address)]);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let rollout = fleet.rollout();
    fleet.until(&rollout, "running");
    let (first, second) = in_order(&fleet, &hosts);
    take(&fleet, first, rollout.parse().unwrap());
    let latest = |why: &str| {
        until(&fleet, &rollout, why, |status| status["latest_health"]["errors"]["because"]["why"] == why);
    };
    latest("strange");
    server.says(Answer::Huge(MAX_ANSWER as usize + 1));
    latest("too-large");
    server.says(Answer::Text(
        r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#.to_owned(),
    ));
    latest("not-a-vector");
    server.says(Answer::numbers(&[("one:9100", "1"), ("one:9200", "1"), ("two", "1")]));
    latest("twice");
    server.says(Answer::numbers(&[("one", "NaN"), ("two", "NaN")]));
    latest("too-few");
    server.says(Answer::Status(302));
    latest("status");
    server.says(Answer::Status(400));
    latest("refused");
    let status = fleet.ok(&["rollout", "status", &rollout]).remove(0);
    assert_eq!(
        (&status["stage"], owed(&status)),
        (&Value::from("running"), Some("strange")),
        "since the first of them"
    );
    let numbers = |changed: &str, held_back: &str| {
        Answer::numbers(&[(&format!("{}:9100", first.name), changed), (&second.host.to_string(), held_back)])
    };
    server.says(numbers("2.1", "1"));
    let status = until(&fleet, &rollout, "paused", |status| status["stage"] == "paused");
    assert_eq!(status["words"], "paused: changed hosts do worse by errors");
    assert_eq!(status["health"][0]["outcome"], "worse");
    assert_eq!(
        (&status["health"][0]["changed"], &status["health"][0]["held_back"]),
        (&2.1.into(), &1.0.into())
    );
    // A token does not make it go on; people who have looked do.
    fleet.refused(&["rollout", "resume", &rollout], 3, "signature");
    fleet.ok(&["rollout", "resume", &rollout, "--key", "anna.key"]);
    take(&fleet, second, rollout.parse().unwrap());
    fleet.until(&rollout, "completed");
}

/// A certificate for `127.0.0.1` of an authority of its own: what a server needs, and the authority in PEM.
fn certified() -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&key).unwrap().pem();
    let own = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, key);
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    (
        Arc::new(
            config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap(),
        ),
        pem,
    )
}

#[test]
fn it_is_asked_over_tls_with_a_token_and_is_neither_slow_nor_another() {
    let directory = tempfile::tempdir().unwrap();
    let (tls, pem) = certified();
    let server = Metrics::over(Answer::numbers(&[("one", "1")]), Some(tls));
    let file = |name: &str, text: &str| -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let asking = Asking {
        address: format!("https://{}", server.address),
        token: Some(file("token", "s3cret\n")),
        authorities: Some(file("ca.pem", &pem)),
        label: "instance".to_owned(),
        patience: Duration::from_secs(60),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |asking: &Asking| runtime.block_on(Prometheus::new(asking).unwrap().ask("up"));
    assert_eq!(ask(&asking), Ok(vec![("one".to_owned(), 1.0)]));
    let head = server.asked.lock().unwrap().last().unwrap().0.clone();
    assert!(head.iter().any(|line| line == "authorization: Bearer s3cret"), "{head:?}");
    // Somebody else's certificate; nobody; nobody who says anything.
    let other = Asking { authorities: Some(file("other.pem", &certified().1)), ..asking.clone() };
    assert_eq!(ask(&other), Err(Unanswered::Unreachable));
    let away = Asking { address: format!("https://{}", nobody()), ..asking.clone() };
    assert_eq!(ask(&away), Err(Unanswered::Unreachable));
    server.says(Answer::Silence);
    let hasty = Asking { patience: Duration::from_millis(300), ..asking.clone() };
    assert_eq!(ask(&hasty), Err(Unanswered::Late));
    // A token that is none is found when it is looked for: at the start.
    let unusable = |asking: &Asking| system::error::with_causes(&Prometheus::new(asking).unwrap_err());
    let empty = Asking { token: Some(file("empty", "\n")), ..asking.clone() };
    assert!(unusable(&empty).contains("expected a token"));
    let nothing = Asking { authorities: Some(file("none.pem", "")), ..asking.clone() };
    assert!(unusable(&nothing).contains("expected certificates in PEM"));
    let label = Asking { label: "in-stance".to_owned(), ..asking };
    assert!(unusable(&label).contains("name of a label"));
}

/// Debian's Prometheus, where it is installed, or where the lab has unpacked it.
fn prometheus() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("UPDATE_LAB_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("update-lab")))
        .or_else(|| Some(variable("HOME")?.join(".cache/update-lab")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(cache.map(|cache| cache.join("tools")));
    places.map(|place| place.join("prometheus")).find(|program| program.is_file()).expect(
        "Debian's package `prometheus` is needed; `cargo run -p vm-tests -- test` unpacks it beside what is installed",
    )
}

/// A real server of metrics, that reads those of one page.
struct Real {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Real {
    fn start(page: &Metrics) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = nobody().to_string();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
             - {{job_name: hosts, honor_labels: true, static_configs: [{{targets: ['{}']}}]}}\n",
            page.address
        );
        fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(prometheus())
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let real = Self { child, address: format!("http://{address}"), _directory: directory };
        real.until_it_knows();
        real
    }

    fn log(&self) -> String {
        let path: &Path = self._directory.path();
        fs::read_to_string(path.join("log")).unwrap_or_default()
    }

    /// Waits until it has read the page once.
    fn until_it_knows(&self) {
        let asking = Asking {
            address: self.address.clone(),
            token: None,
            authorities: None,
            label: "instance".to_owned(),
            patience: Duration::from_secs(5),
        };
        let asked = Prometheus::new(&asking).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..300 {
            if runtime.block_on(asked.ask("errors")).is_ok_and(|numbers| !numbers.is_empty()) {
                assert_eq!(runtime.block_on(asked.ask("errors[5m]")), Err(Unanswered::NotAVector));
                assert_eq!(runtime.block_on(asked.ask("1")), Err(Unanswered::NotAVector));
                assert_eq!(runtime.block_on(asked.ask("sum(errors)")), Err(Unanswered::Nameless));
                assert_eq!(runtime.block_on(asked.ask("max by (")), Err(Unanswered::Refused));
                assert_eq!(runtime.block_on(asked.ask("nothing_of_this_kind")), Ok(Vec::new()));
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("Prometheus knows nothing: {}", self.log());
    }
}

#[test]
fn a_real_prometheus_lets_a_wave_pass_and_pauses_the_rollout_when_hosts_do_worse() {
    let page = |one: u32, two: u32| {
        Answer::Text(format!(
            "errors{{instance=\"one:9100\"}} {one}\nerrors{{instance=\"two:9100\"}} {two}\n"
        ))
    };
    let metrics = Metrics::start(page(1, 1));
    let real = Real::start(&metrics);
    let fleet = Fleet::start_on(&policy().replace("bake: 1s", "bake: 4s"), &["--prometheus", &real.address]);
    let hosts = [fleet.enrol("one"), fleet.enrol("two")];
    let rollout = fleet.rollout();
    fleet.until(&rollout, "running");
    let (first, _) = in_order(&fleet, &hosts);
    take(&fleet, first, rollout.parse().unwrap());
    until(&fleet, &rollout, "compared", |status| status["health"][0]["outcome"] == "well");
    metrics.says(if first.name == "one" { page(3, 1) } else { page(1, 3) });
    let status = until(&fleet, &rollout, "paused", |status| status["stage"] == "paused");
    assert_eq!(status["because"]["query"], "errors", "{status:#}");
    assert_eq!(
        (&status["health"][0]["changed"], &status["health"][0]["held_back"]),
        (&3.0.into(), &1.0.into())
    );
}
