//! One fix for many kernels: a cumulative livepatch for each, and the manifest that has them all.
//!
//! Every kernel is built by itself, as [`super::build`] does it; what one kernel refuses does not stand in the way of
//! the others. The module has the same name everywhere, so that a host which changes kernels keeps one line of
//! livepatches; the files are told apart by the kernel's release.

use std::collections::BTreeSet;

use manifests::{
    Arch, Component, CveId, KernelRelease, Manifest, ManifestError, ManifestName, Rollback, Severity, Span,
    Summary, Targets, UtcTime,
};

use super::cache::Cache;
use super::error::BuildError;
use super::kernel::KernelChoice;
use super::pipeline::{Built, build};
use super::progress::Progress;
use super::request::Request;

/// How long everything must hold after the last component; the manifest's own default.
const SETTLE: Span = Span::from_secs(5);

/// What became of one kernel.
#[derive(Debug)]
pub struct OfKernel {
    /// The kernel.
    pub kernel: KernelRelease,
    /// The livepatch, or why there is none.
    pub result: Result<Built, BuildError>,
}

/// Builds the same patches for each kernel, one after the other. The request's own kernel does not count.
pub fn release(
    cache: &Cache,
    request: &Request,
    kernels: &[KernelRelease],
    progress: &dyn Progress,
) -> Vec<OfKernel> {
    kernels
        .iter()
        .map(|kernel| {
            progress.step(&format!("for {kernel}:"));
            let request = Request {
                kernel: KernelChoice::Packages(kernel.clone()),
                label: Some(kernel.to_string()),
                ..request.clone()
            };
            OfKernel { kernel: kernel.clone(), result: build(cache, &request, progress) }
        })
        .collect()
}

/// What a manifest says beside its components.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Its name.
    pub name: ManifestName,
    /// Its version.
    pub version: u64,
    /// When it is issued.
    pub issued: UtcTime,
    /// When it expires.
    pub expires: UtcTime,
    /// How urgent it is.
    pub severity: Severity,
    /// One line for people.
    pub summary: Summary,
}

/// A manifest that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It breaks a rule of manifests.
    #[error("the manifest would not be one that a host accepts")]
    Manifest(#[from] ManifestError),
    /// YAML cannot be written.
    #[error("cannot write the manifest")]
    Yaml(#[from] serde_yaml::Error),
}

/// The manifest of all that was built, unsigned, as text.
pub fn manifest(heading: Heading, kernels: &[OfKernel]) -> Result<String, ReleaseError> {
    let built = || kernels.iter().filter_map(|kernel| Some((&kernel.kernel, kernel.result.as_ref().ok()?)));
    let fixes: BTreeSet<CveId> =
        built().flat_map(|(_, built)| built.fragment.fixes.iter().cloned()).collect();
    let components: Vec<Component> =
        built().flat_map(|(_, built)| built.fragment.components.clone()).collect();
    let manifest = Manifest {
        schema: Default::default(),
        name: heading.name,
        version: heading.version,
        issued: heading.issued,
        expires: heading.expires,
        severity: heading.severity,
        summary: heading.summary,
        fixes: fixes.into_iter().collect(),
        targets: Targets {
            arch: vec![Arch::X86_64],
            kernels: built().map(|(kernel, _)| kernel.clone()).collect(),
            groups: Vec::new(),
        },
        components,
        probes: Vec::new(),
        settle: SETTLE,
        rollback: Rollback::default(),
    };
    let text = serde_yaml::to_string(&manifest)?;
    // As a host will read it.
    Manifest::parse(text.as_bytes())?;
    Ok(text)
}
