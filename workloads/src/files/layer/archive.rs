//! Entries of a layer: headers, the extensions before them, the content after them.
//!
//! Invariant: an [`Entry`] has one of four kinds, one name, and attributes that Linux can have. After the
//! last one, [`Archive::next_entry`] has seen the end marker and nothing but zeros behind it.
//! It does not judge names; [`super::path`] does.

use std::io;

use crate::files::layer::Limits;
use crate::files::layer::error::{Bound, EntryName, Fault, FileKind, LayerError, Rule};
use crate::files::layer::header::Header;
use crate::files::layer::pax;
use crate::files::layer::pax::{Moment, Pax, PaxError};
use crate::files::layer::source::{BLOCK, Source};

/// An archive that is read once, from front to back.
pub(super) struct Archive {
    source: Source,
    limits: Limits,
    headers: u64,
    /// Content of the current entry that was not read yet.
    unread: u64,
    /// Bytes after that content, up to a whole block.
    padding: usize,
}

/// One entry.
pub(super) struct Entry {
    /// Its name, unchecked.
    pub(super) name: EntryName,
    /// Where its (last) header begins.
    pub(super) offset: u64,
    /// What it is.
    pub(super) kind: Kind,
    /// Its attributes.
    pub(super) attributes: Attributes,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file; its content is next in the archive.
    File {
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads, unchecked.
        target: Vec<u8>,
    },
    /// Another name for a file of this layer. Its attributes are those of that file; a header's are not used.
    HardLink {
        /// The first name, unchecked.
        target: Vec<u8>,
    },
}

/// What an inode has besides its content.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permission bits, 0o7777 at most.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Last change.
    pub(super) mtime: Moment,
    /// Extended attributes, all of them allowed.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What stands before an entry's own header.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Attributes {
    /// Whether a file with these runs with rights that its caller may not have.
    pub(super) fn are_privileged(&self) -> bool {
        self.mode & 0o6000 != 0 || self.xattrs.iter().any(|(name, _)| name == b"security.capability")
    }
}

impl Entry {
    /// This entry breaks `rule`.
    pub(super) fn refused(&self, rule: Rule) -> LayerError {
        refused(&self.name, self.offset, rule)
    }

    /// The system could not do what this entry asks for.
    pub(super) fn failed(&self, doing: &'static str, error: impl Into<io::Error>) -> LayerError {
        failed(&self.name, self.offset, doing, error.into())
    }
}

impl Archive {
    /// Reads entries from `source`.
    pub(super) fn new(source: Source, limits: Limits) -> Self {
        Self { source, limits, headers: 0, unread: 0, padding: 0 }
    }

