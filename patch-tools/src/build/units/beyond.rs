//! Where a patch goes that no livepatch reaches.
//!
//! A kernel is more than its C functions. A header can change assembler, constants that are computed for
//! assembler, linker scripts, programs that are built beside the kernel (the vDSO, boot and wake-up code, the EFI
//! stub), and programs that the build itself runs. None of that is rebuilt here, so a patch that changes it is
//! refused, each place with its reason. What only might be affected is looked at: preprocessed with and without the
//! patch, or compiled for its constants. What cannot be looked at counts as changed.
//!
//! Build rules that read a file (to generate a table from a header) are found by the file's name in a Makefile, and
//! programs of the build by the dependencies that kbuild wrote down when it prepared the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use super::super::cache::CacheError;
use super::super::compile::Source;
use super::super::jobs;
use super::super::kbuild::{Target, UnitCommand, UnitMap};
use super::super::patch::SourcePath;
use super::includes::IncludeGraph;
use super::{Search, UnitsError, WITHOUT_LINES};

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// The changed files that lead there.
    pub changed: Vec<SourcePath>,
    /// What they change there.
    pub what: What,
}

/// What a patch changes and a livepatch does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Assembler code of the kernel.
    Assembler(SourcePath),
    /// Constants of structures, for assembler.
    Offsets {
        /// The file that computes them.
        file: SourcePath,
        /// Those that change.
        constants: Vec<String>,
    },
    /// How the kernel is laid out.
    LinkerScript(SourcePath),
    /// Code that is linked into another program than the kernel.
    OtherProgram {
        /// The file.
        file: SourcePath,
        /// The program.
        program: &'static str,
    },
    /// A program that the build runs.
    BuildProgram(String),
    /// A build rule that reads the changed file.
    BuildRule(String),
}

impl fmt::Display for Beyond {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = super::list(&self.changed);
        match &self.what {
            What::Assembler(file) => {
                write!(formatter, "{changed}: changes {file}, which is assembler and cannot be livepatched")
            }
            What::Offsets { file, constants } => {
                let shown: Vec<&str> = constants.iter().take(4).map(String::as_str).collect();
                write!(
                    formatter,
                    "{changed}: changes constants that {file} computes for assembler code: {}",
                    shown.join(", ")
                )
            }
            What::LinkerScript(file) => {
                write!(formatter, "{changed}: changes the linker script {file}; the kernel is linked already")
            }
            What::OtherProgram { file, program } => {
                write!(formatter, "{changed}: changes {file}, which is part of {program}, not of the kernel")
            }
            What::BuildProgram(program) => {
                write!(formatter, "{changed}: the build's own program {program} is compiled from it")
            }
            What::BuildRule(makefile) => {
                write!(formatter, "{changed}: a rule in {makefile} reads it to generate code")
            }
        }
    }
}

/// What else than a unit a file may become.
enum Candidate {
    /// Something to preprocess twice, with what it is if that differs.
    Text(Target, What),
    /// A file whose constants count.
    Offsets(Target),
}

/// Looks at all places that the changed files may lead to.
pub(super) fn find(
    search: &Search<'_>,
    units: &UnitMap,
    graph: Option<&IncludeGraph>,
    changed: &BTreeMap<SourcePath, BTreeSet<SourcePath>>,
) -> Result<Vec<Beyond>, UnitsError> {
    let mut leading: BTreeMap<SourcePath, Vec<SourcePath>> = BTreeMap::new();
    let mut found = Vec::new();
    for (path, reached) in changed {
        // A Makefile that names a unit compiles it.
        let is_unit = !units.targets(path).is_empty();
        for makefile in graph.filter(|_| !is_unit).into_iter().flat_map(|graph| graph.rules_reading(path)) {
            found.push(Beyond { changed: vec![path.clone()], what: What::BuildRule(makefile.to_owned()) });
        }
        for file in reached.iter().chain([path]) {
            leading.entry(file.clone()).or_default().push(path.clone());
        }
    }
    let mut candidates: Vec<(SourcePath, Vec<SourcePath>, Candidate)> = Vec::new();
    for (file, changed) in leading {
        for candidate in candidates_of(search, units, &file) {
            candidates.push((file.clone(), changed.clone(), candidate));
        }
    }
    let judged = jobs::map(search.jobs, &candidates, |(file, changed, candidate)| {
        let what = judge(search, file, candidate)?;
        Ok::<_, UnitsError>(what.map(|what| Beyond { changed: changed.clone(), what }))
    })?;
    found.extend(judged.into_iter().flatten());
    Ok(found)
}

