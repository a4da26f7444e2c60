//! `patch-tools diff`: what changed between two objects, and the part that a livepatch needs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use patch_tools::diff::symbols::SymbolsError;
use patch_tools::diff::{self, Diff, DiffError, Options, SymbolTable, Verdict};
use patch_tools::module::ObjectName;

use super::file::FileError;
use super::output::style::{BOLD, DIM, GREEN, RED, RESET, YELLOW};
use super::{file, output};
use system::exit::{Exit, Failure};

/// Compare an original and a patched object file, and extract what a livepatch needs
///
/// Both are relocatable x86-64 kernel objects, compiled with -ffunction-sections -fdata-sections. Ends with
/// exit code 0 if functions changed and a livepatch can carry the change, with 3 if nothing changed or if
/// the change is refused; the reasons are listed. Nothing is written unless the change can be carried.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Object compiled from the original source
    orig: PathBuf,
    /// Object compiled from the patched source
    patched: PathBuf,
    /// Symbols of the running kernel: kallsyms text, `readelf -s --wide` text, Module.symvers, an ELF file
    /// with a symbol table, or a kernel image; may be given several times
    #[arg(long, value_name = "FILE")]
    symbols: Vec<PathBuf>,
    /// Kernel object that the file is part of: vmlinux or a module's name
    #[arg(long, value_name = "NAME", default_value = "vmlinux", value_parser = object_name)]
    object: ObjectName,
    /// Write the object that carries the change, to be linked with `ld -r`
    #[arg(short, long, value_name = "OUT.o")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show for each changed function the first instruction that differs
    #[arg(long)]
    why: bool,
}

/// A symbol source that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("symbols cannot be read from {}", path.display())]
struct UnusableSymbols {
    path: PathBuf,
    source: SymbolsError,
}

/// The result cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
struct CannotWrite {
    path: PathBuf,
    source: std::io::Error,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut table = SymbolTable::new();
    for path in &args.symbols {
        read_symbols(&mut table, path, &args.object)?;
    }
    let mut options = Options::new(args.object.clone());
    options.symbols = (!args.symbols.is_empty()).then_some(&table);
    let (orig, patched) = (read(&args.orig)?, read(&args.patched)?);
    let diff = diff::compare(&orig, &patched, &options).map_err(|error| {
        let hint = match &error {
            DiffError::NoSymbolsOf { .. } => Some("give the symbols of that object with a further --symbols"),
            _ => None,
        };
        let failure = Failure::new(Exit::Refused, error);
        match hint {
            Some(hint) => failure.next(hint),
            None => failure,
        }
    })?;
    if let (Some(path), Some(object)) = (&args.output, diff.object()) {
        fs::write(path, object).map_err(|source| {
            Failure::new(Exit::FailedRestored, CannotWrite { path: path.clone(), source })
        })?;
    }
    if args.json {
        output::print_json(&json(&diff, args))?;
    } else {
        output::print(&describe(&diff, args))?;
    }
    Ok(match diff.report().verdict {
        Verdict::Changed => Exit::Done,
        Verdict::Unchanged | Verdict::Refused => Exit::Refused,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path)
        .map_err(|source| Failure::new(Exit::Refused, FileError::Read { path: path.to_owned(), source }))
}

/// Reads one source of symbols; what is no text and no ELF file must be a kernel image.
fn read_symbols(table: &mut SymbolTable, path: &Path, object: &ObjectName) -> Result<(), Failure> {
    let bytes = read(path)?;
    let result = match table.read(&bytes, object) {
        // A kernel image without a symbol table of its own still has kallsyms inside.
        Err(SymbolsError::UnknownFormat(_)) if bytes.get(0x202..0x206) == Some(b"HdrS") => {
            table.read_image(&file::image(path)?)
        }
        Err(SymbolsError::Empty(_)) if *object == ObjectName::Vmlinux => {
            table.read_image(&file::image(path)?)
        }
        result => result,
    };
    result.map_err(|source| Failure::new(Exit::Refused, UnusableSymbols { path: path.to_owned(), source }))
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    let checked = text.parse::<manifests::ObjectName>().map_err(|error| error.to_string())?;
    Ok(match checked.is_vmlinux() {
        true => ObjectName::Vmlinux,
        false => ObjectName::Module(text.to_owned()),
    })
}

fn json(diff: &Diff, args: &Args) -> serde_json::Value {
    let mut value = serde_json::json!({ "schema": 1 });
    // Plain structures of strings and numbers: this cannot fail.
    if let (Some(object), Ok(serde_json::Value::Object(report))) =
        (value.as_object_mut(), serde_json::to_value(diff.report()))
    {
        object.extend(report);
        if args.why
            && let Ok(why) = serde_json::to_value(diff.explanations())
        {
            object.insert("why".to_owned(), why);
        }
    }
    value
}

fn describe(diff: &Diff, args: &Args) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, diff, args);
    text
}

fn write_report(text: &mut String, diff: &Diff, args: &Args) -> std::fmt::Result {
    let report = diff.report();
    let object = &report.object;
    match report.verdict {
        Verdict::Changed if report.functions.is_empty() => {
            writeln!(
                text,
                "{GREEN}changed{RESET}: nothing to replace, only new things that other files may use"
            )?;
        }
        Verdict::Changed => writeln!(text, "{GREEN}changed{RESET}: a livepatch of {object} can carry it")?,
        Verdict::Unchanged => writeln!(text, "{YELLOW}unchanged{RESET}: nothing that runs differs")?,
        Verdict::Refused => writeln!(text, "{RED}refused{RESET}: a livepatch of {object} cannot carry it")?,
    }
    for refused in &report.refused {
        writeln!(text, "  {RED}-{RESET} {refused} {DIM}[{}]{RESET}", refused.reason.id())?;
    }
    let mut list = |title: &str, names: &mut dyn Iterator<Item = String>| -> std::fmt::Result {
        let mut first = true;
        for name in names {
            if std::mem::take(&mut first) {
                writeln!(text, "{BOLD}{title}{RESET}")?;
            }
            writeln!(text, "  {name}")?;
        }
        Ok(())
    };
    let positions = report.functions.iter();
    if report.functions.is_empty() {
        list("changed functions", &mut report.changed_functions.iter().cloned())?;
    } else {
        let named = positions.map(|function| match function.sympos {
            0 => function.name.clone(),
            sympos => format!("{},{sympos}", function.name),
        });
        list("changed functions", &mut named.into_iter())?;
    }
    list("new functions", &mut report.new_functions.iter().cloned())?;
    list("new data", &mut report.new_data.iter().cloned())?;
    let callbacks = report.callbacks.iter();
    list(
        "callbacks",
        &mut callbacks.map(|callback| format!("{} {}", callback.kind.name(), callback.function)),
    )?;
    let symbols: std::collections::BTreeSet<String> = report
        .klp_relocations
        .iter()
        .map(|relocation| format!("{}:{},{}", relocation.object, relocation.symbol, relocation.sympos))
        .collect();
    list("livepatch symbols", &mut symbols.into_iter())?;
    let ignored = report.ignored.iter();
    list("ignored", &mut ignored.map(|ignored| format!("{}: {}", ignored.function, ignored.reason)))?;
    if args.why {
        for explanation in diff.explanations() {
            writeln!(text, "{explanation}")?;
        }
    }
    if let (Some(path), Verdict::Changed) = (&args.output, report.verdict) {
        writeln!(text, "written to {}", path.display())?;
    }
    Ok(())
}