    /// Bytes of archive read so far.
    pub(super) fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next entry; `None` after the end marker. What is left of the content before is skipped.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        loop {
            let offset = self.source.offset();
            let Some(block) = self.block()? else {
                return match extensions.is_empty() {
                    true => Ok(None),
                    false => Err(LayerError::Damaged { offset, fault: Fault::Dangling }),
                };
            };
            self.headers += 1;
            if self.headers > self.limits.entries {
                return Err(too_large(Bound::Entries, self.limits.entries, offset));
            }
            let damaged = |fault| LayerError::Damaged { offset, fault };
            let header = Header::check(&block).map_err(damaged)?;
            match header.flag() {
                b'x' => {
                    let content = self.extension(&header, offset)?;
                    let pax = Pax::parse(&content).map_err(|error| at(error, &header, offset))?;
                    once(&mut extensions.pax, pax, "an extended header", &header, offset)?;
                }
                b'g' => {
                    let content = self.extension(&header, offset)?;
                    pax::check_global(&content).map_err(|error| at(error, &header, offset))?;
                }
                b'L' => {
                    let name = until_nul(self.extension(&header, offset)?);
                    once(&mut extensions.long_name, name, "a long name", &header, offset)?;
                }
                b'K' => {
                    let name = until_nul(self.extension(&header, offset)?);
                    once(&mut extensions.long_link, name, "a long link name", &header, offset)?;
                }
                flag => return self.entry(&header, flag, extensions, offset).map(Some),
            }
        }
    }

    /// Reads content of the current entry; 0 is its end.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let most = usize::try_from(self.unread).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.source.read(&mut buffer[..most])? {
            0 => Err(self.source.damaged(Fault::Truncated { expected: "the rest of a file" })),
            count => {
                self.unread -= count as u64;
                Ok(count)
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        flag: u8,
        extensions: Extensions,
        offset: u64,
    ) -> Result<Entry, LayerError> {
        let damaged = |fault| LayerError::Damaged { offset, fault };
        let pax = extensions.pax.unwrap_or_default();
        let header_name = EntryName::from(header.name().as_slice());
        let refuse_twice =
            |what: &str| refused(&header_name, offset, Rule::Twice { what: what.as_bytes().into() });
        let name = match (pax.path, extensions.long_name) {
            (Some(_), Some(_)) => return Err(refuse_twice("the name")),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => header.name(),
        };
        let target = match (pax.linkpath, extensions.long_link) {
            (Some(_), Some(_)) => return Err(refuse_twice("the link name")),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => header.link_name(),
        };
        let name = EntryName::from(name.as_slice());
        let refuse = |rule| refused(&name, offset, rule);

        let size = pax.size.map_or_else(|| header.size(), Ok).map_err(damaged)?;
        let kind = match flag {
            0 | b'0' => Kind::File { size },
            b'1' => Kind::HardLink { target },
            b'2' => Kind::Symlink { target },
            b'5' => Kind::Directory,
            b'S' => return Err(refuse(Rule::Sparse)),
            b'3' => return Err(refuse(Rule::Kind { found: FileKind::CharacterDevice })),
            b'4' => return Err(refuse(Rule::Kind { found: FileKind::BlockDevice })),
            b'6' => return Err(refuse(Rule::Kind { found: FileKind::Fifo })),
            flag => return Err(refuse(Rule::Kind { found: FileKind::Unknown(flag) })),
        };
        if !matches!(kind, Kind::File { .. }) && size > 0 {
            return Err(refuse(Rule::Content { kind: kind.file_kind(), found: size }));
        }
        if let (Kind::Symlink { .. } | Kind::HardLink { .. }, Some((xattr, _))) =
            (&kind, pax.xattrs.first_key_value())
        {
            return Err(refuse(Rule::XattrPlace { name: xattr.as_slice().into() }));
        }

        let owner = |number: u64| match u32::try_from(number) {
            // The largest one means "leave it" to chown(2).
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(refuse(Rule::Owner { found: number })),
        };
        let mode = header.mode().map_err(damaged)?;
        if mode > 0o177_777 {
            return Err(refuse(Rule::Mode { found: mode }));
        }
        let seconds = header.mtime().map_err(damaged)?;
        let attributes = Attributes {
            mode: (mode & 0o7777) as u32,
            uid: owner(pax.uid.map_or_else(|| header.uid(), Ok).map_err(damaged)?)?,
            gid: owner(pax.gid.map_or_else(|| header.gid(), Ok).map_err(damaged)?)?,
            mtime: pax.mtime.unwrap_or(Moment { seconds, nanoseconds: 0 }),
            xattrs: pax.xattrs.into_iter().collect(),
        };
        self.expect_content(size)?;
        Ok(Entry { name, offset, kind, attributes })
    }

    /// The content of an extension header, whole.
    fn extension(&mut self, header: &Header, offset: u64) -> Result<Vec<u8>, LayerError> {
        let size = header.size().map_err(|fault| LayerError::Damaged { offset, fault })?;
        if size > self.limits.extension {
            return Err(too_large(Bound::Extension, self.limits.extension, offset));
        }
        self.expect_content(size)?;
        // Grows with what is really there, not with what the header claims.
        let mut content = Vec::new();
        let mut part = [0; BLOCK];
        loop {
            match self.read_content(&mut part)? {
                0 => break,
                count => content.extend_from_slice(&part[..count]),
            }
        }
        self.skip_content()?;
        Ok(content)
    }

    fn expect_content(&mut self, size: u64) -> Result<(), LayerError> {
        self.source.announce(size)?;
        self.unread = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), LayerError> {
        let mut scratch = [0; BLOCK];
        while self.read_content(&mut scratch)? > 0 {}
        let padding = std::mem::take(&mut self.padding);
        self.source.fill(&mut scratch[..padding], "the padding of a file")
    }

    /// The next header block; `None` at the end of the archive, which is checked.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        self.source.fill(&mut block, "a header or the end marker")?;
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        self.source.fill(&mut block, "the second block of the end marker")?;
        if block != [0; BLOCK] {
            return Err(self.source.damaged(Fault::EndMarker));
        }
        // Writers fill up to a record of 20 blocks, or to whatever a tape likes.
        loop {
            let offset = self.source.offset();
            match self.source.fill_or_end(&mut block)? {
                0 => return Ok(None),
                count => {
                    if let Some(place) = block[..count].iter().position(|byte| *byte != 0) {
                        let offset = offset + place as u64;
                        return Err(LayerError::Damaged { offset, fault: Fault::Trailing });
                    }
                }
            }
        }
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl Kind {
    fn file_kind(&self) -> FileKind {
        match self {
            Self::File { .. } => FileKind::File,
            Self::Directory => FileKind::Directory,
            Self::Symlink { .. } => FileKind::Symlink,
            Self::HardLink { .. } => FileKind::HardLink,
        }
    }
}

/// Keeps an extension, of which there may be one before an entry.
fn once<T>(
    slot: &mut Option<T>,
    value: T,
    what: &'static str,
    header: &Header,
    offset: u64,
) -> Result<(), LayerError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => {
            let rule = Rule::Twice { what: what.as_bytes().into() };
            Err(refused(&EntryName::from(header.name().as_slice()), offset, rule))
        }
    }
}

/// GNU's long names end with a NUL; what comes after it does not count.
fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}

fn at(error: PaxError, header: &Header, offset: u64) -> LayerError {
    match error {
        PaxError::Fault(fault) => LayerError::Damaged { offset, fault },
        PaxError::Rule(rule) => refused(&EntryName::from(header.name().as_slice()), offset, rule),
    }
}

pub(super) fn too_large(bound: Bound, allowed: u64, offset: u64) -> LayerError {
    LayerError::TooLarge { bound, allowed, offset }
}

pub(super) fn refused(entry: &EntryName, offset: u64, rule: Rule) -> LayerError {
    LayerError::Refused { entry: entry.clone(), offset, rule }
}

/// A full disk has its own error: it is not the layer's fault, and a person can do something about it.
pub(super) fn failed(entry: &EntryName, offset: u64, doing: &'static str, source: io::Error) -> LayerError {
    let entry = entry.clone();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LayerError::Full { doing, entry, offset, source }
        }
        _ => LayerError::Entry { doing, entry, offset, source },
    }
}
