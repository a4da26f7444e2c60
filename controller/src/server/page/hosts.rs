//! The fleet as a table, one host, and why it got something or did not.

use std::collections::{BTreeSet, HashMap};

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::facts::{Change, ChangeOutcome, LivepatchState, Standing as Exposure};
use fleet::rollout::{Action, Explanation};
use manifests::{CveId, HostId, Sha256, UtcTime};
use url::form_urlencoded;

use super::grid::called;
use super::roster::Lines;
use super::session::{Fields, Seen};
use super::{Failed, Frame, HostLink, Html, When, made, short};
use crate::authority::{HostLine, Portrait};
use crate::presence::Presence;
use crate::server::answer::Refusal;
use crate::server::asked::{At, Both, Viewer};
use crate::server::{Controller, Shared};

/// So many hosts are on one page.
const PAGE: usize = 100;

/// So many words are offered for a field of the form.
const HINTS: usize = 200;

/// Which hosts are looked for: what is not there is anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    name: String,
    group: String,
    domain: String,
    kernel: String,
    show: String,
    cve: String,
    rollout: String,
    state: String,
}

/// Hosts that somebody may want to see, and what they are called.
const SHOW: [(&str, &str); 5] = [
    ("", "all"),
    ("silent", "silent for a quarter of an hour"),
    ("cloned", "whose key two machines use"),
    ("ailing", "less well since their last change"),
    ("exposed", "exposed to something"),
];

impl Wanted {
    fn of(query: &Fields) -> Self {
        let field = |name| query.get(name).unwrap_or_default().to_owned();
        Self {
            name: field("name"),
            group: field("group"),
            domain: field("domain"),
            kernel: field("kernel"),
            show: field("show"),
            cve: field("cve"),
            rollout: field("rollout"),
            state: field("state"),
        }
    }

    /// The query that asks for this page of them.
    fn query(&self, page: usize) -> String {
        let Self { name, group, domain, kernel, show, cve, rollout, state } = self;
        let mut query = form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("name", name),
            ("group", group),
            ("domain", domain),
            ("kernel", kernel),
            ("show", show),
            ("cve", cve),
            ("rollout", rollout),
            ("state", state),
        ];
        query.extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty()));
        query.append_pair("page", &page.to_string()).finish()
    }

    fn wants(&self, line: &HostLine, among: &Among<'_>) -> bool {
        let HostLine { host, name, exposed, ails } = line;
        let asked = self.name.to_lowercase();
        let is_named = asked.is_empty()
            || name.as_str().to_lowercase().contains(&asked)
            || host.id.to_string().starts_with(&asked);
        let shown = || match self.show.as_str() {
            "silent" => among.presence.is_silent(host.id, among.now),
            "cloned" => among.presence.is_cloned(host.id),
            "ailing" => *ails,
            "exposed" => !exposed.is_empty(),
            _ => true,
        };
        let stands = || match &among.states {
            Some(states) => {
                let state = states.get(&host.id);
                state.is_some_and(|state| self.state.is_empty() || *state == self.state)
            }
            None => true,
        };
        is_named
            && (self.group.is_empty() || host.groups.iter().any(|group| group.as_str() == self.group))
            && (self.domain.is_empty() || host.domain.as_str() == self.domain)
            && (self.kernel.is_empty() || host.kernel.as_str() == self.kernel)
            && among.cve.as_ref().is_none_or(|cve| exposed.contains(cve))
            && stands()
            && shown()
    }
}

/// What a host is held against.
struct Among<'a> {
    presence: &'a Presence,
    now: UtcTime,
    cve: Option<CveId>,
    states: Option<HashMap<HostId, &'static str>>,
}

/// One host in the table.
struct Row {
    link: HostLink,
    short: String,
    groups: String,
    domain: String,
    role: String,
    kernel: String,
    heard: Option<When>,
    exposed: usize,
    notes: Vec<&'static str>,
    state: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "hosts.html")]
struct List {
    frame: Frame,
    wanted: Wanted,
    show: [(&'static str, &'static str); 5],
    groups: Vec<String>,
    domains: Vec<String>,
    kernels: Vec<String>,
    rows: Vec<Row>,
    found: usize,
    all: usize,
    first: usize,
    page: usize,
    pages: usize,
}

impl List {
    fn state(&self) -> &str {
        called(&self.wanted.state)
    }

    fn last(&self) -> usize {
        self.first + self.rows.len()
    }

    /// The query for the page in front of this one.
    fn before(&self) -> Option<String> {
        (self.page > 1).then(|| self.wanted.query(self.page - 1))
    }

    /// And for the one behind it.
    fn after(&self) -> Option<String> {
        (self.page < self.pages).then(|| self.wanted.query(self.page + 1))
    }
}

/// Words of the fleet for a field, each once.
fn hints<'l>(lines: &'l Lines, words: impl Fn(&'l HostLine) -> Vec<&'l str>) -> Vec<String> {
    let all: BTreeSet<&str> = lines.all.iter().flat_map(words).collect();
    all.into_iter().take(HINTS).map(str::to_owned).collect()
}

