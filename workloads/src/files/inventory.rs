//! How much a tree holds: enough to see, when it is taken, that part of it is missing.
//!
//! What this does not do: prove the content. A layer's content was proven when it was unpacked and nobody but root can
//! change it; what a removal or a lost write leaves is a tree with fewer names or shorter files.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The size of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Names in it, those of directories included; without the root.
    pub names: u64,
    /// Bytes of regular files; a file counts under each of its names.
    pub bytes: u64,
}

impl Inventory {
    /// Counts; no link is followed. Nothing of what is not there.
    pub(crate) fn of(root: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let mut waiting = vec![root.to_owned()];
        while let Some(directory) = waiting.pop() {
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                found.names += 1;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    waiting.push(entry.path());
                } else if kind.is_file() {
                    found.bytes += entry.metadata()?.len();
                }
            }
        }
        Ok(found)
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { names: self.names + other.names, bytes: self.bytes + other.bytes }
    }

    /// Whether nothing of `known` is missing here.
    pub(crate) fn holds(&self, known: &Self) -> bool {
        self.names >= known.names && self.bytes >= known.bytes
    }
}
