//! `patch-tools build`: from a source diff to a livepatch module.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use manifests::{CveId, KernelRelease, Replace};
use patch_tools::build::cache::Cache;
use patch_tools::build::failure::FailureReport;
use patch_tools::build::kernel::{KernelChoice, KernelFiles};
use patch_tools::build::report::BuildReport;
use patch_tools::build::tree::TreeError;
use patch_tools::build::{BuildError, Built, PatchInput, Request, build};
use serde::Serialize;

use super::output;
use super::output::style::{BOLD, DIM, GREEN, RESET};
use super::progress::Lines;
use super::summary::{self, End, Line};
use system::exit::{Exit, Failure};

/// Build a livepatch module from a source diff
///
/// Finds or fetches the kernel's packages, prepares its tree once, compiles the affected files original and
/// patched, proves that the originals are what the kernel runs, and writes livepatch-NAME.ko with a manifest
/// fragment (.component.yaml) and a provenance record (.intoto.json). Needs no root. Exit code 3 when the
/// change cannot be livepatched; nothing is written then.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Patches to apply, in this order; one livepatch carries them all
    #[arg(required = true, value_name = "FIX.patch")]
    patches: Vec<PathBuf>,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Name of the livepatch; the first patch's file name by default
    #[arg(long)]
    name: Option<String>,
    /// Make the livepatch replace all that are loaded
    #[arg(long)]
    replace: bool,
    /// CVE id that this fixes, beside those that the patches name
    #[arg(long = "fixes", value_name = "CVE")]
    fixes: Vec<CveId>,
    /// Directory to write to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    #[command(flatten)]
    effort: EffortArgs,
    /// Print JSON, also when there is no module, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which kernel.
#[derive(Debug, clap::Args)]
pub(crate) struct KernelArgs {
    /// Kernel release, as `uname -r` prints it, to be found among the distribution's packages
    #[arg(long, value_name = "RELEASE", required_unless_present = "source", conflicts_with = "source")]
    kernel: Option<KernelRelease>,
    /// Kernel source directory, instead of packages
    #[arg(long, value_name = "DIR", requires = "config", requires = "image")]
    source: Option<PathBuf>,
    /// Configuration that the kernel was built with
    #[arg(long, value_name = "FILE", requires = "source")]
    config: Option<PathBuf>,
    /// Kernel image that was built from that source
    #[arg(long, value_name = "VMLINUZ", requires = "source")]
    image: Option<PathBuf>,
    /// Directory with that kernel's modules
    #[arg(long, value_name = "DIR", requires = "source")]
    modules: Option<PathBuf>,
    /// Compiler that built the kernel, if it has another name here than in the configuration
    #[arg(long, value_name = "COMMAND", requires = "source")]
    compiler: Option<String>,
    /// Directory with the system whose compiler and tools are used, such as an exported container image
    #[arg(long, value_name = "DIR", requires = "source")]
    build_root: Option<PathBuf>,
}

/// How much to do at once.
#[derive(Debug, clap::Args)]
pub(crate) struct EffortArgs {
    /// Compilers to run at once; as many as processors by default
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Most files to look at because they include a changed header
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(super) max_units: usize,
}

/// What was written, and what it is.
#[derive(Debug, Serialize)]
struct Written<'a> {
    schema: u32,
    files: Files,
    #[serde(flatten)]
    report: &'a BuildReport,
}

