//! The blobs of an image layout in a tar file, and one image among them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use manifests::{ImageDigest, Sha256};
use sha2::Digest as _;

use crate::files::layer::{self, Members};
use crate::images::Limits;
use crate::images::documents::{self, Descriptor, Leads, Packing};
use crate::images::error::{Document, ImageArchiveError};

/// How deep an index may lie below `index.json`: engines write one for an image with attestations.
const DEPTH: usize = 2;

/// Large enough that hashing, not system calls, sets the pace.
const CHUNK: usize = 256 * 1024;

/// One image of an archive; every blob of it has the bytes that its digest says.
#[derive(Debug)]
pub struct ImageArchive {
    pub(super) file: File,
    pub(super) limits: Limits,
    /// The manifest's media type, as the index gives it.
    pub(super) media_type: String,
    pub(super) manifest: Blob,
    pub(super) configuration: Blob,
    pub(super) layers: Vec<LayerBlob>,
    platform: Platform,
}

/// What an image runs on, in the words of its configuration (Go's `GOOS` and `GOARCH`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
}

impl Platform {
    /// Whether it is a Linux of this machine architecture, as `uname -m` prints it.
    pub fn is_for(&self, machine: &str) -> bool {
        let architecture = match machine {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.os == "linux" && self.architecture == architecture
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())
    }
}

/// Where a blob lies in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: ImageDigest,
    pub(super) at: u64,
    pub(super) size: u64,
}

/// A layer as it is packed, and the digest of what it unpacks to.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerBlob {
    pub(super) blob: Blob,
    pub(super) packing: Packing,
    pub(super) diff_id: ImageDigest,
}

impl ImageArchive {
    /// The image with this configuration, of an archive in which every blob has been held against its digest.
    ///
    /// # Errors
    /// [`ImageArchiveError`].
    pub fn open(archive: &File, image: &ImageDigest) -> Result<Self, ImageArchiveError> {
        Self::open_within(archive, image, Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// [`ImageArchiveError`].
    pub fn open_within(
        archive: &File,
        image: &ImageDigest,
        limits: Limits,
    ) -> Result<Self, ImageArchiveError> {
        let blobs = Blobs::read(archive, limits)?;
        documents::check_layout(&blobs.layout)?;
        let mut manifests = Vec::new();
        blobs.gather(&blobs.index, DEPTH, &mut manifests)?;
        let mut found = Vec::new();
        let mut matching = Vec::new();
        for (media_type, blob) in manifests {
            let manifest = documents::manifest(&blobs.bytes(blob)?)?;
            let configured = manifest.config.digest(Document::Manifest)?;
            match configured == *image {
                true => matching.push((media_type, blob, manifest)),
                false => found.push(configured),
            }
        }
        found.sort();
        found.dedup();
        let [_] = &matching[..] else {
            return Err(ImageArchiveError::Image { image: *image, matching: matching.len(), found });
        };
        let (media_type, manifest, contents) = matching.remove(0);
        let configuration = blobs.named(&contents.config, Document::Manifest)?;
        let configured = documents::configuration(&blobs.bytes(configuration)?)?;
        let diff_ids = configured.diff_ids()?;
        if diff_ids.len() != contents.layers.len() {
            let (configured, found) = (diff_ids.len(), contents.layers.len());
            return Err(ImageArchiveError::Layers { configured, found });
        }
        expect_at_most("layers", limits.layers as u64, diff_ids.len() as u64)?;
        let layers = contents.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
            let blob = blobs.named(layer, Document::Manifest)?;
            Ok::<_, ImageArchiveError>(LayerBlob { blob, packing: layer.packing()?, diff_id })
        });
        let layers = layers.collect::<Result<_, ImageArchiveError>>()?;
        let platform = Platform { os: configured.os, architecture: configured.architecture };
        Ok(Self { file: blobs.file, limits, media_type, manifest, configuration, layers, platform })
    }

    /// The digest of its configuration: what engines call its id.
    pub fn image(&self) -> ImageDigest {
        self.configuration.digest
    }

    /// The digest of its manifest.
    pub fn manifest(&self) -> ImageDigest {
        self.manifest.digest
    }

    /// What it runs on.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The digests of its unpacked layers, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = ImageDigest> {
        self.layers.iter().map(|layer| layer.diff_id)
    }
}

/// What lies in an archive.
struct Blobs {
    file: File,
    limits: Limits,
    layout: Vec<u8>,
    index: Vec<u8>,
    blobs: BTreeMap<Sha256, Blob>,
}

