//! What goes into the livepatch: changed functions, and everything new that they reach.
//!
//! Selection starts from the changed functions, callbacks, and new global symbols, and follows references.
//! A reference to something that the running kernel has stays a reference to that; anything else is taken
//! along. So a changed function comes with its cold part, its strings, the new functions that it calls, and
//! its entries in the special tables.

use std::collections::{BTreeMap, HashSet};

use object::elf::{R_X86_64_NONE, R_X86_64_PC32, SHT_NOBITS, SHT_PROGBITS, STB_GLOBAL, STT_SECTION};

use super::changes::{Changes, Sides};
use super::duplicated::is_duplicated;
use super::mergeable::{character, piece};
use super::refusal::{Refusal, Refused, Subject};
use super::report::{Ignored, IgnoredReason};
use super::resolve::{Outside, Resolver, Use};
use super::runtime::{self, Load};
use super::sections::{Class, Special, is_freed};
use super::special::Entry;
use super::unit::{AtomId, Bias, Reference, Reloc, Target, Unit, width};
use crate::elf::Place;
use crate::klp::names::KlpSymbol;
use crate::module::ObjectName;

/// What a selected reference refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// A selected atom.
    Inside(AtomId),
    /// A string or constant, copied on its own: bytes of an atom.
    Piece { atom: AtomId, start: u64, end: u64 },
    /// Something outside of the patch.
    Outside(Outside),
    /// A number.
    Number,
}

/// A relocation to write, with the distance between its field and the place that it counts from.
#[derive(Debug, Clone)]
pub(crate) struct Linked {
    pub(crate) reloc: Reloc,
    pub(crate) link: Link,
    /// What to add to the address of the link, PC-relative distance included.
    pub(crate) addend: i64,
}

/// One selected atom.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    pub(crate) links: Vec<Linked>,
    /// Entries of special tables; each with its own links.
    pub(crate) entries: Vec<(Entry, Vec<Linked>)>,
    /// Instructions that others take the place of, by where they stand in their section.
    pub(crate) rewritten: Vec<(u64, [u8; runtime::LENGTH])>,
}

/// Everything that goes into the livepatch.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) atoms: BTreeMap<AtomId, Selected>,
    pub(crate) ignored: Vec<Ignored>,
    pub(crate) refused: Vec<Refused>,
}

/// Where a reference stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    /// In a function or data object.
    Contents,
    /// In an entry of this table.
    Entry(Special),
}

/// The work in progress.
pub(crate) struct Selector<'s, 'u, 'd, 'r> {
    sides: &'s Sides<'u, 'd>,
    changes: &'s Changes,
    resolver: Resolver<'r, 'd>,
    selection: Selection,
    queue: Vec<AtomId>,
    queued: HashSet<AtomId>,
}

impl<'s, 'u, 'd, 'r> Selector<'s, 'u, 'd, 'r> {
    pub(crate) fn new(sides: &'s Sides<'u, 'd>, changes: &'s Changes, resolver: Resolver<'r, 'd>) -> Self {
        Self {
            sides,
            changes,
            resolver,
            selection: Selection::default(),
            queue: Vec::new(),
            queued: HashSet::new(),
        }
    }

    /// Selects, and hands back the resolver for the functions' own positions.
    pub(crate) fn select(mut self) -> (Selection, Resolver<'r, 'd>) {
        for root in self.roots() {
            self.take(root);
        }
        while let Some(atom) = self.queue.pop() {
            let selected = self.follow(atom);
            self.selection.atoms.insert(atom, selected);
        }
        (self.selection, self.resolver)
    }

    fn unit(&self) -> &'u Unit<'d> {
        self.sides.equality.patched
    }

    fn roots(&self) -> Vec<AtomId> {
        let unit = self.unit();
        let mut roots: Vec<AtomId> = self.changes.functions.keys().copied().collect();
        roots.extend(self.changes.callbacks.iter().map(|&(_, atom)| atom));
        roots.extend(unit.atoms().filter(|&atom| is_new_global(self.sides, atom)));
        roots
    }

