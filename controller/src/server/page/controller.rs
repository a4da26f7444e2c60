//! How this controller is: also when nothing else is shown, because the ledger was edited.

use std::sync::atomic::Ordering;

use askama::Template;
use axum::extract::State;

use super::session::Seen;
use super::{Failed, Frame, Html, When, made};
use crate::server::Shared;
use crate::server::asked::Viewer;

#[derive(Template)]
#[template(path = "controller.html")]
struct Page {
    frame: Frame,
    /// What was found in the ledger that nobody wrote.
    edited: Option<String>,
    facts: Vec<(&'static str, String)>,
    listening: When,
    counts: Vec<(&'static str, u64)>,
    turned_away: Vec<(&'static str, u64)>,
    checkpoint: String,
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        let (authority, counters, now) = (&controller.authority, &controller.counters, controller.now());
        let head = authority.head()?;
        let elapsed = controller.clock.elapsed();
        let round = elapsed.as_secs().saturating_sub(controller.round.load(Ordering::Relaxed));
        let settings = &controller.settings;
        let facts = vec![
            ("Leads as", authority.holder().to_owned()),
            ("Under epoch", authority.epoch().to_string()),
            ("Names in its certificate", settings.names.join(", ")),
            ("Authority of the fleet", controller.certificates.fingerprint().to_string()),
            ("Its clockwork came round", format!("{round} s ago; it should each second")),
            ("Hosts with nothing to do ask again after", format!("{} s", settings.poll)),
            (
                "Policy for what is handed in",
                yes(controller.policy.is_some(), "known", "none: nobody can hand in a rollout"),
            ),
            ("Repository", yes(settings.repository.is_some(), "served", "none")),
            ("Health queries", yes(settings.prometheus.is_some(), "asked", "nobody to ask")),
            ("Entries of the ledger", head.size.to_string()),
            ("Root of the ledger", head.root.to_string()),
            ("People signed in here", controller.sessions.count(elapsed).to_string()),
            ("Pages that are told what is new", controller.live.count().to_string()),
        ];
        Ok(Page {
            frame: Frame::new("Controller", "/controller", seen),
            edited: controller.unedited().err().map(|refusal| refusal.parts().1.to_owned()),
            facts,
            listening: When::new(controller.presence.since(), now),
            counts: vec![
                ("polls answered", counters.polls.get()),
                ("reports heard", counters.reports.get()),
                ("grants given", counters.grants.get()),
            ],
            turned_away: controller.gate.turned_away(),
            checkpoint: authority.checkpoint()?,
        })
    })
    .await
}

fn yes(is: bool, one: &str, other: &str) -> String {
    if is { one.to_owned() } else { other.to_owned() }
}
