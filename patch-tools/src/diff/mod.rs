//! Compares an original and a patched relocatable object: which functions changed, whether a livepatch can
//! carry the change, and the part of the patched object that it needs.
//!
//! Both objects are x86-64 kernel code, compiled with `-ffunction-sections -fdata-sections`. [`compare`]
//! runs through these stages, one file each:
//!
//! 1. `unit`: cut each object into functions and data objects (atoms); `sections` tells what a section is
//!    for, `names` strips the compiler's numbers, `mergeable` finds the ends of strings and constants
//! 2. `special`: attribute the entries of `__bug_table`, `.altinstructions` and so on to functions
//! 3. `pairs`: find each atom's counterpart; `duplicated` tells what has none on purpose
//! 4. `changes`: compare counterparts (`equality`), disregard line numbers (`lines`), judge what differs, what
//!    would be lost (`state`), whether ftrace can redirect it (`ftrace`), and what would lead into the old code (`inside`)
//! 5. `select`: collect what the changed functions need; `resolve` decides who resolves the rest, using
//!    [`symbols`]
//! 6. `layout`: lay out the object that carries the selection
//!
//! Every stage is linear in the size of the objects; lookups go through hash maps, nothing is compared with
//! everything. The objects stay in the caller's memory and are not copied.
//!
//! What is refused is in [`Refusal`]. This module does not link, does not write `.klp.rela` sections
//! ([`crate::klp::finish()`] does, after linking) and does not know how the objects were compiled. A changed
//! CRC of an exported symbol is seen only for kernels before 5.19, which have CRCs in objects; for later ones
//! the builder compares what `genksyms` prints.
//!
//! A patch author's header marks callbacks by a pointer to the function in a section
//! `.update.callbacks.pre_patch` (and `post_patch`, `pre_unpatch`, `post_unpatch`), and functions to replace
//! although they look the same, or to leave alone although they differ, by a pointer in `.update.force` or
//! `.update.ignore`.

mod changes;
mod duplicated;
mod equality;
mod explain;
mod ftrace;
mod inside;
mod layout;
mod lines;
mod mergeable;
mod names;
mod pairs;
mod refusal;
mod report;
mod resolve;
mod runtime;
mod sections;
mod select;
mod special;
mod state;
pub mod symbols;
mod unit;
mod unnamed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use changes::{Changes, Sides};
use equality::Equality;
use layout::{Layout, Placeholder};
use pairs::Pairs;
use resolve::Resolver;
use select::Selector;
use special::Entries;
use unit::{AtomId, Unit};

use crate::elf::Malformed;
use crate::module::ObjectName;

pub use explain::Explanation;
pub use refusal::{Refusal, Refused, Subject};
pub use report::{
    Callback, CallbackKind, Ignored, IgnoredReason, KlpRelocation, Replacement, Report, Verdict,
};
pub use symbols::SymbolTable;

/// What a comparison is told besides the two objects.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// The kernel object that the compared file is part of.
    pub object: ObjectName,
    /// Symbols and exports of the running objects. Without it every reference is taken to be unique and
    /// unexported, and positions are 0.
    pub symbols: Option<&'o SymbolTable>,
    /// Global symbols that other files of the same patch define anew; see [`new_globals`].
    pub provided: BTreeSet<String>,
    /// Addresses of local symbols of the original file that matching against the shipped code has found.
    /// They settle which of several symbols of a name is meant.
    pub addresses: BTreeMap<String, u64>,
}

impl Options<'_> {
    /// Options for a file of `object`, with no symbols known.
    pub fn new(object: ObjectName) -> Self {
        Self { object, symbols: None, provided: BTreeSet::new(), addresses: BTreeMap::new() }
    }
}

/// Which of the two objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The original one.
    Original,
    /// The patched one.
    Patched,
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Original => "original",
            Self::Patched => "patched",
        })
    }
}

