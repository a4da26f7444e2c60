//! The page: what people look at in a browser.
//!
//! Made here, whole: without script everything is there but that it moves by itself. It shows what the same code computes for the
//! API and for commands, to people with the same tokens and roles, and lets them do what their tokens let them do: slow a rollout
//! down. What is shown comes from hosts, and hosts are hostile: templates (`templates/`) escape all of it, and the browser runs
//! nothing but the one script of this program ([`POLICY`]).
//!
//! Rooms: `session` who is there, `sign_in`, `live` that something is new, `roster` the fleet by name; a file for each view,
//! `grid` and `line` what is drawn in them.

mod calendar;
mod controller;
mod enrolment;
mod exposures;
mod failures;
mod grid;
mod hosts;
mod ledger;
mod line;
mod live;
mod manifest;
mod order;
mod overview;
mod rollout;
mod roster;
mod session;
mod sign_in;
mod trust;

use std::fmt;

use askama::Template;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::MethodFilter;
use jiff::Timestamp;
use manifests::UtcTime;

pub(super) use self::live::Live;
pub(super) use self::roster::Roster;
use self::session::Seen;
pub(super) use self::session::Sessions;
use super::answer::{Refusal, blocking};
use super::api::Api;
use super::asked::Least;
use crate::access::Role;

/// What a browser may do with a page: show it, in its own frame, with this program's style and script alone, and send its
/// forms here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What it may do with anything else that is served here: nothing.
const STRICT: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// Where people sign in.
pub(super) const SIGN_IN: &str = "/sign-in";

/// What need not know who asks, nor who leads.
const ASSETS: [&str; 3] = ["/page.css", "/page.js", "/icon.svg"];

/// What stands in the navigation.
const PLACES: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/hosts", "Hosts"),
    ("/exposures", "Exposure"),
    ("/failures", "Failures"),
    ("/calendar", "Calendar"),
    ("/trust", "Trust"),
    ("/enrolment", "Enrolment"),
    ("/ledger", "Ledger"),
    ("/controller", "Controller"),
];

const GET: MethodFilter = MethodFilter::GET;
const POST: MethodFilter = MethodFilter::POST;

/// Every view.
pub(super) fn routes(api: Api) -> Api {
    api.page(GET, "/", overview::show)
        .page(GET, "/rollouts/{rollout}", rollout::show)
        .page(GET, "/rollouts/{rollout}/hosts/{host}", hosts::explain)
        .page(GET, "/rollouts/{rollout}/orders/{order}", order::ask)
        .page(POST, "/rollouts/{rollout}/orders/{order}", order::give)
        .page(GET, "/hosts", hosts::list)
        .page(GET, "/hosts/{host}", hosts::show)
        .page(GET, "/exposures", exposures::show)
        .page(GET, "/failures", failures::show)
        .page(GET, "/manifests/{digest}", manifest::show)
        .page(GET, "/calendar", calendar::show)
        .page(GET, "/trust", trust::show)
        .page(GET, "/enrolment", enrolment::show)
        .page(GET, "/ledger", ledger::show)
        .page(GET, "/controller", controller::show)
        .page(GET, "/live", live::listen)
        .page(GET, SIGN_IN, sign_in::ask)
        .page(POST, SIGN_IN, sign_in::take)
        .page(POST, "/sign-out", sign_in::end)
        .page(GET, ASSETS[0], style)
        .page(GET, ASSETS[1], script)
        .page(GET, ASSETS[2], icon)
}

/// Whether a path is the page's: whoever asks for it reads words, and not JSON.
pub(super) fn is_page(path: &str) -> bool {
    let others = ["/v1/", "/metrics", "/healthz", "/livez", super::repository::PLACE];
    !others.iter().any(|other| path.starts_with(other))
}

/// Whether a path is answered whoever leads.
pub(super) fn is_asset(path: &str) -> bool {
    ASSETS.contains(&path)
}

async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", include_str!("../../../assets/page.css"))
}

async fn script() -> impl IntoResponse {
    asset("text/javascript; charset=utf-8", include_str!("../../../assets/page.js"))
}

async fn icon() -> impl IntoResponse {
    asset("image/svg+xml", include_str!("../../../assets/icon.svg"))
}

/// Asked for anew with each page: the next version of this program may have another.
fn asset(media: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-cache")], text)
}

/// Around every answer, also those of the API: what says nothing of itself may do nothing in a browser.
pub(super) async fn strict(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(STRICT));
    response
}

/// A page as it is sent.
pub(super) struct Html(String);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            // Without any, browsers would not say either where a form comes from.
            (header::REFERRER_POLICY, "same-origin"),
        ];
        (headers, self.0).into_response()
    }
}

