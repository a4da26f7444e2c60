//! Whether this program can be taken off its host. Its package asks before it is removed.
//!
//! Nothing of what runs ends with the program. But after the next boot nobody would mount the files of its containers, load its
//! livepatches, or finish what was interrupted: what cannot wait for somebody who installs it again stands in the way.

use serde::Serialize;
use system::lock::{HostLock, Looked};

use crate::operations::standing::Standing;
use crate::operations::status::{RootfsStatus, Status};
use crate::operations::{Engine, EngineError};
use crate::state::baseline::Baseline;

/// What would come of a removal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// What still needs the program, a phrase each. While there is any, it stays.
    pub needed_by: Vec<String>,
    /// What the host has until its next boot and not after it, a phrase each.
    pub until_boot: Vec<String>,
}

impl Removal {
    fn of(status: &Status, baseline: &Baseline, holder: Option<String>) -> Self {
        let running = holder.map(|holder| format!("what is in progress ({holder})"));
        let unfinished = status.unfinished.iter().map(|id| format!("transaction {id}, which is unfinished"));
        let is_gone = |container: &str| {
            let same = |known: &&RootfsStatus| known.container == container;
            status
                .rootfs
                .iter()
                .find(same)
                .is_some_and(|known| matches!(known.standing, Standing::Gone { .. }))
        };
        let containers = baseline.rootfs.iter().filter_map(|rootfs| {
            let name = rootfs.container.to_string();
            let has_fixes = rootfs.layers().next().is_some();
            (has_fixes && !is_gone(&name))
                .then(|| format!("container {name}, whose files are a fix of this program"))
        });
        let livepatches =
            status.livepatches.iter().map(|livepatch| format!("livepatch {}", livepatch.module));
        Self {
            needed_by: running.into_iter().chain(unfinished).chain(containers).collect(),
            until_boot: livepatches.collect(),
        }
    }
}

impl Engine {
    /// What would come of a removal of this program.
    ///
    /// # Errors
    /// [`EngineError`] if the journal or the kernel cannot be asked.
    pub fn removal(&self) -> Result<Removal, EngineError> {
        let holder = match HostLock::look(&self.config.store)? {
            Looked::Held { holder } => Some(holder),
            Looked::Free(_) => None,
        };
        let status = self.status()?;
        let baseline = Baseline::read(&self.journal())?;
        Ok(Removal::of(&status, &baseline, holder))
    }
}
