//! What a patch does to a kernel: the part that building, verifying and linting have in common.
//!
//! Two steps. [`Ground`]: the kernel's parts are found, its tree is prepared, the patch is applied in an overlay and
//! the affected units are known. [`Analysis`]: each unit is compiled twice, the originals are matched with the
//! shipped code and the versions are compared. What stands against a livepatch is collected here and not an
//! error; who wants a module asks [`Analysis::accepted`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use super::abi::AbiError;
use super::cache::{Cache, CacheError};
use super::compile::{Detail, Source, Version};
use super::error::{BuildError, Refusal};
use super::kbuild::UnitCommand;
use super::kernel::Kernel;
use super::layout::{self, Types};
use super::objects::ShippedObjects;
use super::overlay::Overlay;
use super::patch::Patch;
use super::patch::SourcePath;
use super::progress::{Phase, PhaseClock};
use super::report::UnitReport;
use super::request::Request;
use super::runpre::{FunctionMatch, UnitMatch, match_unit};
use super::tree::Tree;
use super::units::{self, AffectedUnit, Applied, Search};
use super::{abi, jobs};
use crate::diff::{self, Options, Verdict};
use crate::image::Exports;

/// A prepared tree with the patch beside it.
pub(super) struct Ground {
    pub(super) patches: Vec<Patch>,
    pub(super) kernel: Kernel,
    pub(super) tree: Tree,
    pub(super) applied: Applied,
    pub(super) overlay: Overlay,
    pub(super) affected: Vec<AffectedUnit>,
    /// Changed files that no unit of this configuration is made of.
    pub(super) unbuilt: Vec<SourcePath>,
    work: TempDir,
}

impl Ground {
    /// Finds or makes everything that compiling needs.
    pub(super) fn prepare(
        cache: &Cache,
        request: &Request,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Self, BuildError> {
        let patches = request.parse()?;
        let kernel = Kernel::obtain(cache, &request.kernel, clock.progress)?;
        clock.ended(Phase::Packages);
        let tree = Tree::obtain(cache, &kernel.tree, request.jobs, clock.progress)?;
        clock.ended(Phase::Prepare);
        let applied = units::apply(&patches, &tree)?;
        let overlay = Overlay::take(&tree.overlays(), tree.source())?;
        overlay.change(&applied.contents)?;
        let search = Search { tree: &tree, overlay: &overlay, jobs: request.jobs, limit: request.unit_limit };
        let found = thread::scope(|scope| {
            // Reading the image keeps the other processor busy; who needs it is told why it cannot be read.
            scope.spawn(|| kernel.image().is_ok());
            search.run(&applied, clock.progress)
        });
        let units::Affected { units: affected, unbuilt } = found?;
        let work =
            tempfile::tempdir().map_err(CacheError::io("make a directory in", &std::env::temp_dir()))?;
        clock.ended(Phase::Units);
        Ok(Self { patches, kernel, tree, applied, overlay, affected, unbuilt, work })
    }

    /// Files of the patch that no livepatch carries: documentation and tools, and what is not built.
    pub(super) fn left_out(&self) -> Vec<String> {
        self.applied.left_out.iter().chain(&self.unbuilt).map(|path| path.to_string()).collect()
    }

    /// A directory for intermediate files.
    pub(super) fn work(&self) -> &Path {
        self.work.path()
    }

    /// The source of the running kernel.
    pub(super) fn original(&self) -> Source<'_> {
        Source::original(&self.tree)
    }

    /// The source with the patch.
    pub(super) fn patched(&self) -> Source<'_> {
        Source::patched(&self.tree, &self.overlay)
    }
}

/// A unit, compiled twice, matched and compared.
pub(super) struct AnalysedUnit {
    pub(super) command: UnitCommand,
    pub(super) original: Vec<u8>,
    pub(super) matched: UnitMatch,
    pub(super) report: diff::Report,
    /// For each changed function the first difference.
    pub(super) explanations: Vec<diff::Explanation>,
    /// What the module needs of the patched object; nothing where no code changed.
    pub(super) carried: Option<Vec<u8>>,
    /// How the types differ, if the objects tell and code changed.
    pub(super) layout: Option<UnitLayout>,
}

/// The types of a unit.
pub(super) struct UnitLayout {
    /// All types of the original.
    pub(super) original: Types,
    /// All types of the patched version.
    pub(super) patched: Types,
    /// What differs.
    pub(super) changes: Vec<layout::Change>,
    /// Types whose change the patch's author answers for.
    pub(super) accepted: Vec<String>,
}

impl UnitLayout {
    /// Whether the livepatch can be made although this type differs.
    pub(super) fn allows(&self, change: &layout::Change) -> bool {
        change.keeps_meaning || self.accepted.contains(&change.type_name)
    }

