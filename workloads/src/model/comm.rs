//! A process's command name.
//!
//! The kernel keeps at most 15 bytes and cuts where they end: in the middle of a character, or after a blank.
//! Any process may call itself anything (`prctl(PR_SET_NAME)`), so these are bytes, compared as they are.

use std::fmt;

use manifests::text::shown;
use serde::{Deserialize, Serialize};

/// The command name of a process, as the kernel keeps it.
///
/// Written to records as text without loss: a backslash is doubled, a byte that belongs to no character becomes
/// `\xff`. Shown likewise, and what would act on a terminal is escaped too: a name is never two lines.
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
        f.write_str(&on_one_line(&self.0))
    }
}

impl From<Comm> for String {
    fn from(comm: Comm) -> Self {
        written(&comm.0)
    }
}

impl From<&[u8]> for Comm {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

/// Bytes as text without loss.
pub(super) fn written(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Bytes as a terminal may have them, on one line.
pub(super) fn on_one_line(bytes: &[u8]) -> String {
    let lines: Vec<String> = written(bytes).split('\n').map(shown).collect();
    lines.join("\\u{a}")
}

impl From<String> for Comm {
    /// The written form, and names in records of before there were escapes: a backslash that
    /// begins none stands for itself.
    fn from(text: String) -> Self {
        Self(read(&text))
    }
}

/// The bytes that [`written`] wrote.
pub(super) fn read(text: &str) -> Vec<u8> {
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
    bytes
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
    fn what_is_shown_is_one_line_without_anything_that_acts_on_a_terminal() {
        let shown = Comm::new(*b"\x1b[2J\xff\n\xc2\x9bx").to_string();
        assert_eq!(shown, "\\u{1b}[2J\\xff\\u{a}\\u{9b}x");
    }

    #[test]
    fn a_name_that_was_written_down_without_escapes_is_read_as_it_was() {
        assert_eq!(serde_json::from_str::<Comm>(r#""a\\b""#).unwrap().as_bytes(), br"a\b");
        assert_eq!(serde_json::from_str::<Comm>(r#""\\x4g""#).unwrap().as_bytes(), br"\x4g");
    }
}
