//! Which atom of the patched unit is which of the original.
//!
//! A name that the compiler did not number identifies its atom. Numbered functions (`foo.part.0`) pair by
//! name without numbers; any one-to-one pairing of those is correct, since a caller that now calls another
//! counterpart counts as changed, so a poor choice costs size and nothing else. Numbered data (static
//! locals) is different: a wrong pair would make a function use another variable's memory. It pairs by the
//! functions that refer to it, in order, and what remains in doubt is refused.
//!
//! Code and data that is freed after boot does not pair with what stays.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use super::duplicated::is_duplicated;
use super::names::{cold_parent, stem, variable};
use super::refusal::{Refusal, Refused, Subject};
use super::sections::{Class, base, is_freed};
use super::unit::{AtomId, Target, Unit};

const NONE: u32 = u32::MAX;

/// Functions that are followed as possibly inlined into one; keeps the work linear.
const MAX_INLINED: usize = 64;

/// A one-to-one relation between the atoms of two units.
#[derive(Debug)]
pub(crate) struct Pairs {
    to_patched: Vec<u32>,
    to_orig: Vec<u32>,
}

impl Pairs {
    /// Pairs what can be paired; static locals in doubt are reported.
    pub(crate) fn find(orig: &Unit<'_>, patched: &Unit<'_>, refused: &mut Vec<Refused>) -> Self {
        let pairs =
            Self { to_patched: vec![NONE; orig.atoms().len()], to_orig: vec![NONE; patched.atoms().len()] };
        let mut pairing = Pairing { orig, patched, pairs };
        pairing.by_name();
        pairing.numbered_functions();
        pairing.cold_parts();
        pairing.static_locals(refused);
        pairing.through_data();
        pairing.leftovers();
        pairing.pairs
    }

    /// The counterpart of an original atom.
    pub(crate) fn patched_of(&self, orig: AtomId) -> Option<AtomId> {
        let index = self.to_patched[orig.index()];
        (index != NONE).then_some(AtomId(index))
    }

    /// The counterpart of a patched atom.
    pub(crate) fn orig_of(&self, patched: AtomId) -> Option<AtomId> {
        let index = self.to_orig[patched.index()];
        (index != NONE).then_some(AtomId(index))
    }

    fn join(&mut self, orig: AtomId, patched: AtomId) {
        debug_assert!(self.patched_of(orig).is_none() && self.orig_of(patched).is_none());
        self.to_patched[orig.index()] = patched.0;
        self.to_orig[patched.index()] = orig.0;
    }
}

struct Pairing<'u, 'd> {
    orig: &'u Unit<'d>,
    patched: &'u Unit<'d>,
    pairs: Pairs,
}

/// What atoms must have in common besides their names: class, and whether they are freed.
fn kind(unit: &Unit<'_>, atom: AtomId) -> (Class, bool) {
    (unit.class(unit.atom(atom).section()), is_freed(unit.section_name(atom)))
}

/// A static local, or another data object with a compiler's number, that has an identity of its own.
fn is_numbered_data(unit: &Unit<'_>, atom: AtomId) -> bool {
    let class = unit.class(unit.atom(atom).section());
    if !matches!(class, Class::Data | Class::Table) {
        return false;
    }
    (variable(unit.name(atom)).numbered || unit.is_repeated(unit.full_name(atom)))
        && !is_duplicated(unit, atom)
}

