//! Two containers for one name: the one that has it, and the one that is to have it.

use manifests::ContainerId;
use serde::{Deserialize, Serialize};

/// What the two are called while there are two, and the restart policy, which only the one in place has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The new one's name until it is in place.
    pub trial: ContainerId,
    /// The old one's name from then on.
    pub aside: ContainerId,
    /// The policy in the words of `--restart`: `no`, `always`, `on-failure:3`, …
    pub restart: String,
}
