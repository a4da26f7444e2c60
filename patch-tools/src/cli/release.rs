//! `patch-tools release`: the same fixes for many kernels, and the manifest that has them all.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use manifests::{
    CveId, Distribution, FixedIn, KernelRelease, KernelSeries, ManifestName, NameError, PackageVersion,
    Replace, Severity, Summary, UtcTime,
};
use patch_tools::build::failure::FailureReport;
use patch_tools::build::kernel::KernelChoice;
use patch_tools::build::release::{Heading, OfKernel, manifest, release};
use patch_tools::build::report::BuildReport;
use patch_tools::build::{Request, subject_of};
use serde::Serialize;
use system::exit::{Exit, Failure, State};

use super::build::{EffortArgs, FileFailure, Files, describe_report, read_patches, user_cache, write_files};
use super::output;
use super::output::style::{BOLD, DIM, RED, RESET};
use super::progress::Lines;
use super::summary::{self, End, Line};

/// Build the same fixes for many kernels and write one manifest for all
///
/// One cumulative livepatch for each kernel: it carries all the patches and replaces what is loaded. Each kernel's
/// compiler comes from its own Debian release. Prints for each kernel what was matched, replaced and refused, and a
/// table at the end. Exit code 3 when a kernel refuses; then only --partial writes what the others have.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Patches to apply, in this order
    #[arg(required = true, value_name = "FIX.patch")]
    patches: Vec<PathBuf>,
    /// Kernel releases, as `uname -r` prints them
    #[arg(long, required = true, value_name = "RELEASE,...", value_delimiter = ',')]
    kernels: Vec<KernelRelease>,
    /// Name of manifest and livepatch
    #[arg(long)]
    name: ManifestName,
    /// Version of the manifest
    #[arg(long, default_value_t = 1)]
    version: u64,
    /// How urgent it is
    #[arg(long, value_name = "low|medium|high|critical", default_value = "medium", value_parser = severity)]
    severity: Severity,
    /// One line for people; the first patch's subject by default
    #[arg(long)]
    summary: Option<Summary>,
    /// When the manifest is issued, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    issued: UtcTime,
    /// Days until it expires
    #[arg(long, value_name = "N", default_value_t = 90)]
    valid_days: u16,
    /// CVE id that this fixes, beside those that the patches name
    #[arg(long = "fixes", value_name = "CVE")]
    fixes: Vec<CveId>,
    /// Package version from which on a kernel series has the fix, such as debian:6.12:6.12.118-1
    #[arg(long, value_name = "DISTRIBUTION:SERIES:VERSION", value_parser = fixed_in)]
    fixed_in: Vec<FixedIn>,
    /// Add to the livepatches that are loaded, instead of replacing them
    #[arg(long)]
    beside_others: bool,
    /// Write what the kernels have that do not refuse
    #[arg(long)]
    partial: bool,
    /// Directory to write to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    #[command(flatten)]
    effort: EffortArgs,
    /// Print JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a program gets.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: u32,
    /// Absent if nothing was written.
    manifest: Option<PathBuf>,
    kernels: Vec<Kernel<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum Kernel<'a> {
    Built {
        files: Option<Files>,
        #[serde(flatten)]
        report: &'a BuildReport,
    },
    Refused {
        kernel: &'a KernelRelease,
        error: String,
        causes: Vec<String>,
        details: FailureReport,
    },
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let patches = read_patches(&args.patches)?;
    let summary = match &args.summary {
        Some(summary) => summary.clone(),
        None => {
            let subject = patches.first().and_then(subject_of);
            let text: String = subject.unwrap_or_else(|| args.name.to_string()).chars().take(200).collect();
            text.parse().map_err(|error: NameError| Failure::new(Exit::Usage, error))?
        }
    };
    let validity = SignedDuration::from_hours(24 * i64::from(args.valid_days));
    let expires =
        args.issued.timestamp().checked_add(validity).map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut kernels = args.kernels.clone();
    kernels.sort();
    kernels.dedup();
    let Some(first) = kernels.first() else { unreachable!("the command line has a kernel") };
    let request = Request {
        kernel: KernelChoice::Packages(first.clone()),
        patches,
        name: Some(args.name.to_string()),
        label: None,
        replace: if args.beside_others { Replace::None } else { Replace::All },
        fixes: args.fixes.clone(),
        fixed_in: args.fixed_in.clone(),
        jobs: args.effort.jobs(),
        unit_limit: args.effort.max_units,
    };
    let results = release(&user_cache()?, &request, &kernels, &Lines::unless_json(args.json));
    let built = results.iter().filter(|result| result.result.is_ok()).count();
    let refused = results.len() - built;
    let write = built > 0 && (refused == 0 || args.partial);
    let heading = Heading {
        name: args.name.clone(),
        version: args.version,
        issued: args.issued,
        expires: UtcTime::floor(expires),
        severity: args.severity,
        summary,
    };
    let mut report = Report { schema: 1, manifest: None, kernels: Vec::new() };
    let text = match write {
        true => Some(manifest(heading, &results).map_err(|error| Failure::new(Exit::Refused, error))?),
        false => None,
    };
    for result in &results {
        report.kernels.push(kernel(result, write.then_some(args.output.as_path()))?);
    }
    if let Some(text) = text {
        let path = args.output.join(format!("{}.yaml", args.name));
        fs::write(&path, text).map_err(FileFailure::of("write", &path))?;
        report.manifest = Some(path);
    }
    match args.json {
        true => output::print_json(&report)?,
        false => output::print(&describe(&report))?,
    }
    Ok(if refused == 0 || write { Exit::Done } else { Exit::Refused })
}

