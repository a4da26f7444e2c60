//! The hands of a transaction: each step's action and undo, in terms of the host and runtime traits.
//!
//! - [`livepatch`]: load, wait, remove; `ownership`: whose a loaded module is
//! - [`container`]: pre-dump, hold, checkpoint, switch, start, and how each is taken back
//! - `image`: a container is exchanged for one that was made from another image
//! - `restore`: a container's way back from its checkpoint
//! - [`packages`]: packages of the host, and the services that run on them
//! - [`probe`]: probes and the settle time
//! - `effect`: nobody maps what the fix replaces
//! - [`dossier`]: what a container's checkpoint directory says about it, for the undo and for `update show`
//!
//! An action first looks whether its effect is there already, acts, and looks whether the effect is there now.
//! An undo does the same for the old state; it relies on what is on disk and what the host shows, not on the
//! step's receipt, because a power cut may have kept the receipt from being recorded.

pub mod container;
pub mod dossier;
mod effect;
mod image;
pub mod livepatch;
pub(crate) mod ownership;
pub mod packages;
pub mod probe;
mod restore;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use system::boot::Incarnation;
use system::clock::Clock;
use system::clock::{Interrupt, Uninterrupted};
use workloads::files::{Layers, RootfsMounts};
use workloads::lifecycle::{Checkpointer, Lifecycle, Recreator};
use workloads::limits::Limits;
use workloads::limits::freezer::{Freezer, LeaseStore};
use workloads::network::ConnectionHold;
use workloads::packages::Packages;
use workloads::probes::Prober;
use workloads::processes::{Everywhere, Observer};
use workloads::services::Services;

use crate::kernel::livepatch::Livepatch;
use crate::kernel::transition::TransitionEvent;
use crate::kernel::transition::{Policy, Stuck, Watcher};
use crate::plan::{Action, LoadedPayload, Undo};
use crate::state::crash_guard::GuardBook;
use crate::state::journal::Journal;
use crate::state::payloads::Payloads;
use crate::transaction::driver::{Hands, Place, StepError};

/// What is worth telling while a step runs.
#[derive(Debug)]
pub enum Told<'a> {
    /// A transition is held back, unblocked or reversed.
    Transition(&'a TransitionEvent),
}

/// Does steps and undoes them, through the adapters of the host.
pub struct Performer<'a> {
    /// The kernel's livepatch interface.
    pub livepatch: &'a (dyn Livepatch + Sync),
    /// The cgroup freezer.
    pub freezer: &'a (dyn Freezer + Sync),
    /// Which groups this program has frozen.
    pub leases: &'a LeaseStore,
    /// Starts and stops containers.
    pub lifecycle: &'a (dyn Lifecycle + Sync),
    /// Makes containers anew from other images.
    pub recreator: &'a (dyn Recreator + Sync),
    /// Writes their memory to disk, and brings it back.
    pub checkpointer: &'a (dyn Checkpointer + Sync),
    /// Root file systems.
    pub mounts: &'a (dyn RootfsMounts + Sync),
    /// Connections of checkpointed containers.
    pub hold: &'a (dyn ConnectionHold + Sync),
    /// cgroup knobs.
    pub limits: &'a (dyn Limits + Sync),
    /// What can be seen of containers from outside.
    pub observer: &'a (dyn Observer + Sync),
    /// What can be seen of all processes.
    pub everywhere: &'a (dyn Everywhere + Sync),
    /// The package manager.
    pub packages: &'a (dyn Packages + Sync),
    /// The service manager.
    pub services: &'a (dyn Services + Sync),
    /// Probes.
    pub prober: &'a (dyn Prober + Sync),
    /// Unpacked layers.
    pub layers: &'a (dyn Layers + Sync),
    /// Verified payloads.
    pub payloads: &'a Payloads,
    /// The journal, for the crash guard.
    pub journal: &'a Mutex<Journal>,
    /// Time.
    pub clock: &'a (dyn Clock + Sync),
    /// The running boot, and the start of userspace in it.
    pub incarnation: &'a Incarnation,
    /// Where checkpoints are.
    pub checkpoints: PathBuf,
    /// Why nobody's memory may be written there now, if so: swap space and mounts may be others than when it was planned.
    pub unfit_medium: Box<dyn Fn() -> Option<String> + Sync + 'a>,
    /// How long a container may take to end by SIGTERM.
    pub stop_patience: Duration,
    /// How long a crash is blamed on a livepatch that is loaded again on a way back or at boot.
    pub crash_guard: Duration,
    /// Who is told what happens inside a step.
    pub tell: &'a (dyn Fn(&Told<'_>) + Sync),
    /// Who may end the waits of an action. Undos are not interrupted.
    pub interrupt: &'a (dyn Interrupt + Sync),
}

