//! The tar side: entries in, checked one by one, written through [`Tree`].
//!
//! The `tar` crate is used in raw mode only, for headers. Extension records are read here, with a
//! bound: the crate would read a name of four gigabytes into memory.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::tree::{Attributes, Tree};
use super::{Layer, LayerError, Violation};

/// What an archive may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries, directories that are only implied included.
    pub entries: usize,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes of content per byte of archive…
    pub ratio: u64,
    /// …once there is more content than this.
    pub ratio_from: u64,
    /// Levels of a path.
    pub depth: usize,
    /// Bytes of a path.
    pub path: usize,
}

impl Default for Bounds {
    /// A fix is small; a whole distribution image (about 100,000 entries, 2 GiB) still passes.
    /// Real trees of programs compress at most about tenfold; sparse databases more, hence 200.
    fn default() -> Self {
        Self { entries: 250_000, bytes: 4 << 30, ratio: 200, ratio_from: 64 << 20, depth: 64, path: 2048 }
    }
}

/// Extension records hold a path, a link and attributes; security.capability has 24 bytes.
const LARGEST_EXTENSION: u64 = 64 << 10;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What came in extension records before an entry.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    attributes: Vec<(String, Vec<u8>)>,
    mtime: Option<(i64, u32)>,
    owner: [Option<u32>; 2],
}

/// Where reading is, for errors and bounds.
struct Progress<'a> {
    bounds: &'a Bounds,
    archive_size: u64,
    entry: usize,
    bytes: u64,
}

impl Progress<'_> {
    fn account(&mut self, bytes: u64) -> Result<(), Violation> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bounds.bytes {
            return Err(Violation::TooLarge(self.bounds.bytes));
        }
        let allowed = self.archive_size.saturating_mul(self.bounds.ratio).max(self.bounds.ratio_from);
        if self.bytes > allowed { Err(Violation::Bomb(self.bounds.ratio)) } else { Ok(()) }
    }
}

pub(super) fn unpack(
    input: impl Read,
    format: &'static str,
    archive_size: u64,
    root: &Path,
    bounds: &Bounds,
) -> Result<Layer, LayerError> {
    let broken = |source| LayerError::Archive { format, source };
    let mut tree = Tree::create(root)?;
    let mut progress = Progress { bounds, archive_size, entry: 0, bytes: 0 };
    let mut extensions = Extensions::default();
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        progress.entry += 1;
        let shown = shorten(&extensions.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned()));
        let refuse =
            |violation| LayerError::Refused { entry: progress.entry, path: shown.clone(), violation };
        if progress.entry > bounds.entries || tree.entries() > bounds.entries {
            return Err(refuse(Violation::TooManyEntries(bounds.entries)));
        }
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
            let size = entry.header().entry_size().map_err(broken)?;
            if size > LARGEST_EXTENSION {
                return Err(refuse(Violation::Extension(LARGEST_EXTENSION)));
            }
            let mut data = Vec::new();
            entry.read_to_end(&mut data).map_err(broken)?;
            extensions.add(kind, data).map_err(refuse)?;
            continue;
        }
        if kind.is_pax_global_extensions() {
            // Comments of the archiver (git writes its commit here); nothing that a layer needs.
            continue;
        }
        let taken = std::mem::take(&mut extensions);
        let mut step = Step { tree: &mut tree, progress: &mut progress };
        match step.add(&mut entry, taken) {
            Ok(()) => {}
            Err(Stop::Violation(violation)) => {
                let entry = progress.entry;
                return Err(LayerError::Refused { entry, path: shown, violation });
            }
            Err(Stop::Reading(source)) => return Err(broken(source)),
            Err(Stop::Writing(error)) => return Err(error),
        }
    }
    let mut layer = tree.finish()?;
    layer.bytes = progress.bytes;
    Ok(layer)
}

/// Why one entry could not be added.
pub(super) enum Stop {
    Violation(Violation),
    Reading(io::Error),
    Writing(LayerError),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<LayerError> for Stop {
    fn from(error: LayerError) -> Self {
        Self::Writing(error)
    }
}

struct Step<'a, 'b> {
    tree: &'a mut Tree,
    progress: &'a mut Progress<'b>,
}

impl Step<'_, '_> {
    fn add(&mut self, entry: &mut tar::Entry<'_, impl Read>, extensions: Extensions) -> Result<(), Stop> {
        let header = entry.header().clone();
        let kind = header.entry_type();
        let name = extensions.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = relative(&name, self.progress.bounds)?;
        let attributes = attributes(&header, &extensions).map_err(Stop::Reading)?;
        let Some(path) = path else {
            // The root itself: overlay shows the attributes of the upper directory, not of a lower.
            return if kind.is_dir() { Ok(()) } else { Err(Violation::Duplicate.into()) };
        };
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(hidden) = file_name.strip_prefix(WHITEOUT) {
            return self.whiteout(&path, &file_name, hidden);
        }
        match kind {
            EntryType::Directory => self.tree.directory(&path, attributes),
            EntryType::Regular | EntryType::Continuous => {
                let size = header.entry_size().map_err(Stop::Reading)?;
                self.progress.account(size)?;
                self.tree.file(&path, attributes, size, entry)
            }
            EntryType::Symlink => {
                let target = link_target(entry, &extensions)?;
                check_link(&path, &target)?;
                self.tree.symlink(&path, attributes, &target)
            }
            EntryType::Link => {
                let target = link_target(entry, &extensions)?;
                let text = || target.to_string_lossy().into_owned();
                let source = relative(target.as_os_str().as_encoded_bytes(), self.progress.bounds)
                    .map_err(|_| Violation::HardLinkTarget(text()))?
                    .ok_or_else(|| Violation::HardLinkTarget(text()))?;
                self.tree.hard_link(&path, &source)
            }
            EntryType::Char => Err(Violation::SpecialFile("character device").into()),
            EntryType::Block => Err(Violation::SpecialFile("block device").into()),
            EntryType::Fifo => Err(Violation::SpecialFile("fifo").into()),
            other => Err(Violation::UnknownType(char::from(other.as_byte())).into()),
        }
    }

