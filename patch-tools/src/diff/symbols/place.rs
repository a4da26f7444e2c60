//! Which of several symbols of one name is meant.
//!
//! Every rule here is a necessary condition: the symbol that is meant passes all of them. So when one
//! candidate is left it is the right one, and when several are left the answer is an error, never a guess.

use std::collections::HashSet;

use super::{Binding, Entry, SymbolKind, SymbolTable, UNKNOWN_SIZE};
use crate::diff::refusal::Refusal;
use crate::module::ObjectName;

/// What is known about a symbol from the object file that defines it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Code or data, if it is defined in the file at hand.
    pub(crate) kind: Option<SymbolKind>,
    /// Size in bytes, if it is defined in the file at hand.
    pub(crate) size: Option<u64>,
    /// Whether the file defines it with local scope.
    pub(crate) local: Option<&'a Origin<'a>>,
    /// Its address, if matching against the shipped code has found it.
    pub(crate) address: Option<u64>,
}

/// The object file that a local symbol is part of.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// Its `STT_FILE` symbol.
    pub(crate) file: Option<&'a str>,
    /// Names of all symbols that it defines.
    pub(crate) names: HashSet<&'a str>,
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
            && let Some(unit) = wanted.local
        {
            self.keep_same_file(&all, &mut left, unit);
            if left.len() > 1 && *object == ObjectName::Vmlinux {
                self.keep_neighbours(&all, &mut left, unit);
            }
        }
        match left[..] {
            [] if all.is_empty() => Err(Refusal::SymbolNotFound { object: object.to_string() }),
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
        if wanted.kind.is_some_and(|kind| kind != entry.kind) {
            return false;
        }
        if let Some(address) = wanted.address {
            return entry.address == address;
        }
        let scope_differs = match entry.binding {
            Binding::Unknown => false,
            Binding::Local => wanted.local.is_none(),
            Binding::Global | Binding::Weak => wanted.local.is_some(),
        };
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

    fn keep_same_file(&self, all: &[usize], left: &mut Vec<usize>, unit: &Origin<'_>) {
        let Some(file) = unit.file.and_then(|name| self.file_index.get(name)) else { return };
        if left.iter().any(|&at| self.entries[all[at]].file == *file) {
            left.retain(|&at| self.entries[all[at]].file == *file);
        }
    }

    /// Keeps the candidate that stands among the other symbols of its file: the linker lays the symbols of
    /// one file and section side by side. Only a candidate with neighbours while all others have none
    /// counts.
    fn keep_neighbours(&self, all: &[usize], left: &mut Vec<usize>, unit: &Origin<'_>) {
        let with: Vec<usize> = left.iter().copied().filter(|&at| self.has_neighbour(all[at], unit)).collect();
        if with.len() == 1 {
            *left = with;
        }
    }

    fn has_neighbour(&self, index: usize, unit: &Origin<'_>) -> bool {
        let entry = &self.entries[index];
        let key = (entry.address, index as u32);
        let Ok(at) = self
            .by_address
            .binary_search_by_key(&key, |&other| (self.entries[other as usize].address, other))
        else {
            return false;
        };
        let name = self.name(index);
        let belongs = |other: u32| {
            let other_name = self.name(other as usize);
            other_name != name
                && unit.names.contains(other_name)
                && self.entries[other as usize].kind == entry.kind
                && self.named(&ObjectName::Vmlinux, other_name).len() == 1
        };
        let before = self.by_address[..at].iter().next_back();
        let after = self.by_address.get(at + 1);
        before.into_iter().chain(after).any(|&other| belongs(other))
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