/// Input that cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// A file breaks a rule of its format.
    #[error("{side} object is malformed")]
    Malformed {
        /// Which one.
        side: Side,
        /// Where, and which rule.
        source: Malformed,
    },
    /// The symbols given do not cover the object that the file is part of.
    #[error("expected symbols of {object} among those given, but there are none")]
    NoSymbolsOf {
        /// The object.
        object: ObjectName,
    },
}

/// A finished comparison.
pub struct Diff {
    report: Report,
    explanations: Vec<Explanation>,
    object: Option<Vec<u8>>,
}

impl fmt::Debug for Diff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Diff").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Diff {
    /// What was found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// For each changed function the first difference, in the order of the report.
    pub fn explanations(&self) -> &[Explanation] {
        &self.explanations
    }

    /// The relocatable object that carries the change: input of `ld -r`. Nothing unless the verdict is
    /// [`Verdict::Changed`].
    ///
    /// The new functions stand under the global names in [`Replacement::new_symbol`]; references to the
    /// running kernel are undefined symbols for [`crate::klp::finish()`].
    pub fn object(&self) -> Option<&[u8]> {
        self.object.as_deref()
    }

    /// The same without a copy.
    pub fn into_object(self) -> Option<Vec<u8>> {
        self.object
    }
}

/// Names of global functions and variables that only the patched object has: what other files of the patch
/// may refer to. For [`Options::provided`].
pub fn new_globals(orig: &[u8], patched: &[u8]) -> Result<Vec<String>, DiffError> {
    let (orig, patched) = parse(orig, patched)?;
    let pairs = Pairs::find(&orig, &patched, &mut Vec::new());
    let equality = Equality::new(&orig, &patched, &pairs);
    let none = Entries::default();
    let sides = Sides { equality: &equality, orig_entries: &none, patched_entries: &none };
    let new = patched.atoms().filter(|&atom| select::is_new_global(&sides, atom));
    Ok(new.map(|atom| patched.name(atom).to_owned()).collect())
}