impl<'d> Pairing<'_, 'd> {
    fn join(&mut self, orig: AtomId, patched: AtomId) {
        let free = self.pairs.patched_of(orig).is_none() && self.pairs.orig_of(patched).is_none();
        if free && kind(self.orig, orig) == kind(self.patched, patched) {
            self.pairs.join(orig, patched);
        }
    }

    fn by_name(&mut self) {
        // For each name the one atom of either side; a name that stands twice identifies nothing.
        let mut names: HashMap<(&str, &str), [Once; 2]> = HashMap::with_capacity(self.pairs.to_orig.len());
        let siblings = [self.orig, self.patched].map(siblings);
        for (side, unit) in [self.orig, self.patched].into_iter().enumerate() {
            for atom in unit.atoms() {
                let (scope, name) = unit.full_name(atom);
                // `show.count` is clang's, and one of several if there is a `show.count.1`.
                let dotted = name.contains('.') && !unit.is_function(atom);
                let one_of_several = || siblings.iter().any(|names| names.contains(name));
                if is_plain(name) && !(dotted && (one_of_several() || is_duplicated(unit, atom))) {
                    names.entry((scope, name)).or_default()[side].add(atom);
                }
            }
        }
        for sides in names.into_values() {
            if let [Once::One(orig), Once::One(patched)] = sides {
                self.join(orig, patched);
            }
        }
        // Contents that are compared as a whole pair by section.
        let whole = |unit: &Unit<'d>, atom: AtomId| {
            unit.name(atom).is_empty()
                && matches!(
                    unit.class(unit.atom(atom).section()),
                    Class::Table | Class::Text | Class::Export | Class::ModuleText
                )
        };
        let mut sections: HashMap<&str, Vec<AtomId>> = HashMap::new();
        for atom in self.patched.atoms().filter(|&atom| whole(self.patched, atom)) {
            sections.entry(self.patched.section_name(atom)).or_default().push(atom);
        }
        let mut used: HashMap<&str, usize> = HashMap::new();
        for atom in self.orig.atoms().filter(|&atom| whole(self.orig, atom)) {
            let section = self.orig.section_name(atom);
            let next = used.entry(section).or_default();
            if let Some(&counterpart) = sections.get(section).and_then(|atoms| atoms.get(*next)) {
                *next += 1;
                self.join(atom, counterpart);
            }
        }
    }

    fn numbered_functions(&mut self) {
        let mut groups: HashMap<(&str, Cow<'d, str>), [Vec<AtomId>; 2]> = HashMap::new();
        for (side, unit) in [self.orig, self.patched].into_iter().enumerate() {
            for atom in unit.atoms().filter(|&atom| unit.is_function(atom)) {
                let name = unit.name(atom);
                let stem = stem(name);
                let full = unit.full_name(atom);
                let repeated = self.orig.is_repeated(full) || self.patched.is_repeated(full);
                if (stem.numbered || repeated) && cold_parent(name).is_none() {
                    groups.entry((unit.scope(atom), stem.text)).or_default()[side].push(atom);
                }
            }
        }
        for [left, right] in groups.into_values() {
            self.group(&left, &right);
        }
    }

    /// Pairs equal code first, then equal names, then the rest in order.
    fn group(&mut self, left: &[AtomId], right: &[AtomId]) {
        if left.len() > 1 || right.len() > 1 {
            let mut by_code: HashMap<&[u8], Vec<AtomId>> = HashMap::new();
            for &atom in right.iter().rev() {
                by_code.entry(self.patched.bytes(atom)).or_default().push(atom);
            }
            let mut by_name: HashMap<&str, Once> = HashMap::new();
            for &atom in right {
                by_name.entry(self.patched.name(atom)).or_default().add(atom);
            }
            for &atom in left {
                let alike = by_code.get(self.orig.bytes(atom)).is_some_and(|atoms| atoms.len() == 1);
                if alike && let Some(other) = by_code.get_mut(self.orig.bytes(atom)).and_then(Vec::pop) {
                    self.join(atom, other);
                }
            }
            for &atom in left {
                if let Some(&Once::One(other)) = by_name.get(self.orig.name(atom)) {
                    self.join(atom, other);
                }
            }
        }
        let free_left: Vec<_> =
            left.iter().copied().filter(|&atom| self.pairs.patched_of(atom).is_none()).collect();
        let free_right: Vec<_> =
            right.iter().copied().filter(|&atom| self.pairs.orig_of(atom).is_none()).collect();
        for (a, b) in free_left.into_iter().zip(free_right) {
            self.join(a, b);
        }
    }

    /// A cold part pairs with the cold part of its parent's counterpart.
    fn cold_parts(&mut self) {
        let of_patched: HashMap<AtomId, AtomId> =
            self.patched.cold_parts().map(|(part, parent)| (parent, part)).collect();
        let parts: Vec<(AtomId, AtomId)> = self.orig.cold_parts().collect();
        for (part, parent) in parts {
            let counterpart = self.pairs.patched_of(parent).and_then(|parent| of_patched.get(&parent));
            if let Some(&counterpart) = counterpart {
                self.join(part, counterpart);
            }
        }
    }

    fn static_locals(&mut self, refused: &mut Vec<Refused>) {
        let uses = [Uses::of(self.orig), Uses::of(self.patched)];
        if uses.iter().all(|uses| uses.by_function.is_empty()) {
            return;
        }
        let functions: Vec<(AtomId, AtomId)> = self
            .orig
            .atoms()
            .filter(|&atom| self.orig.is_function(atom) && cold_parent(self.orig.name(atom)).is_none())
            .filter_map(|atom| Some((atom, self.pairs.patched_of(atom)?)))
            .collect();
        // A function that uses one variable of a name tells more than one that uses several.
        for certain in [true, false] {
            for &(orig, patched) in &functions {
                let left = uses[0].reachable(orig, |atom| {
                    self.pairs.patched_of(atom).is_none() || is_cold(self.orig, atom)
                });
                let right = uses[1].reachable(patched, |atom| {
                    self.pairs.orig_of(atom).is_none() || is_cold(self.patched, atom)
                });
                for (name, left) in &left {
                    let right = right.get(name).map_or(&[][..], Vec::as_slice);
                    if certain {
                        if let ([a], [b]) = (&left[..], right) {
                            self.join(*a, *b);
                        }
                    } else {
                        self.several((orig, patched), left, right, refused);
                    }
                }
            }
        }
    }

    /// Pairs several static locals of one name in one function, or reports that it cannot.
    fn several(
        &mut self,
        functions: (AtomId, AtomId),
        left: &[AtomId],
        right: &[AtomId],
        refused: &mut Vec<Refused>,
    ) {
        let left: Vec<_> =
            left.iter().copied().filter(|&atom| self.pairs.patched_of(atom).is_none()).collect();
        let right: Vec<_> =
            right.iter().copied().filter(|&atom| self.pairs.orig_of(atom).is_none()).collect();
        let Some(&first) = left.first() else { return };
        let function = || self.orig.name(functions.0).to_owned();
        let subject = Subject::Symbol(self.orig.name(first).to_owned());
        if right.is_empty() {
            if left.iter().all(|&atom| !self.orig.section(self.orig.atom(atom).section()).is_writable()) {
                // Constants: nothing of theirs is lost.
                return;
            }
            let reason = Refusal::StaticLocalVanished { function: function() };
            return refused.push(Refused { subject, reason });
        }
        // The compiler numbers them in the order of the source, and functions tend to use them in that
        // order. Only when both orders agree, and the shapes do, is the pairing beyond doubt; and not when
        // one goes to what another one went to, since the first has gone then and all have moved up.
        let alike = left.len() == right.len()
            && left.iter().zip(&right).all(|(&a, &b)| {
                self.orig.atom(a).size() == self.patched.atom(b).size()
                    && base(self.orig.section_name(a)) == base(self.patched.section_name(b))
            });
        let in_order = || numbers_order(self.orig, &left) == numbers_order(self.patched, &right);
        let shifted = || {
            let before = followers(self.orig, functions.0, &left);
            shifted(&before, &followers(self.patched, functions.1, &right))
        };
        if !alike || !in_order() || shifted() {
            let reason = Refusal::StaticLocalAmbiguous { function: function() };
            return refused.push(Refused { subject, reason });
        }
        for (a, b) in left.into_iter().zip(right) {
            self.join(a, b);
        }
    }

    /// Numbered data that only other data refers to pairs by the place of the reference.
    fn through_data(&mut self) {
        let is_data = |unit: &Unit<'d>, atom: AtomId| {
            matches!(unit.class(unit.atom(atom).section()), Class::Data | Class::Table)
        };
        let mut queue: Vec<AtomId> = self.orig.atoms().filter(|&atom| is_data(self.orig, atom)).collect();
        while let Some(atom) = queue.pop() {
            let Some(counterpart) = self.pairs.patched_of(atom) else { continue };
            let (left, right) = (self.orig.references(atom), self.patched.references(counterpart));
            for (a, b) in left.into_iter().zip(right) {
                let (Target::Atom { atom: a, .. }, Target::Atom { atom: b, .. }) = (a.target, b.target)
                else {
                    continue;
                };
                let free = self.pairs.patched_of(a).is_none() && self.pairs.orig_of(b).is_none();
                let numbered = is_numbered_data(self.orig, a) && is_numbered_data(self.patched, b);
                if free && numbered && variable(self.orig.name(a)) == variable(self.patched.name(b)) {
                    self.join(a, b);
                    queue.push(a);
                }
            }
        }
    }

    /// Numbered data of linker tables, and what nothing refers to, pairs when it is the only one of its
    /// name on both sides, or stands in a table in the same number.
    fn leftovers(&mut self) {
        let mut groups: HashMap<(&str, Cow<'d, str>), [Vec<AtomId>; 2]> = HashMap::new();
        for (side, unit) in [self.orig, self.patched].into_iter().enumerate() {
            for atom in unit.atoms().filter(|&atom| is_numbered_data(unit, atom)) {
                let free = match side {
                    0 => self.pairs.patched_of(atom).is_none(),
                    _ => self.pairs.orig_of(atom).is_none(),
                };
                if free {
                    let key = (unit.scope(atom), variable(unit.name(atom)).text);
                    groups.entry(key).or_default()[side].push(atom);
                }
            }
        }
        let used = [Uses::of(self.orig), Uses::of(self.patched)];
        for [left, right] in groups.into_values() {
            let unused = left.iter().all(|atom| !used[0].data.contains(atom))
                && right.iter().all(|atom| !used[1].data.contains(atom));
            let in_table = |unit: &Unit<'d>, atoms: &[AtomId]| {
                atoms.iter().all(|&atom| unit.class(unit.atom(atom).section()) == Class::Table)
            };
            let table = in_table(self.orig, &left) && in_table(self.patched, &right);
            if unused && left.len() == right.len() && (left.len() == 1 || table) {
                for (a, b) in left.into_iter().zip(right) {
                    self.join(a, b);
                }
            }
        }
    }
}