impl Blobs {
    /// Reads the archive once, to its end.
    fn read(archive: &File, limits: Limits) -> Result<Self, ImageArchiveError> {
        let file = archive.try_clone().map_err(ImageArchiveError::io("read the image's archive"))?;
        let bounds =
            layer::Limits { bytes: limits.archive, entries: limits.files, ..layer::Limits::default() };
        let mut members = Members::of(archive, bounds)?;
        let (mut layout, mut index) = (None, None);
        let mut blobs: BTreeMap<Sha256, Blob> = BTreeMap::new();
        while let Some(member) = members.next()? {
            let twice = || ImageArchiveError::Twice { name: member.name.clone() };
            let name = member.name.as_bytes();
            let slot = match name.strip_prefix(b"./").unwrap_or(name) {
                b"oci-layout" => &mut layout,
                b"index.json" => &mut index,
                // docker's older form of the same, beside a layout; nothing is taken from it.
                b"manifest.json" | b"repositories" => continue,
                other => {
                    let stray = || ImageArchiveError::Stray { name: member.name.clone() };
                    let digest = blob_name(other).ok_or_else(stray)?;
                    let found = hash(&mut members)?;
                    if found != digest {
                        return Err(ImageArchiveError::Changed { expected: digest, found });
                    }
                    let blob = Blob { digest: digest.into(), at: member.at, size: member.size };
                    match blobs.insert(digest, blob) {
                        None => continue,
                        Some(_) => return Err(twice()),
                    }
                }
            };
            expect_at_most("bytes of an index", limits.document, member.size)?;
            let mut bytes = Vec::new();
            read_to_end(&mut members, |chunk| bytes.extend_from_slice(chunk))?;
            if slot.replace(bytes).is_some() {
                return Err(twice());
            }
        }
        let lacks = |name| move || ImageArchiveError::Lacks { name };
        let layout = layout.ok_or_else(lacks("oci-layout"))?;
        let index = index.ok_or_else(lacks("index.json"))?;
        Ok(Self { file, limits, layout, index, blobs })
    }

    /// The manifests below an index, with their media types.
    fn gather(
        &self,
        index: &[u8],
        depth: usize,
        into: &mut Vec<(String, Blob)>,
    ) -> Result<(), ImageArchiveError> {
        for descriptor in documents::index(index)?.manifests {
            match descriptor.leads() {
                Leads::ToManifest => {
                    let blob = self.named(&descriptor, Document::Index)?;
                    // An index may say the same twice.
                    if !into.iter().any(|(_, known)| *known == blob) {
                        into.push((descriptor.media_type, blob));
                    }
                }
                Leads::ToIndex if depth > 0 => {
                    let blob = self.named(&descriptor, Document::Index)?;
                    self.gather(&self.bytes(blob)?, depth - 1, into)?;
                }
                Leads::ToIndex => {
                    let (allowed, found) = (DEPTH as u64, DEPTH as u64 + 1);
                    return Err(ImageArchiveError::TooMuch {
                        what: "indexes below each other",
                        allowed,
                        found,
                    });
                }
                Leads::Elsewhere => {}
            }
            expect_at_most("manifests in one archive", 64, into.len() as u64)?;
        }
        Ok(())
    }

    /// The blob that a descriptor names, which has the size that it says.
    fn named(&self, descriptor: &Descriptor, of: Document) -> Result<Blob, ImageArchiveError> {
        let digest = descriptor.digest(of)?;
        let found = self.blobs.get(digest.sha256()).copied();
        found.filter(|blob| blob.size == descriptor.size).ok_or(ImageArchiveError::Blob {
            of,
            digest,
            expected: descriptor.size,
            found: found.map(|blob| blob.size),
        })
    }

    /// The bytes of a document.
    fn bytes(&self, blob: Blob) -> Result<Vec<u8>, ImageArchiveError> {
        expect_at_most("bytes of a document", self.limits.document, blob.size)?;
        let mut bytes = vec![0; usize::try_from(blob.size).unwrap_or(usize::MAX)];
        let read = self.file.read_exact_at(&mut bytes, blob.at);
        read.map_err(ImageArchiveError::io("read the image's archive"))?;
        // The file may be written to by somebody else meanwhile; what counts is what was read.
        let found = Sha256::of(&bytes);
        match found == *blob.digest.sha256() {
            true => Ok(bytes),
            false => Err(ImageArchiveError::Changed { expected: *blob.digest.sha256(), found }),
        }
    }
}

/// The digest that a blob's name states.
fn blob_name(name: &[u8]) -> Option<Sha256> {
    let digits = name.strip_prefix(b"blobs/sha256/")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hash(members: &mut Members) -> Result<Sha256, ImageArchiveError> {
    let mut hash = sha2::Sha256::new();
    read_to_end(members, |chunk| hash.update(chunk))?;
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

fn read_to_end(members: &mut Members, mut each: impl FnMut(&[u8])) -> Result<(), ImageArchiveError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match members.read(&mut buffer)? {
            0 => return Ok(()),
            count => each(&buffer[..count]),
        }
    }
}

pub(super) fn expect_at_most(what: &'static str, allowed: u64, found: u64) -> Result<(), ImageArchiveError> {
    match found <= allowed {
        true => Ok(()),
        false => Err(ImageArchiveError::TooMuch { what, allowed, found }),
    }
}
