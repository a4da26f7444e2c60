//! Where the hashes and entries of a log are (C2SP `tlog-tiles`), and reading them.
//!
//! A tile is 256 hashes of one level, where a level is 8 of the tree's; those of level 0 are leaf hashes. The last tile of
//! a level may be partial. An entry bundle has the entries of a tile of level 0, each after its length in two bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use manifests::Sha256;
use manifests::log::tree::{self, Frontier, Position};
use manifests::log::{History, LogEntry, TreeHead};

use crate::log::{Files, LogError};

/// Hashes of a tile, entries of a bundle.
pub const WIDTH: u64 = 256;

/// The levels of the tree in one tile.
const HEIGHT: u32 = 8;

/// The most bytes of an entry bundle.
const BUNDLE: usize = WIDTH as usize * (2 + LogEntry::MAX_BYTES);

/// The number of a tile as a path: `x001/x234/067`.
fn number(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

fn suffix(width: u64) -> String {
    if width == WIDTH { String::new() } else { format!(".p/{width}") }
}

/// The path of a tile with so many hashes.
pub fn tile(level: u32, index: u64, width: u64) -> String {
    format!("tile/{level}/{}{}", number(index), suffix(width))
}

/// The path of an entry bundle with so many entries.
pub fn bundle(index: u64, width: u64) -> String {
    format!("tile/entries/{}{}", number(index), suffix(width))
}

/// Reads a tile of `width` hashes; one with more is read as far as that.
///
/// # Errors
/// What it should be.
pub fn parse_tile(bytes: &[u8], width: u64) -> Result<Vec<Sha256>, String> {
    let wanted = width as usize * 32;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || bytes.len() < wanted || bytes.len() > WIDTH as usize * 32 {
        return Err(format!("{width} hashes of 32 bytes"));
    }
    Ok(hashes[..width as usize].iter().map(|hash| Sha256::from_bytes(*hash)).collect())
}

/// Reads an entry bundle of `width` entries; one with more is read as far as that.
///
/// # Errors
/// What it should be.
pub fn parse_bundle(mut bytes: &[u8], width: u64) -> Result<Vec<Vec<u8>>, String> {
    let expected = || format!("{width} entries, each after its length in two bytes");
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>().ok_or_else(expected)?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(expected)?;
        entries.push(entry.to_vec());
        bytes = rest;
        if entries.len() as u64 > WIDTH {
            return Err(expected());
        }
    }
    if (entries.len() as u64) < width {
        return Err(expected());
    }
    entries.truncate(width as usize);
    Ok(entries)
}

/// The bytes of a bundle with these entries, none of which is longer than an entry may be.
pub fn write_bundle(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).expect("entries have at most 65,535 bytes");
        bytes.extend(length.to_be_bytes());
        bytes.extend(entry);
    }
    bytes
}

/// The hash of a full subtree of these hashes, a power of two.
fn fold(hashes: &[Sha256]) -> Sha256 {
    match hashes {
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            tree::parent(fold(left), fold(right))
        }
    }
}

/// The hash that a full tile has in the level above.
pub fn full(hashes: &[Sha256]) -> Sha256 {
    fold(hashes)
}

/// The tiles of a tree of a certain size. What they say is not looked at here, but for its form.
pub struct Tiles<'a> {
    files: &'a dyn Files,
    size: u64,
    known: RefCell<BTreeMap<String, Vec<Sha256>>>,
    /// The files that were read, for whoever wants to take them along.
    read: RefCell<BTreeMap<String, Vec<u8>>>,
}

impl<'a> Tiles<'a> {
    /// The tiles of a tree of `size` entries.
    pub fn new(files: &'a dyn Files, size: u64) -> Self {
        Self { files, size, known: RefCell::default(), read: RefCell::default() }
    }

    /// How many hashes a level has.
    fn hashes(&self, level: u32) -> u64 {
        self.size.checked_shr(HEIGHT * level).unwrap_or(0)
    }

    /// How many hashes of a tile belong to this tree.
    fn width(&self, level: u32, index: u64) -> u64 {
        self.hashes(level).saturating_sub(index.saturating_mul(WIDTH)).min(WIDTH)
    }

    /// A file, or the one of the whole tile that it has grown into meanwhile.
    fn file(&self, partial: String, whole: String, most: usize) -> Result<(String, Vec<u8>), LogError> {
        for path in [&partial, &whole] {
            if let Some(bytes) = self.files.read(path, most)? {
                self.read.borrow_mut().insert(path.clone(), bytes.clone());
                return Ok((path.clone(), bytes));
            }
        }
        Err(LogError::Missing { place: self.files.place(), path: partial, size: self.size })
    }

