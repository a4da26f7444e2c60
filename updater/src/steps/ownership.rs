//! Whose a loaded module is.
//!
//! A name proves nothing: anybody can load another module under the name of one of ours. A module is ours if the
//! kernel shows the build id of the payload that this program loads under that name. Everything else is somebody
//! else's: it is never in force, disabled or unloaded, and nothing is loaded in its place.

use manifests::{ModuleName, Sha256};
use patch_tools::module::{Module, ParseError};

use crate::kernel::error::KernelError;
use crate::kernel::livepatch::{Livepatch, ModuleIdentity};
use crate::plan::LoadedPayload;
use crate::state::payloads::{Payloads, StoreError};

/// Tells whose modules are.
#[derive(Clone, Copy)]
pub(crate) struct Ownership<'a> {
    /// What is loaded.
    pub(crate) livepatch: &'a dyn Livepatch,
    /// What this program loads.
    pub(crate) payloads: &'a Payloads,
}

/// Whose the module of a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// None is loaded.
    Nobodys,
    /// It is the payload asked about.
    Ours,
    /// It is another one.
    Foreign(Foreign),
}

/// A module that somebody else loaded under the name of one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the module {module} with {expected}, found one of that name with {found}: somebody else loaded it, and it is left alone"
)]
pub(crate) struct Foreign {
    module: ModuleName,
    expected: ModuleIdentity,
    found: ModuleIdentity,
}

impl Foreign {
    /// What is there instead.
    pub(crate) fn found(&self) -> String {
        format!("one with {} that somebody else loaded", self.found)
    }
}

/// Why it cannot be told whose a module is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnershipError {
    /// The kernel cannot be asked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The payload is not in the store any more.
    #[error("tell whose the loaded {module} is")]
    Payload {
        /// The module.
        module: ModuleName,
        /// Why not.
        source: StoreError,
    },
    /// The payload is not a module.
    #[error("tell whose the loaded {module} is")]
    Module {
        /// The module.
        module: ModuleName,
        /// Why not.
        source: ParseError,
    },
}

impl Ownership<'_> {
    /// Whose the module is that has the name of this payload's.
    ///
    /// # Errors
    /// [`OwnershipError`].
    pub(crate) fn of(&self, module: &ModuleName, payload: &Sha256) -> Result<Whose, OwnershipError> {
        let Some(found) = self.livepatch.module(module)? else { return Ok(Whose::Nobodys) };
        let bytes = self
            .payloads
            .read(payload)
            .map_err(|source| OwnershipError::Payload { module: module.clone(), source })?;
        let parsed = Module::parse(&bytes)
            .map_err(|source| OwnershipError::Module { module: module.clone(), source })?;
        let expected = ModuleIdentity::of(&parsed);
        Ok(match found.proves(&expected) {
            true => Whose::Ours,
            false => Whose::Foreign(Foreign { module: module.clone(), expected, found }),
        })
    }

    /// As [`Ownership::of`], of a livepatch that this program loaded.
    ///
    /// # Errors
    /// [`OwnershipError`].
    pub(crate) fn of_loaded(&self, patch: &LoadedPayload) -> Result<Whose, OwnershipError> {
        self.of(&patch.module, &patch.payload)
    }
}
