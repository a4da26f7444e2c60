//! The host as an engine reaches it: the one that runs, or a simulated one.
//!
//! Plain values and adapters behind their traits, put together in one place. What depends on the
//! containers that run now, or on who holds the host's lock, is made anew for each operation by
//! [`Host::connect`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::HostKernel;
use system::boot::{Incarnation, UserspaceId, boot_id, userspace};
use system::clock::{Clock, SystemClock};
use system::command::{CommandError, HeldLock};
use system::medium;
use system::medium::Medium;
use workloads::files::layer::LayerStore;
use workloads::files::rootfs::OverlayMounts;
use workloads::files::{Layers, RootfsMounts};
use workloads::lifecycle::error::RuntimeError;
use workloads::lifecycle::{Checkpointer, Lifecycle, Recreator, Runtimes};
use workloads::limits::Limits;
use workloads::limits::freezer::{CgroupFreezer, Freezer, LeaseStore};
use workloads::limits::knobs::CgroupLimits;
use workloads::model::KnownContainer;
use workloads::model::Listing;
use workloads::network::ConnectionHold;
use workloads::network::hold::NftHold;
use workloads::packages::{Dpkg, Packages};
use workloads::probes::{Prober, Probes};
use workloads::processes::observe::Procfs;
use workloads::processes::{Everywhere, Observer};
use workloads::services::{Services, Systemd};

use crate::config::Config;
use crate::kernel::identity;
use crate::kernel::livepatch::Livepatch;
use crate::kernel::survival;
use crate::kernel::survival::{Scheduled, Trial};
use crate::kernel::sysfs::Roots;
use crate::kernel::sysfs::Sysfs;
use crate::operations::EngineError;
use crate::operations::hold;

/// Tells what the files of a directory are written to.
pub type MediumOf = dyn Fn(&Path) -> std::io::Result<Medium> + Send + Sync;

/// Everything through which an engine reaches its host.
pub struct Host {
    /// What the files of a directory are written to.
    pub medium: Box<MediumOf>,
    /// Below which `/proc`, `/sys`, `/boot` and `/lib/modules` are, for the facts of the kernel.
    pub root: PathBuf,
    /// While this file is there, the host is held.
    pub hold_file: PathBuf,
    /// `uname -n`.
    pub name: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `uname -m`.
    pub arch: String,
    /// The running kernel.
    pub kernel: HostKernel,
    /// The running boot, and the start of userspace in it.
    pub incarnation: Incarnation,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// Stops containers for a moment.
    pub freezer: Arc<dyn Freezer + Send + Sync>,
    /// Remembers what is stopped.
    pub leases: LeaseStore,
    /// Root file systems.
    pub mounts: Arc<dyn RootfsMounts + Send + Sync>,
    /// Connections of checkpointed containers.
    pub hold: Arc<dyn ConnectionHold + Send + Sync>,
    /// cgroup knobs.
    pub limits: Arc<dyn Limits + Send + Sync>,
    /// Unpacked layers.
    pub layers: Arc<dyn Layers + Send + Sync>,
    /// What can be seen of containers from outside.
    pub observer: Arc<dyn Observer + Send + Sync>,
    /// What can be seen of all processes.
    pub everywhere: Arc<dyn Everywhere + Send + Sync>,
    /// The package manager.
    pub packages: Arc<dyn Packages + Send + Sync>,
    /// The service manager.
    pub services: Arc<dyn Services + Send + Sync>,
    /// Has somebody look, every minute, whether the host lives on after a load; or no more.
    pub watch: Box<dyn Fn(Trial) -> Result<Scheduled, CommandError> + Send + Sync>,
    /// Makes the adapters of one operation; its children keep the lock.
    pub connect: Box<dyn Fn(Option<HeldLock>) -> Result<Adapters, EngineError> + Send + Sync>,
}

/// The adapters of one operation.
pub struct Adapters {
    /// The kernel's livepatch interface, which knows whose control groups are containers.
    pub livepatch: Arc<dyn Livepatch + Send + Sync>,
    /// Starts and stops containers.
    pub lifecycle: Arc<dyn Lifecycle + Send + Sync>,
    /// Writes their memory to disk, and brings it back.
    pub checkpointer: Arc<dyn Checkpointer + Send + Sync>,
    /// Makes them anew from other images.
    pub recreator: Arc<dyn Recreator + Send + Sync>,
    /// Probes.
    pub prober: Arc<dyn Prober + Send + Sync>,
}

