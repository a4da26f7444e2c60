//! `update kernel`: the kernels of this host.

use serde::Serialize;
use system::exit::Failure;
use workloads::lifecycle::trial::Trial;

use crate::cli::output::{Page, object, page};
use crate::cli::{Global, failures};
use crate::kernel::whole::{Kernels, Loader};
use crate::operations::whole_kernel::KernelStatus;

/// Look at the kernels of this host
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(Status),
}

/// Show which kernels are installed, which one boots, and what stands in the way of another
///
/// Another kernel takes over by kexec while containers wait on disk, so it needs a kernel that hands over, a boot loader
/// that leads back to the running one, and a place for checkpoints that outlives a cold boot. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update kernel status\n  update kernel status --trial\n  update kernel status --json"
)]
struct Status {
    /// Checkpoint and restore a throw-away container, since what CRIU says of itself proves little
    #[arg(long)]
    trial: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::Status(args) => status(args, global),
    }
}

/// What is told to a program.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a KernelStatus,
    /// What the trial took; `null` without `--trial`.
    trial: Option<Trial>,
}

fn status(args: &Status, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let status = engine.kernel_status();
    let trial = args.trial.then(|| engine.try_checkpoint());
    let (trial, failed) = match trial.transpose() {
        Ok(trial) => (trial, None),
        Err(error) => (None, Some(error)),
    };
    let report = Report { status: &status, trial };
    if global.json {
        object(&report);
    } else {
        page(&render(&report));
    }
    failed.map_or(Ok(()), |error| Err(failures::engine(error)))
}

fn render(report: &Report<'_>) -> Page {
    let KernelStatus { release, package, kernels, obstacles, notes, .. } = report.status;
    let mut text = Page::default();
    let built =
        package.as_ref().map(|package| format!(", package {} {}", package.distribution, package.version));
    let _ = writeln!(text, "kernel {release}{}", built.unwrap_or_default());
    let _ = writeln!(text, "command line {}", kernels.command_line);
    for installed in &kernels.installed {
        let lacks: Vec<&str> = [
            (installed.initrd.is_none()).then_some("no initrd"),
            (!installed.modules).then_some("no modules"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let lacks = if lacks.is_empty() { String::new() } else { format!(", {}", lacks.join(", ")) };
        let mark = if installed.release.as_str() == release { ", running" } else { "" };
        let _ =
            writeln!(text, "installed {} ({}){mark}{lacks}", installed.release, installed.image.display());
    }
    let _ = writeln!(text, "a cold boot takes {}", by_default(kernels));
    if !kernels.cpu.is_empty() {
        let _ = writeln!(text, "registers of processes {}", kernels.cpu.join(" "));
    }
    if let Some(Trial { dump_ms, frozen_ms, restore_ms }) = report.trial {
        let _ = writeln!(
            text,
            "a throw-away container was dumped in {dump_ms} ms (frozen {frozen_ms} ms) and came back in {restore_ms} ms"
        );
    }
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
    if obstacles.is_empty() {
        let _ = writeln!(text, "nothing stands in the way of another kernel");
    }
    for unmet in obstacles {
        let _ = writeln!(text, "IN THE WAY: {unmet}");
    }
    text
}

fn by_default(kernels: &Kernels) -> String {
    match &kernels.loader {
        Loader::Grub { default: Some(default), .. } => format!("{default}, by GRUB"),
        Loader::Grub { default: None, .. } => "what cannot be told from GRUB's menu".to_owned(),
        Loader::Unknown { why } => format!("what cannot be told ({why})"),
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
