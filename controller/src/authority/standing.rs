//! Where rollouts stand, as people see it.

use std::collections::BTreeMap;

use fleet::rollout::{Comparison, Count, HostState, Stage, Waiting, waiting};
use fleet::test::{Tally, Verdict};
use manifests::{GroupName, ManifestName, Profile, Sha256, UtcTime};
use serde::Serialize;

use super::known::{Known, Running};
use super::{Authority, Denied, known_rollout};

/// A rollout, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Standing {
    /// Its document's digest.
    pub rollout: Sha256,
    /// Its manifest's name.
    pub name: ManifestName,
    /// Its manifest's digest.
    pub manifest: Sha256,
    /// Its manifest's version.
    pub version: u64,
    /// Rollouts that end, or ended, when it begins.
    pub supersedes: Vec<Sha256>,
    /// Which profile of its policy it goes by.
    pub profile: Profile,
    /// From when on nobody begins.
    pub expires: UtcTime,
    /// Where it stands.
    #[serde(flatten)]
    pub stage: Stage,
    /// The same in words.
    pub words: String,
    /// Why it does not go on at this moment.
    pub waiting: Vec<Reason>,
    /// What came out of its health queries.
    pub health: Vec<HealthStanding>,
    /// Its waves.
    pub waves: Vec<WaveStanding>,
    /// Hosts, by where they stand.
    pub hosts: BTreeMap<String, u32>,
    /// Hosts that were hurt so far.
    pub hurt: u32,
}

/// What came out of a health query, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct HealthStanding {
    /// Which.
    pub query: GroupName,
    /// What came out; nothing before the first host was changed and somebody asked.
    #[serde(flatten)]
    pub comparison: Option<Comparison>,
    /// Since when it is so.
    pub since: Option<UtcTime>,
    /// The same in words.
    pub words: String,
}

/// A reason, and the same in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Reason {
    /// What it waits for.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// The same in words.
    pub words: String,
}

/// A wave, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
pub struct WaveStanding {
    /// How many hosts it has.
    pub hosts: usize,
    /// Whether it was opened.
    pub opened: bool,
    /// Whether it passed.
    pub passed: bool,
    /// Its hosts, by where they stand.
    pub count: Count,
    /// What the test is told.
    pub tally: Tally,
    /// What it says.
    pub verdict: Verdict,
}

impl Standing {
    pub(super) fn of(known: &Known, rollout: Sha256, running: &Running, now: UtcTime) -> Self {
        let (plan, progress) = (&running.plan, &running.progress);
        let reasons = waiting(plan, progress, &known.book, now);
        let wave = |wave: usize| WaveStanding {
            hosts: progress.places(wave).len(),
            opened: wave < progress.opened(),
            passed: wave < progress.passed(),
            count: progress.count(wave),
            tally: progress.tally(plan, wave, None),
            verdict: progress.verdict(plan, wave).0,
        };
        let health = plan.policy.health.iter().map(|query| {
            let known = progress.compared().get(&query.name);
            let (since, comparison) = known.copied().unzip();
            let words =
                comparison.map_or_else(|| "nothing was compared yet".to_owned(), |known| known.to_string());
            HealthStanding { query: query.name.clone(), comparison, since, words }
        });
        let mut hosts = BTreeMap::<&str, u32>::new();
        for state in progress.hosts() {
            *hosts.entry(word(state)).or_default() += 1;
        }
        Self {
            rollout,
            name: running.document.name.clone(),
            manifest: running.document.manifest,
            version: running.claim.version,
            supersedes: running.supersedes.clone(),
            profile: running.document.profile,
            expires: running.document.expires,
            stage: progress.stage().clone(),
            words: progress.stage().to_string(),
            waiting: reasons
                .into_iter()
                .map(|waiting| Reason { words: waiting.to_string(), waiting })
                .collect(),
            health: health.collect(),
            waves: (0..progress.waves()).map(wave).collect(),
            hosts: hosts.into_iter().map(|(state, hosts)| (state.to_owned(), hosts)).collect(),
            hurt: progress.failures().len() as u32,
        }
    }
}

impl Authority {
    /// All rollouts.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn standings(&self) -> Result<Vec<Standing>, Denied> {
        let (turn, now) = (self.turn()?, self.now());
        let standing =
            |(rollout, running): (&Sha256, &Running)| Standing::of(&turn.known, *rollout, running, now);
        Ok(turn.known.rollouts.iter().map(standing).collect())
    }

    /// One rollout.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`].
    pub fn shown(&self, rollout: Sha256) -> Result<Standing, Denied> {
        let (turn, now) = (self.turn()?, self.now());
        Ok(Standing::of(&turn.known, rollout, known_rollout(&turn.known, rollout)?, now))
    }
}

/// A host's state in one word: that of its JSON.
pub(super) fn word(state: &HostState) -> &'static str {
    match state {
        HostState::Listed => "listed",
        HostState::Offered => "offered",
        HostState::Ready => "ready",
        HostState::Busy { .. } => "busy",
        HostState::Granted { .. } => "granted",
        HostState::Applied { .. } => "applied",
        HostState::Good { .. } => "good",
        HostState::Bad { .. } => "bad",
        HostState::Declined(_) => "declined",
        HostState::RollbackGranted { .. } => "rollback-granted",
        HostState::RolledBack => "rolled-back",
        HostState::Stuck => "stuck",
        HostState::Withdrawn => "withdrawn",
    }
}

#[cfg(test)]
mod tests {
    use fleet::rollout::{Fault, Outcome};
    use manifests::Nonce;

    use super::*;

    #[test]
    fn a_state_is_called_as_in_json() {
        let since = "2026-11-02T00:00:00Z".parse().unwrap();
        let nonce = Nonce::from_bytes([1; 16]);
        for state in [
            HostState::Listed,
            HostState::Offered,
            HostState::Ready,
            HostState::Busy { until: since },
            HostState::Granted { since, nonce },
            HostState::Applied { since, nonce },
            HostState::Good { since, nonce },
            HostState::Bad { fault: Fault::Splat, since, nonce },
            HostState::Declined(Outcome::Held),
            HostState::RollbackGranted { since, nonce },
            HostState::RolledBack,
            HostState::Stuck,
            HostState::Withdrawn,
        ] {
            assert_eq!(serde_json::to_value(state).unwrap()["state"], word(&state));
        }
    }
}