    fn of(original: &[u8], patched: &[u8], unit: &SourcePath) -> Result<Self, BuildError> {
        let types =
            |object| layout::read(object).map_err(|source| BuildError::Types { unit: unit.clone(), source });
        let (original, after) = (types(original)?, types(patched)?);
        let changes = layout::changes(&original, &after);
        let accepted =
            layout::accepted(patched).map_err(|source| BuildError::Object { unit: unit.clone(), source })?;
        Ok(Self { original, patched: after, changes, accepted })
    }
}

/// What a patch does to a kernel.
pub(super) struct Analysis<'g> {
    /// What the objects tell.
    pub(super) detail: Detail,
    pub(super) shipped: ShippedObjects<'g>,
    /// In the order of their names.
    pub(super) units: Vec<AnalysedUnit>,
    /// All that stands against a livepatch.
    pub(super) refusals: Vec<Refusal>,
}

impl<'g> Analysis<'g> {
    /// Compiles, matches and compares.
    pub(super) fn of(
        ground: &'g Ground,
        detail: Detail,
        jobs: usize,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Self, BuildError> {
        let names: Vec<&str> = ground.affected.iter().map(|unit| unit.command.source.as_str()).collect();
        clock.progress.step(&format!("compiling {} original and patched", names.join(", ")));
        // What is shipped is read meanwhile.
        let (objects, shipped) = thread::scope(|scope| {
            let shipped = scope.spawn(|| {
                let commands = ground.affected.iter().map(|unit| &unit.command);
                ShippedObjects::read(&ground.kernel, ground.kernel.image()?, commands)
            });
            (compile(ground, detail, jobs), shipped.join())
        });
        let objects = objects?;
        let shipped = match shipped {
            Ok(shipped) => shipped?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        ground.kernel.made_by(&ground.tree.compiler)?;
        clock.ended(Phase::Compile);

        clock.progress.step("matching the originals with the shipped code");
        let matches = jobs::map(jobs, &objects, |unit| {
            match_unit(&unit.original, shipped.of(&unit.command.owner))
                .map_err(|source| BuildError::Object { unit: unit.command.source.clone(), source })
        })?;
        clock.ended(Phase::Match);

        let broken = jobs::map(jobs, &objects, |unit| exported_types(ground, unit, shipped.image.exports()))?;
        let mut refusals: Vec<Refusal> = broken.into_iter().flatten().map(Refusal::Abi).collect();
        let units = compare(objects, matches, &shipped, detail, &mut refusals)?;
        clock.ended(Phase::Diff);
        Ok(Self { detail, shipped, units, refusals })
    }

    /// Fails if a livepatch cannot carry the change, or if there is nothing to carry.
    pub(super) fn accepted(&self) -> Result<(), BuildError> {
        if !self.refusals.is_empty() {
            let units = self.units.iter().map(UnitReport::new).collect();
            return Err(BuildError::Refused { refusals: self.refusals.clone(), units });
        }
        if self.units.iter().all(|unit| unit.report.functions.is_empty()) {
            let told = |unit: &AnalysedUnit| (unit.command.source.clone(), unit.report.without_effect());
            return Err(BuildError::Unchanged { units: self.units.iter().map(told).collect() });
        }
        Ok(())
    }
}

/// A unit, compiled twice.
struct CompiledUnit {
    command: UnitCommand,
    original: Vec<u8>,
    patched: Vec<u8>,
    /// CRCs of what the patched version exports; none where no type can have changed.
    crcs: BTreeMap<String, u32>,
}

/// Compiles every unit twice; originals and patched ones are independent jobs.
fn compile(ground: &Ground, detail: Detail, jobs: usize) -> Result<Vec<CompiledUnit>, BuildError> {
    let tasks: Vec<(Version, &UnitCommand)> = ground
        .affected
        .iter()
        .flat_map(|unit| [Version::Patched, Version::Original].map(|version| (version, &unit.command)))
        .collect();
    let versioned = ground.tree.config.is_set("CONFIG_MODVERSIONS");
    let mut results = jobs::map(jobs, &tasks, |(version, command)| {
        let source = match version {
            Version::Original => {
                return Ok((ground.original().compile(command, detail, ground.work())?, BTreeMap::new()));
            }
            Version::Patched => ground.patched(),
        };
        let object = source.compile(command, detail, ground.work())?;
        let exports = has_exports(&object);
        let crcs = match detail {
            Detail::Types if exports && versioned => source.crcs(command, ground.work())?,
            _ => BTreeMap::new(),
        };
        Ok::<_, BuildError>((object, crcs))
    })?
    .into_iter();
    let mut units = Vec::new();
    for unit in &ground.affected {
        let (Some((patched, crcs)), Some((original, _))) = (results.next(), results.next()) else {
            unreachable!("there are two tasks for each unit");
        };
        units.push(CompiledUnit { command: unit.command.clone(), original, patched, crcs });
    }
    Ok(units)
}

/// Whether anything in the object is exported: by a table of its own, or from 6.5 on by a mark for modpost.
fn has_exports(object: &[u8]) -> bool {
    [&b"__ksymtab_strings\0"[..], b".export_symbol\0"]
        .iter()
        .any(|section| memchr::memmem::find(object, section).is_some())
}

/// Exported symbols that would not keep their types. Most keep those that the kernel was shipped with; only where one
/// does not, the original has to tell whether that is the patch's doing.
fn exported_types(
    ground: &Ground,
    unit: &CompiledUnit,
    shipped: &Exports,
) -> Result<Vec<AbiError>, BuildError> {
    let is_shipped =
        |symbol: &String, crc: u32| shipped.get(symbol).is_some_and(|export| export.crc == Some(crc));
    if unit.crcs.iter().all(|(symbol, crc)| is_shipped(symbol, *crc)) {
        return Ok(Vec::new());
    }
    let original = ground.original().crcs(&unit.command, ground.work())?;
    Ok(abi::compare(&unit.command.source, &original, &unit.crcs, shipped))
}

fn compare(
    units: Vec<CompiledUnit>,
    matches: Vec<UnitMatch>,
    shipped: &ShippedObjects<'_>,
    detail: Detail,
    refusals: &mut Vec<Refusal>,
) -> Result<Vec<AnalysedUnit>, BuildError> {
    let failed = |unit: &CompiledUnit| {
        let unit = unit.command.source.clone();
        move |source| BuildError::Diff { unit, source }
    };
    let mut provided = BTreeSet::new();
    if units.len() > 1 {
        for unit in &units {
            provided.extend(diff::new_globals(&unit.original, &unit.patched).map_err(failed(unit))?);
        }
    }
    let mut analysed = Vec::new();
    for (unit, matched) in units.into_iter().zip(matches) {
        let options = Options {
            object: unit.command.owner.object(),
            symbols: Some(&shipped.symbols),
            provided: provided.clone(),
            addresses: matched.addresses.clone(),
        };
        let found = diff::compare(&unit.original, &unit.patched, &options).map_err(failed(&unit))?;
        let report = found.report().clone();
        let explanations = found.explanations().to_vec();
        let source = &unit.command.source;
        refusals.extend(
            report
                .refused
                .iter()
                .map(|refused| Refusal::Diff { unit: source.clone(), refused: refused.clone() }),
        );
        for function in &report.functions {
            refusals.extend(not_proven(&unit.command, &matched, function, shipped));
        }
        let layout = match detail {
            Detail::Types if report.verdict != Verdict::Unchanged => {
                Some(UnitLayout::of(&unit.original, &unit.patched, source)?)
            }
            _ => None,
        };
        if let Some(layout) = &layout {
            let refused = layout.changes.iter().filter(|change| !layout.allows(change));
            refusals.extend(refused.map(|change| Refusal::Layout {
                unit: source.clone(),
                type_name: change.type_name.clone(),
                how: change.how.clone(),
            }));
        }
        let CompiledUnit { command, original, .. } = unit;
        let carried = found.into_object();
        analysed.push(AnalysedUnit { command, original, matched, report, explanations, carried, layout });
    }
    Ok(analysed)
}

/// Why a function must not be replaced: its original is not the shipped one, or the position that the module
/// would name is another function of the same name.
fn not_proven(
    unit: &UnitCommand,
    matched: &UnitMatch,
    function: &diff::Replacement,
    shipped: &ShippedObjects<'_>,
) -> Option<Refusal> {
    let refusal = |found: FunctionMatch| {
        let object = unit.owner.object();
        let (unit, function) = (unit.source.clone(), function.name.clone());
        Some(Refusal::NotShipped { unit, object, function, found })
    };
    match matched.functions.get(&function.name) {
        Some(FunctionMatch::Same { address }) => {
            let places = shipped.of(&unit.owner).named(&function.name);
            let named = places.get(function.sympos.saturating_sub(1) as usize);
            let unique = function.sympos != 0 || places.len() == 1;
            (named != Some(address) || !unique).then(|| Refusal::WrongPosition {
                unit: unit.source.clone(),
                function: function.name.clone(),
                sympos: function.sympos,
                address: *address,
            })
        }
        Some(found) => refusal(found.clone()),
        None => refusal(FunctionMatch::Absent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn exports_are_seen_in_objects_before_and_since_6_5() {
        let work = tempfile::tempdir().unwrap();
        let compiled = |section: &str| {
            let mark = format!("asm(\".pushsection {section}, \\\"a\\\"\\n.quad f\\n.popsection\");\n");
            std::fs::write(work.path().join("a.c"), format!("int f(int x) {{ return x; }}\n{mark}")).unwrap();
            let status =
                Command::new("gcc").args(["-c", "-o", "a.o", "a.c"]).current_dir(work.path()).status();
            assert!(status.unwrap().success());
            std::fs::read(work.path().join("a.o")).unwrap()
        };
        let found =
            ["__ksymtab_strings", ".export_symbol", "__param"].map(|name| has_exports(&compiled(name)));
        assert_eq!(found, [true, true, false]);
    }
}
