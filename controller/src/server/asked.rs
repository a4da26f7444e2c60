//! What handlers take out of a request: who asks, what of the path and headers they need, and the question itself, bounded
//! in size and time. Each tells the description what it is.

use std::marker::PhantomData;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use fleet::protocol::Message;
use manifests::HostId;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Shared;
use super::answer::{Refusal, blocking};
use super::api::{Page, Takes};
use super::tls::Peer;
use crate::access::{self, Person, Role};

impl Takes for State<Shared> {
    fn tell(_: &mut Page<'_>) {}
}

impl Takes for Extension<Peer> {
    fn tell(_: &mut Page<'_>) {}
}

/// The host at the other end, by its certificate.
pub(super) struct Host(pub(super) HostId);

impl FromRequestParts<Shared> for Host {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Refusal> {
        let host = parts.extensions.get::<Peer>().and_then(|peer| peer.host);
        host.map(Self).ok_or_else(|| Refusal::who("expected a host's certificate, found none"))
    }
}

impl Takes for Host {
    fn tell(page: &mut Page<'_>) {
        page.by_hosts();
    }
}

/// What somebody has to be at least.
pub(super) trait Least {
    const ROLE: Role;
}

/// See [`Role::Viewer`].
pub(super) enum Viewer {}

/// See [`Role::Operator`].
pub(super) enum Operator {}

/// See [`Role::Admin`].
pub(super) enum Admin {}

impl Least for Viewer {
    const ROLE: Role = Role::Viewer;
}

impl Least for Operator {
    const ROLE: Role = Role::Operator;
}

impl Least for Admin {
    const ROLE: Role = Role::Admin;
}

/// Refuses whoever is less than `R`.
pub(super) fn at_least<R: Least>(person: &Person) -> Result<(), Refusal> {
    let Person { name, role } = person;
    match *role < R::ROLE {
        true => Err(Refusal::forbidden(format_args!("{name} is {role}: expected at least {}", R::ROLE))),
        false => Ok(()),
    }
}

/// Who asks, by their token, if they are at least `R`.
pub(super) struct By<R> {
    /// Who.
    pub(super) person: Person,
    role: PhantomData<R>,
}

impl<R: Least + Send> FromRequestParts<Shared> for By<R> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, controller: &Shared) -> Result<Self, Refusal> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::to_owned)
            .ok_or_else(|| Refusal::who("expected a token of this controller, found none"))?;
        let asked = controller.clone();
        let person = blocking(move || {
            access::who(&asked.authority, &token)
                .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))
        });
        let person = person.await?.ok_or_else(|| {
            let error = "expected a token of this controller, found another";
            Refusal::wrong_token(StatusCode::UNAUTHORIZED, error)
        })?;
        controller.gate.person(&person.name)?;
        at_least::<R>(&person)?;
        Ok(Self { person, role: PhantomData })
    }
}

impl<R: Least> Takes for By<R> {
    fn tell(page: &mut Page<'_>) {
        page.by_people(R::ROLE);
    }
}

/// What the path names.
pub(super) struct At<T>(pub(super) T);

/// Two names of a path. No tuple: those have a schema of their own, as lists.
#[derive(serde::Deserialize)]
pub(super) struct Both<A, B>(pub(super) A, pub(super) B);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, controller: &Shared) -> Result<Self, Refusal> {
        let Path(names) = Path::from_request_parts(parts, controller)
            .await
            .map_err(|error| Refusal::bad(error.body_text()))?;
        Ok(Self(names))
    }
}

impl<T: JsonSchema> Takes for At<T> {
    fn tell(page: &mut Page<'_>) {
        page.place::<T>();
    }
}

impl<A: JsonSchema, B: JsonSchema> Takes for At<Both<A, B>> {
    fn tell(page: &mut Page<'_>) {
        page.place::<A>();
        page.place::<B>();
    }
}

/// From which byte on content is wanted.
pub(super) struct From(pub(super) Option<u64>);

impl FromRequestParts<Shared> for From {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Refusal> {
        let Some(range) = parts.headers.get(header::RANGE) else { return Ok(Self(None)) };
        let from = range
            .to_str()
            .ok()
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        from.map(|from| Self(Some(from))).ok_or_else(|| Refusal::bad("expected a range of the form bytes=N-"))
    }
}

impl Takes for From {
    fn tell(page: &mut Page<'_>) {
        page.header("Range", "bytes=N-: from which byte on");
    }
}

/// Something that is asked in a body.
pub(super) trait Question: JsonSchema + Sized {
    /// The most bytes that such a question has.
    const MAX_BYTES: usize;

    /// Reads it.
    fn read(bytes: &[u8]) -> Result<Self, Refusal>;
}

impl<M: Message + JsonSchema> Question for M {
    const MAX_BYTES: usize = M::MAX_BYTES;

    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        fleet::protocol::read(bytes).map_err(|error| Refusal::bad(system::error::with_causes(&error)))
    }
}

/// The question in a body.
pub(super) struct Asked<Q>(pub(super) Q);

impl<Q: Question> FromRequest<Shared> for Asked<Q> {
    type Rejection = Refusal;

    async fn from_request(request: Request, controller: &Shared) -> Result<Self, Refusal> {
        let bytes = small(request.into_body(), Q::MAX_BYTES, controller.gate.limits.body).await?;
        Q::read(&bytes).map(Self)
    }
}

impl<Q: Question> Takes for Asked<Q> {
    fn tell(page: &mut Page<'_>) {
        page.body::<Q>();
    }
}

/// The bytes of a small body.
pub(super) async fn small(body: Body, limit: usize, patience: Duration) -> Result<Bytes, Refusal> {
    match timeout(patience, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format_args!("expected a body of at most {limit} bytes"),
        )),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

impl Takes for Body {
    fn tell(page: &mut Page<'_>) {
        page.bytes();
    }
}
