//! Whether a host may begin *now*: the only authority, asked by the host itself when it is about to.
//!
//! [`begin`] is called inside the transaction of the store that writes its answer. Everything it looks at is
//! read in that same transaction: the rollout's state, and in the [`Book`] what is open over all rollouts and
//! whose lease it is. So no host begins after a halt was written, no cap is passed by two controllers at once,
//! and a controller that lost its lease grants nothing, however late its requests arrive.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{DomainName, GroupName, HostId, Label, Nonce, UtcTime};
use serde::{Deserialize, Serialize};

use super::event::{Event, Place};
use super::state::{HostState, Opened, Plan, Progress, Stage};
use crate::assurance::{Rule, later};
use crate::host::Host;
use crate::policy::calendar::Opening;

/// What is open over all rollouts of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Book {
    /// The epoch of the lease that is in force.
    pub epoch: u64,
    /// All hosts.
    pub fleet: Occupied,
    /// Hosts by failure domain.
    pub domains: BTreeMap<DomainName, Occupied>,
    /// Hosts by service.
    pub services: BTreeMap<Label, Occupied>,
    /// Hosts with a grant of any rollout that they have not answered.
    pub open: BTreeSet<HostId>,
    /// Hosts that once came back from this rollout's manifest, and of which nobody has said that they may try again.
    pub came_back: BTreeSet<HostId>,
}

/// Hosts with something in common, and how many of them are in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Occupied {
    /// All of them.
    pub hosts: u32,
    /// Those with an open grant.
    pub open: u32,
}

impl Book {
    /// The book of a fleet in which nothing is open.
    pub fn of<'h>(inventory: impl IntoIterator<Item = &'h Host>, epoch: u64) -> Self {
        let mut book = Self { epoch, ..Self::default() };
        for host in inventory {
            book.each(host, |occupied| occupied.hosts += 1);
        }
        book
    }

    /// Enters a grant to `host`. Twice is once.
    pub fn enter(&mut self, host: &Host) {
        if self.open.insert(host.id) {
            self.each(host, |occupied| occupied.open += 1);
        }
    }

    /// Strikes the grant to `host` out.
    pub fn strike(&mut self, host: &Host) {
        if self.open.remove(&host.id) {
            self.each(host, |occupied| occupied.open -= 1);
        }
    }

    fn each(&mut self, host: &Host, mut change: impl FnMut(&mut Occupied)) {
        change(&mut self.fleet);
        match self.domains.get_mut(&host.domain) {
            Some(domain) => change(domain),
            None => change(self.domains.entry(host.domain.clone()).or_default()),
        }
        for label in &host.services {
            change(self.services.entry(label.clone()).or_default());
        }
    }
}

/// What a host may ask to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The change.
    Apply,
    /// The way back.
    Rollback,
}

/// A host's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which host, known by its key.
    pub host: Place,
    /// What it wants to begin.
    pub action: Action,
    /// What its executor made for this attempt.
    pub nonce: Nonce,
    /// The epoch of the controller that passes the question on.
    pub epoch: u64,
}

/// The answer that lets a host begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Write this down, and then give the grant out.
    Write(Event),
    /// It was written down for this very attempt: the same bytes again.
    Again,
}

/// Why a host may not begin now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error, schemars::JsonSchema)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum NotNow {
    /// This rollout has no such host.
    #[error("the rollout has no such host")]
    NoSuchHost,
    /// This controller's lease is over.
    #[error("this controller's lease is over: expected epoch {current}, found {found}")]
    Epoch {
        /// The epoch in force.
        current: u64,
        /// The controller's.
        found: u64,
    },
    /// The rollout is not in a stage in which hosts begin that.
    #[error("the rollout does not let hosts begin")]
    Stage,
    /// The host is not where it would have to be.
    #[error("the host is not ready")]
    NotReady,
    /// The host has a grant for another attempt.
    #[error("the host has a grant for another attempt")]
    OtherNonce,
    /// The host has an open grant of another rollout.
    #[error("the host has an open grant of another rollout")]
    Elsewhere,
    /// The host once came back from this manifest.
    #[error("the host came back from this manifest before")]
    CameBack,
    /// It is too early for the first.
    #[error("not before {until}")]
    NotBefore {
        /// When it begins.
        until: UtcTime,
    },
    /// The rollout's document does not count any more.
    #[error("the rollout has expired")]
    Expired,
    /// No window is open, or a freeze is on.
    #[error("the calendar is closed")]
    Calendar {
        /// Until when, if that is known.
        until: Option<UtcTime>,
    },
    /// The test lets nobody begin before more is known.
    #[error("the test waits for hosts in flight")]
    Test,
    /// Nobody can say how the changed do beside those held back.
    #[error("nobody can say how hosts with the change do by {query}")]
    Health {
        /// By which metric.
        query: GroupName,
    },
    /// The wave's hosts begin one after another.
    #[error("the next host of this wave begins at {next}")]
    Pace {
        /// When.
        next: UtcTime,
    },
    /// As many hosts of the fleet as may be are in the middle of it.
    #[error("the fleet's cap is reached")]
    FleetCap,
    /// As many of the domain.
    #[error("the cap of domain {domain} is reached")]
    DomainCap {
        /// Which.
        domain: DomainName,
    },
    /// As many with the service.
    #[error("the cap of service {}={} is reached", label.name, label.value)]
    ServiceCap {
        /// Which.
        label: Label,
    },
    /// The time in which the host may be told to go back is over.
    #[error("the time to roll back is over")]
    TooLate,
}

