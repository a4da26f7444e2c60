//! What this host has, should have, and does not load again.

use serde::Serialize;

use super::{Engine, EngineError};
use crate::baseline::Baseline;
use crate::crash_guard::Quarantined;
use crate::host::{LoadedPatch, PatchState};
use crate::runtime::Container;

/// The state of the host.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `uname -r`.
    pub kernel: String,
    /// The id of this boot.
    pub boot_id: String,
    /// Time since boot, in seconds.
    pub uptime_s: u64,
    /// Livepatches that it should have.
    pub livepatches: Vec<LivepatchStatus>,
    /// Livepatches that are loaded and that this program did not load.
    pub foreign: Vec<LoadedPatch>,
    /// Root file systems that it should have.
    pub rootfs: Vec<RootfsStatus>,
    /// Livepatches that it does not load again by itself.
    pub quarantined: Vec<Quarantined>,
    /// Transactions that have not ended.
    pub unfinished: Vec<String>,
}

impl Status {
    /// Whether the host is as it should be.
    pub fn is_sound(&self) -> bool {
        self.unfinished.is_empty()
            && self.livepatches.iter().all(|livepatch| livepatch.live)
            && self.rootfs.iter().all(|rootfs| rootfs.mounted)
    }
}

/// A livepatch that the host should have.
#[derive(Debug, Serialize)]
pub struct LivepatchStatus {
    /// The module.
    pub module: String,
    /// SHA-256 of its bytes.
    pub payload: String,
    /// What the kernel says.
    pub kernel_says: PatchState,
    /// Whether it is enabled and out of transition.
    pub live: bool,
}

/// A root file system that the host should have.
#[derive(Debug, Serialize)]
pub struct RootfsStatus {
    /// The container.
    pub container: String,
    /// Whether it is mounted as it should be.
    pub mounted: bool,
    /// The container as the runtime sees it; `null` if it is not there.
    pub running: Option<Container>,
}

impl Engine {
    /// Look.
    ///
    /// # Errors
    /// [`EngineError`] if the journal, the kernel or the runtime cannot be asked.
    pub fn status(&self) -> Result<Status, EngineError> {
        let (baseline, unfinished) = {
            let journal = self.journal();
            (Baseline::read(&journal)?, journal.unfinished()?)
        };
        let adapters = self.look()?;
        let mut livepatches = Vec::new();
        for livepatch in &baseline.livepatches {
            let kernel_says = adapters.on.livepatch.state(&livepatch.module)?;
            livepatches.push(LivepatchStatus {
                module: livepatch.module.to_string(),
                payload: livepatch.payload.to_string(),
                live: kernel_says == PatchState::Settled(crate::host::Enabled::Enabled),
                kernel_says,
            });
        }
        let ours =
            |loaded: &LoadedPatch| baseline.livepatches.iter().any(|known| known.module == loaded.module);
        let foreign = adapters.on.livepatch.loaded()?.into_iter().filter(|loaded| !ours(loaded)).collect();
        let mut rootfs = Vec::new();
        for known in &baseline.rootfs {
            let mounted = self
                .host
                .mounts
                .current(&known.mount_point)
                .is_ok_and(|now| now.shows_the_same_as(&known.topology));
            let running = adapters.on.runtime.inspect(&known.container)?;
            rootfs.push(RootfsStatus { container: known.container.to_string(), mounted, running });
        }
        Ok(Status {
            kernel: self.host.kernel.clone().to_string(),
            boot_id: self.host.boot_id.to_string(),
            uptime_s: self.host.clock.elapsed().as_secs(),
            livepatches,
            foreign,
            rootfs,
            quarantined: self.guards().quarantined()?,
            unfinished: unfinished.into_iter().map(|stored| stored.id.to_string()).collect(),
        })
    }
}
