//! What a case expects of the differ, and whether it holds.
//!
//! With the compiler that a case was written for, names are compared as they are. Other compilers number
//! their names otherwise and put them elsewhere (`count.0` of GCC is `show.count` of clang), so there the part
//! that comes from the source is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, ensure};
use patch_tools::diff::{Diff, Options, Report, SymbolTable, Verdict, compare};
use patch_tools::elf::{Elf, Place, Section};
use patch_tools::klp;
use patch_tools::module::ObjectName;
use serde::Deserialize;

use super::Case;

/// What a case expects; what is left out is not checked, unless it says otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expected {
    verdict: String,
    /// What a compiler has to be able to do for the case to be one; see `Compiler::lacks`.
    pub(crate) needs: Option<String>,
    object: Option<String>,
    /// Names of changed functions, in any order.
    changed: Option<Vec<String>>,
    /// The same where the compiler's numbers do not matter.
    changed_stems: Option<Vec<String>>,
    /// New functions; none if left out together with `new_stems`.
    new: Option<Vec<String>>,
    new_stems: Option<Vec<String>>,
    new_data: Option<Vec<String>>,
    /// Symbol or section, or `*`, and rule; none if left out.
    refused: Vec<(String, String)>,
    /// Names; none if left out.
    ignored: Vec<String>,
    callbacks: Vec<(String, String)>,
    /// `object:symbol,position` of all livepatch symbols.
    klp: Option<Vec<String>>,
    /// Livepatch symbols of one section.
    klp_in: BTreeMap<String, Vec<String>>,
    /// Sections of the finished object.
    klp_sections: Vec<String>,
    positions: BTreeMap<String, u32>,
    /// Sections that the emitted object has, and has not.
    sections: Vec<String>,
    absent: Vec<String>,
    /// How many entries of their usual size these sections have; bytes where they have none.
    entries: BTreeMap<String, u64>,
    /// Bytes of these sections.
    sizes: BTreeMap<String, u64>,
    /// Functions of the patch that are called directly.
    local_calls: Vec<String>,
}

/// Compares the two objects of a case.
pub(crate) fn run(case: &Case, expected: &Expected) -> Diff {
    let object = match expected.object.as_deref() {
        None | Some("vmlinux") => ObjectName::Vmlinux,
        Some(module) => ObjectName::Module(module.to_owned()),
    };
    let mut table = SymbolTable::new();
    if let Some(symbols) = &case.symbols {
        table.read(&with_helpers(&renamed(symbols, &case.orig), case), &object).unwrap();
    }
    let mut options = Options::new(object);
    options.symbols = case.symbols.as_ref().map(|_| &table);
    compare(&case.orig, &case.patched, &options).unwrap()
}