fn kernel<'a>(result: &'a OfKernel, write_to: Option<&Path>) -> Result<Kernel<'a>, Failure> {
    match &result.result {
        Ok(built) => {
            let files = write_to.map(|directory| write_files(built, directory)).transpose()?;
            Ok(Kernel::Built { files, report: &built.report })
        }
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            Ok(Kernel::Refused {
                kernel: &result.kernel,
                error: error.to_string(),
                causes: causes.map(ToString::to_string).collect(),
                details: FailureReport::of(error),
            })
        }
    }
}

fn describe(report: &Report<'_>) -> String {
    let mut text = String::new();
    for kernel in &report.kernels {
        match kernel {
            Kernel::Built { report, .. } => describe_report(&mut text, report),
            Kernel::Refused { kernel, error, causes, details } => {
                let _ = writeln!(text, "{BOLD}{kernel}{RESET}: {RED}refused{RESET}: {error}");
                details.units.iter().for_each(|unit| summary::unit(&mut text, unit));
                for cause in causes {
                    let _ = writeln!(text, "  because: {cause}");
                }
            }
        }
    }
    let lines: Vec<Line<'_>> = report.kernels.iter().map(Kernel::line).collect();
    summary::table(&mut text, &lines);
    let _ = match &report.manifest {
        Some(path) => writeln!(text, "\nthe manifest, to be signed: {}", path.display()),
        None => writeln!(text, "\n{DIM}{}; --partial writes the others{RESET}", State::Untouched),
    };
    text
}

impl Kernel<'_> {
    fn line(&self) -> Line<'_> {
        match self {
            Self::Built { report, .. } => Line {
                kernel: report.kernel.as_str(),
                units: &report.units,
                end: End::Built { bytes: report.size },
            },
            Self::Refused { kernel, details, .. } => Line {
                kernel: kernel.as_str(),
                units: &details.units,
                end: End::Refused { why: details.why() },
            },
        }
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    let all = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let found = all.into_iter().find(|severity| severity.as_str() == text);
    found.ok_or_else(|| format!("expected low, medium, high or critical, found {text}"))
}

fn fixed_in(text: &str) -> Result<FixedIn, String> {
    let mut parts = text.splitn(3, ':');
    let mut part = || parts.next().ok_or_else(|| "expected DISTRIBUTION:SERIES:VERSION".to_owned());
    let (distribution, series, version) = (part()?, part()?, part()?);
    let bad = |error: NameError| error.to_string();
    Ok(FixedIn {
        distribution: distribution.parse::<Distribution>().map_err(bad)?,
        series: series.parse::<KernelSeries>().map_err(bad)?,
        version: version.parse::<PackageVersion>().map_err(bad)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_version_names_distribution_series_and_version() {
        let fixed = fixed_in("debian:6.12:1:6.12.118-1").unwrap();
        assert_eq!((fixed.series.as_str(), fixed.version.as_str()), ("6.12", "1:6.12.118-1"));
        for bad in ["debian", "debian:6.12", "Debian:6.12:1", "debian:six:1", "debian:6.12:"] {
            assert!(fixed_in(bad).is_err(), "{bad} was taken");
        }
    }
}
