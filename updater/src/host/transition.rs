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
//! - It returns `Ok` only after the kernel has reported the state asked for as settled.
//! - It never forces. Loading and unloading belong to [`super::patching`].

use std::collections::BTreeMap;
use std::time::Duration;

use manifests::ModuleName;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::cgroup::{CgroupOwner, CgroupPath};
use super::clock::{Backoff, Clock, millis};
use super::error::HostError;
use super::freezer::{FreezeState, Freezer, LeaseStore, hold};
use super::livepatch::{Blocker, Enabled, Livepatch, PatchState, TaskState};

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
/// The state is one small file; asking for it this often costs nothing measurable, and a transition
/// that ends is seen at most this late.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Looking for blockers reads a file per task of the host, so it is done less often.
const LOOK_AGAIN: Duration = Duration::from_millis(700);
/// How long a group may stand still: stopping takes milliseconds for tasks that can be stopped.
const HOLD: Duration = Duration::from_secs(2);
/// Between two freezes of one group; longer than the kernel's retry, growing to the ceiling.
const FREEZE_AGAIN: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(10));

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
        source: HostError,
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

/// Watches `module` until it has settled in `to`.
///
/// The transition must have been started already, by loading the module or by
/// [`Livepatch::set_enabled`]; a transition that has ended is a success at once. A disabled
/// livepatch disappears, so [`PatchState::Absent`] counts as disabled.
///
/// # Errors
/// [`TransitionError::Reversed`] when the old state is back, [`TransitionError::Stuck`] when neither
/// state could be reached, [`TransitionError::Overruled`], [`TransitionError::Host`].
pub fn watch(
    watcher: Watcher<'_>,
    module: &ModuleName,
    to: Enabled,
    policy: &Policy,
    on_event: &mut dyn FnMut(TransitionEvent),
) -> Result<TransitionReport, TransitionError> {
    let mut watch = Watch {
        watcher,
        module,
        policy,
        on_event,
        begun: watcher.clock.elapsed(),
        seen: BTreeMap::new(),
        freezes: Vec::new(),
    };
    match watch.follow(to, policy.deadline)? {
        Followed::Settled => Ok(watch.report(to)),
        Followed::OutOfTime(blockers) => match policy.on_deadline {
            OnDeadline::Leave => Err(watch.stuck(to, blockers)),
            OnDeadline::Reverse => watch.reverse(to, blockers),
        },
    }
}

struct Watch<'a, 'e> {
    watcher: Watcher<'a>,
    module: &'a ModuleName,
    policy: &'a Policy,
    on_event: &'e mut dyn FnMut(TransitionEvent),
    begun: Duration,
    /// By thread id, as first seen.
    seen: BTreeMap<i32, Blocker>,
    freezes: Vec<Freeze>,
}

enum Followed {
    Settled,
    OutOfTime(Vec<Blocker>),
}

/// What one watch remembers about a group with blockers.
struct Group {
    next_freeze: Duration,
    backoff: Backoff,
    told: Option<LeftAlone>,
}

impl Watch<'_, '_> {
    /// Follows the transition towards `to` for at most `limit`.
    fn follow(&mut self, to: Enabled, limit: Duration) -> Result<Followed, TransitionError> {
        let begun = self.watcher.clock.elapsed();
        let mut poll = Backoff::new(POLL.0, POLL.1);
        let mut next_look = begun + self.policy.patience;
        let mut groups = BTreeMap::new();
        let mut told = Vec::new();
        loop {
            let state = self.host(self.watcher.livepatch.state(self.module))?;
            match (state, to) {
                (PatchState::Settled(now), _) if now == to => return Ok(Followed::Settled),
                (PatchState::Absent, Enabled::Disabled) => return Ok(Followed::Settled),
                (PatchState::InTransition(now), _) if now == to => {}
                (found, _) => {
                    return Err(TransitionError::Overruled { module: self.module.clone(), to, found });
                }
            }
            let now = self.watcher.clock.elapsed();
            if now - begun >= limit {
                return Ok(Followed::OutOfTime(self.look()?));
            }
            if now >= next_look {
                let blockers = self.look()?;
                let names: Vec<i32> = blockers.iter().map(|blocker| blocker.tid).collect();
                if !blockers.is_empty() && names != told {
                    self.tell(|after| TransitionEvent::Blocked { after, blockers: blockers.clone() });
                    told = names;
                }
                self.unblock(&blockers, &mut groups);
                next_look = self.watcher.clock.elapsed() + LOOK_AGAIN;
                continue;
            }
            self.watcher.clock.sleep(poll.step().min(begun + limit - now));
        }
    }

    /// Who holds it back now.
    fn look(&mut self) -> Result<Vec<Blocker>, TransitionError> {
        let mut blockers = self.host(self.watcher.livepatch.blockers())?;
        blockers.sort_by_key(|blocker| (blocker.pid, blocker.tid));
        for blocker in &blockers {
            self.seen.entry(blocker.tid).or_insert_with(|| blocker.clone());
        }
        Ok(blockers)
    }

