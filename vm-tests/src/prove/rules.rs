//! Whether a refusal is right: a table of the rules of `patch-tools`, each with why a livepatch cannot or must not
//! carry such a change, or that it could.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One rule that a change broke, as `patch-tools build --json` reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// The C file.
    pub unit: String,
    /// The rule.
    pub rule: String,
    /// What broke it.
    pub reason: String,
}

/// Whether a change is rightly refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Right {
    /// No livepatch can carry the change, or it would do harm.
    Right,
    /// It is safe to refuse, but a better program could build it: this counts as a failure.
    Overcautious,
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Right => "right",
            Self::Overcautious => "overcautious",
        })
    }
}

/// Changed static data, init code, functions that ftrace cannot redirect, interfaces.
const RIGHT: [(&str, &str); 30] = [
    ("data-changed", "live data is not changed behind its users"),
    ("data-resized", "the running kernel holds the old size"),
    ("data-moved", "the running kernel has it in another kind of memory"),
    ("data-renamed", "the live value would be lost"),
    ("static-local-vanished", "its value is state that the patched function would lose"),
    ("init-changed", "the code has run and is gone"),
    ("reference-to-init", "what is referred to is freed"),
    ("table-changed", "the table has been read"),
    ("no-fentry", "ftrace cannot redirect the function"),
    ("weak-overridden", "the function never runs"),
    ("export-removed", "modules may use it"),
    ("export-changed", "modules may use it"),
    ("crc-changed", "modules may use it"),
    ("jump-label-in-module", "the key is resolved too late"),
    ("static-call-in-module", "the key is resolved too late"),
    ("alternative-in-module", "the address is filled in too late"),
    ("new-dependency", "the module would no longer load by itself"),
    ("unnamed-data-changed", "live data is not changed behind its users"),
    ("header-mismatch", "the objects cannot be compared"),
    ("section-header", "the objects cannot be compared"),
    ("not-compiled", "assembler has no functions to replace"),
    ("symbol-ambiguous", "nothing tells which of several symbols is meant"),
    ("assembler", "assembler has no functions to replace"),
    ("beyond-functions", "the change reaches code that is no function of the kernel"),
    ("build-rule", "the change is to the build, not to a function"),
    ("whole-file", "the kernel was not built from that file"),
    ("unnamed-code", "code without a symbol cannot be found in the running kernel"),
    ("points-inside", "who keeps an address behind the function's start goes on into the old one"),
    (
        "runtime-constant",
        "the kernel writes the number into its own code when it boots, and into no module's",
    ),
    ("layout-changed", "objects that live in the running kernel have the old layout"),
];

/// Safe, but in the way of fixes that a livepatch could carry.
const OVERCAUTIOUS: [&str; 14] = [
    "not-the-shipped-code",
    "wrong-position",
    "symbol-not-found",
    "symbol-differs",
    "not-exported",
    "not-reachable",
    "name-moved",
    "unnamed-data",
    "static-local-ambiguous",
    "reference-ambiguous",
    "special-section",
    "unsupported-relocation",
    "unsupported-section",
    "several-objects",
];

impl Right {
    /// Judges the rules that one change broke: every reason has to be right, since one that is not would stand in the
    /// way of the change without the others. What is said of a symbol that is rightly refused is no reason of its own.
    /// Nothing if a rule is not one that refuses a change: then it is a failure.
    pub(super) fn of(refusals: &[Refusal]) -> Option<Self> {
        let judged: Option<Vec<(&Refusal, Self)>> =
            refusals.iter().map(|refusal| Some((refusal, Self::of_rule(&refusal.rule)?))).collect();
        let judged = judged?;
        let is_right = |subject: &Refusal| {
            let same = |other: &Refusal| other.subject() == subject.subject();
            judged.iter().any(|(other, right)| *right == Self::Right && same(other))
        };
        judged.iter().map(|(refusal, right)| if is_right(refusal) { Self::Right } else { *right }).max()
    }

    fn of_rule(rule: &str) -> Option<Self> {
        if RIGHT.iter().any(|(right, _)| *right == rule) {
            Some(Self::Right)
        } else if OVERCAUTIOUS.contains(&rule) {
            Some(Self::Overcautious)
        } else {
            None
        }
    }
}

impl Refusal {
    /// Why the rule is right; nothing for one that a better program would not need.
    pub(super) fn why_right(&self) -> Option<&'static str> {
        RIGHT.iter().find(|(rule, _)| *rule == self.rule).map(|(_, why)| *why)
    }

    /// The file and the symbol in it, where the reason begins with one.
    fn subject(&self) -> (&str, &str) {
        (&self.unit, self.reason.split_once(": ").map_or(&self.reason, |(subject, _)| subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_to_be_right_and_an_unknown_one_is_a_failure() {
        let of = |rules: &[(&str, &str)]| {
            let refusal = |(symbol, rule): &(&str, &str)| Refusal {
                unit: "a.c".to_owned(),
                rule: (*rule).to_owned(),
                reason: format!("{symbol}: why"),
            };
            Right::of(&rules.iter().map(refusal).collect::<Vec<_>>())
        };
        assert_eq!(of(&[("f", "name-moved"), ("x", "data-changed")]), Some(Right::Overcautious));
        assert_eq!(of(&[("f", "init-changed"), ("x", "data-changed")]), Some(Right::Right));
        assert_eq!(of(&[("f", "init-changed"), ("f", "symbol-not-found")]), Some(Right::Right));
        assert_eq!(of(&[("f", "name-moved")]), Some(Right::Overcautious));
        assert_eq!(of(&[("x", "data-changed"), ("f", "linker-crashed")]), None);
        assert_eq!(of(&[]), None);
    }
}
