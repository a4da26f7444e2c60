//! Watches a livepatch transition to its end, helps it along, and turns it back in time.
//!
//! The kernel's own time-line (`kernel/livepatch/transition.c`, Linux 6.1): it tries every task when
//! a transition begins, retries about once a second, and after 15 s sends each remaining task a
//! fake signal. A sleeper inside a patched function therefore takes more than 15 s. The watch looks
//! sooner: when nothing has happened for [`Policy::patience`] it names the blockers, freezes the
//! control group of those that a freeze can move, thaws it as soon as they stopped, and lets the
//! kernel's next retry finish.
//!
//! Invariants:
//! - Only groups whose owner the policy admits are frozen, never [`CgroupOwner::Protected`] ones,
//!   and none for a blocker in uninterruptible sleep: it would not move, and its container would
//!   stand still for nothing.
//! - What was frozen is thawed on every path out ([`super::freezer::Held`]).
//! - Somebody who asks to stop is heard within [`HOLD`](watch::HOLD): the watch ends and leaves the
//!   transition to the undo. Turning back is never interrupted.
//! - It returns `Ok` only after the kernel has reported the state asked for as settled.
//! - A process is killed only if the manifest permits it for its container, and only if it has been stuck for
//!   longer than the kernel's own means take ([`Stuck`]).
//! - It never forces. Loading and unloading belong to [`super::patching`].

mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use manifests::{ContainerId, ModuleName};
use serde::{Deserialize, Serialize};
use system::clock::{Clock, Interrupt, Uninterrupted, millis};
use thiserror::Error;
use workloads::limits::freezer::{FreezeState, Freezer, LeaseStore};
use workloads::model::{CgroupOwner, CgroupPath};

use crate::kernel::error::KernelError;
use crate::kernel::livepatch::{Blocker, Enabled, Livepatch, PatchState};

pub use watch::watch;

/// What a watch acts through.
#[derive(Clone, Copy)]
pub struct Watcher<'a> {
    /// The kernel.
    pub livepatch: &'a dyn Livepatch,
    /// Stops containers for a moment.
    pub freezer: &'a dyn Freezer,
    /// Remembers what is stopped.
    pub leases: &'a LeaseStore,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// May end a wait before its time.
    pub interrupt: &'a dyn Interrupt,
}

impl Watcher<'_> {
    /// The same, for a way back: it is walked to its end.
    #[must_use]
    pub fn uninterrupted(self) -> Self {
        Self { interrupt: &Uninterrupted, ..self }
    }
}

/// How a watch behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Past this time the transition is turned back (or left, see [`OnDeadline`]).
    pub deadline: Duration,
    /// How long turning back may take before an operator is needed.
    pub reversal: Duration,
    /// How long nothing may happen before blockers are looked for.
    pub patience: Duration,
    /// Whose groups may be frozen.
    pub unblock: Unblock,
    /// What may be done to tasks that nothing else moves.
    pub stuck: Stuck,
    /// What happens past the deadline.
    pub on_deadline: OnDeadline,
}

impl Policy {
    /// The usual behaviour with this deadline: containers may be frozen, and past the deadline the
    /// transition is turned back.
    #[must_use]
    pub fn with_deadline(deadline: Duration) -> Self {
        Self {
            deadline,
            reversal: REVERSAL,
            patience: PATIENCE,
            unblock: Unblock::Containers,
            stuck: Stuck::LeaveAlone,
            on_deadline: OnDeadline::Reverse,
        }
    }

    /// For taking back what failed under `policy`: as long as a reversal may take, and there is
    /// nowhere to turn back to.
    #[must_use]
    pub fn undoing(policy: &Self) -> Self {
        Self { deadline: policy.reversal, on_deadline: OnDeadline::Leave, ..policy.clone() }
    }
}

/// Whose control groups may be frozen to move a blocker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unblock {
    /// Nobody's: the kernel's fake signal has to do.
    Never,
    /// Containers'.
    Containers,
    /// Containers' and those of systemd services.
    ContainersAndServices,
}

impl Unblock {
    fn admits(self, owner: &CgroupOwner) -> bool {
        match owner {
            CgroupOwner::Container(_) => self != Self::Never,
            CgroupOwner::Service(_) => self == Self::ContainersAndServices,
            CgroupOwner::Protected | CgroupOwner::Unknown => false,
        }
    }
}

/// What may be done to a task in uninterruptible sleep inside a patched function, which neither a signal nor a
/// freeze moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing: past the deadline, the transition is turned back.
    LeaveAlone,
    /// Its process may be killed if it belongs to one of these containers: the manifest says so. It is lost; a way
    /// back does not bring it again.
    Kill(BTreeSet<ContainerId>),
}

impl Stuck {
    fn may_kill(&self, owner: &CgroupOwner) -> bool {
        match (self, owner) {
            (Self::Kill(permitted), CgroupOwner::Container(id)) => permitted.contains(id),
            _ => false,
        }
    }
}

/// What happens to a transition that has not ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeadline {
    /// It is turned back to where it came from.
    Reverse,
    /// It is left in transition: for a rollback, which has nowhere better to go.
    Leave,
}

