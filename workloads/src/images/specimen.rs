//! Archives of images, made by hand: good ones, and ones with a single thing wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use manifests::{ImageDigest, Sha256};
use serde_json::{Value, json};

/// An image layout whose parts can be changed before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Specimen {
    /// Files of the archive, by name.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// The image's id.
    pub(crate) image: ImageDigest,
    /// Its manifest's digest.
    pub(crate) manifest: ImageDigest,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// A layer: its media type, its packed bytes, and the digest of the unpacked ones.
#[derive(Debug, Clone)]
pub(crate) struct LayerSpecimen {
    pub(crate) media_type: &'static str,
    pub(crate) packed: Vec<u8>,
    pub(crate) diff_id: ImageDigest,
}

pub(crate) fn digest(bytes: &[u8]) -> ImageDigest {
    Sha256::of(bytes).into()
}

pub(crate) fn layer(content: &[u8], packed: Packed) -> LayerSpecimen {
    let (media_type, bytes) = match packed {
        Packed::Plain => ("application/vnd.oci.image.layer.v1.tar", content.to_vec()),
        Packed::Gzip => ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(content)),
        Packed::Zstd => {
            ("application/vnd.oci.image.layer.v1.tar+zstd", zstd::stream::encode_all(content, 1).unwrap())
        }
    };
    LayerSpecimen { media_type, packed: bytes, diff_id: digest(content) }
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The configuration of an image with these layers, with a word that makes it another one than any other.
pub(crate) fn configuration(word: &str, diff_ids: &[ImageDigest]) -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/usr/bin/greetd"], "Labels": { "word": word } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub(crate) fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", Sha256::of(bytes)), bytes.to_vec())
}

impl Specimen {
    /// An image of these layers.
    pub(crate) fn of(word: &str, layers: &[LayerSpecimen]) -> Self {
        let diff_ids: Vec<ImageDigest> = layers.iter().map(|layer| layer.diff_id).collect();
        Self::with(&configuration(word, &diff_ids), layers)
    }

    /// With this configuration.
    pub(crate) fn with(configuration: &Value, layers: &[LayerSpecimen]) -> Self {
        let configuration = configuration.to_string().into_bytes();
        let described: Vec<Value> =
            layers.iter().map(|layer| descriptor(layer.media_type, &layer.packed)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &configuration),
            "layers": described,
        });
        let manifest = manifest.to_string().into_bytes();
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, &manifest)] });
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            blob(&configuration),
            blob(&manifest),
        ];
        files.extend(layers.iter().map(|layer| blob(&layer.packed)));
        Self { files, image: digest(&configuration), manifest: digest(&manifest) }
    }

    /// A small image, the same for each word.
    pub(crate) fn small(word: &str) -> Self {
        Self::of(word, &[layer(b"lowest", Packed::Gzip), layer(word.as_bytes(), Packed::Plain)])
    }

    /// The bytes of one of its files.
    pub(crate) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.files.iter_mut().find(|(own, _)| own == name).unwrap().1
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.files.retain(|(own, _)| own != name);
        self
    }

    /// Its archive.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if name.contains("..") {
                // The writer would not.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                archive.append(&header, &bytes[..]).unwrap();
            } else {
                archive.append_data(&mut header, name, &bytes[..]).unwrap();
            }
        }
        archive.into_inner().unwrap()
    }

    /// A file with its archive.
    pub(crate) fn archive(&self) -> File {
        file_of(&self.bytes())
    }
}

pub(crate) fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// What lies in a plain archive.
pub(crate) fn contents(mut archive: &File) -> BTreeMap<String, Vec<u8>> {
    archive.rewind().unwrap();
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    });
    entries.collect()
}
