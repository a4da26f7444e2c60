//! Builds one fix with the real `patch-tools build` and says what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::carry::Carry;
use super::patches::{Draft, Growth};
use super::rules::{Refusal, Right};
use super::selection::Candidate;
use super::sources::Sources;

/// How often hunks of headers are added before a fix counts as not self-contained.
const ROUNDS: usize = 3;

/// Most units that a fix may affect by its headers; what is larger is no small fix.
const MAX_UNITS: usize = 32;

/// What came of building a fix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// A module.
    Built(Module),
    /// The change cannot be livepatched, with every rule that it breaks.
    Refused { refusals: Vec<Refusal>, right: Right },
    /// It needs other files of the later version.
    NotSelfContained { why: String },
    /// This kernel's configuration does not build the file.
    NotBuilt,
    /// The compiler makes the same code of both.
    Unchanged,
    /// Anything else: a fault of the program.
    Failed { kind: String, why: String },
}

impl Outcome {
    /// Whether the fix is one of this kernel, and complete.
    pub(super) fn counts(&self) -> bool {
        !matches!(self, Self::NotSelfContained { .. } | Self::NotBuilt)
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Built(module) => {
                format!("built, {} functions, {} new symbols", module.changed, module.new)
            }
            Self::Refused { refusals, right } => {
                let first = refusals.first().map_or("", |refusal| &refusal.reason);
                let rules: BTreeSet<&str> = refusals.iter().map(|refusal| refusal.rule.as_str()).collect();
                let rules: Vec<&str> = rules.into_iter().collect();
                format!("refused ({right}): {}: {first}", rules.join(", "))
            }
            Self::NotSelfContained { why } => format!("not self-contained: {why}"),
            Self::NotBuilt => "not built by this configuration".to_owned(),
            Self::Unchanged => "unchanged".to_owned(),
            Self::Failed { kind, why } => format!("**failed**: {kind}: {why}"),
        }
    }
}

/// A module that was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Module {
    /// The file.
    #[serde(skip)]
    pub(super) file: PathBuf,
    /// Its name in the kernel.
    pub(super) name: String,
    /// The objects that it patches.
    pub(super) objects: Vec<String>,
    /// How many C files were compiled.
    pub(super) units: usize,
    /// Replaced functions.
    pub(super) changed: usize,
    /// New functions and data.
    pub(super) new: usize,
    /// Seconds of each phase.
    pub(super) phases: BTreeMap<String, f64>,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It becomes what it is in the later version.
    #[default]
    Fix,
    /// Its lines move, and nothing of it may count as changed.
    MovedLines,
}

/// One attempt at a fix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Attempt {
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    /// Headers of which hunks were taken along.
    pub(super) headers: Vec<String>,
    /// Wall-clock seconds, all rounds.
    pub(super) seconds: f64,
}

/// The program, and what it is told each time.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub(super) program: &'a Path,
    pub(super) sources: &'a Sources,
    pub(super) release: &'a str,
    /// What is done to each file.
    pub(super) change: Change,
    /// Where patches and modules go.
    pub(super) work: &'a Path,
}