/// Enough for the kernel's fake signal (15 s) to move what holds the way back, and some retries.
const REVERSAL: Duration = Duration::from_secs(30);
/// Shorter than the kernel's retry (1 s), so that blockers are named within a second.
const PATIENCE: Duration = Duration::from_millis(300);
/// Something worth telling while a transition runs. Times count from the start of the watch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum TransitionEvent {
    /// These tasks hold it back; told again when others do.
    Blocked {
        /// When.
        #[serde(with = "millis")]
        after: Duration,
        /// All of them.
        blockers: Vec<Blocker>,
    },
    /// A group was frozen and thawed.
    Unblocked {
        /// When it was thawed.
        #[serde(with = "millis")]
        after: Duration,
        /// What was done.
        freeze: Freeze,
    },
    /// A blocker was stuck for good, and its process was killed, as the manifest permits.
    Killed {
        /// When.
        #[serde(with = "millis")]
        after: Duration,
        /// Which.
        blocker: Blocker,
    },
    /// A group holds blockers, and is not frozen.
    LeftAlone {
        /// When.
        #[serde(with = "millis")]
        after: Duration,
        /// The group, if the tasks have one.
        cgroup: Option<CgroupPath>,
        /// Whose it is.
        owner: CgroupOwner,
        /// Why not.
        why: LeftAlone,
    },
    /// The deadline passed; the transition is being turned back.
    Reversing {
        /// When.
        #[serde(with = "millis")]
        after: Duration,
    },
}

/// Why a group with blockers is not frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Error)]
#[serde(rename_all = "kebab-case", tag = "why", content = "message")]
pub enum LeftAlone {
    /// The policy does not admit its owner.
    #[error("it is not a group that may be frozen")]
    NotAdmitted,
    /// Kernel threads have no user space to be taken to.
    #[error("the kernel moves its own threads by itself")]
    KernelThreads,
    /// All its blockers are in uninterruptible sleep.
    #[error("its tasks are in uninterruptible sleep, which a freeze does not end")]
    Uninterruptible,
    /// Somebody else froze it.
    #[error("somebody else has frozen it")]
    FrozenByOthers,
    /// The freeze failed.
    #[error("it cannot be frozen: {0}")]
    Failed(String),
}

/// One freeze and thaw of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// The group.
    pub cgroup: CgroupPath,
    /// Whose it is.
    pub owner: CgroupOwner,
    /// How long it stood still.
    #[serde(with = "millis")]
    pub held: Duration,
    /// How far it got; other than [`FreezeState::Frozen`], some task could not be stopped.
    pub reached: FreezeState,
}

/// A transition that ended where it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionReport {
    /// The livepatch.
    pub module: ModuleName,
    /// Where it is now.
    pub to: Enabled,
    /// How long the watch took.
    #[serde(with = "millis")]
    pub took: Duration,
    /// Every task that was ever seen to hold it back.
    pub blockers: Vec<Blocker>,
    /// Every freeze.
    pub freezes: Vec<Freeze>,
    /// Every blocker whose process was killed.
    #[serde(default)]
    pub killed: Vec<Blocker>,
}

/// A transition that did not.
#[derive(Debug, Error)]
pub enum TransitionError {
    /// It was turned back: the livepatch is where it was before.
    #[error(
        "{module} was still in transition after {waited:.1?} and was turned back in {reversed_in:.1?}; held back by {}",
        list(blockers)
    )]
    Reversed {
        /// The livepatch.
        module: ModuleName,
        /// How long it was given.
        waited: Duration,
        /// How long turning back took.
        reversed_in: Duration,
        /// Who held it back at the deadline.
        blockers: Vec<Blocker>,
    },
    /// It is still in transition, and nothing here moves it.
    #[error(
        "{module} is still in transition towards {to:?} after {waited:.1?}; held back by {}",
        list(blockers)
    )]
    Stuck {
        /// The livepatch.
        module: ModuleName,
        /// The direction it is moving in.
        to: Enabled,
        /// How long was waited in all.
        waited: Duration,
        /// Who holds it back.
        blockers: Vec<Blocker>,
    },
    /// It was to be waited for no longer. The livepatch is in transition, and nothing is frozen.
    #[error("{module} was in transition for {waited:.1?} when the operator asked to stop")]
    Interrupted {
        /// The livepatch.
        module: ModuleName,
        /// How long it had been waited for.
        waited: Duration,
    },
    /// Somebody else changed the livepatch meanwhile.
    #[error("{module} was to become {to:?}, but somebody else changed it: the kernel shows it as {found:?}")]
    Overruled {
        /// The livepatch.
        module: ModuleName,
        /// Where it should have gone.
        to: Enabled,
        /// Where it is.
        found: PatchState,
    },
    /// The kernel could not be asked.
    #[error("cannot watch the transition of {module}")]
    Host {
        /// The livepatch.
        module: ModuleName,
        /// The cause.
        source: KernelError,
    },
}

fn list(blockers: &[Blocker]) -> String {
    if blockers.is_empty() {
        return "no task that procfs shows".to_owned();
    }
    let one = |blocker: &Blocker| {
        let function = blocker.held_in.as_deref().or(blocker.stack.first().map(String::as_str));
        format!(
            "{} (task {}, {}{})",
            blocker.comm,
            blocker.tid,
            blocker.owner,
            function.map(|name| format!(", in {name}")).unwrap_or_default()
        )
    };
    blockers.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
