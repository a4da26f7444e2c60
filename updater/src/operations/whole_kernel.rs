//! Which kernels this host has, and whether another one can take over under running containers. Changes nothing.

use manifests::KernelPackage;
use serde::Serialize;
use workloads::lifecycle::trial::{Trial, trial};

use crate::kernel::whole::Kernels;
use crate::operations::{Engine, EngineError};
use crate::plan::facts::Unmet;
use crate::plan::kernel;

/// The kernels of a host.
#[derive(Debug, Serialize)]
pub struct KernelStatus {
    /// `uname -r`.
    pub release: String,
    /// The running kernel's build id; `null` if it shows none.
    pub build_id: Option<String>,
    /// The package that it was built as; `null` if it names none.
    pub package: Option<KernelPackage>,
    /// The rest of what is known.
    #[serde(flatten)]
    pub kernels: Kernels,
    /// What stands in the way of another kernel; nothing does if it is empty.
    pub obstacles: Vec<Unmet>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Engine {
    /// Looks.
    pub fn kernel_status(&self) -> KernelStatus {
        let running = &self.host.kernel;
        let kernels = Kernels::look(&self.host.root, &running.release);
        let lost = self.lost_without_power();
        KernelStatus {
            release: running.release.to_string(),
            build_id: running.build_id.as_ref().map(ToString::to_string),
            package: running.package.clone(),
            obstacles: kernel::obstacles(&kernels, &running.release, lost.as_deref()),
            notes: kernel::notes(&kernels, &running.release),
            kernels,
        }
    }

    /// Checkpoints and restores a throw-away container.
    ///
    /// # Errors
    /// [`EngineError::Runtime`] if this host cannot.
    pub fn try_checkpoint(&self) -> Result<Trial, EngineError> {
        Ok(trial(&self.config.store)?)
    }

    /// What the place of checkpoints is, if they would be gone after a cold boot.
    fn lost_without_power(&self) -> Option<String> {
        let place = self.config.checkpoints();
        let found = (self.host.medium)(&place).ok()?;
        found.is_gone_with_the_power().then(|| format!("{} in {found}", place.display()))
    }
}
