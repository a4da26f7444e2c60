//! What a reviewer should know about a fix before it goes to running kernels.
//!
//! A livepatch replaces functions while their data lives on, while tasks sleep in them, and while old and new code run
//! side by side. The compiler and the differ prove that a module can be made; whether it should be loaded is
//! for a person, and this finds what that person has to look at.
//!
//! | looked for | from | in |
//! |---|---|---|
//! | what `build` refuses; static data; init code; exports | the comparison of the objects | this file |
//! | structures, unions, enumerations | DWARF of both versions, BTF of the running kernel | [`super::layout`] |
//! | locks and reference counts | lines that the patch adds and removes | `text`, `words`, `effects` |
//! | waiting | calls in the running version | `stall`, `words` |
//! | functions pulled in | changed functions that no changed line is in | `text` |
//!
//! Names and lines are judged by rules of thumb. A finding is a question, not a verdict, and no finding is no proof.

mod checklist;
mod effects;
mod stall;
mod text;
mod words;

use std::collections::BTreeSet;

pub use checklist::{Check, LintFinding, LintReport, Risk, Topic};

use super::analysis::{AnalysedUnit, Analysis, Ground, UnitLayout};
use super::cache::Cache;
use super::compile::Detail;
use super::error::{BuildError, Refusal};
use super::progress::{PhaseClock, Progress};
use super::report::UnitReport;
use super::request::Request;
use super::units::Step;
use crate::diff::{Subject, Verdict};
use crate::elf::Elf;
use crate::module::ObjectName;
use effects::Effects;
use stall::Calls;
use text::Text;
use words::Waiting;

/// Findings as they come in.
#[derive(Default)]
struct Findings(Vec<(Topic, LintFinding)>);

impl Findings {
    fn add(&mut self, topic: Topic, risk: Risk, file: &str, subject: &str, detail: impl Into<String>) {
        let (file, subject, detail) = (file.to_owned(), subject.to_owned(), detail.into());
        self.0.push((topic, LintFinding { risk, file, subject, detail }));
    }
}

/// Looks at the patches of a request.
pub fn lint(cache: &Cache, request: &Request, progress: &dyn Progress) -> Result<LintReport, BuildError> {
    let mut clock = PhaseClock::start(progress);
    let ground = Ground::prepare(cache, request, &mut clock)?;
    let analysis = Analysis::of(&ground, Detail::Types, request.jobs, &mut clock)?;
    progress.step("looking at types, calls and changed lines");
    let mut findings = Findings::default();
    refusals(&analysis, &mut findings);
    let effects = Effects::of(&ground.applied.steps);
    effects.judge(&mut findings);
    let changed: Vec<&AnalysedUnit> =
        analysis.units.iter().filter(|unit| unit.report.verdict != Verdict::Unchanged).collect();
    for unit in changed {
        if let Some(layout) = &unit.layout {
            layouts(unit, layout, &analysis, &mut findings);
        }
        functions(unit, &analysis, effects.touched(), &mut findings)?;
    }
    let checks: Vec<Check> = Topic::ALL
        .into_iter()
        .map(|topic| {
            let of_topic = findings.0.iter().filter(|(of, _)| *of == topic);
            Check::new(topic, of_topic.map(|(_, finding)| finding.clone()).collect())
        })
        .collect();
    Ok(LintReport {
        schema: 1,
        kernel: ground.kernel.tree.release.clone(),
        risk: checks.iter().map(|check| check.risk).max().unwrap_or(Risk::None),
        livepatchable: analysis.accepted().is_ok(),
        checks,
        units: analysis.units.iter().map(UnitReport::new).collect(),
        left_out: ground.left_out(),
    })
}

/// What `build` has to know of a patch: types, and with them the CRCs of exports, only change where something outside of
/// the functions' statements does.
///
/// The files are compared and not the changed lines, since a line that changes can make another one a comment.
pub(super) fn detail_needed(ground: &Ground) -> Detail {
    let differs = |step: &Step| Text::read(&step.old).outside().ne(Text::read(&step.new.content).outside());
    if ground.applied.steps.iter().any(differs) { Detail::Types } else { Detail::Code }
}

/// What `build` would say, and new data.
fn refusals(analysis: &Analysis<'_>, findings: &mut Findings) {
    for refusal in &analysis.refusals {
        let topic = match refusal.rule() {
            rule if rule.starts_with("data-") || rule.starts_with("static-local-") => Topic::Statics,
            "init-changed" | "reference-to-init" => Topic::InitCode,
            "crc-changed" | "export-removed" | "export-changed" => Topic::Exports,
            _ => Topic::Buildable,
        };
        let (unit, subject, detail) = match refusal {
            Refusal::Diff { unit, refused } => {
                let subject = match &refused.subject {
                    Subject::Symbol(name) => name.clone(),
                    Subject::Section(name) => format!("section {name}"),
                    Subject::File => "the file".to_owned(),
                };
                (unit, subject, refused.reason.to_string())
            }
            Refusal::Abi(error) => (error.unit(), error.symbol().to_owned(), error.to_string()),
            // Told with more that is known of them.
            Refusal::Layout { .. } => continue,
            Refusal::NotShipped { unit, function, .. } | Refusal::WrongPosition { unit, function, .. } => {
                (unit, function.clone(), refusal.to_string())
            }
        };
        findings.add(topic, Risk::High, unit.as_str(), &subject, detail);
    }
    if analysis.refusals.is_empty() && analysis.accepted().is_err() {
        for unit in &analysis.units {
            let detail = "the compiler makes the same code of both versions: there is nothing to patch";
            findings.add(Topic::Buildable, Risk::High, unit.command.source.as_str(), "the file", detail);
        }
    }
    for unit in &analysis.units {
        for name in &unit.report.new_data {
            let detail =
                "is new: it starts with its initial value when the livepatch is loaded, and goes with it";
            findings.add(Topic::Statics, Risk::Low, unit.command.source.as_str(), name, detail);
        }
    }
}

