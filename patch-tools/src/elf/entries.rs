//! How large the entries of a table are whose layout differs between kernel versions.
//!
//! The kernel's tables of places in code have no header that tells. But they are full of addresses, which in a
//! relocatable file are relocations: of the sizes that occur, the one is right with which every entry begins
//! with an address and has the same fields as the first.

/// A field of a table that a relocation fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Where it stands in the table.
    pub(crate) offset: u64,
    /// `R_X86_64_*`.
    pub(crate) kind: u32,
    /// Whether it is an address of code.
    pub(crate) to_code: bool,
}

/// The first of `sizes` that the entries of a table of `size` bytes can have. Fields come in order; with
/// `of_code` the first one of each entry is an address of code.
pub(crate) fn entry_size(fields: &[Field], size: u64, sizes: &[u64], of_code: bool) -> Option<u64> {
    sizes.iter().copied().find(|&entry_size| are_entries(fields, size, entry_size, of_code))
}

fn are_entries(fields: &[Field], size: u64, entry_size: u64, of_code: bool) -> bool {
    let from = |offset: u64| fields.partition_point(|field| field.offset < offset);
    let entry = |start: u64| {
        let fields = &fields[from(start)..from(start + entry_size)];
        fields.iter().map(move |field| (field.offset - start, field.kind))
    };
    let begins = |start: u64| {
        let first = fields.get(from(start));
        first.is_some_and(|field| field.offset == start && (field.to_code || !of_code))
    };
    // The last entry of `.parainstructions` may lack the padding behind it.
    let whole = size.is_multiple_of(entry_size) || (entry_size == 16 && size % entry_size >= 12);
    let mut starts = (0..size.div_ceil(entry_size)).map(|index| index * entry_size);
    whole && starts.all(|start| begins(start) && entry(start).eq(entry(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entry: &[(u64, u32, bool)], size: u64, count: u64) -> (Vec<Field>, u64) {
        let fields = (0..count).flat_map(|index| {
            entry.iter().map(move |&(offset, kind, to_code)| Field {
                offset: index * size + offset,
                kind,
                to_code,
            })
        });
        (fields.collect(), size * count)
    }

    #[test]
    fn the_size_of_entries_shows_in_their_fields() {
        const SIZES: [u64; 5] = [8, 12, 14, 16, 24];
        let found = |entry: &[(u64, u32, bool)], size: u64, count| {
            let (fields, size) = table(entry, size, count);
            entry_size(&fields, size, &SIZES, true)
        };
        for count in [1, 2, 3, 7] {
            // `__jump_table`, before and since 4.19; `.altinstructions` of 6.12; `__bug_table` of 7.0.
            assert_eq!(found(&[(0, 1, true), (8, 1, true), (16, 1, false)], 24, count), Some(24), "{count}");
            assert_eq!(found(&[(0, 2, true), (4, 2, true), (8, 1, false)], 16, count), Some(16), "{count}");
            assert_eq!(found(&[(0, 2, true), (4, 2, true)], 14, count), Some(14), "{count}");
            assert_eq!(found(&[(0, 2, true), (4, 2, false), (8, 2, false)], 16, count), Some(16), "{count}");
        }
        assert_eq!(found(&[(1, 2, true)], 16, 2), None);
    }
}
