//! A path as some process sees it: bytes, like a [`Comm`](super::Comm), and written and shown in the same way.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::comm::{on_one_line, read, written};

/// See the module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SeenPath(Vec<u8>);

impl SeenPath {
    /// As a path, to be looked up below the right root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people, and for records that take text only: what is no text is escaped.
    #[must_use]
    pub fn to_text(&self) -> PathBuf {
        PathBuf::from(self.to_string())
    }
}

impl From<&[u8]> for SeenPath {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_owned())
    }
}

impl From<&str> for SeenPath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_owned())
    }
}

impl From<&Path> for SeenPath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_owned())
    }
}

/// The written form.
impl From<String> for SeenPath {
    fn from(text: String) -> Self {
        Self(read(&text))
    }
}

impl From<SeenPath> for String {
    fn from(path: SeenPath) -> Self {
        written(&path.0)
    }
}

impl fmt::Display for SeenPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&on_one_line(&self.0))
    }
}

impl fmt::Debug for SeenPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
