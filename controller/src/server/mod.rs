//! The controller as a service: HTTPS for hosts and people, and the clockwork that keeps the lease and does what is due.
//!
//! Of several controllers of one fleet one leads: it holds the lease, and answers. The others say who does, and take over when the
//! lease runs out.
//!
//! - `standby`: what is answered by who does not lead
//! - `tls`: connections, and who is at their other end
//! - [`limits`]: what one peer may take
//! - `hosts`: what hosts ask
//! - `people`: what people ask, with a token
//! - `page`: what they look at in a browser
//! - `asked`, `answer`: how questions are read and answers written
//! - `api`: the table of routes, and its description
//! - `health`: how hosts with the change do beside the others, asked aside
//! - [`repository`]: what hosts fetch by name, if a repository was published here
//! - `watch`: whether the ledger is still what was written
//! - `metrics`: what Prometheus is told

mod answer;
mod api;
mod asked;
mod health;
mod hosts;
pub mod limits;
mod metrics;
mod page;
pub mod people;
pub mod repository;
mod standby;
pub mod tls;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use fleet::protocol::paths;
use jiff::SignedDuration;
use manifests::{Policy, UtcTime};
use system::clock::Clock;
use tokio::net::TcpListener;

use self::answer::{Refusal, blocking};
use self::api::{Api, Gives, Page};
use self::asked::{By, Viewer};
use self::health::Health;
use self::limits::{Gate, Limits};
use self::metrics::Counters;
use self::repository::Repository;
pub(crate) use self::standby::holder;
use self::watch::Watch;
use crate::authority::{Authority, Denied, Surroundings};
use crate::certificates::{CertificateAuthority, CertificateError, SERVER_LIFE};
use crate::content::Content;
use crate::presence::Presence;
use crate::prometheus::Prometheus;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// So many of these later, what need not be done so often.
const MINUTE: u32 = 60;

/// The clockwork hangs if it did not come round for so long: a renewal of the lease waits for the store.
const HANGS: u64 = 60;

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names and addresses by which hosts reach it; they stand in its certificate.
    pub names: Vec<String>,
    /// After how many seconds a host asks again that has nothing to do.
    pub poll: u32,
    /// What one peer may take.
    pub limits: Limits,
    /// Where the ledger's newest signed head is kept, beside the store: an edited one is held against it.
    pub checkpoint: Option<PathBuf>,
    /// What is served beside the fleet's own: a repository.
    pub repository: Option<Repository>,
    /// Who answers health queries.
    pub prometheus: Option<Prometheus>,
}

/// What all requests share.
pub struct Controller {
    /// The one authority.
    pub authority: Authority,
    /// Who hosts are.
    pub certificates: CertificateAuthority,
    /// What they fetch.
    pub content: Content,
    /// The policy that hosts have; without, nobody can hand anything in.
    pub policy: Option<Policy>,
    /// How it behaves.
    pub settings: Settings,
    clock: Arc<dyn Clock + Send + Sync>,
    presence: Presence,
    /// Whether `presence` goes on from what the last holder of the lease knew.
    listens: AtomicBool,
    challenges: hosts::Challenges,
    reports: hosts::Reports,
    counters: Counters,
    health: Health,
    leader: standby::Leader,
    gate: Arc<Gate>,
    watch: Watch,
    sessions: page::Sessions,
    roster: page::Roster,
    live: page::Live,
    /// Until when its own certificate counts, once it listens.
    certified: OnceLock<UtcTime>,
    /// When the clockwork last came round.
    round: AtomicU64,
}

type Shared = Arc<Controller>;

/// Why the service ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot listen there.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is no certificate for it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

impl Controller {
    /// A controller that serves nobody yet.
    pub fn new(
        authority: Authority,
        certificates: CertificateAuthority,
        content: Content,
        policy: Option<Policy>,
        settings: Settings,
        clock: Arc<dyn Clock + Send + Sync>,
    ) -> Self {
        let presence = Presence::new(UtcTime::floor(clock.now()));
        let gate = Arc::new(Gate::new(settings.limits, clock.clone()));
        let this = Self {
            authority,
            certificates,
            content,
            policy,
            settings,
            clock,
            presence,
            listens: AtomicBool::new(false),
            challenges: hosts::Challenges::default(),
            reports: hosts::Reports::default(),
            counters: Counters::new(gate.turned_away.clone()),
            health: Health::default(),
            gate,
            leader: standby::Leader::default(),
            watch: Watch::default(),
            sessions: page::Sessions::default(),
            roster: page::Roster::default(),
            live: page::Live::default(),
            certified: OnceLock::new(),
            round: AtomicU64::default(),
        };
        this.count_lead();
        this
    }

    fn now(&self) -> UtcTime {
        UtcTime::floor(self.authority.store().now())
    }

