//! The records of a POSIX extended header (POSIX.1-2017, pax, "pax Extended Header").
//!
//! Pure: bytes in, values out. Strict where readers differ: a keyword twice, or one that is not
//! understood, is refused instead of guessed at. An empty value takes a keyword back: the header's own field counts.
//!
//! libarchive (bsdtar) writes each extended attribute twice, once as everybody does and once in a form of its own.
//! The two must say the same.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::files::layer::error::{EntryName, Fault, Rule};

/// Where star, GNU tar, Go and libarchive put extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Where libarchive puts them as well: the name URL-encoded, the value in base64 without padding.
const XATTR_LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// Digits of the largest length that [`super::Limits::extension`] lets through, with some to spare.
const LENGTH_DIGITS: usize = 10;

/// libarchive writes no padding; whoever does is understood as well.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an extended header says about the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    /// Replaces the header's name.
    pub(super) path: Option<Vec<u8>>,
    /// Replaces the header's link name.
    pub(super) linkpath: Option<Vec<u8>>,
    /// Replaces the header's size.
    pub(super) size: Option<u64>,
    /// Replaces the header's owner.
    pub(super) uid: Option<u64>,
    /// Replaces the header's group.
    pub(super) gid: Option<u64>,
    /// Replaces the header's time.
    pub(super) mtime: Option<Moment>,
    /// Extended attributes by their full name.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A time as the kernel takes it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970; negative before.
    pub(super) seconds: i64,
    /// Nanoseconds after that second, below 10^9.
    pub(super) nanoseconds: u32,
}

/// Why an extended header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxError {
    /// It is malformed.
    Fault(Fault),
    /// It asks for something that is not allowed.
    Rule(Rule),
}

impl From<Fault> for PaxError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Rule> for PaxError {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

impl Pax {
    /// The records before one entry.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, PaxError> {
        let mut pax = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        for record in Records(bytes) {
            let (keyword, value) = record?;
            if !seen.insert(keyword) {
                return Err(Rule::Twice { what: keyword.into() }.into());
            }
            pax.take(keyword, value)?;
        }
        Ok(pax)
    }

    fn take(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), PaxError> {
        if let Some(name) = keyword.strip_prefix(XATTR) {
            return self.take_xattr(name.to_owned(), value.to_owned());
        }
        if let Some(name) = keyword.strip_prefix(XATTR_LIBARCHIVE) {
            let malformed = || Fault::Record { found: keyword.into() };
            let name = url_decoded(name).ok_or_else(malformed)?;
            return self.take_xattr(name, BASE64.decode(value).map_err(|_| malformed())?);
        }
        match keyword {
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.linkpath = Some(value.to_owned()),
            b"size" => self.size = Some(decimal("size", value)?),
            b"uid" => self.uid = Some(decimal("uid", value)?),
            b"gid" => self.gid = Some(decimal("gid", value)?),
            b"mtime" => self.mtime = Some(moment("mtime", value)?),
            // Names of owners are the image's business, other times cannot be set or are not kept, and
            // the rest tells about the file system that the archive was made on.
            b"uname"
            | b"gname"
            | b"atime"
            | b"ctime"
            | b"comment"
            | b"LIBARCHIVE.creationtime"
            | b"LIBARCHIVE.symlinktype"
            | b"SCHILY.dev"
            | b"SCHILY.devmajor"
            | b"SCHILY.devminor"
            | b"SCHILY.ino"
            | b"SCHILY.nlink" => {}
            // How this header's names are encoded. They are taken as bytes, and judged as UTF-8 later.
            b"hdrcharset" if matches!(value, b"" | b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {}
            _ if keyword.starts_with(b"GNU.sparse.") || keyword == b"SCHILY.realsize" => {
                return Err(Rule::Sparse.into());
            }
            _ => return Err(Rule::Keyword { keyword: keyword.into() }.into()),
        }
        Ok(())
    }
}

impl Pax {
    /// Keeps an extended attribute; said twice it must be the same.
    fn take_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), PaxError> {
        check_xattr(&name)?;
        match self.xattrs.get(&name) {
            Some(known) if *known != value => {
                Err(Rule::Twice { what: [b"the value of ", &*name].concat().as_slice().into() }.into())
            }
            _ => {
                self.xattrs.insert(name, value);
                Ok(())
            }
        }
    }
}

/// The inverse of URL encoding: `%40` is `@`.
fn url_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        decoded.push(match first {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// A header for all entries that follow may hold a comment (git puts the commit there), and nothing
/// that counts.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), PaxError> {
    for record in Records(bytes) {
        let (keyword, _) = record?;
        if keyword != b"comment" {
            return Err(Rule::Keyword { keyword: keyword.into() }.into());
        }
    }
    Ok(())
}

/// `trusted.*` would speak to overlay, most of `security.*` to the host's policy. `user.overlay.*` is
/// what overlay reads when it is mounted with `userxattr`.
fn check_xattr(name: &[u8]) -> Result<(), Rule> {
    let allowed = name == b"security.capability"
        || name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty() && !rest.starts_with(b"overlay."));
    match allowed && !name.contains(&0) {
        true => Ok(()),
        false => Err(Rule::Xattr { name: name.into() }),
    }
}