/// Makes a page, beside the threads that serve connections.
async fn made<T: Template + Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<Html, Failed> {
    let text = blocking(move || {
        let page = work()?;
        page.render().map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))
    });
    Ok(Html(text.await?))
}

/// Why there is no such page.
pub(super) enum Failed {
    /// Nobody is there yet; and where they wanted to go.
    SignedOut(String),
    /// Why not.
    Refused(Refusal),
}

impl Failed {
    /// Whoever wanted to look at something is asked who they are.
    fn signed_out(parts: &Parts) -> Self {
        let wanted = parts.uri.path_and_query().map_or("/", |wanted| wanted.as_str());
        match parts.method == Method::GET && parts.uri.path() != "/live" {
            true => Self::SignedOut(wanted.to_owned()),
            false => Self::Refused(Refusal::who("your session is over: sign in, and do it again")),
        }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage<'f> {
    frame: Frame,
    status: StatusCode,
    words: &'f str,
    leader: Option<&'f str>,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let refusal = match self {
            Self::SignedOut(wanted) => {
                let query = url::form_urlencoded::Serializer::new(String::new())
                    .append_pair("next", &wanted)
                    .finish();
                return Redirect::to(&format!("{SIGN_IN}?{query}")).into_response();
            }
            Self::Refused(refusal) => refusal,
        };
        let (status, words, leader) = refusal.parts();
        let page = FailedPage { frame: Frame::nobody("Not done"), status, words, leader };
        // What cannot be written is said in the API's way.
        let page = page.render().map(Html);
        let mut response = refusal.into_response();
        if let Ok(page) = page {
            let mut shown = page.into_response();
            *response.body_mut() = std::mem::take(shown.body_mut());
            response.headers_mut().extend(std::mem::take(shown.headers_mut()));
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        response
    }
}

/// What is around every page.
#[derive(Debug, Clone)]
struct Frame {
    title: String,
    /// Where in the navigation it is; empty: nowhere.
    place: &'static str,
    who: Option<Who>,
}

/// Who looks at it.
#[derive(Debug, Clone)]
struct Who {
    name: String,
    role: Role,
    ticket: String,
}

impl Frame {
    fn new<R: Least>(title: impl Into<String>, place: &'static str, seen: Seen<R>) -> Self {
        let Seen { person, ticket, .. } = seen;
        let who = Who { name: person.name.to_string(), role: person.role, ticket };
        Self { title: title.into(), place, who: Some(who) }
    }

    fn nobody(title: &str) -> Self {
        Self { title: title.to_owned(), place: "", who: None }
    }

    /// The navigation: each place, what it is called, and whether people are there.
    fn places(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        PLACES.into_iter().map(|(place, words)| (place, words, place == self.place))
    }

    /// Whether whoever looks may give orders.
    fn may_order(&self) -> bool {
        self.who.as_ref().is_some_and(|who| who.role >= Role::Operator)
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

/// A host, as pages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostLink {
    id: String,
    name: String,
}

/// A time, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct When {
    exact: String,
    words: String,
}

impl When {
    fn new(at: UtcTime, now: UtcTime) -> Self {
        Self { exact: at.to_string(), words: ago(at.timestamp(), now.timestamp()) }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// How long ago something was, or how long until it is.
fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - at.as_second();
    let (number, unit) = match seconds.unsigned_abs() {
        0..=1 => return "now".to_owned(),
        seconds @ 2..=119 => (seconds, "s"),
        seconds @ 120..=7199 => (seconds / 60, "min"),
        seconds @ 7200..=172_799 => (seconds / 3600, "h"),
        seconds => (seconds / 86_400, "days"),
    };
    if seconds > 0 { format!("{number} {unit} ago") } else { format!("in {number} {unit}") }
}

/// The beginning of a digest or an id: enough for people and commands.
fn short(digest: &impl fmt::Display) -> String {
    digest.to_string().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_that_counts() {
        let now: Timestamp = "2026-11-02T12:00:00Z".parse().unwrap();
        let told = |seconds: i64| ago(now - jiff::SignedDuration::from_secs(seconds), now);
        let all = [0, 5, 119, 120, 7199, 7200, 172_799, 172_800, -5, -7200].map(told);
        let words = [
            "now",
            "5 s ago",
            "119 s ago",
            "2 min ago",
            "119 min ago",
            "2 h ago",
            "47 h ago",
            "2 days ago",
            "in 5 s",
            "in 2 h",
        ];
        assert_eq!(all, words);
    }

    #[test]
    fn what_programs_read_is_no_page() {
        for (path, expected) in [
            ("/", true),
            ("/hosts", true),
            ("/rollouts/x", true),
            ("/v1/hosts", false),
            ("/metrics", false),
            ("/healthz", false),
            ("/repository/targets/x", false),
        ] {
            assert_eq!(is_page(path), expected, "{path}");
        }
    }
}
