//! Whoever signs: a private key in a file, under a passphrase or not, or a command that asks a key which never leaves
//! its place (a KMS, a token).
//!
//! A command is run by `sh -c`, once for each signature. It finds the bytes to sign on its standard input and writes the
//! signature to its standard output: its bytes (64 by an Ed25519 key), or their base64 or hexadecimal form. What it writes is checked with the
//! public key before it counts.
//!
//! Documents are signed by Ed25519 keys, kernel modules ([`module`]) by those that kernels trust.

pub mod module;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use manifests::bounded::{self, BoundedError};
use manifests::key::{KeyError, PublicKeyFileError};
use manifests::{Envelope, KeyId, PublicKey, PublicKeyFile, SecretKey};
use zeroize::Zeroizing;

/// The largest key file; PKCS#8 PEM of an encrypted Ed25519 key has some 350 bytes.
const MAX_KEY_BYTES: usize = 4096;

/// The most that a command may say: a signature in hexadecimal, and room for line feeds.
const MAX_SAID: u64 = 2 * Envelope::MAX_SIGNATURE_BYTES as u64 + 128;

/// Where a passphrase comes from.
#[derive(Debug, Clone)]
pub enum Passphrase {
    /// The first line of this file.
    File(PathBuf),
    /// The terminal of whoever runs this.
    Asked,
}

/// Whoever signs.
#[derive(Debug)]
pub enum Signer {
    /// A key that is at hand.
    Key(SecretKey),
    /// A command that can ask the private part of this key.
    Command {
        /// For `sh -c`.
        command: String,
        /// Checks what it signs.
        public: PublicKey,
    },
}

/// Why there is no key, or no signature.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BoundedError,
    },
    /// It is no private key, or does not open.
    #[error("{} is not a private key that can be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// It is no public key.
    #[error("{} is not a public key", path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PublicKeyFileError,
    },
    /// Somebody else could have read the key.
    #[error("{} can be read by others: expected mode 0600, found {mode:04o}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Nobody could be asked for the passphrase.
    #[error("cannot ask for the passphrase of {}", path.display())]
    NobodyToAsk {
        /// The key.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The passphrase was another one the second time.
    #[error("{} is not written: expected the same passphrase twice, found two", path.display())]
    NotTheSame {
        /// The key.
        path: PathBuf,
    },
    /// The command could not be run.
    #[error("the signer `{command}` could not be run")]
    Start {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The command failed.
    #[error("the signer `{command}` ended with {status}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command wrote something else than a signature.
    #[error(
        "the signer `{command}` gave no signature: expected {expected} bytes, or their base64 or hexadecimal form, found {found} bytes"
    )]
    NoSignature {
        /// The command.
        command: String,
        /// How long a signature by this type of key is, in bytes.
        expected: usize,
        /// How many bytes it wrote.
        found: usize,
    },
    /// The signature is of another key or of other bytes.
    #[error("the signature of `{command}` does not hold for the key {key}")]
    Wrong {
        /// The command.
        command: String,
        /// The key that it should be of.
        key: KeyId,
    },
}

impl Signer {
    /// The key that checks what is signed.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Key(key) => key.public(),
            Self::Command { public, .. } => public.clone(),
        }
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// Those of the command; a key at hand always signs.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        match self {
            Self::Key(key) => Ok(key.sign(message).to_vec()),
            Self::Command { command, public } => {
                let said = ask(command, message, MAX_SAID)?;
                let expected = public.key_type().signature_bytes();
                let signature = readings(&said).find(|bytes| bytes.len() == expected).ok_or_else(|| {
                    SigningError::NoSignature { command: command.clone(), expected, found: said.len() }
                })?;
                if !public.verifies(message, &signature) {
                    return Err(SigningError::Wrong { command: command.clone(), key: public.id() });
                }
                Ok(signature)
            }
        }
    }
}

/// Reads a private key; one under a passphrase is opened by it.
///
/// # Errors
/// [`SigningError`]; [`SigningError::Exposed`] unless it is its owner's alone to read.
pub fn read_key(path: &Path, passphrase: &Passphrase) -> Result<SecretKey, SigningError> {
    let (mode, bytes) = read_private(path, MAX_KEY_BYTES)?;
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    let key = if SecretKey::is_encrypted(&text) {
        SecretKey::from_encrypted_pem(&text, &passphrase.of(path)?)
    } else {
        SecretKey::from_pem(&text)
    }
    .map_err(|source| SigningError::Key { path: path.to_owned(), source })?;
    owner_alone_reads(path, mode).map(|()| key)
}

/// A private key's file, at most so many bytes, and its mode.
fn read_private(path: &Path, most: usize) -> Result<(u32, Zeroizing<Vec<u8>>), SigningError> {
    let read = || -> Result<(u32, Zeroizing<Vec<u8>>), BoundedError> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        Ok((mode, Zeroizing::new(bounded::read(&file, most)?)))
    };
    read().map_err(|source| SigningError::Read { path: path.to_owned(), source })
}

fn owner_alone_reads(path: &Path, mode: u32) -> Result<(), SigningError> {
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(SigningError::Exposed { path: path.to_owned(), mode }),
    }
}

