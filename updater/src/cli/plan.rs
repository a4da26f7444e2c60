//! `update plan`, and how plans are shown.

use serde_json::json;

use super::apply::Signed;
use super::progress::{line, object};
use super::{Global, failures};
use crate::exit::Failure;
use crate::plan::{Feels, Plan};

/// Show what `apply` would do here, and what each container will feel
///
/// Changes nothing but the store, into which the payloads are copied.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    manifest: Signed,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    show(&args.manifest, global)
}

/// Plan a manifest and show it.
pub(super) fn show(signed: &Signed, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let manifest = signed.authenticate(&engine)?;
    let plan = engine.plan(&manifest, signed.payloads()).map_err(failures::engine)?;
    print(&plan, global);
    Ok(())
}

/// Show a plan: what is done, and what each container will feel.
pub(super) fn print(plan: &Plan, global: &Global) {
    if global.json {
        object(&json!({ "plan": plan }));
        return;
    }
    if plan.is_empty() {
        line("nothing to do: this host has all of it");
    }
    for note in &plan.notes {
        line(&format!("note: {note}"));
    }
    for planned in &plan.containers {
        let id = &planned.container.id;
        match &planned.feels {
            Feels::RestartWithCheckpoint => {
                line(&format!(
                    "container {id}: is restarted; on failure its memory, files and connections come back"
                ));
            }
            Feels::RestartWithoutCheckpoint { obstacles } => {
                line(&format!(
                    "container {id}: is restarted; on failure it starts afresh, its memory is lost, because"
                ));
                obstacles.iter().for_each(|obstacle| line(&format!("    {obstacle}")));
            }
            Feels::Skipped { obstacles } => {
                line(&format!("container {id}: feels nothing and keeps its old files, because"));
                obstacles.iter().for_each(|obstacle| line(&format!("    {obstacle}")));
            }
        }
        planned.files.iter().for_each(|file| line(&format!("    runs {}", file.display())));
    }
    if plan.containers.is_empty() {
        line("no container is affected");
    }
    if !plan.is_empty() {
        for (index, step) in plan.steps.iter().enumerate() {
            line(&format!("[{:>2}/{}] {}", index + 1, plan.steps.len(), step.action.title()));
        }
    }
}
