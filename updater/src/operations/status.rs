//! What this host has, should have, and does not load again.
//!
//! A host in the middle of an operation is not out of order: what does not look sound is looked at once more
//! while nobody can begin anything, or is said to be in progress.

use manifests::{ImageDigest, PackageVersion, UtcTime};
use serde::Serialize;
use system::lock::{HostLock, Looked};
use workloads::model::Container;

use crate::kernel::KernelError;
use crate::kernel::livepatch::{Enabled, LoadedPatch, PatchState};
use crate::operations::hold::Held;
use crate::operations::images;
use crate::operations::standing::Standing;
use crate::operations::{Engine, EngineError};
use crate::state::baseline::Baseline;
use crate::state::crash_guard::Quarantined;

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
    /// Why no livepatch can be loaded into this kernel; `null` if it takes them.
    pub no_livepatch: Option<String>,
    /// Root file systems that it should have.
    pub rootfs: Vec<RootfsStatus>,
    /// Images that containers were made anew from.
    pub images: Vec<ImageStatus>,
    /// Packages that it should have.
    pub packages: Vec<PackageStatus>,
    /// Livepatches that it does not load again by itself.
    pub quarantined: Vec<Quarantined>,
    /// What holds this host as it is.
    pub held: Held,
    /// Transactions that have not ended.
    pub unfinished: Vec<String>,
    /// What holds the host at the moment; `null` if nothing does, or if all is sound anyway.
    pub in_progress: Option<String>,
    /// Containers that the runtime could not describe, and why.
    pub unreadable: Vec<String>,
}

impl Status {
    /// Whether the host is as it should be, or is being changed at this moment.
    pub fn is_sound(&self) -> bool {
        self.in_progress.is_some()
            || (self.unfinished.is_empty()
                && self.standings().all(Standing::is_sound)
                && self.revoked().next().is_none())
    }

    /// Since when things that it has, or should have, are revoked.
    pub fn revoked(&self) -> impl Iterator<Item = UtcTime> {
        let livepatches = self.livepatches.iter().filter_map(|livepatch| livepatch.revoked);
        let packages = self.packages.iter().filter_map(|package| package.revoked);
        let images = self.images.iter().filter_map(|image| image.revoked);
        livepatches
            .chain(self.rootfs.iter().filter_map(|rootfs| rootfs.revoked))
            .chain(packages)
            .chain(images)
    }

    /// How the host stands to everything that it should have.
    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        let livepatches = self.livepatches.iter().map(|livepatch| &livepatch.standing);
        let packages = self.packages.iter().map(|package| &package.standing);
        let images = self.images.iter().map(|image| &image.standing);
        livepatches.chain(self.rootfs.iter().map(|rootfs| &rootfs.standing)).chain(packages).chain(images)
    }
}

/// A livepatch that the host should have.
#[derive(Debug, Serialize)]
pub struct LivepatchStatus {
    /// The module.
    pub module: String,
    /// SHA-256 of its bytes.
    pub payload: String,
    /// What the kernel says; `null` if it cannot be asked.
    pub kernel_says: Option<PatchState>,
    /// Whether it is enabled and out of transition.
    pub live: bool,
    /// Whether that is as it should be.
    #[serde(flatten)]
    pub standing: Standing,
    /// Since when it must not be in force any more; `null` if it may.
    pub revoked: Option<UtcTime>,
}

/// A root file system that the host should have.
#[derive(Debug, Serialize)]
pub struct RootfsStatus {
    /// The container.
    pub container: String,
    /// Whether it is mounted as it should be.
    pub mounted: bool,
    /// Whether that is as it should be.
    #[serde(flatten)]
    pub standing: Standing,
    /// The container as the runtime sees it; `null` if it does not run.
    pub running: Option<Container>,
    /// Since when a layer of it must not be in force any more; `null` if all may.
    pub revoked: Option<UtcTime>,
}

/// An image that a container was made anew from.
#[derive(Debug, Serialize)]
pub struct ImageStatus {
    /// The container.
    pub container: String,
    /// The image, by its configuration.
    pub image: ImageDigest,
    /// Whether it is made from it still.
    #[serde(flatten)]
    pub standing: Standing,
    /// Whether the container runs.
    pub running: bool,
    /// Since when the image must not be in force any more; `null` if it may, or is not.
    pub revoked: Option<UtcTime>,
}

