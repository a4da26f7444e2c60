//! What a host says of itself: what it is, what runs on it, what it is exposed to, and how it has been since the fleet
//! changed it.
//!
//! The executor gathers it, the agent carries it, and only when its digest is another one than that of what was sent
//! last. So nothing in it moves by itself: no time of day, no load, no counter of what is ordinary. Lists are sorted, and
//! bounded; what is more is left out by the host.

use manifests::{
    BuildId, CveId, HostId, KernelRelease, Label, LabelValue, ManifestName, ModuleName, Sha256, UtcTime,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::rollout::Action;

/// See [the module](self).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    /// Its name, a label and no more.
    pub name: LabelValue,
    /// The running kernel, as `uname -r` prints it.
    pub kernel: KernelRelease,
    /// The GNU build id of that kernel, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_build_id: Option<BuildId>,
    /// The CPU's model.
    pub cpu: LabelValue,
    /// The services that run on it, as labels that caps can name: the annotations of its running containers.
    pub services: Vec<Label>,
    /// Livepatches that the kernel has, whoever loaded them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub livepatches: Vec<LoadedLivepatch>,
    /// Running containers, by runtime and id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<LabelValue>,
    /// What it is exposed to, of what the manifests name that it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposures: Vec<Exposure>,
    /// What the fleet changed on it, the last first, and how it has been since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// A livepatch that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadedLivepatch {
    /// The module.
    pub module: ModuleName,
    /// Its GNU build id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<BuildId>,
    /// Whether every task runs its functions.
    pub state: LivepatchState,
}

/// How far the kernel is with a livepatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LivepatchState {
    /// Every task runs its functions.
    InForce,
    /// Tasks are moving over, or back.
    InTransition,
    /// Loaded, and no task runs its functions.
    Disabled,
}

/// What a host is to one vulnerability, by the latest version of one manifest that fixes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// Which vulnerability.
    pub cve: CveId,
    /// By which manifest.
    pub manifest: ManifestName,
    /// By which version of it.
    pub version: u64,
    /// What the host is to it.
    pub standing: Standing,
}

/// What a host is to a vulnerability; of several the worst counts, which is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing on it is at fault.
    Clear,
    /// It had it, or would have, and the fix is in force.
    Fixed,
    /// It cannot be told.
    Unknown,
    /// What is at fault is in use.
    Exposed,
}

/// Something that the fleet changed on a host, and how the host has been since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The transaction in the host's journal.
    pub transaction: LabelValue,
    /// In which rollout.
    pub rollout: Sha256,
    /// What it was.
    pub action: Action,
    /// When the last thing happened in it.
    pub until: UtcTime,
    /// How it ended.
    pub outcome: ChangeOutcome,
    /// Until every task ran the new functions, in milliseconds; of several livepatches the longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition_ms: Option<u64>,
    /// How its probes went.
    #[serde(default)]
    pub probes: Probes,
    /// Kernel taint flags that are new since it began, in the same boot (`Documentation/admin-guide/tainted-kernels.rst`).
    #[serde(default)]
    pub taints: u64,
    /// Warnings, oopses and the like in the kernel's log since it began, in the same boot.
    #[serde(default)]
    pub splats: u32,
    /// Containers that it changed and that were started again since it ended, in the same boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarted: Vec<LabelValue>,
    /// The longest time since then without an answer of any controller, in minutes. The agent's word: nobody else asks.
    #[serde(default)]
    pub unreachable_min: u32,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeOutcome {
    /// It has not.
    Open,
    /// It was committed, and stands.
    Committed,
    /// It went back by itself.
    RolledBack,
    /// It was committed, and taken back later.
    Undone,
}

/// How often the probes of a change held, and how often one did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// Steps whose probes held.
    pub held: u32,
    /// Steps whose probes did not.
    pub failed: u32,
}

impl HostFacts {
    /// The most services that a host names.
    pub const MAX_SERVICES: usize = 1024;
    /// The most livepatches.
    pub const MAX_LIVEPATCHES: usize = 64;
    /// The most containers.
    pub const MAX_WORKLOADS: usize = 1024;
    /// The most exposures.
    pub const MAX_EXPOSURES: usize = 1024;
    /// The most changes.
    pub const MAX_CHANGES: usize = 8;

    /// A host of which nothing is told but what it is.
    #[must_use]
    pub fn new(name: LabelValue, kernel: KernelRelease, cpu: LabelValue) -> Self {
        let (services, livepatches, workloads) = Default::default();
        let (exposures, changes) = Default::default();
        let kernel_build_id = None;
        Self { name, kernel, kernel_build_id, cpu, services, livepatches, workloads, exposures, changes }
    }

