//! What changed: functions, data, tables and exports, each judged by the rule for its kind.
//!
//! The result names the functions to replace, what can be ignored, and everything that a livepatch must not
//! do. Nothing passes by silence: whatever has no counterpart or differs from it ends up in one of the three.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, STB_LOCAL, STT_FUNC, STT_OBJECT};

use super::duplicated::{is_duplicated, starts_anew};
use super::equality::{Difference, Equality};
use super::ftrace::has_fentry;
use super::inside;
use super::layout::alignment_at;
use super::lines::only_line_numbers;
use super::names::{cold_parent, is_constructor, is_marker, stem};
use super::pairs::is_plain;
use super::refusal::{Refusal, Refused, Subject};
use super::report::{CallbackKind, Ignored, IgnoredReason};
use super::sections::{Author, Class, base, is_freed};
use super::special::Entries;
use super::state;
use super::unit::{AtomId, Target, Unit};
use super::unnamed;
use crate::elf::Place;

/// Why a function is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its own contents.
    Own(Difference),
    /// A part of it that has no entry of its own: its cold part, or a clone that it calls.
    Part(AtomId, Difference),
    /// The patch author wants it.
    Forced,
}

/// What changed between two units.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Functions to replace, by their patched atoms.
    pub(crate) functions: BTreeMap<AtomId, Reason>,
    /// Changed parts without an entry of their own, which are carried along with the functions that call them.
    pub(crate) parts: HashSet<AtomId>,
    /// Unchanged constants that are carried along because they hold addresses inside of replaced functions.
    pub(crate) constants: HashSet<AtomId>,
    /// Other things that hold such addresses, which is reason enough to refuse.
    keepers: HashSet<AtomId>,
    /// Functions to call around patching.
    pub(crate) callbacks: Vec<(CallbackKind, AtomId)>,
    pub(crate) ignored: Vec<Ignored>,
    pub(crate) refused: Vec<Refused>,
}

/// Both units with everything known about them.
pub(crate) struct Sides<'u, 'd> {
    pub(crate) equality: &'u Equality<'u, 'd>,
    pub(crate) orig_entries: &'u Entries,
    pub(crate) patched_entries: &'u Entries,
}

impl<'d> Sides<'_, 'd> {
    pub(crate) fn orig(&self) -> &Unit<'d> {
        self.equality.orig
    }

    pub(crate) fn patched(&self) -> &Unit<'d> {
        self.equality.patched
    }
}

impl Changes {
    /// Compares everything.
    pub(crate) fn find(sides: &Sides<'_, '_>) -> Self {
        let mut changes = Self::default();
        changes.functions(sides);
        changes.author_marks(sides);
        changes.foreign_marks(sides);
        changes.cold_parts(sides);
        changes.functions_without_entry(sides);
        changes.can_be_redirected(sides);
        changes.addresses_inside(sides);
        changes.paired_data(sides);
        changes.commons(sides);
        changes.unnamed_data(sides);
        changes.moved_names(sides);
        changes.removed(sides);
        changes.added(sides);
        changes.replaced_data(sides);
        changes.fresh_copies(sides);
        changes.table_labels(sides);
        changes.crcs(sides);
        changes
    }

    fn refuse(&mut self, subject: Subject, reason: Refusal) {
        self.refused.push(Refused { subject, reason });
    }

    fn ignore(&mut self, name: String, reason: IgnoredReason) {
        self.ignored.push(Ignored { function: name, reason });
    }

    fn functions(&mut self, sides: &Sides<'_, '_>) {
        let Sides { equality, orig_entries, patched_entries } = sides;
        for orig in sides.orig().atoms().filter(|&atom| sides.orig().is_function(atom)) {
            let Some(patched) = equality.pairs.patched_of(orig) else { continue };
            let code = equality.difference(orig, patched);
            let entry = equality.entry_difference((orig, orig_entries), (patched, patched_entries));
            let Some(difference) = code.or(entry) else { continue };
            if is_constructor(sides.patched().name(patched)) {
                self.ignore(sides.patched().name(patched).to_owned(), IgnoredReason::Constructor);
                continue;
            }
            if entry.is_none()
                && let Some(helper) = only_line_numbers(equality, orig, patched)
            {
                self.ignore(sides.patched().name(patched).to_owned(), IgnoredReason::LineNumber { helper });
                continue;
            }
            self.functions.insert(patched, Reason::Own(difference));
        }
    }

