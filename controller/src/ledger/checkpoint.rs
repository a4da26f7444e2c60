//! A signed checkpoint: the ledger's head as a C2SP `signed-note` with the body of `tlog-checkpoint`.
//!
//! Three lines (origin, size, root in base64), an empty one, and a signature by the controller's Ed25519 key. Whoever
//! keeps one can later ask for a proof that the ledger still begins like that. The format is [`manifests::log`]'s, so
//! witnesses and tools of transparency logs read it.

use manifests::log::{self, Note, NoteKey, NoteKeyKind, NoteName, NoteSigner};
use manifests::{LedgerHead, PublicKey, SecretKey};

/// The most bytes that a checkpoint has that this program reads.
pub const MAX_BYTES: usize = 4096;

/// What a ledger calls itself: no spaces, no plus sign, as the note format asks of the name of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger's name: expected 1 to 128 printable ASCII characters without space and plus, found {found:?}"
)]
pub struct NotAnOrigin {
    /// The text.
    pub found: String,
}

impl Origin {
    /// The name of a ledger, such as `fleet.example.org/update`.
    ///
    /// # Errors
    /// [`NotAnOrigin`].
    pub fn new(text: &str) -> Result<Self, NotAnOrigin> {
        let good = (1..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic() && c != b'+');
        if good { Ok(Self(text.to_owned())) } else { Err(NotAnOrigin { found: text.to_owned() }) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn name(&self) -> NoteName {
        self.0.parse().expect("what a ledger may be called, a log may be called, too")
    }
}

/// Why bytes are not a checkpoint of a ledger by a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not three lines, an empty one and signatures.
    #[error("not a checkpoint: expected {problem}")]
    Form {
        /// What was not there.
        problem: &'static str,
    },
    /// It is of another ledger.
    #[error("the checkpoint is of another ledger: expected {expected}, found {found}")]
    Origin {
        /// The ledger asked for.
        expected: String,
        /// The one that it names.
        found: String,
    },
    /// The key has not signed this.
    #[error("the checkpoint is not signed by the controller's key")]
    Signature,
}

/// Signs a head.
pub fn sign(origin: &Origin, head: &LedgerHead, key: &SecretKey) -> String {
    let checkpoint = log::Checkpoint { origin: origin.name(), head: *head };
    let mut note = Note::unsigned(checkpoint.to_text());
    note.add(NoteSigner::new(origin.name(), key).sign(note.text()));
    note.to_string()
}

/// The head of a checkpoint, if `key` signed it for the ledger `origin`. Other signatures beside it are others' business.
///
/// # Errors
/// [`CheckpointError`].
pub fn open(text: &str, origin: &Origin, key: &PublicKey) -> Result<LedgerHead, CheckpointError> {
    let form = |problem| CheckpointError::Form { problem };
    if text.len() > MAX_BYTES {
        return Err(form("at most 4096 bytes"));
    }
    let (checkpoint, note) = log::Checkpoint::of(text.as_bytes()).map_err(|error| match error {
        log::CheckpointError::Note(log::NoteError { expected }) | log::CheckpointError::Form { expected } => {
            form(expected)
        }
    })?;
    if checkpoint.origin.as_str() != origin.0 {
        let (expected, found) = (origin.0.clone(), checkpoint.origin.to_string());
        return Err(CheckpointError::Origin { expected, found });
    }
    let key = NoteKey::new(origin.name(), NoteKeyKind::Log, key.clone());
    match note.signed_by(&key) {
        Ok(Some(_)) => Ok(checkpoint.head),
        Ok(None) | Err(_) => Err(CheckpointError::Signature),
    }
}

#[cfg(test)]
mod tests {
    use manifests::Sha256;

    use super::*;

    fn sample() -> (Origin, LedgerHead, SecretKey) {
        let origin = Origin::new("fleet.example.org/update").unwrap();
        (origin, LedgerHead { size: 7, root: Sha256::of(b"root") }, SecretKey::from_seed([3; 32]))
    }

    #[test]
    fn a_checkpoint_reads_back_with_its_key() {
        let (origin, head, key) = sample();
        let text = sign(&origin, &head, &key);
        assert_eq!(open(&text, &origin, &key.public()).unwrap(), head);
        let witnessed = format!("{text}\u{2014} witness.example.org AAAAAAAA\n");
        assert_eq!(open(&witnessed, &origin, &key.public()).unwrap(), head);
    }

    #[test]
    fn a_checkpoint_that_was_changed_or_is_anothers_is_refused() {
        let (origin, head, key) = sample();
        let text = sign(&origin, &head, &key);
        let other = SecretKey::from_seed([4; 32]).public();
        assert_eq!(open(&text, &origin, &other), Err(CheckpointError::Signature));
        let elsewhere = Origin::new("elsewhere").unwrap();
        assert!(matches!(open(&text, &elsewhere, &key.public()), Err(CheckpointError::Origin { .. })));
        for (from, to) in [("\n7\n", "\n8\n"), ("\n7\n", "\n07\n"), ("\n\n", "\nmore\n\n"), ("\n\n", "\n")] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(open(&changed, &origin, &key.public()).is_err(), "{from:?} -> {to:?} was taken");
        }
        for bad in ["", "two words", "a+b", "line\n"] {
            assert!(Origin::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
