//! What two modules have differently, in words that a reviewer can use.
//!
//! Code and data are compared by symbol, with relocations as what they refer to, so that another order or
//! another number of sections is no difference by itself. Pure: bytes in, values out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use object::elf::{SHF_ALLOC, SHT_NOBITS, SHT_RELA, STT_FUNC, STT_OBJECT};
use serde::{Serialize, Serializer};

use super::VerifyError;
use crate::elf::{Elf, Malformed, Place, Relocation, Section, Symbol};
use crate::module::Module;

/// One difference between a given module and the one that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A function is patched by one of them only.
    Patched {
        /// Object, function and position.
        what: String,
        /// Which one.
        only: Only,
    },
    /// A function or data object is in one of them only.
    Symbol {
        /// The symbol.
        name: String,
        /// Which one.
        only: Only,
    },
    /// A function's code or an object's content differs.
    Content {
        /// The symbol.
        name: String,
        /// The first differing byte.
        offset: u64,
    },
    /// A symbol refers to something else at one place.
    Reference {
        /// The symbol.
        name: String,
        /// Where.
        offset: u64,
        /// What the given module has there.
        given: String,
        /// What the built one has.
        rebuilt: String,
    },
    /// Modinfo differs.
    Modinfo {
        /// The key.
        key: String,
        /// What the given module says.
        given: Vec<String>,
        /// What the built one says.
        rebuilt: Vec<String>,
    },
    /// A section without symbols differs.
    Section {
        /// The section.
        name: String,
    },
    /// Nothing that runs differs, but the files are not equal.
    Layout,
}

/// In which of two modules something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// In the given one.
    Given,
    /// In the one that was built.
    Rebuilt,
}

impl fmt::Display for Only {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Given => "the given module",
            Self::Rebuilt => "the module that the patch gives",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patched { what, only } => write!(formatter, "{what} is patched by {only} only"),
            Self::Symbol { name, only } => write!(formatter, "{name} is in {only} only"),
            Self::Content { name, offset } => write!(formatter, "{name} differs from +{offset:#x} on"),
            Self::Reference { name, offset, given, rebuilt } => {
                write!(formatter, "{name}+{offset:#x} refers to {given}, not to {rebuilt}")
            }
            Self::Modinfo { key, given, rebuilt } => {
                write!(formatter, "modinfo {key} is {given:?}, not {rebuilt:?}")
            }
            Self::Section { name } => write!(formatter, "section {name} differs"),
            Self::Layout => write!(formatter, "the files differ in their layout only, in nothing that runs"),
        }
    }
}

impl Serialize for Difference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What `given` has differently from `rebuilt`.
pub fn differences(given: &[u8], rebuilt: &[u8]) -> Result<Vec<Difference>, VerifyError> {
    let sides =
        (View::read(given).map_err(VerifyError::Module)?, View::read(rebuilt).map_err(VerifyError::Rebuilt)?);
    let mut found = Vec::new();
    for (what, only) in one_sided(&sides.0.patched, &sides.1.patched) {
        found.push(Difference::Patched { what: what.clone(), only });
    }
    for key in sides.0.modinfo.keys().chain(sides.1.modinfo.keys()).collect::<BTreeSet<_>>() {
        let (given, rebuilt) = (sides.0.modinfo.get(key), sides.1.modinfo.get(key));
        if given != rebuilt {
            let of = |values: Option<&Vec<String>>| values.cloned().unwrap_or_default();
            found.push(Difference::Modinfo { key: key.clone(), given: of(given), rebuilt: of(rebuilt) });
        }
    }
    let names = |view: &View<'_>| view.symbols.keys().cloned().collect::<BTreeSet<String>>();
    let (given_names, rebuilt_names) = (names(&sides.0), names(&sides.1));
    for (name, only) in one_sided(&given_names, &rebuilt_names) {
        found.push(Difference::Symbol { name: name.clone(), only });
    }
    for name in given_names.intersection(&rebuilt_names) {
        found.extend(content(name, &sides.0.symbols[name], &sides.1.symbols[name]));
    }
    let sections: BTreeSet<&String> = sides.0.sections.keys().chain(sides.1.sections.keys()).collect();
    for name in sections {
        if sides.0.sections.get(name) != sides.1.sections.get(name) {
            found.push(Difference::Section { name: name.clone() });
        }
    }
    if found.is_empty() {
        found.push(Difference::Layout);
    }
    Ok(found)
}

fn one_sided<'s>(given: &'s BTreeSet<String>, rebuilt: &'s BTreeSet<String>) -> Vec<(&'s String, Only)> {
    let only_given = given.difference(rebuilt).map(|name| (name, Only::Given));
    only_given.chain(rebuilt.difference(given).map(|name| (name, Only::Rebuilt))).collect()
}

fn content(name: &str, given: &Content<'_>, rebuilt: &Content<'_>) -> Option<Difference> {
    for (ours, theirs) in given.references.iter().zip(&rebuilt.references) {
        if ours != theirs {
            let (offset, given, rebuilt) = (ours.0.min(theirs.0), ours.1.clone(), theirs.1.clone());
            return Some(Difference::Reference { name: name.to_owned(), offset, given, rebuilt });
        }
    }
    let same = given.bytes == rebuilt.bytes && given.references.len() == rebuilt.references.len();
    (!same).then(|| {
        let differs = given.bytes.iter().zip(rebuilt.bytes).position(|(ours, theirs)| ours != theirs);
        let offset = differs.unwrap_or(given.bytes.len().min(rebuilt.bytes.len())) as u64;
        Difference::Content { name: name.to_owned(), offset }
    })
}

