//! What a build did, as plain values; serialised, it is the JSON of `patch-tools build --json`.

use std::collections::BTreeMap;

use manifests::{KernelRelease, ModuleName, Sha256};
use serde::Serialize;

use super::analysis::AnalysedUnit;
use super::progress::Phase;
use super::runpre::FunctionMatch;
use crate::check::Finding;
use crate::diff::Verdict;
use crate::module::ObjectName;

/// What a build did.
#[derive(Debug, Clone, Serialize)]
pub struct BuildReport {
    /// The kernel.
    pub kernel: KernelRelease,
    /// The module's name.
    pub module: ModuleName,
    /// The module's digest.
    pub sha256: Sha256,
    /// The module's size in bytes.
    pub size: u64,
    /// The compiled units, in the order of their names.
    pub units: Vec<UnitReport>,
    /// Files of the patch that are no part of the kernel, or not of one with this configuration.
    pub left_out: Vec<String>,
    /// What checking the module against the kernel found; none of it refuses.
    pub findings: Vec<Finding>,
    /// Wall-clock time of each phase.
    pub seconds: BTreeMap<Phase, f64>,
}

/// What was found in one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitReport {
    /// The C file.
    pub source: String,
    /// The object that it is part of.
    pub object: ObjectName,
    /// Functions of the rebuilt original.
    pub functions: usize,
    /// How many of them are the shipped ones.
    pub matched: usize,
    /// Those that are not, with what was found; none of them is replaced.
    pub unmatched: BTreeMap<String, String>,
    /// Whether code changed.
    pub verdict: Verdict,
    /// Functions that are replaced.
    pub changed_functions: Vec<String>,
    /// Functions that are new.
    pub new_functions: Vec<String>,
    /// Data objects that are new.
    pub new_data: Vec<String>,
    /// Differences that do not matter: what, and why.
    pub ignored: Vec<(String, String)>,
}

impl UnitReport {
    pub(super) fn new(unit: &AnalysedUnit) -> Self {
        let AnalysedUnit { command, matched, report, .. } = unit;
        let unmatched = matched
            .functions
            .iter()
            .filter(|(_, found)| !matches!(found, FunctionMatch::Same { .. }))
            .map(|(name, found)| (name.clone(), found.to_string()));
        Self {
            source: command.source.to_string(),
            object: command.owner.object(),
            functions: matched.functions.len(),
            matched: matched.matched(),
            unmatched: unmatched.collect(),
            verdict: report.verdict,
            changed_functions: report.changed_functions.clone(),
            new_functions: report.new_functions.clone(),
            new_data: report.new_data.clone(),
            ignored: report
                .ignored
                .iter()
                .map(|ignored| (ignored.function.clone(), ignored.reason.to_string()))
                .collect(),
        }
    }
}
