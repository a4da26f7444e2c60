//! `patch-tools inspect`: everything a module file says, without a kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use patch_tools::module::{Layout, Livepatch, Module, Need, PatchedFunction, Replace, TableForm};
use serde::Serialize;

use super::output::style::{BOLD, DIM, RESET, YELLOW};
use super::{file, output};
use system::exit::{Exit, Failure};

/// Show what a kernel module patches, needs and carries
///
/// Reads the file only: no kernel, no root. A file that is not a proper module ends with exit code 3 and a
/// message that names the offset and the rule that is broken there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Module file: .ko, also compressed (.ko.xz, .ko.zst, .ko.gz)
    module: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let data = file::module_bytes(&args.module)?;
    let module = file::module(&args.module, &data, &Layout::default())?;
    if args.json {
        output::print_json(&Report::new(&args.module, &module))?;
    } else {
        output::print(&describe(&module))?;
    }
    Ok(Exit::Done)
}

/// The JSON form: the module with what follows from it.
#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    file: &'a Path,
    is_livepatch: bool,
    release: Option<&'a str>,
    vermagic: Option<&'a str>,
    #[serde(flatten)]
    module: &'a Module,
}

impl<'a> Report<'a> {
    fn new(file: &'a Path, module: &'a Module) -> Self {
        Self {
            schema: 1,
            file,
            is_livepatch: module.is_livepatch(),
            release: module.release(),
            vermagic: module.vermagic(),
            module,
        }
    }
}

fn describe(module: &Module) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = headline(&mut text, module);
    let _ = facts(&mut text, module);
    if let Some(livepatch) = &module.livepatch {
        let _ = objects(&mut text, livepatch);
    }
    let _ = klp(&mut text, module);
    let _ = tables(&mut text, module);
    text
}

