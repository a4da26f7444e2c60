//! What runs, what waits and why, and what somebody has to look at.

use askama::Template;
use axum::extract::State;
use fleet::rollout::{Pause, Stage};
use manifests::HostId;

use super::roster::Lines;
use super::session::Seen;
use super::{Failed, Frame, Html, made, short};
use crate::authority::Standing;
use crate::server::Shared;
use crate::server::asked::Viewer;

/// Something that somebody has to look at, and where.
pub(super) struct Alarm {
    words: String,
    link: &'static str,
    place: String,
}

/// A rollout in one line.
pub(super) struct Row {
    id: String,
    name: String,
    version: u64,
    words: String,
    kind: &'static str,
    waiting: Vec<String>,
    hosts: u32,
    good: u32,
    hurt: u32,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    alarms: Vec<Alarm>,
    going: Vec<Row>,
    over: Vec<Row>,
    hosts: usize,
    silent: usize,
    cloned: usize,
    ailing: usize,
    exposed: usize,
    policy: bool,
}

/// What a stage means for whoever looks: it goes on, it waits for people, something is wrong, it is over.
pub(super) fn kind(stage: &Stage) -> &'static str {
    match stage {
        Stage::Running | Stage::Waiting | Stage::Draft => "goes",
        Stage::AwaitingApproval | Stage::Paused(Pause::Operator { .. }) => "waits",
        Stage::Paused(_) | Stage::Halted(_) | Stage::RollingBack | Stage::Stuck => "wrong",
        Stage::Completed => "well",
        Stage::RolledBack | Stage::Aborted | Stage::Expired | Stage::Superseded(_) => "over",
    }
}

impl Row {
    fn of(standing: &Standing) -> Self {
        let count = |state: &str| standing.hosts.get(state).copied().unwrap_or(0);
        Self {
            id: standing.rollout.to_string(),
            name: standing.name.to_string(),
            version: standing.version,
            words: standing.words.clone(),
            kind: kind(&standing.stage),
            waiting: standing.waiting.iter().map(|reason| reason.words.clone()).collect(),
            hosts: standing.hosts.values().sum(),
            good: count("good"),
            hurt: standing.hurt,
        }
    }

    fn short(&self) -> String {
        short(&self.id)
    }
}

fn alarms(standings: &[Standing], cloned: usize, ailing: usize, in_flight: usize) -> Vec<Alarm> {
    let rollouts =
        standings.iter().filter(|standing| kind(&standing.stage) == "wrong").map(|standing| Alarm {
            words: format!("{} version {}: {}", standing.name, standing.version, standing.words),
            link: "Look at the rollout",
            place: format!("/rollouts/{}", standing.rollout),
        });
    let hosts = [
        (in_flight, "told to begin, or watched, said nothing for a quarter of an hour", "silent"),
        (cloned, "have a key that two machines use: neither begins", "cloned"),
        (ailing, "are less well since the fleet changed them last", "ailing"),
    ];
    let hosts = hosts.into_iter().filter(|(number, ..)| *number > 0).map(|(number, words, which)| Alarm {
        words: format!("{number} host(s) {words}"),
        link: "Look at hosts",
        place: format!("/hosts?show={which}"),
    });
    rollouts.chain(hosts).collect()
}

pub(super) async fn show(State(controller): State<Shared>, seen: Seen<Viewer>) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let (authority, presence, now) = (&controller.authority, &controller.presence, controller.now());
        let mut standings = authority.standings()?;
        standings.sort_by(|one, other| (&one.name, other.version).cmp(&(&other.name, one.version)));
        let roster = controller.roster()?;
        let Lines { all, .. } = &*roster;
        let count = |is: &dyn Fn(HostId) -> bool| all.iter().filter(|line| is(line.host.id)).count();
        let silent = |host| presence.is_silent(host, now);
        let cloned = count(&|host| presence.is_cloned(host));
        let ailing = all.iter().filter(|line| line.ails).count();
        let in_flight = authority.in_flight()?.into_iter().filter(|host| silent(*host)).count();
        let (going, over): (Vec<&Standing>, Vec<&Standing>) =
            standings.iter().partition(|standing| !["well", "over"].contains(&kind(&standing.stage)));
        Ok(Page {
            frame: Frame::new("Overview", "/", seen),
            alarms: alarms(&standings, cloned, ailing, in_flight),
            going: going.into_iter().map(Row::of).collect(),
            over: over.into_iter().map(Row::of).collect(),
            hosts: all.len(),
            silent: count(&silent),
            cloned,
            ailing,
            exposed: all.iter().filter(|line| !line.exposed.is_empty()).count(),
            policy: controller.policy.is_some(),
        })
    })
    .await
}
