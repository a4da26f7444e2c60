//! What two modules have differently, in words that a reviewer can use.
//!
//! Code and data are compared by symbol, with relocations as what they refer to, so that another order or
//! another number of sections is no difference by itself. What no symbol covers is compared as well, behind the symbol
//! that it follows: every byte that is loaded counts, but the build id. Pure: bytes in, values out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_RELA, STT_FUNC, STT_OBJECT};
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
    /// A symbol or section is of another kind, or in another kind of memory.
    Kind {
        /// The symbol or section.
        name: String,
        /// What it is in the given module.
        given: String,
        /// What it is in the built one.
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
    /// A section without symbols differs, or what no symbol of it covers.
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
            Self::Kind { name, given, rebuilt } => write!(formatter, "{name} is {given}, not {rebuilt}"),
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
    let names = |view: &View| view.symbols.keys().cloned().collect::<BTreeSet<String>>();
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

fn content(name: &str, given: &Content, rebuilt: &Content) -> Option<Difference> {
    if given.kind != rebuilt.kind {
        let (given, rebuilt) = (given.kind.clone(), rebuilt.kind.clone());
        return Some(Difference::Kind { name: name.to_owned(), given, rebuilt });
    }
    for (ours, theirs) in given.references.iter().zip(&rebuilt.references) {
        if ours != theirs {
            let (offset, given, rebuilt) = (ours.0.min(theirs.0), ours.1.clone(), theirs.1.clone());
            return Some(Difference::Reference { name: name.to_owned(), offset, given, rebuilt });
        }
    }
    let same = given.bytes == rebuilt.bytes && given.references.len() == rebuilt.references.len();
    (!same).then(|| {
        let differs = given.bytes.iter().zip(&rebuilt.bytes).position(|(ours, theirs)| ours != theirs);
        let offset = differs.unwrap_or(given.bytes.len().min(rebuilt.bytes.len())) as u64;
        Difference::Content { name: name.to_owned(), offset }
    })
}

/// A symbol's bytes, or a section's, and what is referred to from them, by rising offset.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    kind: String,
    bytes: Vec<u8>,
    references: Vec<(u64, String)>,
}

/// A module in a form that does not depend on its layout.
struct View {
    patched: BTreeSet<String>,
    modinfo: BTreeMap<String, Vec<String>>,
    symbols: BTreeMap<String, Content>,
    /// Loaded sections without a symbol, and what no symbol covers of the others.
    sections: BTreeMap<String, Content>,
}

/// Sections whose content is compared in another way, or follows from the rest.
const APART: [&str; 2] = [".modinfo", ".note.gnu.build-id"];

impl View {
    fn read(data: &[u8]) -> Result<Self, Malformed> {
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
        let parts = Parts::of(&elf)?;
        let (mut symbols, mut sections) = (BTreeMap::new(), BTreeMap::new());
        for section in elf.sections() {
            let is_loaded = section.is_allocated() && section.kind != SHT_RELA;
            if !is_loaded || APART.contains(&section.name) {
                continue;
            }
            let named = parts.named(section);
            for (symbol, label) in &named {
                symbols.insert(
                    (*label).to_owned(),
                    parts.content(section, symbol.value, symbol.size, Some(symbol)),
                );
            }
            if named.is_empty() {
                insert(&mut sections, section.name.to_owned(), parts.content(section, 0, section.size, None));
                continue;
            }
            for (behind, start, size) in uncovered(section, &named) {
                let name = format!("{} behind {behind}", section.name);
                insert(&mut sections, name, parts.content(section, start, size, None));
            }
        }
        Ok(Self { patched: patched.collect(), modinfo, symbols, sections })
    }
}

/// Several can have one name; none takes the place of another.
fn insert(into: &mut BTreeMap<String, Content>, name: String, content: Content) {
    let name = unique(name, |name| into.contains_key(name));
    into.insert(name, content);
}

fn unique(mut name: String, is_taken: impl Fn(&str) -> bool) -> String {
    while is_taken(&name) {
        name.push('\'');
    }
    name
}

/// The stretches of a section that none of its symbols covers, with what is before them. `named` is ordered by address.
fn uncovered<'n>(section: &Section<'_>, named: &[(&Symbol<'_>, &'n str)]) -> Vec<(&'n str, u64, u64)> {
    let mut found = Vec::new();
    let (mut behind, mut covered) = ("its start", 0);
    for (symbol, label) in named {
        if symbol.value > covered {
            found.push((behind, covered, symbol.value.min(section.size).saturating_sub(covered)));
        }
        let end = symbol.value.saturating_add(symbol.size);
        if end > covered {
            (behind, covered) = (label, end);
        }
    }
    if covered < section.size {
        found.push((behind, covered, section.size - covered));
    }
    found
}

