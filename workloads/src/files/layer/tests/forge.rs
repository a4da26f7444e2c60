//! Writes tar archives byte by byte, so that each can tell one lie.

use std::fmt::Write as _;

use crate::files::layer::header::sum;
use crate::files::layer::source::BLOCK;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Forge(Vec<u8>);

/// The fields of one header, written as they are.
#[derive(Clone)]
pub(super) struct Head<'a> {
    pub(super) name: &'a [u8],
    pub(super) flag: u8,
    pub(super) size: u64,
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) magic: &'a [u8; 8],
}

impl Default for Head<'_> {
    fn default() -> Self {
        let (mode, mtime, magic) = (0o644, 1_700_000_000, b"ustar\x0000");
        Self { name: b"", flag: b'0', size: 0, link: b"", mode, uid: 0, gid: 0, mtime, magic }
    }
}

impl Head<'_> {
    pub(super) fn bytes(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |place: usize, bytes: &[u8]| block[place..place + bytes.len()].copy_from_slice(bytes);
        put(0, self.name);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", self.uid).as_bytes());
        put(116, format!("{:07o}\0", self.gid).as_bytes());
        put(124, format!("{:011o}\0", self.size).as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(156, &[self.flag]);
        put(157, self.link);
        put(257, self.magic);
        reseal(&mut block);
        block
    }
}

/// Makes the checksum right again.
pub(super) fn reseal(block: &mut [u8; BLOCK]) {
    let sum = format!("{:06o}\0 ", sum(block));
    block[148..156].copy_from_slice(sum.as_bytes());
}

impl Forge {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A header and content, filled up to whole blocks.
    pub(super) fn entry(mut self, head: &Head<'_>, content: &[u8]) -> Self {
        self.0.extend_from_slice(&head.bytes());
        self.raw(content).fill_up()
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        let head = Head { name: name.as_bytes(), size: content.len() as u64, ..Head::default() };
        self.entry(&head, content)
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.entry(&Head { name: name.as_bytes(), flag: b'5', mode: 0o755, ..Head::default() }, b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.entry(&Head { name, link, flag: b'2', mode: 0o777, ..Head::default() }, b"")
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.entry(&Head { name, link, flag: b'1', ..Head::default() }, b"")
    }

    pub(super) fn kind(self, name: &str, flag: u8) -> Self {
        self.entry(&Head { name: name.as_bytes(), flag, ..Head::default() }, b"")
    }

    /// A POSIX extended header for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub(super) fn extended(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let content: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let head = Head { name: b"PaxHeaders/x", flag, size: content.len() as u64, ..Head::default() };
        self.entry(&head, &content)
    }

    /// A GNU long name (`L`) or long link name (`K`) for the next entry.
    pub(super) fn gnu_long(self, flag: u8, name: &[u8]) -> Self {
        let mut content = name.to_vec();
        content.push(0);
        let size = content.len() as u64;
        self.entry(
            &Head { name: b"././@LongLink", flag, size, magic: b"ustar  \0", ..Head::default() },
            &content,
        )
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn fill_up(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// With the end marker.
    pub(super) fn end(self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]).0
    }

    /// Without it.
    pub(super) fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// `"%d %s=%s\n"`, where the number counts itself too.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    let mut text = String::new();
    write!(text, "{} {key}=", length.unwrap()).unwrap();
    let mut record = text.into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
