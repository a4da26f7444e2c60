//! What could not be told of a process. It is counted, shown, and treated as affected: never passed over.

use std::io;

use serde::{Deserialize, Serialize};

use crate::model::{Comm, Pid, SeenPath};
use crate::processes::contents::{ALLOWANCE, LARGEST};
use crate::processes::procfs;
use crate::processes::watchdog::PATIENCE;

/// A process of which something could not be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unknown {
    /// Its id on the host.
    pub pid: Pid,
    /// Its name.
    pub comm: Comm,
    /// The file that could not be looked at, as we see it; absent if it is the process itself.
    pub file: Option<SeenPath>,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

/// Why something could not be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "unknown")]
pub enum Reason {
    /// It cannot be read.
    #[error("{}", io::Error::from_raw_os_error(*errno))]
    Unreadable {
        /// As `errno` of the kernel.
        errno: i32,
    },
    /// Its digest is sought, its size is not known, and it is large.
    #[error(
        "it has {size} bytes, and files of more than {LARGEST} are read only if the manifest gives a `size`"
    )]
    TooLarge {
        /// In bytes.
        size: u64,
    },
    /// The files of its workload take too long to read.
    #[error("it has {size} bytes, and the files of its workload take more than {ALLOWANCE:?} to read")]
    TooSlow {
        /// In bytes.
        size: u64,
    },
    /// Whoever serves the file system does not answer.
    #[error("its file system did not answer for {PATIENCE:?}")]
    NoAnswer,
    /// Nobody knows which processes are its.
    #[error("its control group cannot be told")]
    NoGroup,
    /// The process changes its mappings faster than they can be looked at.
    #[error("it changes its mappings faster than they can be looked at")]
    Restless,
    /// Somebody asked to stop.
    #[error("it was not looked at any more")]
    Stopped,
}

impl Unknown {
    /// What could not be told of one process; nothing of one that has ended since.
    pub(crate) fn of(pid: Pid, found: impl IntoIterator<Item = (Option<SeenPath>, Reason)>) -> Vec<Self> {
        let mut found = found.into_iter().peekable();
        let Some(comm) = found.peek().and_then(|_| procfs::comm(pid)) else { return Vec::new() };
        found.map(|(file, reason)| Self { pid, comm: comm.clone(), file, reason }).collect()
    }
}

impl Reason {
    /// Whether it is only that somebody else may look.
    #[must_use]
    pub fn is_forbidden(self) -> bool {
        matches!(self, Self::Unreadable { errno: nix::libc::EPERM | nix::libc::EACCES })
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Self::Unreadable { errno: error.raw_os_error().unwrap_or(nix::libc::EIO) }
    }
}

impl From<nix::Error> for Reason {
    fn from(error: nix::Error) -> Self {
        Self::Unreadable { errno: error as i32 }
    }
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}): ", self.comm, self.pid)?;
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        self.reason.fmt(f)
    }
}