    fn take(&mut self, atom: AtomId) {
        if self.queued.insert(atom) {
            self.queue.push(atom);
        }
    }

    fn refuse(&mut self, subject: Subject, reason: Refusal) {
        self.selection.refused.push(Refused { subject, reason });
    }

    fn follow(&mut self, atom: AtomId) -> Selected {
        let unit = self.unit();
        self.refuse_unusual(atom);
        if unit.unnamed_references().contains(&atom) {
            self.refuse(Subject::Symbol(unit.label(atom)), Refusal::UnnamedCode);
        }
        let mut selected = Selected::default();
        // A relocation of type NONE marks a place, such as a call that a tool has made a no-op.
        for reference in unit.references(atom).iter().filter(|one| one.reloc.kind != R_X86_64_NONE) {
            if let Some(linked) = self.link(atom, reference, Context::Contents) {
                self.refuse_late_replacement(atom, &linked);
                selected.links.push(linked);
            }
        }
        for entry in self.sides.patched_entries.of(atom).to_vec() {
            match entry.table {
                Special::RuntimePointer => {
                    if let Some((at, load, linked)) = self.runtime_pointer(atom, &entry) {
                        selected.rewritten.push((at, load.code));
                        selected.links.push(linked);
                    }
                    continue;
                }
                Special::RuntimeShift => {
                    let name = self.sides.patched().section(entry.section()).name;
                    let reason = Refusal::RuntimeConstant { function: unit.label(atom) };
                    self.refuse(Subject::Section(name.to_owned()), reason);
                    continue;
                }
                _ => {}
            }
            if let Some(links) = self.entry(atom, &entry) {
                selected.entries.push((entry, links));
            }
        }
        selected
    }

    /// The module loader knows contents and zeroes; what else a section can be, it would misread. Strings of
    /// unknown characters have no end.
    fn refuse_unusual(&mut self, atom: AtomId) {
        let section = self.unit().section(self.unit().atom(atom).section());
        let endless = self.unit().class(section.index) == Class::Strings && character(section).is_none();
        if endless || !matches!(section.kind, SHT_PROGBITS | SHT_NOBITS) {
            self.refuse(Subject::Section(section.name.to_owned()), Refusal::UnsupportedSection);
        }
    }

    /// Replacements are copied over the code when the livepatch module is loaded. What they refer to must be
    /// known by then; addresses in a patched module are filled in later, into what nobody copies any more.
    fn refuse_late_replacement(&mut self, atom: AtomId, linked: &Linked) {
        let unit = self.unit();
        if unit.class(unit.atom(atom).section()) == Class::Replacement
            && let Link::Outside(Outside::Klp(symbol)) = &linked.link
            && symbol.section_object != ObjectName::Vmlinux
        {
            self.refuse(Subject::Symbol(symbol.name.clone()), Refusal::AlternativeInModule);
        }
    }

