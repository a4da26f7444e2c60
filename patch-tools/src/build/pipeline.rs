//! The steps of a build, in order.
//!
//! packages -> tree -> patch applied in an overlay -> affected units -> each compiled twice -> originals matched
//! with the shipped code -> differences -> module -> the module checked against the kernel it is for.
//!
//! Nothing is written but to the cache and a temporary directory; the caller gets bytes. What a livepatch
//! cannot do is refused with every reason that was found, not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use manifests::{CveId, FileName, ModuleName, Replace, Sha256};

use super::cache::{Cache, CacheError};
use super::compile::Source;
use super::component::{Described, Fragment};
use super::error::{BuildError, Refusal};
use super::kbuild::{Owner, UnitCommand};
use super::kernel::{Kernel, KernelChoice, Material};
use super::link::{Link, ObjectPlan, Plan};
use super::overlay::Overlay;
use super::patch::Patch;
use super::progress::{Phase, Progress};
use super::provenance::Recorded;
use super::report::{BuildReport, UnitReport};
use super::runpre::{FunctionMatch, Shipped, ShippedModule, UnitMatch, Vmlinux, match_unit};
use super::tree::Tree;
use super::units::{self, AffectedUnit, Search};
use super::{abi, jobs};
use crate::check::{KernelFacts, ObjectFacts, Severity, check};
use crate::diff::symbols::{Binding, NewSymbol, SymbolKind, SymbolTable};
use crate::diff::{self, CallbackKind, Options};
use crate::module::{Layout, Module, ObjectName};

/// What to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The kernel.
    pub kernel: KernelChoice,
    /// The patches, applied one after the other; one livepatch carries them all.
    pub patches: Vec<PatchInput>,
    /// The name after `livepatch-`; the first patch's file name if not given.
    pub name: Option<String>,
    /// Whether the livepatch replaces all that are loaded.
    pub replace: Replace,
    /// CVE ids beside those that the patches name.
    pub fixes: Vec<CveId>,
    /// How many compilers run at once.
    pub jobs: usize,
    /// The most units to look at because of a header.
    pub unit_limit: usize,
}

/// One patch file.
#[derive(Debug, Clone)]
pub struct PatchInput {
    /// Its name, for messages and records.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

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
    let mut clock = PhaseClock { progress, started: now(), phases: BTreeMap::new() };
    let name = names(request)?;
    let patches = parse(&request.patches)?;
    let kernel = Kernel::obtain(cache, &request.kernel, progress)?;
    clock.ended(Phase::Packages);
    let tree = Tree::obtain(cache, &kernel.tree, request.jobs, progress)?;
    clock.ended(Phase::Prepare);

    let applied = units::apply(&patches, &tree)?;
    let overlay = Overlay::take(&tree.overlays(), tree.source())?;
    overlay.change(&applied.contents)?;
    let search = Search { tree: &tree, overlay: &overlay, jobs: request.jobs, limit: request.unit_limit };
    let affected = search.run(&applied, progress)?;
    clock.ended(Phase::Units);

