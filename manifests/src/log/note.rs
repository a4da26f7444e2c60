//! Signed notes: a text, and signatures of keys that have names (C2SP `signed-note`).
//!
//! Two of its signature types are known here: plain Ed25519 (0x01), by which logs sign, and timestamped Ed25519
//! cosignatures (0x04, C2SP `tlog-cosignature`), by which witnesses do. What is signed differs between the two, so a
//! signature of one kind never counts as one of the other. Signatures of other keys are carried along and mean nothing.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Sha256;
use crate::key::{KeyError, PublicKey, SecretKey};
use crate::scalar::as_string;

/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// The bytes of an Ed25519 signature.
const ED25519: usize = 64;

/// What a key, and so a log or a witness, is called: a name without spaces and plus signs, such as
/// `updates.example.org/log`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteName(String);

impl NoteName {
    /// The most bytes of a name.
    pub const MAX_BYTES: usize = 255;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

as_string!(NoteName);

impl fmt::Display for NoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for NoteName {
    type Err = NoteKeyError;

    fn from_str(text: &str) -> Result<Self, NoteKeyError> {
        let good = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '+');
        match good {
            true => Ok(Self(text.to_owned())),
            false => Err(NoteKeyError::Name { found: text.chars().take(80).collect() }),
        }
    }
}

/// What a key's signatures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKeyKind {
    /// A log's word: this is my tree.
    Log,
    /// A witness's word: at that time, this was the largest tree that I had seen of this log, and it continues all others.
    Witness,
}

impl NoteKeyKind {
    /// The signature type identifier.
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }
}

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteKeyError {
    /// Not a name.
    #[error(
        "not the name of a log or a witness: expected 1 to 255 bytes without spaces and plus signs, found {found:?}"
    )]
    Name {
        /// What was given, cut to 80 characters.
        found: String,
    },
    /// Not the three parts of a verifier key.
    #[error("not a verifier key: expected NAME+ID+KEY, found {found:?}")]
    Form {
        /// What was given, cut to 80 characters.
        found: String,
    },
    /// The id belongs to another name, kind or key.
    #[error("the id of verifier key {name} is not the key's: expected {expected}, found {found:?}")]
    Id {
        /// The key's name.
        name: NoteName,
        /// What it has to be.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Another signature type.
    #[error("verifier key {name} has signature type {found:#04x}: expected 0x01 (a log) or 0x04 (a witness)")]
    Kind {
        /// The key's name.
        name: NoteName,
        /// The type.
        found: u8,
    },
    /// The bytes are no key.
    #[error("verifier key {name} cannot be used")]
    Key {
        /// The key's name.
        name: NoteName,
        /// Why.
        source: KeyError,
    },
}

/// A key that checks signatures of notes: a `vkey`, `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: NoteName,
    kind: NoteKeyKind,
    public: PublicKey,
}

impl NoteKey {
    /// A key under a name.
    pub fn new(name: NoteName, kind: NoteKeyKind, public: PublicKey) -> Self {
        Self { name, kind, public }
    }

    /// What it is called.
    pub fn name(&self) -> &NoteName {
        &self.name
    }

    /// What its signatures mean.
    pub fn kind(&self) -> NoteKeyKind {
        self.kind
    }

    /// The key itself.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// What signature lines know it by, beside its name: the beginning of a digest over name, kind and key.
    pub fn id(&self) -> [u8; 4] {
        let mut bytes = self.name.0.clone().into_bytes();
        bytes.extend([b'\n', self.kind.byte()]);
        bytes.extend(self.public.as_bytes());
        let [a, b, c, d, ..] = *Sha256::of(&bytes).as_bytes();
        [a, b, c, d]
    }

    /// Whether a signature line names this key.
    fn is_named_by(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name.0 && signature.id == self.id()
    }

    /// Whether `signature` is this key's over `text`, and of when it says that it is.
    fn verifies(&self, text: &str, signature: &NoteSignature) -> Option<Attested> {
        match self.kind {
            NoteKeyKind::Log => {
                let good = self.public.verifies(text.as_bytes(), &signature.bytes);
                good.then_some(Attested { time: None })
            }
            NoteKeyKind::Witness => {
                let (time, bytes) = signature.bytes.split_first_chunk::<8>()?;
                let time = u64::from_be_bytes(*time);
                let good = i64::try_from(time).is_ok()
                    && self.public.verifies(cosigned(text, time).as_bytes(), bytes);
                good.then_some(Attested { time: Some(time) })
            }
        }
    }
}

