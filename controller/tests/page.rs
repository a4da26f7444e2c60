//! The page, as a browser meets it: a controller with real state, over TLS.

#![expect(clippy::disallowed_methods, reason = "the page is asked in real time")]

mod common;
#[path = "common/outside.rs"]
mod outside;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::scene;
use common::served::Served;
use controller::access::{self, Person, Role};
use controller::server::limits::{Limits, Rate};
use controller::store::{Batch, Key, LeaseAnswer, LeaseRequest, Memory, Put, Store};
use fleet::facts::HostFacts;
use fleet::protocol::{AttemptReport, BeginRequest, Version};
use fleet::rollout::{Action, Fault, Outcome, Said, Stage};
use manifests::{DocumentKind, Envelope, Nonce, Sha256};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::json;
use system::clock::SystemClock;

/// Somebody with a browser: it keeps a cookie, follows nothing by itself, and says where its forms are from.
struct Browser<'s> {
    base: String,
    runtime: &'s tokio::runtime::Runtime,
    client: reqwest::Client,
    cookie: Option<String>,
}

/// What came back.
#[derive(Debug)]
struct Shown {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Shown {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What stands between two texts, the first time.
    fn between(&self, before: &str, after: &str) -> &str {
        let at =
            self.text.find(before).unwrap_or_else(|| panic!("no {before}: {}", self.text)) + before.len();
        &self.text[at..at + self.text[at..].find(after).unwrap()]
    }

    fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }
}

impl<'s> Browser<'s> {
    fn new(served: &'s Served) -> Self {
        Self::at(served.url(""), &served.controller.certificates.pem, &served.runtime)
    }

    fn at(base: String, authority: &str, runtime: &'s tokio::runtime::Runtime) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self { base, runtime, client, cookie: None }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Somebody who has signed in.
    fn of(served: &'s Served, role: Role) -> Self {
        let token = token(served, role);
        let mut browser = Self::new(served);
        let shown = browser.sign_in(&token, "/");
        assert_eq!(shown.status, StatusCode::SEE_OTHER, "{}", shown.text);
        browser
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Shown {
        let request = match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            Shown { status, headers, text: response.text().await.unwrap() }
        })
    }

    fn get(&self, path: &str) -> Shown {
        self.send(self.client.get(self.url(path)))
    }

    /// A page that has to be there.
    fn see(&self, path: &str) -> Shown {
        let shown = self.get(path);
        assert_eq!(shown.status, StatusCode::OK, "{path}: {}", shown.text);
        shown
    }

    /// A form, as a browser sends it from this page.
    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Shown {
        let request = self.form(path, fields).header("origin", self.url(""));
        self.send(request.header("sec-fetch-site", "same-origin"))
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(self.url(path)).body(body);
        request.header("content-type", "application/x-www-form-urlencoded")
    }

    fn sign_in(&mut self, token: &str, next: &str) -> Shown {
        let shown = self.post("/sign-in", &[("token", token), ("next", next)]);
        let cookie = shown.header("set-cookie").split(';').next().unwrap_or_default();
        self.cookie = Some(cookie.to_owned()).filter(|cookie| !cookie.is_empty());
        shown
    }

    /// What the forms of this session have in them.
    fn ticket(&self) -> String {
        self.see("/").between("name=\"ticket\" value=\"", "\"").to_owned()
    }

    /// Gives an order, from the page that asks for it.
    fn order(&self, rollout: Sha256, order: &str) -> (String, Shown) {
        let path = format!("/rollouts/{rollout}/orders/{order}");
        let asked = self.see(&path);
        let ticket = asked.between("name=\"ticket\" value=\"", "\"").to_owned();
        let given = self.post(&path, &[("ticket", &ticket)]);
        assert_eq!(
            (given.status, given.header("location")),
            (StatusCode::SEE_OTHER, format!("/rollouts/{rollout}").as_str())
        );
        (asked.text, self.see(&format!("/rollouts/{rollout}")))
    }
}

