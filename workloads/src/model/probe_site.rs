//! Where a probe looks from.

use serde::{Deserialize, Serialize};

use crate::model::WorkloadId;

/// Where a probe looks from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum ProbeSite {
    /// Inside a container: its processes and its network namespace.
    Container {
        /// Which.
        container: WorkloadId,
    },
    /// The host.
    Host,
}
