//! What a rollout is, and how far it has come.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{GroupName, Nonce, Rollout, Sha256, UtcTime};
use serde::Serialize;

use super::event::{Author, Fault, Halt, Limit, Outcome, Pause, Place, Successor, Wave};
use super::health::{Comparison, Unanswered};
use crate::assurance::{Rule, rule};
use crate::host::Host;
use crate::policy::RolloutPolicy;
use crate::test::{Tally, Test, Verdict, correlation};
use crate::waves::{Layout, Member};

/// What does not change while a rollout runs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The digest of its signed document.
    pub rollout: Sha256,
    /// How it goes.
    pub policy: RolloutPolicy,
    /// Who goes when.
    pub layout: Layout,
    /// Its test.
    pub test: Test,
    /// By which rule waves are judged.
    pub rule: Rule,
    /// Before this time nobody begins.
    pub not_before: UtcTime,
    /// From this time on nobody begins.
    pub expires: UtcTime,
}

impl Plan {
    /// Lays a policy out over an inventory. Whether it fits is [`crate::assurance::assure`]'s to say.
    pub fn new(
        rollout: Sha256,
        policy: RolloutPolicy,
        inventory: &[Host],
        not_before: UtcTime,
        expires: UtcTime,
    ) -> Self {
        let layout = Layout::new(&policy, rollout, inventory);
        Self::over(rollout, policy, layout, not_before, expires)
    }

    /// Lays the policy of a signed document out: the first wave is the document's, since hosts go by that.
    pub fn signed(rollout: Sha256, document: &Rollout, policy: RolloutPolicy, inventory: &[Host]) -> Self {
        let layout = Layout::with_first(&policy, rollout, &document.schedule.first, inventory);
        Self::over(rollout, policy, layout, document.schedule.not_before, document.expires)
    }

    fn over(
        rollout: Sha256,
        policy: RolloutPolicy,
        layout: Layout,
        not_before: UtcTime,
        expires: UtcTime,
    ) -> Self {
        let test = layout.test(&policy);
        Self { rollout, rule: rule(&layout, &test), policy, test, layout, not_before, expires }
    }
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(tag = "stage", content = "because", rename_all = "kebab-case")]
pub enum Stage {
    /// Not submitted.
    Draft,
    /// People have to agree.
    AwaitingApproval,
    /// Nobody may begin now: a window, a freeze, the time before the first.
    Waiting,
    /// Hosts begin.
    Running,
    /// Nobody may begin until people say so.
    Paused(Pause),
    /// Nobody ever begins again.
    Halted(Halt),
    /// Hosts go back.
    RollingBack,
    /// All are back.
    RolledBack,
    /// Some cannot go back; people have to look.
    Stuck,
    /// All waves have passed. Late joiners still begin.
    Completed,
    /// Given up.
    Aborted,
    /// Its time was over.
    Expired,
    /// Another rollout took its place.
    Superseded(Successor),
}

impl Stage {
    /// Whether hosts may begin now or once more, without a new document.
    pub fn is_live(&self) -> bool {
        use Stage as S;
        matches!(self, S::AwaitingApproval | S::Waiting | S::Running | S::Paused(_) | S::Completed)
    }
}

/// Where a host stands in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(tag = "state", content = "of", rename_all = "kebab-case")]
pub enum HostState {
    /// Its wave has not come.
    Listed,
    /// It may fetch what it needs, and look whether it could.
    Offered,
    /// It could.
    Ready,
    /// It was busy, and is asked again.
    Busy {
        /// When.
        until: UtcTime,
    },
    /// It was told to begin.
    Granted {
        /// When.
        since: UtcTime,
        /// For which attempt.
        nonce: Nonce,
    },
    /// It is changed and watched.
    Applied {
        /// Since when.
        since: UtcTime,
        /// By which attempt.
        nonce: Nonce,
    },
    /// It was watched for the whole bake.
    Good {
        /// When it was changed.
        since: UtcTime,
        /// By which attempt.
        nonce: Nonce,
    },
    /// It was hurt.
    Bad {
        /// How.
        fault: Fault,
        /// When.
        since: UtcTime,
        /// By which attempt.
        nonce: Nonce,
    },
    /// Nothing was touched.
    Declined(Outcome),
    /// It was told to go back.
    RollbackGranted {
        /// When.
        since: UtcTime,
        /// For which attempt.
        nonce: Nonce,
    },
    /// It is back.
    RolledBack,
    /// It is not.
    Stuck,
    /// It gets nothing here any more.
    Withdrawn,
}