/// Answers a host that is about to begin.
///
/// # Errors
/// Why it may not.
pub fn begin(
    plan: &Plan,
    progress: &Progress,
    book: &Book,
    request: &Request,
    now: UtcTime,
) -> Result<Begin, NotNow> {
    let Request { host, action, nonce, epoch } = *request;
    let (Some(state), Some(member)) = (progress.host(host), progress.member(plan, host)) else {
        return Err(NotNow::NoSuchHost);
    };
    if epoch != book.epoch {
        return Err(NotNow::Epoch { current: book.epoch, found: epoch });
    }
    let asked = match state {
        HostState::Granted { nonce, .. } => Some((Action::Apply, *nonce)),
        HostState::RollbackGranted { nonce, .. } => Some((Action::Rollback, *nonce)),
        _ => None,
    };
    match action {
        Action::Apply => may_apply(plan, progress, now)?,
        Action::Rollback if progress.stage() != &Stage::RollingBack => return Err(NotNow::Stage),
        Action::Rollback => {}
    }
    match asked {
        Some((before, known)) if before == action && known == nonce => return Ok(Begin::Again),
        Some(_) => return Err(NotNow::OtherNonce),
        None if book.open.contains(&member.host.id) => return Err(NotNow::Elsewhere),
        None => {}
    }
    match action {
        Action::Apply => {
            if *state != HostState::Ready {
                return Err(NotNow::NotReady);
            }
            if book.came_back.contains(&member.host.id) {
                return Err(NotNow::CameBack);
            }
            let wave = progress.wave_of(host);
            gate(plan, progress, wave, now)?;
            caps(plan, book, &member.host)?;
            Ok(Begin::Write(Event::Granted { host, nonce, epoch }))
        }
        Action::Rollback => {
            let since = progress.changed_since(host).ok_or(NotNow::NotReady)?;
            if now > later(since, i64::from(plan.policy.rollback.within.secs())) {
                return Err(NotNow::TooLate);
            }
            caps(plan, book, &member.host)?;
            Ok(Begin::Write(Event::RollbackGranted { host, nonce, epoch }))
        }
    }
}

/// What holds for all hosts of a rollout.
fn may_apply(plan: &Plan, progress: &Progress, now: UtcTime) -> Result<(), NotNow> {
    if !matches!(progress.stage(), Stage::Running | Stage::Completed) {
        return Err(NotNow::Stage);
    }
    if now < plan.not_before {
        return Err(NotNow::NotBefore { until: plan.not_before });
    }
    if now >= plan.expires {
        return Err(NotNow::Expired);
    }
    match plan.policy.calendar().at(now) {
        Opening::Open => Ok(()),
        Opening::Closed(until) => Err(NotNow::Calendar { until }),
        Opening::Frozen { until, .. } => Err(NotNow::Calendar { until: Some(until) }),
    }
}

/// What holds for all hosts of a wave.
pub(super) fn gate(plan: &Plan, progress: &Progress, wave: usize, now: UtcTime) -> Result<(), NotNow> {
    if wave >= progress.opened() {
        return Err(NotNow::NotReady);
    }
    let failures = progress.failures().len();
    if failures > 0 {
        // Whether or not that has been written down yet.
        let enough = failures >= plan.test.failures_to_halt() as usize;
        let held = || enough && (0..progress.opened()).any(|wave| progress.is_held(plan, wave));
        if plan.rule == Rule::EveryHost || held() {
            return Err(NotNow::Test);
        }
    }
    if let Some((query, ..)) = progress.unanswered().next() {
        return Err(NotNow::Health { query: query.clone() });
    }
    match pace(plan, &progress.opened[wave], now) {
        Some(next) => Err(NotNow::Pace { next }),
        None => Ok(()),
    }
}

/// When the next host of a wave may begin; nothing if one may now.
fn pace(plan: &Plan, opened: &Opened, now: UtcTime) -> Option<UtcTime> {
    let Opened { at, hosts, begun } = *opened;
    let over = u64::from(plan.policy.waves.start_over.secs());
    let elapsed = (now.timestamp().as_second() - at.timestamp().as_second()).max(0) as u64;
    // The hosts have a slot each, the first at once.
    let next = (u64::from(begun) * over).div_ceil(u64::from(hosts.max(1)));
    (elapsed < over.min(next)).then(|| later(at, next.min(over) as i64))
}

fn caps(plan: &Plan, book: &Book, host: &Host) -> Result<(), NotNow> {
    let caps = &plan.policy.caps;
    if book.fleet.open >= caps.fleet.at_least_one_of(book.fleet.hosts) {
        return Err(NotNow::FleetCap);
    }
    let domain = book.domains.get(&host.domain).copied().unwrap_or_default();
    if domain.open >= caps.domain.at_least_one_of(domain.hosts) {
        return Err(NotNow::DomainCap { domain: host.domain.clone() });
    }
    for cap in caps.services.iter().filter(|cap| host.services.contains(&cap.label)) {
        let service = book.services.get(&cap.label).copied().unwrap_or_default();
        if service.open >= cap.at_once.at_least_one_of(service.hosts) {
            return Err(NotNow::ServiceCap { label: cap.label.clone() });
        }
    }
    Ok(())
}
