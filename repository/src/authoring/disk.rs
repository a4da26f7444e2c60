//! Files that a web server reads: whole or not at all, as [`system::durable`] writes them, but for everybody's eyes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use manifests::bounded;
use system::durable;

use crate::authoring::{AuthoringError, io_error};

/// Makes a directory and what is missing above it.
pub(crate) fn make_directory(path: &Path) -> Result<(), AuthoringError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        durable::sync_directory(path.parent().unwrap_or(path))
    };
    make().map_err(io_error("make", path))
}

/// Writes a file, in place of what has its name.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), AuthoringError> {
    durable::publish(path, bytes).map_err(io_error("write", path))
}

/// The bytes of a file; nothing if it is not there.
pub(crate) fn read(path: &Path, most: usize) -> Result<Option<Vec<u8>>, AuthoringError> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error("open", path))?,
    };
    match bounded::read(file, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) => Err(AuthoringError::TooLarge { path: path.to_owned(), source }),
    }
}

/// The names in a directory.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, AuthoringError> {
    let read = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        names.collect()
    };
    let mut names = read().map_err(io_error("list", path))?;
    names.sort_unstable();
    Ok(names)
}