/// Where it was written to.
#[derive(Debug, Serialize)]
pub(super) struct Files {
    module: PathBuf,
    component: PathBuf,
    provenance: PathBuf,
}

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub(super) struct FileFailure {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl FileFailure {
    pub(super) fn of(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
        let path = path.to_owned();
        move |source| Failure::new(Exit::FailedRestored, Self { action, path, source })
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let request = Request {
        name: args.name.clone(),
        replace: if args.replace { Replace::All } else { Replace::None },
        fixes: args.fixes.clone(),
        ..request(&args.kernel, &args.patches, &args.effort)?
    };
    let built = match build(&user_cache()?, &request, &Lines::unless_json(args.json)) {
        Ok(built) => built,
        Err(error) => {
            if !args.json {
                output::print(&describe_refused(&request.kernel, &error))?;
            }
            return Err(failure(error));
        }
    };
    let written = Written { schema: 1, files: write_files(&built, &args.output)?, report: &built.report };
    if args.json {
        output::print_json(&written)?;
    } else {
        output::print(&describe(&written))?;
    }
    Ok(Exit::Done)
}

impl KernelArgs {
    fn choice(&self) -> KernelChoice {
        match (&self.kernel, &self.source, &self.config, &self.image) {
            (_, Some(source), Some(config), Some(image)) => KernelChoice::Files(KernelFiles {
                source: source.clone(),
                config: config.clone(),
                image: image.clone(),
                modules: self.modules.clone(),
                compiler: self.compiler.clone(),
                root: self.build_root.clone(),
            }),
            (Some(release), ..) => KernelChoice::Packages(release.clone()),
            _ => unreachable!("the command line has a release, or source with configuration and image"),
        }
    }
}

impl EffortArgs {
    pub(super) fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }
}

/// What is asked of every subcommand that compiles a fix; `build` adds what its module shall be called and do.
pub(crate) fn request(
    kernel: &KernelArgs,
    patches: &[PathBuf],
    effort: &EffortArgs,
) -> Result<Request, Failure> {
    Ok(Request {
        kernel: kernel.choice(),
        patches: read_patches(patches)?,
        name: None,
        label: None,
        replace: Replace::None,
        fixes: Vec::new(),
        fixed_in: Vec::new(),
        jobs: effort.jobs(),
        unit_limit: effort.max_units,
    })
}

/// Where prepared kernels are kept.
pub(crate) fn user_cache() -> Result<Cache, Failure> {
    Cache::of_user().map_err(|error| Failure::new(Exit::FailedRestored, error))
}

/// Reads patch files.
pub(super) fn read_patches(paths: &[PathBuf]) -> Result<Vec<PatchInput>, Failure> {
    paths
        .iter()
        .map(|path| {
            let content = fs::read(path).map_err(FileFailure::of("read", path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(PatchInput { name, content })
        })
        .collect()
}

/// The exit code and the next step for a build that did not come to a module.
pub(crate) fn failure(error: BuildError) -> Failure {
    let hint = match &error {
        BuildError::Tree(TreeError::NoCompiler { command, .. }) => {
            Some(format!("install it with `apt-get install {command}`; nothing was written"))
        }
        BuildError::Tree(TreeError::OtherCompiler { .. }) => Some(
            "install that version of the compiler, or build on the release that the kernel comes from"
                .to_owned(),
        ),
        BuildError::Refused { .. } => Some(
            "nothing was written; docs/building-livepatches.md says how to write around each rule".to_owned(),
        ),
        _ => None,
    };
    let exit = match &error {
        BuildError::Unreadable(_) | BuildError::OtherFunctions { .. } => Exit::Bug,
        BuildError::Cache(_) => Exit::FailedRestored,
        _ => Exit::Refused,
    };
    let details = FailureReport::of(&error);
    let failure = Failure::new(exit, error).details(&details);
    match hint {
        Some(hint) => failure.next(hint),
        None => failure,
    }
}

/// Writes a module and what describes it.
pub(super) fn write_files(built: &Built, directory: &Path) -> Result<Files, Failure> {
    fs::create_dir_all(directory).map_err(FileFailure::of("make", directory))?;
    let stem = built.file.as_str().trim_end_matches(".ko");
    let put = |name: String, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).map_err(FileFailure::of("write", &path))?;
        Ok::<_, Failure>(path)
    };
    let component = built.fragment.to_yaml().map_err(|error| Failure::new(Exit::Bug, error))?;
    let mut provenance =
        serde_json::to_string_pretty(&built.provenance).map_err(|error| Failure::new(Exit::Bug, error))?;
    provenance.push('\n');
    // The module last: where it is, what describes it is, too.
    let component = put(format!("{stem}.component.yaml"), component.as_bytes())?;
    let provenance = put(format!("{stem}.intoto.json"), provenance.as_bytes())?;
    let module = put(built.file.as_str().to_owned(), &built.module)?;
    Ok(Files { module, component, provenance })
}

fn describe(written: &Written<'_>) -> String {
    let mut text = String::new();
    describe_report(&mut text, written.report);
    let Files { module, component, provenance } = &written.files;
    for path in [module, component, provenance] {
        let _ = writeln!(text, "  {}", path.display());
    }
    let kernel = written.report.kernel.as_str();
    let end = End::Built { bytes: written.report.size };
    summary::table(&mut text, &[Line { kernel, units: &written.report.units, end }]);
    text
}

/// What was found before it was refused; nothing if it did not come to that.
fn describe_refused(kernel: &KernelChoice, error: &BuildError) -> String {
    let report = FailureReport::of(error);
    let mut text = String::new();
    if report.units.is_empty() {
        return text;
    }
    let kernel = match kernel {
        KernelChoice::Packages(release) => release.to_string(),
        KernelChoice::Files(files) => files.image.display().to_string(),
    };
    report.units.iter().for_each(|unit| summary::unit(&mut text, unit));
    let end = End::Refused { why: report.why() };
    summary::table(&mut text, &[Line { kernel: &kernel, units: &report.units, end }]);
    text
}

/// What was matched, replaced and left out.
pub(super) fn describe_report(text: &mut String, report: &BuildReport) {
    let _ = writeln!(text, "{BOLD}{}{RESET} for {}", report.module, report.kernel);
    for unit in &report.units {
        summary::unit(text, unit);
    }
    for file in &report.left_out {
        let _ = writeln!(text, "  {DIM}{file} is no part of this kernel: left out{RESET}");
    }
    for finding in &report.findings {
        let _ = writeln!(text, "  {DIM}{}: {}{RESET}", finding.subject, finding.found);
    }
    let seconds: f64 = report.seconds.values().sum();
    let _ = writeln!(
        text,
        "{GREEN}built{RESET} in {seconds:.1} s, {} bytes, sha256 {}",
        report.size, report.sha256
    );
}
