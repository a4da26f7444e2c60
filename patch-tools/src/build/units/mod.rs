//! Which units a patch affects.
//!
//! A changed C file is a unit if the configuration builds it, and is included by others perhaps; a changed
//! header affects every unit that includes it, directly or not. The candidates come from a graph of
//! `#include` lines (`includes`), which may name too many but not too few; then each candidate is
//! preprocessed with and without the patch, and only where the result differs is there something to compile.
//! Line numbers are kept out of that comparison (`-P` drops the markers, `__LINE__` is defined away): a
//! header that grew by a line would otherwise affect every `WARN_ON` below it, in thousands of units.
//!
//! What is no C is judged by name: build rules and assembler cannot be livepatched and are refused;
//! documentation and tools are no part of the kernel and are left out, with a note. Headers lead to other things
//! than units, too; `beyond` refuses them.

mod beyond;
mod includes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::cache::CacheError;
use super::compile::{CompileError, Source};
use super::jobs;
use super::kbuild::{KbuildError, Owner, UnitCommand, UnitMap};
use super::overlay::Overlay;
use super::patch::{AmbiguousPath, ApplyError, ChangeKind, Patch, Placed, SourcePath};
use super::progress::Progress;
use super::tree::{Tree, TreeError};

pub use beyond::{Beyond, What};
use includes::IncludeGraph;

/// Why a patch cannot be turned into units.
#[derive(Debug, thiserror::Error)]
pub enum UnitsError {
    /// A hunk does not apply.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A file that the patch changes is not there.
    #[error(
        "{path}: the patch changes it, but it is not in the source of this kernel (in the patch's `{named}` the \
         first directory stands for the tree, as in `a/{path}`)"
    )]
    NoFile {
        /// The file.
        path: SourcePath,
        /// The name in the patch.
        named: String,
    },
    /// A name in the patch that two files have.
    #[error(transparent)]
    AmbiguousPath(#[from] AmbiguousPath),
    /// A file that the patch creates is there.
    #[error("{path}: the patch creates it, but it is in the source of this kernel already")]
    FileExists {
        /// The file.
        path: SourcePath,
    },
    /// Assembler.
    #[error("{path} is assembler; only functions that the compiler made can be livepatched")]
    Assembler {
        /// The file.
        path: SourcePath,
    },
    /// Something that changes how the kernel is built, not what one function does.
    #[error("{path} is part of how the kernel is built; a livepatch cannot change that")]
    BuildRule {
        /// The file.
        path: SourcePath,
    },
    /// A C file that is made or removed.
    #[error(
        "{path} is {change} by the patch; a livepatch can only change files that the kernel was built from"
    )]
    WholeFile {
        /// The file.
        path: SourcePath,
        /// What happens to it.
        change: &'static str,
    },
    /// The patch reaches what no livepatch does.
    #[error("the patch changes more than functions of the kernel:{}", lines(places))]
    Beyond {
        /// All that was found.
        places: Vec<Beyond>,
    },
    /// Nothing that the patch changes is in this kernel.
    #[error("nothing that the patch changes is built by this kernel's configuration: {}", list(paths))]
    NothingBuilt {
        /// The files.
        paths: Vec<SourcePath>,
    },
    /// Files changed, but what the compiler sees did not.
    #[error(
        "the patch changes nothing that the compiler sees in this kernel's configuration: {}",
        list(paths)
    )]
    NothingChanged {
        /// The files.
        paths: Vec<SourcePath>,
    },
    /// A unit is part of more than one object.
    #[error("{path} is compiled into {count} objects in different ways; that is not supported")]
    SeveralObjects {
        /// The unit.
        path: SourcePath,
        /// How many.
        count: usize,
    },
    /// The header is included nearly everywhere.
    #[error("{headers} reach {candidates} units, and at most {limit} are tried: too much of the kernel would have to be compiled", headers = list(headers))]
    TooMany {
        /// The changed headers.
        headers: Vec<SourcePath>,
        /// Units that include them.
        candidates: usize,
        /// The limit.
        limit: usize,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// kbuild could not be asked.
    #[error(transparent)]
    Kbuild(#[from] KbuildError),
    /// The preprocessor failed.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The tree is damaged.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

fn list(paths: &[SourcePath]) -> String {
    let mut shown: Vec<&str> = paths.iter().take(6).map(SourcePath::as_str).collect();
    if paths.len() > 6 {
        shown.push("…");
    }
    shown.join(", ")
}

fn lines(places: &[Beyond]) -> String {
    places.iter().map(|place| format!("\n  {place}")).collect()
}

/// How the C preprocessor is told not to let line numbers through. It warns of that, which is an error where a
/// Makefile makes errors of all warnings (KVM's does).
const WITHOUT_LINES: [&str; 3] = ["-P", "-w", "-D__LINE__=0"];

/// The content of a patch's files in one tree.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    /// Every file with its new content, `None` for a removed one.
    pub(super) contents: Vec<(SourcePath, Option<Vec<u8>>)>,
    /// Files that are no part of the kernel.
    pub(super) left_out: Vec<SourcePath>,
    /// What each patch did to each file, in order.
    pub(super) steps: Vec<Step>,
}

/// What one patch does to one file.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) path: SourcePath,
    /// The content before; empty if the file is new.
    pub(super) old: Vec<u8>,
    /// The content after, and which lines differ.
    pub(super) new: Placed,
}

