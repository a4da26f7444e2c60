//! What can be wrong with a layer: a rule broken by an entry, a damaged archive, a bomb, a full disk.
//!
//! Names in messages come from the archive and are escaped: they cannot speak to a terminal.

use std::fmt;
use std::io;
use std::path::PathBuf;

use manifests::LayerFormat;

/// Longest part of a name that a message shows, in bytes.
const SHOWN: usize = 200;

/// Why a layer was not unpacked. Nothing of it is left in the store.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry asks for what no layer may ask for.
    #[error("layer entry {entry} (header at byte {offset}) is refused: {rule}")]
    Refused {
        /// Its name in the archive.
        entry: EntryName,
        /// Where its header begins in the decompressed archive.
        offset: u64,
        /// The rule.
        rule: Rule,
    },
    /// The archive is not a well-formed tar archive.
    #[error("the layer's archive is damaged at byte {offset}: {fault}")]
    Damaged {
        /// Where, in the decompressed archive.
        offset: u64,
        /// What is wrong there.
        fault: Fault,
    },
    /// Decompression failed.
    #[error("the layer's zstd stream cannot be decompressed after {offset} bytes of archive")]
    Decompress {
        /// Bytes that were decompressed before.
        offset: u64,
        /// zstd's or the file system's words.
        source: io::Error,
    },
    /// The payload is packed another way than the manifest says.
    #[error("the layer is not packed as the manifest says: expected {}, found {found}", name_of(expected))]
    Format {
        /// What the manifest says.
        expected: LayerFormat,
        /// What the first bytes look like.
        found: String,
    },
    /// The layer is larger than any fix needs to be: a bomb.
    #[error("the layer is too large at byte {offset} of its archive: expected at most {allowed} {bound}")]
    TooLarge {
        /// What there is too much of.
        bound: Bound,
        /// How much is allowed.
        allowed: u64,
        /// Where the limit was crossed, in the decompressed archive.
        offset: u64,
    },
    /// The store's file system has no room for it.
    #[error("the store's file system is full (or a quota is): could not {doing} {entry} at byte {offset}")]
    Full {
        /// What was being done.
        doing: &'static str,
        /// The entry.
        entry: EntryName,
        /// Where its header begins in the decompressed archive.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// An entry could not be made for another reason.
    #[error("cannot {doing} {entry} of the layer (header at byte {offset})")]
    Entry {
        /// What was being done.
        doing: &'static str,
        /// The entry.
        entry: EntryName,
        /// Where its header begins in the decompressed archive.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The payload could not be read.
    #[error("cannot read the layer's payload after {offset} bytes of archive")]
    Read {
        /// Bytes of archive read before.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The store could not be read or changed.
    #[error("cannot {doing} {path}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record of an unpacked layer cannot be read; unpacking the layer again writes it anew.
    #[error("the record {path} of an unpacked layer is damaged")]
    Record {
        /// Where.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Something else than a directory lies where the layer belongs.
    #[error("{path} is in the way: expected a directory or nothing, found {found}")]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What lies there.
        found: FileKind,
    },
}

/// A rule that an entry broke, with what was found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Rule {
    /// A name that begins at the root of the host.
    #[error("expected a relative name, found an absolute one")]
    Absolute,
    /// A name that climbs.
    #[error("expected a name without \"..\", found one")]
    DotDot,
    /// No name.
    #[error("expected a name, found none")]
    Empty,
    /// A name with a NUL byte.
    #[error("expected a name without a NUL byte, found one")]
    Nul,
    /// A name that is not text: records, journal and reports could not name it.
    #[error("expected a name in UTF-8, found other bytes")]
    NotText,
    /// A part of a name that no file system takes.
    #[error("expected parts of at most {limit} bytes, found one of {found}")]
    PartTooLong {
        /// Bytes allowed.
        limit: usize,
        /// Bytes found.
        found: usize,
    },
    /// A name that no system call takes.
    #[error("expected a name of at most {limit} bytes, found {found}")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
        /// Bytes found.
        found: usize,
    },
    /// A name with too many parts.
    #[error("expected at most {limit} directories deep, found {found}")]
    TooDeep {
        /// Parts allowed.
        limit: usize,
        /// Parts found.
        found: usize,
    },
    /// A file whose name says directory.
    #[error("expected a name without a slash at its end for something that is not a directory")]
    TrailingSlash,
    /// The root of the layer as something else than a directory.
    #[error("expected a directory for the layer's root, found another kind of entry")]
    Root,
    /// A kind of entry that layers may not have.
    #[error("expected a file, directory, symbolic link or hard link, found {found}")]
    Kind {
        /// What it is.
        found: FileKind,
    },
    /// A sparse file.
    #[error("expected files to be stored whole, found a GNU sparse file")]
    Sparse,
    /// The same name twice.
    #[error("expected each name once, found it again as {found}")]
    Duplicate {
        /// What the first one is.
        found: FileKind,
    },
    /// A name that the layer both brings and removes.
    #[error("expected a name to be either brought or removed, found both")]
    WhiteoutAndEntry,
    /// The way to the entry leads through something else than a directory.
    #[error("expected {parent} to be a directory, found {found}")]
    Parent {
        /// The part of the way.
        parent: EntryName,
        /// What it is.
        found: FileKind,
    },
    /// A symbolic link to the root of whoever follows it.
    #[error("expected a relative symbolic link, found the target {target}")]
    SymlinkAbsolute {
        /// Where it leads.
        target: EntryName,
    },
    /// A symbolic link that climbs above the layer.
    #[error("expected a symbolic link that stays in the layer, found the target {target}")]
    SymlinkClimbs {
        /// Where it leads.
        target: EntryName,
    },
    /// A symbolic link that cannot exist.
    #[error("expected a symbolic link's target of 1 to {limit} bytes without NUL, found {found} bytes")]
    SymlinkTarget {
        /// Bytes allowed.
        limit: usize,
        /// Bytes found.
        found: usize,
    },
    /// A hard link to a name that is not allowed.
    #[error("the hard link's target {target} is not allowed: {rule}")]
    HardLinkName {
        /// Its target.
        target: EntryName,
        /// The rule that the target broke.
        rule: Box<Rule>,
    },
    /// A hard link to something that is not a file of this layer.
    #[error("expected the hard link's target {target} to be a file earlier in this layer, found {found}")]
    HardLinkTarget {
        /// Its target.
        target: EntryName,
        /// What is there.
        found: FileKind,
    },
    /// A whiteout of nothing that can be named.
    #[error("expected a whiteout of a plain name, found \".wh.\" before {found}")]
    WhiteoutName {
        /// What follows the prefix.
        found: EntryName,
    },
    /// A whiteout that is not an empty file.
    #[error("expected a whiteout to be an empty regular file without attributes, found something else")]
    WhiteoutContent,
    /// A name below a whiteout's name.
    #[error("expected \".wh.\" only at the start of a name's last part, found it in a directory's name")]
    WhiteoutParent,
    /// An opaque marker for the whole root file system; overlay cannot do that.
    #[error("expected an opaque marker in a directory, found one in the layer's root")]
    OpaqueRoot,
    /// An extended attribute that layers may not set.
    #[error("expected only security.capability and user.* (without user.overlay.*), found {name}")]
    Xattr {
        /// Its name.
        name: EntryName,
    },
    /// An extended attribute where none can be.
    #[error("expected extended attributes on files and directories only, found {name}")]
    XattrPlace {
        /// Its name.
        name: EntryName,
    },
    /// A keyword of an extended header that is not understood, so that ignoring it would lose something.
    #[error("expected a known keyword in the extended header, found {keyword}")]
    Keyword {
        /// The keyword.
        keyword: EntryName,
    },
    /// The same fact twice: readers differ in which one they take.
    #[error("expected {what} once before an entry, found it again")]
    Twice {
        /// Which fact.
        what: EntryName,
    },
    /// An owner that does not exist on Linux.
    #[error("expected an owner's number below {}, found {found}", u32::MAX)]
    Owner {
        /// The number.
        found: u64,
    },
    /// A mode with unknown bits.
    #[error("expected a mode of at most 0o177777, found {found:#o}")]
    Mode {
        /// The mode.
        found: u64,
    },
    /// Content where none can be.
    #[error("expected no content for {kind}, found {found} bytes")]
    Content {
        /// What the entry is.
        kind: FileKind,
        /// Its size.
        found: u64,
    },
}

