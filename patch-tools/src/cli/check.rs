//! `patch-tools check`: would this module load there, and patch what it says?

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use patch_tools::check::{Finding, KernelFacts, Origin, Severity, check, loadable};
use patch_tools::image::{Config, KernelImage};
use patch_tools::module::{Layout, Module};
use serde::Serialize;

use super::output::style::{BOLD, DIM, GREEN, RED, RESET, YELLOW};
use super::{file, output};
use system::exit::{Exit, Failure};

/// Check whether a module would load into a kernel and patch what it says
///
/// Compares vermagic, configuration, CRCs of imported symbols, every livepatch symbol and position, presence
/// and traceability of every function to patch, and, on a running kernel, conflicts with what is loaded.
/// Loads nothing. Exit code 3 when a finding refuses.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["image", "running"]))]
pub(crate) struct Args {
    /// Module file: .ko, also compressed
    module: PathBuf,
    /// Check against this kernel image (vmlinuz or vmlinux)
    #[arg(long, value_name = "VMLINUZ")]
    image: Option<PathBuf>,
    /// Check against the running kernel
    #[arg(long)]
    running: bool,
    /// Directory with that kernel's modules
    ///
    /// For a running kernel the default is /lib/modules/RELEASE.
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Configuration of the kernel image
    ///
    /// The default is the file config-RELEASE beside an image named vmlinuz-RELEASE.
    #[arg(long, value_name = "FILE", requires = "image")]
    config: Option<PathBuf>,
    /// Read the running kernel's files below this directory
    #[arg(long, value_name = "DIR", default_value = "/", requires = "running")]
    root: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let data = file::module_bytes(&args.module)?;
    let (module, mut facts) = match &args.image {
        Some(path) => {
            let image = file::image(path)?;
            let module = file::module(&args.module, &data, &layout(path, &image)?)?;
            (module, image_facts(args, path, &image)?)
        }
        None => {
            let module = file::module(&args.module, &data, &Layout::default())?;
            let facts = KernelFacts::gather(&args.root, &module).map_err(|error| {
                let hint = "kallsyms and most facts need root; --image checks without";
                Failure::new(Exit::Refused, error).next(hint)
            })?;
            (module, facts)
        }
    };
    if let Some(directory) = &args.modules {
        let added = facts.add_module_files(directory, &module);
        added.map_err(|error| Failure::new(Exit::Refused, error))?;
    }
    let findings = check(&module, &facts);
    if args.json {
        output::print_json(&Report::new(&module, &facts, &findings))?;
    } else {
        output::print(&describe(args, &module, &facts, &findings))?;
    }
    Ok(if loadable(&findings) { Exit::Done } else { Exit::Refused })
}

/// The layout that the image's types give; without types the default.
fn layout(path: &Path, image: &KernelImage) -> Result<Layout, Failure> {
    let found = image.livepatch_layout();
    let found = found.map_err(|source| file::FileError::Image { path: path.to_owned(), source });
    Ok(found.map_err(|error| Failure::new(Exit::Refused, error))?.unwrap_or_default())
}

fn image_facts(args: &Args, path: &Path, image: &KernelImage) -> Result<KernelFacts, Failure> {
    let mut facts = KernelFacts::from_image(image);
    let beside = || {
        let name = path.file_name()?.to_str()?.replacen("vmlinuz", "config", 1);
        Some(path.with_file_name(name)).filter(|config| config != path && config.is_file())
    };
    if let Some(config) = args.config.clone().or_else(beside) {
        let text = std::fs::read_to_string(&config).map_err(|source| {
            Failure::new(Exit::Refused, file::FileError::Read { path: config.clone(), source })
        })?;
        facts.config = Some(Config::parse(&text));
    }
    Ok(facts)
}

/// The JSON form.
#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    module: Option<&'a str>,
    kernel: &'a str,
    origin: Origin,
    verdict: &'static str,
    findings: &'a [Finding],
}

impl<'a> Report<'a> {
    fn new(module: &'a Module, facts: &'a KernelFacts, findings: &'a [Finding]) -> Self {
        Self {
            schema: 1,
            module: module.name.as_deref(),
            kernel: &facts.release,
            origin: facts.origin,
            verdict: if loadable(findings) { "loadable" } else { "refused" },
            findings,
        }
    }
}

fn describe(args: &Args, module: &Module, facts: &KernelFacts, findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, args, module, facts, findings);
    text
}

fn write_report(
    text: &mut String,
    args: &Args,
    module: &Module,
    facts: &KernelFacts,
    findings: &[Finding],
) -> std::fmt::Result {
    let name = module.name.as_deref().unwrap_or("(unnamed)");
    let target = match &args.image {
        Some(path) => path.display().to_string(),
        None => "running".to_owned(),
    };
    writeln!(text, "{BOLD}{name}{RESET} against {} ({target})", facts.release)?;
    for finding in findings {
        let (colour, word) = match finding.severity {
            Severity::Refuse => (RED, "refuse"),
            Severity::Warn => (YELLOW, "warn"),
            Severity::Note => (DIM, "note"),
        };
        writeln!(text, "  {colour}{word:<6}{RESET} {}  {DIM}{}{RESET}", finding.subject, finding.rule)?;
        writeln!(text, "         expected {}", finding.expected)?;
        writeln!(text, "         found    {}", finding.found)?;
    }
    let functions: usize = module.objects().iter().map(|object| object.functions.len()).sum();
    let looked_at = format!(
        "{functions} functions, {} imported symbols, {} livepatch symbols",
        module.imports.len(),
        module.klp_symbols.len()
    );
    let refusals = findings.iter().filter(|finding| finding.severity == Severity::Refuse).count();
    match refusals {
        0 => writeln!(text, "{GREEN}would load{RESET}: {looked_at} checked"),
        1 => writeln!(text, "{RED}refused{RESET} for 1 reason: {looked_at} checked"),
        count => writeln!(text, "{RED}refused{RESET} for {count} reasons: {looked_at} checked"),
    }
}