as_string!(NoteKey);

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.byte()][..], self.public.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteKeyError;

    fn from_str(text: &str) -> Result<Self, NoteKeyError> {
        let form = || NoteKeyError::Form { found: text.chars().take(80).collect() };
        // Base64 has plus signs, too: only the first two are between parts.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let name: NoteName = name.parse()?;
        let key = STANDARD.decode(key).map_err(|_| form())?;
        let (kind, bytes) = key.split_first().ok_or_else(form)?;
        let kind = match kind {
            0x01 => NoteKeyKind::Log,
            0x04 => NoteKeyKind::Witness,
            found => return Err(NoteKeyError::Kind { name, found: *found }),
        };
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| form())?;
        let refused = |source| NoteKeyError::Key { name: name.clone(), source };
        let public = PublicKey::from_bytes(bytes).map_err(refused)?;
        let key = Self { name, kind, public };
        let expected = hex::encode(key.id());
        match id == expected {
            true => Ok(key),
            false => Err(NoteKeyError::Id { name: key.name, expected, found: id.chars().take(80).collect() }),
        }
    }
}

/// A signature that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attested {
    /// When it was made, in seconds since 1970, as the signer says; nothing in a log's.
    pub time: Option<u64>,
}

/// What a witness signs (C2SP `tlog-cosignature`, "Ed25519 signed message").
fn cosigned(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// A key that signs notes.
#[derive(Debug)]
pub struct NoteSigner<'a> {
    key: &'a SecretKey,
    name: NoteName,
}

impl<'a> NoteSigner<'a> {
    /// This key under this name.
    pub fn new(name: NoteName, key: &'a SecretKey) -> Self {
        Self { key, name }
    }

    /// The key that checks what this one signs.
    pub fn verifier(&self, kind: NoteKeyKind) -> NoteKey {
        NoteKey::new(self.name.clone(), kind, self.key.public())
    }

    /// Signs as a log.
    pub fn sign(&self, text: &str) -> NoteSignature {
        self.signature(NoteKeyKind::Log, self.key.sign(text.as_bytes()).to_vec())
    }

    /// Signs as a witness, at a time in seconds since 1970.
    pub fn cosign(&self, text: &str, time: u64) -> NoteSignature {
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend(self.key.sign(cosigned(text, time).as_bytes()));
        self.signature(NoteKeyKind::Witness, bytes)
    }

    fn signature(&self, kind: NoteKeyKind, bytes: Vec<u8>) -> NoteSignature {
        NoteSignature { name: self.name.0.clone(), id: self.verifier(kind).id(), bytes }
    }
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// What its key is called. A claim, as the next one.
    pub name: String,
    /// What its key is known by.
    pub id: [u8; 4],
    /// The signature.
    pub bytes: Vec<u8>,
}

/// A text, and signatures that nobody has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Why bytes are not a note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a signed note: expected {expected}")]
pub struct NoteError {
    /// What was not there.
    pub expected: &'static str,
}

impl Note {
    /// The most bytes of a note that is read.
    pub const MAX_BYTES: usize = 64 << 10;

    /// The most signatures.
    pub const MAX_SIGNATURES: usize = 64;

    /// A text that nobody has signed yet. It ends with a line feed.
    pub fn unsigned(text: String) -> Self {
        Self { text, signatures: Vec::new() }
    }

