//! Index, manifest and configuration of an image, as far as they are used. Bytes in, values out.
//!
//! Docker's documents of the same shape (image manifest version 2, schema 2) are taken, too: engines keep and save both.

use manifests::ImageDigest;
use serde::Deserialize;

use crate::images::error::{Document, ImageArchiveError};

/// What stands in `oci-layout`.
#[derive(Debug, Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// A reference to a blob (`descriptor.md`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    digest: String,
    pub(super) size: u64,
}

/// Several images, or indexes of them (`image-index.md`).
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// An image (`manifest.md`).
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// What an image is for and made of (`config.md`).
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    pub(super) architecture: String,
    pub(super) os: String,
    rootfs: Rootfs,
}

#[derive(Debug, Deserialize)]
struct Rootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<String>,
}

/// What a descriptor of an index leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    ToIndex,
    ToManifest,
    /// Something that is no image: a signature, a list of parts.
    Elsewhere,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Descriptor {
    /// The blob's digest.
    pub(super) fn digest(&self, of: Document) -> Result<ImageDigest, ImageArchiveError> {
        digest(&self.digest, of)
    }

    pub(super) fn leads(&self) -> Leads {
        match self.media_type.as_str() {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Leads::ToIndex,
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Leads::ToManifest,
            _ => Leads::Elsewhere,
        }
    }

    pub(super) fn packing(&self) -> Result<Packing, ImageArchiveError> {
        Ok(match self.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Packing::Plain
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Packing::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd" => Packing::Zstd,
            other => {
                let expected = "layers that are tar, tar+gzip or tar+zstd";
                return Err(kind(Document::Manifest, expected, other));
            }
        })
    }
}

impl Configuration {
    /// The digests of the unpacked layers, lowest first.
    pub(super) fn diff_ids(&self) -> Result<Vec<ImageDigest>, ImageArchiveError> {
        self.rootfs.diff_ids.iter().map(|text| digest(text, Document::Configuration)).collect()
    }
}

/// Whether this is a layout of a version that is known.
pub(super) fn check_layout(bytes: &[u8]) -> Result<(), ImageArchiveError> {
    let Layout { version } = parse(Document::Layout, bytes)?;
    match version.as_str() {
        "1.0.0" => Ok(()),
        other => Err(kind(Document::Layout, "version 1.0.0", other)),
    }
}

pub(super) fn index(bytes: &[u8]) -> Result<Index, ImageArchiveError> {
    parse(Document::Index, bytes)
}

pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, ImageArchiveError> {
    parse(Document::Manifest, bytes)
}

pub(super) fn configuration(bytes: &[u8]) -> Result<Configuration, ImageArchiveError> {
    let found: Configuration = parse(Document::Configuration, bytes)?;
    match found.rootfs.kind.as_str() {
        "layers" => Ok(found),
        other => Err(kind(Document::Configuration, "a rootfs of layers", other)),
    }
}

fn parse<'a, T: Deserialize<'a>>(document: Document, bytes: &'a [u8]) -> Result<T, ImageArchiveError> {
    serde_json::from_slice(bytes).map_err(|source| ImageArchiveError::Document { document, source })
}

fn digest(text: &str, of: Document) -> Result<ImageDigest, ImageArchiveError> {
    text.parse().map_err(|_| ImageArchiveError::Algorithm { of, found: shortened(text) })
}

fn kind(document: Document, expected: &'static str, found: &str) -> ImageArchiveError {
    ImageArchiveError::Kind { document, expected, found: shortened(found) }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