fn token(served: &Served, role: Role) -> String {
    let person = Person { name: role.to_string().parse().unwrap(), role };
    access::admit(&served.controller.authority, &person, None).unwrap()
}

/// Waits for something that the controller does by itself.
fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A rollout to 80 hosts whose first wave is ready.
fn running(served: &Served) -> Sha256 {
    let authority = &served.controller.authority;
    for number in 0..80 {
        scene::enrol(authority, number).unwrap();
    }
    let (envelope, signed) = scene::document("manifest", scene::POLICY, 80);
    authority.submit(&envelope, &signed, scene::POLICY, 1).unwrap();
    let rollout = signed.digest();
    until("it runs", || authority.standing(rollout).unwrap().0 == Stage::Running);
    until("its first wave is open", || (0..80).any(|number| say(served, rollout, number, None, Said::Ready)));
    for number in 0..80 {
        let _ = say(served, rollout, number, None, Said::Ready);
    }
    rollout
}

fn say(served: &Served, rollout: Sha256, number: usize, nonce: Option<Nonce>, said: Said) -> bool {
    let report = AttemptReport { rollout, nonce, said, transaction: None, fingerprint: None };
    served.controller.authority.report(scene::host(number), report).is_ok()
}

/// Hosts of the first wave, in different failure domains, that were told to begin.
fn begun(served: &Served, rollout: Sha256, how_many: usize) -> Vec<usize> {
    let begin = |number: &usize| {
        let (nonce, action) = (scene::nonce(*number), Action::Apply);
        let request = BeginRequest { version: Version, rollout, action, nonce, epoch: 0 };
        served.controller.authority.begin(scene::host(*number), request).is_ok()
    };
    let begun: Vec<usize> = (0..80).filter(begin).take(how_many).collect();
    assert_eq!(begun.len(), how_many);
    begun
}

#[test]
fn nobody_sees_anything_before_they_sign_in_nor_after_they_have_signed_out() {
    let served = Served::new(Limits::default());
    let mut browser = Browser::new(&served);
    for path in ["/", "/hosts?page=2", "/ledger", "/controller"] {
        let shown = browser.get(path);
        assert_eq!(shown.status, StatusCode::SEE_OTHER, "{path}");
        let next = path.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D");
        assert_eq!(shown.header("location"), format!("/sign-in?next={next}"));
    }
    assert_eq!(browser.get("/live").status, StatusCode::UNAUTHORIZED);
    let asked = browser.see("/sign-in?next=%2Fhosts%3Fpage%3D2");
    assert_eq!(asked.between("name=\"next\" value=\"", "\""), "/hosts?page=2");
    // A wrong token; a form of another page; then the right one.
    assert_eq!(browser.sign_in("0000", "/").status, StatusCode::UNAUTHORIZED);
    let form = |browser: &Browser<'_>| browser.form("/sign-in", &[("token", &served.admin)]);
    let elsewhere = form(&browser).header("origin", "https://example.org");
    assert_eq!(browser.send(elsewhere).status, StatusCode::FORBIDDEN);
    assert_eq!(browser.send(form(&browser)).status, StatusCode::FORBIDDEN, "nothing says where it is from");
    let shown = browser.sign_in(&served.admin, "/hosts?page=2");
    assert_eq!((shown.status, shown.header("location")), (StatusCode::SEE_OTHER, "/hosts?page=2"));
    let cookie = shown.header("set-cookie");
    for flag in ["__Host-update-session=", "Path=/;", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(flag), "{flag}: {cookie}");
    }
    assert!(!cookie.contains(&served.admin), "the token itself is kept nowhere");
    let shown = browser.see("/");
    assert!(shown.has("admin (admin)") && shown.has("No rollout is under way"), "{}", shown.text);
    // Out by a form of this session alone.
    assert_eq!(browser.post("/sign-out", &[("ticket", "guessed")]).status, StatusCode::FORBIDDEN);
    let ticket = browser.ticket();
    assert_eq!(browser.post("/sign-out", &[("ticket", &ticket)]).status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/").status, StatusCode::SEE_OTHER, "the old cookie counts no more");
}