/// Compares two objects and prepares what a livepatch needs.
///
/// Differences that no livepatch can carry are in the report, not errors; an error means that the input
/// could not be judged at all.
pub fn compare(orig: &[u8], patched: &[u8], options: &Options<'_>) -> Result<Diff, DiffError> {
    if options.symbols.is_some_and(|table| !table.knows(&options.object)) {
        return Err(DiffError::NoSymbolsOf { object: options.object.clone() });
    }
    let (orig, patched) = parse(orig, patched)?;
    let mut refused = changes::header_rules(&orig, &patched);
    if !refused.is_empty() {
        return Ok(Diff::refused(options, refused));
    }
    let pairs = Pairs::find(&orig, &patched, &mut refused);
    let equality = Equality::new(&orig, &patched, &pairs);
    let entries = [Entries::read(&orig, &mut refused), Entries::read(&patched, &mut refused)];
    let sides = Sides { equality: &equality, orig_entries: &entries[0], patched_entries: &entries[1] };
    let mut found = Changes::find(&sides);
    refused.append(&mut found.refused);
    let resolver =
        Resolver::new(&options.object, options.symbols, &options.provided, &options.addresses, &orig);
    let (mut selection, resolver) = Selector::new(&sides, &found, resolver).select();
    // References of what is refused anyway would only repeat the reason in other words.
    if refused.is_empty() {
        refused.append(&mut selection.refused);
    }
    let mut functions = Vec::new();
    let mut placeholders = Vec::new();
    for &atom in found.functions.keys() {
        let Some(original) = pairs.orig_of(atom) else { continue };
        let name = orig.name(original).to_owned();
        let sympos = match resolver.replaceable(original) {
            Ok(located) => located.sympos,
            Err(reason) => {
                let subject = Subject::Symbol(name);
                // What has run and is gone has no symbol either.
                let is_gone = |one: &Refused| {
                    one.subject == subject && matches!(one.reason, Refusal::InitChanged { .. })
                };
                if !refused.iter().any(is_gone) {
                    refused.push(Refused { subject, reason });
                }
                continue;
            }
        };
        let new_symbol = crate::klp::names::new_function(&options.object, &name, sympos);
        placeholders.push(Placeholder { atom, name: new_symbol.clone() });
        let size = patched.atom(atom).symbol().map_or(0, |symbol| patched.symbol(symbol).size);
        functions.push(Replacement { name, sympos, new_symbol, new_size: size });
    }
    let callbacks = found.callbacks.iter().map(|&(kind, atom)| {
        let new_symbol = crate::klp::names::callback(&options.object, kind.name());
        placeholders.push(Placeholder { atom, name: new_symbol.clone() });
        Callback { kind, function: patched.name(atom).to_owned(), new_symbol }
    });
    let callbacks: Vec<Callback> = callbacks.collect();
    let verdict = if !refused.is_empty() {
        Verdict::Refused
    } else if selection.atoms.is_empty() {
        Verdict::Unchanged
    } else {
        Verdict::Changed
    };
    let carried = |wanted: fn(&Unit<'_>, AtomId) -> bool| -> Vec<String> {
        let new = selection.atoms.keys().copied();
        new.filter(|&atom| pairs.orig_of(atom).is_none() && wanted(&patched, atom))
            .map(|atom| patched.name(atom).to_owned())
            .collect()
    };
    let changed = verdict == Verdict::Changed;
    let layout = changed.then(|| Layout::new(&sides, &selection, &placeholders));
    let mut ignored = found.ignored;
    ignored.append(&mut selection.ignored);
    if verdict == Verdict::Unchanged {
        let is_new = |atom: &AtomId| pairs.orig_of(*atom).is_none() && !changes::is_cold(&patched, *atom);
        let functions = patched.atoms().filter(|&atom| patched.is_function(atom)).filter(is_new);
        ignored.extend(
            functions.map(|atom| Ignored { function: patched.label(atom), reason: IgnoredReason::Unused }),
        );
    }
    let explanations =
        found.functions.iter().map(|(&atom, &reason)| explain::explain(&equality, atom, reason)).collect();
    let report = Report {
        verdict,
        object: options.object.clone(),
        changed_functions: found
            .functions
            .keys()
            .map(|&atom| original_name(&pairs, &orig, &patched, atom))
            .collect(),
        new_functions: carried(|unit, atom| unit.is_function(atom) && !changes::is_cold(unit, atom)),
        new_data: carried(changes::is_identified_data),
        callbacks,
        functions,
        klp_relocations: layout.as_ref().map_or_else(Vec::new, |layout| layout.klp_relocations().to_vec()),
        ignored,
        refused: refusal::without_repetition(refused),
    };
    let object = layout.map(|layout| layout.write());
    Ok(Diff { report, explanations, object })
}

impl Diff {
    fn refused(options: &Options<'_>, refused: Vec<Refused>) -> Self {
        let report = Report {
            verdict: Verdict::Refused,
            object: options.object.clone(),
            changed_functions: Vec::new(),
            new_functions: Vec::new(),
            new_data: Vec::new(),
            callbacks: Vec::new(),
            functions: Vec::new(),
            klp_relocations: Vec::new(),
            ignored: Vec::new(),
            refused,
        };
        Self { report, explanations: Vec::new(), object: None }
    }
}

fn parse<'d>(orig: &'d [u8], patched: &'d [u8]) -> Result<(Unit<'d>, Unit<'d>), DiffError> {
    let read = |side, data| Unit::parse(data).map_err(|source| DiffError::Malformed { side, source });
    Ok((read(Side::Original, orig)?, read(Side::Patched, patched)?))
}

/// The name that the running object has for a changed function.
fn original_name(pairs: &Pairs, orig: &Unit<'_>, patched: &Unit<'_>, atom: AtomId) -> String {
    match pairs.orig_of(atom) {
        Some(original) => orig.label(original),
        None => patched.label(atom),
    }
}
