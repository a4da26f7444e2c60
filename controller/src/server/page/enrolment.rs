//! How hosts come in, and who may ask.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use manifests::Sha256;

use super::session::Seen;
use super::{Failed, Frame, Html, When, made};
use crate::access::{self, Person};
use crate::enrolment::{self, TokenStanding};
use crate::server::Shared;
use crate::server::answer::Refusal;
use crate::server::asked::Viewer;

/// A token, without what it is.
struct Token {
    groups: String,
    domain: String,
    role: String,
    by: String,
    used: usize,
    hosts: u32,
    expires: When,
    kind: &'static str,
    words: &'static str,
}

#[derive(Template)]
#[template(path = "enrolment.html")]
struct Page {
    frame: Frame,
    fingerprint: Sha256,
    tokens: Vec<Token>,
    people: Vec<Person>,
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let (authority, now) = (&controller.authority, controller.now());
        let unreadable = |error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
        let token = |token: TokenStanding| {
            let TokenStanding { terms, by, used } = token;
            let (kind, words) = match (terms.expires <= now, used >= terms.hosts as usize) {
                (true, _) => ("over", "expired"),
                (false, true) => ("over", "used up"),
                (false, false) => ("goes", "lets hosts in"),
            };
            Token {
                groups: terms.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                domain: terms.domain.to_string(),
                role: terms.role.to_string(),
                by: by.to_string(),
                used,
                hosts: terms.hosts,
                expires: When::new(terms.expires, now),
                kind,
                words,
            }
        };
        let mut people = access::everybody(authority).map_err(unreadable)?;
        people.sort_by(|one, other| (other.role, &one.name).cmp(&(one.role, &other.name)));
        Ok(Page {
            frame: Frame::new("Enrolment", "/enrolment", seen),
            fingerprint: controller.certificates.fingerprint(),
            tokens: enrolment::tokens(authority).map_err(unreadable)?.into_iter().map(token).collect(),
            people,
        })
    })
    .await
}
