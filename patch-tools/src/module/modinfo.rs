//! The `.modinfo` section: zero-terminated `key=value` strings.

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::elf::{Elf, Malformed, Rule};

/// Modinfo entries in the order of the file; keys such as `alias` repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modinfo {
    entries: Vec<(String, String)>,
}

impl Modinfo {
    /// Reads the section; a module without one has no entries.
    pub(crate) fn read(elf: &Elf<'_>) -> Result<Self, Malformed> {
        elf.section(".modinfo")
            .map_or(Ok(Self::default()), |section| Self::parse(section.data, section.offset))
    }

    /// Reads the section's bytes, which stand at `start` of the file.
    fn parse(data: &[u8], start: u64) -> Result<Self, Malformed> {
        let mut entries = Vec::new();
        let mut position = 0;
        while position < data.len() {
            let tail = &data[position..];
            let offset = start + position as u64;
            let Some(length) = memchr::memchr(0, tail) else {
                let found = format!("{} bytes without an end", tail.len());
                return Err(Malformed::new(offset, Rule::Modinfo, found));
            };
            // The linker pads between entries with zero bytes.
            if length > 0 {
                // Authors' names come in the encoding of their time; nothing that decides has such letters.
                let text = String::from_utf8_lossy(&tail[..length]);
                let (key, value) = text.split_once('=').ok_or_else(|| {
                    Malformed::new(offset, Rule::Modinfo, format!("{text:?} without an equals sign"))
                })?;
                entries.push((key.to_owned(), value.to_owned()));
            }
            position += length + 1;
        }
        Ok(Self { entries })
    }

    /// The first value of `key`, which is the one the kernel uses.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    value: &'a str,
}

impl Serialize for Modinfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.entries.len()))?;
        for (key, value) in self.iter() {
            sequence.serialize_element(&Entry { key, value })?;
        }
        sequence.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_encoding_of_its_time_is_no_damage() {
        let text = Modinfo::parse(b"license=GPL\0author=J\xf6rg\0", 0).unwrap();
        assert_eq!(text.get("license"), Some("GPL"));
        assert_eq!(text.get("author"), Some("J\u{fffd}rg"));
    }
}
