//! The records of a POSIX extended header (POSIX.1-2017, pax, "pax Extended Header").
//!
//! Pure: bytes in, values out. Strict where readers differ: a keyword twice, or one that is not
//! understood, is refused instead of guessed at.

use std::collections::BTreeMap;

use crate::files::layer::error::{EntryName, Fault, Rule};

/// Where star, GNU tar, Go and libarchive put extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Digits of the largest length that [`super::Limits::extension`] lets through, with some to spare.
const LENGTH_DIGITS: usize = 10;

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
            check_xattr(name)?;
            self.xattrs.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        match keyword {
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
            | b"SCHILY.dev"
            | b"SCHILY.ino"
            | b"SCHILY.nlink" => {}
            _ if keyword.starts_with(b"GNU.sparse.") || keyword == b"SCHILY.realsize" => {
                return Err(Rule::Sparse.into());
            }
            _ => return Err(Rule::Keyword { keyword: keyword.into() }.into()),
        }
        Ok(())
    }
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