    fn author_marks(&mut self, sides: &Sides<'_, '_>) {
        for (author, atom) in sides.patched().author_marks() {
            match author {
                Author::Callback(kind) => self.callbacks.push((kind, atom)),
                Author::Force if sides.equality.pairs.orig_of(atom).is_some() => {
                    self.functions.entry(atom).or_insert(Reason::Forced);
                }
                Author::Force | Author::Layout => {}
                Author::Ignore => {
                    if self.functions.remove(&atom).is_some() {
                        self.ignore(sides.patched().label(atom), IgnoredReason::ByAuthor);
                    }
                }
            }
        }
        self.callbacks.sort_unstable();
    }

    fn foreign_marks(&mut self, sides: &Sides<'_, '_>) {
        for section in sides.patched().sections_of(Class::Foreign) {
            self.ignore(section.name.to_owned(), IgnoredReason::ForeignMark);
        }
    }

    /// A changed cold part is replaced with its parent, which has the entry.
    fn cold_parts(&mut self, sides: &Sides<'_, '_>) {
        let patched = sides.patched();
        let is_cold = |atom: &AtomId| cold_parent(patched.name(*atom)).is_some();
        let colds: Vec<AtomId> = self.functions.keys().copied().filter(is_cold).collect();
        if colds.is_empty() {
            return;
        }
        for cold in colds {
            let parent = entry_of(patched, cold);
            if parent != cold
                && let Some(Reason::Own(difference)) = self.functions.remove(&cold)
            {
                self.functions.entry(parent).or_insert(Reason::Part(cold, difference));
            }
        }
    }

    /// A function of the file's own that ftrace does not hook is replaced with its callers. The kernel's `inline` implies
    /// `notrace`, and not all of it is inlined: the bodies of system calls, and parts of small functions.
    ///
    /// That is possible if it is called directly and from this file only.
    fn functions_without_entry(&mut self, sides: &Sides<'_, '_>) {
        let (orig, patched) = (sides.orig(), sides.patched());
        let mut open: Vec<AtomId> = Vec::new();
        let is_part = |atom: AtomId| {
            let local = patched.atom(atom).symbol().is_some_and(|s| patched.symbol(s).binding == STB_LOCAL);
            let original = sides.equality.pairs.orig_of(atom);
            let kept = original.is_some_and(|orig_atom| {
                !is_freed(orig.section_name(orig_atom)) && !has_fentry(orig, orig_atom, sides.orig_entries)
            });
            local && kept
        };
        open.extend(self.functions.keys().copied().filter(|&atom| is_part(atom)));
        if open.is_empty() {
            return;
        }
        let callers = Callers::of(patched);
        while let Some(part) = open.pop() {
            let Some(found) = callers.direct(part) else { continue };
            let Some(&(Reason::Own(difference) | Reason::Part(_, difference))) = self.functions.get(&part)
            else {
                continue;
            };
            self.functions.remove(&part);
            self.parts.insert(part);
            for caller in found.iter().map(|&caller| entry_of(patched, caller)) {
                // A new caller takes the new part along anyway.
                let known = self.functions.contains_key(&caller) || self.parts.contains(&caller);
                if known || sides.equality.pairs.orig_of(caller).is_none() {
                    continue;
                }
                self.functions.insert(caller, Reason::Part(part, difference));
                if is_part(caller) {
                    open.push(caller);
                }
            }
        }
    }

    /// Every changed function must be one that ftrace can redirect and that still runs.
    fn can_be_redirected(&mut self, sides: &Sides<'_, '_>) {
        let orig = sides.orig();
        for patched in self.functions.keys().copied().collect::<Vec<_>>() {
            let Some(atom) = sides.equality.pairs.orig_of(patched) else { continue };
            let section = orig.section_name(atom).to_owned();
            let subject = Subject::Symbol(orig.label(atom));
            if is_freed(&section) || is_freed(sides.patched().section_name(patched)) {
                self.refuse(subject, Refusal::InitChanged { section });
            } else if !has_fentry(orig, atom, sides.orig_entries) {
                self.refuse(subject, Refusal::NoFentry { section });
            } else if let Some((field, left, right)) = header_difference(sides, atom, patched) {
                self.refuse(subject, Refusal::SectionHeader { field, orig: left, patched: right });
            }
        }
    }

