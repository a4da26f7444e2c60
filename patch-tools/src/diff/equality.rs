//! Whether contents are the same once addresses are set aside.
//!
//! Two references are the same when they reach the same thing: the same symbol of another file, counterparts
//! at the same offset, or duplicated contents (texts, constants, once-flags) that are equal themselves.
//! Where following references does not come to an end the answer is "different".

use std::cell::RefCell;
use std::collections::HashMap;

use object::elf::{R_X86_64_PC32, R_X86_64_PLT32};

use super::duplicated::is_duplicated;
use super::mergeable::{character, piece};
use super::names::stem;
use super::pairs::Pairs;
use super::sections::{Class, Special, holds_descriptors};
use super::special::{Entries, Entry};
use super::unit::{AtomId, Reloc, Target, Unit, width};

/// References are followed no deeper than this.
const MAX_DEPTH: u32 = 8;

/// `struct _ddebug`: four pointers, then the line number in the low 18 bits.
const DDEBUG_LINE: std::ops::Range<usize> = 32..34;
const DDEBUG_LINE_TOP: (usize, u8) = (34, 0b1111_1100);

/// An original and a patched unit whose atoms are paired.
pub(crate) struct Equality<'u, 'd> {
    pub(crate) orig: &'u Unit<'d>,
    pub(crate) patched: &'u Unit<'d>,
    pub(crate) pairs: &'u Pairs,
    known: RefCell<HashMap<(AtomId, i64, AtomId, i64), bool>>,
    landmarks: [Landmarks; 2],
}

/// Where two functions first differ; offsets count from the start of the atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// A byte, or a reference and what it reaches.
    Contents { offset: u64 },
    /// One is a prefix of the other.
    Size,
    /// An entry of a table.
    Entry { table: Special },
}

/// Offsets that anything refers to in contents without symbols: there one thing ends and the next begins.
#[derive(Default)]
struct Landmarks(HashMap<AtomId, Vec<i64>>);

impl<'u, 'd> Equality<'u, 'd> {
    pub(crate) fn new(orig: &'u Unit<'d>, patched: &'u Unit<'d>, pairs: &'u Pairs) -> Self {
        let landmarks = [Landmarks::of(orig), Landmarks::of(patched)];
        Self { orig, patched, pairs, known: RefCell::default(), landmarks }
    }

    /// Data without a symbol that nothing refers to, of either side.
    pub(crate) fn unused_unnamed_data(&self) -> [Vec<AtomId>; 2] {
        [(self.orig, &self.landmarks[0]), (self.patched, &self.landmarks[1])].map(|(unit, landmarks)| {
            let unused = |&atom: &AtomId| is_unnamed_data(unit, atom) && !landmarks.0.contains_key(&atom);
            unit.atoms().filter(unused).collect()
        })
    }

    /// Where two atoms first differ, if they do.
    pub(crate) fn difference(&self, orig: AtomId, patched: AtomId) -> Option<Difference> {
        let (left, right) = (self.orig.atom(orig), self.patched.atom(patched));
        let size = left.size().min(right.size());
        let limit = self.first_difference(orig, patched, 0..size, 0..size, 0);
        match limit {
            Some(offset) => Some(Difference::Contents { offset }),
            None if left.size() != right.size() => Some(Difference::Size),
            None => None,
        }
    }

    /// Whether the tables say the same about two functions, as far as the code does not imply it.
    pub(crate) fn entry_difference(
        &self,
        orig: (AtomId, &Entries),
        patched: (AtomId, &Entries),
    ) -> Option<Difference> {
        let matters = |entry: &&Entry| {
            matches!(
                entry.table,
                Special::BugTable
                    | Special::ExTable
                    | Special::JumpTable
                    | Special::AltInstructions
                    | Special::ParaInstructions
                    | Special::StaticCallSites
                    | Special::OrcUnwind
                    | Special::RuntimePointer
                    | Special::RuntimeShift
            )
        };
        let mut left = orig.1.of(orig.0).iter().filter(matters);
        let mut right = patched.1.of(patched.0).iter().filter(matters);
        loop {
            match (left.next(), right.next()) {
                (None, None) => return None,
                (Some(a), Some(b)) if a.table == b.table => {
                    if !self.same_entry((a, orig.1), (b, patched.1)) {
                        return Some(Difference::Entry { table: a.table });
                    }
                }
                (Some(entry), _) | (None, Some(entry)) => {
                    return Some(Difference::Entry { table: entry.table });
                }
            }
        }
    }