    /// The hashes of a tile, as far as they belong to this tree.
    ///
    /// # Errors
    /// [`LogError::Missing`], [`LogError::Malformed`], and whatever reading them comes to.
    pub fn tile(&self, level: u32, index: u64) -> Result<Vec<Sha256>, LogError> {
        let width = self.width(level, index);
        let path = tile(level, index, width);
        if let Some(known) = self.known.borrow().get(&path) {
            return Ok(known.clone());
        }
        let most = WIDTH as usize * 32;
        let (found, bytes) = self.file(path.clone(), tile(level, index, WIDTH), most)?;
        let hashes =
            parse_tile(&bytes, width).map_err(|expected| LogError::Malformed { path: found, expected })?;
        self.known.borrow_mut().insert(path, hashes.clone());
        Ok(hashes)
    }

    /// The entries of a bundle, as far as they belong to this tree.
    ///
    /// # Errors
    /// As [`Tiles::tile`].
    pub fn entries(&self, index: u64) -> Result<Vec<Vec<u8>>, LogError> {
        let width = self.width(0, index);
        let (path, bytes) = self.file(bundle(index, width), bundle(index, WIDTH), BUNDLE)?;
        parse_bundle(&bytes, width).map_err(|expected| LogError::Malformed { path, expected })
    }

    /// The hash of a full subtree.
    fn node(&self, position: Position) -> Result<Sha256, LogError> {
        let Position { level, index } = position;
        let (level, inside) = (level / HEIGHT, level % HEIGHT);
        let first = index << inside;
        let hashes = self.tile(level, first / WIDTH)?;
        let at = (first % WIDTH) as usize;
        let missing = || LogError::Missing {
            place: self.files.place(),
            path: tile(level, first / WIDTH, WIDTH),
            size: self.size,
        };
        hashes.get(at..at + (1 << inside)).map(fold).ok_or_else(missing)
    }

    /// The hashes of full subtrees.
    ///
    /// # Errors
    /// As [`Tiles::tile`].
    pub fn hashes_of(&self, wanted: &[Position]) -> Result<Vec<Sha256>, LogError> {
        wanted.iter().map(|position| self.node(*position)).collect()
    }

    /// Size and root by the tiles.
    ///
    /// # Errors
    /// As [`Tiles::tile`].
    pub fn head(&self) -> Result<TreeHead, LogError> {
        let peaks = self.hashes_of(&Frontier::positions(self.size))?;
        Ok(Frontier::new(self.size, peaks).expect("one peak for each bit").head())
    }

    /// The files that were read so far.
    pub fn taken(self) -> BTreeMap<String, Vec<u8>> {
        self.read.into_inner()
    }
}

impl History for Tiles<'_> {
    fn nodes(&self, wanted: &[Position]) -> Option<Vec<Sha256>> {
        self.hashes_of(wanted).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_specifications() {
        assert_eq!(tile(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile(1, 0, 17), "tile/1/000.p/17");
        assert_eq!(tile(0, 273, 112), "tile/0/273.p/112");
        assert_eq!(bundle(1000, 256), "tile/entries/x001/000");
        assert_eq!(bundle(0, 1), "tile/entries/000.p/1");
    }

    #[test]
    fn a_bundle_reads_back_and_what_is_cut_or_too_long_is_refused() {
        let entries = vec![b"one".to_vec(), Vec::new(), b"three".to_vec()];
        let bytes = write_bundle(&entries);
        assert_eq!(parse_bundle(&bytes, 3).unwrap(), entries);
        assert_eq!(parse_bundle(&bytes, 2).unwrap(), entries[..2]);
        assert!(parse_bundle(&bytes, 4).is_err());
        assert!(parse_bundle(&bytes[..bytes.len() - 1], 3).is_err());
        assert!(parse_bundle(&[&bytes[..], &[0]].concat(), 3).is_err());
        assert!(parse_bundle(&[0; 2 * 257], 3).is_err());
        assert!(parse_tile(&[0; 64], 2).is_ok() && parse_tile(&[0; 96], 2).is_ok());
        assert!(
            parse_tile(&[0; 63], 1).is_err()
                && parse_tile(&[0; 32], 2).is_err()
                && parse_tile(&[0; 257 * 32], 1).is_err()
        );
    }
}
