//! A signed checkpoint: the ledger's head as a C2SP `signed-note` with the body of `tlog-checkpoint`.
//!
//! Three lines (origin, size, root in base64), an empty one, and a signature by the controller's Ed25519 key. Whoever
//! keeps one can later ask for a proof that the ledger still begins like that. The key's hash in the signature line
//! is made of name, type and key as the note format says, so witnesses and tools of transparency logs read it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use manifests::{LedgerHead, PublicKey, SecretKey, Sha256};

/// The most bytes that a checkpoint has that this program reads.
pub const MAX_BYTES: usize = 4096;

/// The signature type of Ed25519 in `signed-note`.
const ED25519: u8 = 1;

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
}

/// Why bytes are not a checkpoint of a ledger by a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not three lines, an empty one and signatures.
    #[error("not a checkpoint: {problem}")]
    Form {
        /// What is wrong.
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
    let body = format!("{}\n{}\n{}\n", origin.0, head.size, STANDARD.encode(head.root.as_bytes()));
    let mut line = key_hash(origin, &key.public()).to_vec();
    line.extend_from_slice(&key.sign(body.as_bytes()));
    format!("{body}\n\u{2014} {} {}\n", origin.0, STANDARD.encode(line))
}

/// The head of a checkpoint, if `key` signed it for the ledger `origin`. Other signatures beside it are others' business.
///
/// # Errors
/// [`CheckpointError`].
pub fn open(text: &str, origin: &Origin, key: &PublicKey) -> Result<LedgerHead, CheckpointError> {
    let form = |problem| CheckpointError::Form { problem };
    if text.len() > MAX_BYTES {
        return Err(form("expected at most 4096 bytes"));
    }
    let (body, signatures) = text.split_once("\n\n").ok_or(form("expected an empty line"))?;
    let signed = format!("{body}\n");
    let lines: Vec<&str> = body.split('\n').collect();
    let [name, size, root] = lines[..] else {
        return Err(form("expected origin, size and root"));
    };
    if name != origin.0 {
        return Err(CheckpointError::Origin { expected: origin.0.clone(), found: name.to_owned() });
    }
    let own = |line: &str| -> Option<[u8; 64]> {
        let line = line.strip_prefix("\u{2014} ")?.strip_prefix(origin.as_str())?.strip_prefix(' ')?;
        let bytes = STANDARD.decode(line).ok()?;
        let (hash, signature) = bytes.split_at_checked(4)?;
        if hash == key_hash(origin, key) { signature.try_into().ok() } else { None }
    };
    let signature = signatures.lines().find_map(own).ok_or(CheckpointError::Signature)?;
    if !key.verifies(signed.as_bytes(), &signature) {
        return Err(CheckpointError::Signature);
    }
    let number: u64 = size.parse().map_err(|_| form("expected a size"))?;
    // One size has one spelling.
    if number.to_string() != size {
        return Err(form("expected a size without signs and zeros in front"));
    }
    let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).map(Sha256::from_bytes);
    Ok(LedgerHead { size: number, root: root.ok_or(form("expected 32 bytes of base64"))? })
}

fn key_hash(origin: &Origin, key: &PublicKey) -> [u8; 4] {
    let mut bytes = origin.0.clone().into_bytes();
    bytes.extend_from_slice(&[b'\n', ED25519]);
    bytes.extend_from_slice(key.as_bytes());
    let digest = Sha256::of(&bytes);
    let mut hash = [0; 4];
    hash.copy_from_slice(&digest.as_bytes()[..4]);
    hash
}

#[cfg(test)]
mod tests {
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
