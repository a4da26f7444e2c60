//! What is said between a program and its `update-transport`: so little that reading it needs no parser to speak of.
//!
//! A request is one line: the position, a space, the address. The answer is a row of frames: one byte that says
//! what it is, four bytes of length (little-endian), so many bytes. First comes [`Frame::Begins`] (eight bytes:
//! where in the file the data begins), [`Frame::Absent`] or [`Frame::Failed`] (words); after `Begins` any number of
//! [`Frame::Data`], and last [`Frame::Ends`] or `Failed`.

use std::io::{self, Read, Write};

/// The longest address and its position, in bytes.
pub const REQUEST: usize = 8 << 10;

/// The most bytes of one frame.
pub const FRAME: usize = 64 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// The file is there; its data begins at the position that follows.
    Begins,
    /// There is no such file.
    Absent,
    /// It went wrong, and this is why.
    Failed,
    /// The server points to another one; where.
    Elsewhere,
    /// Some of the file.
    Data,
    /// The file ends here.
    Ends,
}

const FRAMES: [(Frame, u8); 6] = [
    (Frame::Begins, b'b'),
    (Frame::Absent, b'a'),
    (Frame::Failed, b'f'),
    (Frame::Elsewhere, b'w'),
    (Frame::Data, b'd'),
    (Frame::Ends, b'e'),
];

/// Writes a frame; what is longer than [`FRAME`] is cut.
pub fn write(to: &mut dyn Write, frame: Frame, content: &[u8]) -> io::Result<()> {
    let content = &content[..content.len().min(FRAME)];
    let kind = FRAMES.iter().find(|(one, _)| *one == frame).map_or(b'f', |(_, kind)| *kind);
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(content.len() as u32).to_le_bytes());
    to.write_all(&head)?;
    to.write_all(content)
}

/// Reads a frame into `content`.
pub fn read(from: &mut dyn Read, content: &mut Vec<u8>) -> io::Result<Frame> {
    let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let frame = FRAMES.iter().find(|(_, kind)| *kind == head[0]).map(|(frame, _)| *frame);
    let frame =
        frame.ok_or_else(|| broken(format!("expected the kind of a frame, found byte {}", head[0])))?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > FRAME {
        return Err(broken(format!("expected a frame of at most {FRAME} bytes, found {length}")));
    }
    content.clear();
    content.resize(length, 0);
    from.read_exact(content)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_nothing_else_is_one() {
        let mut bytes = Vec::new();
        for (frame, _) in FRAMES {
            write(&mut bytes, frame, b"content").unwrap();
        }
        let (mut from, mut content) = (&bytes[..], Vec::new());
        for (frame, _) in FRAMES {
            assert_eq!(read(&mut from, &mut content).unwrap(), frame);
            assert_eq!(content, b"content");
        }
        assert_eq!(read(&mut from, &mut content).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for lie in [&b"x\0\0\0\0"[..], b"d\xff\xff\xff\xff", b"d\x02\0\0\0x"] {
            assert!(read(&mut &*lie, &mut content).is_err(), "{lie:?}");
        }
    }
}