/// Records `"%d %s=%s\n"`, where the number counts the whole record.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match split_record(self.0) {
            Some((keyword, value, rest)) => {
                self.0 = rest;
                Some(Ok((keyword, value)))
            }
            None => {
                let found = EntryName::from(self.0);
                self.0 = &[];
                Some(Err(Fault::Record { found }))
            }
        }
    }
}

/// Keyword, value, rest.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(LENGTH_DIGITS + 1).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal("length", &bytes[..space]).ok()?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    match equals {
        0 => None,
        _ => Some((&body[..equals], &body[equals + 1..], rest)),
    }
}

/// Decimal digits and nothing else.
fn decimal(field: &'static str, bytes: &[u8]) -> Result<u64, Fault> {
    let wrong = || Fault::Number { field, found: bytes.into() };
    if bytes.is_empty() {
        return Err(wrong());
    }
    bytes.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(byte - b'0')))
            .ok_or_else(wrong),
        _ => Err(wrong()),
    })
}

/// Seconds with an optional sign and fraction; digits below a nanosecond are cut.
fn moment(field: &'static str, bytes: &[u8]) -> Result<Moment, Fault> {
    let wrong = || Fault::Number { field, found: bytes.into() };
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &[][..]),
    };
    let seconds =
        decimal(field, whole).ok().and_then(|seconds| i64::try_from(seconds).ok()).ok_or_else(wrong)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let nanoseconds = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => Moment { seconds, nanoseconds },
        (true, 0) => Moment { seconds: -seconds, nanoseconds: 0 },
        // The kernel counts nanoseconds forwards from a second before.
        (true, _) => Moment { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_carry_any_bytes_in_their_values() {
        let pax = Pax::parse(b"13 path=a\n/b\n20 mtime=1700000000\n").unwrap();
        assert_eq!(pax.mtime.unwrap().seconds, 1_700_000_000);
        assert_eq!(pax.path.unwrap(), b"a\n/b");
    }

    #[test]
    fn an_empty_value_leaves_it_to_the_header() {
        let pax =
            Pax::parse(b"8 path=\n13 linkpath=\n8 size=\n7 uid=\n7 gid=\n9 mtime=\n9 uname=\n").unwrap();
        assert_eq!(pax, Pax::default());
        let empty = Pax::parse(b"27 SCHILY.xattr.user.note=\n").unwrap();
        assert_eq!(empty.xattrs[&b"user.note"[..]], b"", "an attribute may be empty");
    }

    #[test]
    fn an_attribute_in_libarchives_form_is_the_same_attribute() {
        let both = Pax::parse(b"34 LIBARCHIVE.xattr.user.note=aGk\n29 SCHILY.xattr.user.note=hi\n").unwrap();
        assert_eq!(both.xattrs[&b"user.note"[..]], b"hi");
        let alone = Pax::parse(b"36 LIBARCHIVE.xattr.user.a%20b=/wA=\n").unwrap();
        assert_eq!(alone.xattrs[&b"user.a b"[..]], b"\xff\0");
    }

    #[test]
    fn an_attribute_that_is_said_in_two_ways_or_hidden_in_an_encoding_is_refused() {
        let rule = |bytes: &[u8]| match Pax::parse(bytes) {
            Err(PaxError::Rule(rule)) => rule,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            rule(b"34 LIBARCHIVE.xattr.user.note=aGk\n29 SCHILY.xattr.user.note=ho\n"),
            Rule::Twice { .. }
        ));
        assert!(matches!(rule(b"43 LIBARCHIVE.xattr.trusted%2eoverlay.x=eQ\n"), Rule::Xattr { .. }));
        for malformed in
            [&b"34 LIBARCHIVE.xattr.user.note=a*k\n"[..], b"36 LIBARCHIVE.xattr.user.note%4=aGk\n"]
        {
            assert!(matches!(Pax::parse(malformed), Err(PaxError::Fault(_))), "{malformed:?}");
        }
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        for bytes in [
            &b"12 path=a\n/b\n"[..],
            b"6 a=b",
            b"7 a=b\n",
            b"5 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 =ab\n",
            b"6 abc\n",
            b"-6 a=b\n",
            b" \n",
        ] {
            assert!(matches!(Pax::parse(bytes), Err(PaxError::Fault(Fault::Record { .. }))), "{bytes:?}");
        }
    }

    #[test]
    fn times_before_1970_count_forwards_from_the_second_before() {
        assert_eq!(moment("mtime", b"-1.25").unwrap(), Moment { seconds: -2, nanoseconds: 750_000_000 });
        assert_eq!(moment("mtime", b"1.0000000019").unwrap(), Moment { seconds: 1, nanoseconds: 1 });
        assert_eq!(moment("mtime", b"-9223372036854775807.9").unwrap().seconds, i64::MIN);
        for bytes in [&b""[..], b".5", b"-", b"1.x", b"1.2.3", b"9223372036854775808", b"+1"] {
            assert!(moment("mtime", bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn attributes_that_the_host_or_overlay_would_act_on_are_refused() {
        for name in [
            "trusted.overlay.opaque",
            "security.selinux",
            "system.posix_acl_access",
            "user.",
            "user.overlay.x",
        ] {
            assert_eq!(check_xattr(name.as_bytes()), Err(Rule::Xattr { name: name.as_bytes().into() }));
        }
        assert_eq!(check_xattr(b"user.note"), Ok(()));
        assert_eq!(check_xattr(b"security.capability"), Ok(()));
    }
}
