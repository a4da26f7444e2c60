//! A build's progress as lines on standard error.

use std::io::{self, Write as _};
use std::time::Duration;

use patch_tools::build::progress::{Phase, Progress};

/// Plain lines; one for each step. Results go to standard output, so a pipe gets only those.
#[derive(Debug)]
pub(crate) enum Lines {
    /// Every step and warning.
    Shown,
    /// Warnings only.
    Quiet,
}

impl Lines {
    /// A program that reads JSON is not told of steps.
    pub(crate) fn unless_json(json: bool) -> Self {
        if json { Self::Quiet } else { Self::Shown }
    }
}

impl Progress for Lines {
    fn step(&self, text: &str) {
        if matches!(self, Self::Shown) {
            line(&format!("  {text}"));
        }
    }

    fn timed(&self, _: Phase, _: Duration) {}

    fn warning(&self, text: &str) {
        line(&format!("warning: {text}"));
    }
}

/// Progress that cannot be shown must not end the build.
fn line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
