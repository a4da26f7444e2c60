//! The files of a log, wherever they are: a directory, an address, memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::authoring::disk;
use crate::log::LogError;
use crate::transport::mirrors::{Mirror, Mirrors};

/// Files by their paths below a log.
pub trait Files {
    /// Where they are, for people.
    fn place(&self) -> String;

    /// The bytes of a file of at most `most` bytes; nothing if it is not there.
    ///
    /// # Errors
    /// [`LogError`].
    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, LogError>;
}

/// A log in a directory.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

impl Files for Directory {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, LogError> {
        Ok(disk::read(&self.0.join(path), most)?)
    }
}

/// A log at the places of a repository, in turn.
#[derive(Debug, Clone)]
pub struct Remote {
    mirrors: Mirrors,
}

impl Remote {
    /// The log of a repository at these places.
    pub fn new(mirrors: Mirrors) -> Self {
        Self { mirrors }
    }
}

impl Files for Remote {
    fn place(&self) -> String {
        self.mirrors.places().first().map_or_else(String::new, |place| place.log("").to_string())
    }

    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, LogError> {
        let mut problem = None;
        for place in self.mirrors.places() {
            match self.mirrors.whole(&Mirror::log(place, path), most as u64) {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(None), |error| Err(error.into()))
    }
}

/// A log in memory.
impl Files for BTreeMap<String, Vec<u8>> {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.get(path).filter(|bytes| bytes.len() <= most).cloned())
    }
}

/// Writes files of a log, whole or not at all, for everybody's eyes.
pub(super) fn write(directory: &Path, path: &str, bytes: &[u8]) -> Result<(), LogError> {
    let to = directory.join(path);
    disk::make_directory(to.parent().unwrap_or(directory))?;
    Ok(disk::write(&to, bytes)?)
}