/// Names of static locals, as clang calls the first one, of which a function has several.
fn siblings<'d>(unit: &Unit<'d>) -> HashSet<Cow<'d, str>> {
    let data = unit.atoms().filter(|&atom| !unit.is_function(atom)).map(|atom| unit.name(atom));
    let numbered = data.filter(|name| name.contains('.')).map(stem).filter(|stem| stem.numbered);
    numbered.map(|stem| stem.text).collect()
}

/// None, one, or several.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Once {
    #[default]
    None,
    One(AtomId),
    Several,
}

impl Once {
    pub(crate) fn add(&mut self, atom: AtomId) {
        *self = match self {
            Self::None => Self::One(atom),
            Self::One(known) if *known == atom => Self::One(atom),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

fn is_cold(unit: &Unit<'_>, atom: AtomId) -> bool {
    cold_parent(unit.name(atom)).is_some()
}

/// Whether a name identifies its atom by itself.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !stem(name).numbered && cold_parent(name).is_none()
}

/// The order that the compiler's numbers put atoms into, as ranks.
fn numbers_order(unit: &Unit<'_>, atoms: &[AtomId]) -> Vec<usize> {
    let number =
        |atom: AtomId| -> u64 { unit.name(atom).rsplit('.').find_map(|part| part.parse().ok()).unwrap_or(0) };
    let mut order: Vec<usize> = (0..atoms.len()).collect();
    order.sort_by_key(|&index| number(atoms[index]));
    order
}

/// For each of several variables what a function refers to right after it, which tends to be what the
/// variable is passed to.
fn followers<'d>(unit: &Unit<'d>, function: AtomId, variables: &[AtomId]) -> Vec<HashSet<&'d str>> {
    let mut found = vec![HashSet::new(); variables.len()];
    let mut open = None;
    for reference in unit.references(function) {
        let name = match reference.target {
            Target::Undefined { name, .. } => name,
            Target::Atom { atom, .. } => {
                if let Some(index) = variables.iter().position(|&variable| variable == atom) {
                    open = Some(index);
                    continue;
                }
                unit.name(atom)
            }
            _ => continue,
        };
        let common = name.starts_with("__x86_") || name.starts_with("__stack_chk");
        if is_plain(name)
            && !common
            && let Some(index) = open.take()
        {
            found[index].insert(name);
        }
    }
    found
}

