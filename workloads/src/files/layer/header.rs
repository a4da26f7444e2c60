//! One tar header block: its checksum, its fields, its numbers.
//!
//! Formats: POSIX ustar (POSIX.1-2017, pax) and GNU (GNU tar manual, "Basic Tar Format"). Headers without a
//! magic (v7) are refused: any block of octal digits would be one. The crate `tar` gives the places of
//! the fields; reading them is stricter here (no signs, no negative numbers, no overflow).

use crate::files::layer::error::{EntryName, Fault};
use crate::files::layer::source::BLOCK;

/// A header whose magic and checksum are right.
pub(super) struct Header(tar::Header);

impl Header {
    /// Checks a block that is not all zeros.
    pub(super) fn check(block: &[u8; BLOCK]) -> Result<Self, Fault> {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        if header.as_ustar().is_none() && header.as_gnu().is_none() {
            let found = EntryName::from(&block[257..265]);
            return Err(Fault::Magic { found });
        }
        let found = number("checksum", &header.as_old().cksum)?;
        let expected = sum(block);
        match found == expected {
            true => Ok(Self(header)),
            false => Err(Fault::Checksum { expected, found }),
        }
    }

    /// The name, with the prefix of ustar.
    pub(super) fn name(&self) -> Vec<u8> {
        self.0.path_bytes().into_owned()
    }

    /// Where a link leads.
    pub(super) fn link_name(&self) -> Vec<u8> {
        self.0.link_name_bytes().unwrap_or_default().into_owned()
    }

    /// What follows, or what is to be made.
    pub(super) fn flag(&self) -> u8 {
        self.0.as_old().linkflag[0]
    }

    /// Bytes of content in the archive.
    pub(super) fn size(&self) -> Result<u64, Fault> {
        number("size", &self.0.as_old().size)
    }

    /// Permission bits; some writers put the file type there too.
    pub(super) fn mode(&self) -> Result<u64, Fault> {
        number("mode", &self.0.as_old().mode)
    }

    /// Owner.
    pub(super) fn uid(&self) -> Result<u64, Fault> {
        number("uid", &self.0.as_old().uid)
    }

    /// Group.
    pub(super) fn gid(&self) -> Result<u64, Fault> {
        number("gid", &self.0.as_old().gid)
    }

    /// Seconds since 1970; negative before.
    pub(super) fn mtime(&self) -> Result<i64, Fault> {
        time("mtime", &self.0.as_old().mtime)
    }
}

/// The sum of all bytes, those of the checksum itself counted as spaces.
pub(super) fn sum(block: &[u8; BLOCK]) -> u64 {
    let all: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    all - own + 8 * u64::from(b' ')
}

/// A time: a number, or, for one before 1970, GNU's base 256 with a sign: two's complement, of which the topmost byte
/// is 0xff. Times beyond what Linux can keep end at the limit.
fn time(field: &'static str, bytes: &[u8]) -> Result<i64, Fault> {
    match bytes {
        [0xff, rest @ ..] => {
            let magnitude = rest
                .iter()
                .try_fold(0_u64, |value, byte| value.checked_mul(256).map(|value| value | u64::from(!byte)));
            // -1 - n for what is n with every bit turned.
            Ok(magnitude.and_then(|value| i64::try_from(value).ok()).map_or(i64::MIN, |value| -1 - value))
        }
        _ => Ok(i64::try_from(number(field, bytes)?).unwrap_or(i64::MAX)),
    }
}

/// A number field: octal digits between spaces and NULs, or GNU's base 256 with the top bit set.
/// An empty field is 0, as every writer of the last decades means it.
fn number(field: &'static str, bytes: &[u8]) -> Result<u64, Fault> {
    let wrong = || Fault::Number { field, found: EntryName::from(bytes) };
    match bytes {
        // 0xff would be the sign of a negative number.
        [0x80, rest @ ..] => rest.iter().try_fold(0_u64, |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte)).ok_or_else(wrong)
        }),
        _ => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            bytes[..end].trim_ascii().iter().try_fold(0_u64, |value, byte| match byte {
                b'0'..=b'7' => {
                    value.checked_mul(8).map(|value| value | u64::from(byte - b'0')).ok_or_else(wrong)
                }
                _ => Err(wrong()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_may_be_padded_with_spaces_and_nul() {
        for (bytes, value) in
            [(&b"0000644\0"[..], 0o644), (b" 644 \0\0\0", 0o644), (b"\0\0\0\0", 0), (b"77777777", 0o77777777)]
        {
            assert_eq!(number("mode", bytes).unwrap(), value);
        }
    }

    #[test]
    fn binary_fields_reach_64_bits_and_no_further() {
        assert_eq!(number("size", b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").unwrap(), u64::MAX);
        assert!(number("size", b"\x80\0\0\x01\0\0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn times_before_1970_are_negative_numbers_in_base_256() {
        let bytes = |seconds: i64| [&[0xff; 4][..], &seconds.to_be_bytes()].concat();
        for seconds in [-1, -86_400, i64::MIN + 1, i64::MIN] {
            assert_eq!(time("mtime", &bytes(seconds)).unwrap(), seconds);
        }
        assert_eq!(time("mtime", b"\xff\0\0\0\0\0\0\0\0\0\0\0").unwrap(), i64::MIN, "ends at the limit");
        assert_eq!(time("mtime", b"00000000017\0").unwrap(), 15);
        assert!(time("mtime", b"-0000000017\0").is_err());
    }

    #[test]
    fn signs_letters_and_negative_numbers_are_not_numbers() {
        for bytes in
            [&b"-000001\0"[..], b"+1\0", b"8\0", b"0x10\0", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"1 2\0"]
        {
            assert!(number("uid", bytes).is_err(), "{bytes:?}");
        }
    }
}
