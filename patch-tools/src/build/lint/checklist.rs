//! The list that a reviewer goes through, and its risk levels.

use std::fmt;

use manifests::KernelRelease;
use serde::{Deserialize, Serialize};

use crate::build::report::UnitReport;

/// How much attention something needs before it goes to a running kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing was found.
    None,
    /// To be known.
    Low,
    /// To be understood.
    Medium,
    /// To be ruled out: it can break, or stall, a running kernel.
    High,
}

impl fmt::Display for Risk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

/// What is looked for. The order is that of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Anything that `build` would refuse and that has no topic of its own.
    Buildable,
    /// Structures, unions and enumerations.
    DataLayout,
    /// Variables with static storage.
    Statics,
    /// Code and data that are gone after boot.
    InitCode,
    /// Locks, and what keeps interrupts, preemption and readers off.
    Locking,
    /// Reference counts.
    ReferenceCounts,
    /// Where tasks may wait.
    Stall,
    /// Functions that change although the patch does not touch them.
    PulledIn,
    /// What others call.
    Exports,
}

impl Topic {
    /// All, in order.
    pub const ALL: [Self; 9] = [
        Self::Buildable,
        Self::DataLayout,
        Self::Statics,
        Self::InitCode,
        Self::Locking,
        Self::ReferenceCounts,
        Self::Stall,
        Self::PulledIn,
        Self::Exports,
    ];

    /// What was looked for, as a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Buildable => "a livepatch can carry it",
            Self::DataLayout => "data layout",
            Self::Statics => "static data",
            Self::InitCode => "init-only code",
            Self::Locking => "locking",
            Self::ReferenceCounts => "reference counts",
            Self::Stall => "waiting in patched functions",
            Self::PulledIn => "functions pulled in",
            Self::Exports => "exported symbols and system calls",
        }
    }

    /// What the reviewer has to answer where something was found.
    pub fn question(self) -> &'static str {
        match self {
            Self::Buildable => "build refuses this; what would the fix look like without it?",
            Self::DataLayout => {
                "objects that are alive keep the old layout: does any of them meet the new code?"
            }
            Self::Statics => {
                "the running kernel's variables keep their values, new ones start afresh and go with the patch: is that right?"
            }
            Self::InitCode => "it has run already: what has to be done to what it made?",
            Self::Locking => {
                "old and new functions run side by side during the transition: do they still exclude each other, and is every lock given back by the code that took it?"
            }
            Self::ReferenceCounts => {
                "objects that the old code counted wrong stay so: can the new code drop a count that was never taken?"
            }
            Self::Stall => {
                "a task that waits there holds up the transition, when loading and again when unloading: how long, and what wakes it?"
            }
            Self::PulledIn => "the compiler carried the change there: is it meant there, too?",
            Self::Exports => "modules and programs see the new behaviour at once: is it compatible?",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LintFinding {
    /// Its own risk.
    pub risk: Risk,
    /// The file.
    pub file: String,
    /// Function, type, variable or section.
    pub subject: String,
    /// What about it.
    pub detail: String,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked for.
    pub topic: Topic,
    /// The greatest risk of what was found.
    pub risk: Risk,
    /// What the reviewer has to answer; only where something was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<&'static str>,
    /// What was found, the greatest risk first.
    pub findings: Vec<LintFinding>,
}

impl Check {
    pub(super) fn new(topic: Topic, mut findings: Vec<LintFinding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.risk));
        let risk = findings.first().map_or(Risk::None, |finding| finding.risk);
        Self { topic, risk, question: (!findings.is_empty()).then(|| topic.question()), findings }
    }
}

/// What looking at a patch gave; serialised, it is the JSON of `patch-tools lint --json`.
#[derive(Debug, Clone, Serialize)]
pub struct LintReport {
    /// Version of this form.
    pub schema: u32,
    /// The kernel.
    pub kernel: KernelRelease,
    /// The greatest risk of all checks.
    pub risk: Risk,
    /// Whether `build` would make a module of it.
    pub livepatchable: bool,
    /// The list; every topic once.
    pub checks: Vec<Check>,
    /// The compiled units.
    pub units: Vec<UnitReport>,
    /// Files of the patch that are no part of the kernel, or not of one with this configuration.
    pub left_out: Vec<String>,
}
