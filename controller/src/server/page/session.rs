//! Who is at the other end of a browser.
//!
//! A browser cannot show a token with each request, so it shows it once, and gets a *session*: a random number in a cookie that no
//! script reads and that is sent to this page alone. Behind it stands the token's hash, looked up for each request as for any
//! other question: a session lets do what its token lets do at that moment. Sessions are kept in memory, for half a day; after
//! a restart, and on another controller, people sign in again.
//!
//! What changes anything is asked by a form of this page: it says where it was sent from, and has the session's *ticket*, which
//! no other page knows.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use manifests::Sha256;
use url::form_urlencoded;

use super::Failed;
use crate::access::{self, Person};
use crate::server::Shared;
use crate::server::answer::{Refusal, blocking};
use crate::server::asked::{Least, at_least, small};

/// The cookie. By the beginning of its name browsers take it from this controller alone, and over TLS.
const COOKIE: &str = "__Host-update-session";

/// For how long a session counts.
pub(super) const LIFE: Duration = Duration::from_secs(12 * 3600);

/// So many sessions are open at once; more push out the oldest.
const SESSIONS: usize = 1024;

/// The most bytes of a form.
const MAX_FORM: usize = 16 << 10;

/// See [the module](self).
#[derive(Debug, Default)]
pub(in crate::server) struct Sessions(Mutex<HashMap<Sha256, Session>>);

/// What a session stands for.
#[derive(Debug, Clone)]
struct Session {
    /// The hash of the token that was shown.
    token: Sha256,
    ticket: String,
    begun: Duration,
}

/// A number that nobody guesses, in hexadecimal.
fn random() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(hex::encode(bytes))
}

impl Sessions {
    fn open(&self, now: Duration) -> MutexGuard<'_, HashMap<Sha256, Session>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| now.saturating_sub(session.begun) < LIFE);
        open
    }

    /// A session for whoever has shown the token with this hash: what the browser is to keep.
    pub(super) fn begin(&self, token: Sha256, now: Duration) -> Result<String, Refusal> {
        let (secret, ticket) = (random()?, random()?);
        let mut open = self.open(now);
        if open.len() >= SESSIONS
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.begun).map(|(key, _)| *key)
        {
            open.remove(&oldest);
        }
        // Kept and looked up by its hash: how long that takes tells nothing of it.
        open.insert(Sha256::of(secret.as_bytes()), Session { token, ticket, begun: now });
        Ok(secret)
    }

    fn find(&self, secret: &str, now: Duration) -> Option<Session> {
        self.open(now).get(&Sha256::of(secret.as_bytes())).cloned()
    }

    fn end(&self, secret: &str, now: Duration) {
        self.open(now).remove(&Sha256::of(secret.as_bytes()));
    }

    /// How many are open.
    pub(super) fn count(&self, now: Duration) -> usize {
        self.open(now).len()
    }
}

/// The cookie that keeps a session; without one, the cookie that ends it.
pub(super) fn set_cookie(secret: Option<&str>) -> String {
    let (value, age) = secret.map_or(("", 0), |secret| (secret, LIFE.as_secs()));
    format!("{COOKIE}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Strict")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    pairs
        .flat_map(|pairs| pairs.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Whoever has a session, and is at least `R`.
pub(super) struct Seen<R> {
    /// Who.
    pub(super) person: Person,
    /// What the forms of this session have in them.
    pub(super) ticket: String,
    role: PhantomData<R>,
}

impl<R: Least + Send> FromRequestParts<Shared> for Seen<R> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, controller: &Shared) -> Result<Self, Failed> {
        let now = controller.clock.elapsed();
        let session = cookie(&parts.headers).and_then(|secret| controller.sessions.find(secret, now));
        let Session { token, ticket, .. } = session.ok_or_else(|| Failed::signed_out(parts))?;
        let asked = controller.clone();
        let person = blocking(move || {
            access::whose(&asked.authority, token)
                .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))
        });
        let person = person.await?.ok_or_else(|| Failed::signed_out(parts))?;
        controller.gate.person(&person.name)?;
        at_least::<R>(&person)?;
        Ok(Self { person, ticket, role: PhantomData })
    }
}

/// The fields of a form, or of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// A field that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.trim())
    }
}

