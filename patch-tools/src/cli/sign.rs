//! `patch-tools sign`: put a manifest into an envelope, and add signatures to it.
//!
//! What is signed are the file's bytes as they are. The manifest is parsed first, so that nobody
//! vouches for something that no host can read; signatures that are there are kept as they are.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::bounded::{self, BoundedError};
use manifests::envelope::{AlreadySigned, MANIFEST_TYPE};
use manifests::key::KeyError;
use manifests::{Envelope, EnvelopeError, KeyId, Manifest, ManifestError, SecretKey};
use serde_json::json;
use system::durable::Unnamed;

use super::output;
use system::exit::{Exit, Failure};

/// The largest private key file; PKCS#8 PEM of Ed25519 has 119 bytes.
const MAX_KEY_BYTES: usize = 4096;

/// Sign a manifest, or add a signature to a signed one
///
/// A manifest in YAML is checked and put into an envelope, NAME.manifest.json beside it. A signature
/// for an envelope is added in place; the others are kept. Prints what was signed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A manifest (YAML) or an envelope (JSON)
    manifest: PathBuf,
    /// Sign with this private key: Ed25519 in PKCS#8 PEM, as update key generate makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write the envelope to this file, or to standard output when it is -
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: BoundedError },
    #[error("{} is not an envelope", path.display())]
    Envelope { path: PathBuf, source: EnvelopeError },
    #[error("{} holds something else: expected payload type {MANIFEST_TYPE}, found {found:.80?}", path.display())]
    PayloadType { path: PathBuf, found: String },
    #[error("{} is not a manifest that a host could read", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{} is not a private key", path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("{} can be read by others: expected mode 0600, found {mode:04o}", path.display())]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error("{} is signed with this key already", path.display())]
    AlreadySigned { path: PathBuf, source: AlreadySigned },
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl From<SignError> for Failure {
    fn from(error: SignError) -> Self {
        let hint = match &error {
            SignError::Manifest { .. } => {
                Some("mend the manifest; docs/manifest.md describes every field".to_owned())
            }
            SignError::Key { .. } => Some("update key generate --out DIR/NAME makes a key".to_owned()),
            SignError::KeyExposed { path, .. } => Some(format!(
                "chmod 600 {}, and replace the key if somebody may have read it",
                path.display()
            )),
            SignError::Exists { path } => Some(format!(
                "to add a signature: patch-tools sign {}; to start anew, remove it",
                path.display()
            )),
            _ => None,
        };
        let failure = Failure::new(Exit::Refused, error);
        match hint {
            Some(hint) => failure.next(hint),
            None => failure,
        }
    }
}

/// Where the envelope goes.
enum Target {
    Output,
    New(PathBuf),
    InPlace(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let key = read_key(&args.key)?;
    let (mut envelope, manifest, target) = read_manifest(args)?;
    let id = envelope
        .sign(&key)
        .map_err(|source| SignError::AlreadySigned { path: args.manifest.clone(), source })?;
    let text = envelope.to_json();
    let written = match &target {
        Target::Output => {
            output::print(&text)?;
            None
        }
        Target::New(path) => Some(write(path, &text, Overwrite::Never)?),
        Target::InPlace(path) => Some(write(path, &text, Overwrite::Same)?),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "only for the warning; what is signed does not depend on it"
    )]
    let now = Timestamp::now();
    if manifest.expires.timestamp() <= now {
        eprintln!("warning: the manifest expired at {}; every host will refuse it", manifest.expires);
    }
    if let Some(path) = written {
        tell(args, &envelope, &manifest, id, path)?;
    }
    Ok(Exit::Done)
}

fn read_key(path: &Path) -> Result<SecretKey, SignError> {
    let read = || -> Result<(u32, Vec<u8>), BoundedError> {
        let file = File::open(path)?;
        Ok((file.metadata()?.permissions().mode() & 0o7777, bounded::read(&file, MAX_KEY_BYTES)?))
    };
    let (mode, bytes) = read().map_err(|source| SignError::Read { path: path.to_owned(), source })?;
    let key = SecretKey::from_pem(&String::from_utf8_lossy(&bytes))
        .map_err(|source| SignError::Key { path: path.to_owned(), source })?;
    match mode & 0o077 {
        0 => Ok(key),
        _ => Err(SignError::KeyExposed { path: path.to_owned(), mode }),
    }
}

/// The envelope to sign, what it holds, and where it goes.
fn read_manifest(args: &Args) -> Result<(Envelope, Manifest, Target), SignError> {
    let path = args.manifest.clone();
    let read = || -> Result<Vec<u8>, BoundedError> { bounded::read(File::open(&path)?, Envelope::MAX_BYTES) };
    let bytes = read().map_err(|source| SignError::Read { path: path.clone(), source })?;
    let (envelope, beside) = if Envelope::looks_like_one(&bytes) {
        let envelope =
            Envelope::parse(&bytes).map_err(|source| SignError::Envelope { path: path.clone(), source })?;
        if envelope.payload_type() != MANIFEST_TYPE {
            return Err(SignError::PayloadType { path, found: envelope.payload_type().to_owned() });
        }
        (envelope, Target::InPlace(path.clone()))
    } else {
        (Envelope::of_manifest(bytes), Target::New(path.with_extension("manifest.json")))
    };
    let manifest = Manifest::parse(envelope.unverified_payload())
        .map_err(|source| SignError::Manifest { path: path.clone(), source })?;
    let target = match &args.out {
        None => beside,
        Some(out) if out.as_os_str() == "-" => Target::Output,
        Some(out) if *out == path => beside,
        Some(out) => Target::New(out.clone()),
    };
    Ok((envelope, manifest, target))
}

/// Whether a file may be written over.
#[derive(Clone, Copy, PartialEq)]
enum Overwrite {
    Never,
    /// The envelope that was read, with one signature more.
    Same,
}

/// Writes the whole file or nothing.
fn write<'a>(path: &'a Path, text: &str, overwrite: Overwrite) -> Result<&'a Path, SignError> {
    let error = |source| SignError::Write { path: path.to_owned(), source };
    let mut file = Unnamed::with_mode(path, 0o644).map_err(error)?;
    file.write_all(text.as_bytes()).map_err(error)?;
    let named = match overwrite {
        Overwrite::Never => file.create(),
        Overwrite::Same => file.replace(),
    };
    match named {
        Ok(()) => Ok(path),
        Err(failed) if failed.kind() == io::ErrorKind::AlreadyExists => {
            Err(SignError::Exists { path: path.to_owned() })
        }
        Err(failed) => Err(error(failed)),
    }
}

fn tell(
    args: &Args,
    envelope: &Envelope,
    manifest: &Manifest,
    id: KeyId,
    path: &Path,
) -> Result<(), Failure> {
    let Manifest { name, version, summary, .. } = manifest;
    let (digest, count) = (envelope.payload_digest(), envelope.signatures().len());
    if args.json {
        return output::print_json(&json!({
            "schema": 1, "envelope": path, "name": name, "version": version,
            "sha256": digest, "signed_by": id, "signatures": count,
        }));
    }
    let signatures = if count == 1 { "1 signature" } else { &format!("{count} signatures") };
    output::print(&format!(
        "{name} version {version}: {summary}\n  sha256:{digest}\n  signed by key {id}\n{}: {signatures}\n",
        path.display()
    ))
}
