//! Digests of files that may be of any size: holes are not read, and between two chunks somebody may say stop.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use manifests::Sha256;
use nix::unistd::{Whence, lseek};
use sha2::Digest as _;

/// What is read at once.
const CHUNK: usize = 1 << 18;

/// The digest of these bytes; `go_on` is asked between two chunks.
pub(crate) fn digest<E: From<io::Error>>(
    file: &File,
    bytes: Range<u64>,
    go_on: impl Fn() -> Result<(), E>,
) -> Result<Sha256, E> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let zeros = vec![0; CHUNK];
    let Range { start: mut at, end: size } = bytes;
    let mut data_until = 0;
    while at < size {
        go_on()?;
        let chunk = |until: u64| usize::try_from(until.min(size) - at).unwrap_or(CHUNK).min(CHUNK);
        if at >= data_until {
            let data_from = seek(file, at, Whence::SeekData)?.unwrap_or(size);
            if data_from > at {
                let length = chunk(data_from);
                hash.update(&zeros[..length]);
                at += length as u64;
                continue;
            }
            data_until = seek(file, at, Whence::SeekHole)?.unwrap_or(size);
        }
        let length = chunk(data_until.max(at + 1));
        match file.read_at(&mut buffer[..length], at)? {
            // It has become shorter.
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

/// Where data or a hole begins at or after `at`; `None` if there is none any more. On a file system that does
/// not tell, all is data.
fn seek(file: &File, at: u64, what: Whence) -> io::Result<Option<u64>> {
    let Ok(from) = i64::try_from(at) else { return Ok(None) };
    match lseek(file, from, what) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(nix::Error::ENXIO) => Ok(None),
        Err(nix::Error::EINVAL) if what as i32 == nix::libc::SEEK_DATA => Ok(Some(at)),
        Err(nix::Error::EINVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn whole(file: &File, size: u64) -> Sha256 {
        digest(file, 0..size, || io::Result::Ok(())).unwrap()
    }

    #[test]
    fn holes_count_as_the_zeros_that_they_are() {
        let mut sparse = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 5 << 20];
        for (at, words) in [(0, &b"begin"[..]), (1 << 20, b"middle"), (3 << 20, b"end")] {
            sparse.write_all_at(words, at as u64).unwrap();
            bytes[at..at + words.len()].copy_from_slice(words);
        }
        sparse.set_len(bytes.len() as u64).unwrap();
        sparse.flush().unwrap();
        assert_eq!(whole(&sparse, bytes.len() as u64), Sha256::of(&bytes));
        assert_eq!(whole(&sparse, 7), Sha256::of(&bytes[..7]));
    }

    #[test]
    fn hashing_ends_when_it_is_asked_to() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 40).unwrap();
        let chunks = std::cell::Cell::new(0);
        let result = digest(&file, 0..8 << 40, || {
            chunks.set(chunks.get() + 1);
            if chunks.get() > 3 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        let error: io::Error = result.unwrap_err();
        assert_eq!((error.kind(), chunks.get()), (io::ErrorKind::Interrupted, 4));
    }
}
