//! Strings and constants that the linker may merge: where one ends.
//!
//! A section of strings tells the width of their characters by its entry size: `L"boot"` has two bytes to
//! the character in the kernel, and ends with two zeros. A section whose entry size is none of those that C
//! has cannot be read, and none of its strings is found.

use std::ops::Range;

use object::elf::SHF_MERGE;

use super::sections::Class;
use super::unit::{AtomId, Unit};
use crate::elf::Section;

/// Bytes to the character of a section of strings, if it is one that C has.
pub(crate) fn character(section: &Section<'_>) -> Option<usize> {
    match section.entry_size {
        width @ (1 | 2 | 4) => Some(width as usize),
        // Text that is not for merging has no entry size: `__ksymtab_strings`.
        0 if section.flags & u64::from(SHF_MERGE) == 0 => Some(1),
        _ => None,
    }
}

/// The bytes of the string or constant that a place in mergeable contents is in: a string from that place
/// to the end of its terminator, a constant as a whole. Nothing if there is no such thing.
pub(crate) fn piece(unit: &Unit<'_>, atom: AtomId, offset: i64) -> Option<Range<usize>> {
    let bytes = unit.bytes(atom);
    let offset = usize::try_from(offset).ok()?;
    let section = unit.section(unit.atom(atom).section());
    if unit.class(section.index) == Class::Strings {
        let width = character(section)?;
        let tail = bytes.get(offset..)?;
        let length = match width {
            1 => memchr::memchr(0, tail)?,
            _ => width * tail.chunks_exact(width).position(|one| one.iter().all(|&byte| byte == 0))?,
        };
        return Some(offset..offset + length + width);
    }
    let size = usize::try_from(section.entry_size).ok()?;
    let start = offset - offset.checked_rem(size)?;
    let end = start.checked_add(size).filter(|&end| end <= bytes.len())?;
    Some(start..end)
}

/// A string for people, without its terminator.
pub(crate) fn text(unit: &Unit<'_>, atom: AtomId, offset: i64) -> String {
    let width = character(unit.section(unit.atom(atom).section())).unwrap_or(1);
    let bytes = piece(unit, atom, offset).and_then(|piece| unit.bytes(atom).get(piece)).unwrap_or_default();
    let bytes = &bytes[..bytes.len().saturating_sub(width)];
    if width == 1 {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
    let characters = bytes.chunks_exact(width).map(number);
    match width {
        2 => char::decode_utf16(characters.map(|one| one as u16))
            .map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
        _ => characters.map(|one| char::from_u32(one).unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
    }
}
