//! A host as a rollout sees it: who it is, what fails together with it, what runs on it.
//!
//! What a host reports of itself (kernel, CPU, services) decides in which stratum it is counted and which caps
//! it fills; a liar among them spoils one count, and gets nothing earlier. Group and failure domain come from
//! the token with which it was enrolled: a host does not choose its own.

use manifests::{BuildId, DomainName, GroupName, HostId, KernelRelease, Label, LabelValue};
use serde::{Deserialize, Serialize};

/// One host of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its key's digest.
    pub id: HostId,
    /// The groups that it is in, from its enrolment.
    pub groups: Vec<GroupName>,
    /// What it fails together with, from its enrolment.
    pub domain: DomainName,
    /// The running kernel, as `uname -r` prints it.
    pub kernel: KernelRelease,
    /// The build id of that kernel, if it has one: another build of a release is another kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_build_id: Option<BuildId>,
    /// The CPU's model, by the host's own word.
    pub cpu: LabelValue,
    /// What it is there for (`db`, `web`), from its enrolment.
    pub role: LabelValue,
    /// The services that run on it, as labels that caps can name.
    #[serde(default)]
    pub services: Vec<Label>,
}

/// By what hosts are told apart, so that each kind of them is seen in the first wave.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Trait {
    /// The running kernel.
    Kernel,
    /// The CPU's model.
    Cpu,
    /// What the host is there for.
    Role,
}

impl Host {
    /// Whether it runs another kernel than `other` says. Of a build that one side does not know nothing follows.
    pub fn has_another_kernel(&self, other: &Self) -> bool {
        let builds = self.kernel_build_id.as_ref().zip(other.kernel_build_id.as_ref());
        self.kernel != other.kernel || builds.is_some_and(|(ours, theirs)| ours != theirs)
    }

    /// The stratum that this host is in, in words: `6.1.0-50-amd64 / epyc / db`. All hosts, if nothing tells
    /// them apart.
    pub fn stratum(&self, traits: &[Trait]) -> String {
        let value = |one: &Trait| match one {
            Trait::Kernel => self.kernel.as_str(),
            Trait::Cpu => self.cpu.as_str(),
            Trait::Role => self.role.as_str(),
        };
        match traits {
            [] => "all hosts".to_owned(),
            traits => traits.iter().map(value).collect::<Vec<_>>().join(" / "),
        }
    }
}
