//! Words that anybody may have chosen, as the kernel hands them on: bytes, in no encoding.
//!
//! A process names itself (`prctl(PR_SET_NAME)`), and the kernel cuts the name at 15 bytes, be that inside of
//! a character. Paths are bytes too. So both are kept and compared as they are:
//!
//! - shown, what is no text or would act on a terminal is escaped: one word never is two lines;
//! - written down (JSON), what is no UTF-8 is written as `\xNN`, and so is a backslash: nothing is lost.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use manifests::text::shown;
use serde::{Deserialize, Serialize};

/// The name of a task, at most 15 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Comm(Vec<u8>);

/// A path as some process sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SeenPath(Vec<u8>);

impl Comm {
    /// From `/proc/PID/comm`, which ends with one line feed that is not part of the name.
    #[must_use]
    pub fn from_file(content: &[u8]) -> Self {
        Self(content.strip_suffix(b"\n").unwrap_or(content).to_owned())
    }
}

macro_rules! bytes {
    ($name:ident) => {
        impl $name {
            /// The bytes as they are.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(bytes.to_owned())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.as_bytes().to_owned())
            }
        }

        /// The written form; see [`read`].
        impl From<String> for $name {
            fn from(written: String) -> Self {
                Self(read(&written))
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                written(&word.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for chunk in self.0.utf8_chunks() {
                    f.write_str(&shown(chunk.valid()).replace("\n    ", "\\u{a}"))?;
                    chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{self}\"")
            }
        }
    };
}

bytes!(Comm);
bytes!(SeenPath);

impl SeenPath {
    /// As a path, to be looked up below the right root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// For people, and for places that take text only: what is no text is escaped.
    #[must_use]
    pub fn to_text(&self) -> PathBuf {
        PathBuf::from(self.to_string())
    }
}

impl From<&Path> for SeenPath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_owned())
    }
}

/// UTF-8 that holds all of `bytes`: what is none, and every backslash, as `\xNN`.
fn written(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\x5c"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// The bytes of a written form. A backslash that begins no `\xNN` stands for itself.
fn read(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        let byte = after.strip_prefix('x').and_then(|digits| digits.get(..2));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(b'\\');
                rest = after;
            }
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: [&[u8]; 7] = [
        b"plain",
        b"keeper of five ",
        b"abcdefghijklmn\xc3",
        b"\xff\xfe",
        b"a\\xffb",
        b"\\",
        b"\x1b[31m\nno\tpe",
    ];

    #[test]
    fn nothing_of_a_name_is_lost_when_it_is_written_down() {
        for bytes in ODD {
            let written = serde_json::to_string(&Comm::from(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<Comm>(&written).unwrap().as_bytes(), bytes, "{written}");
        }
        let old: Comm = serde_json::from_str(r#""C:\\dir\\x""#).unwrap();
        assert_eq!(old.as_bytes(), b"C:\\dir\\x", "written before backslashes were escaped");
    }

    #[test]
    fn what_is_shown_is_one_line_without_anything_that_acts_on_a_terminal() {
        for bytes in ODD {
            let shown = Comm::from(bytes).to_string();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
        assert_eq!(Comm::from(&b"\x1b[2J\xff\n"[..]).to_string(), "\\u{1b}[2J\\xff\\u{a}");
    }

    #[test]
    fn only_the_line_feed_at_the_end_is_not_part_of_a_name() {
        assert_eq!(Comm::from_file(b"five \n").as_bytes(), b"five ");
        assert_eq!(Comm::from_file(b"\n\n").as_bytes(), b"\n");
        assert_eq!(Comm::from_file(b"").as_bytes(), b"");
    }
}
