//! What this host is to the vulnerabilities that manifests name, and what runs on it: by what is mapped, by the kernel's
//! build, and by what is patched. Changes nothing, and stages nothing.
//!
//! Only manifests that this host believes count, of each name the latest; one that has expired since still says what is at
//! fault. What cannot be looked at is unknown, and hides nothing else. For a layer, processes outside of containers are not
//! looked at: it does not reach them (`update scan` does).

use std::cell::OnceCell;
use std::collections::BTreeMap;

use fleet::facts::{Exposure, Standing};
use manifests::{
    Component, ComponentFit, Envelope, Examination, KernelOutcome, LivepatchComponent, Manifest,
    ManifestName, PatchedObject, VerifyAt, VerifyError,
};
use system::error::with_causes;
use workloads::model::Container;
use workloads::processes::Onlooker;

use crate::kernel::livepatch::{Enabled, LoadedPatch, PatchState};
use crate::operations::standing::Standing as Has;
use crate::operations::survey::Replacing;
use crate::operations::{Engine, EngineError, Session, host_packages};
use crate::state::baseline::Baseline;
use crate::state::crash_guard::Quarantined;

/// What is looked at once for all manifests.
struct Seen {
    session: Session,
    baseline: Baseline,
    loaded: Vec<LoadedPatch>,
    quarantined: Vec<Quarantined>,
    /// Whether no container runs; asked when it first matters.
    nothing_runs: OnceCell<bool>,
}

impl Seen {
    fn nothing_runs(&self) -> Result<bool, EngineError> {
        if let Some(known) = self.nothing_runs.get() {
            return Ok(*known);
        }
        let known = self.session.running()?.is_empty();
        Ok(*self.nothing_runs.get_or_init(|| known))
    }
}

