//! A simulated machine: a kernel with livepatches, tasks in control groups, a freezer and clocks.
//!
//! Time passes only in [`Clock::sleep`], and the kernel's part follows its own time-line: it tries
//! every task when a transition begins, completes one only at its retries (every second), sends the
//! fake signal after 15 s. Tests check the state that the machine ends in, not the calls made.
//!
//! [`FakeMachine::stop_before`] makes the program die at its nth request to the machine, without the
//! machine noticing anything that unwinding does afterwards; [`FakeMachine::reboot`] loses what a
//! real machine loses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use manifests::ModuleName;
use patch_tools::module::Module;
use system::boot::Incarnation;
use system::clock::{Clock, Uninterrupted};
use system::kernel_file::KernelFileError;
use workloads::limits::freezer::{FreezeError, FreezeState, Freezer, LeaseStore};
use workloads::model::{CgroupOwner, CgroupPath};

use crate::kernel::KernelWords;
use crate::kernel::error::{KernelError, LoadRefusal, UnloadRefusal};
use crate::kernel::livepatch::{
    Blocker, Enabled, Livepatch, LoadedFunction, LoadedObject, LoadedPatch, ModuleIdentity, PatchState,
    TaskKind, TaskState,
};
use crate::kernel::transition::Watcher;

/// The kernel's delayed work (`HZ`), and its `SIGNALS_TIMEOUT`.
const RETRY: Duration = Duration::from_secs(1);
const FAKE_SIGNAL: Duration = Duration::from_secs(15);
/// How long stopping a group and letting go of a disabled patch take here.
const FREEZING: Duration = Duration::from_millis(4);
const LETTING_GO: Duration = Duration::from_millis(3);
const TICK: Duration = Duration::from_millis(1);

/// When a task inside a patched function leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// It is in none: the kernel moves it at once.
    AtOnce,
    /// An interruptible sleeper: at the kernel's fake signal or when its group is frozen.
    WhenDisturbed,
    /// Uninterruptible: by itself, so long after the machine's start.
    ByItself(Duration),
    /// Uninterruptible for ever.
    Never,
}

/// A module that the machine knows how to load.
#[derive(Clone, Debug)]
pub(crate) struct FakeModule {
    pub(crate) functions: Vec<&'static str>,
    /// Atomic replace: other livepatches go when this one is enabled.
    pub(crate) replace: Replace,
    pub(crate) refusal: Option<(LoadRefusal, &'static str)>,
}

/// What somebody else loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insmod {
    Livepatch,
    NoLivepatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    None,
    All,
}

impl Default for FakeModule {
    fn default() -> Self {
        Self { functions: vec!["cmdline_proc_show"], replace: Replace::None, refusal: None }
    }
}

#[derive(Clone, Debug)]
struct Task {
    blocker: Blocker,
    leaves: Leaves,
    /// The transition target that it was last moved to.
    moved: Option<u64>,
}

#[derive(Clone, Debug)]
struct Patch {
    functions: Vec<&'static str>,
    replace: Replace,
    enabled: Enabled,
}

#[derive(Debug)]
struct Transition {
    module: ModuleName,
    /// Distinguishes this direction of this transition from every other.
    serial: u64,
    begun: Duration,
    next_try: Duration,
    /// Tasks that were never moved and need not move: after a reversal.
    exempt: BTreeSet<i32>,
}

/// Anything that is let go by being dropped.
pub(crate) trait Held: std::fmt::Debug + Send {}

impl<T: std::fmt::Debug + Send> Held for T {}

#[derive(Debug, Default)]
struct State {
    now: Duration,
    /// How far the wall clock was put forward.
    stepped: jiff::SignedDuration,
    /// When this boot began.
    booted: Duration,
    /// What somebody else holds on to, and until when.
    held: Vec<(Duration, Box<dyn Held>)>,
    /// The kernel was built without livepatch.
    without_livepatch: bool,
    boot: u32,
    /// How often userspace was started anew in this boot.
    userspace: u32,
    requests: u64,
    stop_before: Option<u64>,
    dead: Option<()>,
    serial: u64,
    catalog: BTreeMap<ModuleName, FakeModule>,
    /// Loaded modules; the value is when the kernel lets go of a module without a patch.
    modules: BTreeMap<ModuleName, Duration>,
    /// Which build each of them is, as far as its file said.
    identities: BTreeMap<ModuleName, ModuleIdentity>,
    patches: BTreeMap<ModuleName, Patch>,
    transition: Option<Transition>,
    forced: BTreeSet<ModuleName>,
    tasks: Vec<Task>,
    /// Groups asked to freeze, with the time they will have stopped.
    frozen: BTreeMap<CgroupPath, Duration>,
    ever_frozen: Vec<CgroupPath>,
    killed: Vec<i32>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct FakeMachine {
    state: Mutex<State>,
    leases: LeaseStore,
    directory: tempfile::TempDir,
}

/// What a [`FakeMachine::stop_before`] stop unwinds with.
#[derive(Debug)]
pub(crate) struct Stopped;

impl FakeMachine {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { state: Mutex::default(), leases: LeaseStore::new(directory.path().join("frozen")), directory }
    }