/// The symbols of a case with the names that the compiler at hand has given to the file's own.
fn renamed(symbols: &[u8], orig: &[u8]) -> Vec<u8> {
    let elf = Elf::parse(orig).unwrap();
    let own: Vec<&str> =
        elf.symbols().iter().map(|symbol| symbol.name).filter(|name| name.contains('.')).collect();
    let text = std::str::from_utf8(symbols).unwrap();
    let line = |line: &str| {
        let (start, name) = line.rsplit_once(' ').unwrap_or(("", line));
        let twins: Vec<&str> =
            own.iter().copied().filter(|own| source_name(own) == source_name(name)).collect();
        match twins[..] {
            [twin] if !own.contains(&name) && name.contains('.') => format!("{start} {twin}\n"),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect::<String>().into_bytes()
}

/// The symbols of a case, and those that a compiler uses by itself, which every kernel that is compiled so exports.
fn with_helpers(symbols: &[u8], case: &Case) -> Vec<u8> {
    let mut helpers = BTreeSet::new();
    for object in [&case.orig, &case.patched] {
        let elf = Elf::parse(object).unwrap();
        let used = elf.symbols().iter().filter(|symbol| symbol.place == Place::Undefined);
        let is_helper = |name: &&str| ["__x86_", "__stack_chk_"].iter().any(|kind| name.starts_with(kind));
        helpers.extend(used.map(|symbol| symbol.name).filter(is_helper).map(str::to_owned));
    }
    let text = std::str::from_utf8(symbols).unwrap();
    let at = text.lines().position(|line| line.contains('\t')).unwrap_or(usize::MAX);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let of_modules = lines.split_off(at.min(lines.len()));
    let known: BTreeSet<&str> = text.split_whitespace().collect();
    for (number, helper) in helpers.iter().filter(|helper| !known.contains(helper.as_str())).enumerate() {
        lines.push(format!("ffffffff8f{number:04x}00 T {helper}"));
        lines.push(format!("ffffffff8f{number:04x}80 r __ksymtab_{helper}"));
    }
    lines.extend(of_modules);
    (lines.join("\n") + "\n").into_bytes()
}

/// How names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// As they are.
    Exact,
    /// By what the source has given to them.
    OfTheSource,
}

impl Names {
    fn of(self, name: &str) -> String {
        match self {
            Self::Exact => name.to_owned(),
            Self::OfTheSource => source_name(name),
        }
    }

    fn set(self, names: impl IntoIterator<Item = impl AsRef<str>>) -> BTreeSet<String> {
        names.into_iter().map(|name| self.of(name.as_ref())).collect()
    }

    /// `object:symbol,position`.
    fn symbol(self, symbol: &str) -> String {
        let (object, rest) = symbol.split_once(':').unwrap_or(("", symbol));
        let (name, position) = rest.rsplit_once(',').unwrap_or((rest, ""));
        format!("{object}:{},{position}", self.of(name))
    }

    fn section(self, section: &str) -> String {
        let base = [".text.unlikely", ".text", ".rodata", ".data", ".bss", ".klp.rela.vmlinux.text"]
            .into_iter()
            .find(|base| section.strip_prefix(base).is_some_and(|rest| rest.starts_with('.')));
        match base {
            Some(base) => format!("{base}.{}", self.of(&section[base.len() + 1..])),
            None => section.to_owned(),
        }
    }
}

/// `count` of GCC's `count.0` and clang's `show.count`; `show.cold` and `show.part` keep what they are.
fn source_name(name: &str) -> String {
    let name = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').filter(|part| !is_number(part)).collect();
    match parts[..] {
        [] => name.to_owned(),
        [first, .., "cold" | "part" | "isra" | "constprop" | "llvm"] => {
            format!("{first}.{}", parts[parts.len() - 1])
        }
        ["str1" | "str2" | "cst16", ..] => name.to_owned(),
        [.., last] => last.to_owned(),
    }
}

/// Compares a case and looks whether everything is as it says.
pub(crate) fn check(case: &Case, names: Names) -> anyhow::Result<()> {
    let expected: Expected = serde_json::from_str(&case.expected)?;
    let diff = run(case, &expected);
    let report = diff.report();
    let text = serde_json::to_string_pretty(report)?;
    report_holds(&diff, &expected, names).with_context(|| text.clone())?;
    ensure!(diff.object().is_some() == (report.verdict == Verdict::Changed), "an object: {text}");
    ensure!(diff.explanations().len() == report.changed_functions.len(), "explanations: {text}");
    if let Some(object) = diff.object() {
        object_holds(object, &diff, &expected, names).context(text)?;
    }
    let same = compare(&case.orig, &case.orig, &Options::new(ObjectName::Vmlinux))?;
    let unknown = same.report().refused.iter().all(|one| one.reason.id() == "special-section");
    ensure!(same.report().changed_functions.is_empty() && unknown, "with itself: {:?}", same.report());
    Ok(())
}

fn report_holds(diff: &Diff, expected: &Expected, names: Names) -> anyhow::Result<()> {
    let report = diff.report();
    let verdict = serde_json::to_value(report.verdict)?;
    ensure!(verdict == expected.verdict.as_str(), "verdict {verdict}, expected {}", expected.verdict);
    let refused = report.refused.iter().map(|one| {
        let json = serde_json::to_value(one).unwrap_or_default();
        let subject = json.get("symbol").or(json.get("section")).and_then(|name| name.as_str());
        (names.section(&names.of(subject.unwrap_or_default())), one.reason.id().to_owned())
    });
    let any = expected.refused.iter().any(|(subject, _)| subject == "*");
    let refused = refused.map(|(subject, rule)| (if any { "*".to_owned() } else { subject }, rule));
    let wanted =
        expected.refused.iter().map(|(subject, rule)| (names.section(&names.of(subject)), rule.clone()));
    same("refused", refused.collect::<BTreeSet<_>>(), wanted.collect())?;
    if let Some(changed) = &expected.changed {
        same("changed", names.set(&report.changed_functions), names.set(changed))?;
    }
    if let Some(changed) = &expected.changed_stems {
        same("changed", stems(&report.changed_functions), changed.iter().cloned().collect())?;
    }
    if report.verdict != Verdict::Refused {
        match &expected.new_stems {
            Some(new) => same("new", stems(&report.new_functions), new.iter().cloned().collect())?,
            None => same("new", names.set(&report.new_functions), names.set(expected.new.iter().flatten()))?,
        }
        let ignored = names.set(report.ignored.iter().map(|ignored| &ignored.function));
        same("ignored", ignored, names.set(&expected.ignored))?;
    }
    if let Some(new) = &expected.new_data {
        same("new data", names.set(&report.new_data), names.set(new))?;
    }
    let callbacks: Vec<(String, String)> =
        report.callbacks.iter().map(|one| (one.kind.name().to_owned(), one.function.clone())).collect();
    same("callbacks", callbacks, expected.callbacks.clone())?;
    for (name, position) in &expected.positions {
        let found = report.functions.iter().find(|function| names.of(&function.name) == names.of(name));
        same(name, found.map(|function| function.sympos), Some(*position))?;
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> anyhow::Result<()> {
    ensure!(found == expected, "{what}: {found:?}, expected {expected:?}");
    Ok(())
}

fn stems(names: &[String]) -> BTreeSet<String> {
    names.iter().map(|name| name.split('.').next().unwrap_or_default().to_owned()).collect()
}

fn object_holds(object: &[u8], diff: &Diff, expected: &Expected, names: Names) -> anyhow::Result<()> {
    let report = diff.report();
    let elf = Elf::parse(object)?;
    let symbols = |filter: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
        let relocations = report.klp_relocations.iter().filter(|one| filter(&one.section));
        relocations
            .map(|one| names.symbol(&format!("{}:{},{}", one.object, one.symbol, one.sympos)))
            .collect()
    };
    if let Some(klp) = &expected.klp {
        same("livepatch symbols", symbols(&|_| true), klp.iter().map(|one| names.symbol(one)).collect())?;
    }
    for (section, wanted) in &expected.klp_in {
        let found = symbols(&|name| names.section(name) == names.section(section));
        let found = found.iter().map(|symbol| symbol.split([':', ',']).nth(1).unwrap_or_default().to_owned());
        same(section, found.collect(), names.set(wanted))?;
    }
    let sections: BTreeSet<String> =
        elf.sections().iter().map(|section| names.section(section.name)).collect();
    for section in &expected.sections {
        ensure!(sections.contains(&names.section(section)), "no {section} in {sections:?}");
    }
    for section in &expected.absent {
        ensure!(!sections.contains(&names.section(section)), "{section} in {sections:?}");
    }
    for (section, count) in &expected.entries {
        let size = elf.section(section).with_context(|| format!("no {section}"))?.size;
        let entry = match section.as_str() {
            "__bug_table" | "__ex_table" | ".altinstructions" => 12,
            ".smp_locks" | ".return_sites" => 4,
            _ => 1,
        };
        same(section, size, count * entry)?;
    }
    for (section, wanted) in &expected.sizes {
        same(section, elf.section(section).map(|section| section.size), Some(*wanted))?;
    }
    for function in &expected.local_calls {
        ensure!(calls(&elf, function, names)?, "no call of {function}");
    }
    zero_fields(&elf)?;
    has_records(&elf, report)?;
    finished_holds(object, diff, expected)
}

/// Every field that a relocation fills in is zero: the kernel's module loader insists.
fn zero_fields(elf: &Elf<'_>) -> anyhow::Result<()> {
    for table in elf.sections().iter().filter(|section| section.kind == object::elf::SHT_RELA) {
        let target = &elf.sections()[table.info as usize];
        for relocation in elf.relocations(table)? {
            let field = target.data.get(relocation.offset as usize..).unwrap_or_default();
            let zero =
                relocation.kind == object::elf::R_X86_64_NONE || field.iter().take(4).all(|&byte| byte == 0);
            ensure!(zero, "{}+{:#x} is not zero", target.name, relocation.offset);
        }
    }
    Ok(())
}

/// `endbr64`.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Every replaced function is in the list of places that ftrace may rewrite, right at its start.
fn has_records(elf: &Elf<'_>, report: &Report) -> anyhow::Result<()> {
    let mut listed = BTreeSet::new();
    let of_mcount = |section: &&Section<'_>| {
        section.kind == object::elf::SHT_RELA
            && ["__mcount_loc", "__patchable_function_entries"]
                .contains(&elf.sections()[section.info as usize].name)
    };
    for table in elf.sections().iter().filter(of_mcount) {
        for relocation in elf.relocations(table)? {
            let symbol = &elf.symbols()[relocation.symbol];
            if let Place::Section(section) = symbol.place {
                listed.insert((section, symbol.value.wrapping_add_signed(relocation.addend)));
            }
        }
    }
    for function in &report.functions {
        let symbol = elf.symbols().iter().find(|symbol| symbol.name == function.new_symbol);
        let symbol = symbol.with_context(|| format!("no {}", function.new_symbol))?;
        let Place::Section(section) = symbol.place else { anyhow::bail!("{symbol:?}") };
        // Behind the landing pad of indirect branches, where there is one.
        let code = elf.sections()[section].data.get(symbol.value as usize..).unwrap_or_default();
        let entry = symbol.value + if code.starts_with(&ENDBR64) { ENDBR64.len() as u64 } else { 0 };
        ensure!(listed.contains(&(section, entry)), "no record of {} in {listed:?}", function.name);
    }
    Ok(())
}

fn finished_holds(object: &[u8], diff: &Diff, expected: &Expected) -> anyhow::Result<()> {
    let finished = klp::finish(&link(&[object]))?;
    let elf = Elf::parse(&finished)?;
    let mut entries = 0;
    for section in elf.sections().iter().filter(|section| section.name.starts_with(".klp.rela.")) {
        entries += elf.relocations(section)?.len();
    }
    same("livepatch relocations", entries, diff.report().klp_relocations.len())?;
    for section in &expected.klp_sections {
        ensure!(elf.section(section).is_some(), "no {section}");
    }
    for symbol in elf.symbols() {
        let unfinished = symbol.name.starts_with(".klp.ref.") || symbol.name.starts_with("__klp_");
        ensure!(!unfinished, "{}", symbol.name);
        same(symbol.name, symbol.place == Place::Reserved(0xff20), symbol.name.starts_with(".klp.sym."))?;
    }
    ensure!(
        matches!(klp::finish(&finished), Err(klp::FinishError::Finished(_))) || entries == 0,
        "finished twice"
    );
    Ok(())
}

fn calls(elf: &Elf<'_>, function: &str, names: Names) -> anyhow::Result<bool> {
    for table in elf.sections().iter().filter(|section| section.kind == object::elf::SHT_RELA) {
        let found = elf.relocations(table)?.iter().any(|relocation| {
            let symbol = &elf.symbols()[relocation.symbol];
            names.of(symbol.name) == names.of(function)
                && matches!(symbol.place, Place::Section(_))
                && matches!(relocation.kind, object::elf::R_X86_64_PC32 | object::elf::R_X86_64_PLT32)
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `ld -r` of objects.
pub(crate) fn link(objects: &[&[u8]]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let inputs: Vec<String> = (0..objects.len()).map(|number| format!("in{number}.o")).collect();
    for (name, object) in inputs.iter().zip(objects) {
        std::fs::write(directory.path().join(name), object).unwrap();
    }
    let mut command = Command::new("ld");
    let status = command.args(["-r", "-o", "out.o"]).args(&inputs).current_dir(directory.path()).status();
    assert!(status.unwrap().success());
    std::fs::read(directory.path().join("out.o")).unwrap()
}
