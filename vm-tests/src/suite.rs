//! The README's test command: every test of the workspace, with what they need set up first.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::stage::Stage;

/// Set up the lab, run all tests, and return the runner's exit code. Its output passes through.
///
/// # Errors
/// If the lab cannot be set up or the runner cannot be started.
pub fn run(arguments: &[String]) -> Result<u8> {
    let lab = Lab::open()?;
    // Made here once, and not by whichever test comes first while the others wait for it.
    Stage::set(&lab)?;
    drop(lab);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let nextest =
        Command::new(&cargo).args(["nextest", "--version"]).output().is_ok_and(|out| out.status.success());
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let status = Command::new(&cargo)
        .current_dir(root)
        .args(runner)
        .args(["--workspace", "--locked"])
        .args(arguments)
        .status()
        .context("starting cargo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