#[test]
fn whoever_guesses_tokens_at_the_page_has_the_pace_of_all_who_guess() {
    let wrong_tokens = Rate { burst: 3.try_into().unwrap(), every: Duration::from_secs(3600) };
    let served = Served::new(Limits { wrong_tokens, ..Limits::default() });
    let mut browser = Browser::new(&served);
    let guesses: Vec<StatusCode> = (0..5).map(|_| browser.sign_in("0000", "/").status).collect();
    assert_eq!(guesses[0], StatusCode::UNAUTHORIZED);
    assert_eq!(guesses[4], StatusCode::TOO_MANY_REQUESTS);
    let shown = browser.sign_in(&served.admin, "/");
    assert_eq!(shown.status, StatusCode::TOO_MANY_REQUESTS, "the right one is not looked at either");
    assert!(shown.has("too many requests") && shown.header("content-type").starts_with("text/html"));
}

#[test]
fn a_browser_runs_nothing_but_the_one_script() {
    let served = Served::new(Limits::default());
    let rollout = running(&served);
    let host = scene::host(0);
    let browser = Browser::of(&served, Role::Operator);
    let pages = [
        "/".to_owned(),
        "/hosts".to_owned(),
        format!("/hosts/{host}"),
        format!("/rollouts/{rollout}"),
        format!("/rollouts/{rollout}/hosts/{host}"),
        format!("/rollouts/{rollout}/orders/pause"),
        "/exposures".to_owned(),
        "/failures".to_owned(),
        "/calendar".to_owned(),
        "/trust".to_owned(),
        "/enrolment".to_owned(),
        "/ledger".to_owned(),
        "/controller".to_owned(),
        "/sign-in".to_owned(),
        "/rollouts/nothing".to_owned(),
    ];
    for path in &pages {
        let shown = browser.get(path);
        let policy = shown.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"),
            "{policy}"
        );
        assert_eq!(shown.header("x-content-type-options"), "nosniff");
        assert_eq!(shown.header("cache-control"), "no-store", "{path}");
        let text = shown.text.replace("<script type=\"module\" src=\"/page.js\"></script>", "");
        for inline in
            ["<script", "<style", " style=", " onclick", " onload", "javascript:", "http://", "https://"]
        {
            assert!(!text.contains(inline), "{path}: {inline}: {text}");
        }
        // What people need who do not see it: one heading, the language, landmarks, where to skip to, names of tables.
        for part in ["<html lang=\"en\">", "<main id=\"main\"", "href=\"#main\"", "<h1>"] {
            assert_eq!(shown.text.matches(part).count(), 1, "{path}: {part}");
        }
        assert_eq!(shown.text.matches("<table").count(), shown.text.matches("<caption>").count(), "{path}");
        assert_eq!(
            shown.text.matches("<th").count() - shown.text.matches("<thead").count(),
            shown.text.matches(" scope=\"").count()
        );
    }
    // What is no page may do nothing at all.
    for path in ["/v1/openapi.json", "/healthz", "/repository/targets/x", "/nothing"] {
        let shown = browser.get(path);
        assert!(
            shown
                .header("content-security-policy")
                .contains("default-src 'none'; frame-ancestors 'none'; sandbox")
        );
        assert_eq!(shown.header("x-content-type-options"), "nosniff");
    }
    let script = browser.see("/page.js");
    assert!(script.header("content-type").starts_with("text/javascript") && script.has("EventSource"));
    assert!(browser.see("/page.css").has("prefers-color-scheme"));
}