    let work = tempfile::tempdir().map_err(CacheError::io("make a directory in", &std::env::temp_dir()))?;
    let names_of: Vec<&str> = affected.iter().map(|unit| unit.command.source.as_str()).collect();
    progress.step(&format!("compiling {} original and patched", names_of.join(", ")));
    let compiler = Compiler { tree: &tree, overlay: &overlay, work: work.path(), jobs: request.jobs };
    // The image is read meanwhile.
    let (objects, image) = thread::scope(|scope| {
        let image = scope.spawn(|| kernel.image());
        let objects = compiler.run(&affected);
        (objects, image.join())
    });
    let objects = objects?;
    let image = match image {
        Ok(image) => image?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    for unit in &objects {
        abi::compare(&unit.command.source, &unit.original_crcs, &unit.patched_crcs, image.exports())?;
    }
    clock.ended(Phase::Compile);

    progress.step("matching the originals with the shipped code");
    let shipped = ShippedObjects::new(&kernel, image, &objects)?;
    let matches = jobs::map(request.jobs, &objects, |unit| {
        let object = shipped.of(&unit.command.owner);
        match_unit(&unit.original, object)
            .map_err(|source| BuildError::Object { unit: unit.command.source.clone(), source })
    })?;
    clock.ended(Phase::Match);

    let diffs = compare(&objects, &matches, &shipped)?;
    let plan = plan(request, &patches, &objects, &diffs)?;
    clock.ended(Phase::Diff);

    progress.step("linking");
    let emitted: Vec<Vec<u8>> = diffs.iter().filter_map(|diff| diff.object.clone()).collect();
    let link =
        Link { tree: &tree, name: &name.module, plan: &plan, objects: &emitted, exports: image.exports() };
    let module = link.run(work.path())?;
    let findings = prove(&module, &plan, &kernel, &shipped)?;
    let fixes = fixes(request, &patches);
    let release = &kernel.tree.release;
    let fragment = Fragment::of(&Described {
        module: &name.module,
        file: name.file.clone(),
        content: &module,
        kernel: release,
        plan: &plan,
        fixes: &fixes,
    })?;
    let commands: Vec<UnitCommand> = objects.iter().map(|unit| unit.command.clone()).collect();
    let inputs: Vec<Material> = request.patches.iter().map(PatchInput::material).collect();
    let provenance = Recorded {
        file: name.file.as_str(),
        content: &module,
        tree: &tree,
        replace: request.replace,
        module: name.module.as_str(),
        patches: &inputs,
        materials: &kernel.materials,
        units: &commands,
    }
    .statement();
    clock.ended(Phase::Link);
    let units = objects.iter().zip(&matches).zip(&diffs);
    let report = BuildReport {
        kernel: release.clone(),
        module: name.module,
        sha256: Sha256::of(&module),
        size: module.len() as u64,
        units: units
            .map(|((unit, matched), diff)| UnitReport::new(&unit.command, matched, &diff.report))
            .collect(),
        left_out: applied.left_out.iter().map(|path| path.to_string()).collect(),
        findings,
        seconds: clock.phases,
    };
    Ok(Built { file: name.file, module, fragment, provenance, report })
}

/// The one look at a clock: nothing but progress lines and the report's times depends on it.
#[allow(clippy::disallowed_methods, reason = "what is measured is reported and not used")]
fn now() -> Instant {
    Instant::now()
}

/// Measures phases that follow each other.
struct PhaseClock<'a> {
    progress: &'a dyn Progress,
    started: Instant,
    phases: BTreeMap<Phase, f64>,
}

impl PhaseClock<'_> {
    fn ended(&mut self, phase: Phase) {
        let took: Duration = self.started.elapsed();
        self.started = now();
        self.progress.timed(phase, took);
        self.phases.insert(phase, took.as_secs_f64());
    }
}

struct Names {
    module: ModuleName,
    file: FileName,
}

/// `livepatch-NAME.ko` and `livepatch_NAME`.
fn names(request: &Request) -> Result<Names, BuildError> {
    let given = request.name.clone().or_else(|| {
        let file = &request.patches.first()?.name;
        Some(file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem).to_owned())
    });
    let name: String =
        given.unwrap_or_default().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    // 55 characters are allowed, `livepatch_` has ten.
    let name = name.trim_matches('-').chars().take(45).collect::<String>().to_ascii_lowercase();
    let bad = |source| BuildError::Name { name: name.clone(), source };
    Ok(Names {
        module: format!("livepatch_{}", name.replace('-', "_")).parse().map_err(bad)?,
        file: format!("livepatch-{name}.ko").parse().map_err(bad)?,
    })
}

fn parse(inputs: &[PatchInput]) -> Result<Vec<Patch>, BuildError> {
    inputs
        .iter()
        .map(|input| {
            Patch::parse(&input.content)
                .map_err(|source| BuildError::Patch { name: input.name.clone(), source })
        })
        .collect()
}

impl PatchInput {
    fn material(&self) -> Material {
        Material { uri: format!("file:{}", self.name), sha256: Sha256::of(&self.content) }
    }
}

fn fixes(request: &Request, patches: &[Patch]) -> Vec<CveId> {
    let named = patches.iter().flat_map(|patch| &patch.cves).filter_map(|cve| cve.parse().ok());
    let all: BTreeSet<CveId> = request.fixes.iter().cloned().chain(named).collect();
    all.into_iter().collect()
}

