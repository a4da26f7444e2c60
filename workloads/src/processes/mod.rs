//! Processes as the kernel shows them: what they have mapped, and whose files those are.
//!
//! Processes may want to be looked at wrongly, or not at all, so (with `files::foreign`, the only way to their files):
//!
//! | part | what it sees to |
//! |---|---|
//! //! | `mapping`, [`procfs`] | the kernel's texts, as bytes |
//! | `contents` | what a file is known by, read within bounds |
//! | [`unknown`] | what could not be told: counted, shown, and treated as affected |
//! | [`watchdog`] | what gives no answer is left behind |
//! | [`program`] | what a process runs that its mappings do not show |
//! | `look` | one look, over all of these |
//! | [`on_host`] | the host's own file, or a copy of it |
//! | [`affected`], [`scan`] | its two uses: containers that run files at fault, and the whole host |

pub mod affected;
pub(crate) mod contents;
pub(crate) mod look;
pub(crate) mod mapping;
pub mod observe;
pub mod on_host;
pub mod procfs;
pub mod program;
pub mod scan;
#[cfg(test)]
mod specimens;
pub mod unknown;
pub mod watchdog;

pub use self::affected::{Mapped, Match};
pub use self::contents::Wanted;
pub use self::observe::Procfs;
pub use self::on_host::HostPaths;
pub use self::program::{NotProven, Program};
pub use self::scan::Scan;
pub use self::unknown::{Reason, Unknown};
pub use self::watchdog::{LookError, Onlooker, Stopped};
pub use crate::files::foreign::is_own_system;
use crate::model::{Container, Obstacle, Pid};

/// What can be seen of all processes of the host.
pub trait Everywhere {
    /// Those that have mapped files among `wanted`, or code that is not on disk any more.
    ///
    /// # Errors
    /// [`LookError`]: when nothing could be looked at at all. Trouble with one process is with that process.
    fn scan(&self, wanted: &[Wanted], onlooker: Onlooker<'_>) -> Result<Scan, LookError>;
}

/// What can be seen of running containers without asking the runtime.
pub trait Observer {
    /// For each container, the files among `wanted` that its processes have mapped, and what could not be told.
    ///
    /// # Errors
    /// [`LookError`]: when nothing could be looked at at all. Trouble with one container is with that container.
    fn mapped(
        &self,
        containers: &[Container],
        wanted: &[Wanted],
        onlooker: Onlooker<'_>,
    ) -> Result<Vec<Mapped>, LookError>;

    /// Those of the processes that have mapped the host's own files under these paths, and no copies.
    ///
    /// # Errors
    /// [`LookError`], as of [`Observer::mapped`].
    fn on_host_files(
        &self,
        processes: &[Pid],
        paths: &HostPaths,
        onlooker: Onlooker<'_>,
    ) -> Result<Vec<Pid>, LookError>;

    /// Everything that stands in the way of a checkpoint; empty if nothing does.
    fn obstacles(&self, container: &Container) -> Vec<Obstacle>;
}
