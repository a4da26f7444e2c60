//! The kernel's own symbol table, decoded from an image that has no symbols.
//!
//! Format: `scripts/kallsyms.c`. Names are sequences of tokens (one byte each, of 256), the first character of
//! the expanded name being the letter of `nm`. A name starts with its number of tokens: one byte, or two
//! from 128 tokens on (since 6.1). Markers give the position of every 256th name.
//!
//! The tables have no symbols of their own, so they are found by what they must look like: the token table
//! has the digits as tokens of themselves, the token index repeats its offsets, the markers before it rise
//! from zero, and the names fill the space between their count and the markers. Each part is verified
//! against the others, so that a wrong guess fails instead of giving wrong names.
//!
//! Order up to 6.3: offsets, base, count, names, markers, tokens, index; from 6.2 on (and in 6.1 as Debian
//! ships it) with sequence numbers between markers and tokens. From 6.4 on: count, names, markers, tokens,
//! index, offsets, base, sequence numbers.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use memchr::memmem;

use crate::elf::{Elf, Malformed, Rule, Section};

const TOKENS: usize = 256;
/// A marker stands for this many names.
const PER_MARKER: usize = 256;
/// The most bytes that the names of one marker can take: each two of length and 513 of tokens.
const MAX_GROUP: usize = PER_MARKER * 515;
/// A kernel has about 100,000.
const MAX_SYMBOLS: usize = 1 << 22;

/// All symbols of a kernel image, in the order in which the livepatch core counts them.
#[derive(Clone)]
pub struct Kallsyms {
    symbols: Vec<Entry>,
    names: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    name: u32,
    length: u16,
    letter: u8,
}

/// One symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KallsymsSymbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address as linked; per-CPU symbols have the offset in their section.
    pub address: u64,
    /// Bytes to the next symbol that has another address; `None` for the last.
    pub size: Option<u64>,
    /// The letter of `nm`.
    pub letter: u8,
}

impl Kallsyms {
    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// All symbols, by rising address.
    pub fn iter(&self) -> impl Iterator<Item = KallsymsSymbol<'_>> {
        (0..self.symbols.len()).map(|index| self.symbol(index))
    }

    /// The symbols of that name, in the order that `sympos` counts.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = KallsymsSymbol<'a>> {
        let matching = move |entry: &Entry| self.name(entry) == name;
        let indexes = self.symbols.iter().enumerate().filter(move |(_, entry)| matching(entry));
        indexes.map(|(index, _)| self.symbol(index))
    }

    /// Every symbol whose name is wanted, found in one pass.
    pub fn select<'a>(&'a self, wanted: &HashSet<&str>) -> Vec<KallsymsSymbol<'a>> {
        let lengths: HashSet<u16> = wanted.iter().filter_map(|name| u16::try_from(name.len()).ok()).collect();
        let matching = |entry: &Entry| lengths.contains(&entry.length) && wanted.contains(self.name(entry));
        let indexes = self.symbols.iter().enumerate().filter(|(_, entry)| matching(entry));
        indexes.map(|(index, _)| self.symbol(index)).collect()
    }

    fn name(&self, entry: &Entry) -> &str {
        let start = entry.name as usize;
        self.names.get(start..start + usize::from(entry.length)).unwrap_or_default()
    }

    fn symbol(&self, index: usize) -> KallsymsSymbol<'_> {
        let entry = &self.symbols[index];
        let next = self.symbols[index + 1..].iter().find(|next| next.address > entry.address);
        KallsymsSymbol {
            name: self.name(entry),
            address: entry.address,
            size: next.map(|next| next.address - entry.address),
            letter: entry.letter,
        }
    }
}

impl fmt::Debug for Kallsyms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kallsyms").field("symbols", &self.symbols.len()).finish_non_exhaustive()
    }
}

/// Finds and decodes the table.
pub(super) fn read(elf: &Elf<'_>) -> Result<Kallsyms, Malformed> {
    let section = elf
        .section(".rodata")
        .ok_or_else(|| Malformed::new(0, Rule::KallsymsTokens, "no section .rodata".to_owned()))?;
    let tokens = tokens(section)?;
    let names = names(section, tokens.start)?;
    let addresses = addresses(section, &names, tokens.end)?;
    decode(section, &tokens, &names, &addresses)
}

/// The token table.
struct Tokens<'data> {
    text: Vec<&'data [u8]>,
    /// Where the table starts and where its index ends.
    start: usize,
    end: usize,
}

fn tokens<'data>(section: &Section<'data>) -> Result<Tokens<'data>, Malformed> {
    const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
    let data = section.data;
    memmem::find_iter(data, DIGITS).find_map(|digits| tokens_around(data, digits)).ok_or_else(|| {
        let found = format!("no such table in {} of {:#x} bytes", section.name, data.len());
        Malformed::new(section.offset, Rule::KallsymsTokens, found)
    })
}

/// The table that has the token "0" at `digits`, if there is one.
fn tokens_around(data: &[u8], digits: usize) -> Option<Tokens<'_>> {
    let zero = usize::from(b'0');
    let mut position = digits;
    for _ in zero..TOKENS {
        position += memchr::memchr(0, data.get(position..)?)? + 1;
    }
    // The index is aligned to 8 bytes in memory, and the section more than that.
    let index_start = position.next_multiple_of(8);
    let end = index_start + TOKENS * 2;
    let index = data.get(index_start..end)?;
    let offset = |token: usize| usize::from(u16::from_le_bytes([index[token * 2], index[token * 2 + 1]]));
    let start = digits.checked_sub(offset(zero))?;
    let mut text = Vec::with_capacity(TOKENS);
    let mut position = start;
    for token in 0..TOKENS {
        if position - start != offset(token) {
            return None;
        }
        let length = memchr::memchr(0, &data[position..])?;
        text.push(&data[position..position + length]);
        position += length + 1;
    }
    Some(Tokens { text, start, end })
}

