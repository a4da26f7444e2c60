//! The GNU build id of an ELF file, read from an open descriptor.
//!
//! Only the header, the program headers and the notes are read, so the cost does not grow with the
//! file. Anything that is not ELF, or has no build id, has none; only a failing read is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use goblin::container::{Container, Ctx};
use goblin::elf::header::{EI_CLASS, ELFCLASS64, Header};
use goblin::elf::program_header::{PT_NOTE, ProgramHeader};
use manifests::BuildId;

/// An ELF header is 64 bytes at most.
const HEADER: usize = 64;

/// Real files have about a dozen program headers; the format's own limit (65535) would be 3.5 MB.
const MOST_HEADERS: usize = 512;

/// Notes are a few hundred bytes; a core file's would be more, and has no build id.
const MOST_NOTES: u64 = 1 << 16;

/// `NT_GNU_BUILD_ID`, owner `GNU` (`<elf.h>`).
const NT_GNU_BUILD_ID: u32 = 3;

/// Reads the build id of a file.
pub(crate) fn read(file: &File) -> io::Result<Option<BuildId>> {
    let mut header = [0; HEADER];
    if !read_whole(file, &mut header, 0)? || &header[..4] != b"\x7fELF" {
        return Ok(None);
    }
    let Ok(parsed) = goblin::elf::Elf::parse_header(&header) else { return Ok(None) };
    let Some(context) = context(&parsed) else { return Ok(None) };
    let count = usize::from(parsed.e_phnum);
    if count > MOST_HEADERS {
        return Ok(None);
    }
    let mut table = vec![0; count * usize::from(parsed.e_phentsize)];
    if !read_whole(file, &mut table, parsed.e_phoff)? {
        return Ok(None);
    }
    let Ok(segments) = ProgramHeader::parse(&table, 0, count, context) else { return Ok(None) };
    for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        if segment.p_filesz > MOST_NOTES {
            continue;
        }
        let mut notes = vec![0; segment.p_filesz as usize];
        if read_whole(file, &mut notes, segment.p_offset)?
            && let Some(found) = find(&notes, segment.p_align, context)
        {
            return Ok(BuildId::from_bytes(found));
        }
    }
    Ok(None)
}

fn context(header: &Header) -> Option<Ctx> {
    let endianness = header.endianness().ok()?;
    let container = if header.e_ident[EI_CLASS] == ELFCLASS64 { Container::Big } else { Container::Little };
    Some(Ctx::new(container, endianness))
}

/// Notes are name size, description size, type, name, description; the last two are padded.
fn find(notes: &[u8], alignment: u64, context: Ctx) -> Option<&[u8]> {
    let padded =
        |size: usize| if alignment == 8 { size.next_multiple_of(8) } else { size.next_multiple_of(4) };
    let word = |at: usize| {
        let bytes = notes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if context.is_little_endian() { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let mut at = 0_usize;
    while let (Some(name_size), Some(size), Some(kind)) = (word(at), word(at + 4), word(at + 8)) {
        let name_at = at + 12;
        let content_at = name_at.checked_add(padded(name_size as usize))?;
        let end = content_at.checked_add(size as usize)?;
        let name = notes.get(name_at..name_at + 4);
        if kind == NT_GNU_BUILD_ID && name_size == 4 && name == Some(b"GNU\0") {
            return notes.get(content_at..end);
        }
        at = content_at.checked_add(padded(size as usize))?;
    }
    None
}

/// Fills the buffer; `false` when the file ends before.
fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        // An offset beyond what the kernel takes.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A 64-bit ELF file with one note segment.
    fn elf(notes: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend(3_u16.to_le_bytes());
        bytes.extend(62_u16.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(64_u64.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 64, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(PT_NOTE.to_le_bytes());
        bytes.extend(4_u32.to_le_bytes());
        for word in [120_u64, 0, 0, notes.len() as u64, notes.len() as u64, 4] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(notes);
        bytes
    }

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for part in [name, content] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Option<BuildId> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(&file).unwrap()
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let id = [7; 20];
        let notes =
            [note(b"GNU\0", 1, &[0; 16]), note(b"stapsdt\0", 3, b"x"), note(b"GNU\0", 3, &id)].concat();
        assert_eq!(of(&elf(&notes)), BuildId::from_bytes(&id));
    }

    #[test]
    fn other_files_have_none() {
        assert_eq!(of(b""), None);
        assert_eq!(of(b"#!/bin/sh\n"), None);
        assert_eq!(of(&elf(&note(b"GNU\0", 1, &[0; 16]))), None);
    }

    #[test]
    fn damaged_files_never_panic() {
        let whole = elf(&note(b"GNU\0", 3, &[7; 20]));
        for length in 0..whole.len() {
            of(&whole[..length]);
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                of(&bytes);
            }
        }
    }

    #[test]
    fn a_real_program_has_one_that_tools_agree_on() {
        let program = File::open("/bin/sh").unwrap();
        assert!(read(&program).unwrap().is_some());
    }
}
