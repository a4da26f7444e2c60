//! `patch-tools lint`: what a reviewer should look at before a fix goes to running kernels.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use patch_tools::build::lint::{Check, LintReport, Risk, lint};

use super::build::{EffortArgs, KernelArgs, failure, request, user_cache};
use super::output;
use super::output::style::{BOLD, DIM, GREEN, RED, RESET, YELLOW};
use super::progress::Lines;
use system::exit::{Exit, Failure};

/// Show a reviewer what to look at before a fix goes to running kernels
///
/// Compiles what the fix affects, original and patched, and lists changes of data layout, static data, init-only
/// code, locking and reference counts, functions in which tasks wait, functions that change although the fix
/// does not touch them, exported functions, and all that build would refuse. Writes nothing. Exit code 0
/// whatever the risk; 3 when build would refuse the fix, or when the risk is above --max-risk.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Patches to apply, in this order
    #[arg(required = true, value_name = "FIX.patch")]
    patches: Vec<PathBuf>,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Greatest risk that ends with exit code 0
    #[arg(long, value_name = "LEVEL", value_enum)]
    max_risk: Option<Level>,
    #[command(flatten)]
    effort: EffortArgs,
    /// Print JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    None,
    Low,
    Medium,
    High,
}

impl From<Level> for Risk {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let request = request(&args.kernel, &args.patches, &args.effort)?;
    let progress = Lines::unless_json(args.json);
    let report = lint(&user_cache()?, &request, &progress).map_err(failure)?;
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    let too_much = args.max_risk.is_some_and(|most| report.risk > most.into());
    Ok(if report.livepatchable && !too_much { Exit::Done } else { Exit::Refused })
}

fn describe(report: &LintReport) -> String {
    let mut text = String::new();
    let replaced: usize = report.units.iter().map(|unit| unit.changed_functions.len()).sum();
    let files: Vec<&str> = report.units.iter().map(|unit| unit.source.as_str()).collect();
    let _ = writeln!(
        text,
        "{BOLD}{}{RESET}: {replaced} {} to replace in {}",
        report.kernel,
        if replaced == 1 { "function" } else { "functions" },
        files.join(", ")
    );
    for check in &report.checks {
        describe_check(&mut text, check);
    }
    for file in &report.left_out {
        let _ = writeln!(text, "  {DIM}{file} is no part of this kernel: left out{RESET}");
    }
    let verdict = match report.livepatchable {
        true => "a livepatch can be built",
        false => "build would refuse this",
    };
    let _ = writeln!(text, "{}{}{RESET} risk; {verdict}", colour(report.risk), report.risk);
    text
}

fn describe_check(text: &mut String, check: &Check) {
    let title = check.topic.title();
    if check.findings.is_empty() {
        let _ = writeln!(text, "  {GREEN}[x]{RESET} {title}");
        return;
    }
    let _ = writeln!(text, "  [ ] {}{:<6}{RESET} {title}", colour(check.risk), check.risk.to_string());
    for finding in &check.findings {
        let _ = writeln!(
            text,
            "        {}{:<6}{RESET} {}: {}: {}",
            colour(finding.risk),
            finding.risk.to_string(),
            finding.file,
            finding.subject,
            finding.detail
        );
    }
    if let Some(question) = check.question {
        let _ = writeln!(text, "        {DIM}{question}{RESET}");
    }
}

fn colour(risk: Risk) -> &'static str {
    match risk {
        Risk::None => GREEN,
        Risk::Low => DIM,
        Risk::Medium => YELLOW,
        Risk::High => RED,
    }
}
