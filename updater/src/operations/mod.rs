//! Whole operations on this host: what the subcommands and the agent call.
//!
//! - [`host`]: the adapters that it works with
//! - `host_packages`: what is installed, and which services run it
//! - [`survey`]: fills the planner's facts from the running host
//! - [`inspection`]: what a payload really is, and where it is said to come from
//! - [`trust`]: whom this host believes: envelope, policy, floors, payload digests
//! - [`publication`]: what proves that a manifest is in a log
//! - [`along`]: a policy and revocations that come with a manifest
//! - [`carried`] is for bundles: what one file brings
//! - [`policy`]: the trust policy put in force and replaced; revocations taken up
//! - [`apply`], [`rollback`]: begin a transaction and drive it
//! - [`evidence`]: what runs here now, signed for others
//! - [`export`]: the journal's records for somebody else's log
//! - [`errand`]: the same because a controller of the fleet says when
//! - [`hold`]: nothing of that for a while, because an operator says so
//! - [`resume`]: finish or undo what the journal holds, then make the host agree with the baseline
//! - [`standing`]: how the host stands to the baseline
//! - `images`: what containers were made from
//! - [`status`], [`story`]: what is, and what was
//! - [`whole_kernel`]: which kernels there are, and whether another one can take over
//! - [`removal`]: whether the host can do without this program
//! - [`repository`]: manifests and payloads by name, and what is new
//! - [`reports`]: what they came to, as a program reads it
//! - [`collect`]: remove what nobody needs any more
//!
//! An [`Engine`] owns a [`Host`] and the journal. Operations that change the host hold the host lock.

pub mod along;
pub mod apply;
pub mod carried;
pub mod collect;
pub mod errand;
pub mod evidence;
pub mod export;
pub mod exposure;
pub mod health;
pub mod hold;
pub mod host;
mod host_packages;
mod images;
pub mod inspection;
pub mod policy;
pub mod publication;
pub mod removal;
pub mod reports;
pub mod repository;
pub mod resume;
pub mod rollback;
pub mod standing;
pub mod status;
pub mod story;
pub mod survey;
pub mod trust;
pub mod whole_kernel;

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use manifests::{HostKernel, TrustFloor};
use nix::sys::stat::{Mode, umask};
use system::boot::BootError;
use system::command::HeldLock;
use system::lock::{HostLock, LockError, Turn};
use workloads::files::rootfs::RootfsError;
use workloads::images::ImageArchiveError;
use workloads::lifecycle::error::RuntimeError;
use workloads::model::{Container, Listing};
use workloads::packages::PackageError;
use workloads::probes::ProbeError;
use workloads::processes::LookError;
use workloads::services::ServiceError;

use crate::config::Config;
use crate::kernel::error::KernelError;
use crate::kernel::livepatch::LoadedPatch;
use crate::kernel::survival::Trial;
use crate::operations::host::{Adapters, Host};
use crate::operations::story::GivenUp;
use crate::operations::trust::TrustError;
use crate::plan::facts::Settings;
use crate::plan::planner::Refusal;
use crate::state::floors::read_floor;
use crate::state::journal::{Journal, JournalError, Stored, TransactionId};
use crate::state::payloads::{Payloads, StoreError};
use crate::state::privacy;
use crate::state::privacy::PrivacyError;
use crate::steps::ownership::OwnershipError;
use crate::steps::{Performer, Told};
use crate::transaction::driver::{Boundaries, DriveError, Driver, Heard, Reached};
use crate::transaction::state::StepIndex;

