//! The whole of a log, looked at: every entry, every hash, up to the root.

use std::collections::BTreeMap;

use manifests::log::tree;
use manifests::log::{Checkpoint, LogEntry, TreeHead};
use manifests::{ManifestName, Sha256};

use crate::log::tiles::{self, Tiles, WIDTH};
use crate::log::{Files, LogError};

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Its number, from 0.
    pub index: u64,
    /// What it says; nothing if it is none of ours.
    pub entry: Option<LogEntry>,
    /// The hash of its leaf.
    pub leaf: Sha256,
    /// What is wrong with it, whatever anybody expects.
    pub oddity: Option<Oddity>,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// It is not what this program logs.
    Unreadable {
        /// Why.
        why: String,
    },
    /// An earlier entry has the same name and version, and other signed bytes.
    SecondContent {
        /// The number of the earlier one.
        earlier: u64,
    },
}

impl std::fmt::Display for Oddity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { why } => write!(f, "it cannot be read: {why}"),
            Self::SecondContent { earlier } => {
                write!(f, "entry {earlier} has the same name and version, and other signed bytes")
            }
        }
    }
}

/// Reads every entry, and hashes all of them up to the root of the checkpoint.
///
/// # Errors
/// [`LogError::Changed`] names the first file that is not what the checkpoint is of.
pub fn audit(files: &dyn Files, checkpoint: &Checkpoint) -> Result<Vec<Audited>, LogError> {
    let TreeHead { size, root } = checkpoint.head;
    let tiles = Tiles::new(files, size);
    let mut audited = Vec::new();
    let mut leaves = Vec::new();
    let mut versions: BTreeMap<(ManifestName, u64), (u64, Sha256)> = BTreeMap::new();
    for index in 0..size.div_ceil(WIDTH) {
        for bytes in tiles.entries(index)? {
            let (index, leaf) = (leaves.len() as u64, tree::leaf(&bytes));
            leaves.push(leaf);
            audited.push(match LogEntry::parse(&bytes) {
                Ok(entry) => {
                    let known = versions.entry((entry.name.clone(), entry.version));
                    let (earlier, sha256) = *known.or_insert((index, entry.sha256));
                    let oddity = (sha256 != entry.sha256).then_some(Oddity::SecondContent { earlier });
                    Audited { index, entry: Some(entry), leaf, oddity }
                }
                Err(error) => {
                    let oddity = Some(Oddity::Unreadable { why: system::error::with_causes(&error) });
                    Audited { index, entry: None, leaf, oddity }
                }
            });
        }
    }
    expect_tiles(&tiles, size, leaves)?;
    let found = tiles.head()?;
    match found.root == root {
        true => Ok(audited),
        false => Err(LogError::Changed { path: "tile/".to_owned(), size, expected: root, found: found.root }),
    }
}

/// That every tile has the hashes of the level below.
fn expect_tiles(tiles: &Tiles<'_>, size: u64, leaves: Vec<Sha256>) -> Result<(), LogError> {
    let mut hashes = leaves;
    for level in 0.. {
        let mut above = Vec::new();
        for (index, part) in (0..).zip(hashes.chunks(WIDTH as usize)) {
            for (found, expected) in tiles.tile(level, index)?.iter().zip(part) {
                if found != expected {
                    let path = tiles::tile(level, index, part.len() as u64);
                    let (expected, found) = (*expected, *found);
                    return Err(LogError::Changed { path, size, expected, found });
                }
            }
            if part.len() as u64 == WIDTH {
                above.push(tiles::full(part));
            }
        }
        if above.is_empty() {
            break;
        }
        hashes = above;
    }
    Ok(())
}
