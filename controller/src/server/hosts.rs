//! What hosts ask: enrol and renew without a certificate; poll, report, begin and content with one.
//!
//! Each request is held against the fleet: a host that left, or whose key was revoked, is answered nothing, however long its
//! certificate would still count.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use fleet::protocol::{
    BeginAnswer, BeginRequest, Certificate, Challenge, Enrol, FactsWanted, Heard, Hint, HostFacts, Poll,
    Renew, Report, Version,
};
use manifests::{HostId, Nonce, Period, Sha256, UtcTime};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::answer::{Refusal, blocking, json, message, small};
use super::tls::Peer;
use super::{Controller, Shared};
use crate::authority::Denied;
use crate::certificates::{HOST_LIFE, HostRequest};
use crate::enrolment::{self, Newcomer};

/// How long a challenge counts.
const CHALLENGE: Duration = Duration::from_secs(300);

/// So many challenges are open at once; more push out the oldest.
const CHALLENGES: usize = 10_000;

/// A host that could begin, or is in the middle of it, asks again after this time.
const SOON: u32 = 5;

/// Challenges that were given out and not used.
#[derive(Debug, Default)]
pub(super) struct Challenges(Mutex<BTreeMap<Nonce, Duration>>);

impl Challenges {
    fn give(&self, now: Duration) -> Result<Nonce, Refusal> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
        let nonce = Nonce::from_bytes(bytes);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, given| now.saturating_sub(*given) <= CHALLENGE);
        if open.len() >= CHALLENGES
            && let Some(oldest) = open.iter().min_by_key(|(_, given)| **given).map(|(nonce, _)| *nonce)
        {
            open.remove(&oldest);
        }
        open.insert(nonce, now);
        Ok(nonce)
    }

    fn take(&self, nonce: &Nonce, now: Duration) -> bool {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(nonce);
        given.is_some_and(|given| now.saturating_sub(given) <= CHALLENGE)
    }
}

/// The last report of each host, so that one that comes twice is known.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<HashMap<HostId, u64>>);

impl Reports {
    fn is_new(&self, host: HostId, number: u64) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.entry(host).or_default();
        let new = number > *last;
        *last = (*last).max(number);
        new
    }
}

fn host(peer: &Peer) -> Result<HostId, Refusal> {
    peer.host.ok_or_else(|| Refusal::who("expected a host's certificate, found none"))
}

pub(super) async fn enrol(
    State(controller): State<Shared>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let Enrol { token, request, facts, .. } = message(body).await?;
    bounded(&facts)?;
    let certificate = blocking(move || {
        let request = HostRequest::read(&request)?;
        let HostFacts { kernel, kernel_build_id, cpu, services, .. } = facts.clone();
        let newcomer = Newcomer { id: request.host, kernel, kernel_build_id, cpu, services };
        let host = enrolment::enrol(&controller.authority, &token, &newcomer)?;
        controller.authority.describe(host.id, &facts)?;
        tracing::info!(host = %host.id, name = %facts.name, address = %peer.address, "a host came in");
        certificate(&controller, &request, host.groups)
    });
    Ok(json(&certificate.await?))
}

fn bounded(facts: &HostFacts) -> Result<(), Refusal> {
    match facts.too_many() {
        Some((field, limit, found)) => {
            Err(Refusal::bad(format_args!("{field}: expected at most {limit} entries, found {found}")))
        }
        None => Ok(()),
    }
}

fn certificate(
    controller: &Controller,
    request: &HostRequest,
    groups: Vec<manifests::GroupName>,
) -> Result<Certificate, Refusal> {
    let now = controller.now();
    let chain = controller.certificates.host(request, now)?;
    let half = jiff::SignedDuration::from_secs(HOST_LIFE.as_secs() as i64 / 2);
    let renew_at = now.timestamp().saturating_add(half).map_or(now, UtcTime::floor);
    Ok(Certificate { version: Version, chain, host: request.host, groups, renew_at })
}

pub(super) async fn challenge(State(controller): State<Shared>) -> Result<Response, Refusal> {
    let nonce = controller.challenges.give(controller.clock.elapsed())?;
    Ok(json(&Challenge { version: Version, nonce }))
}

pub(super) async fn renew(State(controller): State<Shared>, body: Body) -> Result<Response, Refusal> {
    let Renew { request, nonce, signature, .. } = message(body).await?;
    let certificate = blocking(move || {
        if !controller.challenges.take(&nonce, controller.clock.elapsed()) {
            return Err(Refusal::who("expected a challenge that was given minutes ago and not used"));
        }
        let request = HostRequest::read(&request)?;
        let signature = hex::decode(&signature).unwrap_or_default();
        if !request.signed(nonce.to_string().as_bytes(), &signature) {
            return Err(Refusal::who("expected the challenge signed by the key of the request"));
        }
        let groups = controller.authority.host(request.host)?.groups;
        certificate(&controller, &request, groups)
    });
    Ok(json(&certificate.await?))
}

