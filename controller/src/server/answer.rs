//! How questions are read and answers are written: bounded in size and time, errors as one small JSON object.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fleet::protocol::{Denial, Message, Version};
use serde::Serialize;
use tokio::time::timeout;

use crate::authority::Denied;
use crate::certificates::CertificateError;
use crate::content::ContentError;

/// How long the body of a small question may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a question has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl ToString) -> Self {
        Self { status, error: error.to_string() }
    }

    pub(super) fn bad(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// For whoever shows nothing that could be believed.
    pub(super) fn who(error: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    /// For whoever is known and may not.
    pub(super) fn forbidden(error: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let denial = Denial { version: Version, error: self.error };
        (self.status, json_bytes(&denial)).into_response()
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match &denied {
            Denied::NoSuchRollout { .. } => StatusCode::NOT_FOUND,
            Denied::NoSuchHost { .. } | Denied::Revoked { .. } | Denied::Clone { .. } | Denied::Token(_) => {
                StatusCode::FORBIDDEN
            }
            Denied::Known { .. } | Denied::Impossible(_) | Denied::Stale(_) | Denied::NotNow(_) => {
                StatusCode::CONFLICT
            }
            Denied::Policy { .. } | Denied::Unfit { .. } | Denied::FarAhead { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Denied::NoLease | Denied::Busy { .. } | Denied::Lost | Denied::Store(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        if let Denied::Store(error) = &denied {
            tracing::error!(error = system::error::with_causes(&**error), "the store failed");
        }
        Self::new(status, &denied)
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

/// The bytes of a small body.
pub(super) async fn small(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match timeout(PATIENCE, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format_args!("expected a body of at most {limit} bytes"),
        )),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// A message of the fleet's protocol.
pub(super) async fn message<M: Message>(body: Body) -> Result<M, Refusal> {
    let bytes = small(body, M::MAX_BYTES).await?;
    fleet::protocol::read(&bytes).map_err(|error| Refusal::bad(system::error::with_causes(&error)))
}

/// A value of people's.
pub(super) async fn value<T: serde::de::DeserializeOwned>(body: Body, limit: usize) -> Result<T, Refusal> {
    serde_json::from_slice(&small(body, limit).await?).map_err(Refusal::bad)
}

/// An answer.
pub(super) fn json<T: Serialize>(value: &T) -> Response {
    json_bytes(value).into_response()
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