fn candidates_of(search: &Search<'_>, units: &UnitMap, file: &SourcePath) -> Vec<Candidate> {
    let exists = |path: &str| search.tree.source().join(path).is_file();
    let mut candidates = Vec::new();
    if file.extension() == "S" && !exists(&format!("{}.c", file.stem())) {
        let targets = units.targets(file).iter().cloned();
        candidates.extend(targets.map(|target| Candidate::Text(target, What::Assembler(file.clone()))));
    }
    for target in units.others_like(file) {
        let stem = target.stem();
        let own = stem == file.stem();
        // `purgatory/sha256.o` of `lib/crypto/sha256.c`; kbuild tells whether this is the file.
        let elsewhere = || !["c", "S", "lds.S"].iter().any(|end| exists(&format!("{stem}.{end}")));
        if !(own || elsewhere()) || !matches!(file.extension(), "c" | "S") {
            continue;
        }
        candidates.push(match target.object.rsplit_once('.').map(|(_, end)| end) {
            Some("s") => Candidate::Offsets(target.of_object()),
            Some("lds") if is_in_kernel(&stem) => Candidate::Text(target, What::LinkerScript(file.clone())),
            Some("o" | "lds") => match program_of(&stem) {
                Some(program) => Candidate::Text(target, What::OtherProgram { file: file.clone(), program }),
                // Made for the build, such as the objects of a host program.
                None => continue,
            },
            _ => continue,
        });
    }
    candidates
}

fn is_in_kernel(script: &str) -> bool {
    script == "arch/x86/kernel/vmlinux"
}

/// The program that objects of a directory are linked into, where that is not the kernel.
pub(super) fn program_of(path: &str) -> Option<&'static str> {
    [
        ("arch/x86/boot/compressed/", "the decompressor, which has run"),
        ("arch/x86/boot/", "the boot code, which has run"),
        ("arch/x86/realmode/rm/", "the code in which processors start and wake up"),
        ("arch/x86/purgatory/", "the code between two kernels"),
        ("drivers/firmware/efi/libstub/", "the EFI stub, which has run"),
    ]
    .into_iter()
    .find_map(|(directory, program)| path.starts_with(directory).then_some(program))
    .or_else(|| is_in_vdso(path).then_some("the vDSO, which processes have mapped"))
}

/// Some units of that directory are kernel code.
fn is_in_vdso(path: &str) -> bool {
    const KERNEL: [&str; 4] = ["vma", "extable", "vdso32-setup", "vdso2c"];
    path.strip_prefix("arch/x86/entry/vdso/").is_some_and(|rest| {
        let stem = rest.split('.').next().unwrap_or(rest);
        !KERNEL.contains(&stem)
    })
}

/// What of the file the patch changes; nothing if it comes out the same.
fn judge(search: &Search<'_>, file: &SourcePath, candidate: &Candidate) -> Result<Option<What>, UnitsError> {
    let sources = [Source::original(search.tree), Source::patched(search.tree, search.overlay)];
    match candidate {
        Candidate::Text(target, what) => {
            let Ok(command) = search.tree.kbuild.command_of(file, target) else {
                return Ok(Some(what.clone()));
            };
            let Some(command) = command else { return Ok(None) };
            let [original, patched] = sources.map(|source| source.preprocess(&command, &WITHOUT_LINES).ok());
            Ok((original.is_none() || original != patched).then(|| what.clone()))
        }
        Candidate::Offsets(target) => {
            let Some(command) = search.tree.kbuild.command_of(file, target)? else { return Ok(None) };
            let [original, patched] = sources.map(|source| constants(source, &command));
            let (original, patched) = (original?, patched?);
            let names: BTreeSet<&String> = original.keys().chain(patched.keys()).collect();
            let shown = |value: Option<&String>| value.map_or("none", |value| value.as_str()).to_owned();
            let differing: Vec<String> = names
                .into_iter()
                .filter(|name| original.get(*name) != patched.get(*name))
                .map(|name| {
                    format!("{name} from {} to {}", shown(original.get(name)), shown(patched.get(name)))
                })
                .collect();
            Ok((!differing.is_empty()).then(|| What::Offsets { file: file.clone(), constants: differing }))
        }
    }
}

/// The constants that a file computes (`include/linux/kbuild.h`): `.ascii "->NAME $value expression"`.
fn constants(source: Source<'_>, command: &UnitCommand) -> Result<BTreeMap<String, String>, UnitsError> {
    let text = source.assembly(command)?;
    Ok(parse_constants(&String::from_utf8_lossy(&text)))
}