    /// Renews the lease, or takes it if it is nobody's; and writes down what is due. Whether this controller leads.
    fn tick(&self) -> Result<bool, Denied> {
        let leads = self.lead();
        self.count_lead();
        if !leads? {
            return Ok(false);
        }
        if !self.listens.load(Ordering::Relaxed) {
            // Where whoever led before left off.
            self.presence.resume(&**self.authority.store(), self.now())?;
            self.listens.store(true, Ordering::Relaxed);
        }
        self.with_surroundings(|around| self.authority.tick(around))?;
        let puts = self.presence.due(self.now(), self.clock.elapsed(), || self.authority.in_flight())?;
        if !puts.is_empty() {
            self.authority.keep(puts)?;
        }
        Ok(true)
    }

    /// Keeps the ledger's head: the one in memory, which follows from what this controller wrote, whatever is in the store.
    fn keep_checkpoint(&self) {
        let Some(path) = &self.settings.checkpoint else { return };
        // Without the lease somebody else knows it.
        let Ok(note) = self.authority.checkpoint() else { return };
        if let Err(error) = system::durable::replace(path, note.as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "the ledger's head is not kept");
        }
    }

    fn keep_going(&self, over: &AtomicBool) {
        let mut complained = String::new();
        for turn in 1_u32.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            self.round.store(self.clock.elapsed().as_secs(), Ordering::Relaxed);
            if turn % MINUTE == 1 {
                self.gate.forget();
                self.keep_checkpoint();
            }
            let words =
                self.tick().err().map(|denied| system::error::with_causes(&denied)).unwrap_or_default();
            if !words.is_empty() && words != complained {
                tracing::warn!(error = words, "what was due is not done");
            }
            complained = words;
            if self.live.is_heard()
                && let Ok(size) = self.authority.store().size()
            {
                self.live.tell(size);
            }
            // Also without a lease: another controller may have it.
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
            self.clock.sleep(TICK);
        }
    }
}

/// A controller that can be reached.
pub struct Listening {
    controller: Arc<Controller>,
    listener: TcpListener,
    tls: rustls::ServerConfig,
    /// Where: with the port that the system chose, if it was left to it.
    pub address: SocketAddr,
}

impl Listening {
    /// Takes a listener of [`listen`]. Whoever connects waits until this serves.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn by(controller: Arc<Controller>, listener: std::net::TcpListener) -> Result<Self, ServeError> {
        let (listener, address) = listened(listener)?;
        let now = controller.now();
        let (chain, key) = controller.certificates.server(&controller.settings.names, now)?;
        let life = SignedDuration::try_from(SERVER_LIFE).unwrap_or(SignedDuration::MAX);
        let _ = controller.certified.set(now.timestamp().saturating_add(life).map_or(now, UtcTime::floor));
        let tls = tls::config(controller.certificates.der(), chain, key)?;
        Ok(Self { controller, listener, tls, address })
    }

    /// Serves until `end` comes; whoever is under way then may finish.
    pub async fn serve(self, end: impl Future<Output = ()>) {
        let Self { controller, listener, tls, .. } = self;
        let over = Arc::new(AtomicBool::new(false));
        let aside = |work: fn(&Controller, &AtomicBool)| {
            let (controller, over) = (controller.clone(), over.clone());
            thread::spawn(move || work(&controller, &over))
        };
        let threads = [aside(Controller::keep_going), aside(Controller::keep_looking)];
        let asking = tokio::spawn(controller.clone().keep_asking());
        let gate = controller.gate.clone();
        let told = controller.clone();
        let end = async move {
            end.await;
            told.live.end();
        };
        tls::serve(listener, tls, &gate, router(controller.clone()), end).await;
        over.store(true, Ordering::Relaxed);
        // Nothing hangs on an answer that is on its way.
        asking.abort();
        let _ = asking.await;
        // They look every second.
        let _ = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
            controller.keep_checkpoint();
        })
        .await;
    }
}

/// Takes an address, before anything is decided that says where this controller is.
///
/// # Errors
/// [`ServeError::Listen`].
pub fn listen(address: SocketAddr) -> Result<std::net::TcpListener, ServeError> {
    std::net::TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })
}

/// The listener for this runtime, and where it is.
fn listened(listener: std::net::TcpListener) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address: SocketAddr::from(([0; 4], 0)), source };
    let address = listener.local_addr().map_err(failed)?;
    let failed = |source| ServeError::Listen { address, source };
    listener.set_nonblocking(true).map_err(failed)?;
    Ok((TcpListener::from_std(listener).map_err(failed)?, address))
}