    /// What keeps addresses inside of functions that are replaced.
    fn addresses_inside(&mut self, sides: &Sides<'_, '_>) {
        let mut found = inside::find(sides, self);
        (self.constants, self.keepers) = (found.carried, found.kept);
        self.refused.append(&mut found.refused);
    }

    /// Data, tables, exports and unnamed code that both sides have.
    fn paired_data(&mut self, sides: &Sides<'_, '_>) {
        let (orig, patched) = (sides.orig(), sides.patched());
        for atom in orig.atoms() {
            let class = orig.class(orig.atom(atom).section());
            let Some(counterpart) = sides.equality.pairs.patched_of(atom) else { continue };
            let unnamed_code = class == Class::Text && !orig.is_function(atom);
            let compared = matches!(class, Class::Data | Class::Table | Class::Export | Class::ModuleText)
                || unnamed_code;
            if !compared || self.constants.contains(&counterpart) || self.keepers.contains(&counterpart) {
                continue;
            }
            let label = || Subject::Symbol(orig.label(atom));
            let section = || Subject::Section(orig.section_name(atom).to_owned());
            if class == Class::Data {
                let (left, right) = (base(orig.section_name(atom)), base(patched.section_name(counterpart)));
                let kinds = |unit: &Unit<'_>, atom: AtomId| unit.section(unit.atom(atom).section()).kind;
                if left != right || kinds(orig, atom) != kinds(patched, counterpart) {
                    let (left, right) = (orig.section_name(atom), patched.section_name(counterpart));
                    let reason = Refusal::DataMoved { orig: left.to_owned(), patched: right.to_owned() };
                    self.refuse(label(), reason);
                    continue;
                }
                if let Some((field, left, right)) = header_difference(sides, atom, counterpart) {
                    self.refuse(label(), Refusal::SectionHeader { field, orig: left, patched: right });
                    continue;
                }
            }
            let Some(difference) = sides.equality.difference(atom, counterpart) else { continue };
            let freed = is_freed(orig.section_name(atom));
            match class {
                Class::Text => self.refuse(section(), Refusal::UnnamedCode),
                _ if freed => {
                    let section = orig.section_name(atom).to_owned();
                    self.refuse(label(), Refusal::InitChanged { section });
                }
                Class::Table => self.refuse(label(), Refusal::TableChanged),
                Class::Export => self.refuse(Subject::Symbol(exported(orig, atom)), Refusal::ExportChanged),
                Class::ModuleText => {
                    self.ignore(orig.section_name(atom).to_owned(), IgnoredReason::ModuleText);
                }
                _ => {
                    let (left, right) = (orig.atom(atom).size(), patched.atom(counterpart).size());
                    let reason = match difference {
                        _ if left != right => Refusal::DataResized { orig: left, patched: right },
                        Difference::Contents { offset } => Refusal::DataChanged { offset },
                        Difference::Size | Difference::Entry { .. } => Refusal::DataChanged { offset: 0 },
                    };
                    self.refuse(label(), reason);
                }
            }
        }
    }

    /// Variables that only the linker would place: the running ones are where they are.
    fn commons(&mut self, sides: &Sides<'_, '_>) {
        let orig = sides.orig().commons();
        for (name, size) in sides.patched().commons() {
            let reason = match orig.get(name) {
                Some(&before) if before == size => continue,
                Some(&before) => Refusal::DataResized { orig: before, patched: size },
                None => Refusal::TentativeDefinition,
            };
            self.refuse(Subject::Symbol(name.to_owned()), reason);
        }
    }

    fn unnamed_data(&mut self, sides: &Sides<'_, '_>) {
        for section in unnamed::changed_sections(sides.equality) {
            self.refuse(Subject::Section(section.to_owned()), Refusal::UnnamedDataChanged);
        }
    }