impl Engine {
    /// The running containers; none on a host without the runtime.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn running(&self) -> Result<Vec<Container>, EngineError> {
        self.look()?.running()
    }

    /// The livepatches that the kernel has, whoever loaded them.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn loaded(&self) -> Result<Vec<LoadedPatch>, EngineError> {
        self.look()?.loaded()
    }

    /// What this host is to each vulnerability that the manifests in these envelopes fix, sorted.
    ///
    /// # Errors
    /// [`EngineError`] if the policy, the journal or the kernel cannot be asked.
    pub fn exposures(&self, envelopes: &[Vec<u8>]) -> Result<Vec<Exposure>, EngineError> {
        let manifests = self.believed(envelopes)?;
        if manifests.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.look()?;
        let baseline = Baseline::read(&self.journal())?;
        let seen = Seen {
            baseline,
            loaded: session.loaded()?,
            quarantined: self.guards().quarantined()?,
            nothing_runs: OnceCell::new(),
            session,
        };
        let mut exposures = Vec::new();
        for (name, manifest) in manifests {
            let standing = self.exposure(&seen, &manifest).unwrap_or_else(|error| {
                tracing::warn!(manifest = %name, error = with_causes(&error), "its exposure cannot be told");
                Standing::Unknown
            });
            let version = manifest.version;
            let named = manifest.fixes.iter().cloned();
            exposures.extend(named.map(|cve| Exposure { cve, manifest: name.clone(), version, standing }));
        }
        exposures.sort();
        Ok(exposures)
    }

    /// The latest of each name of those that this host believes, or believed before they expired.
    fn believed(&self, envelopes: &[Vec<u8>]) -> Result<BTreeMap<ManifestName, Manifest>, EngineError> {
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let mut latest: BTreeMap<ManifestName, Manifest> = BTreeMap::new();
        for envelope in envelopes.iter().filter_map(|bytes| Envelope::parse(bytes).ok()) {
            let examined: Examination<Manifest> = policy.examine(&envelope, VerifyAt { now, floor: &floor });
            let manifest = match (examined.outcome, examined.signed) {
                (Ok(manifest), _) => manifest.into_inner(),
                (Err(VerifyError::Expired { .. }), Some(manifest)) => manifest,
                _ => continue,
            };
            let known = latest.get(&manifest.name);
            if known.is_none_or(|known| known.version < manifest.version) {
                latest.insert(manifest.name.clone(), manifest);
            }
        }
        Ok(latest)
    }

    fn exposure(&self, seen: &Seen, manifest: &Manifest) -> Result<Standing, EngineError> {
        let kernel = self.kernel_exposure(seen, manifest);
        let mut standing = kernel.max(self.file_exposure(seen, manifest)?);
        for component in host_packages::components(manifest) {
            standing = standing.max(self.package_exposure(component)?);
        }
        Ok(standing)
    }

    fn kernel_exposure(&self, seen: &Seen, manifest: &Manifest) -> Standing {
        let selection = manifest.for_kernel(&self.host.kernel);
        let mut fitting = None;
        for (index, fit) in &selection.livepatches {
            if let (ComponentFit::Fits, Component::Livepatch(component)) = (fit, &manifest.components[*index])
            {
                fitting = fitting.max(Some(self.livepatch_exposure(seen, component)));
            }
        }
        if let Some(standing) = fitting {
            return standing;
        }
        let any =
            |wanted: fn(&ComponentFit) -> bool| selection.livepatches.iter().any(|(_, fit)| wanted(fit));
        if selection.livepatches.is_empty() {
            Standing::Clear
        } else if any(|fit| matches!(fit, ComponentFit::NotFixedYet { .. })) {
            Standing::Exposed
        } else if selection.outcome != KernelOutcome::NoneFits {
            Standing::Fixed
        } else {
            Standing::Unknown
        }
    }

    /// Of a livepatch that was made for this very kernel.
    fn livepatch_exposure(&self, seen: &Seen, component: &LivepatchComponent) -> Standing {
        let ours = seen.baseline.livepatches.iter().find(|known| known.payload == component.payload.sha256);
        let in_force =
            |known| self.livepatch_standing(&seen.session, known, &seen.quarantined) == Has::InForce;
        match ours.is_some_and(in_force) {
            true => Standing::Fixed,
            // What those functions do now, another livepatch decides.
            false if component.patches.iter().all(|object| is_patched(&seen.loaded, object)) => {
                Standing::Unknown
            }
            false => Standing::Exposed,
        }
    }

    fn file_exposure(&self, seen: &Seen, manifest: &Manifest) -> Result<Standing, EngineError> {
        let components = manifest.components.iter().enumerate();
        let (mut layers, mut images) = (Vec::new(), Vec::new());
        for (index, component) in components {
            match component {
                Component::Layer(layer) => layers.push((index, layer)),
                Component::Image(image) => images.push((index, image)),
                Component::Livepatch(_) | Component::Package(_) => {}
            }
        }
        let replacing: Vec<Replacing<'_>> =
            manifest.components.iter().enumerate().filter_map(Replacing::of).collect();
        if layers.is_empty() && images.is_empty() || seen.nothing_runs()? {
            return Ok(Standing::Clear);
        }
        if !images.is_empty() && !self.survey_images(&seen.session, &images)?.0.is_empty() {
            return Ok(Standing::Exposed);
        }
        let (found, unreadable) = self.survey_containers(&seen.session, &replacing, Onlooker::NOBODY)?;
        let maps = |container: &crate::plan::facts::ContainerFacts| {
            container.affected.iter().any(|by| !by.files.is_empty())
        };
        let fixed =
            |digest| seen.baseline.rootfs.iter().any(|rootfs| rootfs.layers().any(|own| own == digest));
        Ok(if found.iter().any(maps) {
            Standing::Exposed
        } else if !found.is_empty() || !unreadable.is_empty() {
            Standing::Unknown
        } else if layers.iter().any(|(_, layer)| fixed(layer.payload.sha256)) {
            Standing::Fixed
        } else {
            Standing::Clear
        })
    }
}

/// Whether livepatches in force replace all these functions.
fn is_patched(loaded: &[LoadedPatch], object: &PatchedObject) -> bool {
    let in_force = loaded.iter().filter(|patch| patch.state == PatchState::Settled(Enabled::Enabled));
    let objects = in_force.flat_map(|patch| &patch.objects).filter(|own| own.name == object.object.as_str());
    let functions: Vec<_> = objects.flat_map(|own| &own.functions).collect();
    object.functions.iter().all(|wanted| {
        // 0 says that the name is unique, and the kernel shows that as 1.
        let sympos = u64::from(wanted.sympos.max(1));
        functions.iter().any(|own| own.name == wanted.name.as_str() && own.sympos == sympos)
    })
}
