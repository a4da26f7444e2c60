//! What the fleet is exposed to, by the hosts' own words.

use askama::Template;
use axum::extract::State;
use fleet::facts::FleetExposure;

use super::session::Seen;
use super::{Failed, Frame, Html, made};
use crate::server::Shared;
use crate::server::asked::Viewer;

#[derive(Template)]
#[template(path = "exposures.html")]
struct Page {
    frame: Frame,
    exposures: Vec<FleetExposure>,
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let mut exposures = controller.roster()?.exposures.clone();
        // What most hosts are exposed to, and then what they were exposed to for longest.
        exposures.sort_by_key(|one| std::cmp::Reverse((one.exposed.len(), one.host_hours)));
        Ok(Page { frame: Frame::new("Exposure", "/exposures", seen), exposures })
    })
    .await
}