/// A package that the host should have.
#[derive(Debug, Serialize)]
pub struct PackageStatus {
    /// Its name and architecture.
    pub package: String,
    /// The version to which the host was committed.
    pub version: PackageVersion,
    /// The version that is installed; `null` if none is.
    pub installed: Option<PackageVersion>,
    /// Whether that is as it should be.
    #[serde(flatten)]
    pub standing: Standing,
    /// Since when it must not be in force any more; `null` if it may, or is not.
    pub revoked: Option<UtcTime>,
}

impl Engine {
    /// Look.
    ///
    /// # Errors
    /// [`EngineError`] if the journal or the kernel cannot be asked.
    pub fn status(&self) -> Result<Status, EngineError> {
        let seen = self.look_around()?;
        if seen.is_sound() {
            return Ok(seen);
        }
        match HostLock::look(&self.config.store)? {
            Looked::Held { holder } => Ok(Status { in_progress: Some(holder), ..seen }),
            // What was seen may have been the middle of something that has ended since.
            Looked::Free(_nobody_begins) => self.look_around(),
        }
    }

    fn look_around(&self) -> Result<Status, EngineError> {
        let (baseline, unfinished, made_from) = {
            let journal = self.journal();
            (Baseline::read(&journal)?, journal.unfinished()?, images::committed(&journal.all()?))
        };
        let quarantined = self.guards().quarantined()?;
        let revoked = self.revoked_payloads()?;
        let session = self.look()?;
        let mut livepatches = Vec::new();
        for livepatch in &baseline.livepatches {
            let kernel_says = session.adapters.livepatch.state(&livepatch.module).ok();
            let standing = self.livepatch_standing(&session, livepatch, &quarantined);
            livepatches.push(LivepatchStatus {
                module: livepatch.module.to_string(),
                payload: livepatch.payload.to_string(),
                live: kernel_says == Some(PatchState::Settled(Enabled::Enabled)) && !standing.is_elsewhere(),
                kernel_says,
                standing,
                revoked: revoked.get(&livepatch.payload).copied(),
            });
        }
        // What has the name of one of ours, and is another module, is somebody else's.
        let ours = |loaded: &LoadedPatch| {
            let named = |known: &&LivepatchStatus| known.module == loaded.module.as_str();
            livepatches.iter().filter(named).any(|known| !known.standing.is_elsewhere())
        };
        let (loaded, no_livepatch) = match session.adapters.livepatch.loaded() {
            Ok(loaded) => (loaded, None),
            // There is a history, and there are containers, all the same.
            Err(error @ KernelError::NoLivepatch { .. }) => (Vec::new(), Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let foreign = loaded.into_iter().filter(|loaded| !ours(loaded)).collect();
        let mut rootfs = Vec::new();
        for known in &baseline.rootfs {
            let (standing, container) = self.rootfs_standing(&session, known);
            rootfs.push(RootfsStatus {
                container: known.container.to_string(),
                mounted: standing == Standing::InForce,
                standing,
                running: container.filter(|container| container.status.has_processes()),
                revoked: known.layers().find_map(|layer| revoked.get(&layer).copied()),
            });
        }
        let mut images = Vec::new();
        for (id, known) in &made_from {
            let (standing, container) = self.image_standing(&session, id, &known.image);
            let in_force = standing == Standing::InForce;
            images.push(ImageStatus {
                container: id.to_string(),
                image: known.image,
                standing,
                running: container.is_some_and(|container| container.status.has_processes()),
                revoked: known
                    .payload
                    .filter(|_| in_force)
                    .and_then(|payload| revoked.get(&payload).copied()),
            });
        }
        let packages = baseline.packages.iter().map(|known| {
            let (standing, installed) = self.package_standing(known);
            let in_force = standing == Standing::InForce;
            PackageStatus {
                package: known.package.to_string(),
                version: known.version.clone(),
                installed,
                standing,
                revoked: revoked.get(&known.payload).copied().filter(|_| in_force),
            }
        });
        let packages = packages.collect();
        let unreadable = match session.adapters.lifecycle.list() {
            Ok(listing) => listing.unreadable.iter().map(ToString::to_string).collect(),
            Err(error) if error.is_absence() => Vec::new(),
            Err(error) => vec![error.with_causes()],
        };
        Ok(Status {
            kernel: self.host.kernel.release.to_string(),
            boot_id: self.host.incarnation.boot_id.to_string(),
            uptime_s: self.host.clock.elapsed().as_secs(),
            livepatches,
            foreign,
            no_livepatch,
            rootfs,
            images,
            packages,
            quarantined,
            held: self.held()?,
            unfinished: unfinished.into_iter().map(|stored| stored.id.to_string()).collect(),
            in_progress: None,
            unreadable,
        })
    }
}