impl HostState {
    /// Whether it has a grant that it has not answered.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Granted { .. } | Self::RollbackGranted { .. })
    }

    /// Whether it waits to be told to begin.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Listed | Self::Offered | Self::Ready | Self::Busy { .. })
    }

    /// The attempt that it stands there by, if it is one's doing.
    pub fn attempt(&self) -> Option<Nonce> {
        match self {
            Self::Granted { nonce, .. }
            | Self::Applied { nonce, .. }
            | Self::Good { nonce, .. }
            | Self::Bad { nonce, .. }
            | Self::RollbackGranted { nonce, .. } => Some(*nonce),
            _ => None,
        }
    }

    /// Since when something of the change may be on it; nothing if none is, or nobody can know yet.
    pub fn changed_since(&self) -> Option<UtcTime> {
        match self {
            Self::Applied { since, .. } | Self::Good { since, .. } => Some(*since),
            Self::Bad { fault, since, .. } if fault.leaves_something() => Some(*since),
            _ => None,
        }
    }
}

/// Hosts of one wave and one stratum, by where they stand. Kept by [`Progress::set`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, schemars::JsonSchema)]
pub struct Count {
    /// Offered or ready.
    pub pending: u32,
    /// To be asked again.
    pub busy: u32,
    /// Told to begin, no answer yet.
    pub granted: u32,
    /// Watched.
    pub baking: u32,
    /// Good.
    pub good: u32,
    /// Hurt at some time, wherever they stand now.
    pub hurt: u32,
}

impl Count {
    fn of(&mut self, state: &HostState) -> Option<&mut u32> {
        match state {
            HostState::Offered | HostState::Ready => Some(&mut self.pending),
            HostState::Busy { .. } => Some(&mut self.busy),
            HostState::Granted { .. } => Some(&mut self.granted),
            HostState::Applied { .. } => Some(&mut self.baking),
            HostState::Good { .. } => Some(&mut self.good),
            _ => None,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            pending: self.pending + other.pending,
            busy: self.busy + other.busy,
            granted: self.granted + other.granted,
            baking: self.baking + other.baking,
            good: self.good + other.good,
            hurt: self.hurt + other.hurt,
        }
    }
}

/// A host that was hurt. Never forgotten, whatever becomes of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Failure {
    /// Which host.
    pub host: Place,
    /// When it was known.
    pub at: UtcTime,
    /// How it was hurt.
    pub fault: Fault,
}

/// Since when the hosts of a wave, or the last ones that it took, may begin, and how many have since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Opened {
    pub(super) at: UtcTime,
    pub(super) hosts: u32,
    pub(super) begun: u32,
}

/// How far a rollout has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    pub(super) stage: Stage,
    pub(super) approvals: BTreeSet<Author>,
    /// How often people have agreed as they have to.
    pub(super) agreed: u32,
    pub(super) hosts: Vec<HostState>,
    pub(super) joined: Vec<Member>,
    /// What hosts are since they booted another kernel; nothing of those that did not.
    pub(super) rebooted: BTreeMap<Place, Host>,
    /// Changes of attempts before the last one, that may still be on hosts: since when, and by which attempt; the latest
    /// at the end.
    pub(super) earlier: BTreeMap<Place, Vec<(UtcTime, Nonce)>>,
    pub(super) ends: Vec<usize>,
    pub(super) opened: Vec<Opened>,
    pub(super) passed: Wave,
    pub(super) top_ups: Vec<u32>,
    pub(super) counts: Vec<Vec<Count>>,
    pub(super) failures: Vec<Failure>,
    pub(super) declined: [u32; 5],
    /// What people have seen and gone on from: declined hosts, hosts at a limit, vetoes, an undecided wave.
    pub(super) seen_declined: [u32; 5],
    pub(super) seen_limits: [u32; 3],
    pub(super) seen_vetoes: BTreeSet<GroupName>,
    pub(super) seen_unanswered: BTreeSet<GroupName>,
    /// What came out of the health queries, and since when it is so.
    pub(super) compared: BTreeMap<GroupName, (UtcTime, Comparison)>,
    pub(super) accepted: Option<Wave>,
}