/// Applies patches, one after the other, to a tree's files in memory.
pub(super) fn apply(patches: &[Patch], tree: &Tree) -> Result<Applied, UnitsError> {
    let mut contents: BTreeMap<SourcePath, Option<Vec<u8>>> = BTreeMap::new();
    let mut left_out = BTreeSet::new();
    let mut steps = Vec::new();
    for change in patches.iter().flat_map(|patch| &patch.files) {
        let has = |path: &str| {
            SourcePath::new(path).is_some_and(|path| contents.contains_key(&path))
                || tree.source().join(path).exists()
        };
        let path = change.locate(has)?;
        match kind(path) {
            Kind::Outside => {
                left_out.insert(path.clone());
                continue;
            }
            Kind::Assembler => return Err(UnitsError::Assembler { path: path.clone() }),
            Kind::BuildRule => return Err(UnitsError::BuildRule { path: path.clone() }),
            Kind::C | Kind::Included => {}
        }
        let file = tree.source().join(path);
        let old = match contents.get(path) {
            Some(content) => content.clone(),
            None if file.is_file() => Some(fs::read(&file).map_err(CacheError::io("read", &file))?),
            None => None,
        };
        let old = match (change.kind, old) {
            (ChangeKind::Created, Some(_)) => return Err(UnitsError::FileExists { path: path.clone() }),
            (ChangeKind::Created, None) => Vec::new(),
            (_, None) => {
                let named = change.named().to_owned();
                return Err(UnitsError::NoFile { path: path.clone(), named });
            }
            (_, Some(old)) => old,
        };
        let new = change.apply(&old)?;
        contents.insert(path.clone(), (change.kind != ChangeKind::Deleted).then(|| new.content.clone()));
        steps.push(Step { path: path.clone(), old, new });
    }
    let (contents, left_out) = (contents.into_iter().collect(), left_out.into_iter().collect());
    Ok(Applied { contents, left_out, steps })
}

enum Kind {
    C,
    /// Headers, and whatever else is included.
    Included,
    Assembler,
    BuildRule,
    Outside,
}

fn kind(path: &SourcePath) -> Kind {
    let mut parts = path.as_str().split('/');
    let top = parts.next().unwrap_or_default();
    let other_arch =
        top == "arch" && parts.next().is_some_and(|arch| arch != "x86" && !arch.starts_with("Kconfig"));
    if other_arch || matches!(top, "Documentation" | "samples" | "LICENSES") {
        return Kind::Outside;
    }
    let name = path.file_name();
    let is_rule = ["Makefile", "Kbuild", "Kconfig"].iter().any(|rule| name.starts_with(rule));
    // What is listed with the build's programs is found again; see `beyond`.
    if top == "tools" {
        return Kind::Outside;
    }
    if is_rule
        || matches!(top, "scripts" | "usr" | "certs")
        || name.ends_with(".lds.S")
        || name.ends_with(".lds")
    {
        return Kind::BuildRule;
    }
    match path.extension() {
        "c" => Kind::C,
        "S" | "s" => Kind::Assembler,
        "asn1" | "y" | "l" | "pl" | "sh" | "awk" | "dts" | "tbl" => Kind::BuildRule,
        "rst" | "md" | "" => Kind::Outside,
        _ => Kind::Included,
    }
}

