//! What runs on this host now: asked of the kernel and of the runtimes, and what the journal knows of it.

use std::collections::{BTreeMap, HashSet};

use manifests::evidence as said;
use manifests::evidence::{BootUuid, Evidence};
use manifests::{Component, Envelope, KeyId, LivepatchComponent, Manifest, Sha256, UtcTime};
use patch_tools::check::{FoundSymbols, KernelFacts, Probe, redirected};
use patch_tools::module::{Module, ObjectName};
use system::error::with_causes;

use crate::kernel::livepatch::{Enabled, LoadedPatch, PatchState};
use crate::kernel::preflight::{confirm, confirm_bytes};
use crate::operations::evidence::Question;
use crate::operations::rollback::in_force;
use crate::operations::standing::Standing;
use crate::operations::trust::read_edition;
use crate::operations::{Engine, EngineError, Session};
use crate::plan::Action;
use crate::state::baseline::Baseline;
use crate::state::journal::{JournalError, Origin, Stored};
use crate::transaction::state::Outcome;

/// What the kernel shows of the functions that livepatches replace, beside what sysfs says.
struct Seen {
    facts: Option<KernelFacts>,
    redirected: Option<Vec<Probe>>,
}

/// An applied manifest that the journal has whole.
pub(super) struct Applied {
    pub(super) signed_by: Vec<String>,
    pub(super) sha256: Sha256,
    pub(super) manifest: Manifest,
}

