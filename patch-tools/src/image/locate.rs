//! Finds the kallsyms tables in an image that has no symbols for them.
//!
//! They are found by what they must look like: the token table has the digits as tokens of themselves, the
//! token index repeats its offsets, the markers before it rise from zero (one for every 256th name), and the
//! names fill the space between their count and the markers. Each part is verified against the others, so
//! that a wrong guess fails instead of giving wrong names.
//!
//! Order up to 6.3: offsets, base, count, names, markers, tokens, index; from 6.2 on (and in 6.1 as Debian
//! ships it) with sequence numbers between markers and tokens. From 6.4 on: count, names, markers, tokens,
//! index, offsets, base, sequence numbers; in 7.1 and later without a base, and everything aligned to 4 bytes instead of 8.

use std::ops::{Range, RangeInclusive};

use memchr::memmem;

use super::kallsyms::{
    self, ALIGNMENTS, Kallsyms, MAX_SYMBOLS, Origin, PER_MARKER, TOKENS, Tables, name_length, split_tokens,
};
use crate::elf::{Elf, Malformed, Rule, Section};

/// The most bytes that the names of one marker can take: each two of length and 513 of tokens.
const MAX_GROUP: usize = PER_MARKER * 515;

/// Finds and decodes the table.
pub(super) fn kallsyms(elf: &Elf<'_>) -> Result<Kallsyms, Malformed> {
    let section = elf
        .section(".rodata")
        .ok_or_else(|| Malformed::new(0, Rule::KallsymsTokens, "no section .rodata".to_owned()))?;
    let data = section.data;
    let (tokens, index) = tokens(section)?;
    let names = names(section, tokens.start)?;
    let (offsets, origin) = offsets(section, &names, index.end)?;
    Kallsyms::decode(&Tables {
        count: names.count,
        names: &data[names.start..tokens.start],
        tokens: &data[tokens],
        index: &data[index],
        offsets: &data[offsets],
        origin,
        file_offset: section.offset + names.start as u64,
    })
}

/// The token table and its index.
fn tokens(section: &Section<'_>) -> Result<(Range<usize>, Range<usize>), Malformed> {
    const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
    let data = section.data;
    memmem::find_iter(data, DIGITS).find_map(|digits| tokens_around(data, digits)).ok_or_else(|| {
        let found = format!("no such table in {} of {:#x} bytes", section.name, data.len());
        Malformed::new(section.offset, Rule::KallsymsTokens, found)
    })
}

/// The table that has the token "0" at `digits`, if there is one.
fn tokens_around(data: &[u8], digits: usize) -> Option<(Range<usize>, Range<usize>)> {
    let zero = usize::from(b'0');
    let mut end = digits;
    for _ in zero..TOKENS {
        end += memchr::memchr(0, data.get(end..)?)? + 1;
    }
    // The index is aligned in memory, and the section more than that.
    ALIGNMENTS.into_iter().find_map(|align| {
        let index = end.next_multiple_of(align)..end.next_multiple_of(align) + TOKENS * 2;
        let entries = data.get(index.clone())?;
        let offset = u16::from_le_bytes([entries[zero * 2], entries[zero * 2 + 1]]);
        let start = digits.checked_sub(usize::from(offset))?;
        split_tokens(data.get(start..end)?, entries).map(|_| (start..end, index))
    })
}

/// Where the names are.
struct Names {
    count: usize,
    start: usize,
    /// Of the tables in memory.
    align: usize,
}

