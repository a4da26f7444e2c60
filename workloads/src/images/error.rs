//! What can be wrong with an image's archive.

use std::fmt;
use std::io;

use manifests::{ImageDigest, Sha256};

use crate::files::layer::{EntryName, LayerError};

/// Why an image is not taken out of an archive. No engine has got any of it.
#[derive(Debug, thiserror::Error)]
pub enum ImageArchiveError {
    /// It is no well-formed tar archive, or has links in it.
    #[error("the image's archive cannot be read as tar")]
    Tar(#[from] LayerError),
    /// It cannot be read, or what is made of it cannot be written.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file that an image layout does not have.
    #[error(
        "the archive is no OCI image layout: expected oci-layout, index.json and blobs/sha256/DIGEST, found {name}"
    )]
    Stray {
        /// Its name.
        name: EntryName,
    },
    /// A file is there twice.
    #[error("the archive has {name} twice")]
    Twice {
        /// Its name.
        name: EntryName,
    },
    /// A file whose name is not the digest of its bytes.
    #[error("the archive's blob sha256:{expected} has other bytes: their SHA-256 is {found}")]
    Changed {
        /// Its name.
        expected: Sha256,
        /// The digest of its bytes.
        found: Sha256,
    },
    /// A file that has to be there is not.
    #[error("the archive is no OCI image layout: it has no {name}")]
    Lacks {
        /// Its name.
        name: &'static str,
    },
    /// A blob that another one names is not there, or is of another size.
    #[error("{of} names {digest} with {expected} bytes, and the archive has {}", of_size(*.found))]
    Blob {
        /// Which document names it.
        of: Document,
        /// The blob.
        digest: ImageDigest,
        /// Its size there, in bytes.
        expected: u64,
        /// Its size in the archive; nothing if it is not there.
        found: Option<u64>,
    },
    /// A digest of another algorithm, or no digest at all.
    #[error("{of} names a blob by {found:?}: expected sha256: and 64 digits")]
    Algorithm {
        /// Which document.
        of: Document,
        /// What stands there, shortened.
        found: String,
    },
    /// A document is not what it should be.
    #[error("{document} of the image's archive cannot be read")]
    Document {
        /// Which.
        document: Document,
        /// Why.
        source: serde_json::Error,
    },
    /// A document of a kind or version that is not known here.
    #[error("{document}: expected {expected}, found {found:?}")]
    Kind {
        /// Which.
        document: Document,
        /// What is known.
        expected: &'static str,
        /// What it says, shortened.
        found: String,
    },
    /// There is too much of something.
    #[error("the image has too much: expected at most {allowed} {what}, found {found}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        allowed: u64,
        /// How much there is, as far as was counted.
        found: u64,
    },
    /// No image of the archive has that configuration, or several manifests do.
    #[error("the archive has {} with the configuration {image}, expected one; it has {}", count(*.matching), list(.found))]
    Image {
        /// The image that the manifest names.
        image: ImageDigest,
        /// How many there are.
        matching: usize,
        /// The configurations that there are.
        found: Vec<ImageDigest>,
    },
    /// The configuration does not name as many layers as the manifest.
    #[error("the image's configuration names {configured} layers, its manifest {found}")]
    Layers {
        /// By the configuration.
        configured: usize,
        /// By the manifest.
        found: usize,
    },
    /// A layer cannot be decompressed.
    #[error("layer {digest} of the image cannot be decompressed after {offset} bytes")]
    Decompress {
        /// Which.
        digest: ImageDigest,
        /// Bytes that were decompressed before.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A layer unpacks to something else than the configuration says.
    #[error("layer {digest} of the image unpacks to {found}, and its configuration says {expected}")]
    Unpacked {
        /// Which.
        digest: ImageDigest,
        /// What the configuration says.
        expected: ImageDigest,
        /// What it is.
        found: ImageDigest,
    },
}

impl ImageArchiveError {
    pub(super) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// A document of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// `oci-layout`.
    Layout,
    /// `index.json`, or an index below it.
    Index,
    /// An image's manifest.
    Manifest,
    /// An image's configuration.
    Configuration,
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Layout => "oci-layout",
            Self::Index => "an index",
            Self::Manifest => "a manifest",
            Self::Configuration => "a configuration",
        })
    }
}

fn of_size(found: Option<u64>) -> String {
    found.map_or_else(|| "none such".to_owned(), |bytes| format!("one of {bytes} bytes"))
}

fn count(matching: usize) -> String {
    if matching == 0 { "no image".to_owned() } else { format!("{matching} manifests") }
}

fn list(digests: &[ImageDigest]) -> String {
    let words: Vec<String> = digests.iter().map(ToString::to_string).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