fn headline(text: &mut String, module: &Module) -> std::fmt::Result {
    let name = module.name.as_deref().unwrap_or("(unnamed)");
    let release = module.release().unwrap_or("no particular kernel");
    write!(text, "{BOLD}{name}{RESET}: ")?;
    match &module.livepatch {
        Some(livepatch) => {
            let functions: usize = livepatch.objects.iter().map(|object| object.functions.len()).sum();
            let functions = counted(functions, "function");
            let objects = counted(livepatch.objects.len(), "object");
            write!(text, "livepatch for {release}, {functions} in {objects}, ")?;
            writeln!(
                text,
                "{}",
                match livepatch.replace {
                    Replace::None => "stacks on earlier livepatches",
                    Replace::All => "replaces all earlier livepatches",
                    Replace::DecidedAtLoad => "replaces earlier livepatches or not, as its code decides",
                }
            )
        }
        None if module.is_livepatch() => {
            writeln!(text, "livepatch for {release}, {YELLOW}but no struct klp_patch found{RESET}")
        }
        None => writeln!(text, "module for {release}, not a livepatch"),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn facts(text: &mut String, module: &Module) -> std::fmt::Result {
    let mut line = |label: &str, value: &str| writeln!(text, "  {DIM}{label:<10}{RESET} {value}");
    line("vermagic", module.vermagic().map_or("none", str::trim_end))?;
    line("build id", module.build_id.as_deref().unwrap_or("none"))?;
    match &module.signature {
        None => line("signature", "none")?,
        Some(signature) => {
            for signer in &signature.signers {
                let how = format!(
                    "{}, {} over {} (not verified here)",
                    signer.identity, signer.algorithm, signer.digest
                );
                line("signature", &how)?;
            }
        }
    }
    let sizes = &module.sizes;
    let size = format!(
        "{} bytes: text {}, data {}, init {}, debug {}",
        sizes.file, sizes.text, sizes.data, sizes.init, sizes.debug
    );
    line("size", &size)?;
    if let Some(livepatch) = &module.livepatch {
        line(
            "tables",
            match livepatch.form {
                TableForm::KlpPatch => "struct klp_patch",
                TableForm::Kpatch => "kpatch-build's .kpatch.funcs",
                TableForm::KlpBuild => "klp-build's __klp_objects",
            },
        )?;
    }
    for (key, value) in module.modinfo.iter().filter(|(key, _)| !matches!(*key, "vermagic" | "name")) {
        line(key, if value.is_empty() { "none" } else { value })?;
    }
    Ok(())
}

fn objects(text: &mut String, livepatch: &Livepatch) -> std::fmt::Result {
    for object in &livepatch.objects {
        writeln!(text, "\n{BOLD}{}{RESET}", object.name)?;
        let names: Vec<String> = object.functions.iter().map(position).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0);
        for (function, name) in object.functions.iter().zip(&names) {
            let new = function.new_symbol.as_deref().unwrap_or("(no symbol)");
            write!(text, "  {name:<width$}  by {new}")?;
            match function.new_size {
                Some(size) => writeln!(text, ", {size} bytes")?,
                None => writeln!(text)?,
            }
        }
        for (slot, name) in object.callbacks.iter() {
            writeln!(text, "  {DIM}{slot}{RESET} {name}")?;
        }
    }
    for state in &livepatch.states {
        writeln!(text, "\n{DIM}state{RESET} {} version {}", state.id, state.version)?;
    }
    for name in &livepatch.forced {
        writeln!(text, "\n{YELLOW}forced{RESET} {name}: patched without waiting for tasks in it")?;
    }
    Ok(())
}

fn position(function: &PatchedFunction) -> String {
    match function.sympos {
        0 => function.old_name.clone(),
        position => format!("{},{position}", function.old_name),
    }
}

/// Livepatch symbols with the number of relocations that use them.
fn klp(text: &mut String, module: &Module) -> std::fmt::Result {
    if module.klp_symbols.is_empty() && module.klp_relocations.is_empty() {
        return Ok(());
    }
    let mut uses: BTreeMap<_, BTreeMap<&str, usize>> = BTreeMap::new();
    for symbol in &module.klp_symbols {
        uses.entry(Some(symbol)).or_default();
    }
    for relocation in &module.klp_relocations {
        let sections = uses.entry(relocation.symbol.as_ref()).or_default();
        *sections.entry(relocation.section.as_str()).or_default() += 1;
    }
    let symbols = counted(module.klp_symbols.len(), "livepatch symbol");
    let relocations = counted(module.klp_relocations.len(), "livepatch relocation");
    writeln!(text, "\n{BOLD}{symbols}, {relocations}{RESET}")?;
    for (symbol, sections) in uses {
        match symbol {
            Some(symbol) => write!(text, "  {}:{},{}", symbol.object, symbol.name, symbol.sympos)?,
            None => write!(text, "  {YELLOW}not a livepatch symbol{RESET}")?,
        }
        for (section, count) in sections {
            write!(text, "  {DIM}{section}{RESET} {count}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn tables(text: &mut String, module: &Module) -> std::fmt::Result {
    if !module.special_sections.is_empty() {
        writeln!(text, "\n{BOLD}special sections{RESET}")?;
        for section in &module.special_sections {
            match section.entries {
                Some(entries) => writeln!(text, "  {:<24} {entries}", section.name)?,
                None => writeln!(text, "  {:<24} {} bytes", section.name, section.size)?,
            }
        }
    }
    if !module.imports.is_empty() {
        writeln!(text, "\n{BOLD}{}{RESET}", counted(module.imports.len(), "imported symbol"))?;
        for import in &module.imports {
            let crc = import.crc.map_or_else(|| "no CRC    ".to_owned(), |crc| format!("{crc:#010x}"));
            let note = match import.need {
                Need::Required => "",
                Need::Optional => "  (weak)",
                Need::Layout => "  (layout of struct module)",
            };
            writeln!(text, "  {crc}  {}{DIM}{note}{RESET}", import.name)?;
        }
    }
    Ok(())
}