impl Performer<'_> {
    /// For the way back.
    pub(crate) fn watcher(&self) -> Watcher<'_> {
        Watcher {
            livepatch: self.livepatch,
            freezer: self.freezer,
            leases: self.leases,
            clock: self.clock,
            interrupt: &Uninterrupted,
        }
    }

    /// For the way forward.
    pub(crate) fn forward_watcher(&self) -> Watcher<'_> {
        Watcher { interrupt: self.interrupt, ..self.watcher() }
    }

    pub(crate) fn guards(&self) -> GuardBook<'_> {
        GuardBook::new(self.journal)
    }
}

impl Hands for Performer<'_> {
    fn perform(&self, at: &Place<'_>) -> Result<Value, StepError> {
        match &at.step.action {
            Action::ArmCrashGuard { module, payload, window } => {
                self.arm_crash_guard(module, payload, *window)
            }
            Action::LoadLivepatch { module, payload, .. } => self.load_livepatch(module, payload),
            Action::AwaitTransition { module, deadline, claim, replaced, may_kill } => {
                let mut policy = Policy::with_deadline(*deadline);
                if !may_kill.is_empty() {
                    policy.stuck = Stuck::Kill(may_kill.clone());
                }
                self.await_transition(at, module, &policy, claim, replaced)
            }
            Action::RemoveLivepatch { module, deadline } => {
                let payload = at.step_payload().ok_or_else(|| {
                    StepError::doing(at.step.action.title())("the plan does not say which build it is")
                })?;
                let patch = LoadedPayload { module: module.clone(), payload: *payload };
                self.remove_livepatch(self.forward_watcher(), &patch, *deadline)
            }
            Action::UnpackLayer { layer, format } => self.unpack_layer(layer, *format),
            Action::LoadImage { runtime, image, payload } => self.load_image(runtime, image, payload),
            Action::CreateReplacement { container, from, image, replacement } => {
                self.create_replacement(at, container, from, image, replacement)
            }
            Action::ExchangeContainers { container, replacement } => {
                self.exchange_containers(container, replacement)
            }
            Action::ConfirmImage { container, image } => self.confirm_image(container, image),
            Action::RemoveReplaced { container, aside } => self.remove_replaced(at, container, aside),
            Action::PrepareRootfs { container, layers, fresh } => {
                self.prepare_rootfs(at, container, layers, fresh)
            }
            Action::PreDump { container } => self.pre_dump(at, container),
            Action::HoldConnections { container } => self.prepare_hold(at, container),
            Action::Checkpoint { container } => self.checkpoint(at, container),
            Action::Stop { container } => self.stop(at, container),
            Action::SwitchRootfs { container, to } => self.switch_rootfs(at, container, to),
            Action::Start { container } => self.start(at, container),
            Action::RestoreRetained { container, of } => self.restore_retained(at, container, of),
            Action::ExpectServices { services } => self.expect_services(at, services),
            Action::InstallPackages { packages } => self.install_packages(packages),
            Action::RestartServices { services } => self.restart_services(services),
            Action::ConfirmServices { services, replaced } => self.confirm_services(services, replaced),
            Action::Probe(probe) => self.probe(probe),
            Action::ConfirmEffect { container, replaced } => self.confirm_effect(container, replaced),
            Action::Settle { container, watch, probes } => {
                self.settle(at, container.as_ref(), *watch, probes)
            }
            // The driver makes the commit true together with its record.
            Action::Commit => Ok(Value::Null),
            Action::ReleaseConnections { container } => self.release_connections(at, container),
        }
    }

    fn undo(&self, at: &Place<'_>) -> Result<Value, StepError> {
        match &at.step.undo {
            Undo::Nothing => Ok(Value::Null),
            Undo::DisarmCrashGuard { payload } => self.disarm_crash_guard(payload),
            Undo::UnloadLivepatch { module, deadline, reload } => {
                self.unload_livepatch(at, module, *deadline, reload)
            }
            Undo::ReloadLivepatch { patch, deadline } => self.put_livepatch_back(at, patch, *deadline),
            Undo::DiscardImages { container } => self.discard_images(at, container),
            Undo::LetConnectionsGo { container } => self.let_connections_go(at, container),
            Undo::RestoreCheckpoint { container } => self.restore_checkpoint(at, container),
            Undo::SwitchBack { container, to } => self.switch_back(at, container, to),
            Undo::StopTrial { container } => self.stop_trial(at, container),
            Undo::RemoveReplacement { container, trial } => self.remove_replacement(container, trial),
            Undo::PutReplacedBack { container, image, replacement } => {
                self.put_replaced_back(container, image, replacement)
            }
            Undo::StartAgain { container } => self.start_again(at, container),
            Undo::RestartServices { services } => self.restart_services_again(at, services),
            Undo::ReinstallPackages { packages } => self.reinstall_packages(packages),
            Undo::Impossible { why } => {
                Err(StepError::doing(format!("undo: {}", at.step.action.title()))(why.clone()))
            }
        }
    }
}

/// A receipt out of a report of the host or the runtime.
fn receipt<T: serde::Serialize>(report: &T) -> Value {
    serde_json::to_value(report).unwrap_or_else(|error| Value::String(format!("unprintable report: {error}")))
}
