//! How the host stands to what it should have: the one judgement, for `update status` and `update resume`.
//!
//! So the two cannot contradict each other: what a resume would leave alone for a good reason is sound for the
//! status, and what only an operator can decide is so for both. Nothing is changed here, and a thing that
//! cannot be looked at is a standing of its own: it hides no other.

use std::cmp::Ordering;

use manifests::PackageVersion;
use serde::Serialize;
use system::error::with_causes;
use workloads::model::{Container, Topology};
use workloads::packages::PackageState;

use crate::kernel::livepatch::{Enabled, PatchState};
use crate::operations::{Engine, Session};
use crate::plan::LoadedPayload;
use crate::state::baseline::{Livepatch, Package, Rootfs};
use crate::state::crash_guard::Quarantined;
use crate::steps::ownership::{Ownership, Whose};

/// How the host stands to one thing that it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// It has it.
    InForce,
    /// It is for another kernel than the one that runs.
    OtherKernel {
        /// For which, and which one runs.
        why: String,
    },
    /// The container and its files are no longer there.
    Gone {
        /// What is not there.
        why: String,
    },
    /// It is not there; `update resume` brings it back.
    Missing,
    /// The host may have crashed of it, and it is not loaded.
    Quarantined {
        /// What happened.
        why: String,
    },
    /// Somebody has put a later version in its place.
    Superseded {
        /// Which.
        why: String,
    },
    /// Something else is in its place, which is not for this program to take away.
    Displaced {
        /// What.
        why: String,
    },
    /// It cannot be told.
    Unreadable {
        /// Why.
        why: String,
    },
}

impl Standing {
    /// Whether nobody has to do anything about it.
    pub fn is_sound(&self) -> bool {
        matches!(self, Self::InForce | Self::OtherKernel { .. } | Self::Gone { .. } | Self::Superseded { .. })
    }

    /// Whether what the host has under that name, if anything, is not it.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Displaced { .. } | Self::OtherKernel { .. })
    }

    /// What an operator should know of it.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::InForce | Self::Missing => None,
            Self::OtherKernel { why }
            | Self::Gone { why }
            | Self::Quarantined { why }
            | Self::Superseded { why }
            | Self::Displaced { why }
            | Self::Unreadable { why } => Some(why),
        }
    }
}

impl Engine {
    pub(super) fn livepatch_standing(
        &self,
        session: &Session,
        livepatch: &Livepatch,
        quarantined: &[Quarantined],
    ) -> Standing {
        if let Some(entry) = quarantined.iter().find(|entry| entry.digest == livepatch.payload) {
            return Standing::Quarantined { why: entry.why.clone() };
        }
        let running = &self.host.kernel.release;
        let patch = LoadedPayload { module: livepatch.module.clone(), payload: livepatch.payload };
        let whose = match self.ownership(session).of_loaded(&patch) {
            Ok(whose) => whose,
            Err(error) => return Standing::Unreadable { why: with_causes(&error) },
        };
        match (session.adapters.livepatch.state(&livepatch.module), whose) {
            (Err(error), _) => Standing::Unreadable { why: error.with_causes() },
            (Ok(PatchState::Settled(Enabled::Enabled)), Whose::Ours) => Standing::InForce,
            _ if livepatch.kernel != *running => Standing::OtherKernel {
                why: format!("it is for kernel {}, this is {running}", livepatch.kernel),
            },
            (_, Whose::Foreign(foreign)) => Standing::Displaced { why: foreign.to_string() },
            (_, Whose::Ours | Whose::Nobodys) => Standing::Missing,
        }
    }

    /// Tells whose loaded modules are.
    pub(super) fn ownership<'a>(&'a self, session: &'a Session) -> Ownership<'a> {
        Ownership { livepatch: &*session.adapters.livepatch, payloads: &self.payloads }
    }

    /// The standing, and the version that is there, if one is.
    pub(super) fn package_standing(&self, package: &Package) -> (Standing, Option<PackageVersion>) {
        let found = match self.host.packages.installed(&package.package) {
            Ok(found) => found,
            Err(error) => return (Standing::Unreadable { why: with_causes(&error) }, None),
        };
        let Some(found) = found else {
            return (Standing::Gone { why: "it is not installed any more".to_owned() }, None);
        };
        let other = format!("{} is installed, by somebody else", found.version);
        let standing = match (found.state, found.version.compare(&package.version)) {
            (PackageState::Broken(how), _) => Standing::Displaced {
                why: format!("{} is {how}: dpkg --configure --pending goes on with it", found.version),
            },
            (PackageState::Whole, Ordering::Equal) => Standing::InForce,
            (PackageState::Whole, Ordering::Greater) => Standing::Superseded { why: other },
            (PackageState::Whole, Ordering::Less) => {
                Standing::Displaced { why: format!("the earlier version {other}") }
            }
        };
        (standing, Some(found.version))
    }

    /// The standing, and the container if the runtime knows it.
    pub(super) fn rootfs_standing(
        &self,
        session: &Session,
        rootfs: &Rootfs,
    ) -> (Standing, Option<Container>) {
        let container = match session.adapters.lifecycle.inspect(&rootfs.container) {
            Ok(container) => container,
            Err(error) => return (Standing::Unreadable { why: error.with_causes() }, None),
        };
        let running = container.as_ref().is_some_and(|container| container.status.has_processes());
        let place = rootfs.mount_point.display();
        let standing = match self.host.mounts.current(&rootfs.mount_point) {
            Err(error) if error.is_absence_of(&rootfs.mount_point) => match running {
                false => Standing::Gone { why: format!("{place} is not there") },
                true => {
                    Standing::Displaced { why: format!("it runs, but not on {place}, which is not there") }
                }
            },
            Err(error) => Standing::Unreadable { why: error.to_string() },
            Ok(now) if now.shows_the_same_as(&rootfs.topology) => Standing::InForce,
            Ok(_) if running => Standing::Displaced {
                why: "it runs on other files than those it was committed to".to_owned(),
            },
            Ok(Topology::Plain) => Standing::Missing,
            Ok(Topology::Overlay(_) | Topology::Stored(_)) => {
                Standing::Displaced { why: format!("somebody else has mounted something on {place}") }
            }
        };
        (standing, container)
    }
}
