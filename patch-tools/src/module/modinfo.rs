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
        let Some(section) = elf.section(".modinfo") else { return Ok(Self::default()) };
        let mut entries = Vec::new();
        let mut position = 0;
        while position < section.data.len() {
            let tail = &section.data[position..];
            let offset = section.offset + position as u64;
            let Some(length) = memchr::memchr(0, tail) else {
                let found = format!("{} bytes without an end", tail.len());
                return Err(Malformed::new(offset, Rule::Modinfo, found));
            };
            // The linker pads between entries with zero bytes.
            if length > 0 {
                let text = std::str::from_utf8(&tail[..length])
                    .map_err(|error| Malformed::new(offset, Rule::Modinfo, error.to_string()))?;
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
