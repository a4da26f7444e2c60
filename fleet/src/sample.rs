//! What tests begin with.

use manifests::Sha256;

use crate::host::Host;
use crate::policy::RolloutPolicy;
use crate::simulate::inventory::Synthetic;

/// A policy that takes all defaults, for the group `fleet`.
pub(crate) fn policy() -> RolloutPolicy {
    RolloutPolicy::parse(b"schema: 1\nselector: {groups: [fleet]}\n").unwrap()
}

/// A fleet of six strata.
pub(crate) fn inventory(hosts: usize) -> Vec<Host> {
    Synthetic { hosts: hosts as u32, ..Synthetic::default() }.inventory()
}

/// Some rollout's digest.
pub(crate) fn rollout() -> Sha256 {
    Sha256::of(b"a rollout")
}
