//! The host: the running kernel and its clocks, behind narrow traits.
//!
//! | module | what |
//! |---|---|
//! | [`livepatch`] | [`Livepatch`]: the trait, and the words for patches and blockers |
//! | [`sysfs`] | [`Sysfs`], its implementation over sysfs, procfs and two system calls |
//! | [`tasks`] | which tasks hold a transition back, from procfs |
//! | [`kmsg`] | the kernel's own words about a refusal |
//! | [`transition`] | [`watch`]: follow a transition, unblock it, turn it back in time |
//! | [`patching`] | load and enable, disable and unload, each to its end |
//! | [`freezer`] | [`Freezer`]: stop a container for a moment, and never forget to thaw it |
//! | [`cgroup`] | control group paths, and whose they are |
//! | [`preflight`] | would a livepatch load here, and does it do what its manifest says |
//! | [`guard`] | whether a livepatch that may have crashed the host is loaded again |
//! | [`survival`] | have systemd look whether the host lives on after a load |
//! | [`clock`], [`boot`] | time, and which boot this is |
//! | [`error`] | what can go wrong here |
//!
//! Nothing here decides what is to be done: plans are made in `plan`, kept in `transaction`. The
//! traits have a simulated machine in `fake` for tests, which check the state that it ends in.

pub mod boot;
pub mod cgroup;
pub mod clock;
pub mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod freezer;
pub mod guard;
mod kmsg;
pub mod livepatch;
pub mod patching;
pub mod preflight;
pub mod survival;
pub mod sysfs;
mod tasks;
pub mod transition;

pub use boot::{BootId, boot_id, uptime};
pub use cgroup::{CgroupOwner, CgroupPath, KnownContainer, Owners};
pub use clock::{Clock, Interrupt, SystemClock, Uninterrupted};
pub use error::{HostError, LoadRefusal, UnloadRefusal};
pub use freezer::{CgroupFreezer, FreezeLease, FreezeState, Freezer, LeaseStore};
pub use kmsg::KernelWords;
pub use livepatch::{
    Blocker, Enabled, ForceTransition, Livepatch, LoadedFunction, LoadedObject, LoadedPatch, ModuleIdentity,
    PatchState, TaskKind, TaskState,
};
pub use sysfs::Sysfs;
pub use transition::{
    OnDeadline, Policy, TransitionError, TransitionEvent, TransitionReport, Unblock, Watcher, watch,
};