/// Every route that is not the [page](page::routes)'s. What is not here is not served.
fn api() -> Api {
    Api::new()
        .post(paths::ENROL, "enrol", "Let a host in by a token", hosts::enrol)
        .get(paths::CHALLENGE, "challenge", "Give a nonce to sign a renewal with", hosts::challenge)
        .post(paths::RENEW, "renew", "Give a host's key a new certificate", hosts::renew)
        .post(paths::POLL, "poll", "Is there something for me?", hosts::poll)
        .post(paths::REPORT, "report", "Hear what became of attempts, and what a host is like", hosts::report)
        .post(paths::BEGIN, "begin", "Grant one attempt, or say why not now", hosts::begin)
        .get(
            &format!("{}{{digest}}", paths::CONTENT),
            "content",
            "Give a document or a payload by its digest",
            hosts::content,
        )
        .put("/v1/payloads/{digest}", "keep", "Take a payload that a manifest names", people::keep)
        .get("/v1/rollouts", "rollouts", "Show where all rollouts stand", people::rollouts)
        .post("/v1/rollouts", "submit", "Take a rollout that people signed", people::submit)
        .get("/v1/rollouts/{rollout}", "rollout", "Show where a rollout stands", people::rollout)
        .post("/v1/rollouts/{rollout}/orders", "order", "Tell a rollout what people want", people::order)
        .get(
            "/v1/rollouts/{rollout}/hosts/{host}",
            "explain",
            "Tell why a host got something, or did not",
            people::explain,
        )
        .get("/v1/hosts", "hosts", "Show who is in the fleet", people::hosts)
        .get("/v1/hosts/{host}", "host", "Show what a host says of itself", people::host)
        .post("/v1/hosts/{host}", "change-host", "Move a host, or take it out", people::change_host)
        .get("/v1/exposures", "exposures", "Show who is exposed to what", people::exposures)
        .get("/v1/exposures/{cve}", "exposure", "Show who is exposed to this", people::exposure)
        .post("/v1/tokens", "token", "Make a token by which hosts come in", people::token)
        .post("/v1/people", "admit", "Let somebody ask", people::admit)
        .get("/v1/checkpoint", "checkpoint", "Show the ledger's head, signed", people::checkpoint)
        .get(
            "/repository/metadata/{*name}",
            "repository-metadata",
            "Give metadata of the repository that is served here",
            repository::metadata,
        )
        .get(
            "/repository/targets/{*name}",
            "repository-target",
            "Give a manifest or a payload of that repository",
            repository::target,
        )
        .get("/v1/openapi.json", "openapi", "Show this description", openapi)
        .get("/metrics", "metrics", "Tell Prometheus", metrics)
        .get("/healthz", "health", "Show whether this controller could tell a host to begin", health)
        .get("/livez", "alive", "Show whether this program goes on", alive)
}

/// The description of the API: an OpenAPI document in JSON.
pub fn description() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{:#}\n", api().description()))
}

fn router(controller: Shared) -> Router {
    let gate = controller.gate.clone();
    page::routes(api())
        .router
        .fallback(nothing_there)
        // Each question has its own bound.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(controller.clone(), standby::only_who_leads))
        .layer(from_fn_with_state(gate, limits::around))
        .layer(map_response(page::strict))
        .with_state(controller)
}

async fn nothing_there() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing here")
}

/// The media type of metrics.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What Prometheus is told.
struct Metrics(String);

impl IntoResponse for Metrics {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, METRICS)], self.0).into_response()
    }
}

impl Gives for Metrics {
    fn tell(page: &mut Page<'_>) {
        page.plain("200", METRICS, "Counters and gauges");
    }
}

/// The description of this API.
struct Description;

impl IntoResponse for Description {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], description()).into_response()
    }
}

impl Gives for Description {
    fn tell(page: &mut Page<'_>) {
        page.plain("200", "application/json", "An OpenAPI document");
    }
}

async fn openapi() -> Result<Description, Refusal> {
    Ok(Description)
}

/// Whether this program goes on; also without the lease.
async fn alive(State(controller): State<Shared>) -> Result<String, Refusal> {
    let round = controller.round.load(Ordering::Relaxed);
    match controller.clock.elapsed().as_secs().saturating_sub(round) {
        ..=HANGS => Ok("ok\n".to_owned()),
        seconds => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format_args!("the clockwork hangs: expected a round each second, found none for {seconds} s"),
        )),
    }
}

/// Whether this controller could tell a host to begin.
async fn health(State(controller): State<Shared>) -> Result<String, Refusal> {
    if !controller.leads() {
        return Err(controller.refer());
    }
    match controller.counters.edited.get() {
        0 => Ok("ok\n".to_owned()),
        _ => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the ledger was edited in the store")),
    }
}

async fn metrics(State(controller): State<Shared>, _: By<Viewer>) -> Result<Metrics, Refusal> {
    let page = blocking(move || {
        let (hosts, presence, now) =
            (controller.authority.members()?, &controller.presence, controller.now());
        let fleet = metrics::Fleet {
            hosts: hosts.len(),
            silent: hosts.iter().filter(|host| presence.is_silent(**host, now)).count(),
            cloned: hosts.iter().filter(|host| presence.is_cloned(**host)).count(),
        };
        let ledger = controller
            .authority
            .store()
            .size()
            .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
        Ok(controller.counters.page(fleet, ledger, &controller.authority.standings()?))
    });
    page.await.map(Metrics)
}