/// Where the names are.
struct Names {
    count: usize,
    start: usize,
    markers: Vec<usize>,
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
    // The count stands 8 bytes before the names, which end within 8 bytes before the markers.
    let latest = markers_start.checked_sub(last)? & !7;
    let earliest = latest.saturating_sub(MAX_GROUP).max(8);
    let mut start = latest;
    while start >= earliest {
        let count = word(data, start - 8)?;
        if counts.contains(&count)
            && word(data, start - 4)? == 0
            && (full + 1..=full + PER_MARKER).contains(&count)
            && group_end(data, start + last, count - full)
                .is_some_and(|end| end <= markers_start && markers_start - end < 8)
        {
            return Some(Names { count, start, markers });
        }
        start -= 8;
    }
    None
}

/// Where `count` names from `position` on end.
fn group_end(data: &[u8], mut position: usize, count: usize) -> Option<usize> {
    for _ in 0..count {
        let (length, header) = name_length(data, position)?;
        position = position.checked_add(length + header)?;
    }
    Some(position)
}

/// Number of tokens of the name at `position`, and in how many bytes it is written.
fn name_length(data: &[u8], position: usize) -> Option<(usize, usize)> {
    let first = usize::from(*data.get(position)?);
    if first < 0x80 {
        return Some((first, 1));
    }
    Some((first & 0x7f | usize::from(*data.get(position + 1)?) << 7, 2))
}

/// The address of every symbol.
///
/// With `CONFIG_KALLSYMS_ABSOLUTE_PERCPU` a value that is not negative is itself the address (of per-CPU data),
/// and any other is counted down from one below the base. Without, values are unsigned distances from
/// the base; those do not reach the sign bit, so that one negative value tells which rule holds.
fn addresses(section: &Section<'_>, names: &Names, index_end: usize) -> Result<Vec<u64>, Malformed> {
    let data = section.data;
    let size = names.count * 4;
    // Before the count: offsets, padding to 8, base. Or behind the token index: offsets, padding, base.
    let count_at = names.start - 8;
    let before = count_at.checked_sub(8).and_then(|base| {
        let start = base.checked_sub(size.next_multiple_of(8))?;
        Some((start, base))
    });
    let behind_start = index_end.next_multiple_of(8);
    let behind = Some((behind_start, behind_start + size.next_multiple_of(8)));
    for (start, base_at) in [before, behind].into_iter().flatten() {
        let base = data.get(base_at..base_at + 8).and_then(|bytes| bytes.try_into().ok());
        let Some(base) = base.map(u64::from_le_bytes) else { continue };
        let Some(values) = data.get(start..start + size) else { continue };
        // Addresses of the kernel: the upper 2 GiB.
        if base < 0xffff_ffff_8000_0000 {
            continue;
        }
        let values: Vec<i32> =
            values.as_chunks::<4>().0.iter().map(|value| i32::from_le_bytes(*value)).collect();
        let per_cpu_rule = values.iter().any(|value| *value < 0);
        let addresses: Vec<u64> = values
            .iter()
            .map(|value| match (per_cpu_rule, *value) {
                (true, value @ 0..) => value as u64,
                (true, value) => base.wrapping_sub(1).wrapping_add_signed(-i64::from(value)),
                (false, value) => base.wrapping_add(value as u32 as u64),
            })
            .collect();
        if addresses.is_sorted() {
            return Ok(addresses);
        }
    }
    let offset = section.offset + count_at as u64;
    Err(Malformed::new(offset, Rule::KallsymsOffsets, format!("none for {} names", names.count)))
}

fn decode(
    section: &Section<'_>,
    tokens: &Tokens<'_>,
    names: &Names,
    addresses: &[u64],
) -> Result<Kallsyms, Malformed> {
    let data = section.data;
    let mut text = Vec::with_capacity(names.count * 24);
    let mut symbols = Vec::with_capacity(names.count);
    let mut position = names.start;
    for (index, address) in addresses.iter().enumerate() {
        let broken =
            |found: String| Malformed::new(section.offset + position as u64, Rule::KallsymsNames, found);
        if index % PER_MARKER == 0 && names.markers.get(index / PER_MARKER) != Some(&(position - names.start))
        {
            return Err(broken(format!("name {index} away from its marker")));
        }
        let (length, header) = name_length(data, position).ok_or_else(|| broken("the end".to_owned()))?;
        let first = position + header;
        let sequence = data.get(first..first + length).ok_or_else(|| broken("the end".to_owned()))?;
        let start = text.len();
        for token in sequence {
            text.extend_from_slice(tokens.text[usize::from(*token)]);
        }
        let [letter, name @ ..] = &text[start..] else {
            return Err(broken(format!("name {index} empty")));
        };
        let entry = Entry {
            address: *address,
            name: start as u32 + 1,
            length: u16::try_from(name.len()).map_err(|_| broken(format!("{} bytes", name.len())))?,
            letter: *letter,
        };
        // Names are found by offsets of 32 bits.
        u32::try_from(text.len()).map_err(|_| broken("more than 4 GiB of names".to_owned()))?;
        symbols.push(entry);
        position = first + length;
    }
    let names = String::from_utf8(text).map_err(|error| {
        Malformed::new(section.offset, Rule::KallsymsNames, error.utf8_error().to_string())
    })?;
    Ok(Kallsyms { symbols, names })
}
