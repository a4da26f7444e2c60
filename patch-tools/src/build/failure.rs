//! Why there is no livepatch, as plain values: the `details` in the JSON of a `patch-tools build` that failed.
//!
//! The words in [`FailureReport::reason`] and [`RefusalReport::rule`] are stable, so that a program can tell a rule
//! that the change breaks from a kernel that is not to be had. Messages are for people.

use std::collections::BTreeSet;

use serde::Serialize;

use super::abi::AbiError;
use super::compile::{CompileError, Version};
use super::error::{BuildError, Refusal};
use super::kernel::KernelError;
use super::report::UnitReport;
use super::units::UnitsError;

/// Why there is no livepatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// What kind of failure, in kebab case.
    pub reason: &'static str,
    /// If the change broke rules, each of them.
    pub refused: Vec<RefusalReport>,
    /// What was found in each unit, if it came to that.
    pub units: Vec<UnitReport>,
}

/// One rule that the change broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalReport {
    /// The C file.
    pub unit: String,
    /// The rule, in kebab case.
    pub rule: &'static str,
    /// What broke it, and how.
    pub reason: String,
}

impl FailureReport {
    /// Describes an error.
    pub fn of(error: &BuildError) -> Self {
        let (refused, units) = match error {
            BuildError::Refused { refusals, units } => {
                (refusals.iter().map(RefusalReport::of).collect(), units.clone())
            }
            _ => (Vec::new(), Vec::new()),
        };
        Self { reason: reason(error), refused, units }
    }

    /// The rules that were broken, or the kind of failure.
    pub fn why(&self) -> String {
        let rules: BTreeSet<&str> = self.refused.iter().map(|refusal| refusal.rule).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        if rules.is_empty() { self.reason.to_owned() } else { rules.join(", ") }
    }
}

impl RefusalReport {
    fn of(refusal: &Refusal) -> Self {
        let unit = match refusal {
            Refusal::Diff { unit, .. }
            | Refusal::NotShipped { unit, .. }
            | Refusal::WrongPosition { unit, .. }
            | Refusal::Layout { unit, .. }
            | Refusal::Abi(AbiError::Changed { unit, .. } | AbiError::NotShipped { unit, .. }) => unit,
        };
        let reason = match refusal {
            Refusal::Diff { refused, .. } => refused.to_string(),
            other => other.to_string(),
        };
        Self { unit: unit.to_string(), rule: refusal.rule(), reason }
    }
}

fn reason(error: &BuildError) -> &'static str {
    match error {
        BuildError::Patch { .. } => "not-a-patch",
        BuildError::Name { .. } => "name",
        BuildError::Kernel(KernelError::NoModule { .. } | KernelError::NoModules { .. }) => "no-module",
        BuildError::Kernel(_) => "kernel",
        BuildError::Tree(_) => "tree",
        BuildError::Units(error) => units(error),
        BuildError::Compile(error) => compile(error),
        BuildError::Types { .. }
        | BuildError::Object { .. }
        | BuildError::Module { .. }
        | BuildError::Diff { .. } => "object",
        BuildError::Symbols(_) => "symbols",
        BuildError::Refused { .. } => "refused",
        BuildError::Unchanged { .. } => "unchanged",
        BuildError::TwoCallbacks { .. } => "two-callbacks",
        BuildError::Link(_) => "link",
        BuildError::WouldNotLoad { .. } => "would-not-load",
        BuildError::Unreadable(_) | BuildError::OtherFunctions { .. } | BuildError::Fragment(_) => "bug",
        BuildError::Cache(_) => "cache",
    }
}

fn compile(error: &CompileError) -> &'static str {
    match error {
        CompileError::Failed { version: Version::Patched, .. } => "does-not-compile",
        CompileError::Failed { version: Version::Original, .. } => "original-does-not-compile",
        CompileError::Cache(_) => "cache",
    }
}

fn units(error: &UnitsError) -> &'static str {
    match error {
        UnitsError::Apply(_)
        | UnitsError::NoFile { .. }
        | UnitsError::AmbiguousPath(_)
        | UnitsError::FileExists { .. } => "does-not-apply",
        UnitsError::Assembler { .. } => "assembler",
        UnitsError::BuildRule { .. } => "build-rule",
        UnitsError::WholeFile { .. } => "whole-file",
        UnitsError::NothingBuilt { .. } => "not-built",
        UnitsError::NothingChanged { .. } => "nothing-affected",
        UnitsError::SeveralObjects { .. } => "several-objects",
        UnitsError::TooMany { .. } => "too-many-units",
        UnitsError::Beyond { .. } => "beyond-functions",
        UnitsError::Compile(error) => compile(error),
        UnitsError::Cache(_) => "cache",
        UnitsError::Kbuild(_) | UnitsError::Tree(_) => "tree",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::patch::SourcePath;
    use crate::diff;

    #[test]
    fn a_broken_rule_is_named_with_its_file() {
        let unit = SourcePath::new("fs/namei.c").unwrap();
        let refused = diff::Refused {
            subject: diff::Subject::Symbol("limit".into()),
            reason: diff::Refusal::DataResized { orig: 4, patched: 8 },
        };
        let error =
            BuildError::Refused { refusals: vec![Refusal::Diff { unit, refused }], units: Vec::new() };
        let report = serde_json::to_value(FailureReport::of(&error)).unwrap();
        assert_eq!(report["reason"], "refused");
        assert_eq!(report["refused"][0]["rule"], "data-resized");
        assert_eq!(report["refused"][0]["unit"], "fs/namei.c");
    }
}
