//! What this program needs of the kernel's livepatch interface, and the words for it.
//!
//! The words are the kernel's (`Documentation/livepatch/livepatch.rst`,
//! `Documentation/ABI/testing/sysfs-kernel-livepatch`): a patch is *enabled* or not, and while
//! tasks move between the two it is *in transition*. One patch at a time can be in transition.

use std::fmt;
use std::fs::File;

use manifests::{BuildId, ModuleName};
use patch_tools::module::Module;
use serde::{Deserialize, Serialize};
use workloads::model::{CgroupOwner, CgroupPath, Comm};

use crate::kernel::error::KernelError;

/// The running kernel's livepatch interface.
pub trait Livepatch {
    /// Every livepatch that the kernel knows, in no particular order.
    ///
    /// # Errors
    /// [`KernelError::NoLivepatch`], [`KernelError::File`].
    fn loaded(&self) -> Result<Vec<LoadedPatch>, KernelError>;

    /// The state of one livepatch; cheap enough to be asked every millisecond.
    ///
    /// # Errors
    /// [`KernelError::File`].
    fn state(&self, module: &ModuleName) -> Result<PatchState, KernelError>;

    /// Which build of the module of that name is loaded, livepatch or not; `None` if none is.
    ///
    /// # Errors
    /// [`KernelError::File`].
    fn module(&self, module: &ModuleName) -> Result<Option<ModuleIdentity>, KernelError>;

    /// Loads a module from an open, already verified file. The kernel enables the livepatch and
    /// begins the transition before this returns; it does not wait for its end.
    ///
    /// # Errors
    /// [`KernelError::Load`] with the kernel's reason.
    fn load(&self, module: &ModuleName, image: &File) -> Result<(), KernelError>;

    /// Enables or disables a livepatch; while it is in transition, this reverses it.
    ///
    /// # Errors
    /// [`KernelError::TransitionBusy`] while another patch is in transition,
    /// [`KernelError::NothingToChange`], [`KernelError::NoSuchPatch`], [`KernelError::File`].
    fn set_enabled(&self, module: &ModuleName, to: Enabled) -> Result<(), KernelError>;

    /// Unloads the module of a livepatch that is disabled and not in transition.
    ///
    /// # Errors
    /// [`KernelError::Unload`]; `InUse` until the kernel has let go of a disabled patch.
    fn unload(&self, module: &ModuleName) -> Result<(), KernelError>;

    /// The tasks that the running transition still waits for; none without a transition.
    ///
    /// # Errors
    /// [`KernelError::File`]. Tasks that end meanwhile are left out.
    fn blockers(&self) -> Result<Vec<Blocker>, KernelError>;

    /// Kills the process of a blocker that is stuck uninterruptibly; whoever else has its number by now, or is no
    /// longer stuck, is left alone.
    ///
    /// # Errors
    /// [`KernelError::Kill`].
    fn kill_stuck(&self, blocker: &Blocker) -> Result<(), KernelError>;
}

/// Whether a livepatch's functions are (to be) in use: the `enabled` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enabled {
    /// `1`.
    Enabled,
    /// `0`.
    Disabled,
}

impl Enabled {
    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Enabled => Self::Disabled,
            Self::Disabled => Self::Enabled,
        }
    }

    /// As the kernel writes it, in `enabled` and in a task's `patch_state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "1",
            Self::Disabled => "0",
        }
    }
}

/// How far the kernel is with one livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "enabled")]
pub enum PatchState {
    /// The kernel has no livepatch of that name: never loaded, or disabled to the end.
    Absent,
    /// Tasks are moving towards this state.
    InTransition(Enabled),
    /// Every task is in this state.
    Settled(Enabled),
}

impl fmt::Display for PatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "not registered as a livepatch",
            Self::InTransition(Enabled::Enabled) => "in transition to enabled",
            Self::InTransition(Enabled::Disabled) => "in transition to disabled",
            Self::Settled(Enabled::Enabled) => "enabled",
            Self::Settled(Enabled::Disabled) => "disabled",
        })
    }
}

/// One livepatch as the kernel shows it under `/sys/kernel/livepatch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadedPatch {
    /// The module's name, which is the patch's name.
    pub module: ModuleName,
    /// Settled or in transition, and which way. Never [`PatchState::Absent`].
    #[serde(flatten)]
    pub state: PatchState,
    /// What it patches.
    pub objects: Vec<LoadedObject>,
    /// Which build of the module it is.
    #[serde(flatten)]
    pub identity: ModuleIdentity,
}

/// One patched object: `vmlinux` or a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadedObject {
    /// `vmlinux` or the module's name.
    pub name: String,
    /// Its functions that are replaced.
    pub functions: Vec<LoadedFunction>,
}

/// A function that a livepatch replaces, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoadedFunction {
    /// Its symbol.
    pub name: String,
    /// Which of several symbols of that name, counted from 1 in address order; 0 in a patch's
    /// source means that the name is unique, and the kernel shows that as 1.
    pub sympos: u64,
}

/// What tells two builds of one module apart on a running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleIdentity {
    /// `/sys/module/NAME/srcversion`, if the module carries one.
    pub srcversion: Option<String>,
    /// The GNU build-id, from `/sys/module/NAME/notes`.
    pub build_id: Option<BuildId>,
}

impl ModuleIdentity {
    /// That of a module's bytes.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        Self {
            srcversion: module.modinfo.get("srcversion").map(str::to_owned),
            build_id: module.build_id.as_deref().and_then(|id| id.parse().ok()),
        }
    }

    /// Whether a module with this identity is certainly a build with that one. What has no build id is certainly
    /// nobody's.
    #[must_use]
    pub fn proves(&self, other: &Self) -> bool {
        self.build_id.is_some() && self.build_id == other.build_id
    }
}

impl fmt::Display for ModuleIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.build_id {
            Some(id) => write!(f, "build id {id}"),
            None => f.write_str("no build id"),
        }
    }
}

/// A task that a transition waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// Its process.
    pub pid: i32,
    /// The task (thread) itself.
    pub tid: i32,
    /// What it calls itself.
    pub comm: Comm,
    /// A program's or the kernel's own.
    pub kind: TaskKind,
    /// What it is doing.
    pub task: TaskState,
    /// When it began, in clock ticks since boot: with its id, what it is known by.
    #[serde(default)]
    pub started: u64,
    /// The control group that is all of its owner's (see [`workloads::model::Place`]); absent if the task is not in
    /// the unified hierarchy.
    pub cgroup: Option<CgroupPath>,
    /// Whose control group that is.
    pub owner: CgroupOwner,
    /// The function of the patch that the task is inside of, if its stack shows one.
    pub held_in: Option<String>,
    /// Its kernel stack, innermost function first; empty if it may not be read or the task runs in
    /// user space.
    pub stack: Vec<String>,
}

/// Whose task it is (`PF_KTHREAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// It has a user space to return to.
    User,
    /// A kernel thread.
    Kernel,
}

/// The state letter of `/proc/PID/stat`, as far as it matters for leaving a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// `R`.
    Running,
    /// `S`: a signal or a freeze makes it leave.
    Sleeping,
    /// `D`: nothing makes it leave; a freeze would only disturb its container.
    Uninterruptible,
    /// `T`, `t`.
    Stopped,
    /// `I`: an idle kernel thread; the kernel moves it by itself.
    Idle,
    /// `Z`, `X`: on its way out.
    Dead,
}
