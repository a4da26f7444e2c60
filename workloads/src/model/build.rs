//! Which build a file is, by what was written into it when it was linked.

use std::fmt;

use manifests::BuildId;
use serde::{Serialize, Serializer};

/// A build, by the GNU build id, or by Go's where there is no other: Go's linker writes its own, and before Go 1.24 only that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Build {
    /// `.note.gnu.build-id`.
    Gnu(BuildId),
    /// `.note.go.buildid`.
    Go(GoBuildId),
}

/// What Go's linker calls a build: `action/main/package/content` in URL-safe base64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoBuildId(String);

impl GoBuildId {
    /// From the description of the note; nothing if Go's linker would not write that.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/=.".contains(byte);
        let text = std::str::from_utf8(bytes).ok()?;
        ((1..=256).contains(&bytes.len()) && bytes.iter().all(sound)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gnu(id) => id.fmt(f),
            Self::Go(GoBuildId(id)) => f.pad(&format!("go:{id}")),
        }
    }
}

impl Serialize for Build {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_build_id_of_go_is_none() {
        let good = b"kA3x-_z/Q1/x9/aa==";
        assert_eq!(Build::Go(GoBuildId::from_bytes(good).unwrap()).to_string(), "go:kA3x-_z/Q1/x9/aa==");
        for bad in [&b""[..], b"\x1b[2J", b"two words", &[b'a'; 257]] {
            assert_eq!(GoBuildId::from_bytes(bad), None, "{bad:?}");
        }
    }
}