    /// A name that both sides define must stand for counterparts. Where an alias becomes a function of its
    /// own, or the reverse, callers of the running kernel would not get there.
    fn moved_names(&mut self, sides: &Sides<'_, '_>) {
        let [orig, patched] = [sides.orig(), sides.patched()].map(places);
        let counterpart = |side: usize, atom: AtomId| match side {
            0 => sides.equality.pairs.patched_of(atom),
            _ => sides.equality.pairs.orig_of(atom),
        };
        let freed = |side: usize, atom| is_freed([sides.orig(), sides.patched()][side].section_name(atom));
        let mut moved: Vec<&str> = Vec::new();
        for (side, own, other) in [(0, &orig, &patched), (1, &patched, &orig)] {
            for (name, atoms) in own {
                let Some(others) = other.get(name) else { continue };
                let stays = |atom: &AtomId| match counterpart(side, *atom) {
                    Some(counterpart) => others.contains(&counterpart),
                    // What boots and is freed is gone: the same name may begin a new life.
                    None => others.iter().all(|&other| freed(side, *atom) != freed(1 - side, other)),
                };
                if !atoms.iter().all(stays) {
                    moved.push(name.1);
                }
            }
        }
        moved.sort_unstable();
        moved.dedup();
        for name in moved {
            self.refuse(Subject::Symbol(name.to_owned()), Refusal::NameMoved);
        }
    }

    /// What only the original has.
    fn removed(&mut self, sides: &Sides<'_, '_>) {
        let orig = sides.orig();
        for atom in orig.atoms().filter(|&atom| sides.equality.pairs.patched_of(atom).is_none()) {
            let name = orig.name(atom);
            match orig.class(orig.atom(atom).section()) {
                Class::Text if name.is_empty() => {
                    self.refuse(Subject::Section(orig.label(atom)), Refusal::UnnamedCode);
                }
                Class::Text if cold_parent(name).is_some() => {}
                Class::Text => self.ignore(name.to_owned(), IgnoredReason::FunctionRemoved),
                Class::Data if !name.is_empty() && !is_duplicated(orig, atom) => {
                    self.ignore(name.to_owned(), IgnoredReason::DataRemoved);
                }
                Class::Table => self.refuse(Subject::Symbol(orig.label(atom)), table_rule(orig, atom)),
                Class::Export => self.refuse(Subject::Symbol(exported(orig, atom)), Refusal::ExportRemoved),
                Class::ModuleText => {
                    self.ignore(orig.section_name(atom).to_owned(), IgnoredReason::ModuleText);
                }
                _ => {}
            }
        }
    }

    /// What only the patched unit has. New functions and data are taken along when something needs them.
    fn added(&mut self, sides: &Sides<'_, '_>) {
        let patched = sides.patched();
        for atom in patched.atoms().filter(|&atom| sides.equality.pairs.orig_of(atom).is_none()) {
            match patched.class(patched.atom(atom).section()) {
                Class::Text if patched.name(atom).is_empty() => {
                    self.refuse(Subject::Section(patched.label(atom)), Refusal::UnnamedCode);
                }
                Class::Table => {
                    self.refuse(Subject::Symbol(patched.label(atom)), table_rule(patched, atom));
                }
                Class::Export => self.ignore(exported(patched, atom), IgnoredReason::NewExport),
                Class::ModuleText => {
                    self.ignore(patched.section_name(atom).to_owned(), IgnoredReason::ModuleText);
                }
                _ => {}
            }
        }
    }

    /// Variables that the changed functions used, and that give way to new ones.
    fn replaced_data(&mut self, sides: &Sides<'_, '_>) {
        let changed: Vec<AtomId> = self.functions.keys().copied().collect();
        let Some((gone, new)) = state::replaced(sides, &changed) else { return };
        for old in gone {
            let reason = Refusal::DataRenamed { patched: sides.patched().label(new) };
            self.refuse(Subject::Symbol(sides.orig().label(old)), reason);
        }
    }

