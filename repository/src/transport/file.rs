//! `file://`: a repository on a disk, such as one that was carried here.

use std::fs::OpenOptions;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use url::Url;

use crate::transport::{Body, FetchError, Transport};

/// Reads files of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Transport for Files {
    fn open(&self, url: &Url, from: u64) -> Result<Option<Body>, FetchError> {
        let refuse = |source| FetchError::Io { url: url.clone(), source };
        let path = match (url.scheme(), url.to_file_path()) {
            ("file", Ok(path)) => path,
            _ => return Err(FetchError::Scheme { url: url.clone() }),
        };
        // Opening a named pipe without this flag would wait for its writer.
        let mut file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(refuse)?,
        };
        if !file.metadata().map_err(refuse)?.is_file() {
            return Err(refuse(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        file.seek(SeekFrom::Start(from)).map_err(refuse)?;
        Ok(Some(Body { from, bytes: Box::new(file) }))
    }
}