/// Freeze leases do not outlive the boot, and neither does this directory.
const LEASES: &str = "/run/update/frozen";

impl Host {
    /// The host that runs.
    ///
    /// # Errors
    /// [`EngineError::Uname`], [`EngineError::Unusable`], [`EngineError::Host`].
    pub fn running(config: &Config) -> Result<Self, EngineError> {
        let uname = nix::sys::utsname::uname()?;
        let release = uname.release().to_string_lossy().into_owned();
        let release = release
            .parse()
            .map_err(|_| EngineError::Unusable { what: "the kernel release", found: release })?;
        let runc_root = config.runc_root.clone();
        Ok(Self {
            medium: Box::new(|directory| medium::Roots::default().medium(directory)),
            root: PathBuf::from("/"),
            hold_file: PathBuf::from(hold::FILE),
            name: uname.nodename().to_string_lossy().into_owned(),
            kernel_version: uname.version().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            kernel: identity::of_running(Path::new("/"), release, &uname.version().to_string_lossy()),
            incarnation: Incarnation { boot_id: boot_id()?, userspace: known_userspace() },
            clock: Arc::new(SystemClock),
            freezer: Arc::new(CgroupFreezer::new("/sys/fs/cgroup")),
            leases: LeaseStore::new(LEASES),
            mounts: Arc::new(OverlayMounts),
            hold: Arc::new(NftHold),
            limits: Arc::new(CgroupLimits::default()),
            layers: Arc::new(LayerStore::new(config.store.join("layers"))),
            observer: Arc::new(Procfs),
            everywhere: Arc::new(Procfs),
            packages: Arc::new(Dpkg),
            services: Arc::new(Systemd),
            watch: Box::new(survival::watch),
            connect: Box::new(move |lock| {
                let runtimes = Runtimes::found(&runc_root);
                let known = known(runtimes.list());
                for why in &known.unreadable {
                    tracing::info!(why, "left out");
                }
                let runtime = Arc::new(match lock {
                    Some(lock) => runtimes.holding(lock).map_err(EngineError::Share)?,
                    None => runtimes,
                });
                Ok(Adapters {
                    livepatch: Arc::new(Sysfs::new(Roots::default(), known.containers)?),
                    prober: Arc::new(Probes::new(runtime.clone())),
                    lifecycle: runtime.clone(),
                    recreator: runtime.clone(),
                    checkpointer: runtime,
                })
            }),
        })
    }
}

/// The running start of userspace, as far as it is told: a host is not given up because systemd does not answer.
fn known_userspace() -> Option<UserspaceId> {
    userspace().unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a soft reboot would not be noticed");
        None
    })
}

/// The containers whose groups may be frozen.
#[derive(Debug, Default)]
pub struct Known {
    /// With their groups.
    pub containers: Vec<KnownContainer>,
    /// Why others are not among them, or not whole.
    pub unreadable: Vec<String>,
}

/// The containers of the running host and their control groups.
pub fn known_containers(config: &Config) -> Known {
    known(Runtimes::found(&config.runc_root).list())
}

/// A host without the runtime has no containers, and takes livepatches all the same. So does one whose runtime
/// does not answer: a group that nobody knows is not frozen, and what needs the runtime asks it again.
fn known(listed: Result<Listing, RuntimeError>) -> Known {
    let (listing, trouble) = match listed {
        Ok(listing) => (listing, None),
        Err(error) if error.is_absence() => (Listing::default(), None),
        Err(error) => (Listing::default(), Some(error.with_causes())),
    };
    let known = listing.containers.into_iter().filter_map(|container| {
        let cgroup = container.cgroup?.to_str()?.parse().ok()?;
        Some(KnownContainer { id: container.id.id, cgroup })
    });
    let unreadable = listing.unreadable.iter().map(ToString::to_string).chain(trouble);
    Known { containers: known.collect(), unreadable: unreadable.collect() }
}
