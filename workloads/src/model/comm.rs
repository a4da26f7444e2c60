//! A process's command name.
//!
//! The kernel keeps at most 15 bytes and cuts where they end: in the middle of a character, or after a blank.
//! Any process may call itself anything (`prctl(PR_SET_NAME)`), so these are bytes, compared as they are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The command name of a process, as the kernel keeps it.
///
/// Shown, and written to records, as text without loss: a backslash is doubled, a byte that belongs to no
/// character becomes `\xff`. Control characters are left to whoever prints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Comm(Vec<u8>);

impl Comm {
    /// The name that these bytes are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The content of `/proc/PID/comm`: the name and one newline that is not part of it.
    pub fn from_proc(content: &[u8]) -> Self {
        Self(content.strip_suffix(b"\n").unwrap_or(content).to_owned())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(&chunk.valid().replace('\\', r"\\"))?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl From<Comm> for String {
    fn from(comm: Comm) -> Self {
        comm.to_string()
    }
}

impl From<String> for Comm {
    /// What [`Display`](fmt::Display) writes, and names in records of before there were escapes: a backslash that
    /// begins none stands for itself.
    fn from(text: String) -> Self {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let (byte, left) = match (first, after) {
                (b'\\', [b'\\', left @ ..]) => (b'\\', left),
                (b'\\', [b'x', high, low, left @ ..]) => match hexadecimal(*high, *low) {
                    Some(byte) => (byte, left),
                    None => (first, after),
                },
                _ => (first, after),
            };
            bytes.push(byte);
            rest = left;
        }
        Self(bytes)
    }
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newline_of_proc_is_not_part_of_a_name() {
        assert_eq!(Comm::from_proc(b"keeper of five \n").as_bytes(), b"keeper of five ");
        assert_eq!(Comm::from_proc(b"two\n\n").as_bytes(), b"two\n");
        assert_eq!(Comm::from_proc(b"cut").as_bytes(), b"cut");
    }

    #[test]
    fn any_name_survives_being_written_down() {
        for bytes in
            [&b"plain"[..], b"", b"blank ", b"cut \xc3", b"\xff\xfe", b"a\\b", b"\\xff", b"\\", b"\n\t"]
        {
            let comm = Comm::new(bytes);
            let json = serde_json::to_string(&comm).unwrap();
            assert_eq!(serde_json::from_str::<Comm>(&json).unwrap(), comm, "{json}");
        }
        assert_eq!(Comm::new(*b"abc\xc3").to_string(), r"abc\xc3");
    }

    #[test]
    fn a_name_that_was_written_down_without_escapes_is_read_as_it_was() {
        assert_eq!(serde_json::from_str::<Comm>(r#""a\\b""#).unwrap().as_bytes(), br"a\b");
        assert_eq!(serde_json::from_str::<Comm>(r#""\\x4g""#).unwrap().as_bytes(), br"\x4g");
    }
}
