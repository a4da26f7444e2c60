//! Layers as they unpack: decompressed, counted, bounded, and held against the configuration. Nothing is kept.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use manifests::{ImageDigest, Sha256};
use sha2::Digest as _;

use crate::images::archive::{Blob, ImageArchive, LayerBlob, expect_at_most};
use crate::images::documents::Packing;
use crate::images::error::ImageArchiveError;

/// A zstd frame may ask for 128 MiB of memory (2^27), as for a fix layer.
const WINDOW_LOG_MAX: u32 = 27;

const CHUNK: usize = 256 * 1024;

/// Part of a file, read at its place whoever else reads the file.
pub(super) struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl<'a> Part<'a> {
    pub(super) fn of(file: &'a File, blob: Blob) -> Self {
        Self { file, at: blob.at, left: blob.size }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl ImageArchive {
    /// Unpacks every layer to nowhere: each has to come to what the configuration says, and all of them to no more than an
    /// image may have. Returns how many bytes they come to.
    ///
    /// # Errors
    /// [`ImageArchiveError::Unpacked`], [`ImageArchiveError::TooMuch`], [`ImageArchiveError::Decompress`].
    pub fn check_layers(&self) -> Result<u64, ImageArchiveError> {
        let mut all = 0;
        for layer in &self.layers {
            all += self.check_layer(layer, self.limits.unpacked - all)?;
        }
        Ok(all)
    }

    fn check_layer(&self, layer: &LayerBlob, allowed: u64) -> Result<u64, ImageArchiveError> {
        let digest = layer.blob.digest;
        let failed = |offset| move |source| ImageArchiveError::Decompress { digest, offset, source };
        let part = BufReader::new(Part::of(&self.file, layer.blob));
        let mut reader: Box<dyn Read + '_> = match layer.packing {
            Packing::Plain => Box::new(part),
            // Several streams behind each other are one (RFC 1952, 2.2).
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(part)),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(part).map_err(failed(0))?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed(0))?;
                Box::new(decoder)
            }
        };
        let fair = layer.blob.size.saturating_mul(self.limits.ratio).max(self.limits.ratio_free);
        let (mut hash, mut offset) = (sha2::Sha256::new(), 0);
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(offset)(error)),
            };
            offset += count as u64;
            expect_at_most("bytes of unpacked layers", allowed, offset)?;
            expect_at_most("unpacked bytes for a layer that is packed so small", fair, offset)?;
            hash.update(&buffer[..count]);
        }
        let found = ImageDigest::from(Sha256::from_bytes(hash.finalize().into()));
        match found == layer.diff_id {
            true => Ok(offset),
            false => Err(ImageArchiveError::Unpacked { digest, expected: layer.diff_id, found }),
        }
    }
}
