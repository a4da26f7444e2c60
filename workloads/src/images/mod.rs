//! Container images in OCI archives (OCI image-spec 1.1: `image-layout.md`, `manifest.md`, `config.md`).
//!
//! What for: a payload whose digest was signed is a tar file that somebody else made. Before an engine gets any of it, the
//! one image that the manifest names is found in it, and every byte of that image is held against the digest that stands
//! above it: index, manifest, configuration, layers as they are packed, layers as they unpack.
//!
//! | file | what |
//! |---|---|
//! | `archive` | the blobs of a tar file, and the image among them |
//! | `documents` | index, manifest and configuration, as far as they are used |
//! | `unpacked` | layers decompressed, counted, bounded, and held against the configuration |
//! | `pack` | an archive of that image and nothing else, as engines read it |
//! | `error` | what can be wrong |
//!
//! Invariants:
//! - An image is known by the digest of its configuration, which names its unpacked layers, and so all of its files.
//! - What an engine is given was written here: no name, tag, link or leftover of the archive gets that far.
//!
//! It does not unpack: engines do, and compare with the configuration once more.

mod archive;
mod documents;
mod error;
mod pack;
#[cfg(test)]
pub(crate) mod specimen;
#[cfg(test)]
mod tests;
mod unpacked;

pub use archive::{ImageArchive, Platform};
pub use error::{Document, ImageArchiveError};
pub use pack::Form;

/// Reads bytes as each kind of document, for [`crate::fuzzing`].
pub(crate) fn read_documents(bytes: &[u8]) {
    let _ = documents::check_layout(bytes).map_err(|error| error.to_string());
    let _ = documents::index(bytes).map_err(|error| error.to_string());
    let _ =
        documents::configuration(bytes).and_then(|found| found.diff_ids()).map_err(|error| error.to_string());
    if let Ok(manifest) = documents::manifest(bytes) {
        manifest.layers.iter().for_each(|layer| drop(layer.packing().map_err(|error| error.to_string())));
    }
}

/// How much there may be of an image. Beyond it, it is a bomb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive.
    pub archive: u64,
    /// Files in it.
    pub files: u64,
    /// Bytes of an index, manifest or configuration.
    pub document: u64,
    /// Layers. Overlay takes 500 lower directories, engines 127 layers.
    pub layers: usize,
    /// Bytes of all layers, unpacked.
    pub unpacked: u64,
    /// Unpacked bytes per byte of a packed layer; looked at beyond [`Limits::ratio_free`].
    pub ratio: u64,
    /// Unpacked bytes that any layer may have.
    pub ratio_free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive: 17 << 30,
            files: 10_000,
            document: 4 << 20,
            layers: 127,
            unpacked: 64 << 30,
            ratio: 1000,
            ratio_free: 64 << 20,
        }
    }
}
