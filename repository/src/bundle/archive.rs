//! The file format of a bundle: an archive that `tar` unpacks, in the one form in which this program writes it.
//!
//! POSIX ustar (IEEE 1003.1, `pax`, "ustar Interchange Format"): regular files alone, names of at most 100 bytes, owner
//! and time 0, two blocks of zeros at the end and nothing after them. A header is read by writing the one that its name
//! and size have, and comparing all of it: so an archive has one spelling, and nothing in it can mean two things.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Headers and contents are in blocks of so many bytes.
pub const BLOCK: usize = 512;

/// The most members.
const MOST: usize = 16_384;

/// The largest member, in bytes: what fits into eleven octal digits.
const LARGEST: u64 = 0o77_777_777_777;

/// Why a file is not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It ends before its end.
    #[error("the bundle is cut short: expected {expected}, found the end at byte {at}")]
    Truncated {
        /// What should be there.
        expected: &'static str,
        /// Where it ends.
        at: u64,
    },
    /// There is more behind its end.
    #[error("the bundle has something behind its end: expected {expected} bytes, found {found}")]
    Trailing {
        /// Where it should end.
        expected: u64,
        /// Its size.
        found: u64,
    },
    /// A header is not one that this program writes.
    #[error("byte {at} of the bundle is not the header of a member as this program writes it")]
    Header {
        /// Where.
        at: u64,
    },
    /// A member's name is none that a bundle has.
    #[error("a bundle has no member {name:?}")]
    Name {
        /// The name.
        name: String,
    },
    /// There are two members of one name.
    #[error("the bundle has {name} twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A member is too large.
    #[error("{name} in the bundle is too large: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The name.
        name: String,
        /// The limit.
        limit: u64,
        /// Its size.
        found: u64,
    },
    /// Too many members.
    #[error("the bundle has too many members: expected at most {MOST}")]
    TooMany,
    /// What fills a block is not zeros.
    #[error("the bundle has something between its members, at byte {at}")]
    Padding {
        /// Where.
        at: u64,
    },
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its first byte.
    pub at: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// The header of a member.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// The name and the size in a header, if it is one that this program writes.
fn parse(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).ok()?;
    let size = std::str::from_utf8(&block[124..135]).ok()?;
    let size = u64::from_str_radix(size, 8).ok()?;
    (!name.is_empty() && header(name, size) == *block).then(|| (name.to_owned(), size))
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Whether a file begins as a bundle does.
pub fn begins(block: &[u8]) -> bool {
    block.first_chunk::<BLOCK>().and_then(parse).is_some_and(|(name, _)| name == super::HEAD)
}

/// Bytes at any place of a file.
pub(super) trait Bytes {
    fn size(&self) -> io::Result<u64>;
    fn fill_from(&self, into: &mut [u8], at: u64) -> io::Result<()>;
}

impl Bytes for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|facts| facts.len())
    }

    fn fill_from(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
}

impl Bytes for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn fill_from(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let from = at.checked_add(into.len()).and_then(|end| self.get(at..end));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Finds all members. `limit` says how large a member of a name may be; nothing if there is no such member.
pub(super) fn members(
    bytes: &dyn Bytes,
    limit: &dyn Fn(&str) -> Option<u64>,
) -> io::Result<Result<BTreeMap<String, Member>, ArchiveError>> {
    let end = bytes.size()?;
    let mut members = BTreeMap::new();
    let mut at = 0;
    let mut block = [0; BLOCK];
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    loop {
        if end - at < BLOCK as u64 {
            return Ok(Err(ArchiveError::Truncated { expected: "the header of a member", at: end }));
        }
        bytes.fill_from(&mut block, at)?;
        if is_zero(&block) {
            break;
        }
        let Some((name, size)) = parse(&block) else { return Ok(Err(ArchiveError::Header { at })) };
        let Some(most) = limit(&name) else { return Ok(Err(ArchiveError::Name { name })) };
        if size > most.min(LARGEST) {
            return Ok(Err(ArchiveError::TooLarge { name, limit: most, found: size }));
        }
        at += BLOCK as u64;
        let filled = padding(size);
        if end - at < size + filled {
            return Ok(Err(ArchiveError::Truncated { expected: "the bytes of a member", at: end }));
        }
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..filled as usize];
        bytes.fill_from(rest, at + size)?;
        if !is_zero(rest) {
            return Ok(Err(ArchiveError::Padding { at: at + size }));
        }
        if members.len() == MOST {
            return Ok(Err(ArchiveError::TooMany));
        }
        if members.insert(name.clone(), Member { at, size }).is_some() {
            return Ok(Err(ArchiveError::Twice { name }));
        }
        at += size + filled;
    }
    let expected = at + 2 * BLOCK as u64;
    if end < expected {
        return Ok(Err(ArchiveError::Truncated { expected: "two blocks of zeros at the end", at: end }));
    }
    bytes.fill_from(&mut block, at + BLOCK as u64)?;
    if !is_zero(&block) {
        return Ok(Err(ArchiveError::Header { at: at + BLOCK as u64 }));
    }
    if end > expected {
        return Ok(Err(ArchiveError::Trailing { expected, found: end }));
    }
    Ok(Ok(members))
}

/// Writes an archive.
pub(super) struct Writer<W> {
    into: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(into: W) -> Self {
        Self { into }
    }

    /// Writes a member.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.stream(name, bytes.len() as u64, &mut &bytes[..])
    }

    /// Writes a member of a known size.
    pub(super) fn stream(&mut self, name: &str, size: u64, bytes: &mut dyn Read) -> io::Result<()> {
        if name.len() > 100 || size > LARGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} does not fit into a bundle"),
            ));
        }
        self.into.write_all(&header(name, size))?;
        let copied = io::copy(&mut bytes.take(size), &mut self.into)?;
        if copied != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.into.write_all(&[0; BLOCK][..padding(size) as usize])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.into.write_all(&[0; 2 * BLOCK])?;
        Ok(self.into)
    }
}

/// The bytes of one member.
pub(super) struct Section {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) left: u64,
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read_at(&mut into[..most], self.at)?;
        if read == 0 && most > 0 {
            // It was whole when it was opened.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