/// Whether a variable of the patched function is used like another one of the original, and the one that it
/// would pair with is not.
fn shifted(before: &[HashSet<&str>], after: &[HashSet<&str>]) -> bool {
    before.iter().zip(after).enumerate().any(|(index, (own, counterpart))| {
        let elsewhere = after.iter().enumerate().any(|(at, other)| at != index && !own.is_disjoint(other));
        !counterpart.is_empty() && own.is_disjoint(counterpart) && elsewhere
    })
}

/// Which numbered data each function refers to, and which functions, in order.
struct Uses<'d> {
    by_function: HashMap<AtomId, Vec<(Cow<'d, str>, AtomId)>>,
    calls: HashMap<AtomId, Vec<AtomId>>,
    data: HashSet<AtomId>,
}

impl<'d> Uses<'d> {
    fn of(unit: &Unit<'d>) -> Self {
        let mut found = Self { by_function: HashMap::new(), calls: HashMap::new(), data: HashSet::new() };
        if !unit.atoms().any(|atom| is_numbered_data(unit, atom)) {
            return found;
        }
        for function in unit.atoms().filter(|&atom| unit.is_function(atom)) {
            for reference in unit.references(function) {
                let Target::Atom { atom, .. } = reference.target else { continue };
                if is_numbered_data(unit, atom) {
                    let name = variable(unit.name(atom)).text;
                    found.by_function.entry(function).or_default().push((name, atom));
                    found.data.insert(atom);
                } else if unit.is_function(atom) && atom != function {
                    found.calls.entry(function).or_default().push(atom);
                }
            }
        }
        found
    }

    /// What a function uses, together with its cold part and with functions that have no counterpart: code
    /// that was inlined on the other side.
    fn reachable(
        &self,
        function: AtomId,
        belongs: impl Fn(AtomId) -> bool,
    ) -> HashMap<Cow<'d, str>, Vec<AtomId>> {
        let mut found: HashMap<Cow<'d, str>, Vec<AtomId>> = HashMap::new();
        let mut seen_data = HashSet::new();
        let mut seen = HashSet::from([function]);
        let mut queue = VecDeque::from([function]);
        while let Some(function) = queue.pop_front() {
            for (name, atom) in self.by_function.get(&function).into_iter().flatten() {
                if seen_data.insert(*atom) {
                    found.entry(name.clone()).or_default().push(*atom);
                }
            }
            for &callee in self.calls.get(&function).into_iter().flatten() {
                if seen.len() < MAX_INLINED && belongs(callee) && seen.insert(callee) {
                    queue.push_back(callee);
                }
            }
        }
        found
    }
}
