//! The running kernel, behind narrow traits: livepatches and their transitions.
//!
//! | module | what |
//! |---|---|
//! | [`livepatch`] | [`Livepatch`]: the trait, and the words for patches and blockers |
//! | [`sysfs`] | [`Sysfs`], its implementation over sysfs, procfs and two system calls |
//! | [`tasks`] | which tasks hold a transition back, from procfs |
//! | [`kmsg`] | the kernel's own words about a refusal |
//! | [`transition`] | [`watch`]: follow a transition, unblock it, turn it back in time |
//! | [`patching`] | load and enable, disable and unload, each to its end |
//! | [`preflight`] | would a livepatch load here, and does it do what its manifest says |
//! | [`guard`] | whether a livepatch that may have crashed the host is loaded again |
//! | [`identity`] | which kernel runs: release, build, package |
//! | [`survival`] | have systemd look whether the host lives on after a load |
//! | [`whole`] | another kernel: which are installed, which one boots, kexec |
//! | [`error`] | what can go wrong here |
//!
//! Nothing here decides what is to be done: plans are made in `plan`, kept in `transaction`. The
//! trait has a simulated machine in `simulated` for tests, which check the state that it ends in.

pub mod error;
pub mod guard;
pub mod identity;
pub(crate) mod kmsg;
pub mod livepatch;
pub mod patching;
pub mod preflight;
pub mod survival;
pub mod sysfs;
mod tasks;
pub mod transition;
pub mod whole;

pub use error::{KernelError, LoadRefusal, UnloadRefusal};
pub use kmsg::KernelWords;
pub use livepatch::{
    Blocker, Enabled, Livepatch, LoadedFunction, LoadedObject, LoadedPatch, ModuleIdentity, PatchState,
    TaskKind, TaskState,
};
pub use sysfs::Sysfs;
pub use transition::{
    OnDeadline, Policy, TransitionError, TransitionEvent, TransitionReport, Unblock, Watcher, watch,
};
