//! When hosts may begin: windows and freezes of rollouts that may go on.

use askama::Template;
use axum::extract::State;
use fleet::policy::calendar::Opening;
use fleet::policy::{Freeze, Window};
use manifests::UtcTime;

use super::session::Seen;
use super::{Failed, Frame, Html, When, made};
use crate::authority::RolloutCalendar;
use crate::server::Shared;
use crate::server::asked::Viewer;

/// The calendar of a rollout.
struct Row {
    id: String,
    name: String,
    kind: &'static str,
    words: String,
    next: Option<When>,
    windows: Vec<String>,
    freezes: Vec<(String, String, String)>,
    expires: When,
}

#[derive(Template)]
#[template(path = "calendar.html")]
struct Page {
    frame: Frame,
    rollouts: Vec<Row>,
}

/// A window as people wrote it.
fn window(window: &Window) -> String {
    let days = match &window.days[..] {
        [] => "every day".to_owned(),
        days => days.iter().map(|day| format!("{day:?}")).collect::<Vec<_>>().join(", "),
    };
    format!("{days} at {} for {} ({})", window.at, window.length, window.zone)
}

fn freeze(freeze: &Freeze) -> (String, String, String) {
    let time = |text: &str| format!("{text} ({})", freeze.zone);
    (time(&freeze.from), time(&freeze.until), freeze.reason.to_string())
}

impl Row {
    fn of(calendar: RolloutCalendar, now: UtcTime) -> Self {
        let early = now < calendar.not_before;
        let (kind, words) = match &calendar.now {
            _ if early => ("waits", format!("nobody begins before {}", calendar.not_before)),
            Opening::Open => ("goes", "hosts may begin".to_owned()),
            Opening::Closed(_) => ("waits", "no window is open".to_owned()),
            Opening::Frozen { until, reason } => ("waits", format!("frozen until {until}: {reason}")),
        };
        let open = !early && calendar.now == Opening::Open;
        Self {
            id: calendar.rollout.to_string(),
            name: calendar.name,
            kind,
            words,
            next: calendar.opens.filter(|_| !open).map(|at| When::new(at, now)),
            windows: calendar.windows.iter().map(window).collect(),
            freezes: calendar.freezes.iter().map(freeze).collect(),
            expires: When::new(calendar.expires, now),
        }
    }
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let now = controller.now();
        let calendars = controller.authority.calendars()?.into_iter();
        Ok(Page {
            frame: Frame::new("Calendar", "/calendar", seen),
            rollouts: calendars.map(|calendar| Row::of(calendar, now)).collect(),
        })
    })
    .await
}