/// A symbol's bytes, or a section's, and what is referred to from them, by rising offset.
#[derive(Debug, PartialEq, Eq)]
struct Content<'a> {
    bytes: &'a [u8],
    references: Vec<(u64, String)>,
}

/// A module in a form that does not depend on its layout.
struct View<'a> {
    patched: BTreeSet<String>,
    modinfo: BTreeMap<String, Vec<String>>,
    symbols: BTreeMap<String, Content<'a>>,
    /// Loaded sections in which no function or object is.
    sections: BTreeMap<String, Content<'a>>,
}

/// Sections whose content is compared in another way, or follows from the rest.
const APART: [&str; 3] = [".modinfo", ".note.gnu.build-id", ".gnu.linkonce.this_module"];

impl<'a> View<'a> {
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let elf = Elf::parse(data)?;
        let module = Module::parse(data)?;
        let patched = module.objects().iter().flat_map(|object| {
            object
                .functions
                .iter()
                .map(|function| format!("{} of {} ({})", function.old_name, object.name, function.sympos))
        });
        let mut modinfo: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in module.modinfo.iter() {
            modinfo.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        let relocations = relocations(&elf)?;
        let mut symbols = BTreeMap::new();
        let mut named = BTreeSet::new();
        for symbol in elf.symbols() {
            let Place::Section(index) = symbol.place else { continue };
            if !matches!(symbol.kind, STT_FUNC | STT_OBJECT) || symbol.name.is_empty() {
                continue;
            }
            let section = &elf.sections()[index];
            named.insert(index);
            if APART.contains(&section.name) {
                continue;
            }
            let content = Content::of(&elf, &relocations, section, symbol.value, symbol.size);
            // Local symbols of several files can share a name.
            let mut name = symbol.name.to_owned();
            while symbols.contains_key(&name) {
                name.push('\'');
            }
            symbols.insert(name, content);
        }
        let mut sections = BTreeMap::new();
        for section in elf.sections() {
            let loaded = section.flags & u64::from(SHF_ALLOC) != 0 && section.kind != SHT_RELA;
            if loaded && !named.contains(&section.index) && !APART.contains(&section.name) {
                let content = Content::of(&elf, &relocations, section, 0, section.size);
                sections.insert(section.name.to_owned(), content);
            }
        }
        Ok(Self { patched: patched.collect(), modinfo, symbols, sections })
    }
}

fn relocations(elf: &Elf<'_>) -> Result<BTreeMap<usize, Vec<Relocation>>, Malformed> {
    let mut all: BTreeMap<usize, Vec<Relocation>> = BTreeMap::new();
    for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
        all.entry(table.info as usize).or_default().extend(elf.relocations(table)?);
    }
    for entries in all.values_mut() {
        entries.sort_by_key(|entry| entry.offset);
    }
    Ok(all)
}

impl<'a> Content<'a> {
    fn of(
        elf: &Elf<'a>,
        relocations: &BTreeMap<usize, Vec<Relocation>>,
        section: &Section<'a>,
        start: u64,
        size: u64,
    ) -> Self {
        let range = start..start.saturating_add(size);
        let bytes = match section.kind {
            SHT_NOBITS => &[],
            _ => section.data.get(range.start as usize..range.end as usize).unwrap_or_default(),
        };
        let within =
            relocations.get(&section.index).into_iter().flatten().filter(|one| range.contains(&one.offset));
        let references = within.map(|one| (one.offset - start, target(elf, one))).collect();
        Self { bytes, references }
    }
}

/// What a relocation means, without numbers that depend on the layout.
fn target(elf: &Elf<'_>, relocation: &Relocation) -> String {
    let Some(symbol) = elf.symbols().get(relocation.symbol) else { return "nothing".to_owned() };
    let kind = relocation.kind;
    let Place::Section(index) = symbol.place else {
        return format!("{} {:+} (type {kind})", symbol.name, relocation.addend);
    };
    let section = &elf.sections()[index];
    if !symbol.is_section() {
        return format!("{} {:+} (type {kind})", symbol.name, relocation.addend);
    }
    // A place in a section: by the symbol that is there, or by the string.
    let past = if symbol_is_code_relative(kind) { 4 } else { 0 };
    let at = relocation.addend.wrapping_add(past) as u64;
    let holds = |one: &&Symbol<'_>| {
        one.place == Place::Section(index)
            && !one.name.is_empty()
            && !one.is_section()
            && (one.value..one.value.saturating_add(one.size.max(1))).contains(&at)
    };
    if let Some(holder) = elf.symbols().iter().find(holds) {
        return format!("{} {:+} (type {kind})", holder.name, at.wrapping_sub(holder.value) as i64);
    }
    let tail = section.data.get(at as usize..).unwrap_or_default();
    let text = tail.split(|byte| *byte == 0).next().unwrap_or_default();
    match section.name.contains(".str") {
        true => format!("{:?} (type {kind})", String::from_utf8_lossy(text)),
        false => format!("{}{:+} (type {kind})", section.name, at as i64),
    }
}

fn symbol_is_code_relative(kind: u32) -> bool {
    matches!(kind, object::elf::R_X86_64_PC32 | object::elf::R_X86_64_PLT32)
}