    pub(crate) fn watcher(&self) -> Watcher<'_> {
        Watcher {
            livepatch: self,
            freezer: self,
            leases: &self.leases,
            clock: self,
            interrupt: &Uninterrupted,
        }
    }

    pub(crate) fn leases(&self) -> &LeaseStore {
        &self.leases
    }

    /// Teaches the machine what a module does; unknown ones are [`FakeModule::default`].
    pub(crate) fn with_module(self, name: &str, module: FakeModule) -> Self {
        self.teach(name, module);
        self
    }

    /// The same for a machine that runs.
    pub(crate) fn teach(&self, name: &str, module: FakeModule) {
        self.lock().catalog.insert(name.parse().unwrap(), module);
    }

    /// Adds a task inside the patched function, alone in the group of a container named `container`
    /// (`/runc/CONTAINER`).
    pub(crate) fn with_task(self, container: &str, leaves: Leaves) -> Self {
        let owner = CgroupOwner::Container(container.parse().unwrap());
        self.with_task_in(&format!("/runc/{container}"), owner, leaves)
    }

    pub(crate) fn with_task_in(self, cgroup: &str, owner: CgroupOwner, leaves: Leaves) -> Self {
        let mut state = self.lock();
        let tid = 100 + i32::try_from(state.tasks.len()).unwrap();
        let task = match leaves {
            Leaves::AtOnce | Leaves::WhenDisturbed => TaskState::Sleeping,
            Leaves::ByItself(_) | Leaves::Never => TaskState::Uninterruptible,
        };
        state.tasks.push(Task {
            blocker: Blocker {
                pid: tid,
                tid,
                comm: format!("task-{tid}").as_str().into(),
                kind: TaskKind::User,
                task,
                started: 1,
                cgroup: Some(cgroup.parse().unwrap()),
                owner,
                held_in: Some("cmdline_proc_show".to_owned()),
                stack: vec!["schedule".to_owned(), "cmdline_proc_show".to_owned()],
            },
            leaves,
            moved: None,
        });
        drop(state);
        self
    }

    /// The processes that were killed because they were stuck.
    pub(crate) fn killed(&self) -> Vec<i32> {
        self.lock().killed.clone()
    }

    /// Somebody else freezes a group.
    pub(crate) fn freeze_from_outside(&self, cgroup: &str) {
        let mut state = self.lock();
        let now = state.now;
        state.frozen.insert(cgroup.parse().unwrap(), now);
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        let state = self.lock();
        Incarnation {
            boot_id: format!("00000000-0000-0000-0000-{:012x}", state.boot).parse().unwrap(),
            userspace: Some(format!("{:032x}", state.boot * 1000 + state.userspace + 1).parse().unwrap()),
        }
    }

    /// Userspace ends and starts anew on the running kernel: groups are gone, frozen or not; modules stay.
    pub(crate) fn soft_reboot(&self) {
        let mut state = self.lock();
        state.userspace += 1;
        (state.dead, state.stop_before) = (None, None);
        state.frozen.clear();
        state.tasks.iter_mut().for_each(|task| task.moved = None);
    }

    /// Power off and on: modules, livepatches and frozen groups are gone, time goes on.
    pub(crate) fn reboot(&self) {
        let mut state = self.lock();
        (state.boot, state.userspace) = (state.boot + 1, 0);
        state.booted = state.now;
        state.dead = None;
        state.stop_before = None;
        state.modules.clear();
        state.patches.clear();
        state.transition = None;
        state.frozen.clear();
        state.tasks.iter_mut().for_each(|task| task.moved = None);
        drop(state);
        std::fs::remove_dir_all(self.directory.path().join("frozen")).ok();
    }

    /// The program dies (unwinding with [`Stopped`]) when it makes its `nth` request, counted from
    /// 1 and from now. Until [`Self::reboot`] or [`Self::revive`], nothing reaches the machine.
    pub(crate) fn stop_before(&self, nth: u64) {
        let mut state = self.lock();
        state.stop_before = Some(state.requests + nth);
    }

    /// A new process on the same, still running machine.
    pub(crate) fn revive(&self) {
        let mut state = self.lock();
        state.dead = None;
        state.stop_before = None;
    }

    /// Somebody puts the wall clock forward.
    /// Another kernel, which takes no livepatches.
    pub(crate) fn take_livepatch_away(&self) {
        self.lock().without_livepatch = true;
    }

    /// The wall clock is set to what it was at first.
    pub(crate) fn set_wall_clock_back(&self) {
        self.lock().stepped = jiff::SignedDuration::ZERO;
    }

    pub(crate) fn step_wall_clock(&self, by: Duration) {
        self.lock().stepped += jiff::SignedDuration::try_from(by).unwrap();
    }

    pub(crate) fn step_wall_clock_back(&self, by: Duration) {
        self.lock().stepped -= jiff::SignedDuration::try_from(by).unwrap();
    }

    /// Let go of something only when this much time has gone by.
    pub(crate) fn hold_for(&self, time: Duration, held: impl Held + 'static) {
        let mut state = self.lock();
        let until = state.now + time;
        state.held.push((until, Box::new(held)));
    }

    /// Requests made so far: the points where [`Self::stop_before`] can strike.
    pub(crate) fn requests(&self) -> u64 {
        self.lock().requests
    }

    pub(crate) fn modules(&self) -> Vec<String> {
        self.lock().modules.keys().map(ToString::to_string).collect()
    }

    /// The build id of the loaded module of that name.
    pub(crate) fn module_build_id(&self, name: &str) -> Option<String> {
        let (state, module) = (self.lock(), name.parse::<ModuleName>().unwrap());
        let loaded = state.modules.contains_key(&module);
        state.identities.get(&module).filter(|_| loaded)?.build_id.as_ref().map(ToString::to_string)
    }

    pub(crate) fn frozen(&self) -> Vec<CgroupPath> {
        self.lock().frozen.keys().cloned().collect()
    }

    pub(crate) fn ever_frozen(&self) -> Vec<CgroupPath> {
        self.lock().ever_frozen.clone()
    }

    /// Somebody else loads a module of their own under this name: a livepatch, or none.
    pub(crate) fn insmod_by_others(&self, name: &str, build_id: &str, what: Insmod) {
        let mut state = self.lock();
        let module: ModuleName = name.parse().unwrap();
        let identity = ModuleIdentity { srcversion: None, build_id: Some(build_id.parse().unwrap()) };
        state.modules.insert(module.clone(), Duration::ZERO);
        state.identities.insert(module.clone(), identity);
        state.patches.remove(&module);
        state.transition = None;
        if what == Insmod::Livepatch {
            let functions = vec!["cmdline_proc_show"];
            let patch = Patch { functions, replace: Replace::None, enabled: Enabled::Enabled };
            state.patches.insert(module, patch);
        }
    }

    /// An operator forces the transition by hand, which nothing here ever does.
    pub(crate) fn force_by_hand(&self, module: &ModuleName) {
        let mut state = self.lock();
        assert!(state.transition.as_ref().is_some_and(|transition| transition.module == *module));
        state.forced.insert(module.clone());
        state.complete();
    }

    pub(crate) fn forced(&self) -> Vec<String> {
        self.lock().forced.iter().map(ToString::to_string).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request to another part of this machine, where the program may die as well; whether
    /// it reached the machine.
    pub(crate) fn reached(&self) -> bool {
        self.request().is_some()
    }

    /// Counts a request; `None` when the program is dead and the request goes nowhere.
    fn request(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.dead.is_some() {
            return None;
        }
        state.requests += 1;
        if state.stop_before == Some(state.requests) {
            state.dead = Some(());
            drop(state);
            std::panic::panic_any(Stopped);
        }
        Some(state)
    }
}

