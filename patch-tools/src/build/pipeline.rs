//! From an analysis to a module.
//!
//! packages -> tree -> patch applied in an overlay -> affected units -> each compiled twice -> originals matched
//! with the shipped code -> differences (all that is `analysis`) -> module -> the module checked against the
//! kernel it is for.
//!
//! Nothing is written but to the cache and a temporary directory; the caller gets bytes. What a livepatch
//! cannot do is refused with every reason that was found, not only the first.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{FileName, Sha256};

use super::analysis::{Analysis, Ground};
use super::cache::Cache;
use super::component::{Described, Fragment};
use super::error::BuildError;
use super::kbuild::{Owner, UnitCommand};
use super::kernel::Material;
use super::link::{Link, ObjectPlan, Plan};
use super::lint::detail_needed;
use super::progress::{Phase, PhaseClock, Progress};
use super::provenance::Recorded;
use super::report::{BuildReport, UnitReport};
use super::request::{PatchInput, Request};
use crate::check::{Finding, KernelFacts, ObjectFacts, Severity, check};
use crate::diff::CallbackKind;
use crate::module::{Module, ObjectName};

/// What came of it.
#[derive(Debug, Clone)]
pub struct Built {
    /// `livepatch-NAME.ko`.
    pub file: FileName,
    /// The module.
    pub module: Vec<u8>,
    /// What to paste into a manifest.
    pub fragment: Fragment,
    /// The in-toto statement.
    pub provenance: serde_json::Value,
    /// What was done and found.
    pub report: BuildReport,
}

/// Builds a livepatch.
pub fn build(cache: &Cache, request: &Request, progress: &dyn Progress) -> Result<Built, BuildError> {
    let mut clock = PhaseClock::start(progress);
    let name = request.names()?;
    let ground = Ground::prepare(cache, request, &mut clock)?;
    let analysis = Analysis::of(&ground, detail_needed(&ground), request.jobs, &mut clock)?;
    analysis.accepted()?;
    let plan = plan(request, &ground, &analysis)?;

    progress.step("linking");
    let objects: Vec<&[u8]> = analysis.units.iter().filter_map(|unit| unit.carried.as_deref()).collect();
    let exports = analysis.shipped.image.exports();
    let link = Link { tree: &ground.tree, name: &name.module, plan: &plan, objects: &objects, exports };
    let module = link.run(ground.work())?;
    let findings = prove(&module, &plan, &ground, &analysis)?;
    let release = &ground.kernel.tree.release;
    let fragment = Fragment::of(&Described {
        module: &name.module,
        file: name.file.clone(),
        content: &module,
        kernel: release,
        kernel_build_id: analysis.shipped.image.build_id(),
        fixed_in: &request.fixed_in,
        plan: &plan,
        fixes: &request.all_fixes(&ground.patches),
    })?;
    let commands: Vec<UnitCommand> = analysis.units.iter().map(|unit| unit.command.clone()).collect();
    let inputs: Vec<Material> = request.patches.iter().map(PatchInput::material).collect();
    let mut materials = ground.kernel.materials.clone();
    if let Some(sha256) = ground.kernel.tree.source.content(ground.tree.source())? {
        materials.insert(0, Material { uri: "file:source".to_owned(), sha256 });
    }
    let provenance = Recorded {
        file: name.file.as_str(),
        content: &module,
        tree: &ground.tree,
        replace: request.replace,
        module: name.module.as_str(),
        patches: &inputs,
        materials: &materials,
        units: &commands,
        detail: analysis.detail,
    }
    .statement();
    clock.ended(Phase::Link);
    let report = BuildReport {
        kernel: release.clone(),
        module: name.module,
        sha256: Sha256::of(&module),
        size: module.len() as u64,
        units: analysis.units.iter().map(UnitReport::new).collect(),
        left_out: ground.left_out(),
        findings,
        seconds: clock.seconds(),
    };
    Ok(Built { file: name.file, module, fragment, provenance, report })
}

fn plan(request: &Request, ground: &Ground, analysis: &Analysis<'_>) -> Result<Plan, BuildError> {
    let mut objects: BTreeMap<ObjectName, ObjectPlan> = BTreeMap::new();
    for unit in analysis.units.iter().filter(|unit| unit.carried.is_some()) {
        let name = unit.command.owner.object();
        let object = objects.entry(name.clone()).or_insert_with(|| ObjectPlan {
            name: name.clone(),
            functions: Vec::new(),
            callbacks: Default::default(),
        });
        object.functions.extend(unit.report.functions.iter().cloned());
        for callback in &unit.report.callbacks {
            let slot = CallbackKind::ALL.iter().position(|kind| *kind == callback.kind).unwrap_or_default();
            if object.callbacks[slot].replace(callback.new_symbol.clone()).is_some() {
                return Err(BuildError::TwoCallbacks { object: name, kind: callback.kind.name() });
            }
        }
    }
    let subject = ground.patches.iter().find_map(|patch| patch.subject.clone());
    Ok(Plan {
        objects: objects.into_values().collect(),
        replace: request.replace,
        description: subject.unwrap_or_else(|| "kernel livepatch".to_owned()),
    })
}

/// Reads the module back and asks whether it would load into that kernel and patch what was planned.
fn prove(
    module: &[u8],
    plan: &Plan,
    ground: &Ground,
    analysis: &Analysis<'_>,
) -> Result<Vec<Finding>, BuildError> {
    let image = analysis.shipped.image;
    let layout = image.livepatch_layout().ok().flatten().unwrap_or_default();
    let read = Module::parse_with(module, &layout).map_err(BuildError::Unreadable)?;
    let claimed: BTreeSet<(String, String, u64)> = read
        .objects()
        .iter()
        .flat_map(|object| {
            object
                .functions
                .iter()
                .map(|function| (object.name.to_string(), function.old_name.clone(), function.sympos))
        })
        .collect();
    let planned: BTreeSet<(String, String, u64)> = plan
        .objects
        .iter()
        .flat_map(|object| {
            let functions = object.functions.iter();
            functions
                .map(|function| (object.name.to_string(), function.name.clone(), u64::from(function.sympos)))
        })
        .collect();
    if claimed != planned {
        return Err(BuildError::OtherFunctions { planned: planned.len(), found: claimed.len() });
    }
    let mut facts = KernelFacts::from_image(image);
    facts.config = Some(ground.kernel.config.clone());
    for (path, file) in &analysis.shipped.modules {
        let name = Owner::Module(path.clone()).object().to_string();
        let object = ObjectFacts::parse(&file.content).map_err(BuildError::Unreadable)?;
        facts.objects.insert(name, object);
    }
    let findings = check(&read, &facts);
    if findings.iter().any(|finding| finding.severity == Severity::Refuse) {
        return Err(BuildError::WouldNotLoad { findings });
    }
    Ok(findings)
}
