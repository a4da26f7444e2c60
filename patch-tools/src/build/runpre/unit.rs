//! All functions of an object together: which shipped function each one is.
//!
//! A name that occurs once is easy. Of several with the same name (there are dozens of `get_order` or
//! `cleanup`) first those go whose code differs, then those whose references contradict kallsyms, then those
//! that other functions of the object do not mean, and at last those that lie outside the stretch of memory
//! from which the object's other functions come: the linker keeps an object's code together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::code::{self, References};
use super::object::{Rebuilt, Target};
use super::shipped::Shipped;
use super::{Difference, FunctionMatch, UnitMatch};
use crate::elf::{Elf, Malformed, Place};

struct Candidate<'a> {
    address: u64,
    references: References<'a>,
}

/// Matches the functions of a rebuilt object with the shipped code.
pub fn match_unit(object: &[u8], shipped: &dyn Shipped) -> Result<UnitMatch, Malformed> {
    let elf = Elf::parse(object)?;
    let rebuilt = Rebuilt::new(&elf)?;
    let mut found = UnitMatch::default();
    let mut open: BTreeMap<usize, Vec<Candidate<'_>>> = BTreeMap::new();
    for (index, function) in rebuilt.functions.iter().enumerate() {
        let addresses = shipped.named(function.name);
        let mut nearest: Option<Difference> = None;
        let mut candidates = Vec::new();
        for &address in addresses {
            match code::compare(&rebuilt, function, shipped, address)
                .and_then(|references| consistent(&rebuilt, shipped, references))
            {
                Ok(references) => candidates.push(Candidate { address, references }),
                // The one that goes furthest is the one that was meant.
                Err(difference) => {
                    if nearest.as_ref().is_none_or(|known| known.offset < difference.offset) {
                        nearest = Some(difference);
                    }
                }
            }
        }
        match (candidates.is_empty(), nearest) {
            (false, _) => drop(open.insert(index, candidates)),
            (true, Some(difference)) => {
                found.functions.insert(function.name.to_owned(), FunctionMatch::Differs(difference));
            }
            (true, None) => drop(found.functions.insert(function.name.to_owned(), FunctionMatch::Absent)),
        }
    }
    let mut located = Located::default();
    settle(&rebuilt, &mut open, &mut located, &mut found);
    by_neighbours(&rebuilt, &mut open, &located);
    settle(&rebuilt, &mut open, &mut located, &mut found);
    for (index, candidates) in open {
        let addresses = candidates.iter().map(|candidate| candidate.address).collect();
        found
            .functions
            .insert(rebuilt.functions[index].name.to_owned(), FunctionMatch::Ambiguous { addresses });
    }
    found.addresses = located.names(&rebuilt);
    Ok(found)
}

/// Where the shipped code has the object's sections and the symbols it refers to.
#[derive(Default)]
struct Located<'a> {
    sections: BTreeMap<usize, u64>,
    symbols: BTreeMap<&'a str, u64>,
}

impl<'a> Located<'a> {
    fn of(&self, target: &Target<'a>) -> Option<u64> {
        match target {
            Target::Symbol(name) => self.symbols.get(name).copied(),
            Target::Section(section) => self.sections.get(section).copied(),
            Target::Literal { .. } => None,
        }
    }

    fn add(&mut self, rebuilt: &Rebuilt<'a>, target: &Target<'a>, address: u64) {
        match target {
            Target::Symbol(name) => {
                self.symbols.insert(name, address);
                let own = rebuilt.elf.symbols().iter().find(|symbol| symbol.name == *name);
                if let Some(symbol) = own
                    && let Place::Section(section) = symbol.place
                {
                    self.sections.insert(section, address.wrapping_sub(symbol.value));
                }
            }
            Target::Section(section) => {
                self.sections.insert(*section, address);
            }
            Target::Literal { .. } => {}
        }
    }

    /// The address of every named symbol.
    fn names(&self, rebuilt: &Rebuilt<'a>) -> BTreeMap<String, u64> {
        let mut names: BTreeMap<String, u64> =
            self.symbols.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        for (section, start) in &self.sections {
            for symbol in rebuilt.symbols_of(*section) {
                names.insert(symbol.name.to_owned(), start.wrapping_add(symbol.value));
            }
        }
        names
    }
}