    /// Reads a note; checks no signature.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let expect = |expected| NoteError { expected };
        if bytes.len() > Self::MAX_BYTES {
            return Err(expect("at most 64 KiB"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| expect("UTF-8"))?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(expect("no control characters but line feeds"));
        }
        // The last empty line separates the two.
        let at = note.rfind("\n\n").ok_or(expect("an empty line before the signatures"))?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(expect("a line feed after the last signature"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == Self::MAX_SIGNATURES {
                return Err(expect("at most 64 signatures"));
            }
            signatures
                .push(NoteSignature::parse(line).ok_or(expect("signature lines: \u{2014} NAME BASE64"))?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text that is signed; it ends with a line feed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, none of them checked.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature, in place of an earlier one of the same name and id.
    pub fn add(&mut self, signature: NoteSignature) {
        self.signatures.retain(|known| (&known.name, known.id) != (&signature.name, signature.id));
        self.signatures.push(signature);
    }

    /// Whether `key` has signed this. An error if there is a signature in its name that is not its own.
    ///
    /// # Errors
    /// [`Forged`].
    pub fn signed_by(&self, key: &NoteKey) -> Result<Option<Attested>, Forged> {
        let mut found = None;
        for signature in self.signatures.iter().filter(|signature| key.is_named_by(signature)) {
            let attested = key.verifies(&self.text, signature);
            found = Some(attested.ok_or_else(|| Forged { name: key.name.clone() })?);
        }
        Ok(found)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

/// A signature that stands there in the name of a known key, and does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a signature in the name of {name} does not hold: the text or the signature was changed")]
pub struct Forged {
    /// Whose it should be.
    pub name: NoteName,
}

impl NoteSignature {
    /// Reads `— NAME BASE64`.
    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let name: NoteName = name.parse().ok()?;
        let signature = STANDARD.decode(signature).ok()?;
        let (id, bytes) = signature.split_first_chunk::<4>()?;
        (!bytes.is_empty()).then(|| Self { name: name.0, id: *id, bytes: bytes.to_vec() })
    }

    /// When a witness says that it was made, if it has the form of a cosignature.
    pub fn claimed_time(&self) -> Option<u64> {
        let (time, rest) = self.bytes.split_first_chunk::<8>()?;
        (rest.len() == ED25519).then(|| u64::from_be_bytes(*time))
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DASH}{} {}", self.name, STANDARD.encode([&self.id[..], &self.bytes].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's `golang.org/x/mod/sumdb/note`, and of `signed-note`'s key ids.
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SIGNED: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_note_of_another_implementation_is_read_and_its_signature_holds() {
        let key: NoteKey = VKEY.parse().unwrap();
        assert_eq!(
            (key.name().as_str(), key.kind(), key.to_string()),
            ("PeterNeumann", NoteKeyKind::Log, VKEY.to_owned())
        );
        let note = Note::parse(SIGNED.as_bytes()).unwrap();
        assert_eq!(note.signed_by(&key), Ok(Some(Attested { time: None })));
        assert_eq!(note.to_string(), SIGNED);
        let changed = Note::parse(SIGNED.replace("answer", "Answer").as_bytes()).unwrap();
        assert_eq!(changed.signed_by(&key), Err(Forged { name: "PeterNeumann".parse().unwrap() }));
    }

    #[test]
    fn a_cosignature_holds_for_its_text_and_time_and_is_no_logs_signature() {
        let secret = SecretKey::from_seed([7; 32]);
        let signer = NoteSigner::new("w1.example".parse().unwrap(), &secret);
        let mut note = Note::unsigned("log\n1\nAAAA\n".to_owned());
        note.add(signer.cosign(note.text(), 1_679_315_147));
        let (witness, log) = (signer.verifier(NoteKeyKind::Witness), signer.verifier(NoteKeyKind::Log));
        assert_eq!(note.signed_by(&witness), Ok(Some(Attested { time: Some(1_679_315_147) })));
        assert_eq!(note.signed_by(&log), Ok(None), "another kind has another id");
        assert_eq!(note.signatures()[0].claimed_time(), Some(1_679_315_147));
        // The same bytes under the id of a log's key are no log's word.
        let mut claimed = note.signatures()[0].clone();
        claimed.id = log.id();
        let mut other = Note::unsigned(note.text().to_owned());
        other.add(claimed);
        assert!(other.signed_by(&log).is_err());
        let mut later = note.clone();
        later.signatures[0].bytes[7] ^= 1;
        assert!(later.signed_by(&witness).is_err(), "the time is signed, too");
        note.add(signer.cosign("log\n1\nAAAA\n", 1_679_315_200));
        assert_eq!(note.signatures().len(), 1, "the later one takes the earlier one's place");
    }

    #[test]
    fn what_is_no_note_and_no_key_is_refused() {
        for bad in [
            "",
            "\n\n",
            "text\n",
            "text\n\n",
            "text\n\n\u{2014} name\n",
            "text\n\n- name AAAAAAAA\n",
            "text\n\n\u{2014} name AAAA\n",
            "text\n\n\u{2014} name AAAAAAA\n",
            "text\n\n\u{2014} na+me AAAAAAAA\n",
            "text\n\n\u{2014} name AAAAAAAA",
            "te\txt\n\n\u{2014} name AAAAAAAA\n",
            "text\n\n\u{2014} name AAAAAAAA\nmore\n",
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
        let good = NoteSigner::new("w".parse().unwrap(), &SecretKey::from_seed([1; 32]))
            .verifier(NoteKeyKind::Witness)
            .to_string();
        assert!(good.parse::<NoteKey>().is_ok());
        for bad in [
            "",
            "w",
            "w+00000000",
            &good.replace("w+", "v+"),
            &good.replace("+BI", "+AY"),
            &good[..good.len() - 4],
            &format!("{good}AAAA"),
        ] {
            assert!(bad.parse::<NoteKey>().is_err(), "{bad:?} was taken");
        }
    }
}