    fn same_entry(&self, orig: (&Entry, &Entries), patched: (&Entry, &Entries)) -> bool {
        let (from, to) = (orig.1.range(orig.0), patched.1.range(patched.0));
        let (left, right) = (orig.0.section(), patched.0.section());
        // Some tables have their subject in their name.
        if self.orig.section(left).name != self.patched.section(right).name {
            return false;
        }
        let (mut a, mut b) = (
            slice(self.orig.section(left).data, &from).to_vec(),
            slice(self.patched.section(right).data, &to).to_vec(),
        );
        if orig.0.table == Special::BugTable {
            for bytes in [&mut a, &mut b] {
                // The line stands before the flags, which are the last two bytes; without file names there
                // is no line.
                let end = bytes.len().saturating_sub(2);
                if bytes.len() >= 12 {
                    bytes[end - 2..end].fill(0);
                }
            }
        }
        if a != b {
            return false;
        }
        let left = self.orig.relocations(left).within(from.clone());
        let right = self.patched.relocations(right).within(to.clone());
        let same_length = left.len() == right.len();
        // Both entries have equal bytes, so what holds for one holds for the other.
        let fields = if orig.1.replaces_with_nothing(self.orig, orig.0) { 1 } else { usize::MAX };
        same_length
            && left.zip(right).take(fields).all(|(a, b)| {
                a.kind == b.kind
                    && a.offset - from.start == b.offset - to.start
                    && self.same_target(
                        self.orig.target(&a, super::unit::Bias::NONE),
                        self.patched.target(&b, super::unit::Bias::NONE),
                        0,
                    )
            })
    }

    /// Whether two references reach the same thing.
    pub(crate) fn same_target(&self, orig: Target<'d>, patched: Target<'d>, depth: u32) -> bool {
        match (orig, patched) {
            (Target::Undefined { name: a, offset: x }, Target::Undefined { name: b, offset: y }) => {
                a == b && x == y
            }
            (Target::Absolute { value: a }, Target::Absolute { value: b }) => a == b,
            (Target::Section { section: a, offset: x }, Target::Section { section: b, offset: y }) => {
                self.orig.section(a).name == self.patched.section(b).name && x == y
            }
            (Target::Atom { atom: a, offset: x }, Target::Atom { atom: b, offset: y }) => {
                self.same_place((a, x), (b, y), depth)
            }
            _ => false,
        }
    }

    fn same_place(&self, orig: (AtomId, i64), patched: (AtomId, i64), depth: u32) -> bool {
        let class = self.orig.class(self.orig.atom(orig.0).section());
        if class != self.patched.class(self.patched.atom(patched.0).section()) {
            return false;
        }
        match class {
            Class::Strings => {
                let (a, b) = (string(self.orig, orig), string(self.patched, patched));
                a.is_some() && a == b
            }
            Class::Constants => {
                let (a, b) = (constant(self.orig, orig), constant(self.patched, patched));
                a.is_some() && a == b
            }
            _ => {
                if self.pairs.patched_of(orig.0) == Some(patched.0) {
                    return orig.1 == patched.1;
                }
                let unpaired =
                    self.pairs.patched_of(orig.0).is_none() && self.pairs.orig_of(patched.0).is_none();
                unpaired && self.same_copy(orig, patched, depth)
            }
        }
    }

