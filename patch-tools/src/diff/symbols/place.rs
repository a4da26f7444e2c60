//! Which of several symbols of one name is meant.
//!
//! Every rule here is a necessary condition: the symbol that is meant passes all of them. So when one
//! candidate is left it is the right one, and when several are left the answer is an error, never a guess.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use super::{Binding, Entry, SymbolKind, SymbolTable, UNKNOWN_SIZE};
use crate::diff::refusal::Refusal;
use crate::module::ObjectName;

/// What is known about a symbol from the object file that defines it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Code or data, if that is certain.
    pub(crate) kind: Option<SymbolKind>,
    /// Size in bytes, if it is defined in the file at hand.
    pub(crate) size: Option<u64>,
    /// Who can see it.
    pub(crate) scope: Scope<'a>,
    /// Its address, if matching against the shipped code has found it.
    pub(crate) address: Option<u64>,
}

/// Who can see a symbol, as far as the object file at hand tells.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// The source file of this name defines it for itself; the object file is made of one or more.
    Local(&'a Origin<'a>, Option<&'a str>),
    /// The file defines it for all.
    Global,
    /// Another file defines it: a local symbol of that name is something else, even if it is the only one.
    Elsewhere,
}

/// The object file that a local symbol is part of.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// All names that it defines, with the kind of section of each: `.text` for `.text.foo`.
    names: HashMap<&'a str, &'a str>,
    /// For each kind of section where the linker has put the file's part, as far as it was asked for.
    blocks: RefCell<HashMap<String, Option<Range<usize>>>>,
}

impl<'a> Origin<'a> {
    /// `names` are all symbols that the file defines, with the kind of section of each.
    pub(crate) fn new(names: HashMap<&'a str, &'a str>) -> Self {
        Self { names, blocks: RefCell::default() }
    }
}

/// A symbol of a running object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    /// Position from 1, or 0 when the name is unique.
    pub(crate) sympos: u32,
    /// Its scope there.
    pub(crate) binding: Binding,
}

impl SymbolTable {
    /// Finds a symbol of `object` and its position.
    pub(crate) fn locate(&self, object: &ObjectName, wanted: &Wanted<'_>) -> Result<Located, Refusal> {
        let all = self.named(object, wanted.name);
        let mut left: Vec<usize> = (0..all.len()).filter(|&at| self.fits(&all, at, wanted)).collect();
        if left.len() > 1
            && let Scope::Local(unit, file) = wanted.scope
        {
            self.keep_same_file(&all, &mut left, file);
            if left.len() > 1 {
                self.keep_block(object, wanted.name, &all, &mut left, unit);
            }
        }
        match left[..] {
            [] if all.is_empty() => Err(Refusal::SymbolNotFound { object: object.to_string() }),
            [] if matches!(wanted.scope, Scope::Elsewhere) => {
                Err(Refusal::NotReachable { object: object.to_string() })
            }
            [] => {
                let size = wanted.size.unwrap_or(0);
                Err(Refusal::SymbolDiffers { object: object.to_string(), size })
            }
            [at] => {
                let sympos = if all.len() == 1 { 0 } else { at as u32 + 1 };
                Ok(Located { sympos, binding: self.entries[all[at]].binding })
            }
            _ => Err(Refusal::SymbolAmbiguous { object: object.to_string(), candidates: left.len() }),
        }
    }

    /// Whether the symbol `all[at]` can be the one that is wanted, looking at it alone.
    fn fits(&self, all: &[usize], at: usize, wanted: &Wanted<'_>) -> bool {
        let entry = &self.entries[all[at]];
        if wanted.kind.is_some_and(|kind| entry.kind != SymbolKind::Unknown && kind != entry.kind) {
            return false;
        }
        if let Some(address) = wanted.address {
            return entry.address == address;
        }
        let scope_differs = match (entry.binding, wanted.scope) {
            (Binding::Local, Scope::Elsewhere) => return false,
            (Binding::Local, Scope::Global) | (Binding::Global | Binding::Weak, Scope::Local(..)) => true,
            _ => false,
        };
        // What the file defines the linker may have given another scope; among several, most likely not.
        if scope_differs && all.len() > 1 {
            return false;
        }
        wanted.size.is_none_or(|size| self.room(all[at], entry).is_none_or(|room| room.holds(size)))
    }