pub(super) async fn list(
    State(controller): State<Shared>,
    seen: Seen<Viewer>,
    query: Fields,
) -> Result<Html, Failed> {
    made(move || {
        controller.unedited()?;
        let (wanted, roster) = (Wanted::of(&query), controller.roster()?);
        let states = match wanted.rollout.as_str() {
            "" => None,
            rollout => Some(controller.authority.states(rollout.parse().map_err(Refusal::bad)?)?),
        };
        let cve = match wanted.cve.as_str() {
            "" => None,
            cve => Some(cve.parse().map_err(Refusal::bad)?),
        };
        let among = Among { presence: &controller.presence, now: controller.now(), cve, states };
        let found: Vec<&HostLine> = roster.all.iter().filter(|line| wanted.wants(line, &among)).collect();
        let pages = found.len().div_ceil(PAGE).max(1);
        let page = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(1).clamp(1, pages);
        let first = (page - 1) * PAGE;
        let row = |line: &&HostLine| {
            let HostLine { host, exposed, ails, .. } = *line;
            let notes = [
                (among.presence.is_silent(host.id, among.now), "silent"),
                (among.presence.is_cloned(host.id), "two machines use its key"),
                (*ails, "less well since its last change"),
            ];
            Row {
                link: roster.link(host.id),
                short: short(&host.id),
                groups: host.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                domain: host.domain.to_string(),
                role: host.role.to_string(),
                kernel: host.kernel.to_string(),
                heard: among.presence.last(host.id).map(|at| When::new(at, among.now)),
                exposed: exposed.len(),
                notes: notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect(),
                state: among
                    .states
                    .as_ref()
                    .and_then(|states| states.get(&host.id))
                    .map(|state| called(state)),
            }
        };
        Ok(List {
            frame: Frame::new("Hosts", "/hosts", seen),
            show: SHOW,
            groups: hints(&roster, |line| line.host.groups.iter().map(|group| group.as_str()).collect()),
            domains: hints(&roster, |line| vec![line.host.domain.as_str()]),
            kernels: hints(&roster, |line| vec![line.host.kernel.as_str()]),
            rows: found.iter().skip(first).take(PAGE).map(row).collect(),
            found: found.len(),
            all: roster.all.len(),
            first,
            page,
            pages,
            wanted,
        })
    })
    .await
}

/// Where a host stands in a rollout.
struct In {
    rollout: String,
    name: String,
    state: String,
}

/// What a host is exposed to, or was.
struct Exposed {
    cve: String,
    words: &'static str,
    hours: u64,
    by: String,
}

/// What the fleet changed on it.
struct Changed {
    transaction: String,
    action: &'static str,
    rollout: (String, String),
    until: When,
    outcome: &'static str,
    transition: String,
    probes: String,
    since: Vec<String>,
}