pub(super) async fn poll(
    State(controller): State<Shared>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let host = host(&peer)?;
    let poll: Poll = message(body).await?;
    let hint = blocking(move || {
        let outlook = controller.authority.outlook(host)?;
        controller.presence.heard(host, poll.boot, controller.now());
        let facts = match controller.authority.facts_of(host)? {
            Some(known) if poll.facts == Some(known) => FactsWanted::No,
            _ => FactsWanted::Yes,
        };
        let soon = outlook.under_way || !outlook.offers.is_empty();
        let again = if soon { SOON.min(controller.settings.poll) } else { controller.settings.poll };
        controller.counters.polls.inc();
        Ok(Hint {
            version: Version,
            again: Period::from_secs(again),
            offers: outlook.offers,
            stop: outlook.stop,
            facts,
            manifests: outlook.manifests,
        })
    });
    Ok(json(&hint.await?))
}

pub(super) async fn report(
    State(controller): State<Shared>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let host = host(&peer)?;
    let bytes = small(body, <Report as fleet::protocol::Message>::MAX_BYTES).await?;
    let report = Report::parse(&bytes).map_err(|error| Refusal::bad(system::error::with_causes(&error)))?;
    let heard = blocking(move || {
        controller.authority.host(host)?;
        // One that came before is answered all the same: each attempt says by itself whether it is news.
        let fresh = controller.reports.is_new(host, report.number);
        if let Some(facts) = report.facts.filter(|_| fresh) {
            controller.authority.describe(host, &facts)?;
        }
        let mut news = Vec::new();
        for attempt in report.attempts {
            let (rollout, said) = (attempt.rollout, attempt.said);
            match controller.authority.report(host, attempt) {
                Ok(_) => {
                    tracing::info!(%host, %rollout, ?said, "a host reports");
                    news.push(true);
                }
                Err(Denied::Stale(_) | Denied::NoSuchRollout { .. }) => news.push(false),
                Err(denied) => return Err(denied.into()),
            }
        }
        controller.counters.reports.inc();
        Ok(Heard { version: Version, news })
    });
    Ok(json(&heard.await?))
}

pub(super) async fn begin(
    State(controller): State<Shared>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let host = host(&peer)?;
    let request: BeginRequest = message(body).await?;
    let answer = blocking(move || {
        controller.authority.host(host)?;
        if controller.presence.is_cloned(host) {
            return Err(Denied::Clone { host }.into());
        }
        let (rollout, action) = (request.rollout, request.action);
        match controller.authority.begin(host, request) {
            Ok(grant) => {
                controller.counters.grants.inc();
                tracing::info!(%host, %rollout, ?action, "a host may begin");
                Ok(BeginAnswer::Granted { version: Version, grant })
            }
            Err(Denied::NotNow(reason)) => {
                let again = Period::from_secs(SOON.min(controller.settings.poll));
                Ok(BeginAnswer::not_now(&reason, again))
            }
            Err(denied) => Err(denied.into()),
        }
    });
    Ok(json(&answer.await?))
}

/// A document or a payload, from the byte that is asked for.
pub(super) async fn content(
    State(controller): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let host = host(&peer)?;
    let digest: Sha256 = digest.parse().map_err(Refusal::bad)?;
    let from = match headers.get(header::RANGE) {
        None => 0,
        Some(range) => range
            .to_str()
            .ok()
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .ok_or_else(|| Refusal::bad("expected a range of the form bytes=N-"))?,
    };
    let found = blocking(move || {
        controller.authority.host(host)?;
        controller.content.get(digest).map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))
    });
    let Some((file, size)) = found.await? else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format_args!("{digest} is not here")));
    };
    if from > size {
        return Err(Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format_args!("expected a range within {size} bytes"),
        ));
    }
    let mut file = tokio::fs::File::from_std(file);
    file.seek(std::io::SeekFrom::Start(from))
        .await
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let mut response = Response::builder().header(header::CONTENT_LENGTH, size - from);
    if headers.contains_key(header::RANGE) {
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", size.saturating_sub(1)));
    }
    let stream = tokio_util::io::ReaderStream::with_capacity(file.take(size - from), 64 << 10);
    response
        .body(Body::from_stream(stream))
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))
}