/// Finds markers and names before the token table.
///
/// The markers end at the token table, or at the table of sequence numbers (3 bytes for each name) that
/// stands between them in 6.2, 6.3 and the stable releases that took it over.
fn names(section: &Section<'_>, tokens: usize) -> Result<Names, Malformed> {
    let data = section.data;
    if let Some(names) = names_before(data, tokens, 1..=MAX_SYMBOLS) {
        return Ok(names);
    }
    let sequence_starts = (0..=tokens & !7).rev().step_by(8).take(MAX_SYMBOLS * 3 / 8);
    for start in sequence_starts {
        // The table ends within 8 bytes before the tokens.
        let counts = (tokens - start).saturating_sub(7) / 3..=(tokens - start) / 3;
        if let Some(names) = names_before(data, start, counts) {
            return Ok(names);
        }
    }
    let found = "no names whose count and markers agree".to_owned();
    Err(Malformed::new(section.offset + tokens as u64, Rule::KallsymsNames, found))
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

/// The names whose markers end at `end` and whose count is one of `counts`.
fn names_before(data: &[u8], end: usize, counts: RangeInclusive<usize>) -> Option<Names> {
    // Backwards: at most one zero of padding, then markers falling to the first, which is zero.
    let mut position = end.checked_sub(4)?;
    if word(data, position)? == 0 {
        position = position.checked_sub(4)?;
    }
    let mut markers = vec![word(data, position)?];
    let most = counts.end().div_ceil(PER_MARKER);
    while markers.last() != Some(&0) {
        position = position.checked_sub(4)?;
        let marker = word(data, position)?;
        // Each name takes at least two bytes, and at most two of length and 513 of tokens.
        let rise = markers.last()?.checked_sub(marker)?;
        if !(PER_MARKER * 2..=MAX_GROUP).contains(&rise) || markers.len() >= most {
            return None;
        }
        markers.push(marker);
    }
    markers.reverse();
    let (markers_start, last) = (position, *markers.last()?);
    let full = (markers.len() - 1) * PER_MARKER;
    ALIGNMENTS.into_iter().find_map(|align| {
        // The count, padded, stands before the names, which end so close before the markers.
        let latest = markers_start.checked_sub(last)? & !(align - 1);
        let earliest = latest.saturating_sub(MAX_GROUP).max(align);
        (earliest..=latest).rev().step_by(align).find_map(|start| {
            let count = word(data, start - align)?;
            let fits = counts.contains(&count)
                && (align == 4 || word(data, start - 4)? == 0)
                && (full + 1..=full + PER_MARKER).contains(&count)
                && group_end(data, start + last, count - full)
                    .is_some_and(|end| end <= markers_start && markers_start - end < align);
            fits.then_some(Names { count, start, align })
        })
    })
}

/// Where `count` names from `position` on end.
fn group_end(data: &[u8], mut position: usize, count: usize) -> Option<usize> {
    for _ in 0..count {
        let (length, header) = name_length(data, position)?;
        position = position.checked_add(length + header)?;
    }
    Some(position)
}

/// The offsets and what they count from: before the count, or behind the token index.
fn offsets(
    section: &Section<'_>,
    names: &Names,
    index_end: usize,
) -> Result<(Range<usize>, Origin), Malformed> {
    let size = names.count * 4;
    let count_at = names.start - names.align;
    let (padded, behind) = (size.next_multiple_of(8), index_end.next_multiple_of(names.align));
    let base_at = |at: usize| {
        let bytes = section.data.get(at..at + 8)?.try_into().ok()?;
        Some(Origin::Base(u64::from_le_bytes(bytes)))
    };
    let before = count_at.checked_sub(8).and_then(|base| Some((base.checked_sub(padded)?, base_at(base)?)));
    let choices = match names.align {
        4 => [Some((behind, Origin::Place(section.address + behind as u64))), None],
        _ => [before, base_at(behind + padded).map(|base| (behind, base))],
    };
    for (start, origin) in choices.into_iter().flatten() {
        let Some(values) = section.data.get(start..start + size) else { continue };
        if kallsyms::addresses(values, names.count, origin).is_some() {
            return Ok((start..start + size, origin));
        }
    }
    let offset = section.offset + count_at as u64;
    Err(Malformed::new(offset, Rule::KallsymsOffsets, format!("none for {} names", names.count)))
}