    /// Whether two things that are duplicated rather than paired have equal contents.
    fn same_copy(&self, orig: (AtomId, i64), patched: (AtomId, i64), depth: u32) -> bool {
        let (left, right) = (self.orig.name(orig.0), self.patched.name(patched.0));
        let (stem_left, stem_right) = (stem(left), stem(right));
        if stem_left != stem_right {
            return false;
        }
        if left.is_empty() {
            if self.orig.is_diagnostic(orig.0) && self.patched.is_diagnostic(patched.0) {
                let size = |unit: &Unit<'d>, atom| unit.atom(atom).size();
                return size(self.orig, orig.0) == size(self.patched, patched.0);
            }
        } else if !is_duplicated(self.orig, orig.0) || !is_duplicated(self.patched, patched.0) {
            return false;
        }
        if depth >= MAX_DEPTH {
            return false;
        }
        let key = (orig.0, orig.1, patched.0, patched.1);
        if let Some(&known) = self.known.borrow().get(&key) {
            return known;
        }
        let same = if left.is_empty() && self.orig.class(self.orig.atom(orig.0).section()) == Class::Data {
            self.same_chunk(orig, patched, depth + 1)
        } else {
            let (a, b) = (self.orig.atom(orig.0), self.patched.atom(patched.0));
            orig.1 == patched.1
                && a.size() == b.size()
                && self.first_difference(orig.0, patched.0, 0..a.size(), 0..b.size(), depth + 1).is_none()
        };
        self.known.borrow_mut().insert(key, same);
        same
    }

    /// Compares contents without symbols from a reference to where the next thing begins.
    fn same_chunk(&self, orig: (AtomId, i64), patched: (AtomId, i64), depth: u32) -> bool {
        let (a, b) = (self.orig.atom(orig.0).size(), self.patched.atom(patched.0).size());
        let (Ok(from), Ok(to)) = (u64::try_from(orig.1), u64::try_from(patched.1)) else {
            return orig.1 == patched.1;
        };
        let from_end = self.landmarks[0].next(orig.0, orig.1).unwrap_or(a).min(a);
        let to_end = self.landmarks[1].next(patched.0, patched.1).unwrap_or(b).min(b);
        if from > from_end || to > to_end {
            return false;
        }
        let common = (from_end - from).min(to_end - to);
        let tail = |unit: &Unit<'d>, atom: AtomId, start: u64, end: u64| {
            // What one has more must be padding.
            let base = unit.atom(atom).start;
            end - start < 64
                && unit.relocations(unit.atom(atom).section()).within(base + start..base + end).len() == 0
                && slice(unit.bytes(atom), &(start..end)).iter().all(|&byte| byte == 0)
        };
        tail(self.orig, orig.0, from + common, from_end)
            && tail(self.patched, patched.0, to + common, to_end)
            && self.first_difference(orig.0, patched.0, from..from + common, to..to + common, depth).is_none()
    }

    /// The first offset at which two ranges of equal length differ in bytes or references, counted from
    /// the start of the original range.
    fn first_difference(
        &self,
        orig: AtomId,
        patched: AtomId,
        from: std::ops::Range<u64>,
        to: std::ops::Range<u64>,
        depth: u32,
    ) -> Option<u64> {
        let (left, right) = (self.orig.bytes(orig), self.patched.bytes(patched));
        let zeroed = (left.is_empty(), right.is_empty());
        if zeroed.0 != zeroed.1 && from.start != from.end {
            return Some(0);
        }
        let (left, right) = (slice(left, &from), slice(right, &to));
        let base = (self.orig.atom(orig).start + from.start, self.patched.atom(patched).start + to.start);
        let length = from.end - from.start;
        let fields_left = self.orig.references_within(orig, base.0..base.0 + length);
        let fields_right = self.patched.references_within(patched, base.1..base.1 + length);
        let mut first = None;
        let mut note = |offset: u64| first = Some(first.map_or(offset, |known: u64| known.min(offset)));
        let mut index = 0;
        loop {
            match (fields_left.get(index), fields_right.get(index)) {
                (None, None) => break,
                (Some(a), Some(b)) => {
                    let (x, y) = (a.reloc.offset - base.0, b.reloc.offset - base.1);
                    if x != y {
                        note(x.min(y));
                        break;
                    }
                    let same = same_kind(a.reloc.kind, b.reloc.kind)
                        && a.branch == b.branch
                        && self.same_target(a.target, b.target, depth);
                    if !same {
                        note(x);
                        break;
                    }
                }
                (Some(a), None) => {
                    note(a.reloc.offset - base.0);
                    break;
                }
                (None, Some(b)) => {
                    note(b.reloc.offset - base.1);
                    break;
                }
            }
            index += 1;
        }
        if left != right {
            let is_dyndbg = holds_descriptors(self.orig.section_name(orig));
            let mut fields = fields_left.iter().map(|field| &field.reloc).peekable();
            for (offset, (a, b)) in left.iter().zip(right).enumerate() {
                if a != b
                    && !within_field(&mut fields, base.0 + offset as u64)
                    && !(is_dyndbg && is_line_number(offset, *a, *b))
                {
                    note(offset as u64);
                    break;
                }
            }
        }
        first
    }
}

