//! That something new is known, told to pages that are open (`EventSource`): they fetch themselves anew.
//!
//! What is told is the ledger's size, at most once a second; nothing that would have to agree with what a page shows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::Failed;
use super::session::Seen;
use crate::server::Shared;
use crate::server::answer::Refusal;
use crate::server::asked::Viewer;

/// So many pages are told at once: the other connections are for hosts.
const PAGES: usize = 256;

/// After so long a page asks anew, and shows anew who it is.
const TURN: Duration = Duration::from_secs(600);

/// How often a connection over which nothing is told is held open.
const ALIVE: Duration = Duration::from_secs(10);

/// See [the module](self).
pub(in crate::server) struct Live {
    /// The ledger's size; nothing when the controller ends.
    size: watch::Sender<Option<u64>>,
    places: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self { size: watch::Sender::new(Some(0)), places: Arc::new(Semaphore::new(PAGES)) }
    }
}

impl Live {
    /// Whether somebody listens.
    pub(in crate::server) fn is_heard(&self) -> bool {
        self.size.receiver_count() > 0
    }

    /// The ledger has this size.
    pub(in crate::server) fn tell(&self, size: u64) {
        self.size.send_if_modified(|known| {
            known.is_some_and(|known| known != size) && known.replace(size).is_some()
        });
    }

    /// Nothing is told any more: whoever listens need not be waited for.
    pub(in crate::server) fn end(&self) {
        self.size.send_replace(None);
    }

    /// How many pages are told.
    pub(super) fn count(&self) -> usize {
        PAGES - self.places.available_permits()
    }
}

pub(super) async fn listen(State(controller): State<Shared>, _: Seen<Viewer>) -> Result<Response, Failed> {
    let live = &controller.live;
    let place = live.places.clone().try_acquire_owned().map_err(|_| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many pages are open: this one does not move by itself",
        )
    })?;
    let mut size = live.size.subscribe();
    // What came between the page and this.
    size.mark_changed();
    let until = Instant::now() + TURN;
    let told = stream::unfold((size, place), move |(mut size, place)| async move {
        let changed = timeout_at(until, size.changed()).await;
        let known = changed.ok()?.ok().and(*size.borrow_and_update())?;
        Some((Ok::<_, Infallible>(Event::default().data(known.to_string())), (size, place)))
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}
