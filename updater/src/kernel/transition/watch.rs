//! The watch itself: follow, look, freeze and thaw, turn back.

use std::collections::BTreeMap;
use std::time::Duration;

use manifests::ModuleName;
use system::clock::{Backoff, Uninterrupted};
use system::error::with_causes;
use workloads::limits::FreezeError;
use workloads::limits::freezer::hold;
use workloads::model::{CgroupOwner, CgroupPath};

use crate::kernel::error::KernelError;
use crate::kernel::livepatch::{Blocker, Enabled, PatchState, TaskKind, TaskState};
use crate::kernel::transition::{
    Freeze, LeftAlone, OnDeadline, Policy, TransitionError, TransitionEvent, TransitionReport, Watcher,
};

/// After this long the kernel has looked at every task a second time (it does so every second), so
/// that who has not moved is held back and was not merely running at the first look. A kernel thread
/// is no blocker before that.
const SECOND_LOOK: Duration = Duration::from_millis(1300);
/// The state is one small file; asking for it this often costs nothing measurable, and a transition
/// that ends is seen at most this late.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Looking for blockers reads a file per task of the host, so it is done less often.
const LOOK_AGAIN: Duration = Duration::from_millis(700);
/// How long a group may stand still: stopping takes milliseconds for tasks that can be stopped.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// Between two freezes of one group; longer than the kernel's retry, growing to the ceiling.
const FREEZE_AGAIN: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(10));

/// How long a task is stuck before it counts as stuck for good: twice as long as the kernel waits before it sends
/// its fake signal, which a task that can be woken obeys.
const FOR_GOOD: Duration = Duration::from_secs(30);

/// Watches `module` until it has settled in `to`.
///
/// The transition must have been started already, by loading the module or by
/// [`Livepatch::set_enabled`]; a transition that has ended is a success at once. A disabled
/// livepatch disappears, so [`PatchState::Absent`] counts as disabled.
///
/// # Errors
/// [`TransitionError::Reversed`] when the old state is back, [`TransitionError::Stuck`] when neither
/// state could be reached, [`TransitionError::Interrupted`], [`TransitionError::Overruled`],
/// [`TransitionError::Host`].
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
        stuck_since: BTreeMap::new(),
        freezes: Vec::new(),
        killed: Vec::new(),
    };
    match watch.follow(to, policy.deadline, FirstLook::AtBegin)? {
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
    /// Since when each task is stuck without a break, by thread id and begin.
    stuck_since: BTreeMap<(i32, u64), Duration>,
    freezes: Vec<Freeze>,
    killed: Vec<Blocker>,
}

/// When the kernel looks at every task for the first time.
#[derive(Clone, Copy)]
enum FirstLook {
    /// As the transition begins.
    AtBegin,
    /// At its next regular look: a reversal begins without one (`klp_reverse_transition`).
    Later,
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
    fn follow(
        &mut self,
        to: Enabled,
        limit: Duration,
        first: FirstLook,
    ) -> Result<Followed, TransitionError> {
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
            if self.watcher.interrupt.asked() {
                let module = self.module.clone();
                return Err(TransitionError::Interrupted { module, waited: self.since_begun() });
            }
            let now = self.watcher.clock.elapsed();
            if now - begun >= limit {
                return Ok(Followed::OutOfTime(self.look(now - begun, first)?));
            }
            if now >= next_look {
                let blockers = self.look(now - begun, first)?;
                let names: Vec<i32> = blockers.iter().map(|blocker| blocker.tid).collect();
                if !blockers.is_empty() && names != told {
                    self.tell(|after| TransitionEvent::Blocked { after, blockers: blockers.clone() });
                    told = names;
                }
                self.unblock(&blockers, &mut groups);
                self.end_stuck(&blockers)?;
                next_look = self.watcher.clock.elapsed() + LOOK_AGAIN;
                continue;
            }
            self.watcher.clock.sleep(poll.step().min(begun + limit - now));
        }
    }

    /// Who holds it back `after` its begin.
    fn look(&mut self, after: Duration, first: FirstLook) -> Result<Vec<Blocker>, TransitionError> {
        let mut blockers = self.host(self.watcher.livepatch.blockers())?;
        let was_passed_over = |blocker: &Blocker| match first {
            FirstLook::AtBegin => blocker.kind == TaskKind::User || after >= SECOND_LOOK,
            FirstLook::Later => after >= SECOND_LOOK,
        };
        blockers.retain(|blocker| blocker.held_in.is_some() || was_passed_over(blocker));
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
            let kernel_only = members.iter().all(|member| member.kind == TaskKind::Kernel);
            let outcome = match cgroup.filter(|_| self.policy.unblock.admits(owner)) {
                None if kernel_only => Err(LeftAlone::KernelThreads),
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

    /// Kills what has been stuck for good, where that is permitted, once each.
    fn end_stuck(&mut self, blockers: &[Blocker]) -> Result<(), TransitionError> {
        let now = self.watcher.clock.elapsed();
        let is_stuck = |one: &&Blocker| one.task == TaskState::Uninterruptible && one.kind == TaskKind::User;
        let stuck: Vec<&Blocker> = blockers.iter().filter(is_stuck).collect();
        self.stuck_since.retain(|key, _| stuck.iter().any(|one| (one.tid, one.started) == *key));
        for blocker in stuck {
            let since = *self.stuck_since.entry((blocker.tid, blocker.started)).or_insert(now);
            let held_in_patch = blocker.held_in.is_some();
            let killed_before =
                self.killed.iter().any(|one| (one.tid, one.started) == (blocker.tid, blocker.started));
            if held_in_patch
                && now - since >= FOR_GOOD
                && !killed_before
                && self.policy.stuck.may_kill(&blocker.owner)
            {
                self.host(self.watcher.livepatch.kill_stuck(blocker))?;
                self.killed.push(blocker.clone());
                self.tell(|after| TransitionEvent::Killed { after, blocker: blocker.clone() });
            }
        }
        Ok(())
    }

    /// One freeze and thaw.
    fn freeze(&self, cgroup: &CgroupPath, owner: &CgroupOwner) -> Result<Freeze, LeftAlone> {
        let Watcher { freezer, leases, clock, .. } = self.watcher;
        let failed = |error: FreezeError| LeftAlone::Failed(with_causes(&error));
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
        self.watcher.interrupt = &Uninterrupted;
        self.tell(|after| TransitionEvent::Reversing { after });
        let back = to.opposite();
        match self.watcher.livepatch.set_enabled(self.module, back) {
            Ok(()) => {}
            // Disabling ended between the last look and now, and took the livepatch away.
            Err(KernelError::NoSuchPatch { .. }) if to == Enabled::Disabled => return Ok(self.report(to)),
            // Somebody else turned it back first; following tells how far that is.
            Err(KernelError::NothingToChange { .. } | KernelError::NoSuchPatch { .. }) => {}
            Err(source) => return Err(TransitionError::Host { module: self.module.clone(), source }),
        }
        let begun = self.watcher.clock.elapsed();
        match self.follow(back, self.policy.reversal, FirstLook::Later)? {
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
            killed: self.killed,
        }
    }

    fn tell(&mut self, event: impl FnOnce(Duration) -> TransitionEvent) {
        let after = self.since_begun();
        (self.on_event)(event(after));
    }

    fn since_begun(&self) -> Duration {
        self.watcher.clock.elapsed() - self.begun
    }

    fn host<T>(&self, result: Result<T, KernelError>) -> Result<T, TransitionError> {
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