/// Functions and objects, which have a name in both modules.
fn is_named(symbol: &Symbol<'_>) -> bool {
    matches!(symbol.kind, STT_FUNC | STT_OBJECT) && !symbol.name.is_empty()
}

/// What views are made of.
struct Parts<'e, 'a> {
    elf: &'e Elf<'a>,
    /// A name for each symbol that no other has: local symbols of several files can share one.
    labels: Vec<String>,
    /// Of each section, by rising offset.
    relocations: BTreeMap<usize, Vec<(Relocation, &'a str)>>,
}

impl<'e, 'a> Parts<'e, 'a> {
    fn of(elf: &'e Elf<'a>) -> Result<Self, Malformed> {
        let mut taken = BTreeSet::new();
        let labels = elf.symbols().iter().map(|symbol| match is_named(symbol) {
            true => {
                let label = unique(symbol.name.to_owned(), |name| taken.contains(name));
                taken.insert(label.clone());
                label
            }
            false => symbol.name.to_owned(),
        });
        let labels = labels.collect();
        let mut relocations: BTreeMap<usize, Vec<(Relocation, &str)>> = BTreeMap::new();
        for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
            let entries = elf.relocations(table)?.into_iter().map(|entry| (entry, table.name));
            relocations.entry(table.info as usize).or_default().extend(entries);
        }
        for entries in relocations.values_mut() {
            entries.sort_by_key(|(entry, _)| entry.offset);
        }
        Ok(Self { elf, labels, relocations })
    }

    /// The functions and objects of a section with their labels, by address.
    fn named(&self, section: &Section<'_>) -> Vec<(&'e Symbol<'a>, &str)> {
        let symbols = self.elf.symbols().iter().zip(self.labels.iter().map(String::as_str));
        let here = |symbol: &Symbol<'_>| symbol.place == Place::Section(section.index) && is_named(symbol);
        let mut named: Vec<_> = symbols.filter(|(symbol, _)| here(symbol)).collect();
        named.sort_by_key(|(symbol, label)| (symbol.value, symbol.size, *label));
        named
    }

    fn content(&self, section: &Section<'_>, start: u64, size: u64, symbol: Option<&Symbol<'_>>) -> Content {
        let range = start..start.saturating_add(size);
        let bytes = section.data.get(range.start as usize..range.end as usize).unwrap_or_default();
        let relocations = self.relocations.get(&section.index).into_iter().flatten();
        let within = relocations.filter(|(one, _)| range.contains(&one.offset));
        let references = within.map(|(one, table)| (one.offset - start, self.target(one, table))).collect();
        let memory = format!("{size} bytes in memory of kind {:#x}", section.flags & KIND_OF_MEMORY);
        let kind = match symbol {
            Some(symbol) => format!("a symbol of kind {} with {memory} of {}", symbol.kind, section.name),
            None => memory,
        };
        Content { kind, bytes: bytes.to_vec(), references }
    }

    /// What a relocation means, without numbers that depend on the layout.
    fn target(&self, relocation: &Relocation, table: &str) -> String {
        let elf = self.elf;
        let Some(symbol) = elf.symbols().get(relocation.symbol) else { return "nothing".to_owned() };
        // The livepatch core applies these later, and those of one object together.
        let when = if table.starts_with(".klp.") { format!(" in {table}") } else { String::new() };
        let kind = format!("(type {}){when}", relocation.kind);
        let Place::Section(index) = symbol.place else {
            let value = if symbol.place == Place::Absolute { symbol.value } else { 0 };
            return format!("{} {:+} {kind}", symbol.name, relocation.addend.wrapping_add_unsigned(value));
        };
        if is_named(symbol) {
            return format!("{} {:+} {kind}", self.labels[relocation.symbol], relocation.addend);
        }
        // A place in a section: by the symbol that is there, or by the string.
        let section = &elf.sections()[index];
        let past = if symbol_is_code_relative(relocation.kind) { 4 } else { 0 };
        let at = symbol.value.wrapping_add_signed(relocation.addend).wrapping_add(past);
        let holds = |one: &&(&Symbol<'_>, &str)| {
            (one.0.value..one.0.value.saturating_add(one.0.size.max(1))).contains(&at)
        };
        if let Some((holder, label)) = self.named(section).iter().find(holds) {
            return format!("{label} {:+} {kind}", at.wrapping_sub(holder.value) as i64);
        }
        let tail = section.data.get(at as usize..).unwrap_or_default();
        let text = tail.split(|byte| *byte == 0).next().unwrap_or_default();
        match section.name.contains(".str") {
            true => format!("{:?} {kind}", String::from_utf8_lossy(text)),
            false => format!("{}{:+} {kind}", section.name, at as i64),
        }
    }
}