/// The JSON of a successful build, as far as it is used.
#[derive(Debug, Deserialize)]
struct Report {
    module: String,
    files: Files,
    units: Vec<Unit>,
    seconds: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct Files {
    module: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Unit {
    object: String,
    changed_functions: Vec<String>,
    new_functions: Vec<String>,
    new_data: Vec<String>,
}

/// The JSON of a build that came to nothing.
#[derive(Debug, Deserialize)]
struct Failure {
    error: String,
    causes: Vec<String>,
    details: Details,
}

#[derive(Debug, Deserialize)]
struct Details {
    reason: String,
    refused: Vec<Refusal>,
}

impl Builder<'_> {
    /// Decides on the source whether a livepatch can carry a fix, then builds it.
    pub(super) fn judged_attempt(&self, candidate: &Candidate) -> Result<(Carry, Attempt)> {
        Ok((self.carry(&candidate.path)?, self.attempt(candidate)?))
    }

    /// Decides on the source whether a livepatch can carry a fix.
    pub(super) fn carry(&self, path: &str) -> Result<Carry> {
        // Old files have names in Latin-1.
        let read = |path| Ok::<_, anyhow::Error>(String::from_utf8_lossy(&fs::read(path)?).into_owned());
        Ok(Carry::of(path, &read(self.sources.earlier(path))?, &read(self.sources.later(path))?))
    }

    /// Builds a fix, with headers if it needs them.
    pub(super) fn attempt(&self, candidate: &Candidate) -> Result<Attempt> {
        let begun = Instant::now();
        let failed = |error: anyhow::Error| {
            let outcome = Outcome::Failed { kind: "harness".to_owned(), why: format!("{error:#}") };
            Attempt { outcome, headers: Vec::new(), seconds: 0.0 }
        };
        let draft = match self.change {
            Change::Fix => Draft::of(self.sources, &candidate.path),
            Change::MovedLines => Draft::moving_lines(self.sources, &candidate.path),
        };
        let mut draft = match draft {
            Ok(draft) => draft,
            Err(error) => return Ok(failed(error)),
        };
        let mut round = 0;
        let mut growth = draft.foresee()?;
        let outcome = loop {
            if let Growth::Never(why) = growth {
                break Outcome::NotSelfContained { why };
            }
            let failure = match self.build(candidate, &draft.text()?)? {
                Ok(module) => break Outcome::Built(module),
                Err(failure) => failure,
            };
            let complaint = failure.causes.join("\n");
            round += 1;
            match failure.details.reason.as_str() {
                "does-not-compile" if round <= ROUNDS => {
                    growth = draft.grow(&complaint)?;
                    if growth == Growth::Nothing {
                        growth = Growth::Never(failure.first_error());
                    }
                }
                "does-not-compile" | "too-many-units" | "does-not-apply" => {
                    break Outcome::NotSelfContained { why: failure.first_error() };
                }
                "not-built" | "nothing-affected" => break Outcome::NotBuilt,
                "unchanged" => break Outcome::Unchanged,
                _ => break failure.judged(),
            }
        };
        let headers = draft.headers();
        Ok(Attempt { outcome, headers, seconds: begun.elapsed().as_secs_f64() })
    }

    fn build(&self, candidate: &Candidate, patch: &str) -> Result<std::result::Result<Module, Failure>> {
        let name = candidate.path.trim_end_matches(".c").replace(['/', '_'], "-");
        let dir = self.work.join(&name);
        fs::create_dir_all(&dir)?;
        let file = dir.join(format!("{name}.patch"));
        fs::write(&file, patch)?;
        let output = Command::new(self.program)
            .args(["build", "--json", "--kernel", self.release])
            .args(["--jobs", "1", "--max-units", &MAX_UNITS.to_string()])
            // The name's beginning is the area; its end tells more.
            .args(["--name", name[name.len().saturating_sub(40)..].trim_start_matches('-')])
            .arg("--output")
            .arg(&dir)
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .context("starting patch-tools")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(Ok(Self::module(&text)?));
        }
        Ok(Err(serde_json::from_str(&text).unwrap_or_else(|_| Failure {
            error: format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
            causes: Vec::new(),
            details: Details { reason: "no-report".to_owned(), refused: Vec::new() },
        })))
    }

    fn module(json: &str) -> Result<Module> {
        let report: Report = serde_json::from_str(json).context("the report of patch-tools build")?;
        let mut objects: Vec<String> = report
            .units
            .iter()
            .filter(|unit| !unit.changed_functions.is_empty())
            .map(|unit| unit.object.clone())
            .collect();
        objects.sort();
        objects.dedup();
        Ok(Module {
            name: report.module,
            file: report.files.module,
            objects,
            units: report.units.len(),
            changed: report.units.iter().map(|unit| unit.changed_functions.len()).sum(),
            new: report.units.iter().map(|unit| unit.new_functions.len() + unit.new_data.len()).sum(),
            phases: report.seconds,
        })
    }
}

impl Failure {
    /// The compiler's first error, else the message.
    fn first_error(&self) -> String {
        let mut lines = self.causes.iter().flat_map(|cause| cause.lines());
        lines.find(|line| line.contains("error:")).unwrap_or(&self.error).trim().to_owned()
    }

    fn judged(self) -> Outcome {
        let kind = self.details.reason;
        let refusals = match self.details.refused.is_empty() {
            false => self.details.refused,
            true => {
                vec![Refusal { unit: String::new(), rule: kind.clone(), reason: self.error.clone() }]
            }
        };
        if refusals.iter().all(|refusal| refusal.rule == "undefined") {
            return Outcome::NotSelfContained { why: self.error };
        }
        match Right::of(&refusals) {
            Some(right) => Outcome::Refused { refusals, right },
            None => Outcome::Failed { kind, why: [vec![self.error], self.causes].concat().join("; ") },
        }
    }
}
