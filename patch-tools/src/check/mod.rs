//! Would this module load into that kernel, and would it patch what it says?
//!
//! [`check`] is pure: a [`Module`] and [`KernelFacts`] in, [`Finding`]s out. The facts come from a kernel
//! image ([`KernelFacts::from_image`]) or from a running host ([`KernelFacts::gather`]), which is the only
//! part that reads files. What the facts cannot tell is reported as a note with the rule it leaves open,
//! never passed over.
//!
//! | file | rules about |
//! |---|---|
//! | `loading` | what the module loader asks: vermagic, configuration, signature, licence, name, entry points |
//! | `imports` | symbols that the loader resolves: exported, CRC, namespace |
//! | `functions` | objects and functions to be patched: present, unambiguous, traceable |
//! | `relocations` | what the livepatch core resolves: klp symbols and relocations |
//! | `conflicts` | what is already there: livepatches, probes |
//!
//! and where the facts come from: `running` (files of `/proc` and `/sys`), `kcore` (the kernel's memory),
//! `objects` (module files), `symbols` (looking names up).
//!
//! Whether the module's functions are those that a manifest claims is for the caller to compare.

mod conflicts;
mod facts;
mod functions;
mod imports;
mod kcore;
mod loading;
mod objects;
mod relocations;
mod running;
mod symbols;

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

pub use facts::{
    KernelFacts, KernelKeys, LoadedLivepatch, LoadedModules, Lockdown, Origin, Probe, ProbeKind,
    SignaturePolicy, Traceable, Transition,
};
pub use objects::{ObjectFacts, ObjectSymbol, ObjectsError, read_module};
pub use running::{FactsError, GatherError, redirected};
pub use symbols::{FoundSymbol, FoundSymbols, SymbolList};

use crate::module::{Module, ObjectName};

/// Something worth knowing before the module is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable identifier of the rule, in kebab case.
    pub rule: &'static str,
    /// What it means for loading.
    pub severity: Severity,
    /// What the finding is about: a function, a symbol, the module.
    pub subject: String,
    /// What would be right.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What a finding means for loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Do not load: it would fail, or patch something else than meant.
    Refuse,
    /// It would load; a person should look.
    Warn,
    /// Nothing wrong; good to know.
    Note,
}

/// Applies every rule. The findings are ordered by severity, then by rule as listed above.
pub fn check(module: &Module, facts: &KernelFacts) -> Vec<Finding> {
    let names = wanted(module);
    let scene = Scene { module, facts, symbols: facts.symbols.find(&names) };
    let mut findings = Findings::default();
    loading::check(&scene, &mut findings);
    imports::check(&scene, &mut findings);
    functions::check(&scene, &mut findings);
    relocations::check(&scene, &mut findings);
    conflicts::check(&scene, &mut findings);
    findings.0.sort_by_key(|finding| finding.severity);
    findings.0
}

/// Whether none of the findings refuses.
pub fn loadable(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity != Severity::Refuse)
}

/// What every rule looks at.
struct Scene<'a> {
    module: &'a Module,
    facts: &'a KernelFacts,
    symbols: FoundSymbols,
}

/// Names to look for in kallsyms, so that one pass over it is enough.
fn wanted(module: &Module) -> HashSet<&str> {
    let functions = module.objects().iter().flat_map(|object| &object.functions);
    functions
        .map(|function| function.old_name.as_str())
        .chain(module.klp_symbols.iter().map(|symbol| symbol.name.as_str()))
        .chain(module.imports.iter().map(|import| import.name.as_str()))
        .collect()
}

/// Collects findings; each method is one severity.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(
        &mut self,
        rule: &'static str,
        subject: impl fmt::Display,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.add(Severity::Refuse, rule, subject, expected.into(), found.into());
    }

    fn warn(
        &mut self,
        rule: &'static str,
        subject: impl fmt::Display,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.add(Severity::Warn, rule, subject, expected.into(), found.into());
    }

    fn note(
        &mut self,
        rule: &'static str,
        subject: impl fmt::Display,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.add(Severity::Note, rule, subject, expected.into(), found.into());
    }

    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        subject: impl fmt::Display,
        expected: String,
        found: String,
    ) {
        self.0.push(Finding { rule, severity, subject: subject.to_string(), expected, found });
    }
}

/// `OBJECT:NAME`, with the position where there is one.
fn in_object(object: &ObjectName, name: &str, sympos: u64) -> String {
    match sympos {
        0 => format!("{object}:{name}"),
        _ => format!("{object}:{name},{sympos}"),
    }
}
