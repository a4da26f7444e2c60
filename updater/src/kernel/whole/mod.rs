//! Another kernel as a whole: which ones are installed, which one a cold boot takes, and whether this one hands over to
//! another by kexec.
//!
//! - [`grub`]: what GRUB's configuration says, bytes in, values out
//! - [`look`]: all of it from the files of a host
//!
//! Nothing here judges: what stands in the way of another kernel is said by [`crate::plan::kernel`].

pub mod grub;
mod look;

use std::path::PathBuf;

use manifests::KernelRelease;
use serde::Serialize;

/// What a host has for booting one kernel or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernels {
    /// The command line of the running kernel, as `/proc/cmdline` has it.
    pub command_line: String,
    /// By release.
    pub installed: Vec<Installed>,
    /// Which one a cold boot takes.
    pub loader: Loader,
    /// Whether the running one hands over to another.
    pub kexec: Kexec,
    /// Features of the processor that decide the form of a process's registers, as the running kernel shows them. What was
    /// dumped with one of them is not restored without it.
    pub cpu: Vec<String>,
}

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// As `uname -r` would print it.
    pub release: KernelRelease,
    /// Its image.
    pub image: PathBuf,
    /// Its initial RAM disk, if one was made.
    pub initrd: Option<PathBuf>,
    /// Whether its modules are there.
    pub modules: bool,
}

/// What starts a kernel when the power comes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Loader {
    /// GRUB, with the menu that `grub-mkconfig` wrote.
    Grub {
        /// Its configuration.
        configuration: PathBuf,
        /// The kernel of the entry that it takes by itself; `null` if that is none of this host's.
        default: Option<KernelRelease>,
        /// The kernel of the entry that it takes once, at the next boot alone.
        once: Option<KernelRelease>,
    },
    /// Another one, or none.
    Unknown {
        /// What was found.
        why: String,
    },
}

/// What the running kernel says of handing over to another. `null` where it cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Kexec {
    /// Whether it takes an image by descriptor (`CONFIG_KEXEC_FILE`).
    pub by_descriptor: Option<bool>,
    /// Whether an operator has switched it off until the next boot (`kernel.kexec_load_disabled`).
    pub disabled: Option<bool>,
    /// The lockdown that is in force: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Whether an image is loaded already.
    pub loaded: Option<bool>,
    /// The program by which systemd hands over at the end of a shutdown.
    pub program: Option<PathBuf>,
    /// Whether systemd runs, which ends services in order before.
    pub systemd: bool,
    /// After how many seconds a panic of the running kernel boots the host; 0 for never.
    pub panic_s: Option<i64>,
}
