//! A token, shown once, for a session.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::session::{Fields, Form, Sent, set_cookie, sign_out};
use super::{Failed, Frame, Html, SIGN_IN, made};
use crate::access;
use crate::server::Shared;
use crate::server::answer::{Refusal, blocking};
use crate::server::asked::Viewer;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Page {
    frame: Frame,
    next: String,
}

/// A place of this page and no other: where somebody wanted to go before they signed in.
fn local(wanted: Option<&str>) -> String {
    let is_local = |wanted: &&str| {
        wanted.starts_with('/')
            && !wanted.starts_with("//")
            && !wanted.contains('\\')
            && wanted.bytes().all(|byte| byte.is_ascii_graphic())
            && !wanted.starts_with(SIGN_IN)
    };
    wanted.filter(is_local).unwrap_or("/").to_owned()
}

pub(super) async fn ask(query: Fields) -> Result<Html, Failed> {
    made(move || Ok(Page { frame: Frame::nobody("Sign in"), next: local(query.get("next")) })).await
}

pub(super) async fn take(State(controller): State<Shared>, Form(fields): Form) -> Result<Response, Failed> {
    let token = fields.get("token").unwrap_or_default().to_owned();
    let asked = controller.clone();
    let person = blocking(move || {
        let person = access::who(&asked.authority, &token)
            .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
        Ok(person.map(|person| (person, access::hash(&token))))
    });
    let (person, token) = person.await?.ok_or_else(|| {
        let error =
            "expected a token of this controller, found another: it is in the account file, as `token`";
        Refusal::wrong_token(StatusCode::UNAUTHORIZED, error)
    })?;
    controller.gate.person(&person.name)?;
    let secret = controller.sessions.begin(token, controller.clock.elapsed())?;
    tracing::info!(by = %person.name, "somebody signed in");
    Ok(go(&local(fields.get("next")), &set_cookie(Some(&secret))))
}

pub(super) async fn end(
    State(controller): State<Shared>,
    headers: HeaderMap,
    _: Sent<Viewer>,
) -> Result<Response, Failed> {
    sign_out(&controller, &headers);
    Ok(go(SIGN_IN, &set_cookie(None)))
}

/// Goes on there, with this cookie.
fn go(place: &str, cookie: &str) -> Response {
    let mut response = Redirect::to(place).into_response();
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        for (wanted, place) in [
            (Some("/hosts?page=2"), "/hosts?page=2"),
            (None, "/"),
            (Some("https://example.org/"), "/"),
            (Some("//example.org"), "/"),
            (Some("/\\example.org"), "/"),
            (Some("/a\r\nset-cookie: x"), "/"),
            (Some("/sign-in"), "/"),
        ] {
            assert_eq!(local(wanted), place, "{wanted:?}");
        }
    }
}
