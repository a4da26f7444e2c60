//! Packages of the host, as its package manager has them.
//!
//! Installing is all or nothing for nobody: unpacking and configuring a package are many steps, in between of which the
//! power may fail. What makes it safe is that each request may be repeated, and that dpkg's own books say how far it came
//! ([`Installed::state`]). Who decides where to go from there reads them again.
//!
//! What this does not do: resolve dependencies, fetch packages, or decide which version is the right one.

pub mod dpkg;

use std::fmt;
use std::fs::File;
use std::io;

use manifests::{PackageArch, PackageName, PackageVersion};
use serde::{Deserialize, Serialize};
use system::command::CommandError;

pub use self::dpkg::Dpkg;

/// A package by its name and architecture: `libssl3:amd64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageId {
    /// The binary package's name.
    pub name: PackageName,
    /// Its architecture.
    pub architecture: PackageArch,
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.architecture)
    }
}

/// What the package manager has of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The version that is there, or that was last worked on.
    pub version: PackageVersion,
    /// Whether it is whole.
    pub state: PackageState,
    /// Whether an operator has it held as it is.
    pub hold: Hold,
}

/// How far a package was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageState {
    /// All of it is there and configured.
    Whole,
    /// Something is missing, in the package manager's word: `half-installed`, `unpacked`, `half-configured`,
    /// `triggers-awaited`, `triggers-pending`.
    Broken(String),
}

/// Whether an operator asked the package manager to leave a package alone (`apt-mark hold`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nobody did.
    Free,
    /// Somebody did.
    Held,
}

/// What a package file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Which package it is.
    pub package: PackageId,
    /// In which version.
    pub version: PackageVersion,
    /// Its maintainer scripts, by name: `postinst`, `prerm`.
    pub scripts: Vec<String>,
}

/// The package manager.
pub trait Packages {
    /// What it has of a package; `None` if it is not installed.
    ///
    /// # Errors
    /// [`PackageError`].
    fn installed(&self, package: &PackageId) -> Result<Option<Installed>, PackageError>;

    /// All packages that are not whole, and how: nothing else can be installed over them safely.
    ///
    /// # Errors
    /// [`PackageError`].
    fn broken(&self) -> Result<Vec<(String, String)>, PackageError>;

    /// Who holds the package manager now, if somebody does.
    ///
    /// # Errors
    /// [`PackageError::Lock`].
    fn holder(&self) -> Result<Option<String>, PackageError>;

    /// What a package file says of itself.
    ///
    /// # Errors
    /// [`PackageError`].
    fn describe(&self, file: &File) -> Result<Described, PackageError>;

    /// Installs these files together, whichever versions are there, with configuration files of the operator's kept. Whoever
    /// asks must know by [`Packages::installed`] what came of it.
    ///
    /// # Errors
    /// [`PackageError`]; packages may be half-way then.
    fn install(&self, files: &[File]) -> Result<(), PackageError>;

    /// Finishes what was unpacked and not configured, of all packages.
    ///
    /// # Errors
    /// [`PackageError`]; packages may be half-way still.
    fn configure_pending(&self) -> Result<(), PackageError>;
}

/// A request to the package manager that failed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A command could not be run, or said no.
    #[error("{doing}")]
    Command {
        /// What was being done.
        doing: String,
        /// What it said.
        source: CommandError,
    },
    /// Somebody else has the package manager.
    #[error("the package manager is held by {holder}")]
    Busy {
        /// Who.
        holder: String,
    },
    /// Its lock cannot be looked at.
    #[error("look at the package manager's lock {path}")]
    Lock {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What it says is not as expected.
    #[error("the answer about {about} is not as expected: {found:?}")]
    Answer {
        /// What had been asked.
        about: String,
        /// The answer.
        found: String,
    },
}

impl PackageError {
    /// Whether there is no package manager of this kind.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Command { source: CommandError::Missing { .. }, .. })
    }
}