/// What stands between an operation and its result.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The operation changes the host and the caller is not root.
    #[error("this changes the host and needs root")]
    NotRoot,
    /// The store's directory cannot be made.
    #[error("make and close the store {path}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else could have put something into the store.
    #[error("the store {path} is not root's alone to write")]
    StoreUnsafe {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its type and permissions.
        mode: u32,
    },
    /// Another transaction holds the host, or the lock cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The note on the lock cannot be written.
    #[error("say what this host is held for")]
    Note(#[source] std::io::Error),
    /// The lock cannot be given to what runs for longer.
    #[error("share the lock of this host with what it starts")]
    Share(#[source] std::io::Error),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An earlier transaction is unfinished.
    #[error("transaction {id} is unfinished")]
    Unfinished {
        /// Which.
        id: TransactionId,
    },
    /// The manifest is not to be acted upon, or the policy cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The key of this host's evidence cannot be had.
    #[error(transparent)]
    EvidenceKey(#[from] evidence::EvidenceKeyError),
    /// There is nothing that a VEX document could say.
    #[error("no manifest that is known here names a vulnerability of the kernel")]
    NothingToState,
    /// Records did not get to somebody else's log.
    #[error(transparent)]
    Export(#[from] export::ExportError),
    /// A controller's word is not followed.
    #[error(transparent)]
    Errand(#[from] errand::ErrandError),
    /// This host is held, or a hold cannot be put on.
    #[error(transparent)]
    Hold(#[from] hold::HoldError),
    /// A policy was accepted and its file cannot be written.
    #[error("cannot write the policy {path}")]
    PolicyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The host does not meet the preconditions.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The fixes of this host would take more than its settings allow.
    #[error("the payloads of this manifest do not fit into fix_quota_mib")]
    OverQuota {
        /// What may be taken, in bytes.
        limit: u64,
        /// What payloads and layers take now, in bytes.
        taken: u64,
        /// What would come, in bytes.
        to_come: u64,
    },
    /// A payload is missing or not the one that was signed.
    #[error(transparent)]
    Payload(#[from] StoreError),
    /// A payload is authentic but cannot be read as what it should be.
    #[error("livepatch {module} cannot be read")]
    Module {
        /// Its name in the manifest.
        module: String,
        /// Where and why.
        source: patch_tools::module::ParseError,
    },
    /// A payload is authentic and not the image that it should be.
    #[error("payload {file} is not the image that the manifest means")]
    Image {
        /// Its name in the manifest.
        file: String,
        /// What is wrong with it.
        source: Box<ImageArchiveError>,
    },
    /// The kernel cannot be asked.
    #[error("look at the kernel")]
    Host(#[from] KernelError),
    /// The running boot cannot be told.
    #[error("look at the kernel")]
    Boot(#[from] BootError),
    /// The kernel cannot be asked about a module.
    #[error("look at the kernel")]
    Preflight(#[from] patch_tools::check::GatherError),
    /// It cannot be told whose a loaded module is.
    #[error("look at the loaded modules")]
    Ownership(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The containers cannot be asked.
    #[error("look at the containers")]
    Runtime(#[from] RuntimeError),
    /// The package manager cannot be asked, or somebody else has it.
    #[error("look at the packages of this host")]
    Packages(#[from] PackageError),
    /// The service manager cannot be asked.
    #[error("look at the services of this host")]
    Services(#[from] ServiceError),
    /// Processes were not looked at to the end.
    #[error("look at the processes of this host")]
    Processes(#[from] LookError),
    /// A root file system cannot be looked at.
    #[error("look at the root file systems")]
    Rootfs(#[from] RootfsError),
    /// Probes cannot be prepared.
    #[error("prepare the probes")]
    Probe(#[from] ProbeError),
    /// The transaction stopped between two steps and stays open.
    #[error("transaction {id} stopped half-way")]
    Stopped {
        /// Which.
        id: TransactionId,
        /// Why.
        source: DriveError,
    },
    /// A resume could not go on.
    #[error("the resume did not come to its end")]
    ResumeStopped {
        /// What it had done before.
        done: Vec<String>,
        /// What is still half-way.
        open: StillOpen,
        /// Why it could not go on.
        source: Box<EngineError>,
    },
    /// There is no committed transaction to roll back.
    #[error("{0}")]
    NothingToRollBack(String),
    /// A system call about the host itself failed.
    #[error("ask the kernel who it is")]
    Uname(#[from] nix::Error),
    /// A name that the kernel or the configuration gave is not usable.
    #[error("{what} {found:?} is not usable")]
    Unusable {
        /// What.
        what: &'static str,
        /// The text.
        found: String,
    },
}

impl From<OwnershipError> for EngineError {
    fn from(error: OwnershipError) -> Self {
        match error {
            OwnershipError::Kernel(error) => Self::Host(error),
            other => Self::Ownership(other.into()),
        }
    }
}

impl From<PrivacyError> for EngineError {
    fn from(error: PrivacyError) -> Self {
        match error {
            PrivacyError::Foreign { path, owner, mode } => Self::StoreUnsafe { path, owner, mode },
            PrivacyError::Io { path, source } => Self::Store { path, source },
        }
    }
}

/// What a resume that stopped leaves half-way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StillOpen {
    /// These transactions; none if the list is empty.
    These(Vec<TransactionId>),
    /// The journal does not tell.
    Unknown,
}

/// How an operation that drove a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driven {
    /// The transaction.
    pub id: TransactionId,
    /// How far it came.
    pub reached: Reached,
    /// Containers that went back alone.
    pub given_up: Vec<GivenUp>,
    /// For everything but a plain success: the first error that was recorded, with the step that had it.
    pub first_error: Option<(StepIndex, String)>,
}

/// Who listens to a transaction.
#[derive(Clone, Copy)]
pub struct Listeners<'a> {
    /// Hears every recorded event.
    pub event: &'a (dyn Fn(&Heard<'_>) + Sync),
    /// Hears what happens inside a step.
    pub told: &'a (dyn Fn(&Told<'_>) + Sync),
    /// Sees every boundary.
    pub boundaries: &'a dyn Boundaries,
}

/// Operations on one host.
pub struct Engine {
    config: Config,
    journal: Mutex<Journal>,
    payloads: Payloads,
    host: Host,
}

/// What one operation acts through.
struct Session {
    adapters: Adapters,
    /// Held for as long as the session lasts; `None` for looking only.
    lock: Option<HostLock>,
}

impl Session {
    /// Say what the host is held for.
    fn say(&mut self, purpose: &impl std::fmt::Display) -> Result<(), EngineError> {
        let Some(lock) = &mut self.lock else { return Ok(()) };
        lock.say(&purpose.to_string()).map_err(EngineError::Note)
    }

    /// The running containers; none on a host without the runtime.
    fn running(&self) -> Result<Vec<Container>, EngineError> {
        let listing = match self.adapters.lifecycle.list() {
            Err(error) if error.is_absence() => Listing::default(),
            listing => listing?,
        };
        let running = listing.containers.into_iter().filter(|container| container.status.has_processes());
        Ok(running.collect())
    }

    /// The livepatches that the kernel has, whoever loaded them; none where it can have none.
    fn loaded(&self) -> Result<Vec<LoadedPatch>, EngineError> {
        match self.adapters.livepatch.loaded() {
            Err(KernelError::NoLivepatch { .. }) => Ok(Vec::new()),
            loaded => Ok(loaded?),
        }
    }
}

impl Engine {
    /// Open the host's store and adapters, as root.
    ///
    /// # Errors
    /// [`EngineError::NotRoot`], [`EngineError::Store`], [`EngineError::Journal`], [`EngineError::Host`].
    pub fn open(config: Config) -> Result<Self, EngineError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(EngineError::NotRoot);
        }
        for directory in [config.store.clone(), config.checkpoints()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|source| EngineError::Store { path: directory.clone(), source })?;
            expect_only_root_writes(&directory)?;
        }
        // Containers are started from here: what they may do to their files must not depend on who
        // runs this program.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        let host = Host::running(&config)?;
        let engine = Self::with(config, host)?;
        privacy::close(&engine.config.store, &engine.config.checkpoints())?;
        Ok(engine)
    }

    /// The engine of this host, whose store is there.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn with(config: Config, host: Host) -> Result<Self, EngineError> {
        let journal = Mutex::new(Journal::open(&config.store)?);
        Ok(Self { payloads: Payloads::new(&config.store), journal, config, host })
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The running kernel.
    pub fn kernel(&self) -> &HostKernel {
        &self.host.kernel
    }

    /// The running boot, and the start of userspace in it.
    pub fn incarnation(&self) -> &system::boot::Incarnation {
        &self.host.incarnation
    }

    /// What this host has accepted.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn floor(&self) -> Result<TrustFloor, EngineError> {
        Ok(read_floor(&self.journal())?)
    }

    /// The journal.
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows an operation and cannot change its result.
    fn afterwards(&self) {
        if let Err(error) = self.collect_holding_the_host() {
            tracing::warn!(%error, "old files were not collected");
        }
        match self.trial() {
            Ok(Trial::Runs) => self.watch(Trial::Runs),
            Ok(Trial::Over) => {}
            Err(error) => tracing::warn!(%error, "the crash guard cannot be read"),
        }
    }

    /// Whether a livepatch of this boot is on trial.
    fn trial(&self) -> Result<Trial, EngineError> {
        let on_trial = self.guards().on_trial(&self.host.incarnation.boot_id)?;
        Ok(if on_trial.is_empty() { Trial::Over } else { Trial::Runs })
    }

    fn watch(&self, trial: Trial) {
        if let Err(error) = (self.host.watch)(trial) {
            let consequence = match trial {
                Trial::Runs => "nobody will note that this host survives its livepatches",
                Trial::Over => "somebody goes on looking whether this host survives its livepatches",
            };
            tracing::warn!(%error, consequence);
        }
    }

    fn settings(&self) -> Settings {
        Settings { crash_guard: self.config.crash_guard, store: self.config.store.clone() }
    }

    /// Session for looking.
    fn look(&self) -> Result<Session, EngineError> {
        Ok(Session { adapters: (self.host.connect)(None)?, lock: None })
    }

    /// Hold the host, or say who does; a session for changing it.
    fn lock(&self, purpose: &str, turn: Turn<'_>) -> Result<Session, EngineError> {
        let lock = HostLock::take(&self.config.store, purpose, turn, &*self.host.clock)?;
        let shared = HeldLock::share(lock.shared_with_children())
            .map_err(|source| LockError::Unusable { path: self.config.store.join("lock"), source })?;
        Ok(Session { adapters: (self.host.connect)(Some(shared))?, lock: Some(lock) })
    }

    /// Nothing new begins while something old is half-way.
    fn expect_finished(&self) -> Result<(), EngineError> {
        match self.journal().unfinished()?.into_iter().next() {
            None => Ok(()),
            Some(stored) => Err(EngineError::Unfinished { id: stored.id }),
        }
    }

    fn performer<'a>(&'a self, session: &'a Session, listeners: &Listeners<'a>) -> Performer<'a> {
        Performer {
            livepatch: &*session.adapters.livepatch,
            freezer: &*self.host.freezer,
            leases: &self.host.leases,
            lifecycle: &*session.adapters.lifecycle,
            checkpointer: &*session.adapters.checkpointer,
            recreator: &*session.adapters.recreator,
            mounts: &*self.host.mounts,
            hold: &*self.host.hold,
            limits: &*self.host.limits,
            observer: &*self.host.observer,
            everywhere: &*self.host.everywhere,
            packages: &*self.host.packages,
            services: &*self.host.services,
            prober: &*session.adapters.prober,
            layers: &*self.host.layers,
            payloads: &self.payloads,
            journal: &self.journal,
            clock: &*self.host.clock,
            incarnation: &self.host.incarnation,
            checkpoints: self.config.checkpoints(),
            unfit_medium: Box::new(|| self.unfit_medium()),
            stop_patience: self.config.stop_patience,
            crash_guard: self.config.crash_guard,
            tell: listeners.told,
            interrupt: listeners.boundaries,
        }
    }

    /// Drive a transaction that was just begun, or take up one that was interrupted.
    fn drive(
        &self,
        session: &Session,
        stored: Stored,
        how: Drive,
        listeners: &Listeners<'_>,
    ) -> Result<Driven, EngineError> {
        let id = stored.id.clone();
        let performer = self.performer(session, listeners);
        let driver = Driver {
            journal: &self.journal,
            hands: &performer,
            boundaries: listeners.boundaries,
            clock: &*self.host.clock,
            incarnation: &self.host.incarnation,
            listener: listeners.event,
        };
        let reached = match how {
            Drive::Begin => driver.run(stored),
            Drive::Resume => driver.resume(stored),
        }
        .map_err(|source| EngineError::Stopped { id: id.clone(), source })?;
        let stored = self
            .journal()
            .transaction(id.as_str())
            .map_err(|source| EngineError::Stopped { id: id.clone(), source: source.into() })?;
        Ok(Driven { id, reached, given_up: stored.given_up(), first_error: stored.first_error() })
    }
}

/// What lies in the store is loaded into the kernel: nobody but root may have put it there.
fn expect_only_root_writes(store: &Path) -> Result<(), EngineError> {
    let found = std::fs::symlink_metadata(store)
        .map_err(|source| EngineError::Store { path: store.to_owned(), source })?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(EngineError::StoreUnsafe { path: store.to_owned(), owner: found.uid(), mode: found.mode() })
}

#[derive(Debug, Clone, Copy)]
enum Drive {
    Begin,
    Resume,
}

#[cfg(test)]
pub(crate) mod tests;
