//! What can go wrong between this program and the running kernel.
//!
//! Each variant names the file or module it is about and keeps its source. Retrying is the
//! caller's decision: [`KernelError::is_busy`] tells which failures pass by themselves.

use std::io;
use std::path::PathBuf;

use manifests::ModuleName;
use nix::errno::Errno;
use system::kernel_file::KernelFileError;
use workloads::limits::FreezeError;

use crate::kernel::kmsg::KernelWords;

/// A request to the running kernel that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A task that is stuck could not be killed.
    #[error("cannot kill process {pid}")]
    Kill {
        /// The process.
        pid: i32,
        /// The cause.
        source: io::Error,
    },
    /// The kernel was built without `CONFIG_LIVEPATCH`, or sysfs is not mounted.
    #[error("the running kernel offers no livepatch interface: {path} does not exist")]
    NoLivepatch {
        /// The directory looked for.
        path: PathBuf,
    },
    /// A file of procfs, sysfs or cgroupfs could not be used.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// `finit_module(2)` failed.
    #[error("the kernel refused to load {module}: {refusal}{words}")]
    Load {
        /// The module.
        module: ModuleName,
        /// Why, by error number.
        refusal: LoadRefusal,
        /// What the kernel wrote to its log about it.
        words: KernelWords,
    },
    /// `delete_module(2)` failed.
    #[error("the kernel refused to unload {module}: {refusal}")]
    Unload {
        /// The module.
        module: ModuleName,
        /// Why, by error number.
        refusal: UnloadRefusal,
    },
    /// Another livepatch is in transition; the kernel allows one at a time.
    #[error("cannot change {module} now: another livepatch is in transition")]
    TransitionBusy {
        /// The module whose state was to change.
        module: ModuleName,
    },
    /// No such livepatch.
    #[error("the kernel has no livepatch named {module}")]
    NoSuchPatch {
        /// The name asked for.
        module: ModuleName,
    },
    /// The livepatch is already in the state asked for.
    #[error("the kernel says that {module} already is in the state asked for")]
    NothingToChange {
        /// The module whose state was to change.
        module: ModuleName,
    },
    /// A control group could not be frozen or thawed.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
}

impl KernelError {
    /// The failure passes by itself: another transition is running, or the module's last user has
    /// not let go of it yet.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::TransitionBusy { .. }
                | Self::Load { refusal: LoadRefusal::Busy, .. }
                | Self::Unload { refusal: UnloadRefusal::InUse | UnloadRefusal::Changing, .. }
        )
    }

    /// The error and its causes on one line.
    pub(crate) fn with_causes(&self) -> String {
        system::error::with_causes(self)
    }
}

/// Why `finit_module(2)` said no. The meanings are those of Linux 6.1's `kernel/module/main.c` and
/// `kernel/livepatch/core.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadRefusal {
    /// `EEXIST`.
    #[error("a module of that name is loaded already")]
    AlreadyLoaded,
    /// `ENOEXEC`: not an ELF module, another kernel's vermagic, or livepatch support missing.
    #[error("it is not a module for this kernel (ENOEXEC)")]
    NotForThisKernel,
    /// `EPERM`: not root, modules disabled until reboot, or lockdown.
    #[error("not permitted: no CAP_SYS_MODULE, kernel.modules_disabled, or lockdown (EPERM)")]
    NotPermitted,
    /// `EKEYREJECTED`, `ENOKEY`: signatures are enforced.
    #[error("this kernel enforces module signatures and does not accept this one ({0})")]
    Signature(Errno),
    /// `EBUSY`: another livepatch is in transition.
    #[error("another livepatch is in transition (EBUSY)")]
    Busy,
    /// `ENOENT`: a symbol that the module imports does not exist.
    #[error("it needs a symbol that this kernel does not have (ENOENT)")]
    UnknownSymbol,
    /// `EINVAL`: a symbol's CRC differs, a function to be patched was not found, or the patch is
    /// not compatible with those that are loaded.
    #[error("the kernel found it invalid: symbol versions, functions to patch, or a conflict (EINVAL)")]
    Invalid,
    /// `ETXTBSY`: the kernel does not load from a file that can still change.
    #[error("its file is open for writing (ETXTBSY)")]
    OpenForWriting,
    /// Anything else.
    #[error("{0}")]
    System(Errno),
}

impl From<Errno> for LoadRefusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => Self::AlreadyLoaded,
            Errno::ENOEXEC => Self::NotForThisKernel,
            Errno::EPERM => Self::NotPermitted,
            Errno::EKEYREJECTED | Errno::ENOKEY | Errno::EKEYREVOKED | Errno::EKEYEXPIRED => {
                Self::Signature(errno)
            }
            Errno::EBUSY => Self::Busy,
            Errno::ENOENT => Self::UnknownSymbol,
            Errno::EINVAL => Self::Invalid,
            Errno::ETXTBSY => Self::OpenForWriting,
            other => Self::System(other),
        }
    }
}

/// Why `delete_module(2)` said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnloadRefusal {
    /// `EAGAIN`: the reference count is not zero. An enabled livepatch, or one in transition,
    /// holds a reference to its module.
    #[error("it is in use (EAGAIN)")]
    InUse,
    /// `EBUSY`: the module is coming or going, or has no exit function (a forced transition).
    #[error("it is being loaded or unloaded, or can no longer be unloaded (EBUSY)")]
    Changing,
    /// `ENOENT`.
    #[error("it is not loaded (ENOENT)")]
    NotLoaded,
    /// `EPERM`.
    #[error("not permitted: no CAP_SYS_MODULE or kernel.modules_disabled (EPERM)")]
    NotPermitted,
    /// Anything else.
    #[error("{0}")]
    System(Errno),
}

impl From<Errno> for UnloadRefusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::InUse,
            Errno::EBUSY => Self::Changing,
            Errno::ENOENT => Self::NotLoaded,
            Errno::EPERM => Self::NotPermitted,
            other => Self::System(other),
        }
    }
}