/// Reads a public key file.
///
/// # Errors
/// [`SigningError::Read`], [`SigningError::PublicKey`].
pub fn read_public_key(path: &Path) -> Result<PublicKey, SigningError> {
    let read = || bounded::read(File::open(path)?, PublicKeyFile::MAX_BYTES);
    let bytes = read().map_err(|source| SigningError::Read { path: path.to_owned(), source })?;
    PublicKeyFile::parse(&bytes)
        .map(|file| file.public)
        .map_err(|source| SigningError::PublicKey { path: path.to_owned(), source })
}

impl Passphrase {
    /// That of a file, if one is named.
    pub fn from_file(path: Option<&Path>) -> Self {
        path.map_or(Self::Asked, |path| Self::File(path.to_owned()))
    }

    /// The passphrase of a key.
    ///
    /// # Errors
    /// [`SigningError::Read`], [`SigningError::NobodyToAsk`].
    pub fn of(&self, key: &Path) -> Result<Zeroizing<String>, SigningError> {
        match self {
            Self::File(path) => {
                let read = || bounded::read(File::open(path)?, MAX_KEY_BYTES);
                let bytes = read().map_err(|source| SigningError::Read { path: path.clone(), source })?;
                let bytes = Zeroizing::new(bytes);
                let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                Ok(Zeroizing::new(String::from_utf8_lossy(line).into_owned()))
            }
            Self::Asked => ask_person("Passphrase of", key),
        }
    }

    /// A passphrase that a key is to be put under. A person is asked twice: one that was mistyped opens nothing.
    ///
    /// # Errors
    /// As [`Self::of`]; [`SigningError::NotTheSame`].
    pub fn new_of(&self, key: &Path) -> Result<Zeroizing<String>, SigningError> {
        let first = match self {
            Self::File(_) => return self.of(key),
            Self::Asked => ask_person("New passphrase of", key)?,
        };
        match ask_person("Once more, that of", key)? == first {
            true => Ok(first),
            false => Err(SigningError::NotTheSame { path: key.to_owned() }),
        }
    }
}

fn ask_person(what: &str, key: &Path) -> Result<Zeroizing<String>, SigningError> {
    rpassword::prompt_password(format!("{what} {}: ", key.display()))
        .map(Zeroizing::new)
        .map_err(|source| SigningError::NobodyToAsk { path: key.to_owned(), source })
}

/// What a signer's command says to `message`, at most so many bytes.
fn ask(command: &str, message: &[u8], most: u64) -> Result<Vec<u8>, SigningError> {
    let failed = |source| SigningError::Start { command: command.to_owned(), source };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let mut said = Vec::new();
    thread::scope(|scope| {
        // It may begin to answer, or end, before it has read everything.
        scope.spawn(|| input.map(|mut input| input.write_all(message)));
        output.map_or(Ok(0), |output| output.take(most).read_to_end(&mut said))
    })
    .map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(SigningError::Failed { command: command.to_owned(), status });
    }
    Ok(said)
}

/// What a command may have meant by what it has written: these bytes, or those that they are the hexadecimal or base64 form of,
/// in as many lines as it likes.
fn readings(said: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let text: Vec<u8> = said.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    [Some(said.to_vec()), hex::decode(&text).ok(), STANDARD.decode(&text).ok()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(command: String) -> Signer {
        Signer::Command { command, public: SecretKey::from_seed([1; 32]).public() }
    }

    #[test]
    fn a_command_signs_in_any_of_the_three_forms_and_is_checked() {
        let signed = SecretKey::from_seed([1; 32]).sign(b"message");
        let octal: String = signed.iter().map(|byte| format!("\\{byte:03o}")).collect();
        for form in [octal, hex::encode(signed), format!("{}\\n", STANDARD.encode(signed))] {
            let signer = signer(format!("cat >/dev/null; printf '{form}'"));
            assert_eq!(signer.sign(b"message").unwrap(), signed);
            assert!(matches!(signer.sign(b"another").unwrap_err(), SigningError::Wrong { .. }));
        }
    }

    #[test]
    fn a_command_that_gives_no_signature_is_told_from_one_that_fails() {
        for endless in ["yes", "echo no"] {
            assert!(matches!(
                signer(endless.to_owned()).sign(b"x").unwrap_err(),
                SigningError::NoSignature { .. } | SigningError::Failed { .. }
            ));
        }
        // More than fits into a pipe, to a command that reads none of it.
        let failed = signer("exit 7".to_owned()).sign(&vec![0; 1 << 20]).unwrap_err();
        assert!(failed.to_string().ends_with("exit status: 7"), "{failed}");
    }

    #[test]
    fn a_key_under_a_passphrase_opens_with_the_first_line_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let key = SecretKey::from_seed([1; 32]);
        std::fs::write(at("key"), key.to_encrypted_pem("correct horse").unwrap().as_bytes()).unwrap();
        std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(at("right"), "correct horse\nnot this\n").unwrap();
        std::fs::write(at("wrong"), "correct horses\n").unwrap();
        let read = |name: &str| read_key(&at("key"), &Passphrase::File(at(name)));
        assert_eq!(read("right").unwrap().public(), key.public());
        let wrong = read("wrong").unwrap_err();
        assert!(matches!(wrong, SigningError::Key { source: KeyError::Passphrase, .. }), "{wrong}");
    }
}