/// A unit, compiled twice.
struct CompiledUnit {
    command: UnitCommand,
    original: Vec<u8>,
    patched: Vec<u8>,
    original_crcs: BTreeMap<String, u32>,
    patched_crcs: BTreeMap<String, u32>,
}

struct Compiler<'a> {
    tree: &'a Tree,
    overlay: &'a Overlay,
    work: &'a std::path::Path,
    jobs: usize,
}

impl Compiler<'_> {
    /// Compiles every unit twice; originals and patched ones are independent jobs.
    fn run(&self, affected: &[AffectedUnit]) -> Result<Vec<CompiledUnit>, BuildError> {
        let sources = [Source::patched(self.tree, self.overlay), Source::original(self.tree)];
        let tasks: Vec<(Source<'_>, &UnitCommand)> =
            affected.iter().flat_map(|unit| sources.map(|source| (source, &unit.command))).collect();
        let mut results = jobs::map(self.jobs, &tasks, |(source, command)| {
            let object = source.compile(command, self.work)?;
            let exports = memchr::memmem::find(&object, b"__ksymtab_strings").is_some();
            let crcs = if exports { source.crcs(command, self.work)? } else { BTreeMap::new() };
            Ok::<_, BuildError>((object, crcs))
        })?
        .into_iter();
        let mut units = Vec::new();
        for unit in affected {
            let (Some((patched, patched_crcs)), Some((original, original_crcs))) =
                (results.next(), results.next())
            else {
                unreachable!("there are two tasks for each unit");
            };
            units.push(CompiledUnit {
                command: unit.command.clone(),
                original,
                patched,
                original_crcs,
                patched_crcs,
            });
        }
        Ok(units)
    }
}

/// The shipped objects that a patch touches, as memory and as symbols.
struct ShippedObjects<'k> {
    vmlinux: Vmlinux<'k>,
    modules: BTreeMap<String, (ShippedModule, Vec<u8>)>,
    symbols: SymbolTable,
}

impl<'k> ShippedObjects<'k> {
    fn new(
        kernel: &Kernel,
        image: &'k crate::image::KernelImage,
        units: &[CompiledUnit],
    ) -> Result<Self, BuildError> {
        let mut symbols = SymbolTable::new();
        let entries = image.kallsyms().iter().map(|symbol| NewSymbol {
            name: symbol.name,
            address: symbol.address,
            size: symbol.size,
            kind: if symbol.letter.eq_ignore_ascii_case(&b't') { SymbolKind::Text } else { SymbolKind::Data },
            binding: Binding::Unknown,
            file: None,
        });
        symbols.add(&ObjectName::Vmlinux, entries)?;
        let exports =
            image.exports().iter().map(|(name, export)| (name.as_str(), export.namespace.as_deref()));
        symbols.add_exports(&ObjectName::Vmlinux, exports);
        let mut modules = BTreeMap::new();
        for unit in units {
            if let Owner::Module(path) = &unit.command.owner
                && !modules.contains_key(path)
            {
                let file = kernel.module(path)?;
                let placed = ShippedModule::place(&file)
                    .map_err(|source| BuildError::Module { module: path.clone(), source })?;
                symbols.read_elf(&file, &unit.command.owner.object())?;
                modules.insert(path.clone(), (placed, file));
            }
        }
        if !modules.is_empty()
            && let Some(text) = kernel.symvers()?
        {
            symbols.read_symvers(&text)?;
        }
        Ok(Self { vmlinux: Vmlinux::new(image), modules, symbols })
    }

    fn of(&self, owner: &Owner) -> &(dyn Shipped + Sync) {
        match owner {
            Owner::Module(path) if self.modules.contains_key(path) => &self.modules[path].0,
            _ => &self.vmlinux,
        }
    }
}

/// What the differ found in one unit, and the object that it left.
struct UnitDiff {
    report: diff::Report,
    object: Option<Vec<u8>>,
}