    /// Freezes and thaws each group that holds movable blockers and is due.
    fn unblock(&mut self, blockers: &[Blocker], groups: &mut BTreeMap<Option<CgroupPath>, Group>) {
        let mut by_group: BTreeMap<Option<&CgroupPath>, Vec<&Blocker>> = BTreeMap::new();
        for blocker in blockers {
            by_group.entry(blocker.cgroup.as_ref()).or_default().push(blocker);
        }
        for (cgroup, members) in by_group {
            let group = groups.entry(cgroup.cloned()).or_insert_with(|| Group {
                next_freeze: Duration::ZERO,
                backoff: Backoff::new(FREEZE_AGAIN.0, FREEZE_AGAIN.1),
                told: None,
            });
            if self.watcher.clock.elapsed() < group.next_freeze {
                continue;
            }
            let owner = &members[0].owner;
            let outcome = match cgroup.filter(|_| self.policy.unblock.admits(owner)) {
                None => Err(LeftAlone::NotAdmitted),
                Some(_) if !members.iter().any(|member| is_movable(member.task)) => {
                    Err(LeftAlone::Uninterruptible)
                }
                Some(cgroup) => self.freeze(cgroup, owner),
            };
            match outcome {
                Ok(freeze) => {
                    group.next_freeze = self.watcher.clock.elapsed() + group.backoff.step();
                    group.told = None;
                    self.freezes.push(freeze.clone());
                    self.tell(|after| TransitionEvent::Unblocked { after, freeze });
                }
                Err(why) if group.told.as_ref() == Some(&why) => {}
                Err(why) => {
                    group.told = Some(why.clone());
                    self.tell(|after| TransitionEvent::LeftAlone {
                        after,
                        cgroup: cgroup.cloned(),
                        owner: owner.clone(),
                        why,
                    });
                }
            }
        }
    }

    /// One freeze and thaw.
    fn freeze(&self, cgroup: &CgroupPath, owner: &CgroupOwner) -> Result<Freeze, LeftAlone> {
        let Watcher { freezer, leases, clock, .. } = self.watcher;
        let failed = |error: HostError| LeftAlone::Failed(error.with_causes());
        let begun = clock.elapsed();
        let held = hold(cgroup, freezer, leases).map_err(failed)?.ok_or(LeftAlone::FrozenByOthers)?;
        let reached = held.wait_frozen(clock, HOLD);
        held.thaw().map_err(failed)?;
        Ok(Freeze {
            cgroup: cgroup.clone(),
            owner: owner.clone(),
            held: clock.elapsed() - begun,
            reached: reached.map_err(failed)?,
        })
    }

    /// Turns the transition back. `Ok` only if it ended after all while this began.
    fn reverse(mut self, to: Enabled, blockers: Vec<Blocker>) -> Result<TransitionReport, TransitionError> {
        let waited = self.since_begun();
        self.tell(|after| TransitionEvent::Reversing { after });
        let back = to.opposite();
        match self.watcher.livepatch.set_enabled(self.module, back) {
            Ok(()) => {}
            // Disabling ended between the last look and now, and took the livepatch away.
            Err(HostError::NoSuchPatch { .. }) if to == Enabled::Disabled => return Ok(self.report(to)),
            // Somebody else turned it back first; following tells how far that is.
            Err(HostError::NothingToChange { .. } | HostError::NoSuchPatch { .. }) => {}
            Err(source) => return Err(TransitionError::Host { module: self.module.clone(), source }),
        }
        let begun = self.watcher.clock.elapsed();
        match self.follow(back, self.policy.reversal)? {
            Followed::Settled => Err(TransitionError::Reversed {
                module: self.module.clone(),
                waited,
                reversed_in: self.watcher.clock.elapsed() - begun,
                blockers,
            }),
            Followed::OutOfTime(blockers) => Err(self.stuck(back, blockers)),
        }
    }

    fn stuck(&self, to: Enabled, blockers: Vec<Blocker>) -> TransitionError {
        TransitionError::Stuck { module: self.module.clone(), to, waited: self.since_begun(), blockers }
    }

    fn report(self, to: Enabled) -> TransitionReport {
        TransitionReport {
            module: self.module.clone(),
            to,
            took: self.since_begun(),
            blockers: self.seen.into_values().collect(),
            freezes: self.freezes,
        }
    }

    fn tell(&mut self, event: impl FnOnce(Duration) -> TransitionEvent) {
        let after = self.since_begun();
        (self.on_event)(event(after));
    }

    fn since_begun(&self) -> Duration {
        self.watcher.clock.elapsed() - self.begun
    }

    fn host<T>(&self, result: Result<T, HostError>) -> Result<T, TransitionError> {
        result.map_err(|source| TransitionError::Host { module: self.module.clone(), source })
    }
}

/// Whether a freeze makes a task in this state pass the border of user space.
fn is_movable(task: TaskState) -> bool {
    match task {
        TaskState::Running | TaskState::Sleeping | TaskState::Stopped => true,
        TaskState::Uninterruptible | TaskState::Idle | TaskState::Dead => false,
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