#[test]
fn what_hosts_call_themselves_is_words_and_no_markup() {
    let served = Served::new(Limits::default());
    let rollout = running(&served);
    let wild = "<img src=x onerror=alert(1)>\"'&amp;";
    let word = |text: &str| text.parse().unwrap();
    let mut facts = HostFacts::new(word(wild), "6.1.0".parse().unwrap(), word("<b>cpu</b>"));
    facts.workloads = vec![word("<script>alert(2)</script>")];
    let host = scene::host(begun(&served, rollout, 1)[0]);
    served.controller.authority.describe(host, &facts).unwrap();
    let browser = Browser::of(&served, Role::Viewer);
    let pages = [
        "/hosts".to_owned(),
        "/hosts?name=%3Cimg".to_owned(),
        format!("/hosts/{host}"),
        format!("/rollouts/{rollout}"),
        format!("/rollouts/{rollout}/hosts/{host}"),
        "/ledger".to_owned(),
    ];
    for path in pages {
        let shown = browser.see(&path);
        assert!(shown.has("onerror=alert(1)"), "{path} does not name it: {}", shown.text);
        for raw in ["<img", "<b>", "<script>alert", "alert(1)>\"'"] {
            assert!(!shown.has(raw), "{path}: {raw}");
        }
    }
    // What somebody asks for comes back as words, too.
    let shown = browser.see("/hosts?name=%22%3E%3Csvg%20onload%3Dalert(3)%3E");
    assert!(shown.has("No host of 80 is like that") && !shown.has("<svg onload"), "{}", shown.text);
}

#[test]
fn a_viewer_looks_and_an_operator_slows_down_from_a_page_that_says_what_it_comes_to() {
    let served = Served::new(Limits::default());
    let rollout = running(&served);
    let _ = begun(&served, rollout, 2);
    let page = format!("/rollouts/{rollout}");
    let pause = format!("{page}/orders/pause");
    let viewer = Browser::of(&served, Role::Viewer);
    let shown = viewer.see(&page);
    assert!(shown.has("A wave passes with 60 good hosts") && !shown.has("/orders/"), "{}", shown.text);
    assert_eq!(viewer.get(&pause).status, StatusCode::FORBIDDEN);
    let refused = viewer.post(&pause, &[("ticket", &viewer.ticket())]);
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.has("viewer is viewer: expected at least operator"), "{}", refused.text);
    let operator = Browser::of(&served, Role::Operator);
    // A form of another page, and one of another session.
    let elsewhere =
        operator.form(&pause, &[("ticket", &operator.ticket())]).header("sec-fetch-site", "cross-site");
    assert_eq!(operator.send(elsewhere).status, StatusCode::FORBIDDEN);
    assert_eq!(operator.post(&pause, &[("ticket", &viewer.ticket())]).status, StatusCode::FORBIDDEN);
    let stage = || served.controller.authority.standing(rollout).unwrap().0;
    assert_eq!(stage(), Stage::Running, "nothing of all this did anything");
    let (asked, shown) = operator.order(rollout, "pause");
    assert!(
        asked.contains("78 hosts that have not begun may not begin until somebody resumes it"),
        "{asked}"
    );
    assert!(asked.contains("2 hosts were told to begin: they end what they do"), "{asked}");
    assert!(
        shown.has("operator paused it") && shown.has("orders/resume") && !shown.has("orders/pause"),
        "{}",
        shown.text
    );
    assert_eq!(operator.get(&pause).status, StatusCode::CONFLICT, "it is paused");
    let (asked, shown) = operator.order(rollout, "resume");
    assert!(asked.contains("78 hosts that have not begun may begin again"), "{asked}");
    assert!(shown.has("orders/pause"), "{}", shown.text);
    // What lets hosts begin needs a signature, whoever asks.
    for order in ["approve", "retry"] {
        assert_eq!(operator.get(&format!("{page}/orders/{order}")).status, StatusCode::FORBIDDEN);
    }
    let (asked, shown) = operator.order(rollout, "abort");
    assert!(asked.contains("78 hosts that have not begun may never begin"), "{asked}");
    assert!(shown.has("aborted") && shown.has("orders/roll-back"), "{}", shown.text);
    assert!(operator.see("/ledger").has("given up by operator"));
}