    /// Once-flags and limits that changed functions have on both sides: the patch brings its own.
    fn fresh_copies(&mut self, sides: &Sides<'_, '_>) {
        fn kept<'d>(unit: &Unit<'d>, function: AtomId) -> BTreeSet<Cow<'d, str>> {
            let targets = unit.references(function).into_iter().filter_map(|one| match one.target {
                Target::Atom { atom, .. } if starts_anew(unit, atom) => Some(stem(unit.name(atom)).text),
                _ => None,
            });
            targets.collect()
        }
        for &patched in self.functions.keys().copied().collect::<Vec<_>>().iter() {
            let Some(orig) = sides.equality.pairs.orig_of(patched) else { continue };
            let new = kept(sides.patched(), patched);
            for variable in kept(sides.orig(), orig).intersection(&new) {
                let reason = IgnoredReason::StartsAnew { variable: variable.clone().into_owned() };
                self.ignore(sides.orig().name(orig).to_owned(), reason);
            }
        }
    }

    /// Tables whose meaning is in their labels: `.BTF_ids` holds zeros that the build fills in by name.
    fn table_labels(&mut self, sides: &Sides<'_, '_>) {
        let labels = |unit: &Unit<'_>| {
            let mut labels: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
            for symbol in unit.elf().symbols() {
                let Place::Section(section) = symbol.place else { continue };
                let marks = unit.class(section) == Class::Table && symbol.name.starts_with("__BTF_ID__");
                if marks && is_marker(symbol.name) {
                    let section = unit.section(section).name.to_owned();
                    let label = (symbol.value, stem(symbol.name).text.into_owned());
                    labels.entry(section).or_default().push(label);
                }
            }
            labels.values_mut().for_each(|labels| labels.sort());
            labels
        };
        let (orig, patched) = (labels(sides.orig()), labels(sides.patched()));
        for (section, labels) in &orig {
            if patched.get(section) != Some(labels) {
                self.refuse(Subject::Section(section.clone()), Refusal::TableChanged);
            }
        }
    }

    /// Kernels before 5.19 have the CRCs of their exports in the object.
    fn crcs(&mut self, sides: &Sides<'_, '_>) {
        let patched = sides.patched().absolutes();
        for (name, orig) in sides.orig().absolutes() {
            let Some(symbol) = name.strip_prefix("__crc_") else { continue };
            let subject = Subject::Symbol(symbol.to_owned());
            match patched.get(name) {
                Some(&patched) if patched == orig => {}
                Some(&patched) => self.refuse(subject, Refusal::CrcChanged { orig, patched }),
                None => self.refuse(subject, Refusal::ExportRemoved),
            }
        }
    }
}

fn table_rule(unit: &Unit<'_>, atom: AtomId) -> Refusal {
    let section = unit.section_name(atom);
    if is_freed(section) {
        Refusal::InitChanged { section: section.to_owned() }
    } else {
        Refusal::TableChanged
    }
}

/// The symbol that an export is of: `foo` of `___ksymtab_gpl+foo` and of `__export_symbol_foo`.
fn exported(unit: &Unit<'_>, atom: AtomId) -> String {
    let section = unit.section_name(atom);
    let marked = unit.name(atom).strip_prefix("__export_symbol_");
    let own_section = section.split_once('+').map(|(_, name)| name);
    marked.or(own_section).unwrap_or(section).to_owned()
}

/// The first field of two atoms' section headers that must not differ and does.
fn header_difference(
    sides: &Sides<'_, '_>,
    orig: AtomId,
    patched: AtomId,
) -> Option<(&'static str, u64, u64)> {
    let left = sides.orig().section(sides.orig().atom(orig).section());
    let right = sides.patched().section(sides.patched().atom(patched).section());
    let flags = u64::from(SHF_ALLOC | SHF_EXECINSTR | SHF_WRITE);
    // Code is placed anew; live data stays where it is.
    let alignments = match !left.is_executable() {
        false => (0, 0),
        true if sides.orig().shares_section(orig) || sides.patched().shares_section(patched) => {
            // The section has the alignment of the one that needs most; this one needs at most what its place
            // has, and nothing more than before if a new one accounts for the rest.
            let unit = sides.patched();
            let place = |atom| alignment_at(unit, right.index, unit.atom(atom).start);
            let new = |atom: &AtomId| sides.equality.pairs.orig_of(*atom).is_none();
            let mut others = unit.atoms().filter(|&atom| unit.atom(atom).section() == right.index);
            let raised = place(patched) > left.alignment
                && !others.any(|other| new(&other) && place(other) == right.alignment);
            (left.alignment, if raised { place(patched) } else { left.alignment })
        }
        true => (left.alignment, right.alignment),
    };
    [
        ("type", u64::from(left.kind), u64::from(right.kind)),
        ("flags", left.flags & flags, right.flags & flags),
        ("entry size", left.entry_size, right.entry_size),
        ("alignment", alignments.0, alignments.1),
    ]
    .into_iter()
    .find(|(_, left, right)| left != right)
}

