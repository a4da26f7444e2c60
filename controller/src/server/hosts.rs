//! What hosts ask: enrol and renew without a certificate; poll, report, begin and content with one.
//!
//! Each request is held against the fleet: a host that left, or whose key was revoked, is answered nothing, however long its
//! certificate would still count.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet::protocol::{
    BeginAnswer, BeginRequest, Certificate, Challenge, Enrol, FactsWanted, Heard, Hint, HostFacts, Poll,
    Renew, Report, Version,
};
use manifests::{HostId, Nonce, Period, Sha256, UtcTime};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::answer::{Answer, Refusal, blocking};
use super::api::{Gives, Page};
use super::asked::{Asked, At, From, Host};
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

pub(super) async fn enrol(
    State(controller): State<Shared>,
    Extension(peer): Extension<Peer>,
    Asked(enrol): Asked<Enrol>,
) -> Result<Answer<Certificate>, Refusal> {
    let Enrol { token, request, facts, .. } = enrol;
    let certificate = blocking(move || {
        let request = HostRequest::read(&request)?;
        let HostFacts { kernel, kernel_build_id, cpu, services, .. } = facts.clone();
        let newcomer = Newcomer { id: request.host, kernel, kernel_build_id, cpu, services };
        let host = enrolment::enrol(&controller.authority, &token, &newcomer)?;
        controller.authority.describe(host.id, &facts)?;
        tracing::info!(host = %host.id, name = %facts.name, address = %peer.address, "a host came in");
        certificate(&controller, &request, host.groups)
    });
    certificate.await.map(Answer)
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

pub(super) async fn challenge(State(controller): State<Shared>) -> Result<Answer<Challenge>, Refusal> {
    let nonce = controller.challenges.give(controller.clock.elapsed())?;
    Ok(Answer(Challenge { version: Version, nonce }))
}

pub(super) async fn renew(
    State(controller): State<Shared>,
    Asked(renew): Asked<Renew>,
) -> Result<Answer<Certificate>, Refusal> {
    let Renew { request, nonce, signature, .. } = renew;
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
    certificate.await.map(Answer)
}

pub(super) async fn poll(
    State(controller): State<Shared>,
    Host(host): Host,
    Asked(poll): Asked<Poll>,
) -> Result<Answer<Hint>, Refusal> {
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
    hint.await.map(Answer)
}

pub(super) async fn report(
    State(controller): State<Shared>,
    Host(host): Host,
    Asked(report): Asked<Report>,
) -> Result<Answer<Heard>, Refusal> {
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
    heard.await.map(Answer)
}

pub(super) async fn begin(
    State(controller): State<Shared>,
    Host(host): Host,
    Asked(request): Asked<BeginRequest>,
) -> Result<Answer<BeginAnswer>, Refusal> {
    let answer = blocking(move || {
        controller.authority.host(host)?;
        controller.unedited()?;
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
    answer.await.map(Answer)
}

/// Bytes as they lie there.
pub(super) struct Stream(Response);

impl IntoResponse for Stream {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Gives for Stream {
    fn tell(page: &mut Page<'_>) {
        let media = "application/octet-stream";
        page.plain("200", media, "The envelope of a document, or a payload");
        page.plain("206", media, "The rest of it");
    }
}

/// A document or a payload, from the byte that is asked for.
pub(super) async fn content(
    State(controller): State<Shared>,
    Host(host): Host,
    At(digest): At<Sha256>,
    From(asked): From,
) -> Result<Stream, Refusal> {
    let from = asked.unwrap_or(0);
    let found = blocking(move || {
        controller.authority.host(host)?;
        Ok(controller.content.get(digest)?)
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
    send(file, size, asked.map(|from| from..size)).await
}

/// A file of so many bytes, or a part of it.
pub(super) async fn send(
    file: std::fs::File,
    size: u64,
    part: Option<std::ops::Range<u64>>,
) -> Result<Stream, Refusal> {
    let std::ops::Range { start, end } = part.clone().unwrap_or(0..size);
    let mut file = tokio::fs::File::from_std(file);
    file.seek(std::io::SeekFrom::Start(start))
        .await
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let mut response = Response::builder().header(header::CONTENT_LENGTH, end - start);
    if part.is_some() {
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end.saturating_sub(1)));
    }
    let stream = tokio_util::io::ReaderStream::with_capacity(file.take(end - start), 64 << 10);
    response
        .body(Body::from_stream(stream))
        .map(Stream)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))
}