    /// What stands in place of an instruction whose operand the kernel fills in when it boots: where in its section,
    /// the new one, and its reference to the variable.
    fn runtime_pointer(&mut self, owner: AtomId, entry: &Entry) -> Option<(u64, Load, Linked)> {
        let unit = self.unit();
        let range = self.sides.patched_entries.range(entry);
        let table = unit.section(entry.section()).name;
        let variable = table.strip_prefix(Special::RuntimePointer.section()).unwrap_or(table);
        let start = unit.relocations(entry.section()).within(range).next().and_then(|reloc| {
            let Target::Atom { atom, offset } = unit.target(&reloc, Bias::NONE) else { return None };
            u64::try_from(offset).ok()?.checked_sub(runtime::CONSTANT).filter(|_| atom == owner)
        });
        let found = start.and_then(|start| {
            Some((start, runtime::load_instead(unit.bytes(owner).get(start as usize..)?)?))
        });
        let Some((start, load)) = found else {
            let detail = format!("an entry of {} is at no instruction that is known", unit.label(owner));
            self.refuse(Subject::Section(table.to_owned()), Refusal::SpecialSection { detail });
            return None;
        };
        let at = unit.atom(owner).start + start;
        let defined = unit.elf().symbols().iter().position(|symbol| {
            symbol.name == variable && matches!(symbol.place, Place::Section(_)) && !symbol.is_section()
        });
        // The distance counts from the end of the instruction, which is that of the field.
        let reloc =
            Reloc { offset: at + load.field, kind: R_X86_64_PC32, symbol: defined.unwrap_or(0), addend: -4 };
        let target = match defined {
            Some(_) => unit.target(&reloc, Bias::BRANCH),
            None => Target::Undefined { name: variable, offset: 0 },
        };
        let linked = self.link(owner, &Reference { reloc, target, branch: false }, Context::Contents)?;
        Some((at, load, linked))
    }

    /// The links of a table's entry, or nothing if it is left out.
    fn entry(&mut self, owner: AtomId, entry: &Entry) -> Option<Vec<Linked>> {
        let unit = self.unit();
        let entries = self.sides.patched_entries;
        let relocations: Vec<Reloc> =
            unit.relocations(entry.section()).within(entries.range(entry)).collect();
        let mut links = Vec::with_capacity(relocations.len());
        let nothing = entries.replaces_with_nothing(unit, entry);
        for (field, reloc) in relocations.into_iter().enumerate() {
            if nothing && field == 1 {
                // Any address will do.
                links.push(Linked { reloc, link: Link::Inside(owner), addend: 0 });
                continue;
            }
            let target = unit.target(&reloc, Bias::NONE);
            let reference = Reference { reloc, target, branch: false };
            let linked = self.link(owner, &reference, Context::Entry(entry.table))?;
            if let Link::Outside(Outside::Klp(symbol)) = &linked.link
                && symbol.section_object != ObjectName::Vmlinux
                && !self.late_entry(owner, entry.table, symbol)
            {
                return None;
            }
            links.push(linked);
        }
        Some(links)
    }

    /// An entry that needs an address in a module, which is known only after the tables were read.
    ///
    /// A tracepoint's site can go: its branch stays as compiled, which is off. Other sites would do the
    /// wrong thing in silence, so they are refused. Returns whether the entry stays.
    fn late_entry(&mut self, owner: AtomId, table: Special, symbol: &KlpSymbol) -> bool {
        let function = self.unit().label(owner);
        let tracepoint = ["__tracepoint_", "__SCK__tp_func_"].iter().any(|p| symbol.name.starts_with(p));
        let subject = Subject::Symbol(symbol.name.clone());
        match table {
            Special::JumpTable | Special::StaticCallSites if tracepoint => {
                let reason = IgnoredReason::TracepointDropped { key: symbol.name.clone() };
                self.selection.ignored.push(Ignored { function, reason });
            }
            Special::JumpTable => self.refuse(subject, Refusal::JumpLabelInModule { function }),
            Special::StaticCallSites => self.refuse(subject, Refusal::StaticCallInModule { function }),
            _ => {
                let detail = format!("entry of {function} refers to {} in a module", symbol.name);
                let subject = Subject::Section(table.section().to_owned());
                self.refuse(subject, Refusal::SpecialSection { detail });
            }
        }
        false
    }