    fn whiteout(&mut self, path: &Path, file_name: &str, hidden: &str) -> Result<(), Stop> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if file_name == OPAQUE {
            return self.tree.opaque(parent);
        }
        // `.wh..wh.` and what follows are AUFS's own files; `.`, `..` and nothing name no entry.
        if hidden.is_empty() || hidden == "." || hidden == ".." || hidden.starts_with(WHITEOUT) {
            return Err(Violation::Whiteout.into());
        }
        self.tree.whiteout(&parent.join(hidden))
    }
}

impl Extensions {
    fn add(&mut self, kind: EntryType, data: Vec<u8>) -> Result<(), Violation> {
        let malformed = || Violation::Extension(LARGEST_EXTENSION);
        let text = |data: Vec<u8>| data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        if kind.is_gnu_longname() {
            self.path = Some(text(data));
        } else if kind.is_gnu_longlink() {
            self.link = Some(text(data));
        } else {
            for record in tar::PaxExtensions::new(&data) {
                let record = record.map_err(|_| malformed())?;
                let key = record.key().map_err(|_| malformed())?;
                let value = record.value_bytes();
                let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                match key {
                    "path" => self.path = Some(value.to_vec()),
                    "linkpath" => self.link = Some(value.to_vec()),
                    "uid" => self.owner[0] = Some(number().ok_or_else(malformed)?),
                    "gid" => self.owner[1] = Some(number().ok_or_else(malformed)?),
                    "mtime" => self.mtime = Some(pax_time(value).ok_or_else(malformed)?),
                    // A second opinion on the size would let the next header hide in the content.
                    "size" => return Err(malformed()),
                    _ if key.starts_with("GNU.sparse.") => return Err(Violation::UnknownType('S')),
                    _ => {
                        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                            self.attribute(name, value)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Capabilities, access lists and the user's own attributes are content; labels of a security
    /// module belong to the host; anything else, `trusted.overlay.*` first, could lie to overlay.
    fn attribute(&mut self, name: &str, value: &[u8]) -> Result<(), Violation> {
        match name {
            "security.selinux" | "security.ima" | "security.evm" => Ok(()),
            "security.capability" | "system.posix_acl_access" | "system.posix_acl_default" => {
                self.attributes.push((name.to_owned(), value.to_vec()));
                Ok(())
            }
            // With `userxattr` overlay reads its own attributes from here.
            _ if name.starts_with("user.") && !name.starts_with("user.overlay.") => {
                self.attributes.push((name.to_owned(), value.to_vec()));
                Ok(())
            }
            _ => Err(Violation::ForbiddenAttribute(name.chars().take(80).collect())),
        }
    }
}

/// `seconds[.fraction]`, possibly negative (POSIX pax, "mtime").
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds, digits.parse().ok()?))
}

fn attributes(header: &tar::Header, extensions: &Extensions) -> io::Result<Attributes> {
    let id = |given: Option<u32>, header: io::Result<u64>| match given {
        Some(id) => Ok(id),
        None => u32::try_from(header?).map_err(|_| io::Error::other("owner out of range")),
    };
    let mtime = match extensions.mtime {
        Some(time) => time,
        None => (i64::try_from(header.mtime()?).unwrap_or(i64::MAX), 0),
    };
    Ok(Attributes {
        mode: header.mode()? & 0o7777,
        uid: id(extensions.owner[0], header.uid())?,
        gid: id(extensions.owner[1], header.gid())?,
        mtime,
        extended: extensions.attributes.clone(),
    })
}

fn link_target(entry: &tar::Entry<'_, impl Read>, extensions: &Extensions) -> Result<PathBuf, Stop> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = match &extensions.link {
        Some(bytes) => bytes.clone(),
        None => entry.link_name_bytes().map(|bytes| bytes.into_owned()).unwrap_or_default(),
    };
    if bytes.is_empty() || bytes.contains(&0) || bytes.len() > 4095 {
        return Err(Violation::EscapingLink(shorten(&bytes)).into());
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// A symbolic link may point anywhere inside the root, by a relative path.
fn check_link(path: &Path, target: &Path) -> Result<(), Violation> {
    let text = || shorten(target.as_os_str().as_encoded_bytes());
    if target.is_absolute() {
        return Err(Violation::AbsoluteLink(text()));
    }
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::ParentDir => {
                depth = depth.checked_sub(1).ok_or_else(|| Violation::EscapingLink(text()))?;
            }
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    Ok(())
}

/// The path below the root; `None` is the root itself.
fn relative(name: &[u8], bounds: &Bounds) -> Result<Option<PathBuf>, Violation> {
    use std::os::unix::ffi::OsStrExt;
    let unreasonable = Violation::UnreasonableName { longest: bounds.path, deepest: bounds.depth };
    if name.is_empty() || name.len() > bounds.path || name.contains(&0) {
        return Err(unreasonable);
    }
    if name[0] == b'/' {
        return Err(Violation::AbsolutePath);
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Violation::ParentComponent),
            _ if part.len() > 255 => return Err(unreasonable),
            _ => {
                depth += 1;
                path.push(std::ffi::OsStr::from_bytes(part));
            }
        }
    }
    if depth > bounds.depth {
        return Err(unreasonable);
    }
    Ok((depth > 0).then_some(path))
}

fn shorten(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(120).collect()
}