fn compare(
    units: &[CompiledUnit],
    matches: &[UnitMatch],
    shipped: &ShippedObjects<'_>,
) -> Result<Vec<UnitDiff>, BuildError> {
    let failed = |unit: &CompiledUnit| {
        let unit = unit.command.source.clone();
        move |source| BuildError::Diff { unit, source }
    };
    let mut provided = BTreeSet::new();
    if units.len() > 1 {
        for unit in units {
            provided.extend(diff::new_globals(&unit.original, &unit.patched).map_err(failed(unit))?);
        }
    }
    let mut refusals = Vec::new();
    let mut diffs = Vec::new();
    for (unit, matched) in units.iter().zip(matches) {
        let options = Options {
            object: unit.command.owner.object(),
            symbols: Some(&shipped.symbols),
            provided: provided.clone(),
            addresses: matched.addresses.clone(),
        };
        let found = diff::compare(&unit.original, &unit.patched, &options).map_err(failed(unit))?;
        let report = found.report().clone();
        let source = &unit.command.source;
        refusals.extend(
            report
                .refused
                .iter()
                .map(|refused| Refusal::Diff { unit: source.clone(), refused: refused.clone() }),
        );
        for function in &report.functions {
            refusals.extend(not_proven(unit, matched, function, shipped));
        }
        diffs.push(UnitDiff { report, object: found.into_object() });
    }
    if !refusals.is_empty() {
        return Err(BuildError::Refused { refusals });
    }
    if diffs.iter().all(|diff| diff.object.is_none()) {
        return Err(BuildError::Unchanged {
            units: units.iter().map(|unit| unit.command.source.clone()).collect(),
        });
    }
    Ok(diffs)
}

/// Why a function must not be replaced: its original is not the shipped one, or the position that the module
/// would name is another function of the same name.
fn not_proven(
    unit: &CompiledUnit,
    matched: &UnitMatch,
    function: &diff::Replacement,
    shipped: &ShippedObjects<'_>,
) -> Option<Refusal> {
    let refusal = |found: FunctionMatch| {
        let object = unit.command.owner.object();
        Some(Refusal::NotShipped {
            unit: unit.command.source.clone(),
            object,
            function: function.name.clone(),
            found,
        })
    };
    match matched.functions.get(&function.name) {
        Some(FunctionMatch::Same { address }) => {
            let places = shipped.of(&unit.command.owner).named(&function.name);
            let named = places.get(function.sympos.saturating_sub(1) as usize);
            let unique = function.sympos != 0 || places.len() == 1;
            (named != Some(address) || !unique).then(|| Refusal::WrongPosition {
                unit: unit.command.source.clone(),
                function: function.name.clone(),
                sympos: function.sympos,
                address: *address,
            })
        }
        Some(found) => refusal(found.clone()),
        None => refusal(FunctionMatch::Absent),
    }
}

fn plan(
    request: &Request,
    patches: &[Patch],
    units: &[CompiledUnit],
    diffs: &[UnitDiff],
) -> Result<Plan, BuildError> {
    let mut objects: BTreeMap<ObjectName, ObjectPlan> = BTreeMap::new();
    for (unit, diff) in units.iter().zip(diffs).filter(|(_, diff)| diff.object.is_some()) {
        let name = unit.command.owner.object();
        let object = objects.entry(name.clone()).or_insert_with(|| ObjectPlan {
            name: name.clone(),
            functions: Vec::new(),
            callbacks: Default::default(),
        });
        object.functions.extend(diff.report.functions.iter().cloned());
        for callback in &diff.report.callbacks {
            let slot = CallbackKind::ALL.iter().position(|kind| *kind == callback.kind).unwrap_or_default();
            if object.callbacks[slot].replace(callback.new_symbol.clone()).is_some() {
                return Err(BuildError::TwoCallbacks { object: name, kind: callback.kind.name() });
            }
        }
    }
    let subject = patches.iter().find_map(|patch| patch.subject.clone());
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
    kernel: &Kernel,
    shipped: &ShippedObjects<'_>,
) -> Result<Vec<crate::check::Finding>, BuildError> {
    let image = kernel.image()?;
    let layout = image.livepatch_layout().ok().flatten().unwrap_or_else(Layout::default);
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
    facts.config = Some(kernel.config.clone());
    for (path, (_, file)) in &shipped.modules {
        let name = Owner::Module(path.clone()).object().to_string();
        let object = ObjectFacts::parse(file).map_err(BuildError::Unreadable)?;
        facts.objects.insert(name, object);
    }
    let findings = check(&read, &facts);
    if findings.iter().any(|finding| finding.severity == Severity::Refuse) {
        return Err(BuildError::WouldNotLoad { findings });
    }
    Ok(findings)
}
