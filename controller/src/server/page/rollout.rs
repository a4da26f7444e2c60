//! A rollout: why it waits, what it promises, where its hosts stand, how its test comes out, what happened.

use askama::Template;
use axum::extract::State;
use fleet::test::Verdict;
use manifests::{Ordered, Profile, Sha256, UtcTime};

use super::grid::{Grid, STATES};
use super::line::Line;
use super::order;
use super::overview::kind;
use super::roster::Lines;
use super::session::Seen;
use super::{Failed, Frame, HostLink, Html, When, made, short};
use crate::authority::{Standing, Told, View, WaveStanding};
use crate::server::Shared;
use crate::server::answer::Refusal;
use crate::server::asked::{At, Viewer};

/// A wave, as it is shown.
struct Wave {
    number: usize,
    standing: WaveStanding,
    grid: Grid,
    line: Option<Line>,
}

impl Wave {
    fn stands(&self) -> &'static str {
        match (self.standing.passed, self.standing.opened) {
            (true, _) => "passed",
            (false, true) => "open",
            (false, false) => "not yet",
        }
    }

    fn verdict(&self) -> &'static str {
        match self.standing.verdict {
            Verdict::Pass => "passes",
            Verdict::Open => "goes on",
            Verdict::Hold => "holds",
            Verdict::Halt => "halts",
        }
    }

    fn to_come(&self) -> u32 {
        self.standing.count.pending + self.standing.count.busy
    }
}

/// Hosts that stand in one state.
struct Stands {
    state: &'static str,
    words: &'static str,
    hosts: u32,
}

/// Something that happened.
pub(super) struct Happened {
    pub(super) number: u64,
    pub(super) at: When,
    pub(super) host: Option<HostLink>,
    pub(super) rollout: Option<(String, String)>,
    pub(super) words: String,
}

impl Happened {
    pub(super) fn of(told: Told, roster: &Lines, now: UtcTime) -> Self {
        let Told { number, at, rollout, host, words } = told;
        let rollout = rollout.map(|rollout| (rollout.to_string(), short(&rollout)));
        Self { number, at: When::new(at, now), host: host.map(|host| roster.link(host)), rollout, words }
    }
}

/// An order that may be given now.
struct Offered {
    order: &'static str,
    words: &'static str,
}

#[derive(Template)]
#[template(path = "rollout.html")]
struct Page {
    frame: Frame,
    id: String,
    standing: Standing,
    kind: &'static str,
    summary: String,
    groups: String,
    emergency: bool,
    expires: When,
    guarantee: Vec<String>,
    by_test: bool,
    waves: Vec<Wave>,
    states: Vec<Stands>,
    health: Vec<(String, String)>,
    events: Vec<Happened>,
    orders: Vec<Offered>,
    /// Whether it is paused, and needs a signature to go on.
    needs_signature: bool,
    came_from: Vec<(String, String)>,
}

pub(super) async fn show(
    State(controller): State<Shared>,
    seen: Seen<Viewer>,
    rollout: Result<At<Sha256>, Refusal>,
) -> Result<Html, Failed> {
    let At(rollout) = rollout?;
    made(move || {
        controller.unedited()?;
        let View { standing, document, guarantee, test, waves, events, reach: _, resumes_by_token } =
            controller.authority.view(rollout)?;
        let (roster, now) = (controller.roster()?, controller.now());
        let wave = |(number, cells): (usize, &Vec<_>)| {
            let points = test.as_ref().and_then(|test| Some((test, test.points.get(number)?)));
            Some(Wave {
                number: number + 1,
                standing: *standing.waves.get(number)?,
                grid: Grid::of(cells, |host| roster.link(host).name),
                line: points.and_then(|(test, points)| Line::of(test, points)),
            })
        };
        let waves = waves.iter().enumerate().filter_map(wave).collect();
        let state = |(state, words): (&'static str, &'static str)| {
            let hosts = *standing.hosts.get(state)?;
            Some(Stands { state, words, hosts })
        };
        let latest = |query: &manifests::GroupName| controller.health.latest(rollout, query);
        let health = standing.health.iter().map(|health| {
            let words = latest(&health.query)
                .map_or_else(|| health.words.clone(), |latest| latest.words().to_owned());
            (health.query.to_string(), words)
        });
        let orders = [Ordered::Pause, Ordered::Resume, Ordered::Abort, Ordered::RollBack];
        let orders =
            orders.into_iter().filter(|order| order::is_open(*order, &standing.stage, resumes_by_token));
        let offered = |order| Offered { order: order::name(order), words: order::button(order) };
        Ok(Page {
            frame: Frame::new(format!("{} version {}", standing.name, standing.version), "", seen),
            id: rollout.to_string(),
            kind: kind(&standing.stage),
            summary: document.summary.to_string(),
            groups: document.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            emergency: document.profile == Profile::Emergency,
            expires: When::new(document.expires, now),
            guarantee,
            by_test: test.is_some(),
            waves,
            states: STATES.into_iter().filter_map(state).collect(),
            health: health.collect(),
            events: events.into_iter().map(|told| Happened::of(told, &roster, now)).collect(),
            orders: orders.map(offered).collect(),
            needs_signature: resumes_by_token == Some(false),
            came_from: standing.supersedes.iter().map(|one| (one.to_string(), short(one))).collect(),
            standing,
        })
    })
    .await
}
