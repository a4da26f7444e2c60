//! What a build tells while it runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Takes a build's progress. Results are not told here; they are in what the build returns.
pub trait Progress: Sync {
    /// A step begins.
    fn step(&self, text: &str);
    /// A step that is measured ended.
    fn timed(&self, phase: Phase, took: Duration);
    /// Something a person should read, although the build goes on.
    fn warning(&self, text: &str);
}

/// The measured phases of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Finding, fetching and, the first time, unpacking packages.
    Packages,
    /// Preparing the kernel tree, or finding it prepared.
    Prepare,
    /// Applying the patch and finding the affected units.
    Units,
    /// Compiling original and patched units.
    Compile,
    /// Comparing objects.
    Diff,
    /// Matching the originals against the shipped code.
    Match,
    /// Writing the module and its records.
    Link,
}

impl Phase {
    /// All phases, in their order.
    pub const ALL: [Self; 7] =
        [Self::Packages, Self::Prepare, Self::Units, Self::Compile, Self::Diff, Self::Match, Self::Link];
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: &str) {}
    fn timed(&self, _: Phase, _: Duration) {}
    fn warning(&self, _: &str) {}
}

/// Measures phases that follow each other.
pub(super) struct PhaseClock<'a> {
    pub(super) progress: &'a dyn Progress,
    started: Instant,
    phases: BTreeMap<Phase, f64>,
}

impl<'a> PhaseClock<'a> {
    pub(super) fn start(progress: &'a dyn Progress) -> Self {
        Self { progress, started: now(), phases: BTreeMap::new() }
    }

    pub(super) fn ended(&mut self, phase: Phase) {
        let took: Duration = self.started.elapsed();
        self.started = now();
        self.progress.timed(phase, took);
        self.phases.insert(phase, took.as_secs_f64());
    }

    pub(super) fn seconds(self) -> BTreeMap<Phase, f64> {
        self.phases
    }
}

/// The one look at a clock: nothing but progress lines and the report's times depends on it.
#[allow(clippy::disallowed_methods, reason = "what is measured is reported and not used")]
fn now() -> Instant {
    Instant::now()
}