/// References of one function must agree among themselves, and with kallsyms where that knows the name.
fn consistent<'a>(
    rebuilt: &Rebuilt<'a>,
    shipped: &dyn Shipped,
    references: References<'a>,
) -> Result<References<'a>, Difference> {
    let mut seen: HashMap<Target<'a>, u64> = HashMap::new();
    for (target, address) in &references {
        let contradiction = |expected: String| Difference {
            offset: 0,
            rebuilt: format!("reference to {expected}"),
            shipped: format!("reference to {address:#x}"),
        };
        if *seen.entry(*target).or_insert(*address) != *address {
            return Err(contradiction("one symbol at two addresses".to_owned()));
        }
        let wrong = |name: &str, address: u64| shipped.knows(name) && !shipped.named(name).contains(&address);
        match target {
            Target::Symbol(name) if wrong(name, *address) => return Err(contradiction((*name).to_owned())),
            Target::Section(section) => {
                // In a section of its own there is one object; sections that several share prove nothing.
                let mut symbols = rebuilt.symbols_of(*section);
                if let (Some(symbol), None) = (symbols.next(), symbols.next())
                    && wrong(symbol.name, address.wrapping_add(symbol.value))
                {
                    return Err(contradiction(symbol.name.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(references)
}

/// Takes functions with one candidate as found, and with what they refer to drops candidates of others,
/// until nothing changes.
fn settle<'a>(
    rebuilt: &Rebuilt<'a>,
    open: &mut BTreeMap<usize, Vec<Candidate<'a>>>,
    located: &mut Located<'a>,
    found: &mut UnitMatch,
) {
    loop {
        for (index, candidates) in open.iter_mut() {
            let function = &rebuilt.functions[*index];
            let known = located.symbols.get(function.name).copied().or_else(|| {
                let symbol =
                    rebuilt.symbols_of(function.section).find(|symbol| symbol.name == function.name)?;
                Some(located.sections.get(&function.section)?.wrapping_add(symbol.value))
            });
            if candidates.len() < 2 {
                continue;
            }
            candidates.retain(|candidate| {
                known.is_none_or(|known| known == candidate.address)
                    && candidate
                        .references
                        .iter()
                        .all(|(target, address)| located.of(target).is_none_or(|known| known == *address))
            });
        }
        let single: Vec<usize> =
            open.iter().filter(|(_, candidates)| candidates.len() == 1).map(|(index, _)| *index).collect();
        if single.is_empty() {
            break;
        }
        for index in single {
            let Some(candidate) = open.remove(&index).and_then(|mut candidates| candidates.pop()) else {
                continue;
            };
            let function = &rebuilt.functions[index];
            let same = FunctionMatch::Same { address: candidate.address };
            found.functions.insert(function.name.to_owned(), same);
            located.add(rebuilt, &Target::Symbol(function.name), candidate.address);
            for (target, address) in &candidate.references {
                located.add(rebuilt, target, *address);
            }
        }
    }
    // What contradicts everything that was located is not this object's function.
    open.retain(|index, candidates| {
        if candidates.is_empty() {
            let name = rebuilt.functions[*index].name.to_owned();
            let difference = Difference {
                offset: 0,
                rebuilt: "references of this object".to_owned(),
                shipped: "references of another one".to_owned(),
            };
            found.functions.insert(name, FunctionMatch::Differs(difference));
        }
        !candidates.is_empty()
    });
}

/// Drops candidates that are not within, or next to, the stretch from which the object's code comes.
fn by_neighbours(
    rebuilt: &Rebuilt<'_>,
    open: &mut BTreeMap<usize, Vec<Candidate<'_>>>,
    located: &Located<'_>,
) {
    let kind = |section: usize| text_kind(rebuilt.elf.sections()[section].name);
    let sizes: u64 = rebuilt.functions.iter().map(|function| function.code.len() as u64 + 16).sum();
    for (index, candidates) in open.iter_mut() {
        let section = rebuilt.functions[*index].section;
        let same_kind: BTreeSet<u64> = rebuilt
            .functions
            .iter()
            .filter(|function| kind(function.section) == kind(section))
            .filter_map(|function| located.symbols.get(function.name).copied())
            .collect();
        let (Some(first), Some(last)) = (same_kind.first(), same_kind.last()) else { continue };
        // Around the located ones, as far as the object's code can reach.
        let near =
            |address: u64| address.saturating_add(sizes) > *last && address < first.saturating_add(sizes);
        if last - first <= sizes && candidates.iter().any(|candidate| near(candidate.address)) {
            candidates.retain(|candidate| near(candidate.address));
        }
    }
}

/// `.text`, `.text.unlikely`, `.init.text`, …: what the linker script keeps apart, without the function's name.
fn text_kind(section: &str) -> &str {
    for kind in [".text.unlikely", ".text.hot", ".text.startup", ".text.exit", ".init.text", ".exit.text"] {
        if section.starts_with(kind) {
            return kind;
        }
    }
    if section.starts_with(".text") { ".text" } else { section }
}
