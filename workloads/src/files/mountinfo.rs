//! `/proc/PID/mountinfo` (proc(5)): bytes in, mounts out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number, as `/proc/PID/fdinfo` names it (`mnt_id`).
    pub(crate) id: u32,
    /// Device of its files, as `major:minor`.
    pub(crate) device: String,
    /// Which directory of the file system is shown.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Options of the mount, separated by commas.
    pub(crate) options: String,
    /// File system type.
    pub(crate) kind: String,
    /// Options of the file system, separated by commas, octal escapes resolved.
    pub(crate) super_options: String,
}

/// All mounts in the kernel's order; lines that make no sense are left out.
pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Optional fields end with a dash.
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(&unescape(field)).into_owned());
    let path = |at: usize| Some(PathBuf::from(OsString::from_vec(unescape(fields.get(at)?))));
    Some(Mount {
        id: text(0)?.parse().ok()?,
        device: text(2)?,
        root: path(3)?,
        point: path(4)?,
        options: text(5)?,
        kind: text(dash + 1)?,
        super_options: text(dash + 3).unwrap_or_default(),
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits =
            field.get(at + 1..at + 4).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (field[at], digits) {
            (b'\\', Some(digits)) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                plain.push(value as u8);
                at += 4;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_and_without_optional_fields() {
        let text = b"44 27 0:39 / /tmp/a\\040b rw,relatime - overlay overlay rw,lowerdir=/x\\134:y:/z\n\
            45 27 8:1 /sub /mnt ro,nosuid shared:3 master:1 - ext4 /dev/sda1 rw\nnonsense\n\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, PathBuf::from("/tmp/a b"));
        assert_eq!(mounts[0].super_options, "rw,lowerdir=/x\\:y:/z");
        assert_eq!((mounts[1].id, mounts[1].kind.as_str(), mounts[1].device.as_str()), (45, "ext4", "8:1"));
        assert_eq!((mounts[1].root.to_str(), mounts[1].options.as_str()), (Some("/sub"), "ro,nosuid"));
    }
}
