//! Trouble with a file through which the kernel speaks: procfs, sysfs, cgroupfs.

use std::io;
use std::path::{Path, PathBuf};

/// A file of the kernel could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelFileError {
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// The cause.
        source: io::Error,
    },
    /// It holds something that its documentation does not allow.
    #[error("{path} holds {found:?}, expected {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What it holds, shortened.
        found: String,
    },
}

impl KernelFileError {
    /// For `map_err`: this file could not be read.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Read { path: path.to_owned(), source }
    }
}
