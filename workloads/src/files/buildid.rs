//! The build id of an ELF file, GNU's and Go's, read from an open descriptor.
//!
//! Only the header, the program headers and the notes are read, so the cost does not grow with the
//! file. Anything that is not ELF, or has no build id, has none; only a failing read is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use goblin::container::{Container, Ctx};
use goblin::elf::header::{EI_CLASS, ELFCLASS64, Header};
use goblin::elf::program_header::{PT_INTERP, PT_NOTE, ProgramHeader};
use manifests::BuildId;

use crate::model::{Build, GoBuildId};

/// An ELF header is 64 bytes at most.
const HEADER: usize = 64;

/// Real files have about a dozen program headers; the format's own limit (65535) would be 3.5 MB.
const MOST_HEADERS: usize = 512;

/// Notes are a few hundred bytes; a core file's would be more, and has no build id.
const MOST_NOTES: u64 = 1 << 16;

/// `NT_GNU_BUILD_ID`, owner `GNU` (`<elf.h>`).
const NT_GNU_BUILD_ID: u32 = 3;

/// `Go`'s own, owner `Go` (`cmd/internal/buildid/note.go`).
const NT_GO_BUILD_ID: u32 = 4;

/// What an ELF file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    /// The GNU build id.
    pub(crate) gnu: Option<BuildId>,
    /// Go's.
    pub(crate) go: Option<GoBuildId>,
    /// Whether it asks for a loader, which brings the libraries that it wants.
    pub(crate) loader: Loader,
}

/// Whether an ELF file asks for a loader (`PT_INTERP`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loader {
    Asked,
    None,
}

impl Elf {
    /// Reads what a file says; nothing of one that is no ELF file.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        let Some((segments, context)) = segments(file)? else { return Ok(None) };
        let mut elf = Self { gnu: None, go: None, loader: Loader::None };
        for segment in &segments {
            match segment.p_type {
                PT_INTERP => elf.loader = Loader::Asked,
                PT_NOTE => {
                    let Some(notes) = notes(file, segment)? else { continue };
                    let find = |owner: &[u8; 4], kind| find(&notes, segment.p_align, context, owner, kind);
                    let gnu = find(b"GNU\0", NT_GNU_BUILD_ID).and_then(BuildId::from_bytes);
                    let go = find(b"Go\0\0", NT_GO_BUILD_ID).and_then(GoBuildId::from_bytes);
                    elf.gnu = elf.gnu.or(gnu);
                    elf.go = elf.go.or(go);
                }
                _ => {}
            }
        }
        Ok(Some(elf))
    }

    /// Which build it is.
    pub(crate) fn build(&self) -> Option<Build> {
        let gnu = self.gnu.clone().map(Build::Gnu);
        gnu.or_else(|| self.go.clone().map(Build::Go))
    }
}

/// Reads the GNU build id of a file.
pub(crate) fn read(file: &File) -> io::Result<Option<BuildId>> {
    Ok(Elf::read(file)?.and_then(|elf| elf.gnu))
}

/// The program headers; none of a file that is no ELF file, or damaged.
fn segments(file: &File) -> io::Result<Option<(Vec<ProgramHeader>, Ctx)>> {
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
    Ok(ProgramHeader::parse(&table, 0, count, context).ok().map(|segments| (segments, context)))
}

fn notes(file: &File, segment: &ProgramHeader) -> io::Result<Option<Vec<u8>>> {
    if segment.p_filesz > MOST_NOTES {
        return Ok(None);
    }
    let mut notes = vec![0; segment.p_filesz as usize];
    Ok(read_whole(file, &mut notes, segment.p_offset)?.then_some(notes))
}

fn context(header: &Header) -> Option<Ctx> {
    let endianness = header.endianness().ok()?;
    let container = if header.e_ident[EI_CLASS] == ELFCLASS64 { Container::Big } else { Container::Little };
    Some(Ctx::new(container, endianness))
}

/// Notes are name size, description size, type, name, description; the last two are padded.
fn find<'a>(notes: &'a [u8], alignment: u64, context: Ctx, owner: &[u8; 4], wanted: u32) -> Option<&'a [u8]> {
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
        if kind == wanted && name_size == 4 && name == Some(owner) {
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
    fn go_has_one_of_its_own() {
        let whole = |notes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&elf(notes)).unwrap();
            Elf::read(&file).unwrap().unwrap()
        };
        let go = note(b"Go\0\0", 4, b"action/main/package/content");
        let only = whole(&go);
        assert_eq!(only.build().unwrap().to_string(), "go:action/main/package/content");
        assert_eq!((only.gnu, only.loader), (None, Loader::None));
        let both = whole(&[go, note(b"GNU\0", 3, &[7; 20])].concat());
        assert_eq!(both.build(), BuildId::from_bytes(&[7; 20]).map(Build::Gnu));
        assert!(both.go.is_some());
    }

    #[test]
    fn a_program_that_asks_for_a_loader_is_told_from_one_that_does_not() {
        let loader = |path: &str| Elf::read(&File::open(path).unwrap()).unwrap().unwrap().loader;
        assert_eq!(loader("/bin/sh"), Loader::Asked);
        assert_eq!(loader("/lib64/ld-linux-x86-64.so.2"), Loader::None);
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