fn parse_constants(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("\"->")?;
            let mut words = rest.split([' ', '"']);
            let (name, value) = (words.next()?, words.next()?);
            (!name.is_empty()).then(|| (name.to_owned(), value.trim_start_matches('$').to_owned()))
        })
        .collect()
}

/// Programs of the build that are compiled from a changed file, from what kbuild wrote down when they were made.
pub(super) fn build_programs(
    source: &Path,
    output: &Path,
    changed: &BTreeSet<SourcePath>,
) -> Result<Vec<Beyond>, CacheError> {
    let mut found = Vec::new();
    let mut waiting = vec![output.to_owned()];
    while let Some(directory) = waiting.pop() {
        let entries = fs::read_dir(&directory).map_err(CacheError::io("list", &directory))?;
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // Configuration marks only.
                if name != "config" || !directory.ends_with("include") {
                    waiting.push(path);
                }
                continue;
            }
            let Some(product) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".cmd")) else {
                continue;
            };
            let place = directory.strip_prefix(output).unwrap_or(&directory).join(product);
            let place = place.to_string_lossy().into_owned();
            if !is_build_program(&place) {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(CacheError::io("read", &path))?;
            let read: BTreeSet<SourcePath> = dependencies(&text, source).collect();
            let reasons: Vec<SourcePath> = changed.intersection(&read).cloned().collect();
            if !reasons.is_empty() {
                found.push(Beyond { changed: reasons, what: What::BuildProgram(place) });
            }
        }
    }
    found.sort_by_key(Beyond::to_string);
    Ok(found)
}

/// Constants are compared as such. What checks modules and signs them makes no part of the kernel.
fn is_build_program(place: &str) -> bool {
    const HARMLESS: [&str; 5] =
        ["scripts/mod/", "scripts/kconfig/", "scripts/basic/", "scripts/sign-file", "scripts/sorttable"];
    !place.ends_with(".s") && !HARMLESS.iter().any(|harmless| place.starts_with(harmless))
}

/// The files of the source that `fixdep` lists in a `.cmd` file.
fn dependencies<'t>(text: &'t str, source: &Path) -> impl Iterator<Item = SourcePath> + 't {
    let top = format!("{}/", source.display());
    text.lines().filter_map(move |line| {
        let line = line.trim_end_matches('\\').trim();
        let path = line.rsplit_once(":= ").map_or(line, |(_, path)| path);
        let below = path.strip_prefix(&top)?;
        SourcePath::new(&super::includes::normalized("", below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_read_from_what_the_compiler_prints() {
        let text = "#APP\n\t.ascii \"->TASK_threadsp $6232 offsetof(struct task_struct, thread.sp)\"\n.ascii \"->\"\n\
                    .ascii \"->#define X\"\n";
        let read = parse_constants(text);
        assert_eq!(read["TASK_threadsp"], "6232");
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn programs_of_the_build_are_known_by_what_they_were_made_from() {
        let root = tempfile::tempdir().unwrap();
        let (source, output) = (root.path().join("src"), root.path().join("out"));
        fs::create_dir_all(output.join("scripts/selinux")).unwrap();
        let top = source.display();
        let record = format!(
            "cmd_x := gcc\n\nsource_x := {top}/scripts/selinux/g.c\n\ndeps_x := \\\n    $(wildcard include/config/A) \\\n  \
             {top}/scripts/selinux/../../security/classmap.h \\\n  /usr/include/stdio.h \\\n"
        );
        fs::write(output.join("scripts/selinux/.genheaders.cmd"), record).unwrap();
        let changed = |path| BTreeSet::from([SourcePath::new(path).unwrap()]);
        let found = build_programs(&source, &output, &changed("security/classmap.h")).unwrap();
        assert_eq!(
            found[0].to_string(),
            "security/classmap.h: the build's own program scripts/selinux/genheaders is compiled from it"
        );
        assert_eq!(build_programs(&source, &output, &changed("scripts/selinux/g.c")).unwrap().len(), 1);
        assert_eq!(build_programs(&source, &output, &changed("fs/a.h")).unwrap(), []);
    }

    #[test]
    fn programs_beside_the_kernel_are_known_by_their_place() {
        for path in
            ["arch/x86/boot/main", "arch/x86/entry/vdso/vclock_gettime", "arch/x86/entry/vdso/vdso32/note"]
        {
            assert!(program_of(path).is_some(), "{path}");
        }
        for path in ["arch/x86/entry/vdso/vma", "arch/x86/realmode/init", "fs/namei"] {
            assert_eq!(program_of(path), None, "{path}");
        }
    }
}
