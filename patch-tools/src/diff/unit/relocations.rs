//! Relocations of one section, by offset.
//!
//! The assembler appends relocations of relaxed branches out of order, so a section whose table is not
//! sorted gets a permutation; all others are read in place, without a copy.

use std::ops::Range;

use object::LittleEndian as LE;
use object::elf::Rela64;
use object::pod;

use crate::elf::{Elf, Malformed, Section};

/// A relocation. Its offset lies in its section and its symbol exists: [`Elf::relocations`] has checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reloc {
    /// Offset in the section.
    pub(crate) offset: u64,
    /// `R_X86_64_*`.
    pub(crate) kind: u32,
    /// Index of the symbol.
    pub(crate) symbol: usize,
    /// What is added.
    pub(crate) addend: i64,
}

/// The relocations of one section.
#[derive(Debug, Default)]
pub(crate) struct Relocations<'d> {
    entries: &'d [Rela64<LE>],
    order: Option<Box<[u32]>>,
    /// Replaces `entries` where the reader had to add some.
    owned: Option<Vec<Reloc>>,
}

impl<'d> Relocations<'d> {
    /// Reads and checks the table `table`.
    pub(crate) fn read(elf: &Elf<'d>, table: &Section<'d>) -> Result<Self, Malformed> {
        let checked = elf.relocations(table)?;
        let order = (!checked.is_sorted_by_key(|relocation| relocation.offset)).then(|| {
            let mut order: Box<[u32]> = (0..checked.len() as u32).collect();
            order.sort_by_key(|&index| checked[index as usize].offset);
            order
        });
        let entries = pod::slice_from_all_bytes(table.data).unwrap_or_default();
        Ok(Self { entries, order, owned: None })
    }

    /// The same with `more` added.
    pub(crate) fn with(&self, more: Vec<Reloc>) -> Self {
        let mut owned: Vec<Reloc> = (0..self.len()).map(|index| self.get(index)).chain(more).collect();
        owned.sort_by_key(|reloc| reloc.offset);
        Self { entries: &[], order: None, owned: Some(owned) }
    }

    pub(crate) fn len(&self) -> usize {
        self.owned.as_ref().map_or(self.entries.len(), Vec::len)
    }

    /// The relocation at `index` in the order of offsets; `index` is less than [`Relocations::len`].
    pub(crate) fn get(&self, index: usize) -> Reloc {
        if let Some(owned) = &self.owned {
            return owned[index];
        }
        let index = self.order.as_ref().map_or(index, |order| order[index] as usize);
        let entry = &self.entries[index];
        Reloc {
            offset: entry.r_offset.get(LE),
            kind: entry.r_type(LE, false),
            symbol: entry.r_sym(LE, false) as usize,
            addend: entry.r_addend.get(LE),
        }
    }

    /// Those with an offset in the range.
    pub(crate) fn within(&self, offsets: Range<u64>) -> impl ExactSizeIterator<Item = Reloc> + '_ {
        let first = self.first_from(offsets.start);
        let last = self.first_from(offsets.end).max(first);
        (first..last).map(|index| self.get(index))
    }

    /// Index of the first relocation at or after `offset`.
    fn first_from(&self, offset: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).offset < offset { low = middle + 1 } else { high = middle }
        }
        low
    }
}