/// Whether two relocation types do the same in the kernel: calls of global functions go through a procedure
/// linkage table by name only.
pub(crate) fn same_kind(a: u32, b: u32) -> bool {
    let plain = |kind| if kind == R_X86_64_PLT32 { R_X86_64_PC32 } else { kind };
    plain(a) == plain(b)
}

/// Whether `position` lies in one of the fields, which come in order, as the positions asked for do.
fn within_field<'r>(
    fields: &mut std::iter::Peekable<impl Iterator<Item = &'r Reloc>>,
    position: u64,
) -> bool {
    while let Some(reloc) = fields.peek() {
        if reloc.offset + width(reloc.kind).unwrap_or(0) > position {
            return reloc.offset <= position;
        }
        fields.next();
    }
    false
}

fn is_line_number(offset: usize, a: u8, b: u8) -> bool {
    let (top, rest) = DDEBUG_LINE_TOP;
    DDEBUG_LINE.contains(&offset) || (offset == top && a & rest == b & rest)
}

fn slice<'d>(bytes: &'d [u8], range: &std::ops::Range<u64>) -> &'d [u8] {
    let end = (range.end as usize).min(bytes.len());
    bytes.get(range.start as usize..end).unwrap_or_default()
}

/// The string at a place, which need not be where the compiler started one, and the width of its characters.
pub(super) fn string<'d>(unit: &Unit<'d>, (atom, offset): (AtomId, i64)) -> Option<(usize, &'d [u8])> {
    let width = character(unit.section(unit.atom(atom).section()))?;
    Some((width, unit.bytes(atom).get(piece(unit, atom, offset)?)?))
}

/// The rest of the mergeable constant at an offset.
fn constant<'d>(unit: &Unit<'d>, (atom, offset): (AtomId, i64)) -> Option<&'d [u8]> {
    let end = piece(unit, atom, offset)?.end;
    unit.bytes(atom).get(usize::try_from(offset).ok()?..end)
}

fn is_unnamed_data(unit: &Unit<'_>, atom: AtomId) -> bool {
    unit.atom(atom).symbol().is_none() && unit.class(unit.atom(atom).section()) == Class::Data
}

impl Landmarks {
    fn of(unit: &Unit<'_>) -> Self {
        let unnamed = |atom: AtomId| is_unnamed_data(unit, atom);
        let mut found = Self::default();
        if !unit.atoms().any(unnamed) {
            return found;
        }
        for atom in unit.atoms() {
            for reference in unit.references(atom) {
                if let Target::Atom { atom, offset } = reference.target
                    && unnamed(atom)
                {
                    found.0.entry(atom).or_default().push(offset);
                }
            }
        }
        for offsets in found.0.values_mut() {
            offsets.sort_unstable();
            offsets.dedup();
        }
        found
    }

    /// The first landmark behind `offset`.
    fn next(&self, atom: AtomId, offset: i64) -> Option<u64> {
        let offsets = self.0.get(&atom)?;
        let next = offsets.partition_point(|&other| other <= offset);
        offsets.get(next).and_then(|&next| u64::try_from(next).ok())
    }
}
