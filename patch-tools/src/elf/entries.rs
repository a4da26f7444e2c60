//! How large the entries of a table are whose layout differs between kernel versions.
//!
//! The kernel's tables of places in code have no header that tells. But they are full of addresses, which in a
//! relocatable file are relocations: of the sizes that occur, the one is right with which every entry begins
//! with an address and has the same fields as the first. Three entries of 8 bytes look like two of 12, unless it
//! counts what the fields lead to: so sizes with which corresponding fields lead to the same kind of place come first.

use super::Section;

/// A field of a table that a relocation fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Where it stands in the table.
    pub(crate) offset: u64,
    /// `R_X86_64_*`.
    pub(crate) kind: u32,
    /// What it is an address of.
    pub(crate) to: To,
}

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// Code where functions are.
    Function,
    /// Code that functions have elsewhere.
    OutOfLine,
    /// Data, or what another file has.
    Other,
}

impl To {
    /// `section` is where the address is, if it is in this file.
    pub(crate) fn of(section: Option<&Section<'_>>) -> Self {
        match section.filter(|section| section.is_executable()).map(|section| section.name) {
            None => Self::Other,
            Some(".fixup" | ".text..refcount" | ".altinstr_aux" | ".altinstr_replacement") => Self::OutOfLine,
            Some(_) => Self::Function,
        }
    }
}

/// The first of `sizes` that the entries of a table of `size` bytes can have. Fields come in order; with
/// `of_code` the first one of each entry is an address of code.
pub(crate) fn entry_size(fields: &[Field], size: u64, sizes: &[u64], of_code: bool) -> Option<u64> {
    let find = |alike| {
        sizes.iter().copied().find(|&entry_size| are_entries(fields, size, entry_size, of_code, alike))
    };
    find(Alike::InPlaces).or_else(|| find(Alike::InFields))
}

/// How much alike entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alike {
    /// They have fields of the same types.
    InFields,
    /// And these lead to the same kinds of places.
    InPlaces,
}

fn are_entries(fields: &[Field], size: u64, entry_size: u64, of_code: bool, alike: Alike) -> bool {
    let from = |offset: u64| fields.partition_point(|field| field.offset < offset);
    let entry = |start: u64| {
        let fields = &fields[from(start)..from(start + entry_size)];
        let to = move |field: &Field| (alike == Alike::InPlaces).then_some(field.to);
        fields.iter().map(move |field| (field.offset - start, field.kind, to(field)))
    };
    let begins = |start: u64| {
        let first = fields.get(from(start));
        first.is_some_and(|field| field.offset == start && (field.to != To::Other || !of_code))
    };
    // The last entry of `.parainstructions` may lack the padding behind it.
    let whole = size.is_multiple_of(entry_size) || (entry_size == 16 && size % entry_size >= 12);
    let mut starts = (0..size.div_ceil(entry_size)).map(|index| index * entry_size);
    whole && starts.all(|start| begins(start) && entry(start).eq(entry(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry's fields, of which each is its offset, its type, and what it leads to.
    fn table(entry: &[(u64, u32, To)], size: u64, count: u64) -> (Vec<Field>, u64) {
        let fields = (0..count).flat_map(|index| {
            entry.iter().map(move |&(offset, kind, to)| Field { offset: index * size + offset, kind, to })
        });
        (fields.collect(), size * count)
    }

    #[test]
    fn the_size_of_entries_shows_in_their_fields() {
        use To::{Function, Other, OutOfLine};
        const SIZES: [u64; 5] = [8, 12, 14, 16, 24];
        let found = |entry: &[(u64, u32, To)], size: u64, count| {
            let (fields, size) = table(entry, size, count);
            entry_size(&fields, size, &SIZES, true)
        };
        for count in [1, 2, 3, 7] {
            // `__jump_table`, before and since 4.19; `.altinstructions` of 6.12; `__bug_table` of 7.0.
            let addresses = [(0, 1, Function), (8, 1, Function), (16, 1, Other)];
            assert_eq!(found(&addresses, 24, count), Some(24), "{count}");
            let offsets = [(0, 2, Function), (4, 2, Function), (8, 1, Other)];
            assert_eq!(found(&offsets, 16, count), Some(16), "{count}");
            assert_eq!(found(&[(0, 2, Function), (4, 2, OutOfLine)], 14, count), Some(14), "{count}");
            let texts = [(0, 2, Function), (4, 2, Other), (8, 2, Other)];
            assert_eq!(found(&texts, 16, count), Some(16), "{count}");
        }
        assert_eq!(found(&[(1, 2, Function)], 16, 2), None);
    }

    #[test]
    fn entries_of_two_addresses_are_not_taken_for_those_of_three() {
        use To::{Function, OutOfLine};
        for count in 1..8 {
            let (mut fields, size) = table(&[(0, 2, Function), (4, 2, OutOfLine)], 8, count);
            assert_eq!(entry_size(&fields, size, &[12, 8], true), Some(8), "{count}");
            // One of the places may itself be out of line.
            fields[0].to = OutOfLine;
            if count % 3 != 0 {
                assert_eq!(entry_size(&fields, size, &[12, 8], true), Some(8), "{count}");
            }
        }
    }
}
