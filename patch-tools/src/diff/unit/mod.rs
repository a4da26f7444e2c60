//! One relocatable object, cut into functions and data objects.
//!
//! - [`atoms`]: the cutting: an [`Atom`] for each function and data object
//! - [`relocations`]: the relocations of a section, by offset
//! - [`targets`]: what a relocation refers to
//! - [`code`]: instruction boundaries
//! - [`parts`]: whose part a cold part is
//! - [`diagnostics`]: unnamed data that only reports use
//!
//! Reading is linear in the file, keeps references into it, and copies nothing that is large.

mod atoms;
pub(crate) mod code;
mod diagnostics;
mod parts;
mod relocations;
mod targets;

use std::collections::{BTreeMap, HashMap, HashSet};

use object::elf::{ET_REL, SHN_COMMON, SHT_RELA, STB_LOCAL, STT_FILE, STT_SECTION};

pub(crate) use atoms::{Atom, AtomId};
pub(crate) use relocations::{Reloc, Relocations};
pub(crate) use targets::{Bias, Reference, Target, width};

use super::sections::{Author, Class, is_diagnostic};
use crate::elf::{Elf, Malformed, Place, Rule, Section, Symbol};

/// A relocatable object cut into atoms.
#[derive(Debug)]
pub(crate) struct Unit<'d> {
    elf: Elf<'d>,
    classes: Vec<Class>,
    /// For each section the index into `relocations`, or `NONE`.
    relocated: Vec<u32>,
    relocations: Vec<Relocations<'d>>,
    no_relocations: Relocations<'d>,
    atoms: Vec<Atom>,
    /// For each section where its atoms start; one more for the end.
    first_atom: Vec<u32>,
    file: Option<&'d str>,
    /// For each symbol the source file that it is of, if the object was linked from several.
    scopes: Vec<&'d str>,
    /// Names that stand more than once: of several source files, where the object does not tell which.
    repeated: HashSet<(&'d str, &'d str)>,
    /// For each cold part its function.
    parents: HashMap<AtomId, AtomId>,
    /// Unnamed data that UBSAN reports with.
    diagnostics: HashSet<AtomId>,
    /// Atoms that refer to code without any symbol in a way that no relocation can express.
    unnamed_references: Vec<AtomId>,
}

const NONE: u32 = u32::MAX;