/// What each name of the source stands for; more than one thing if it is of several files.
fn places<'d>(unit: &Unit<'d>) -> HashMap<(&'d str, &'d str), Vec<AtomId>> {
    let mut found: HashMap<(&'d str, &'d str), Vec<AtomId>> = HashMap::new();
    for (index, symbol) in unit.elf().symbols().iter().enumerate() {
        let Place::Section(section) = symbol.place else { continue };
        // Texts and constants are compared by whoever refers to them; and a dot is not from the source.
        let named = matches!(unit.class(section), Class::Text | Class::Data | Class::Table);
        let of_source = is_plain(symbol.name) && !symbol.name.contains('.') && !is_marker(symbol.name);
        if matches!(symbol.kind, STT_FUNC | STT_OBJECT)
            && named
            && of_source
            && let Some(atom) = unit.atom_at(section, symbol.value as i64)
        {
            found.entry((unit.scope_of(index), symbol.name)).or_default().push(atom);
        }
    }
    found
}

/// The function that has the entry: the one of a cold part, and any other function itself.
fn entry_of(unit: &Unit<'_>, atom: AtomId) -> AtomId {
    unit.parent_of(atom).unwrap_or(atom)
}

/// Who refers to a function of the same file, and how.
struct Callers {
    direct: HashMap<AtomId, Vec<AtomId>>,
    taken: HashSet<AtomId>,
}

impl Callers {
    fn of(unit: &Unit<'_>) -> Self {
        let mut found = Self { direct: HashMap::new(), taken: HashSet::new() };
        for atom in unit.atoms() {
            let from_code = unit.is_function(atom);
            for reference in unit.references(atom) {
                let Target::Atom { atom: target, offset } = reference.target else { continue };
                if !unit.is_function(target) || target == atom {
                    continue;
                }
                if from_code && reference.branch {
                    found.direct.entry(target).or_default().push(atom);
                } else if offset == unit.entry(target) as i64 - unit.atom(target).start as i64 {
                    found.taken.insert(target);
                }
            }
        }
        found
    }

    /// The functions that call or jump to `function`; nothing if its address is taken as well.
    fn direct(&self, function: AtomId) -> Option<&[AtomId]> {
        if self.taken.contains(&function) {
            return None;
        }
        self.direct.get(&function).map(Vec::as_slice)
    }
}

pub(crate) fn is_cold(unit: &Unit<'_>, atom: AtomId) -> bool {
    cold_parent(unit.name(atom)).is_some()
}

/// Data with an identity, as opposed to texts and once-flags that are duplicated.
pub(crate) fn is_identified_data(unit: &Unit<'_>, atom: AtomId) -> bool {
    let name = unit.name(atom);
    unit.class(unit.atom(atom).section()) == Class::Data && !name.is_empty() && !is_duplicated(unit, atom)
}

/// Both files must be what the same compiler makes of C.
pub(crate) fn header_rules(orig: &Unit<'_>, patched: &Unit<'_>) -> Vec<Refused> {
    let mut refused = Vec::new();
    // (name, offset in the ELF header, bytes)
    for (field, at, length) in [("OS ABI", 7, 2), ("version", 20, 4), ("flags", 48, 4)] {
        let read = |unit: &Unit<'_>| hex::encode(unit.elf().data().get(at..at + length).unwrap_or_default());
        let (orig, patched) = (read(orig), read(patched));
        if orig != patched {
            let reason = Refusal::HeaderMismatch { field, orig, patched };
            refused.push(Refused { subject: Subject::File, reason });
        }
    }
    for unit in [orig, patched] {
        let mark = unit.elf().section(".comment").is_some_and(|section| !section.data.is_empty());
        let assembler = unit.file().is_none_or(|file| file.ends_with(".S") || file.ends_with(".s"));
        if !mark || assembler {
            refused.push(Refused { subject: Subject::File, reason: Refusal::NotCompiled });
            break;
        }
    }
    refused
}