#[test]
fn a_rollout_that_halts_is_seen_by_whoever_has_the_page_open() {
    let served = Served::new(Limits::default());
    let rollout = running(&served);
    let browser = Browser::of(&served, Role::Viewer);
    let page = format!("/rollouts/{rollout}");
    let cookie = browser.cookie.clone().unwrap();
    let news = browser.client.get(served.url("/live")).header("cookie", cookie);
    let mut news = served.runtime.block_on(async { news.send().await }).unwrap();
    assert_eq!(news.headers()["content-type"], "text/event-stream");
    let mut heard = || {
        served.runtime.block_on(async {
            loop {
                let chunk =
                    tokio::time::timeout(Duration::from_secs(30), news.chunk()).await.unwrap().unwrap();
                let chunk = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
                // Others keep the connection open, and say nothing.
                if let Some(size) = chunk.trim().strip_prefix("data: ") {
                    return size.parse::<u64>().unwrap();
                }
            }
        })
    };
    let first = heard();
    let shown = browser.see(&page);
    assert!(shown.has("s-ready") && !shown.has("class=\"s-bad\" x"), "{}", shown.text);
    for number in begun(&served, rollout, 2) {
        assert!(say(
            &served,
            rollout,
            number,
            Some(scene::nonce(number)),
            Said::Hurt { fault: Fault::Splat }
        ));
    }
    until("it halts", || {
        matches!(
            served.controller.authority.standing(rollout).unwrap().0,
            Stage::Halted(_) | Stage::RollingBack | Stage::RolledBack | Stage::Stuck
        )
    });
    while heard() <= first {}
    let shown = browser.see(&page);
    for words in [
        "halted:",
        "hurt: the kernel complained after the change",
        "class=\"s-bad\" x",
        "<polyline class=\"best\"",
        "The test halts",
    ] {
        assert!(shown.has(words), "{words}: {}", shown.text);
    }
    assert!(browser.see("/").has("Look at the rollout"), "and the overview says so");
    let bad = browser.see(&format!("/hosts?rollout={rollout}&state=bad"));
    assert!(bad.has("1 to 2 of 2 hosts"), "{}", bad.text);
    // The controller ends without waiting for whoever listens.
    let begun = Instant::now();
    drop(served);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// A store with so many hosts, as they are when they have said what they are.
fn large(hosts: usize) -> Arc<dyn Store> {
    let store = Memory::new(Arc::new(SystemClock));
    let inventory =
        fleet::simulate::inventory::Synthetic { hosts: hosts as u32, ..Default::default() }.inventory();
    let mut puts = Vec::new();
    for (number, host) in inventory.into_iter().enumerate() {
        let mut facts = HostFacts::new(
            format!("web-{number:05}").parse().unwrap(),
            host.kernel.clone(),
            host.cpu.clone(),
        );
        facts.workloads = (0..20).map(|container| format!("runc:{container:032}").parse().unwrap()).collect();
        let record = json!({"facts": facts, "exposed": {"CVE-2026-0001": {"since": "2026-11-01T00:00:00Z", "seconds": 0}}});
        puts.push(Put { key: Key::new("facts", host.id), value: record.to_string().into_bytes() });
        puts.push(Put { key: Key::new("host", host.id), value: serde_json::to_vec(&host).unwrap() });
    }
    let take = LeaseRequest::Take { holder: "before".to_owned(), above: 0 };
    let LeaseAnswer::Yours(lease) = store.lease(take).unwrap() else { panic!("a new store has no lease") };
    let batch = Batch { epoch: lease.epoch, puts, ..Batch::default() };
    assert!(store.commit(vec![batch]).unwrap()[0].is_ok());
    store.lease(LeaseRequest::Release { epoch: lease.epoch }).unwrap();
    Arc::new(store)
}

#[test]
fn ten_thousand_hosts_come_a_hundred_at_a_time_and_nobody_waits_for_them() {
    let served = Served::over(large(10_000), Arc::new(SystemClock), Limits::default());
    let browser = Browser::of(&served, Role::Viewer);
    let first = browser.see("/hosts");
    assert!(first.has("1 to 100 of 10000 hosts") && first.has("page 1 of 100"), "{}", first.text);
    assert_eq!(first.text.matches("<tr>").count(), 101);
    assert!(first.has("web-00000") && !first.has("rel=\"prev\""));
    let begun = Instant::now();
    for page in 2..=21 {
        let shown = browser.see(&format!("/hosts?page={page}"));
        assert!(shown.has(&format!("web-{:05}", (page - 1) * 100)), "{}", shown.text);
        assert!(shown.text.len() < 200 << 10, "{} bytes", shown.text.len());
    }
    // Far below what a person notices, also in a build for tests on a busy machine.
    let each = begun.elapsed() / 20;
    assert!(each < Duration::from_millis(500), "{each:?} a page");
    let last = browser.see("/hosts?page=100");
    assert!(last.has("web-09999") && !last.has("rel=\"next\""));
    assert!(browser.see("/hosts?page=4000").has("page 100 of 100"), "beyond the end is the end");
    let found = browser.see("/hosts?name=WEB-00&kernel=6.1.0");
    assert!(found.has("web-00") && !found.has("web-09999") && !found.has("1 of 100"), "{}", found.text);
    assert!(browser.see("/hosts?cve=CVE-2026-0001").has("of 10000 hosts"));
    assert!(browser.see("/hosts?cve=CVE-2026-0002").has("No host of 10000 is like that"));
    assert_eq!(browser.get("/hosts?cve=nothing").status, StatusCode::BAD_REQUEST);
    let query = found.between("rel=\"next\"", "\">").to_owned();
    assert!(query.contains("name=WEB-00"), "the next page is of the same: {query}");
    assert!(browser.see("/").has("10000"));
}

#[test]
fn a_host_shows_what_it_is_what_was_done_to_it_and_why() {
    let served = Served::new(Limits::default());
    let rollout = running(&served);
    let number = begun(&served, rollout, 1)[0];
    let host = scene::host(number);
    let facts: HostFacts = serde_json::from_value(json!({
        "name": "web-1", "kernel": "6.1.0-50-amd64", "cpu": "epyc", "services": [{"name": "app", "value": "shop"}],
        "livepatches": [{"module": "livepatch_fix", "state": "in-force"}],
        "workloads": ["runc:web"],
        "exposures": [{"cve": "CVE-2026-0001", "manifest": "fix", "version": 1, "standing": "exposed"}],
        "changes": [{
            "transaction": "tx-1", "rollout": rollout, "action": "apply", "until": "2026-11-02T00:00:00Z",
            "outcome": "committed", "transition_ms": 1234, "probes": {"held": 3, "failed": 1}, "splats": 2,
        }],
    }))
    .unwrap();
    served.controller.authority.describe(host, &facts).unwrap();
    let browser = Browser::of(&served, Role::Viewer);
    let shown = browser.see(&format!("/hosts/{host}"));
    for words in [
        "web-1",
        "app=shop",
        "livepatch_fix",
        "in force",
        "runc:web",
        "CVE-2026-0001",
        "tx-1",
        "1234 ms",
        "3 held, 1 failed",
        "2 complaints of the kernel",
        "told to begin",
    ] {
        assert!(shown.has(words), "{words}: {}", shown.text);
    }
    let told = browser.see(&format!("/rollouts/{rollout}/hosts/{host}"));
    assert!(told.has("told to begin, under epoch") && told.has("in wave 1"), "{}", told.text);
    until("the overview counts it", || browser.see("/hosts?show=ailing").has("1 to 1 of 1 hosts"));
    assert!(browser.see("/hosts?show=exposed").has("web-1"));
    let nobody = scene::host(4000);
    assert_eq!(browser.get(&format!("/hosts/{nobody}")).status, StatusCode::NOT_FOUND);
    let ledger = browser.see("/ledger");
    assert!(ledger.has("said what it is like") && ledger.has("rel=\"next\""), "{}", ledger.text);
    let older = browser.see(&format!("/ledger?before={}", ledger.between("/ledger?before=", "\"")));
    assert!(older.has("rel=\"prev\"") && older.has("came into the fleet"), "{}", older.text);
    let health = browser.see("/controller");
    assert!(
        health.has("Under epoch") && health.has("polls answered") && health.has("It leads"),
        "{}",
        health.text
    );
}

#[test]
fn failures_are_told_by_their_cause_and_exposure_by_vulnerability() {
    let served = Served::new(Limits::default());
    let rollout = running(&served);
    let authority = &served.controller.authority;
    let browser = Browser::of(&served, Role::Viewer);
    assert!(browser.see("/failures").has("No host has told of any"));
    assert!(browser.see("/exposures").has("No host has named a vulnerability"));
    let (cause, other) = (Sha256::of(b"one cause"), Sha256::of(b"another"));
    let declines = |number: usize, fingerprint| {
        let said = Said::Declined { outcome: Outcome::Refused };
        let report = AttemptReport {
            rollout,
            nonce: None,
            said,
            transaction: Some("tx-7".parse().unwrap()),
            fingerprint,
        };
        authority.report(scene::host(number), report).is_ok()
    };
    let declined: Vec<usize> = (0..80).filter(|number| declines(*number, Some(cause))).take(2).collect();
    assert_eq!(declined.len(), 2);
    assert!((0..80).any(|number| declines(number, Some(other))));
    let shown = browser.see("/failures");
    let words = "2 host(s) declined: a precondition does not hold";
    assert!(shown.has(words) && shown.has("1 host(s) declined: a precondition"), "{}", shown.text);
    assert!(shown.has(&cause.to_string()[..12]) && shown.has("tx-7"), "{}", shown.text);
    assert!(shown.text.find(words) < shown.text.find("1 host(s)"), "the cause of the most hosts first");
    // Exposure, as hosts say it.
    for (number, standing) in [(0, "exposed"), (1, "exposed"), (2, "fixed"), (3, "unknown")] {
        let facts = json!({
            "name": format!("web-{number}"), "kernel": "6.1.0", "cpu": "epyc", "services": [],
            "exposures": [{"cve": "CVE-2026-0001", "manifest": "fix", "version": 1, "standing": standing}],
        });
        authority.describe(scene::host(number), &serde_json::from_value(facts).unwrap()).unwrap();
    }
    until("it is told", || browser.see("/exposures").has("CVE-2026-0001"));
    until("all of it is", || browser.see("/hosts?cve=CVE-2026-0001").has("1 to 2 of 2 hosts"));
    let shown = browser.see("/exposures");
    let row = shown.between("CVE-2026-0001</th>", "</tr>");
    let cells: Vec<&str> = row.split("<td>").skip(1).map(|cell| cell.trim_end_matches("</td>")).collect();
    assert_eq!((cells.len(), &cells[1..]), (5, &["1", "1", "0", "0"][..]), "{row}");
    assert!(cells[0].contains(">2</a>"), "{row}");
}

#[test]
fn calendar_trust_and_enrolment_show_what_counts_and_until_when() {
    let served = Served::new(Limits::default());
    let authority = &served.controller.authority;
    scene::enrol(authority, 0).unwrap();
    let policy = format!(
        "{}windows: [{{zone: Europe/Berlin, at: \"22:00\", for: 6h}}]\n\
         freezes: [{{zone: Europe/Berlin, from: \"2126-12-18 00:00\", until: \"2127-01-04 00:00\", reason: Year's end}}]\n",
        scene::POLICY
    );
    let (envelope, signed) = scene::document("manifest", &policy, 1);
    authority.submit(&envelope, &signed, &policy, 1).unwrap();
    let browser = Browser::of(&served, Role::Viewer);
    let calendar = browser.see("/calendar");
    for words in [
        "fix version 1",
        "every day at 22:00 for 6h (Europe/Berlin)",
        "2126-12-18 00:00 (Europe/Berlin)",
        "Year&#39;s end",
    ] {
        assert!(calendar.has(words), "{words}: {}", calendar.text);
    }
    let trust = browser.see("/trust");
    for words in [
        "The fleet&#39;s authority",
        "This controller&#39;s certificate",
        "The rollout of fix version 1",
        "anna",
        "controller",
        "ops",
        "Version 1, issued",
        "Nobody could sign a document of the kind manifest now",
        "does not say which edition",
    ] {
        assert!(trust.has(words), "{words}: {}", trust.text);
    }
    let enrolment = browser.see("/enrolment");
    let fingerprint = served.controller.certificates.fingerprint().to_string();
    for words in [fingerprint.as_str(), "used up", "1 of 1", "rack-0", "viewer", "admin"] {
        assert!(enrolment.has(words), "{words}: {}", enrolment.text);
    }
    let token = served.token(3);
    let enrolment = browser.see("/enrolment");
    assert!(enrolment.has("lets hosts in") && enrolment.has("0 of 3") && !enrolment.has(&token.to_string()));
}

/// A livepatch for the kernel's function `cmdline_proc_show`, as the fixtures of `patch-tools` are compiled.
fn livepatch(directory: &Path) -> Vec<u8> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../patch-tools/tests/modules");
    let object = directory.join("module.o");
    let compiled = Command::new("gcc")
        .args(["-c", "-O2", "-g0", "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=kernel"])
        .args(["-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-I"])
        .arg(&sources)
        .arg("-o")
        .args([&object, &sources.join("one-function/module.c")])
        .status()
        .expect("gcc is needed to compile the fixture");
    assert!(compiled.success());
    fs::read(object).unwrap()
}