/// What is wrong with an archive as a file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// It ends too early.
    #[error("expected {expected}, found the end: the archive is truncated")]
    Truncated {
        /// What should have been there.
        expected: &'static str,
    },
    /// Something follows its end.
    #[error("expected only zeros after the end of the archive, found other bytes")]
    Trailing,
    /// One block of zeros, and then something else.
    #[error("expected two blocks of zeros at the end of the archive, found one")]
    EndMarker,
    /// Not a header of POSIX or GNU tar.
    #[error("expected a tar header with the magic \"ustar\", found {found}")]
    Magic {
        /// What is there.
        found: EntryName,
    },
    /// A header that was changed.
    #[error("the header's checksum is {found}, expected {expected}")]
    Checksum {
        /// What the header's bytes sum to.
        expected: u64,
        /// What the header says.
        found: u64,
    },
    /// A number that is none, or is negative, or is too large.
    #[error("expected a number in the field {field}, found {found}")]
    Number {
        /// The field's name.
        field: &'static str,
        /// Its bytes.
        found: EntryName,
    },
    /// An extended header that breaks its own form.
    #[error("expected records \"LENGTH KEYWORD=VALUE\" in the extended header, found {found}")]
    Record {
        /// The start of what is there.
        found: EntryName,
    },
    /// An extended header with nothing after it.
    #[error("expected an entry after an extended header, found the end of the archive")]
    Dangling,
}

/// What there can be too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`super::Limits::bytes`].
    Bytes,
    /// [`super::Limits::ratio`].
    Ratio,
    /// [`super::Limits::entries`].
    Entries,
    /// [`super::Limits::extension`].
    Extension,
    /// [`super::Limits::memory`].
    Memory,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes of archive",
            Self::Ratio => "bytes of archive per byte of payload",
            Self::Entries => "entries",
            Self::Extension => "bytes in one extension header",
            Self::Memory => "bytes of memory for directories and removed names",
        })
    }
}

/// A kind of file, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Nothing is there.
    Nothing,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link; only archives know it.
    HardLink,
    /// A character device; in an unpacked layer, a whiteout.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A tar type that is none of these.
    Unknown(u8),
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::HardLink => "a hard link",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Fifo => "a fifo",
            Self::Socket => "a socket",
            Self::Unknown(flag) => return write!(f, "the tar type '{}'", flag.escape_ascii()),
        })
    }
}

/// Bytes out of an archive (a name, mostly), shown quoted, escaped and cut to a readable length.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for EntryName {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        match std::str::from_utf8(shown) {
            Ok(text) => write!(f, "\"{}\"", text.escape_debug())?,
            Err(_) => write!(f, "\"{}\"", shown.escape_ascii())?,
        }
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} bytes more"),
        }
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The format's name in a manifest.
fn name_of(format: &LayerFormat) -> &'static str {
    match format {
        LayerFormat::Tar => "tar",
        LayerFormat::TarZstd => "tar+zstd",
    }
}
