//! One manifest, many kernels: which components a host takes.
//!
//! A fleet never has one kernel. A manifest has a livepatch component for each kernel that it is for, and
//! [`Manifest::for_kernel`] says what each of them is to a host, and what that makes of the whole. *Not
//! needed* is not *refused*: a host whose kernel has the fix built in is done, one for which there is
//! neither module nor fix is not.
//!
//! Nothing here looks at a host: [`HostKernel`] is what somebody found there.

use serde::Serialize;

use crate::digest::BuildId;
use crate::names::KernelRelease;
use crate::package::KernelPackage;
use crate::schema::livepatch::{FixedIn, LivepatchComponent};
use crate::schema::{Component, Manifest};

/// The kernel that runs on a host, by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKernel {
    /// As `uname -r` prints it.
    pub release: KernelRelease,
    /// Its GNU build id in `/sys/kernel/notes`, if it has one.
    pub build_id: Option<BuildId>,
    /// The package that it was built as, if it names one.
    pub package: Option<KernelPackage>,
}

/// What a livepatch component is to a host's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fit", rename_all = "kebab-case")]
pub enum ComponentFit {
    /// It was built for this kernel: the host takes it.
    Fits,
    /// The kernel has the fix built in.
    Fixed {
        /// Since when.
        since: FixedIn,
    },
    /// It was built for another build of the same release; loading it would crash or half-fix the kernel.
    OtherBuild {
        /// The build that it was made for.
        expected: BuildId,
        /// The build that runs; nothing if the kernel has no build id.
        found: Option<BuildId>,
    },
    /// It was built for another release, and the host's kernel is known not to have the fix.
    NotFixedYet {
        /// The first package that has it.
        fixed_in: FixedIn,
    },
    /// It was built for another release; nothing is known about this host's.
    OtherKernel,
}

/// What a manifest is to a host, as far as its kernel decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelOutcome {
    /// There is something for this host.
    Applies,
    /// The kernel has every fix that the manifest has for it, and there is nothing else: done, and well.
    NotNeeded,
    /// Refused: the host's kernel is none of those that the manifest is for, and does not have the fix.
    NoneFits,
}

/// Which components of a manifest a host takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelSelection {
    /// What that makes of the whole.
    pub outcome: KernelOutcome,
    /// The components that the host takes, by their index in the manifest, in its order. Empty unless the
    /// manifest [applies](KernelOutcome::Applies).
    pub taken: Vec<usize>,
    /// What each livepatch component is to this host, by its index in the manifest.
    pub livepatches: Vec<(usize, ComponentFit)>,
}

impl KernelSelection {
    /// The livepatch components that the host leaves to other kernels, by index.
    pub fn for_other_kernels(&self) -> impl Iterator<Item = usize> {
        self.livepatches.iter().filter(|(_, fit)| *fit != ComponentFit::Fits).map(|(index, _)| *index)
    }
}

impl Manifest {
    /// Which components a host with this kernel takes.
    ///
    /// Livepatches that fit are taken, and every layer, image and package. When none fits, the manifest is not needed if some
    /// component says that this kernel has the fix and none says that it does not; the others are then taken
    /// all the same. Otherwise no component is: half of a fix would look like all of it.
    pub fn for_kernel(&self, host: &HostKernel) -> KernelSelection {
        let livepatches: Vec<(usize, ComponentFit)> = self
            .components
            .iter()
            .enumerate()
            .filter_map(|(index, component)| match component {
                Component::Livepatch(livepatch) => Some((index, livepatch.fit(host))),
                Component::Layer(_) | Component::Image(_) | Component::Package(_) => None,
            })
            .collect();
        let any = |wanted: fn(&ComponentFit) -> bool| livepatches.iter().any(|(_, fit)| wanted(fit));
        let fits = any(|fit| *fit == ComponentFit::Fits);
        let fixed = any(|fit| matches!(fit, ComponentFit::Fixed { .. }))
            && !any(|fit| matches!(fit, ComponentFit::NotFixedYet { .. } | ComponentFit::OtherBuild { .. }));
        let reached = match livepatches.is_empty() {
            true => self.targets.kernels.is_empty() || self.targets.kernels.contains(&host.release),
            false => fits || fixed,
        };
        let taken: Vec<usize> = self
            .components
            .iter()
            .enumerate()
            .filter(|(index, component)| match component {
                Component::Layer(_) | Component::Image(_) | Component::Package(_) => reached,
                Component::Livepatch(_) => livepatches.contains(&(*index, ComponentFit::Fits)),
            })
            .map(|(index, _)| index)
            .collect();
        let outcome = match (reached, taken.is_empty()) {
            (false, _) => KernelOutcome::NoneFits,
            (true, true) => KernelOutcome::NotNeeded,
            (true, false) => KernelOutcome::Applies,
        };
        KernelSelection { outcome, taken, livepatches }
    }
}

impl LivepatchComponent {
    /// What this component is to a host's kernel.
    ///
    /// A build id that agrees is the strongest word: the module was made for this very kernel. A release
    /// alone is weaker than a package version that has the fix, since packages are rebuilt under one release.
    pub fn fit(&self, host: &HostKernel) -> ComponentFit {
        let same_release = self.kernel == host.release;
        if same_release && self.kernel_build_id.is_some() && self.kernel_build_id == host.build_id {
            return ComponentFit::Fits;
        }
        let known = host.package.as_ref().and_then(|package| {
            let about = |fixed: &&FixedIn| {
                fixed.distribution == package.distribution && fixed.series.has(&host.release)
            };
            let fixed_in = self.fixed_in.iter().find(about)?;
            Some((package.version.compare(&fixed_in.version).is_ge(), fixed_in.clone()))
        });
        match (known, same_release, &self.kernel_build_id) {
            (Some((true, since)), _, _) => ComponentFit::Fixed { since },
            (_, true, None) => ComponentFit::Fits,
            (_, true, Some(expected)) => {
                ComponentFit::OtherBuild { expected: expected.clone(), found: host.build_id.clone() }
            }
            (Some((false, fixed_in)), false, _) => ComponentFit::NotFixedYet { fixed_in },
            (None, false, _) => ComponentFit::OtherKernel,
        }
    }
}