#[derive(Template)]
#[template(path = "host.html")]
struct One {
    frame: Frame,
    id: String,
    /// What it is, in pairs.
    facts: Vec<(&'static str, String)>,
    heard: Option<When>,
    cloned: bool,
    silent: bool,
    services: Vec<String>,
    livepatches: Vec<(String, &'static str, String)>,
    workloads: Vec<String>,
    /// Whether it has said anything of itself.
    known: bool,
    plan: Vec<(String, String)>,
    rollouts: Vec<In>,
    exposed: Vec<Exposed>,
    changes: Vec<Changed>,
}

pub(super) async fn show(
    State(controller): State<Shared>,
    seen: Seen<Viewer>,
    host: Result<At<HostId>, Refusal>,
) -> Result<Html, Failed> {
    let At(host) = host?;
    made(move || {
        controller.unedited()?;
        let portrait = controller.authority.portrait(host).map_err(not_there)?;
        one(&controller, host, portrait, seen)
    })
    .await
}

/// For people, a host that is not there is no question of what they may.
fn not_there(denied: crate::authority::Denied) -> Refusal {
    match denied {
        crate::authority::Denied::NoSuchHost { .. } => Refusal::new(StatusCode::NOT_FOUND, denied),
        other => other.into(),
    }
}

fn one(controller: &Controller, id: HostId, portrait: Portrait, seen: Seen<Viewer>) -> Result<One, Refusal> {
    let Portrait { host, facts, exposed_hours, rollouts } = portrait;
    let now = controller.now();
    let outlook = controller.authority.outlook(id)?;
    let standings = controller.authority.standings()?;
    let rollout_name = |rollout: &Sha256| {
        let standing = standings.iter().find(|standing| standing.rollout == *rollout);
        standing.map_or_else(|| short(rollout), |one| format!("{} version {}", one.name, one.version))
    };
    let offer = |offer: &fleet::protocol::Offer| {
        let action = match offer.action {
            Action::Apply => "it may begin",
            Action::Rollback => "it may go back from",
        };
        let words = format!("{action} {}, from {} on", rollout_name(&offer.rollout), offer.earliest);
        (offer.rollout.to_string(), words)
    };
    let stop = |rollout: &Sha256| {
        (rollout.to_string(), format!("what runs on it of {} turns back", rollout_name(rollout)))
    };
    let plan = outlook.offers.iter().map(offer).chain(outlook.stop.iter().map(stop)).collect();
    let stands = |(rollout, state): (Sha256, String)| In {
        name: rollout_name(&rollout),
        rollout: rollout.to_string(),
        state: called(&state).to_owned(),
    };
    let name = facts.as_ref().map(|facts| facts.name.to_string()).filter(|name| !name.trim().is_empty());
    let name = name.unwrap_or_else(|| short(&id));
    let exposed = exposed_hours.into_iter().map(|(cve, hours)| {
        let named = || facts.iter().flat_map(|facts| &facts.exposures).filter(|exposure| exposure.cve == cve);
        let by = named().map(|exposure| format!("{} version {}", exposure.manifest, exposure.version));
        Exposed {
            words: match named().map(|exposure| exposure.standing).max() {
                Some(Exposure::Exposed) => "exposed",
                Some(Exposure::Unknown) => "cannot be told",
                Some(Exposure::Fixed) => "fixed",
                Some(Exposure::Clear) => "clear",
                None => "named no more",
            },
            hours,
            by: by.collect::<Vec<_>>().join(", "),
            cve: cve.to_string(),
        }
    });
    let pairs = [
        ("Groups", host.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("Failure domain", host.domain.to_string()),
        ("Role", host.role.to_string()),
        ("Kernel", host.kernel.to_string()),
        (
            "Kernel's build id",
            host.kernel_build_id.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
        ),
        ("CPU", host.cpu.to_string()),
    ];
    let livepatch = |patch: &fleet::facts::LoadedLivepatch| {
        let state = match patch.state {
            LivepatchState::InForce => "in force",
            LivepatchState::InTransition => "in transition",
            LivepatchState::Disabled => "disabled",
        };
        let build = patch.build_id.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        (patch.module.to_string(), state, build)
    };
    let facts = facts.as_ref();
    Ok(One {
        frame: Frame::new(name, "/hosts", seen),
        id: id.to_string(),
        facts: pairs.into(),
        heard: controller.presence.last(id).map(|at| When::new(at, now)),
        cloned: controller.presence.is_cloned(id),
        silent: controller.presence.is_silent(id, now),
        services: host.services.iter().map(|label| format!("{}={}", label.name, label.value)).collect(),
        livepatches: facts.iter().flat_map(|facts| &facts.livepatches).map(livepatch).collect(),
        workloads: facts.iter().flat_map(|facts| &facts.workloads).map(ToString::to_string).collect(),
        known: facts.is_some(),
        plan,
        rollouts: rollouts.into_iter().map(stands).collect(),
        exposed: exposed.collect(),
        changes: facts
            .iter()
            .flat_map(|facts| &facts.changes)
            .map(|change| Changed::of(change, now))
            .collect(),
    })
}

impl Changed {
    fn of(change: &Change, now: UtcTime) -> Self {
        let Change { transaction, rollout, action, until, outcome, transition_ms, probes, .. } = change;
        let notes = [
            (change.taints != 0, format!("new taint flags {:#x}", change.taints)),
            (change.splats > 0, format!("{} complaints of the kernel", change.splats)),
            (
                !change.restarted.is_empty(),
                format!(
                    "started again: {}",
                    change.restarted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ),
            ),
            (change.unreachable_min > 0, format!("{} min without a controller", change.unreachable_min)),
        ];
        Self {
            transaction: transaction.to_string(),
            action: match action {
                Action::Apply => "apply",
                Action::Rollback => "roll back",
            },
            rollout: (rollout.to_string(), short(rollout)),
            until: When::new(*until, now),
            outcome: match outcome {
                ChangeOutcome::Open => "open",
                ChangeOutcome::Committed => "committed",
                ChangeOutcome::RolledBack => "rolled back",
                ChangeOutcome::Undone => "undone later",
            },
            transition: transition_ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms")),
            probes: format!("{} held, {} failed", probes.held, probes.failed),
            since: notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "explain.html")]
struct Told {
    frame: Frame,
    host: HostLink,
    rollout: String,
    name: String,
    place: Option<(usize, usize)>,
    lines: Vec<(When, String)>,
    came_back: bool,
}

pub(super) async fn explain(
    State(controller): State<Shared>,
    seen: Seen<Viewer>,
    place: Result<At<Both<Sha256, HostId>>, Refusal>,
) -> Result<Html, Failed> {
    let At(Both(rollout, host)) = place?;
    made(move || {
        // Told from the ledger: of one that was edited nothing is.
        controller.unedited_now()?;
        let Explanation { place, lines } = controller.authority.explain(rollout, host)?;
        let (standing, now) = (controller.authority.shown(rollout)?, controller.now());
        let link = controller.roster()?.link(host);
        let name = format!("{} version {}", standing.name, standing.version);
        Ok(Told {
            frame: Frame::new(format!("{} in {name}", link.name), "/hosts", seen),
            host: link,
            rollout: rollout.to_string(),
            name,
            place: place.map(|(place, wave)| (place + 1, wave + 1)),
            lines: lines.into_iter().map(|line| (When::new(line.at, now), line.text)).collect(),
            came_back: controller.authority.came_back(rollout, host)?,
        })
    })
    .await
}