impl Progress {
    /// A rollout to which nothing has happened yet.
    pub fn new(plan: &Plan) -> Self {
        let waves = plan.layout.waves();
        // One more stratum, for late joiners of a kind that nobody knew.
        let strata = plan.layout.strata.len() + 1;
        Self {
            stage: Stage::Draft,
            approvals: BTreeSet::new(),
            agreed: 0,
            hosts: vec![HostState::Listed; plan.layout.members.len()],
            joined: Vec::new(),
            rebooted: BTreeMap::new(),
            earlier: BTreeMap::new(),
            ends: plan.layout.ends.clone(),
            opened: Vec::new(),
            passed: 0,
            top_ups: vec![0; waves],
            counts: vec![vec![Count::default(); strata]; waves],
            failures: Vec::new(),
            declined: [0; 5],
            seen_declined: [0; 5],
            seen_limits: [0; 3],
            seen_vetoes: BTreeSet::new(),
            seen_unanswered: BTreeSet::new(),
            compared: BTreeMap::new(),
            accepted: None,
        }
    }

    /// Where the rollout stands.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Where a host stands; nothing if there is no such place.
    pub fn host(&self, host: Place) -> Option<&HostState> {
        self.hosts.get(host)
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> &[HostState] {
        &self.hosts
    }

    /// Who is at a place.
    pub fn member<'a>(&'a self, plan: &'a Plan, host: Place) -> Option<&'a Member> {
        let first = plan.layout.members.len();
        plan.layout.members.get(host).or_else(|| self.joined.get(host.checked_sub(first)?))
    }

    /// Since when something of a change may be on a host, the last one's or an earlier one's; nothing if none is, or
    /// nobody can know yet.
    pub fn changed_since(&self, host: Place) -> Option<UtcTime> {
        let state = self.hosts.get(host)?;
        let over = state.is_open() || matches!(state, HostState::RolledBack | HostState::Stuck);
        let earlier = || self.earlier.get(&host)?.last().map(|(since, _)| *since).filter(|_| !over);
        state.changed_since().or_else(earlier)
    }

    /// Whether a host that is now like this is to be offered the manifest again: the fleet has it, and this host came out
    /// with another kernel than it runs.
    pub fn is_due_again(&self, plan: &Plan, place: Place, host: &Host) -> bool {
        let is_out = matches!(self.hosts.get(place), Some(HostState::Good { .. } | HostState::Declined(_)));
        let before = self.rebooted.get(&place).or_else(|| Some(&self.member(plan, place)?.host));
        self.stage == Stage::Completed
            && is_out
            && before.is_some_and(|before| before.has_another_kernel(host))
    }

    /// Whether every wave has passed: it completed at some time, whatever became of it since.
    pub fn is_through(&self) -> bool {
        !self.ends.is_empty() && self.passed == self.ends.len()
    }

    /// How many waves there are now: one that has given all its hosts to the one in front of it is none any more.
    pub fn waves(&self) -> usize {
        self.ends.len()
    }

    /// How many waves have been opened.
    pub fn opened(&self) -> usize {
        self.opened.len()
    }

    /// How many waves have passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// The places of a wave.
    pub fn places(&self, wave: Wave) -> std::ops::Range<Place> {
        let begin = wave.checked_sub(1).map_or(0, |before| self.ends[before]);
        begin..self.ends[wave]
    }

    /// The wave of a place, as waves are cut now.
    pub fn wave_of(&self, host: Place) -> Wave {
        self.ends.partition_point(|end| *end <= host)
    }

    /// How many people have to agree now, and how many do.
    pub fn approval(&self, plan: &Plan) -> (u32, u32) {
        let approvals = &plan.policy.approvals;
        let needed = if self.opened.is_empty() { approvals.start } else { approvals.after_first_wave };
        (needed, self.approvals.len() as u32)
    }

    /// What came out of the health queries, and since when it is so.
    pub fn compared(&self) -> &BTreeMap<GroupName, (UtcTime, Comparison)> {
        &self.compared
    }

    /// Whether hosts wait for the change.
    pub(super) fn holds_back(&self) -> bool {
        self.hosts.iter().any(HostState::waits)
    }

    /// The health queries that it waits for: nobody can say how the changed do, and people have not said that it goes on
    /// all the same.
    pub fn unanswered(&self) -> impl Iterator<Item = (&GroupName, UtcTime, Unanswered)> {
        let owed = self
            .compared
            .iter()
            .filter(|(query, _)| !self.is_through() && !self.seen_unanswered.contains(*query));
        owed.filter_map(|(query, (since, comparison))| match comparison {
            Comparison::Unanswered { because } => Some((query, *since, *because)),
            _ => None,
        })
    }

    /// Every host that was hurt so far.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Hosts that were hurt in the way that a limit counts.
    pub fn at_limit(&self, limit: Limit) -> u32 {
        self.failures.iter().filter(|failure| limit.counts(failure.fault)).count() as u32
    }

    /// Hosts that declined for this reason and stand there now.
    pub fn declined(&self, outcome: Outcome) -> u32 {
        self.declined[outcome as usize]
    }

    /// The hosts of a wave, by where they stand.
    pub fn count(&self, wave: Wave) -> Count {
        self.counts[wave].iter().copied().fold(Count::default(), Count::plus)
    }

    /// What the test is told of a wave, or of one stratum in it.
    pub fn tally(&self, plan: &Plan, wave: Wave, stratum: Option<usize>) -> Tally {
        let count = stratum.map_or_else(|| self.count(wave), |stratum| self.counts[wave][stratum]);
        let mut bad = 0;
        if count.hurt > 0 {
            let members = self.failures.iter().filter(|failure| self.wave_of(failure.host) == wave);
            let members = members.filter_map(|failure| Some((self.member(plan, failure.host)?, failure.at)));
            let own = members.filter(|(member, _)| stratum.is_none_or(|stratum| member.stratum == stratum));
            let places = own.map(|(member, at)| (&member.host.domain, at));
            bad = correlation::causes(places, plan.policy.budgets.correlated);
        }
        Tally { granted: count.granted + count.baking + count.good + bad, good: count.good, bad }
    }

    /// What the test says of a wave: of all its hosts, and whether one stratum alone holds or halts it.
    pub fn verdict(&self, plan: &Plan, wave: Wave) -> (Verdict, Option<usize>) {
        let pooled = plan.test.judge(self.tally(plan, wave, None));
        let worst = self.judge_strata(plan, wave).max_by_key(|(verdict, _)| *verdict);
        match worst {
            Some((verdict, stratum)) if verdict > pooled => (verdict, Some(stratum)),
            _ => (pooled, None),
        }
    }

    /// Whether the test lets no more hosts of a wave begin, or halts it.
    pub fn is_held(&self, plan: &Plan, wave: Wave) -> bool {
        // Asked by each host that begins: where there are too few failures for anything, nothing is summed up.
        self.count(wave).hurt >= plan.test.failures_to_halt() && self.verdict(plan, wave).0 >= Verdict::Hold
    }

    /// The strata that hold or halt a wave by themselves.
    fn judge_strata(&self, plan: &Plan, wave: Wave) -> impl Iterator<Item = (Verdict, usize)> {
        let strata = plan.layout.strata.len();
        let least = plan.test.failures_to_halt();
        // Of one stratum the wave as a whole says all; and without failures enough none can say anything.
        let asked = (0..strata).filter(move |at| strata > 1 && self.counts[wave][*at].hurt >= least);
        let judged = asked.map(move |at| (plan.test.judge(self.tally(plan, wave, Some(at))), at));
        judged.filter(|(verdict, _)| *verdict >= Verdict::Hold)
    }

    /// Counts a hurt host, once and for good.
    pub(super) fn count_failure(&mut self, plan: &Plan, failure: Failure) {
        if self.failures.iter().any(|known| known.host == failure.host) {
            return;
        }
        let stratum = self.member(plan, failure.host).map_or(0, |member| member.stratum);
        let wave = self.wave_of(failure.host);
        self.counts[wave][stratum].hurt += 1;
        self.failures.push(failure);
    }

    /// Moves a host, and every counter with it.
    pub(super) fn set(&mut self, plan: &Plan, host: Place, state: HostState) {
        let wave = self.wave_of(host);
        let stratum = self.member(plan, host).map_or(0, |member| member.stratum);
        let before = std::mem::replace(&mut self.hosts[host], state);
        let count = &mut self.counts[wave][stratum];
        if let Some(number) = count.of(&before) {
            *number -= 1;
        }
        if let Some(number) = count.of(&state) {
            *number += 1;
        }
        let outcome = |state: &HostState| match state {
            HostState::Declined(outcome) => Some(*outcome as usize),
            HostState::Busy { .. } => Some(Outcome::Busy as usize),
            _ => None,
        };
        if let Some(outcome) = outcome(&before) {
            self.declined[outcome] -= 1;
        }
        if let Some(outcome) = outcome(&state) {
            self.declined[outcome] += 1;
        }
    }
}