/// Written, loaded, executed.
const KIND_OF_MEMORY: u64 = (SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR) as u64;

fn symbol_is_code_relative(kind: u32) -> bool {
    matches!(kind, object::elf::R_X86_64_PC32 | object::elf::R_X86_64_PLT32)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SOURCE: &str = "\
        int klp_enable_patch(void *);\n\
        __attribute__((section(\".init.text\"))) int init_module(void) { return klp_enable_patch(0) + 1; }\n\
        __attribute__((section(\".exit.text\"))) void cleanup_module(void) {}\n\
        static int counts[4] = { 1, 2, 3, 4 };\n\
        struct { long state[3]; char name[56]; int (*init)(void); void (*exit)(void); } __this_module \
        __attribute__((section(\".gnu.linkonce.this_module\"))) = { .name = \"a\", .init = init_module, .exit = cleanup_module };\n\
        static const char name[] __attribute__((section(\".modinfo\"), used)) = \"name=a\";\n\
        int *f(void) { return counts; }\n\
        __asm__(\".pushsection .init.text,\\\"ax\\\"\\n.byte 0x90,0x90,0x90,0xc3\\n.popsection\");\n";

    fn compiled() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.c"), SOURCE).unwrap();
        let options = [
            "-c",
            "-O2",
            "-fno-pic",
            "-ffreestanding",
            "-fcf-protection=none",
            "-mcmodel=kernel",
            "-fno-asynchronous-unwind-tables",
        ];
        let done =
            Command::new("gcc").args(options).arg("a.c").current_dir(directory.path()).status().unwrap();
        assert!(done.success());
        std::fs::read(directory.path().join("a.o")).unwrap()
    }

    /// What is found when `change` was done to a module.
    fn found(change: impl Fn(&Elf<'_>, &mut Vec<u8>)) -> Vec<String> {
        let module = compiled();
        let mut changed = module.clone();
        change(&Elf::parse(&module).unwrap(), &mut changed);
        assert_ne!(module, changed);
        differences(&changed, &module).unwrap().iter().map(Difference::to_string).collect()
    }

    #[test]
    fn an_entry_point_that_leads_elsewhere_is_a_difference() {
        let moved = found(|elf, data| {
            let table = elf.section(".rela.gnu.linkonce.this_module").unwrap();
            let addend = elf.relocations(table).unwrap()[0].entry_offset as usize + 16;
            data[addend] += 0x30;
        });
        assert_eq!(
            moved,
            ["__this_module+0x50 refers to init_module +48 (type 1), not to init_module +0 (type 1)"]
        );
    }

    #[test]
    fn bytes_behind_a_function_and_the_fields_of_the_module_are_compared() {
        let behind = found(|elf, data| {
            let section = elf.section(".init.text").unwrap();
            data[section.offset as usize + 3] = 0x90;
        });
        assert_eq!(behind, ["section .init.text behind its start differs"]);
        let field =
            found(|elf, data| data[elf.section(".gnu.linkonce.this_module").unwrap().offset as usize] = 1);
        assert_eq!(field, ["__this_module differs from +0x0 on"]);
    }

    #[test]
    fn what_is_executed_or_written_and_how_large_it_is_counts() {
        let writable = found(|elf, data| {
            let table = u64::from_le_bytes(data[40..48].try_into().unwrap()) as usize;
            let section = elf.section(".init.text").unwrap().index;
            data[table + section * 64 + 8] |= 1;
        });
        assert!(writable[0].starts_with("init_module is a symbol of kind 2 with "), "{writable:?}");
        let smaller = found(|elf, data| {
            let symbol = elf.symbols().iter().find(|symbol| symbol.name == "init_module").unwrap();
            data[symbol.entry_offset as usize + 16] -= 1;
        });
        assert!(smaller[0].starts_with("init_module is a symbol of kind 2 with "), "{smaller:?}");
    }

    #[test]
    fn only_what_is_not_loaded_makes_a_difference_of_layout() {
        let comment = found(|elf, data| data[elf.section(".comment").unwrap().offset as usize + 1] = b'g');
        assert_eq!(comment, ["the files differ in their layout only, in nothing that runs"]);
    }
}