    /// How large the symbol is or can be.
    fn room(&self, index: usize, entry: &Entry) -> Option<Room> {
        if entry.size != UNKNOWN_SIZE {
            return Some(Room::Exactly(entry.size));
        }
        let at = self.by_address.binary_search_by_key(&(entry.address, index as u32), |&other| {
            (self.entries[other as usize].address, other)
        });
        let next = self.by_address[at.ok()?..]
            .iter()
            .map(|&other| self.entries[other as usize].address)
            .find(|&address| address > entry.address)?;
        Some(Room::AtMost(next - entry.address))
    }

    fn keep_same_file(&self, all: &[usize], left: &mut Vec<usize>, file: Option<&str>) {
        let Some(file) = file.and_then(|name| self.file_index.get(name)) else { return };
        if left.iter().any(|&at| self.entries[all[at]].file == *file) {
            left.retain(|&at| self.entries[all[at]].file == *file);
        }
    }

    /// Keeps the candidates that stand in the file's own part of the object.
    fn keep_block(
        &self,
        object: &ObjectName,
        name: &str,
        all: &[usize],
        left: &mut Vec<usize>,
        unit: &Origin<'_>,
    ) {
        let Some(base) = unit.names.get(name) else { return };
        // A module lists the local symbols of one file one after the other, whatever their section.
        let base = if *object == ObjectName::Vmlinux { base } else { "" };
        let block = unit.blocks.borrow().get(base).cloned();
        let block = block.unwrap_or_else(|| self.block(object, base, unit));
        let inside = |at: usize| {
            let position = self.position(object, all[at]);
            position.zip(block.as_ref()).is_some_and(|(position, block)| block.contains(&position))
        };
        // None in it: the block is not the whole part, and says nothing.
        if left.iter().any(|&at| inside(at)) {
            left.retain(|&at| inside(at));
        }
    }

    /// Where the linker has put a file's part of one kind of section: the run of neighbours that the file
    /// defines. It counts only if it holds every symbol of that kind whose name is unique; then it is the
    /// whole part and not a piece that a name of another file has cut off.
    fn block(&self, object: &ObjectName, base: &str, unit: &Origin<'_>) -> Option<Range<usize>> {
        let of_kind = unit.names.iter().filter(|(_, other)| base.is_empty() || **other == base);
        let mut marks = Vec::new();
        for (name, _) in of_kind {
            if let [only] = self.named(object, name)[..]
                && (!base.is_empty() || self.entries[only].binding == Binding::Local)
            {
                marks.extend(self.position(object, only));
            }
        }
        let block = marks.first().map(|&start| {
            let belongs = |position: usize| {
                self.at(object, position).is_some_and(|index| unit.names.contains_key(self.name(index)))
            };
            let first = (0..start).rev().take_while(|&position| belongs(position)).last().unwrap_or(start);
            let last = (start + 1..).take_while(|&position| belongs(position)).last().unwrap_or(start);
            first..last + 1
        });
        let block = block.filter(|block| marks.iter().all(|mark| block.contains(mark)));
        unit.blocks.borrow_mut().insert(base.to_owned(), block.clone());
        block
    }

    /// The place of a symbol in the order that neighbours are told by: addresses in vmlinux, the symbol
    /// table in a module.
    fn position(&self, object: &ObjectName, index: usize) -> Option<usize> {
        if *object != ObjectName::Vmlinux {
            return Some(index);
        }
        let key = (self.entries[index].address, index as u32);
        let at = self
            .by_address
            .binary_search_by_key(&key, |&other| (self.entries[other as usize].address, other));
        at.ok()
    }

    /// The symbol at a place.
    fn at(&self, object: &ObjectName, position: usize) -> Option<usize> {
        if *object == ObjectName::Vmlinux {
            return self.by_address.get(position).map(|&index| index as usize);
        }
        let entry = self.entries.get(position)?;
        (self.objects[usize::from(entry.object)] == *object).then_some(position)
    }
}

/// A size as exact as the source allows.
enum Room {
    Exactly(u64),
    AtMost(u64),
}

impl Room {
    fn holds(&self, size: u64) -> bool {
        match *self {
            Self::Exactly(exact) => exact == size,
            Self::AtMost(limit) => size <= limit,
        }
    }
}
