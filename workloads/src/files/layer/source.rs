//! The bytes of a layer's archive: decompressed, counted and bounded.
//!
//! Invariant: no byte beyond a limit is handed out. It does not know what the bytes mean.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use manifests::LayerFormat;

use crate::files::layer::Limits;
use crate::files::layer::error::{Bound, EntryName, Fault, LayerError};

/// tar's unit (POSIX.1-2017, pax, "ustar Interchange Format").
pub(super) const BLOCK: usize = 512;

/// A zstd frame may ask for 128 MiB of memory (2^27), which is the default of `zstd -d` and covers `--long`.
const WINDOW_LOG_MAX: u32 = 27;

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// First bytes of a skippable frame, but for the low half of the first (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// The decompressed archive.
pub(super) struct Source {
    input: Input,
    /// Bytes handed out.
    offset: u64,
    /// Bytes of the payload.
    packed: u64,
    limits: Limits,
}

enum Input {
    Plain(File),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<File>>>),
}

impl Source {
    /// Reads `payload` from its start.
    pub(super) fn new(payload: &File, format: LayerFormat, limits: Limits) -> Result<Self, LayerError> {
        let read = |source| LayerError::Read { offset: 0, source };
        let mut payload = payload.try_clone().map_err(read)?;
        payload.rewind().map_err(read)?;
        let packed = payload.metadata().map_err(read)?.len();
        let mut start = Vec::new();
        (&payload).take(ZSTD.len() as u64).read_to_end(&mut start).map_err(read)?;
        payload.rewind().map_err(read)?;
        check_format(format, &start)?;
        let input = match format {
            LayerFormat::Tar => Input::Plain(payload),
            LayerFormat::TarZstd => {
                let mut decoder = zstd::stream::read::Decoder::new(payload).map_err(read)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(read)?;
                Input::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { input, offset: 0, packed, limits })
    }

    /// Bytes of archive handed out so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Refuses content that will cross the limit before any of it is written.
    pub(super) fn announce(&self, size: u64) -> Result<(), LayerError> {
        match self.offset.checked_add(size) {
            Some(end) if end <= self.limits.bytes => Ok(()),
            _ => Err(self.too_large(Bound::Bytes, self.limits.bytes)),
        }
    }

    /// Reads what is there, up to the length of `buffer`; 0 is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        loop {
            let result = match &mut self.input {
                Input::Plain(file) => file.read(buffer),
                Input::Zstd(decoder) => decoder.read(buffer),
            };
            match result {
                Ok(count) => {
                    self.count(count as u64)?;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset;
                    return Err(match self.input {
                        Input::Plain(_) => LayerError::Read { offset, source },
                        Input::Zstd(_) => LayerError::Decompress { offset, source },
                    });
                }
            }
        }
    }

    /// Fills `buffer`; `expected` names it when the archive ends before.
    pub(super) fn fill(&mut self, buffer: &mut [u8], expected: &'static str) -> Result<(), LayerError> {
        match self.fill_or_end(buffer)? {
            count if count == buffer.len() => Ok(()),
            _ => Err(self.damaged(Fault::Truncated { expected })),
        }
    }

    /// Fills `buffer` as far as the archive goes, and says how far.
    pub(super) fn fill_or_end(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// A fault right here.
    pub(super) fn damaged(&self, fault: Fault) -> LayerError {
        LayerError::Damaged { offset: self.offset, fault }
    }

    fn count(&mut self, count: u64) -> Result<(), LayerError> {
        self.offset = self.offset.saturating_add(count);
        if self.offset > self.limits.bytes {
            return Err(self.too_large(Bound::Bytes, self.limits.bytes));
        }
        let fair = self.packed.saturating_mul(self.limits.ratio);
        if self.offset > self.limits.ratio_free && self.offset > fair {
            return Err(self.too_large(Bound::Ratio, self.limits.ratio));
        }
        Ok(())
    }

    fn too_large(&self, bound: Bound, allowed: u64) -> LayerError {
        LayerError::TooLarge { bound, allowed, offset: self.offset }
    }
}

/// Another packing than the manifest's would only show as a strange header; this names it.
fn check_format(expected: LayerFormat, start: &[u8]) -> Result<(), LayerError> {
    let is_zstd = start == ZSTD
        || start.first().is_some_and(|first| first & 0xf0 == SKIPPABLE[0]) && start[1..] == SKIPPABLE[1..];
    let found = match (expected, start) {
        (LayerFormat::TarZstd, _) if is_zstd => return Ok(()),
        (LayerFormat::Tar, _) if is_zstd => "a zstd stream".to_owned(),
        (_, [0x1f, 0x8b, ..]) => "a gzip stream".to_owned(),
        (_, [0xfd, b'7', b'z', b'X']) => "an xz stream".to_owned(),
        (LayerFormat::Tar, _) => return Ok(()),
        (LayerFormat::TarZstd, []) => "an empty file".to_owned(),
        (LayerFormat::TarZstd, _) => format!("the first bytes {}", EntryName::from(start)),
    };
    Err(LayerError::Format { expected, found })
}
