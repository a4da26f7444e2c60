//! From a bzImage to the kernel's ELF file.
//!
//! Format: `Documentation/x86/boot.rst`. The setup header at 0x1f1 gives the number of setup sectors; from
//! protocol 2.08 on it gives payload offset and length. The build appends the uncompressed size as 32 bits
//! to every payload but gzip's, which ends in it by itself (`scripts/Makefile.lib`, `size_append`). That
//! number is only used to reserve memory.

use std::io;

use liblzma::stream::{Action, Status, Stream};

use super::{ImageError, MAX_IMAGE};
use crate::elf::{Malformed, Rule};

const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol with payload offset and length.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;
/// The kernel's XZ dictionary has 32 MiB (`scripts/xz_wrap.sh`); LZMA's may have 128.
const LZMA_MEMORY: u64 = 256 << 20;
/// Legacy LZ4 frames hold blocks of at most 8 MiB.
const LZ4_BLOCK: usize = 8 << 20;

/// The uncompressed kernel (an ELF file) in a bzImage; an ELF file is returned as it is.
pub fn decompress(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    if image.len() > MAX_IMAGE {
        return Err(Malformed::new(0, Rule::FileSize, format!("{} bytes", image.len())).into());
    }
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let (payload, offset) = payload(image)?;
    let (method, result) = match payload {
        [0x1f, 0x8b, ..] => ("gzip", gzip(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            ("XZ", lzma(payload, Stream::new_stream_decoder(LZMA_MEMORY, 0)))
        }
        [0x5d, 0, 0, ..] => ("LZMA", lzma(payload, Stream::new_lzma_decoder(LZMA_MEMORY))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", zstd(payload)),
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => ("LZ4", lz4(blocks)),
        [0x7f, b'E', b'L', b'F', ..] => return Ok(payload.to_vec()),
        _ => {
            let magic = hex::encode(&payload[..payload.len().min(6)]);
            return Err(ImageError::Compression { offset, magic });
        }
    };
    result.map_err(|source| ImageError::Decompress { method, offset, source })
}

/// The compressed kernel and where it starts.
fn payload(image: &[u8]) -> Result<(&[u8], u64), Malformed> {
    let broken = |offset: usize, found: String| {
        Malformed::new(offset.min(image.len()) as u64, Rule::ImageSetup, found)
    };
    if image.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        let start = hex::encode(&image[..image.len().min(4)]);
        return Err(broken(
            HEADER_MAGIC,
            format!("a file of {} bytes that starts with {start}", image.len()),
        ));
    }
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or_else(|| broken(at, "the end of the file".to_owned()))
    };
    let protocol = word(PROTOCOL)? as u16;
    if protocol < PROTOCOL_WITH_PAYLOAD {
        return Err(broken(PROTOCOL, format!("boot protocol {}.{:02}", protocol >> 8, protocol & 0xff)));
    }
    // Zero stands for four, for the sake of very old kernels.
    let sectors = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let (offset, length) = (word(PAYLOAD_OFFSET)? as usize, word(PAYLOAD_LENGTH)? as usize);
    let start = (sectors + 1) * 512 + offset;
    match start.checked_add(length).and_then(|end| image.get(start..end)) {
        Some(payload) if length > 4 => Ok((payload, start as u64)),
        _ => {
            let found = format!("{length} bytes at {start:#x} in a file of {:#x} bytes", image.len());
            Err(broken(PAYLOAD_OFFSET, found))
        }
    }
}

/// Room for what the payload's last four bytes promise.
fn reserve(payload: &[u8]) -> Vec<u8> {
    let promised = payload.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    Vec::with_capacity(promised.min(MAX_IMAGE).min(payload.len().saturating_mul(64)))
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_IMAGE} bytes"))
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the data ends before the stream does")
}

/// Reads to the end of the stream; what the decoder leaves behind it is no concern.
fn read_all(mut decoder: impl io::Read, mut output: Vec<u8>) -> io::Result<Vec<u8>> {
    use io::Read as _;
    decoder.by_ref().take(MAX_IMAGE as u64 + 1).read_to_end(&mut output)?;
    if output.len() > MAX_IMAGE { Err(too_large()) } else { Ok(output) }
}

fn gzip(payload: &[u8]) -> io::Result<Vec<u8>> {
    read_all(flate2::bufread::GzDecoder::new(payload), reserve(payload))
}

fn zstd(payload: &[u8]) -> io::Result<Vec<u8>> {
    // One frame: the four bytes of size behind it are no frame.
    let mut decoder = zstd::stream::read::Decoder::with_buffer(payload)?.single_frame();
    // zstd -22 --ultra uses windows of 128 MiB (`scripts/Makefile.lib`).
    decoder.window_log_max(27)?;
    read_all(decoder, reserve(payload))
}

fn lzma(payload: &[u8], stream: Result<Stream, liblzma::stream::Error>) -> io::Result<Vec<u8>> {
    let mut stream = stream?;
    let mut output = reserve(payload);
    loop {
        if output.len() == output.capacity() {
            if output.len() >= MAX_IMAGE {
                return Err(too_large());
            }
            output.reserve(output.len().max(1 << 20));
        }
        let consumed = stream.total_in() as usize;
        let before = output.len();
        let status = stream.process_vec(&payload[consumed..], &mut output, Action::Run)?;
        if status == Status::StreamEnd {
            return Ok(output);
        }
        let stuck = output.len() == before && stream.total_in() as usize == consumed;
        if stuck && output.len() < output.capacity() {
            return Err(cut_short());
        }
    }
}

/// Legacy frame: blocks of a 32-bit length and as many bytes, up to the appended size.
fn lz4(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = reserve(blocks);
    // One for all blocks: to clear 8 MiB for each would let six bytes cost a millisecond.
    let mut unpacked = vec![0; LZ4_BLOCK];
    // The last four bytes are the uncompressed size, not the length of a block.
    while blocks.len() > 4 {
        let (length, rest) = blocks.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let (block, rest) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut_short)?;
        let written = lz4_flex::block::decompress_into(block, &mut unpacked)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        output.extend_from_slice(&unpacked[..written]);
        if output.len() > MAX_IMAGE {
            return Err(too_large());
        }
        blocks = rest;
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how long it takes is the test")]
    fn a_block_costs_what_is_in_it_and_not_what_could_be() {
        // A token for one literal byte, and the byte.
        let block = [2, 0, 0, 0, 0x10, b'x'];
        let blocks = [block.repeat(50_000), vec![0; 4]].concat();
        let begun = Instant::now();
        assert_eq!(lz4(&blocks).unwrap(), vec![b'x'; 50_000]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