    /// By which a controller knows whether it has these.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&serde_json::to_vec(self).expect("facts have no maps with keys that JSON cannot hold"))
    }

    /// What is said where nobody is known yet: the rest follows with the first poll.
    #[must_use]
    pub fn at_first(&self) -> Self {
        let Self { name, kernel, kernel_build_id, cpu, .. } = self.clone();
        Self { kernel_build_id, ..Self::new(name, kernel, cpu) }
    }

    /// Its lists: which, how many entries there may be, how many there are.
    pub fn lists(&self) -> [(&'static str, usize, usize); 5] {
        [
            ("facts.services", Self::MAX_SERVICES, self.services.len()),
            ("facts.livepatches", Self::MAX_LIVEPATCHES, self.livepatches.len()),
            ("facts.workloads", Self::MAX_WORKLOADS, self.workloads.len()),
            ("facts.exposures", Self::MAX_EXPOSURES, self.exposures.len()),
            ("facts.changes", Self::MAX_CHANGES, self.changes.len()),
        ]
    }

    /// What a host is to a vulnerability, by all manifests that fix it; nothing if none is known to it.
    pub fn standing(&self, cve: &CveId) -> Option<Standing> {
        self.exposures.iter().filter(|exposure| exposure.cve == *cve).map(|exposure| exposure.standing).max()
    }

    /// What rollouts know of a host is what it says now.
    pub fn describe(&self, host: &mut Host) {
        let Self { kernel, kernel_build_id, cpu, services, .. } = self.clone();
        (host.kernel, host.kernel_build_id, host.cpu, host.services) =
            (kernel, kernel_build_id, cpu, services);
    }
}

/// Since when a host has been exposed to something, and for how long it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exposed {
    /// Since when; nothing if it is not now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UtcTime>,
    /// How long it was before that, in seconds.
    #[serde(default)]
    pub seconds: u64,
}

impl Exposed {
    /// It is, or is not, from `now` on.
    #[must_use]
    pub fn next(self, standing: Option<Standing>, now: UtcTime) -> Self {
        let exposed = standing == Some(Standing::Exposed);
        match (self.since, exposed) {
            (None, true) => Self { since: Some(now), ..self },
            (Some(_), false) => Self { since: None, seconds: self.until(now) },
            _ => self,
        }
    }

    /// For how long it has been exposed until `now`, all told, in seconds.
    pub fn until(self, now: UtcTime) -> u64 {
        let current = |since: UtcTime| now.timestamp().as_second() - since.timestamp().as_second();
        self.seconds + self.since.map_or(0, |since| current(since).max(0).unsigned_abs())
    }
}

/// How a fleet stands to one vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FleetExposure {
    /// Which.
    pub cve: CveId,
    /// Hosts that are exposed.
    pub exposed: Vec<HostId>,
    /// Hosts that cannot tell.
    pub unknown: u32,
    /// Hosts on which the fix is in force.
    pub fixed: u32,
    /// Hosts that do not have it.
    pub clear: u32,
    /// For how long hosts have been exposed since the fleet knows of it, all told, in hours.
    pub host_hours: u64,
}

impl FleetExposure {
    /// Nobody has said anything of it yet.
    pub fn none(cve: &CveId) -> Self {
        Self { cve: cve.clone(), exposed: Vec::new(), unknown: 0, fixed: 0, clear: 0, host_hours: 0 }
    }

    /// Counts a host. One that does not name it any more is not counted.
    pub fn count(&mut self, host: HostId, standing: Option<Standing>) {
        match standing {
            Some(Standing::Exposed) => self.exposed.push(host),
            Some(Standing::Unknown) => self.unknown += 1,
            Some(Standing::Fixed) => self.fixed += 1,
            Some(Standing::Clear) => self.clear += 1,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UtcTime {
        text.parse().unwrap()
    }

    #[test]
    fn the_time_of_an_exposure_is_counted_while_it_lasts_and_kept_when_it_ends() {
        let begun = Exposed::default().next(Some(Standing::Exposed), at("2026-11-02T00:00:00Z"));
        let same = begun.next(Some(Standing::Exposed), at("2026-11-02T01:00:00Z"));
        assert_eq!(same, begun, "what is said twice changes nothing");
        assert_eq!(same.until(at("2026-11-02T02:00:00Z")), 7200);
        let fixed = same.next(Some(Standing::Fixed), at("2026-11-02T03:00:00Z"));
        assert_eq!((fixed.since, fixed.until(at("2027-01-01T00:00:00Z"))), (None, 3 * 3600));
        let again = fixed.next(Some(Standing::Exposed), at("2026-11-03T00:00:00Z"));
        assert_eq!(again.until(at("2026-11-03T01:00:00Z")), 4 * 3600);
        assert_eq!(
            again.next(None, at("2026-11-03T01:00:00Z")).seconds,
            4 * 3600,
            "nobody names it any more"
        );
        assert_eq!(
            again.until(at("2026-11-02T00:00:00Z")),
            3 * 3600,
            "a clock that went back takes nothing away"
        );
    }

    #[test]
    fn of_several_manifests_the_worst_word_counts() {
        let exposure = |manifest: &str, standing| Exposure {
            cve: "CVE-2026-0001".parse().unwrap(),
            manifest: manifest.parse().unwrap(),
            version: 1,
            standing,
        };
        let host = crate::sample::inventory(1).pop().unwrap();
        let mut facts = HostFacts::new(host.role, host.kernel, host.cpu);
        let cve = "CVE-2026-0001".parse().unwrap();
        assert_eq!(facts.standing(&cve), None);
        let digest = facts.digest();
        facts.exposures = vec![exposure("kernel", Standing::Fixed), exposure("library", Standing::Exposed)];
        assert_eq!(facts.standing(&cve), Some(Standing::Exposed));
        assert_ne!(facts.digest(), digest);
        facts.exposures.pop();
        assert_eq!(facts.standing(&cve), Some(Standing::Fixed));
        assert_eq!(facts.at_first().digest(), digest, "where nobody is known yet, little is said");
    }
}
