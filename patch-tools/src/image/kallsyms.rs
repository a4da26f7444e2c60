//! The kernel's own symbol table, decoded.
//!
//! Format: `scripts/kallsyms.c`. Names are sequences of tokens (one byte each, of 256), the first character of
//! the expanded name being the letter of `nm`. A name starts with its number of tokens: one byte, or two
//! from 128 tokens on (since 6.1). Markers behind the names, aligned to 8 bytes (4 in 7.1 and later), repeat the
//! position of every 256th name. Where the tables are is for [`super::locate`] to find in an image, and
//! written in the vmcoreinfo of a running kernel.

use std::collections::HashSet;
use std::fmt;

use crate::elf::{Malformed, Rule};

pub(super) const TOKENS: usize = 256;
/// A marker stands for this many names.
pub(super) const PER_MARKER: usize = 256;
/// Of the tables in memory: 8 bytes, and 4 where offsets count from their own places.
pub(super) const ALIGNMENTS: [usize; 2] = [8, 4];
/// A kernel has about 100,000.
pub(super) const MAX_SYMBOLS: usize = 1 << 22;

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

/// The tables, found but not decoded.
pub(crate) struct Tables<'data> {
    /// How many symbols there are.
    pub(crate) count: usize,
    /// The names, from an address that is a multiple of 8, with the markers behind them.
    pub(crate) names: &'data [u8],
    /// The token table.
    pub(crate) tokens: &'data [u8],
    /// The token index: 256 offsets of 16 bits.
    pub(crate) index: &'data [u8],
    /// 32 bits for each symbol.
    pub(crate) offsets: &'data [u8],
    /// What the offsets count from.
    pub(crate) origin: Origin,
    /// Where the names stand in the file, for error messages.
    pub(crate) file_offset: u64,
}

/// What offsets of symbols count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// All from one address (`kallsyms_relative_base`, up to 7.0).
    Base(u64),
    /// Each from where it stands itself, the first at this address (7.1 and later).
    Place(u64),
}

impl Kallsyms {
    /// Decodes tables; they must agree with each other.
    pub(crate) fn decode(tables: &Tables<'_>) -> Result<Self, Malformed> {
        let tokens = split_tokens(tables.tokens, tables.index).ok_or_else(|| {
            let found = "tokens that differ from their index".to_owned();
            Malformed::new(tables.file_offset, Rule::KallsymsTokens, found)
        })?;
        let addresses = addresses(tables.offsets, tables.count, tables.origin).ok_or_else(|| {
            let found = format!("{} bytes of offsets from {:x?}", tables.offsets.len(), tables.origin);
            Malformed::new(tables.file_offset, Rule::KallsymsOffsets, found)
        })?;
        let mut names = Vec::with_capacity(tables.count.min(MAX_SYMBOLS) * 24);
        let mut symbols = Vec::with_capacity(addresses.len());
        let mut markers = Vec::new();
        let mut position = 0;
        for (index, address) in addresses.into_iter().enumerate() {
            let broken = |found: &str| {
                let offset = tables.file_offset + position as u64;
                Malformed::new(offset, Rule::KallsymsNames, format!("{found} at name {index}"))
            };
            if index % PER_MARKER == 0 {
                markers.extend((position as u32).to_le_bytes());
            }
            let (length, header) = name_length(tables.names, position).ok_or_else(|| broken("the end"))?;
            let first = position + header;
            let sequence = tables.names.get(first..first + length).ok_or_else(|| broken("the end"))?;
            let start = names.len();
            for token in sequence {
                names.extend_from_slice(tokens[usize::from(*token)]);
            }
            let [letter, name @ ..] = &names[start..] else { return Err(broken("nothing")) };
            symbols.push(Entry {
                address,
                // Names are found by offsets of 32 bits.
                name: u32::try_from(start + 1).map_err(|_| broken("4 GiB of names"))?,
                length: u16::try_from(name.len()).map_err(|_| broken("a huge name"))?,
                letter: *letter,
            });
            position = first + length;
        }
        let behind = |align| tables.names.get(position.next_multiple_of(align)..).unwrap_or_default();
        if !ALIGNMENTS.into_iter().any(|align| behind(align).starts_with(&markers)) {
            let offset = tables.file_offset + position as u64;
            let found = "names that end elsewhere than their markers start, or differ from them";
            return Err(Malformed::new(offset, Rule::KallsymsNames, found));
        }
        let names = String::from_utf8(names).map_err(|error| {
            Malformed::new(tables.file_offset, Rule::KallsymsNames, error.utf8_error().to_string())
        })?;
        Ok(Self { symbols, names })
    }
}

/// The tokens, if the table has them where its index says.
pub(crate) fn split_tokens<'data>(table: &'data [u8], index: &[u8]) -> Option<Vec<&'data [u8]>> {
    let (offsets, _) = index.as_chunks::<2>();
    let mut tokens = Vec::with_capacity(TOKENS);
    let mut position = 0;
    for offset in offsets.get(..TOKENS)? {
        if position != usize::from(u16::from_le_bytes(*offset)) {
            return None;
        }
        let length = memchr::memchr(0, table.get(position..)?)?;
        tokens.push(&table[position..position + length]);
        position += length + 1;
    }
    Some(tokens)
}

/// Number of tokens of the name at `position`, and in how many bytes it is written.
pub(super) fn name_length(names: &[u8], position: usize) -> Option<(usize, usize)> {
    let first = usize::from(*names.get(position)?);
    if first < 0x80 {
        return Some((first, 1));
    }
    Some((first & 0x7f | usize::from(*names.get(position + 1)?) << 7, 2))
}

/// The address of every symbol, if the offsets give rising ones.
///
/// With `CONFIG_KALLSYMS_ABSOLUTE_PERCPU` a value that is not negative is itself the address (of per-CPU data),
/// and any other is counted down from one below the base. Without, values are unsigned distances from
/// the base; those do not reach the sign bit, so that one negative value tells which rule holds.
///
/// Offsets from their own places are signed distances.
pub(super) fn addresses(offsets: &[u8], count: usize, origin: Origin) -> Option<Vec<u64>> {
    // Addresses of the kernel: the upper 2 GiB.
    let (Origin::Base(base) | Origin::Place(base)) = origin;
    if base < 0xffff_ffff_8000_0000 || count > MAX_SYMBOLS {
        return None;
    }
    let values = offsets.get(..count * 4)?.as_chunks::<4>().0;
    let values = values.iter().map(|value| i32::from_le_bytes(*value));
    if let Origin::Place(first) = origin {
        let places = (0..).map(|index| first.wrapping_add(4 * index));
        let addresses = places.zip(values).map(|(place, value)| place.wrapping_add_signed(value.into()));
        let addresses: Vec<u64> = addresses.collect();
        return addresses.is_sorted().then_some(addresses);
    }
    let per_cpu_rule = values.clone().any(|value| value < 0);
    let address = |value: i32| match (per_cpu_rule, value) {
        (true, value @ 0..) => u64::from(value.unsigned_abs()),
        (true, value) => base.wrapping_sub(1).wrapping_add_signed(-i64::from(value)),
        (false, value) => base.wrapping_add(u64::from(value.unsigned_abs())),
    };
    let addresses: Vec<u64> = values.map(address).collect();
    addresses.is_sorted().then_some(addresses)
}