/// A unit to compile twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AffectedUnit {
    /// How it is compiled.
    pub(super) command: UnitCommand,
}

/// Finds the units that a patch affects. `overlay` has the patch applied.
pub(super) struct Search<'a> {
    pub(super) tree: &'a Tree,
    pub(super) overlay: &'a Overlay,
    pub(super) jobs: usize,
    /// The most units to preprocess because of a header.
    pub(super) limit: usize,
}

/// What a patch comes to in one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Affected {
    /// In the order of their paths.
    pub(super) units: Vec<AffectedUnit>,
    /// Changed files that no unit of this configuration is made of.
    pub(super) unbuilt: Vec<SourcePath>,
}

/// Changed files by what can be said of them at once.
#[derive(Debug, Default)]
struct Sorted {
    /// Units themselves.
    certain: BTreeSet<SourcePath>,
    /// What units are made of.
    included: Vec<SourcePath>,
}

impl Search<'_> {
    /// Finds the units.
    pub(super) fn run(&self, applied: &Applied, progress: &dyn Progress) -> Result<Affected, UnitsError> {
        let units = self.tree.units()?;
        let Sorted { certain, included } = self.sort(applied, &units)?;
        let mut reached: BTreeMap<SourcePath, BTreeSet<SourcePath>> =
            certain.iter().map(|path| (path.clone(), BTreeSet::new())).collect();
        let mut graph = None;
        if !included.is_empty() {
            progress.step("finding the units that include the changed headers");
            let graph = graph.insert(IncludeGraph::of_tree(self.tree, self.jobs)?);
            reached.extend(included.iter().map(|path| (path.clone(), graph.includers(path))));
        }
        let is_unit = |path: &SourcePath| path.extension() == "c" && !units.targets(path).is_empty();
        let candidates: BTreeSet<SourcePath> = reached
            .values()
            .flatten()
            .filter(|path| is_unit(path) && !certain.contains(*path))
            .cloned()
            .collect();
        if candidates.len() > self.limit {
            let (candidates, limit) = (candidates.len(), self.limit);
            return Err(UnitsError::TooMany { headers: included, candidates, limit });
        }
        self.stay_within(applied, &units, graph.as_ref(), &reached)?;
        let unbuilt: Vec<SourcePath> = included
            .iter()
            .filter(|path| !certain.contains(*path) && !reached[*path].iter().any(is_unit))
            .cloned()
            .collect();
        for path in &unbuilt {
            progress.warning(&format!("{path} is not built by this kernel's configuration"));
        }
        if certain.is_empty() && candidates.is_empty() {
            let paths = applied.contents.iter().map(|(path, _)| path.clone()).collect();
            return Err(UnitsError::NothingBuilt { paths });
        }
        let found = self.affected(&units, certain, candidates, progress)?;
        if found.is_empty() {
            return Err(UnitsError::NothingChanged { paths: included });
        }
        Ok(Affected { units: found, unbuilt })
    }

    fn sort(&self, applied: &Applied, units: &UnitMap) -> Result<Sorted, UnitsError> {
        let mut sorted = Sorted::default();
        let also_included = IncludeGraph::included_sources(self.tree, self.jobs)?;
        for (path, content) in &applied.contents {
            let is_unit = !units.targets(path).is_empty();
            let existed = self.tree.source().join(path).is_file();
            match (kind(path), is_unit) {
                (Kind::C, true) if content.is_none() => {
                    return Err(UnitsError::WholeFile { path: path.clone(), change: "removed" });
                }
                (Kind::C, true) => {
                    sorted.certain.insert(path.clone());
                    if also_included.may_have(path) {
                        sorted.included.push(path.clone());
                    }
                }
                (Kind::C, false) if !existed => {
                    return Err(UnitsError::WholeFile { path: path.clone(), change: "added" });
                }
                _ => sorted.included.push(path.clone()),
            }
        }
        Ok(sorted)
    }

    /// Refuses what leads to places that no livepatch reaches.
    fn stay_within(
        &self,
        applied: &Applied,
        units: &UnitMap,
        graph: Option<&IncludeGraph>,
        reached: &BTreeMap<SourcePath, BTreeSet<SourcePath>>,
    ) -> Result<(), UnitsError> {
        let mut places = beyond::find(self, units, graph, reached)?;
        let outside = applied.left_out.iter().filter(|path| path.as_str().starts_with("tools/"));
        let changed: BTreeSet<SourcePath> = reached.keys().chain(outside).cloned().collect();
        let only_units = graph.is_none() && applied.left_out.is_empty();
        if !only_units {
            places.extend(beyond::build_programs(self.tree.source(), self.tree.output(), &changed)?);
        }
        if places.is_empty() { Ok(()) } else { Err(UnitsError::Beyond { places }) }
    }

    fn affected(
        &self,
        units: &UnitMap,
        certain: BTreeSet<SourcePath>,
        candidates: BTreeSet<SourcePath>,
        progress: &dyn Progress,
    ) -> Result<Vec<AffectedUnit>, UnitsError> {
        if !candidates.is_empty() {
            progress
                .step(&format!("preprocessing {} units that include the changed headers", candidates.len()));
        }
        let mut paths: Vec<(SourcePath, bool)> = certain.into_iter().map(|path| (path, true)).collect();
        paths.extend(candidates.into_iter().map(|path| (path, false)));
        paths.sort();
        let found = jobs::map(self.jobs, &paths, |(path, certain)| {
            let mut found = Vec::new();
            let targets = units.targets(path);
            for target in targets {
                let command = self.tree.kbuild.command(path, target)?;
                if *certain || self.differs(&command)? {
                    found.push(AffectedUnit { command });
                }
            }
            // kbuild joins the names of several modules that share a unit.
            let sharing = found.iter().map(|unit| match &unit.command.owner {
                Owner::Module(file) => file.split(':').count(),
                Owner::Vmlinux => 1,
            });
            match sharing.sum() {
                0 | 1 => Ok(found),
                count => Err(UnitsError::SeveralObjects { path: path.clone(), count }),
            }
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    fn differs(&self, command: &UnitCommand) -> Result<bool, UnitsError> {
        let original = Source::original(self.tree).preprocess(command, &WITHOUT_LINES)?;
        let patched = Source::patched(self.tree, self.overlay).preprocess(command, &WITHOUT_LINES)?;
        Ok(original != patched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_judged_by_name() {
        let judged = |path| match kind(&SourcePath::new(path).unwrap()) {
            Kind::C => "c",
            Kind::Included => "included",
            Kind::Assembler => "assembler",
            Kind::BuildRule => "rule",
            Kind::Outside => "outside",
        };
        for (path, expected) in [
            ("fs/namei.c", "c"),
            ("include/linux/fs.h", "included"),
            ("arch/x86/entry/entry_64.S", "assembler"),
            ("fs/Kconfig", "rule"),
            ("fs/ext4/Makefile", "rule"),
            ("arch/x86/kernel/vmlinux.lds.S", "rule"),
            ("arch/x86/entry/syscalls/syscall_64.tbl", "rule"),
            ("arch/arm64/kernel/setup.c", "outside"),
            ("Documentation/x.rst", "outside"),
            ("tools/perf/x.c", "outside"),
            ("tools/objtool/Makefile", "outside"),
            ("arch/x86/lib/x86-opcode-map.txt", "included"),
            ("scripts/mod/modpost.c", "rule"),
        ] {
            assert_eq!(judged(path), expected, "{path}");
        }
    }
}
