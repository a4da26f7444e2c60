//! The controller as a service: HTTPS for hosts and people, and the clockwork that keeps the lease and does what is due.
//!
//! - `tls`: connections, and who is at their other end
//! - `hosts`: what hosts ask
//! - `people`: what people ask, with a token
//! - `answer`: how questions are read and answers written
//! - `metrics`: what Prometheus is told

mod answer;
mod hosts;
mod metrics;
pub mod people;
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use fleet::protocol::paths;
use manifests::{Policy, UtcTime};
use system::clock::Clock;
use tokio::net::TcpListener;

use self::answer::{Refusal, blocking};
use self::metrics::Counters;
use crate::authority::{Authority, Denied, Surroundings};
use crate::certificates::{CertificateAuthority, CertificateError};
use crate::content::Content;
use crate::presence::Presence;

/// How long somebody who sends something large may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names and addresses by which hosts reach it; they stand in its certificate.
    pub names: Vec<String>,
    /// After how many seconds a host asks again that has nothing to do.
    pub poll: u32,
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
        Self {
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
            counters: Counters::new(),
        }
    }

    fn now(&self) -> UtcTime {
        UtcTime::floor(self.authority.store().now())
    }

    /// Renews the lease, and writes down what is due.
    fn tick(&self) -> Result<(), Denied> {
        let led = match self.authority.renew() {
            Err(Denied::NoLease) => {
                self.listens.store(false, Ordering::Relaxed);
                self.authority.retake()
            }
            renewed => renewed,
        };
        self.counters.leads.set(i64::from(led.is_ok()));
        led?;
        if !self.listens.load(Ordering::Relaxed) {
            // Where whoever had the lease before left off.
            self.presence.resume(&**self.authority.store(), self.now())?;
            self.listens.store(true, Ordering::Relaxed);
        }
        let around = Surroundings {
            last_seen: &|host| self.presence.silent_since(host),
            listening_since: self.presence.since(),
            readings: &BTreeMap::new(),
        };
        self.authority.tick(&around)?;
        let puts = self.presence.due(self.now(), self.clock.elapsed(), || self.authority.in_flight())?;
        if !puts.is_empty() {
            self.authority.keep(puts)?;
        }
        Ok(())
    }

    fn keep_going(&self, over: &AtomicBool) {
        let mut complained = String::new();
        while !over.load(Ordering::Relaxed) {
            let words = self.tick().err().map(|denied| denied.to_string()).unwrap_or_default();
            if !words.is_empty() && words != complained {
                tracing::warn!(error = words, "what was due is not done");
            }
            complained = words;
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
    /// Takes the address. Whoever connects waits until this serves.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn at(controller: Arc<Controller>, address: SocketAddr) -> Result<Self, ServeError> {
        let listen = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (chain, key) = controller.certificates.server(&controller.settings.names, controller.now())?;
        let tls = tls::config(controller.certificates.der(), chain, key)?;
        Ok(Self { controller, listener, tls, address })
    }

    /// Serves until `end` comes; whoever is under way then may finish.
    pub async fn serve(self, end: impl Future<Output = ()>) {
        let Self { controller, listener, tls, .. } = self;
        let over = Arc::new(AtomicBool::new(false));
        let clockwork = {
            let (controller, over) = (controller.clone(), over.clone());
            thread::spawn(move || controller.keep_going(&over))
        };
        tls::serve(listener, tls, router(controller), end).await;
        over.store(true, Ordering::Relaxed);
        // It looks every second.
        let _ = tokio::task::spawn_blocking(move || clockwork.join()).await;
    }
}

fn router(controller: Shared) -> Router {
    Router::new()
        .route(paths::ENROL, post(hosts::enrol))
        .route(paths::CHALLENGE, get(hosts::challenge))
        .route(paths::RENEW, post(hosts::renew))
        .route(paths::POLL, post(hosts::poll))
        .route(paths::REPORT, post(hosts::report))
        .route(paths::BEGIN, post(hosts::begin))
        .route(&format!("{}{{digest}}", paths::CONTENT), get(hosts::content))
        .route("/v1/payloads/{digest}", put(people::keep))
        .route("/v1/rollouts", get(people::rollouts).post(people::submit))
        .route("/v1/rollouts/{rollout}", get(people::rollout))
        .route("/v1/rollouts/{rollout}/orders", post(people::order))
        .route("/v1/rollouts/{rollout}/hosts/{host}", get(people::explain))
        .route("/v1/hosts", get(people::hosts))
        .route("/v1/hosts/{host}", get(people::host).post(people::change_host))
        .route("/v1/exposures", get(people::exposures))
        .route("/v1/exposures/{cve}", get(people::exposure))
        .route("/v1/tokens", post(people::token))
        .route("/v1/people", post(people::admit))
        .route("/v1/checkpoint", get(people::checkpoint))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .fallback(nothing_there)
        // Each question has its own bound.
        .layer(DefaultBodyLimit::disable())
        .with_state(controller)
}

async fn nothing_there() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing here")
}

/// Whether this controller could tell a host to begin.
async fn health(State(controller): State<Shared>) -> Result<&'static str, Refusal> {
    blocking(move || {
        if controller.counters.leads.get() == 1 {
            Ok("ok\n")
        } else {
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "this controller does not hold the lease"))
        }
    })
    .await
}

async fn metrics(State(controller): State<Shared>, headers: HeaderMap) -> Result<Response, Refusal> {
    people::may_look(&controller, &headers).await?;
    let page = blocking(move || {
        let hosts = controller.authority.hosts()?.len();
        let ledger = controller
            .authority
            .store()
            .size()
            .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
        Ok(controller.counters.page(hosts, ledger, &controller.authority.standings()?))
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page.await?).into_response())
}