/// Types that differ between the two versions of a unit, or between the patched one and the running kernel.
fn layouts(unit: &AnalysedUnit, layout: &UnitLayout, analysis: &Analysis<'_>, findings: &mut Findings) {
    let file = unit.command.source.as_str();
    let btf = analysis.shipped.image.btf().ok().flatten();
    let shipped = |name: &str| btf.as_ref()?.structure(name.strip_prefix("struct ")?);
    for change in &layout.changes {
        let (name, mut how) = (&change.type_name, change.how.clone());
        let before = layout.original.named.get(name).map(|one| one.size);
        if shipped(name).is_some_and(|shipped| Some(u64::from(shipped.size)) == before) {
            how.push_str(" (the running kernel's BTF has the old layout)");
        }
        let risk = match () {
            () if change.keeps_meaning => Risk::Low,
            () if layout.allows(change) => {
                how.push_str("; the author of the patch answers for it");
                Risk::Medium
            }
            () => Risk::High,
        };
        findings.add(Topic::DataLayout, risk, file, name, how);
    }
    // Used by the patched version only, so that there is no original to compare with but the running one.
    for (name, after) in
        layout.patched.named.iter().filter(|(name, _)| !layout.original.named.contains_key(*name))
    {
        let Some(shipped) = shipped(name).filter(|shipped| u64::from(shipped.size) != after.size) else {
            continue;
        };
        let how = format!("{} bytes, but {} in the running kernel's BTF", after.size, shipped.size);
        findings.add(Topic::DataLayout, Risk::High, file, name, how);
    }
}

/// What there is to say about the functions that a unit replaces.
fn functions(
    unit: &AnalysedUnit,
    analysis: &Analysis<'_>,
    touched: &BTreeSet<String>,
    findings: &mut Findings,
) -> Result<(), BuildError> {
    let file = unit.command.source.as_str();
    let unreadable = |source| BuildError::Object { unit: unit.command.source.clone(), source };
    let calls = Calls::read(&unit.original).map_err(unreadable)?;
    let elf = Elf::parse(&unit.original).map_err(unreadable)?;
    for function in &unit.report.changed_functions {
        stalls(function, file, &calls, findings);
        let base = function.split('.').next().unwrap_or(function);
        let is_touched = touched.contains(base) || touched.iter().any(|name| is_entry_of(base, name));
        if !is_touched {
            let why = unit.explanations.iter().find(|one| one.function == *function);
            let detail = match why {
                Some(why) => {
                    format!("no line of it is in the patch; {} differs at {:#x}", why.place, why.offset)
                }
                None => "no line of it is in the patch".to_owned(),
            };
            findings.add(Topic::PulledIn, Risk::Low, file, function, detail);
        }
        let exported = match unit.command.owner.object() {
            ObjectName::Vmlinux => analysis.shipped.image.exports().contains_key(base),
            _ => elf.symbols().iter().any(|symbol| symbol.name.strip_prefix("__ksymtab_") == Some(base)),
        };
        if exported {
            findings.add(Topic::Exports, Risk::Low, file, function, "is exported to modules");
        }
        if is_system_call(base) {
            findings.add(Topic::Exports, Risk::Low, file, function, "is the entry of a system call");
        }
    }
    Ok(())
}

fn stalls(function: &str, file: &str, calls: &Calls, findings: &mut Findings) {
    if words::is_on_every_stack(function) {
        let detail = "is on the stack of tasks that never leave it: the transition would not complete";
        return findings.add(Topic::Stall, Risk::High, file, function, detail);
    }
    let waits = calls.waits(function);
    if calls.is_thread_loop(function) {
        let detail =
            "is the main loop of a kernel thread, which it does not leave: the transition would not complete";
        return findings.add(Topic::Stall, Risk::High, file, function, detail);
    }
    if let Some((waiting, chain)) = waits.last_key_value() {
        let (risk, how) = match waiting {
            Waiting::Event => (Risk::Medium, "may wait for an event, without a limit"),
            Waiting::Timed => (Risk::Low, "may sleep for a time"),
            Waiting::Lock => (Risk::Low, "may wait for a lock"),
        };
        findings.add(Topic::Stall, risk, file, function, format!("{how}: {}", chain.join(" -> ")));
    }
}

/// `SYSCALL_DEFINE1(open, …)` makes `__do_sys_open`, `__se_sys_open` and `__x64_sys_open`, which call each other.
fn is_entry_of(function: &str, name: &str) -> bool {
    function.strip_suffix(name).is_some_and(|prefix| prefix.starts_with("__") && prefix.ends_with('_'))
}

fn is_system_call(function: &str) -> bool {
    ["__do_sys_", "__se_sys_", "__x64_sys_", "__ia32_sys_", "__do_compat_sys_", "__ia32_compat_sys_"]
        .iter()
        .any(|prefix| function.starts_with(prefix))
}
