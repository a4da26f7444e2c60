//! Checkpoints: a log's origin, size and root, as the text of a signed note (C2SP `tlog-checkpoint`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::TreeHead;
use super::note::{Note, NoteError, NoteName};
use super::tree::MAX_SIZE;
use crate::digest::Sha256;

/// What a log says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of the key that signs, too.
    pub origin: NoteName,
    /// Its size and its root.
    pub head: TreeHead,
}

/// Why a note is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is something else.
    #[error("not a checkpoint: expected {expected}")]
    Form {
        /// What was not there.
        expected: &'static str,
    },
}

impl Checkpoint {
    /// Reads the text of a note. Lines after the third are the log's own business, and no part of this.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let form = |expected| CheckpointError::Form { expected };
        let lines = text.strip_suffix('\n').ok_or(form("a line feed at the end"))?;
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(form("the lines origin, size and root"));
        };
        if lines.any(str::is_empty) {
            return Err(form("no empty line"));
        }
        let origin: NoteName = origin.parse().map_err(|_| form("an origin without spaces and plus signs"))?;
        let number: u64 = size.parse().map_err(|_| form("a size"))?;
        // One size has one spelling.
        if number.to_string() != size || number > MAX_SIZE {
            return Err(form("a size of at most 2^48, without signs and zeros in front"));
        }
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).map(Sha256::from_bytes);
        let root = root.ok_or(form("a root of 32 bytes in base64"))?;
        if number == 0 && root != Sha256::of(b"") {
            return Err(form("the root of nothing for a size of 0"));
        }
        Ok(Self { origin, head: TreeHead { size: number, root } })
    }

    /// Reads a note whose text is a checkpoint; checks no signature.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn of(bytes: &[u8]) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(bytes)?;
        Ok((Self::parse(note.text())?, note))
    }

    /// The text of the note.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.head.size, STANDARD.encode(self.head.root.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_example_is_read_and_written_back() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::parse(text).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.head.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.to_text(), text);
        assert_eq!(Checkpoint::parse(&format!("{text}extension\n")).unwrap(), checkpoint);
        for (from, to) in [
            ("20852163", "020852163"),
            ("20852163", "+20852163"),
            ("20852163", "-1"),
            ("20852163", "99999999999999999999999"),
            ("20852163", "9999999999999999"),
            ("20852163", "0"),
            ("q2I=", "q2I"),
            ("CsUY", ""),
            ("example", ""),
            ("example", "exa mple"),
            ("q2I=\n", "q2I="),
            ("q2I=\n", "q2I=\n\n"),
        ] {
            let changed = if from == "example" && to.is_empty() {
                text[27..].to_owned()
            } else {
                text.replacen(from, to, 1)
            };
            assert_ne!(changed, text);
            assert!(Checkpoint::parse(&changed).is_err(), "{changed:?} was taken");
        }
    }
}
