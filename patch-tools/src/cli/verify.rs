//! `patch-tools verify`: is this module what this patch gives?

use std::fmt::Write as _;
use std::path::PathBuf;

use patch_tools::build::verify::{Verification, VerifyError, verify};

use manifests::Sha256;
use manifests::provenance::{Patch, REBUILD, Rebuild};
use manifests::statement::{Statement, Subject};
use patch_tools::build::Request;

use super::build::{EffortArgs, FileFailure, KernelArgs, failure, request, user_cache};
use super::output::style::{GREEN, RED, RESET};
use super::progress::Lines;
use super::{file, output};
use system::exit::{Exit, Failure};

/// Show that a module is exactly what a patch gives, or what differs
///
/// Builds the livepatch again and compares. A signature appended to the module is set aside. Exit code 4
/// when the module is not what the patch gives.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Module file
    module: PathBuf,
    /// Patch that it is said to be made from; several in the order in which they were given to `build`
    #[arg(long = "patch", required = true, value_name = "FIX.patch")]
    patches: Vec<PathBuf>,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    effort: EffortArgs,
    /// Write what came of it to this file as an in-toto statement, to be signed (patch-tools sign --type evidence)
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
    /// Print JSON, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let module = file::module_bytes(&args.module)?;
    let request = request(&args.kernel, &args.patches, &args.effort)?;
    let progress = Lines::unless_json(args.json);
    let verification = verify(&user_cache()?, &request, &module, &progress).map_err(|error| match error {
        VerifyError::Build(error) => failure(*error),
        VerifyError::Rebuilt(_) => Failure::new(Exit::Bug, error),
        other => Failure::new(Exit::Refused, other),
    })?;
    if let Some(path) = &args.statement {
        let file = args.module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = statement(file, &module, &request, &verification);
        std::fs::write(path, bytes).map_err(FileFailure::of("write", path))?;
    }
    if args.json {
        output::print_json(&verification)?;
    } else {
        output::print(&describe(args, &verification))?;
    }
    Ok(if verification.identical { Exit::Done } else { Exit::NotAuthentic })
}

/// What whoever built it again says of the module's bytes.
fn statement(file: String, module: &[u8], request: &Request, verification: &Verification) -> Vec<u8> {
    let patches = request
        .patches
        .iter()
        .map(|patch| Patch { file: patch.name.clone(), sha256: Sha256::of(&patch.content) })
        .collect();
    let predicate = Rebuild {
        kernel: verification.build.kernel.clone(),
        identical: verification.identical,
        rebuilt: verification.rebuilt,
        patches,
        by: format!("patch-tools {}", env!("CARGO_PKG_VERSION")),
    };
    Statement::new(vec![Subject::of(file, Sha256::of(module))], REBUILD, predicate).to_json()
}

fn describe(args: &Args, verification: &Verification) -> String {
    let mut text = String::new();
    let (module, kernel) = (args.module.display(), &verification.build.kernel);
    if verification.identical {
        let _ =
            writeln!(text, "{GREEN}identical{RESET}: {module} is exactly what the patch gives for {kernel}");
    } else {
        let _ = writeln!(text, "{RED}different{RESET}: {module} is not what the patch gives for {kernel}");
        for difference in &verification.differences {
            let _ = writeln!(text, "  {difference}");
        }
    }
    if verification.signature_set_aside {
        let _ = writeln!(text, "  the signature at its end was set aside");
    }
    let _ =
        writeln!(text, "  given   sha256 {}\n  rebuilt sha256 {}", verification.given, verification.rebuilt);
    text
}
