//! `update plan`, and how plans are shown.

use std::fmt;

use manifests::FailureScope;
use system::exit::Failure;

use crate::cli::apply::Signed;
use crate::cli::output::{Page, object, page};
use crate::cli::{Global, failures};
use crate::operations::apply::Quarantine;
use crate::operations::hold::Heeding;
use crate::operations::reports::Planned;
use crate::plan::packages::{PackageSwitch, PlannedPackage, PlannedService, ServiceFeels};
use crate::plan::{Action, Feels, Plan, PlannedContainer};

/// Show what `apply` would do here, and what each service and container will feel
///
/// Changes nothing but the store, into which the payloads are copied.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update plan greet-2026-001.manifest.json\n  update plan greet-2026-001.manifest.json --json\n\nExit code 3 when this host cannot take the manifest; every reason is listed."
)]
pub(super) struct Args {
    #[command(flatten)]
    manifest: Signed,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    show(&args.manifest, Quarantine::Heed, global)
}

/// Plan a manifest and show it.
pub(super) fn show(signed: &Signed, quarantine: Quarantine, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let found = signed.find(&engine)?;
    let plan = engine.plan(&found.request(quarantine, Heeding::Heed)).map_err(failures::engine)?;
    print(&plan, global);
    Ok(())
}

/// Show a plan: what is done, and what each container will feel.
pub(super) fn print(plan: &Plan, global: &Global) {
    if global.json {
        object(&Planned { plan });
    } else {
        page(&render(plan));
    }
}

pub(super) fn render(plan: &Plan) -> Page {
    let mut text = Page::default();
    // Writing to a page cannot fail.
    let _ = write_plan(&mut text, plan);
    text
}

fn write_plan(text: &mut Page, plan: &Plan) -> fmt::Result {
    if !plan.not_needed.is_empty() {
        writeln!(text, "not needed: this host has the fixes already")?;
        for why in &plan.not_needed {
            writeln!(text, "  {why}")?;
        }
        return Ok(());
    }
    match (plan.is_empty(), plan.skipped().count()) {
        (true, 0) => writeln!(text, "nothing to do: this host has all of it")?,
        (true, skipped) => {
            writeln!(
                text,
                "nothing is done: {skipped} affected containers are skipped and stay as they are"
            )?;
        }
        _ => {}
    }
    for note in &plan.notes {
        writeln!(text, "note: {note}")?;
    }
    for planned in &plan.packages {
        package(text, planned)?;
    }
    for planned in &plan.services {
        service(text, planned)?;
    }
    for planned in &plan.containers {
        container(text, planned, plan)?;
    }
    if !plan.packages.is_empty() && plan.services.is_empty() {
        writeln!(text, "no service is affected")?;
    }
    if plan.containers.is_empty() {
        writeln!(text, "no container is affected")?;
    }
    if plan.is_empty() {
        return Ok(());
    }
    if plan.steps.iter().any(|step| matches!(step.action, Action::LoadLivepatch { .. })) {
        writeln!(
            text,
            "of a livepatch, containers feel nothing but a short freeze of those that hold it back"
        )?;
    }
    for (index, step) in plan.steps.iter().enumerate() {
        writeln!(text, "[{:>2}/{}] {}", index + 1, plan.steps.len(), step.action.title())?;
    }
    Ok(())
}

fn package(text: &mut Page, planned: &PlannedPackage) -> fmt::Result {
    let PlannedPackage { switch: PackageSwitch { package, from, to }, scripts } = planned;
    writeln!(text, "package {package}: {} is installed in place of {}", to.version, from.version)?;
    writeln!(text, "    on failure: {} is installed again", from.version)?;
    if !scripts.is_empty() {
        writeln!(
            text,
            "    no way back: what its scripts do beside its files, as root ({})",
            scripts.join(", ")
        )?;
    }
    Ok(())
}

fn service(text: &mut Page, PlannedService { service, files, feels }: &PlannedService) -> fmt::Result {
    match feels {
        ServiceFeels::Restart => {
            writeln!(text, "service {}: is restarted by systemd on the new files", service.name)?;
            let mut kept: Vec<String> = service.sockets.clone();
            if service.kept_descriptors > 0 {
                kept.push(format!("the {} descriptors that systemd keeps for it", service.kept_descriptors));
            }
            let kept = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
            writeln!(text, "    stays open meanwhile: {kept}")?;
            writeln!(text, "    on failure: it is restarted once more, on the old files")?;
        }
        ServiceFeels::Left { why } => {
            writeln!(text, "service {}: is left alone, and goes on running the files below", service.name)?;
            writeln!(text, "    because: {why}")?;
        }
    }
    for file in files {
        writeln!(text, "    runs {}", file.display())?;
    }
    Ok(())
}

fn container(text: &mut Page, planned: &PlannedContainer, plan: &Plan) -> fmt::Result {
    let exchanged = plan.exchanged(&planned.container.id);
    let (happens, connections, on_failure, obstacles): (_, _, _, &[String]) = match &planned.feels {
        Feels::RestartWithCheckpoint if exchanged.is_some() => (
            "is made anew from another image, with a checkpoint of the old one to go back to",
            "held during the trial; at the commit their peers are reset, on failure they go on",
            "the old one comes back with memory, files and connections",
            &[],
        ),
        Feels::RestartWithoutCheckpoint { obstacles } if exchanged.is_some() => (
            "is made anew from another image, without a checkpoint of the old one",
            "end with the old one",
            "the old one is started afresh on its own files, and its memory is lost",
            obstacles,
        ),
        Feels::NotRunning if exchanged.is_some() => (
            "does not run and is not started; it is made anew from another image",
            "it has none",
            "the old one stays as it is now",
            &[],
        ),
        Feels::Skipped { obstacles } if planned.files.is_empty() => {
            ("is left alone, and stays what it was made from", "feel nothing", "nothing", obstacles)
        }
        Feels::RestartWithCheckpoint => (
            "is restarted on the fixed files, with a checkpoint to go back to",
            "held during the trial; at the commit their peers are reset, on failure they go on",
            "its memory, files and connections come back",
            &[],
        ),
        Feels::RestartWithoutCheckpoint { obstacles } => (
            "is restarted on the fixed files, without a checkpoint",
            "end with the restart",
            "it is started afresh on its old files, and its memory is lost",
            obstacles,
        ),
        Feels::NotRunning => (
            "does not run and is not started; its files are put back",
            "it has none",
            "its files stay as they are now",
            &[],
        ),
        Feels::Skipped { obstacles } => {
            ("is left alone, and goes on running the files below", "feel nothing", "nothing", obstacles)
        }
    };
    writeln!(text, "container {}: {happens}", planned.container.id)?;
    if let Some((from, image)) = exchanged {
        writeln!(text, "    from {image}, instead of {from}")?;
    }
    writeln!(text, "    its connections: {connections}")?;
    let scope = match planned.on_failure {
        FailureScope::Workload => "; the rest of the manifest goes on without it",
        FailureScope::All => "",
    };
    writeln!(text, "    on failure: {on_failure}{scope}")?;
    for obstacle in obstacles {
        writeln!(text, "    no checkpoint: {obstacle}")?;
    }
    for file in &planned.files {
        writeln!(text, "    runs {}", file.display())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