/// What the kernel would show of a module's file.
fn identity(image: &File) -> ModuleIdentity {
    let mut bytes = vec![0; image.metadata().map_or(0, |found| found.len() as usize)];
    let read = image.read_exact_at(&mut bytes, 0).is_ok();
    let parsed = read.then(|| Module::parse(&bytes).ok()).flatten();
    parsed.map(|module| ModuleIdentity::of(&module)).unwrap_or_default()
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

fn nowhere() -> KernelError {
    KernelFileError::Read { path: PathBuf::from("anything"), source: dead() }.into()
}

fn no_group() -> FreezeError {
    KernelFileError::Read { path: PathBuf::from("anything"), source: dead() }.into()
}

impl State {
    fn is_waited_for(&self, task: &Task) -> bool {
        self.transition.as_ref().is_some_and(|transition| {
            task.moved != Some(transition.serial) && !transition.exempt.contains(&task.blocker.tid)
        })
    }

    /// Starts a transition, or turns the running one.
    fn begin(&mut self, module: &ModuleName) {
        // Turning back: who has not moved is where it should be, and the kernel waits for its next
        // regular look.
        let (exempt, next_try) = match &self.transition {
            Some(turned) => (
                self.tasks
                    .iter()
                    .filter(|task| self.is_waited_for(task))
                    .map(|task| task.blocker.tid)
                    .collect(),
                turned.next_try,
            ),
            None => (BTreeSet::new(), self.now),
        };
        self.serial += 1;
        self.transition = Some(Transition {
            module: module.clone(),
            serial: self.serial,
            begun: self.now,
            next_try,
            exempt,
        });
        self.run();
    }

    /// Lets the kernel and the tasks do what is due now.
    fn run(&mut self) {
        let Some((serial, begun, next_try)) = self
            .transition
            .as_ref()
            .map(|transition| (transition.serial, transition.begun, transition.next_try))
        else {
            return;
        };
        let waited = self.tasks.iter().map(|task| self.is_waited_for(task)).collect::<Vec<_>>();
        let (now, frozen) = (self.now, self.frozen.clone());
        for (task, _) in self.tasks.iter_mut().zip(waited).filter(|(_, waited)| *waited) {
            let stopped = task.blocker.cgroup.as_ref().is_some_and(|cgroup| {
                frozen.iter().any(|(group, when)| cgroup.is_within(group) && *when <= now)
            });
            let moves = match task.leaves {
                Leaves::AtOnce => true,
                Leaves::WhenDisturbed => stopped || now >= begun + FAKE_SIGNAL,
                Leaves::ByItself(when) => now >= when,
                Leaves::Never => false,
            };
            if moves {
                task.moved = Some(serial);
            }
        }
        if now >= next_try {
            let done = !self.tasks.iter().any(|task| self.is_waited_for(task));
            if done {
                self.complete()
            } else if let Some(transition) = &mut self.transition {
                transition.next_try = now + RETRY
            }
        }
    }

    fn complete(&mut self) {
        let Some(Transition { module, .. }) = self.transition.take() else { return };
        let patch = self.patches[&module].clone();
        let gone: Vec<ModuleName> = match (patch.enabled, patch.replace) {
            (Enabled::Disabled, _) => vec![module],
            (Enabled::Enabled, Replace::None) => Vec::new(),
            (Enabled::Enabled, Replace::All) => {
                self.patches.keys().filter(|name| **name != module).cloned().collect()
            }
        };
        for name in gone {
            self.patches.remove(&name);
            self.modules.insert(name, self.now + LETTING_GO);
        }
    }
}

impl Livepatch for FakeMachine {
    fn loaded(&self) -> Result<Vec<LoadedPatch>, KernelError> {
        let state = self.request().ok_or_else(nowhere)?;
        if state.without_livepatch {
            return Err(KernelError::NoLivepatch { path: PathBuf::from("/sys/kernel/livepatch") });
        }
        let moving = state.transition.as_ref().map(|transition| &transition.module);
        let show = |(module, patch): (&ModuleName, &Patch)| LoadedPatch {
            module: module.clone(),
            state: if moving == Some(module) {
                PatchState::InTransition(patch.enabled)
            } else {
                PatchState::Settled(patch.enabled)
            },
            objects: vec![LoadedObject {
                name: "vmlinux".to_owned(),
                functions: patch
                    .functions
                    .iter()
                    .map(|name| LoadedFunction { name: (*name).to_owned(), sympos: 1 })
                    .collect(),
            }],
            identity: state.identities.get(module).cloned().unwrap_or_default(),
        };
        Ok(state.patches.iter().map(show).collect())
    }

    fn state(&self, module: &ModuleName) -> Result<PatchState, KernelError> {
        let state = self.request().ok_or_else(nowhere)?;
        Ok(match state.patches.get(module) {
            None => PatchState::Absent,
            Some(patch)
                if state.transition.as_ref().is_some_and(|transition| transition.module == *module) =>
            {
                PatchState::InTransition(patch.enabled)
            }
            Some(patch) => PatchState::Settled(patch.enabled),
        })
    }

    fn module(&self, module: &ModuleName) -> Result<Option<ModuleIdentity>, KernelError> {
        let state = self.request().ok_or_else(nowhere)?;
        let loaded = state.modules.contains_key(module);
        Ok(loaded.then(|| state.identities.get(module).cloned().unwrap_or_default()))
    }

    fn load(&self, module: &ModuleName, image: &File) -> Result<(), KernelError> {
        let mut state = self.request().ok_or_else(nowhere)?;
        let known = state.catalog.get(module).cloned().unwrap_or_default();
        let (refusal, words) = match known.refusal {
            _ if state.modules.contains_key(module) => (LoadRefusal::AlreadyLoaded, ""),
            Some(refusal) => refusal,
            None if state.transition.is_some() => (LoadRefusal::Busy, ""),
            None => {
                state.modules.insert(module.clone(), Duration::ZERO);
                state.identities.insert(module.clone(), identity(image));
                state.patches.insert(
                    module.clone(),
                    Patch { functions: known.functions, replace: known.replace, enabled: Enabled::Enabled },
                );
                state.begin(module);
                return Ok(());
            }
        };
        let words: KernelWords = Some(words).filter(|words| !words.is_empty()).into_iter().collect();
        Err(KernelError::Load { module: module.clone(), refusal, words })
    }

    fn set_enabled(&self, module: &ModuleName, to: Enabled) -> Result<(), KernelError> {
        let mut state = self.request().ok_or_else(nowhere)?;
        let busy = state.transition.as_ref().is_some_and(|transition| transition.module != *module);
        match state.patches.get_mut(module) {
            None => return Err(KernelError::NoSuchPatch { module: module.clone() }),
            Some(patch) if patch.enabled == to => {
                return Err(KernelError::NothingToChange { module: module.clone() });
            }
            Some(_) if busy => return Err(KernelError::TransitionBusy { module: module.clone() }),
            Some(patch) => patch.enabled = to,
        }
        state.begin(module);
        Ok(())
    }

    fn unload(&self, module: &ModuleName) -> Result<(), KernelError> {
        let mut state = self.request().ok_or_else(nowhere)?;
        let refusal = match state.modules.get(module) {
            None => UnloadRefusal::NotLoaded,
            Some(_) if state.forced.contains(module) => UnloadRefusal::Changing,
            Some(free) if state.patches.contains_key(module) || *free > state.now => UnloadRefusal::InUse,
            Some(_) => {
                state.modules.remove(module);
                return Ok(());
            }
        };
        Err(KernelError::Unload { module: module.clone(), refusal })
    }

    fn blockers(&self) -> Result<Vec<Blocker>, KernelError> {
        let state = self.request().ok_or_else(nowhere)?;
        Ok(state
            .tasks
            .iter()
            .filter(|task| state.is_waited_for(task))
            .map(|task| task.blocker.clone())
            .collect())
    }

    fn kill_stuck(&self, blocker: &Blocker) -> Result<(), KernelError> {
        let mut state = self.request().ok_or_else(nowhere)?;
        state.tasks.retain(|task| task.blocker.pid != blocker.pid);
        state.killed.push(blocker.pid);
        Ok(())
    }
}

impl Freezer for FakeMachine {
    fn state(&self, cgroup: &CgroupPath) -> Result<FreezeState, FreezeError> {
        let state = self.request().ok_or_else(no_group)?;
        Ok(match state.frozen.get(cgroup) {
            None => FreezeState::Thawed,
            Some(when) if *when <= state.now => FreezeState::Frozen,
            Some(_) => FreezeState::Freezing,
        })
    }

    fn freeze(&self, cgroup: &CgroupPath) -> Result<(), FreezeError> {
        let mut state = self.request().ok_or_else(no_group)?;
        let stopped = state.now + FREEZING;
        state.frozen.insert(cgroup.clone(), stopped);
        state.ever_frozen.push(cgroup.clone());
        Ok(())
    }

    fn thaw(&self, cgroup: &CgroupPath) -> Result<(), FreezeError> {
        let mut state = self.request().ok_or_else(no_group)?;
        state.frozen.remove(cgroup);
        Ok(())
    }
}

impl Clock for FakeMachine {
    fn elapsed(&self) -> Duration {
        let state = self.lock();
        state.now - state.booted
    }

    fn now(&self) -> Timestamp {
        // 2026-11-20T08:00:00Z and on.
        let state = self.lock();
        Timestamp::from_second(1_795_161_600).unwrap() + state.now + state.stepped
    }

    fn sleep(&self, duration: Duration) {
        let mut state = self.lock();
        let end = state.now + duration;
        while state.now < end {
            state.now = (state.now + TICK).min(end);
            state.run();
        }
        let now = state.now;
        state.held.retain(|(until, _)| *until > now);
    }
}