impl FromRequestParts<Shared> for Fields {
    type Rejection = Failed;

    /// Those of the query.
    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Failed> {
        Ok(Self::read(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

/// Refuses what was sent from elsewhere. Browsers say it by themselves; who says nothing is none.
fn same_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => text(header::HOST).is_some_and(|host| origin == format!("https://{host}")),
        (None, None) => false,
    };
    match same {
        true => Ok(()),
        false => {
            Err(Refusal::forbidden("this was not sent by a form of this page: go to it, and do it there"))
        }
    }
}

/// A form of this page, that somebody sent who need not be known.
pub(super) struct Form(pub(super) Fields);

impl FromRequest<Shared> for Form {
    type Rejection = Failed;

    async fn from_request(request: Request, controller: &Shared) -> Result<Self, Failed> {
        same_origin(request.headers())?;
        let bytes = small(request.into_body(), MAX_FORM, controller.gate.limits.body).await?;
        Ok(Self(Fields::read(&bytes)))
    }
}

/// A form of this page, sent by somebody who has a session and is at least `R`.
pub(super) struct Sent<R> {
    /// Who.
    pub(super) by: Seen<R>,
}

impl<R: Least + Send> FromRequest<Shared> for Sent<R> {
    type Rejection = Failed;

    async fn from_request(request: Request, controller: &Shared) -> Result<Self, Failed> {
        let (mut parts, body) = request.into_parts();
        let by = Seen::<R>::from_request_parts(&mut parts, controller).await?;
        let Form(fields) = Form::from_request(Request::from_parts(parts, body), controller).await?;
        let ticket = fields.get("ticket").unwrap_or_default();
        if Sha256::of(ticket.as_bytes()) != Sha256::of(by.ticket.as_bytes()) {
            return Err(Refusal::forbidden(
                "the form is of another session: go back, load it again, and send it",
            )
            .into());
        }
        Ok(Self { by })
    }
}

/// Ends the session of whoever asks.
pub(super) fn sign_out(controller: &Shared, headers: &HeaderMap) {
    if let Some(secret) = cookie(headers) {
        controller.sessions.end(secret, controller.clock.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_session_ends_by_itself_and_too_many_push_out_the_oldest() {
        let (sessions, hour) = (Sessions::default(), Duration::from_secs(3600));
        let token = Sha256::of(b"token");
        let first = sessions.begin(token, hour).unwrap();
        assert_eq!(sessions.find(&first, hour * 2).unwrap().token, token);
        assert!(sessions.find("guessed", hour * 2).is_none());
        assert!(sessions.find(&first, hour * 13).is_none(), "half a day is over");
        let first = sessions.begin(token, hour * 14).unwrap();
        for _ in 0..SESSIONS {
            sessions.begin(token, hour * 15).unwrap();
        }
        assert_eq!(sessions.count(hour * 15), SESSIONS);
        assert!(sessions.find(&first, hour * 15).is_none());
        let last = sessions.begin(token, hour * 15).unwrap();
        sessions.end(&last, hour * 15);
        assert!(sessions.find(&last, hour * 15).is_none());
    }

    #[test]
    fn the_cookie_is_found_among_others_and_no_other_is_taken_for_it() {
        let found = |value| cookie(&headers(&[("cookie", value)])).map(str::to_owned);
        assert_eq!(found("a=b; __Host-update-session=abc; c=d").as_deref(), Some("abc"));
        assert_eq!(found("x__Host-update-session=abc; __Host-update-session2=d"), None);
        assert_eq!(cookie(&HeaderMap::new()), None);
    }

    #[test]
    fn only_what_this_page_sent_is_taken() {
        let taken = |all: &[(&'static str, &'static str)]| same_origin(&headers(all)).is_ok();
        let host = ("host", "fleet.example.org:7443");
        assert!(taken(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(taken(&[host, ("origin", "https://fleet.example.org:7443")]));
        for strange in [
            &[host][..],
            &[host, ("sec-fetch-site", "cross-site"), ("origin", "https://fleet.example.org:7443")],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "null")],
            &[host, ("origin", "https://fleet.example.org")],
            &[host, ("origin", "http://fleet.example.org:7443")],
            &[("origin", "https://fleet.example.org:7443")],
        ] {
            assert!(!taken(strange), "{strange:?}");
        }
    }
}
