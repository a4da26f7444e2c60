//! How answers are written; errors as one small JSON object.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet::protocol::{Denial, Version};
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Gives, Page};
use crate::authority::Denied;
use crate::certificates::CertificateError;
use crate::client::LEADER;
use crate::content::ContentError;
use crate::enrolment::TokenError;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    /// After how many seconds it may be asked again.
    again: Option<u64>,
    /// Whether somebody showed a token that lets nobody in.
    token: Option<WrongToken>,
    /// Which controller answers instead.
    leader: Option<String>,
}

/// A mark on an answer: a token was shown that lets nobody in.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrongToken;

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl ToString) -> Self {
        Self { status, error: error.to_string(), again: None, token: None, leader: None }
    }

    /// For whoever asks too often.
    pub(super) fn too_many(wait: Duration) -> Self {
        // Never sooner than there is room.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let error = format_args!("too many requests: ask again in {seconds} s");
        Self { again: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, error) }
    }

    /// For whoever shows a token that lets nobody in.
    pub(super) fn wrong_token(status: StatusCode, error: impl ToString) -> Self {
        Self { token: Some(WrongToken), ..Self::new(status, error) }
    }

    /// For whoever asks a controller that does not lead.
    pub(super) fn elsewhere(leader: Option<String>, error: impl ToString) -> Self {
        Self { leader, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error) }
    }

    pub(super) fn bad(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// For whoever shows nothing that could be believed.
    pub(super) fn who(error: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    /// Its status, its words, and who would answer instead.
    pub(super) fn parts(&self) -> (StatusCode, &str, Option<&str>) {
        (self.status, &self.error, self.leader.as_deref())
    }

    /// For whoever is known and may not.
    pub(super) fn forbidden(error: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let denial = Denial { version: Version, error: self.error };
        let mut response = (self.status, json_bytes(&denial)).into_response();
        if let Some(seconds) = self.again {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(leader) = self.leader.and_then(|leader| HeaderValue::try_from(leader).ok()) {
            response.headers_mut().insert(LEADER, leader);
        }
        if let Some(mark) = self.token {
            response.extensions_mut().insert(mark);
        }
        response
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match &denied {
            Denied::NoSuchRollout { .. } => StatusCode::NOT_FOUND,
            Denied::NoSuchHost { .. } | Denied::Revoked { .. } | Denied::Clone { .. } | Denied::Token(_) => {
                StatusCode::FORBIDDEN
            }
            Denied::Unsigned { .. } => StatusCode::FORBIDDEN,
            Denied::NeverCameBack { .. } | Denied::NobodyCameBack { .. } => StatusCode::CONFLICT,
            Denied::Known { .. } | Denied::Impossible(_) | Denied::Stale(_) | Denied::NotNow(_) => {
                StatusCode::CONFLICT
            }
            Denied::Policy { .. } | Denied::Unfit { .. } | Denied::Outdated(_) | Denied::FarAhead { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Denied::NoLease | Denied::Busy { .. } | Denied::Lost | Denied::Store(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        if let Denied::Store(error) = &denied {
            tracing::error!(error = system::error::with_causes(&**error), "the store failed");
        }
        match denied {
            Denied::Token(TokenError::Unknown | TokenError::Expired { .. }) => {
                Self::wrong_token(status, &denied)
            }
            _ => Self::new(status, &denied),
        }
    }
}

impl From<CertificateError> for Refusal {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::Request { .. } | CertificateError::NoKey => Self::bad(error),
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, other),
        }
    }
}

impl From<ContentError> for Refusal {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Io { .. } | ContentError::Directory { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error)
            }
            ContentError::Shared { .. } => {
                tracing::error!(error = system::error::with_causes(&error), "content is not shared");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
            }
            ContentError::Other { .. } => Self::bad(error),
            ContentError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error),
        }
    }
}

/// An answer in JSON.
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json_bytes(&self.0).into_response()
    }
}

impl<T: JsonSchema> Gives for Answer<T> {
    fn tell(page: &mut Page<'_>) {
        page.answer::<T>("Done, or found");
    }
}

/// An answer in words.
impl Gives for String {
    fn tell(page: &mut Page<'_>) {
        page.plain("200", "text/plain; charset=utf-8", "In words");
    }
}

fn json_bytes<T: Serialize>(value: &T) -> impl IntoResponse {
    let bytes = crate::authority::facts::encode(value);
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], bytes)
}

/// What waits for a disk, beside the threads that serve connections.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug in update-controller")),
    }
}