impl Engine {
    pub(super) fn look_for_evidence(&self, question: &Question, key: KeyId) -> Result<Evidence, EngineError> {
        let session = self.look()?;
        let (baseline, all) = {
            let journal = self.journal();
            (Baseline::read(&journal)?, journal.all()?)
        };
        let applied = self.applied(&all)?;
        let mut unreadable = Vec::new();
        let (loaded, no_livepatch) = match session.adapters.livepatch.loaded() {
            Ok(loaded) => (loaded, None),
            Err(error @ crate::kernel::KernelError::NoLivepatch { .. }) => {
                (Vec::new(), Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        let quarantined = self.guards().quarantined()?;
        let mut missing = Vec::new();
        let mut ours = BTreeMap::new();
        for known in &baseline.livepatches {
            match self.livepatch_standing(&session, known, &quarantined) {
                Standing::InForce => drop(ours.insert(known.module.clone(), known.payload)),
                standing => missing.push(said::Missing {
                    module: known.module.clone(),
                    payload: known.payload,
                    why: standing.why().unwrap_or("it is not loaded").to_owned(),
                }),
            }
        }
        let seen = Seen::of(self, &loaded);
        let livepatches = loaded.iter().map(|patch| {
            let payload = ours.get(&patch.module).copied();
            let ours = payload.map(|payload| self.ours(payload, patch, &loaded, &all, &applied));
            seen.livepatch(patch, ours)
        });
        let livepatches: Vec<said::Livepatch> = livepatches.collect();
        let workloads = self.workloads(&session, &baseline, &mut unreadable)?;
        let policy = match read_edition(&self.config.policy) {
            Ok((policy, sha256)) => {
                Some(said::PolicySeen { sha256, version: policy.edition().map(|edition| edition.version) })
            }
            Err(error) => {
                unreadable.push(with_causes(&error));
                None
            }
        };
        let journal = self.journal_seen()?;
        let now = UtcTime::floor(self.host.clock.now());
        let vulnerabilities = self.vulnerabilities(question, &applied, &livepatches)?;
        let kernel = &self.host.kernel;
        Ok(Evidence {
            host: said::Host {
                key,
                name: Some(self.host.name.clone()),
                fleet: question.fleet,
                groups: self.config.groups.clone(),
            },
            boot: said::Boot {
                id: self.boot_uuid()?,
                userspace: self.host.incarnation.userspace.as_ref().map(ToString::to_string),
                uptime_s: self.host.clock.elapsed().as_secs(),
            },
            at: now,
            nonce: question.nonce.clone(),
            kernel: said::Kernel {
                release: kernel.release.clone(),
                version: self.host.kernel_version.clone(),
                arch: self.host.arch.clone(),
                build_id: kernel.build_id.clone(),
                package: kernel.package.clone(),
                tainted: self.known_taint(),
            },
            livepatches,
            missing,
            no_livepatch,
            workloads,
            unreadable,
            transactions: transactions(&all),
            policy,
            journal,
            vulnerabilities,
        })
    }

    fn boot_uuid(&self) -> Result<BootUuid, EngineError> {
        let found = self.host.incarnation.boot_id.to_string();
        found.parse().map_err(|_| EngineError::Unusable { what: "the boot id", found })
    }

    fn known_taint(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.host.root.join("proc/sys/kernel/tainted")).ok()?;
        text.trim().parse().ok()
    }

    fn journal_seen(&self) -> Result<said::JournalSeen, EngineError> {
        let journal = self.journal();
        match journal.check_chain(&[]) {
            Ok(sound) => Ok(said::JournalSeen { head: sound.head, broken: None }),
            Err(JournalError::Broken(broken)) => {
                Ok(said::JournalSeen { head: journal.head()?, broken: Some(broken.to_string()) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The manifests of the transactions that were committed, where their envelopes are in the journal and are those that
    /// were verified then.
    fn applied(&self, all: &[Stored]) -> Result<Vec<Applied>, EngineError> {
        let mut applied = Vec::new();
        let committed = all.iter().filter(|stored| stored.outcome() == Some(Outcome::Committed));
        for stored in committed {
            let Origin::Apply { digest, signed_by, .. } = &stored.origin else { continue };
            let Some(text) = self.journal().manifest_of(&stored.id)? else { continue };
            let Ok(envelope) = Envelope::parse(text.as_bytes()) else { continue };
            let sha256 = envelope.payload_digest();
            if sha256.to_string() != *digest {
                continue;
            }
            let Ok(manifest) = Manifest::parse(envelope.unverified_payload()) else { continue };
            applied.push(Applied { signed_by: signed_by.clone(), sha256, manifest });
        }
        Ok(applied)
    }

    /// What a livepatch in force is to the journal.
    fn ours(
        &self,
        payload: Sha256,
        patch: &LoadedPatch,
        loaded: &[LoadedPatch],
        all: &[Stored],
        applied: &[Applied],
    ) -> said::Ours {
        let loads = |stored: &&Stored| {
            let steps = &stored.progress.in_effect().steps;
            steps.iter().any(
                |step| matches!(step.action, Action::LoadLivepatch { payload: own, .. } if own == payload),
            )
        };
        let transaction =
            all.iter().rev().filter(|stored| stored.outcome() == Some(Outcome::Committed)).find(loads);
        let transaction = transaction.map(|stored| stored.id.to_string()).unwrap_or_default();
        let brought = applied.iter().rev().find_map(|applied| {
            let component = component_of(&applied.manifest, payload)?;
            Some((applied, component))
        });
        let shown = match brought {
            Some((_, component)) => {
                confirm(&patch.module, &component.patches, loaded).map_err(|error| error.to_string())
            }
            None => self.confirm_payload(payload, patch, loaded),
        };
        said::Ours {
            payload,
            transaction,
            manifest: brought.map(|(Applied { signed_by, sha256, manifest, .. }, _)| said::ManifestSeen {
                name: manifest.name.clone(),
                version: manifest.version,
                sha256: *sha256,
                signed_by: signed_by.clone(),
                fixes: manifest.fixes.clone(),
            }),
            shows_claim: shown.is_ok(),
            why: shown.err(),
        }
    }

    fn confirm_payload(
        &self,
        payload: Sha256,
        patch: &LoadedPatch,
        loaded: &[LoadedPatch],
    ) -> Result<(), String> {
        let bytes = self.payloads.read(&payload).map_err(|error| with_causes(&error))?;
        let module = Module::parse(&bytes).map_err(|error| error.to_string())?;
        confirm_bytes(&patch.module, &module, loaded).map_err(|error| error.to_string())
    }

    fn workloads(
        &self,
        session: &Session,
        baseline: &Baseline,
        unreadable: &mut Vec<String>,
    ) -> Result<Vec<said::Workload>, EngineError> {
        match session.adapters.lifecycle.list() {
            Ok(listing) => unreadable.extend(listing.unreadable.iter().map(ToString::to_string)),
            Err(error) if error.is_absence() => {}
            Err(error) => unreadable.push(error.with_causes()),
        }
        let running = match session.running() {
            Ok(running) => running,
            // Said above.
            Err(_) => return Ok(Vec::new()),
        };
        let mut workloads = Vec::new();
        for container in running {
            let image = session.adapters.lifecycle.image(&container.id).unwrap_or_else(|error| {
                unreadable.push(error.with_causes());
                None
            });
            let committed = baseline.rootfs.iter().find(|rootfs| rootfs.container == container.id);
            let files = committed.map(|rootfs| match self.rootfs_standing(session, rootfs).0 {
                Standing::InForce => "as committed".to_owned(),
                standing => standing.why().unwrap_or("not as committed").to_owned(),
            });
            // What does not stand as it was committed has no fix that could be named.
            let as_committed = files.as_deref() == Some("as committed");
            workloads.push(said::Workload {
                id: container.id.to_string(),
                status: format!("{:?}", container.status).to_lowercase(),
                started: container.started,
                image: image.map(|image| said::Image {
                    name: image.name,
                    id: Some(image.id),
                    digest: image.digest,
                    layers: image.layers,
                }),
                fixes: committed
                    .filter(|_| as_committed)
                    .into_iter()
                    .flat_map(|rootfs| rootfs.layers())
                    .collect(),
                files,
            });
        }
        Ok(workloads)
    }
}

/// The livepatch component of a manifest with this payload.
pub(super) fn component_of(manifest: &Manifest, payload: Sha256) -> Option<&LivepatchComponent> {
    manifest.components.iter().find_map(|component| match component {
        Component::Livepatch(livepatch) if livepatch.payload.sha256 == payload => Some(livepatch),
        _ => None,
    })
}

/// Those that are in force or open.
fn transactions(all: &[Stored]) -> Vec<said::Transaction> {
    let force: HashSet<&str> = in_force(all).map(|stored| stored.id.as_str()).collect();
    let told = all.iter().filter(|stored| force.contains(stored.id.as_str()) || stored.outcome().is_none());
    let told = told.map(|stored| said::Transaction {
        id: stored.id.to_string(),
        origin: stored.origin.to_string(),
        manifest: match &stored.origin {
            Origin::Apply { digest, .. } => digest.parse().ok(),
            Origin::Rollback { .. } => None,
        },
        outcome: stored.outcome().map(|outcome| match outcome {
            Outcome::Committed => "committed".to_owned(),
            Outcome::RolledBack => "rolled back".to_owned(),
        }),
        began: stored.began.to_string(),
    });
    told.collect()
}

impl Seen {
    /// The symbols of a kernel are many: they are read only where a livepatch is.
    fn of(engine: &Engine, loaded: &[LoadedPatch]) -> Self {
        if loaded.is_empty() {
            return Self { facts: None, redirected: None };
        }
        let root = &engine.host.root;
        Self { facts: KernelFacts::from_running(root).ok(), redirected: redirected(root) }
    }

    /// Whether ftrace lists a function, perhaps by another name of its place, such as `__ia32_sys_pause` for `__x64_sys_pause`.
    /// Addresses are zero where they are hidden.
    fn is_redirected(
        &self,
        found: Option<&FoundSymbols>,
        object: &ObjectName,
        function: &str,
    ) -> Option<bool> {
        let places = |name: &str| -> Vec<u64> {
            let symbols = found.into_iter().flat_map(|found| found.in_object(object, name));
            symbols.map(|symbol| symbol.address).filter(|address| *address != 0).collect()
        };
        let ours = places(function);
        let is_it = |probe: &Probe| {
            let same_place = || places(&probe.function).iter().any(|place| ours.contains(place));
            probe.object == *object && (probe.function == function || same_place())
        };
        self.redirected.as_ref().map(|probes| probes.iter().any(is_it))
    }

    fn livepatch(&self, patch: &LoadedPatch, ours: Option<said::Ours>) -> said::Livepatch {
        let patched = patch.objects.iter().flat_map(|object| &object.functions).map(|one| one.name.as_str());
        let listed = self.redirected.iter().flatten().map(|probe| probe.function.as_str());
        let names: HashSet<&str> = patched.chain(listed).collect();
        let found = self.facts.as_ref().map(|facts| facts.symbols.find(&names));
        let patches = patch.objects.iter().map(|object| {
            let name = match object.name.as_str() {
                "vmlinux" => ObjectName::Vmlinux,
                module => ObjectName::Module(module.to_owned()),
            };
            let functions = object.functions.iter().map(|function| {
                let symbols = found.as_ref().map(|found| found.in_object(&name, &function.name).count());
                said::PatchedFunction {
                    name: function.name.clone(),
                    sympos: function.sympos,
                    symbols: symbols.and_then(|count| u32::try_from(count).ok()),
                    redirected: self.is_redirected(found.as_ref(), &name, &function.name),
                }
            });
            said::PatchedObject { object: object.name.clone(), functions: functions.collect() }
        });
        said::Livepatch {
            module: patch.module.clone(),
            build_id: patch.identity.build_id.clone(),
            state: patch.state.to_string(),
            in_force: patch.state == PatchState::Settled(Enabled::Enabled),
            patches: patches.collect(),
            ours,
        }
    }
}