impl<'d> Unit<'d> {
    /// Checks the file and cuts it.
    pub(crate) fn parse(data: &'d [u8]) -> Result<Self, Malformed> {
        let elf = Elf::parse(data)?;
        if elf.elf_type() != ET_REL {
            let found = format!("type {}, not a relocatable file", elf.elf_type());
            return Err(Malformed::new(16, Rule::ElfType, found));
        }
        let classes: Vec<Class> = elf.sections().iter().map(Class::of).collect();
        let mut relocated = vec![NONE; elf.sections().len()];
        let mut relocations = Vec::new();
        for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
            let target = table.info as usize;
            if classes.get(target).is_none_or(|class| *class == Class::Skip) {
                continue;
            }
            let read = Relocations::read(&elf, table)?;
            if relocated[target] != NONE {
                let found = format!("a second relocation table for {}", elf.sections()[target].name);
                return Err(Malformed::new(table.offset, Rule::SectionUnique, found));
            }
            relocated[target] = relocations.len() as u32;
            relocations.push(read);
        }
        let file = elf.symbols().iter().find(|symbol| symbol.kind == STT_FILE).map(|symbol| symbol.name);
        let scopes = scopes(&elf);
        let mut unit = Self {
            elf,
            classes,
            relocated,
            relocations,
            no_relocations: Relocations::default(),
            atoms: Vec::new(),
            first_atom: Vec::new(),
            file,
            scopes,
            repeated: HashSet::new(),
            parents: HashMap::new(),
            diagnostics: HashSet::new(),
            unnamed_references: Vec::new(),
        };
        unit.cut();
        unit.add_resolved_references();
        let mut seen = HashSet::with_capacity(unit.atoms.len());
        let names = unit.atoms().map(|atom| unit.full_name(atom)).filter(|(_, name)| !name.is_empty());
        unit.repeated = names.filter(|name| !seen.insert(*name)).collect();
        unit.parents = parts::find(&unit);
        unit.diagnostics = diagnostics::find(&unit);
        Ok(unit)
    }

    /// The file itself.
    pub(crate) fn elf(&self) -> &Elf<'d> {
        &self.elf
    }

    /// The source file by its `STT_FILE` symbol.
    pub(crate) fn file(&self) -> Option<&'d str> {
        self.file
    }

    /// The source file that a local symbol's atom is of, if the object was linked from several; else nothing.
    pub(crate) fn scope(&self, id: AtomId) -> &'d str {
        self.atom(id).symbol().map_or("", |symbol| self.scope_of(symbol))
    }

    /// The same for a symbol by its index.
    pub(crate) fn scope_of(&self, symbol: usize) -> &'d str {
        self.scopes.get(symbol).copied().unwrap_or_default()
    }

    /// An atom's name in the object: what tells it from namesakes in other files, and its name.
    pub(crate) fn full_name(&self, id: AtomId) -> (&'d str, &'d str) {
        (self.scope(id), self.name(id))
    }

    /// The function that a cold part was split off; nothing for any other.
    pub(crate) fn parent_of(&self, part: AtomId) -> Option<AtomId> {
        self.parents.get(&part).copied()
    }

    /// All cold parts, each with its function.
    pub(crate) fn cold_parts(&self) -> impl Iterator<Item = (AtomId, AtomId)> + '_ {
        self.parents.iter().map(|(part, parent)| (*part, *parent))
    }

    /// Whether a name stands more than once, so that it does not identify an atom.
    pub(crate) fn is_repeated(&self, full_name: (&'d str, &'d str)) -> bool {
        self.repeated.contains(&full_name)
    }

    /// Whether an atom holds places and types that UBSAN reports; they change with every line.
    pub(crate) fn is_diagnostic(&self, id: AtomId) -> bool {
        is_diagnostic(self.section_name(id)) || self.diagnostics.contains(&id)
    }

    /// Functions that cannot be moved: they jump to code without a symbol.
    pub(crate) fn unnamed_references(&self) -> &[AtomId] {
        &self.unnamed_references
    }

    pub(crate) fn sections(&self) -> &[Section<'d>] {
        self.elf.sections()
    }

    pub(crate) fn section(&self, index: usize) -> &Section<'d> {
        &self.elf.sections()[index]
    }

    pub(crate) fn class(&self, section: usize) -> Class {
        self.classes[section]
    }

    /// Sections of one class.
    pub(crate) fn sections_of(&self, class: Class) -> impl Iterator<Item = &Section<'d>> + '_ {
        self.sections().iter().filter(move |section| self.classes[section.index] == class)
    }

    pub(crate) fn symbol(&self, index: usize) -> &Symbol<'d> {
        &self.elf.symbols()[index]
    }

    pub(crate) fn relocations(&self, section: usize) -> &Relocations<'d> {
        match self.relocated[section] {
            NONE => &self.no_relocations,
            index => &self.relocations[index as usize],
        }
    }

    /// All atoms, by section and offset.
    pub(crate) fn atoms(&self) -> impl ExactSizeIterator<Item = AtomId> + use<'d> {
        (0..self.atoms.len() as u32).map(AtomId)
    }

    pub(crate) fn atom(&self, id: AtomId) -> &Atom {
        &self.atoms[id.0 as usize]
    }

    /// The atom before this one in the same section.
    pub(crate) fn atom_before(&self, id: AtomId) -> Option<AtomId> {
        let first = self.first_atom[self.atom(id).section()];
        (id.0 > first).then(|| AtomId(id.0 - 1))
    }

    /// Whether others stand in its section.
    pub(crate) fn shares_section(&self, id: AtomId) -> bool {
        let section = self.atom(id).section();
        self.first_atom[section + 1] - self.first_atom[section] > 1
    }

    /// The bytes of an atom; empty for zeroed data.
    pub(crate) fn bytes(&self, id: AtomId) -> &'d [u8] {
        let atom = self.atom(id);
        let data = self.section(atom.section()).data;
        data.get(atom.start as usize..(atom.end as usize).min(data.len())).unwrap_or_default()
    }

    /// The relocations of an atom; offsets count from the section's start.
    pub(crate) fn relocations_of(&self, id: AtomId) -> impl ExactSizeIterator<Item = Reloc> + '_ {
        let atom = self.atom(id);
        self.relocations(atom.section()).within(atom.start..atom.end)
    }

    /// The atom's name; for code or data without a symbol the empty string.
    pub(crate) fn name(&self, id: AtomId) -> &'d str {
        match self.atom(id).symbol() {
            Some(symbol) => self.symbol(symbol).name,
            None => "",
        }
    }

    /// The atom's name for people: its symbol, or where it stands.
    pub(crate) fn label(&self, id: AtomId) -> String {
        match self.name(id) {
            "" => format!("{}+{:#x}", self.section_name(id), self.atom(id).start),
            name => name.to_owned(),
        }
    }

    pub(crate) fn section_name(&self, id: AtomId) -> &'d str {
        self.section(self.atom(id).section()).name
    }

    /// Where the symbol stands in its section: behind a prefix of padding in some configurations.
    pub(crate) fn entry(&self, id: AtomId) -> u64 {
        let atom = self.atom(id);
        atom.symbol().map_or(atom.start, |symbol| self.symbol(symbol).value)
    }

    pub(crate) fn is_function(&self, id: AtomId) -> bool {
        let atom = self.atom(id);
        self.classes[atom.section()] == Class::Text && atom.symbol().is_some()
    }

    /// Functions in the patch author's sections, by what is asked for them.
    pub(crate) fn author_marks(&self) -> Vec<(Author, AtomId)> {
        let mut marks = Vec::new();
        for section in self.sections() {
            let Class::Author(author) = self.classes[section.index] else { continue };
            let relocations = self.relocations(section.index);
            for index in 0..relocations.len() {
                if let Target::Atom { atom, .. } = self.target(&relocations.get(index), Bias::NONE) {
                    marks.push((author, atom));
                }
            }
        }
        marks
    }

    /// Variables that the linker is to make room for, by name with their sizes (`-fcommon`).
    pub(crate) fn commons(&self) -> BTreeMap<&'d str, u64> {
        let symbols = self.elf.symbols().iter();
        symbols
            .filter(|symbol| symbol.place == Place::Reserved(SHN_COMMON))
            .map(|symbol| (symbol.name, symbol.size))
            .collect()
    }

    /// Absolute symbols by name and value: the CRCs of exports.
    pub(crate) fn absolutes(&self) -> HashMap<&'d str, u64> {
        let symbols = self.elf.symbols().iter();
        symbols
            .filter(|symbol| symbol.place == Place::Absolute && symbol.kind != STT_FILE)
            .map(|symbol| (symbol.name, symbol.value))
            .collect()
    }
}

/// For each symbol the file symbol before it, if it is local and there are several files.
fn scopes<'d>(elf: &Elf<'d>) -> Vec<&'d str> {
    let files = elf.symbols().iter().filter(|symbol| symbol.kind == STT_FILE).map(|symbol| symbol.name);
    if files.collect::<HashSet<&str>>().len() < 2 {
        return Vec::new();
    }
    let mut file = "";
    elf.symbols()
        .iter()
        .map(|symbol| {
            if symbol.kind == STT_FILE {
                file = symbol.name;
            }
            let own = symbol.binding == STB_LOCAL && symbol.kind != STT_SECTION;
            if own { file } else { "" }
        })
        .collect()
}
