//! `update check`: what is new for this host in the repository.

use serde::Serialize;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};

use crate::cli::output::{line, object};
use crate::cli::{Global, failures};
use crate::operations::repository::{self, Checked, Judge, News};

/// Show what the repository has for this host, what the host lacks, and for how long it has been exposed
///
/// Asks the places of the repository, and looks at the latest version of each manifest that may concern this
/// host's kernel, by the host's own policy. Changes nothing but what is kept of the repository. Whether files of
/// a layer are in use here is told by update scan and update plan.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update check\n  update check --json\n\nExit codes: 0 whatever is new, 3 the repository cannot be reached or is not configured, 4 what it says\ndoes not hold, or has expired."
)]
pub(super) struct Args {}

/// What is told to a program.
#[derive(Debug, Serialize)]
struct Report {
    /// How many manifests this host lacks.
    lacking: usize,
    /// The longest that it has been exposed, in seconds.
    exposed_s: i64,
    manifests: Vec<Checked>,
}

pub(super) fn run(_: &Args, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let config = engine.config();
    let Some(settings) = &config.repository else {
        return Err(Failure::new(Exit::Refused, "no repository is configured")
            .because("repository in update.yaml, with its places", "none")
            .next("add it; docs/repository.md says how"));
    };
    let now = SystemClock.now();
    let mut client = repository::refresh(settings, &config.store, now).map_err(failures::repository)?;
    let floor = engine.floor().map_err(failures::engine)?;
    let judge =
        Judge { store: &config.store, policy: &config.policy, floor: &floor, kernel: engine.kernel(), now };
    let manifests = repository::check(&mut client, settings, &judge).map_err(failures::repository)?;
    let report = Report::new(manifests);
    if global.json {
        object(&report);
    } else {
        report.lines().iter().for_each(|text| line(text));
    }
    Ok(())
}

impl Report {
    fn new(manifests: Vec<Checked>) -> Self {
        let exposures = || {
            manifests.iter().filter_map(|checked| match checked.news {
                News::Lacking { exposed_s, .. } => Some(exposed_s),
                _ => None,
            })
        };
        Self { lacking: exposures().count(), exposed_s: exposures().max().unwrap_or(0), manifests }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Checked { name, version, accepted, severity, fixes, news } in &self.manifests {
            let words = match news {
                News::Known | News::ForOthers => continue,
                News::NotNeeded => "not needed: this kernel has it".to_owned(),
                News::NotAuthentic { why } => format!("NOT AUTHENTIC here: {why}"),
                News::Lacking { exposed_since, exposed_s } => {
                    let severity = severity.map_or("", |severity| severity.as_str());
                    let fixes: Vec<&str> = fixes.iter().map(|cve| cve.as_str()).collect();
                    let had = accepted.map_or_else(String::new, |had| format!("; this host has had @{had}"));
                    let days = exposed_s / 86_400;
                    format!(
                        "LACKING {severity} {}  exposed for {days} days, since {exposed_since}{had}",
                        fixes.join(" ")
                    )
                }
            };
            lines.push(format!("{name}@{version}  {words}"));
        }
        lines.push(match self.lacking {
            0 => "this host lacks nothing that the repository has for it".to_owned(),
            lacking => format!("{lacking} lacking; update plan NAME tells what each would do"),
        });
        lines
    }
}
