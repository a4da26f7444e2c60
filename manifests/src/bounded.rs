//! Reading that stops: documents are small, and a large one is refused without being read.

use std::io::{self, Read};

/// Why a document was not read.
#[derive(Debug, thiserror::Error)]
pub enum BoundedError {
    /// It goes on after the largest size that such a document has.
    #[error("expected at most {limit} bytes, found more")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The source failed.
    #[error("reading failed")]
    Io(#[from] io::Error),
}

/// Reads to the end; takes no more than one byte past `limit`.
pub fn read(source: impl Read, limit: usize) -> Result<Vec<u8>, BoundedError> {
    let mut bytes = Vec::new();
    source.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(BoundedError::TooLarge { limit }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that counts what was taken from it.
    struct Endless {
        taken: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'a');
            self.taken += buffer.len();
            Ok(buffer.len())
        }
    }

    #[test]
    fn an_endless_document_is_refused_after_one_byte_too_many() {
        let mut source = Endless { taken: 0 };
        assert!(matches!(read(&mut source, 1000), Err(BoundedError::TooLarge { limit: 1000 })));
        assert_eq!(source.taken, 1001);
        assert_eq!(read(&b"abc"[..], 3).unwrap(), b"abc");
    }
}
