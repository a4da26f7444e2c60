//! The files of a plain archive that is no layer, one after the other, for whoever unpacks nothing of it.
//!
//! Invariant: a member's content begins where [`Member::at`] says in the file that was given, since nothing is
//! decompressed on the way.

use std::fs::File;

use manifests::LayerFormat;

use crate::files::layer::archive::{Archive, Kind};
use crate::files::layer::error::{EntryName, FileKind, LayerError, Rule};
use crate::files::layer::source::Source;
use crate::files::layer::{Limits, archive};

/// The regular files of an archive.
pub(crate) struct Members(Archive);

/// One of them.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name, unchecked.
    pub(crate) name: EntryName,
    /// Where its content begins, in bytes.
    pub(crate) at: u64,
    /// How long it is, in bytes.
    pub(crate) size: u64,
}

impl Members {
    /// Those of this archive, from its start.
    pub(crate) fn of(archive: &File, limits: Limits) -> Result<Self, LayerError> {
        Ok(Self(Archive::new(Source::new(archive, LayerFormat::Tar, limits)?, limits)))
    }

    /// The next one; directories are passed over, and links refused. `None` after the end marker.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, LayerError> {
        while let Some(entry) = self.0.next_entry()? {
            let found = match entry.kind {
                Kind::File { size } => {
                    return Ok(Some(Member { name: entry.name, at: self.0.offset(), size }));
                }
                Kind::Directory => continue,
                Kind::Symlink { .. } => FileKind::Symlink,
                Kind::HardLink { .. } => FileKind::HardLink,
            };
            return Err(archive::refused(&entry.name, entry.offset, Rule::Kind { found }));
        }
        Ok(None)
    }

    /// Reads content of the current one; 0 is its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.0.read_content(buffer)
    }
}