    fn link(&mut self, owner: AtomId, reference: &Reference<'d>, context: Context) -> Option<Linked> {
        let unit = self.unit();
        let reloc = reference.reloc;
        if width(reloc.kind).is_none() {
            let reason = Refusal::UnsupportedRelocation { kind: reloc.kind, offset: reloc.offset };
            self.refuse(Subject::Symbol(unit.label(owner)), reason);
            return None;
        }
        match reference.target {
            Target::Absolute { .. } => {
                let value = match reloc.symbol {
                    0 => reloc.addend,
                    symbol => (unit.symbol(symbol).value as i64).wrapping_add(reloc.addend),
                };
                Some(Linked { reloc, link: Link::Number, addend: value })
            }
            Target::Section { section, .. } => {
                let name = unit.section(section).name.to_owned();
                self.refuse(Subject::Section(name), Refusal::UnsupportedSection);
                None
            }
            Target::Undefined { name, .. } => {
                let used = if reference.branch { Use::Branch } else { Use::Address };
                match self.resolver.undefined(name, used) {
                    Ok(outside) => Some(Linked { reloc, link: Link::Outside(outside), addend: reloc.addend }),
                    Err(reason) => {
                        self.refuse(Subject::Symbol(name.to_owned()), reason);
                        None
                    }
                }
            }
            Target::Atom { atom, offset } => self.link_atom(owner, reference, (atom, offset), context),
        }
    }

    /// `offset` is where the reference points, counted from the start of the atom.
    fn link_atom(
        &mut self,
        owner: AtomId,
        reference: &Reference<'d>,
        (atom, offset): (AtomId, i64),
        context: Context,
    ) -> Option<Linked> {
        let unit = self.unit();
        let reloc = reference.reloc;
        // The field counts from here; the relocation's own addend makes up for it.
        let position = (unit.symbol(reloc.symbol).value as i64).wrapping_add(reloc.addend);
        let raw = position.wrapping_sub(unit.atom(atom).start as i64);
        let inside = |addend| Some(Linked { reloc, link: Link::Inside(atom), addend });
        let class = unit.class(unit.atom(atom).section());
        let orig = self.sides.equality.pairs.orig_of(atom);
        match class {
            Class::Strings | Class::Constants => {
                self.refuse_unusual(atom);
                let Some(piece) = piece(unit, atom, offset) else {
                    let reason = Refusal::ReferenceAmbiguous { function: unit.label(owner) };
                    self.refuse(Subject::Section(unit.section_name(atom).to_owned()), reason);
                    return None;
                };
                let (start, end) = (piece.start as u64, piece.end as u64);
                let link = Link::Piece { atom, start, end };
                Some(Linked { reloc, link, addend: raw.wrapping_sub(start as i64) })
            }
            Class::Replacement | Class::Auxiliary => {
                self.take(atom);
                inside(raw)
            }
            Class::Text | Class::Data | Class::Table => {
                if class != Class::Text && self.is_ambiguous(&reloc, atom, offset) {
                    let reason = Refusal::ReferenceAmbiguous { function: unit.label(owner) };
                    self.refuse(Subject::Symbol(unit.label(atom)), reason);
                }
                let Some(orig) = orig.filter(|_| !self.is_carried(atom, offset, reference.branch, context))
                else {
                    if is_freed(unit.section_name(atom)) {
                        let reason = Refusal::ReferenceToInit { function: unit.label(owner) };
                        self.refuse(Subject::Symbol(unit.label(atom)), reason);
                        return None;
                    }
                    if is_shared_without_name(unit, atom) {
                        let reason = Refusal::UnnamedData { function: unit.label(owner) };
                        self.refuse(Subject::Section(unit.section_name(atom).to_owned()), reason);
                        return None;
                    }
                    self.take(atom);
                    return inside(raw);
                };
                self.link_original(owner, reference, (atom, orig), raw)
            }
            Class::Skip
            | Class::Special(_)
            | Class::Export
            | Class::ModuleText
            | Class::Author(_)
            | Class::Foreign => {
                self.refuse(
                    Subject::Section(unit.section_name(atom).to_owned()),
                    Refusal::UnsupportedSection,
                );
                None
            }
        }
    }

