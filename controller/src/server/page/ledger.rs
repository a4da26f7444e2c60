//! The ledger, the newest entries first.

use askama::Template;
use axum::extract::State;

use super::rollout::Happened;
use super::session::{Fields, Seen};
use super::{Failed, Frame, Html, made};
use crate::server::Shared;
use crate::server::asked::Viewer;

/// So many entries are on one page.
const PAGE: usize = 100;

#[derive(Template)]
#[template(path = "ledger.html")]
struct Page {
    frame: Frame,
    size: u64,
    root: String,
    events: Vec<Happened>,
    /// Before which entry the next page begins.
    older: Option<u64>,
    /// Before which the one in front of this begins; nothing on the first.
    newer: Option<u64>,
}

pub(super) async fn show(
    State(controller): State<Shared>,
    seen: Seen<Viewer>,
    query: Fields,
) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let before = query.get("before").and_then(|number| number.parse::<u64>().ok());
        let head = controller.authority.head()?;
        let (told, size) = controller.authority.told(before, PAGE)?;
        let (roster, now) = (controller.roster()?, controller.now());
        Ok(Page {
            frame: Frame::new("Ledger", "/ledger", seen),
            size,
            root: head.root.to_string(),
            older: told.last().map(|told| told.number).filter(|number| *number > 0),
            newer: before.filter(|before| *before < size).map(|before| (before + PAGE as u64).min(size)),
            events: told.into_iter().map(|told| Happened::of(told, &roster, now)).collect(),
        })
    })
    .await
}