#[test]
fn a_manifest_shows_who_signed_it_and_whether_the_module_is_what_it_claims() {
    let fleet = outside::Fleet::start(outside::QUICK);
    let _host = fleet.enrol("one");
    let account = fs::read_to_string(fleet.path("controller/admin.yaml")).unwrap();
    let token = account.lines().find_map(|line| line.strip_prefix("token: ")).unwrap().trim_matches('\'');
    let authority = fs::read_to_string(fleet.path("controller/ca.pem")).unwrap();
    let mut browser = Browser::at(fleet.address.clone(), &authority, &fleet.runtime);
    assert_eq!(browser.sign_in(token, "/").status, StatusCode::SEE_OTHER);
    let module = livepatch(fleet.directory.path());
    let manifest = |version: u32, payload: &[u8], function: &str| {
        fs::write(fleet.path("fix.ko"), payload).unwrap();
        let text = outside::one_component(include_str!("../../manifests/examples/greet.yaml"), payload);
        let text =
            text.replace("version: 3", &format!("version: {version}")).replace("cmdline_proc_show", function);
        let mut envelope = Envelope::new(DocumentKind::Manifest, text.into_bytes());
        envelope.sign(&scene::secret("anna")).unwrap();
        fs::write(fleet.path("manifest.json"), envelope.to_json()).unwrap();
        let rollout = fleet.rollout();
        let shown = browser.see(&format!("/rollouts/{rollout}"));
        browser.see(&format!("/manifests/{}", shown.between("href=\"/manifests/", "\"")))
    };
    let honest = manifest(3, &module, "cmdline_proc_show");
    for words in [
        "authentic</span> by the policy",
        "ops",
        "anna",
        "counts for ops",
        "vmlinux: cmdline_proc_show",
        "the module patches exactly what is claimed: 1 function(s)",
    ] {
        assert!(honest.has(words), "{words}: {}", honest.text);
    }
    let lying = manifest(4, &module, "version_proc_show");
    for words in [
        "it patches vmlinux: cmdline_proc_show, which is not claimed",
        "it does not patch vmlinux: version_proc_show",
    ] {
        assert!(lying.has(words), "{words}: {}", lying.text);
    }
    let other = manifest(5, b"not a module", "cmdline_proc_show");
    assert!(other.has("the file is no module"), "{}", other.text);
    let unknown = browser.get(&format!("/manifests/{}", Sha256::of(b"fix.ko")));
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "only what a rollout is of is shown");
}