    /// Whether a reference to something that the running kernel has goes to the patch's own copy instead.
    ///
    /// A call of a changed function may go straight to the new one. Its address must not: whoever keeps it
    /// would hold a pointer into the livepatch module, and comparisons with the original would fail.
    fn is_carried(&self, atom: AtomId, offset: i64, branch: bool, context: Context) -> bool {
        let unit = self.unit();
        if !unit.is_function(atom) {
            return self.changes.constants.contains(&atom);
        }
        if self.changes.parts.contains(&atom) {
            return true;
        }
        if self.changes.functions.contains_key(&atom) {
            let entry = unit.entry(atom) as i64 - unit.atom(atom).start as i64;
            return branch || context != Context::Contents || offset != entry;
        }
        // A cold part goes where its function goes.
        unit.parent_of(atom).is_some_and(|parent| self.queued.contains(&parent))
    }

    fn link_original(
        &mut self,
        owner: AtomId,
        reference: &Reference<'d>,
        (atom, orig): (AtomId, AtomId),
        raw: i64,
    ) -> Option<Linked> {
        let (unit, before) = (self.unit(), self.sides.orig());
        let subject = Subject::Symbol(before.label(orig));
        if is_freed(before.section_name(orig)) {
            let reason = Refusal::ReferenceToInit { function: unit.label(owner) };
            self.refuse(subject, reason);
            return None;
        }
        if before.name(orig).is_empty() {
            let code = before.class(before.atom(orig).section()) == Class::Text;
            self.refuse(subject, if code { Refusal::UnnamedCode } else { Refusal::UnsupportedSection });
            return None;
        }
        let changed = self.changes.functions.contains_key(&atom);
        let outside =
            if changed { self.resolver.original_by_position(orig) } else { self.resolver.original(orig) };
        match outside {
            Ok(outside) => {
                let entry = unit.entry(atom) as i64 - unit.atom(atom).start as i64;
                let link = Link::Outside(outside);
                Some(Linked { reloc: reference.reloc, link, addend: raw.wrapping_sub(entry) })
            }
            Err(reason) => {
                self.refuse(subject, reason);
                None
            }
        }
    }

    /// Whether an address between two data objects could mean the end of the first as well as the start of
    /// the second, and the two are not neighbours in the running kernel.
    fn is_ambiguous(&self, reloc: &Reloc, atom: AtomId, offset: i64) -> bool {
        let unit = self.unit();
        // Duplicated data is no array that anyone would walk to its end.
        let duplicated = is_duplicated(unit, atom);
        if offset != 0 || duplicated || unit.symbol(reloc.symbol).kind != STT_SECTION {
            return false;
        }
        let Some(before) = unit.atom_before(atom) else { return false };
        if unit.atom(before).end != unit.atom(atom).start {
            return false;
        }
        let pairs = self.sides.equality.pairs;
        match (pairs.orig_of(before), pairs.orig_of(atom)) {
            (Some(before), Some(atom)) => {
                let (left, right) = (self.sides.orig().atom(before), self.sides.orig().atom(atom));
                left.section() != right.section() || left.end != right.start
            }
            _ => true,
        }
    }
}

/// Whether an atom is a new function or variable that other files of the patch may refer to.
pub(crate) fn is_new_global(sides: &Sides<'_, '_>, atom: AtomId) -> bool {
    let unit = sides.patched();
    let Some(symbol) = unit.atom(atom).symbol() else { return false };
    let class = unit.class(unit.atom(atom).section());
    sides.equality.pairs.orig_of(atom).is_none()
        && unit.symbol(symbol).binding == STB_GLOBAL
        && matches!(class, Class::Text | Class::Data)
        && !is_freed(unit.section_name(atom))
}

/// Variables without a symbol: a copy would not be the ones that the running kernel uses. What UBSAN reports
/// with is an exception.
fn is_shared_without_name(unit: &Unit<'_>, atom: AtomId) -> bool {
    let section = unit.section(unit.atom(atom).section());
    unit.name(atom).is_empty() && section.is_writable() && !unit.is_diagnostic(atom)
}
