//! `patch-tools sign`: put a document into an envelope, and add signatures to it.
//!
//! What is signed are the file's bytes as they are. The document is parsed first, so that nobody
//! vouches for something that no host can read; signatures that are there are kept as they are.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::bounded::{self, BoundedError};
use manifests::envelope::AlreadySigned;
use manifests::provenance::Origin;
use manifests::statement;
use manifests::{
    Document, DocumentKind, Envelope, EnvelopeError, KeyId, Manifest, PolicyDocument, Revocation, Rollout,
    UtcTime,
};
use patch_tools::signing::{self, Passphrase, Signer, SigningError};
use serde_json::{Value, json};
use system::durable::Unnamed;
use system::exit::{Exit, Failure};

use super::output;

/// Sign a manifest, a policy, a revocation, a rollout, or add a signature to a signed one
///
/// A document in YAML is checked and put into an envelope, NAME.manifest.json beside it (or NAME.policy.json,
/// NAME.revocation.json, NAME.rollout.json). A signature for an envelope is added in place; the others are kept.
/// A module's provenance (.intoto.json) and the word of a rebuild (.rebuild.json) are JSON, and signed with --type evidence.
/// Prints what was signed. Grants, and what hosts say of themselves, are signed by machines, not here.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  patch-tools sign fix.yaml --key keys/build.key\n  patch-tools sign team.yaml --type policy --key keys/owner.key\n  patch-tools sign fix.manifest.json --signer 'kms-sign build-2026' --public keys/build.pub"
)]
pub(crate) struct Args {
    /// A document (YAML) or an envelope (JSON)
    document: PathBuf,
    /// What the YAML is; an envelope says so itself
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "manifest")]
    kind: Kind,
    /// Sign with this private key: Ed25519 in PKCS#8 PEM, as update key generate makes it
    #[arg(long, value_name = "FILE", required_unless_present = "signer")]
    key: Option<PathBuf>,
    /// The passphrase of the key is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Have this shell command sign: it reads the bytes and writes the signature
    #[arg(long, value_name = "COMMAND", conflicts_with = "key", requires = "public")]
    signer: Option<String>,
    /// The public key of the signer
    #[arg(long, value_name = "FILE", requires = "signer")]
    public: Option<PathBuf>,
    /// Write the envelope to this file, or to standard output when it is -
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What people sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Manifest,
    Policy,
    Revocation,
    Rollout,
    /// A module's provenance, or the word of a rebuild
    Evidence,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Manifest, Self::Policy, Self::Revocation, Self::Rollout, Self::Evidence];

    fn document(self) -> DocumentKind {
        match self {
            Self::Manifest => DocumentKind::Manifest,
            Self::Policy => DocumentKind::Policy,
            Self::Revocation => DocumentKind::Revocation,
            Self::Rollout => DocumentKind::Rollout,
            Self::Evidence => DocumentKind::Evidence,
        }
    }

    /// Checks a document, and says what it is.
    fn read(self, bytes: &[u8]) -> Result<Said, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match self {
            Self::Manifest => Said::of(&Manifest::parse(bytes)?, |manifest| {
                let Manifest { name, version, summary, .. } = manifest;
                (format!("{name} version {version}: {summary}"), json!({ "name": name, "version": version }))
            }),
            Self::Policy => Said::of(&<PolicyDocument as Document>::parse(bytes)?, |policy| {
                let version = policy.edition().version;
                (format!("policy, edition {version}"), json!({ "version": version }))
            }),
            Self::Revocation => Said::of(&Revocation::parse(bytes)?, |revocation| {
                (format!("revocation: {}", revocation.reason), json!({ "reason": revocation.reason }))
            }),
            Self::Rollout => Said::of(&Rollout::parse(bytes)?, |rollout| {
                let Rollout { name, manifest, groups, summary, .. } = rollout;
                let to: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
                let words =
                    format!("rollout of {name}, manifest {manifest}, to {}: {summary}", to.join(", "));
                (words, json!({ "name": name, "manifest": manifest, "groups": groups }))
            }),
            Self::Evidence => {
                let (origin, subject) = Origin::read(bytes)?;
                let what = match origin {
                    Origin::Provenance { builder, .. } => format!("provenance by {builder}"),
                    Origin::Rebuild(rebuild) if rebuild.identical => {
                        "a rebuild with the same bytes".to_owned()
                    }
                    Origin::Rebuild(_) => "a rebuild with OTHER bytes".to_owned(),
                };
                let of: Vec<&str> = subject.iter().map(|subject| subject.name.as_str()).collect();
                let words = format!("{what}, of {}", of.join(", "));
                Said { words, facts: json!({ "subject": of }), expires: None }
            }
        })
    }
}

/// What is told of a document.
struct Said {
    words: String,
    facts: Value,
    expires: Option<UtcTime>,
}

impl Said {
    fn of<T: Document>(document: &T, tell: impl FnOnce(&T) -> (String, Value)) -> Self {
        let (words, facts) = tell(document);
        Self { words, facts, expires: document.expires() }
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: BoundedError },
    #[error("{} is not an envelope", path.display())]
    Envelope { path: PathBuf, source: EnvelopeError },
    #[error("{} holds something else: expected payload type of a manifest, policy, revocation, rollout or evidence, found {found:.80?}", path.display())]
    PayloadType { path: PathBuf, found: String },
    #[error("{} is not a {kind} that a host could read", path.display())]
    Document { path: PathBuf, kind: DocumentKind, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Signing(#[from] SigningError),
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
            SignError::Document { kind, .. } => Some(format!(
                "mend the {kind}, or say what it is with --type; docs/manifest.md describes every field"
            )),
            SignError::Signing(SigningError::Key { .. }) => {
                Some("update key generate --out DIR/NAME makes a key".to_owned())
            }
            SignError::Signing(SigningError::Exposed { path, .. }) => Some(format!(
                "chmod 600 {}, and replace the key if somebody may have read it",
                path.display()
            )),
            SignError::Signing(SigningError::NobodyToAsk { .. }) => Some("give --passphrase-file".to_owned()),
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
    let signer = signer(args)?;
    let (mut envelope, said, target) = read_document(args)?;
    let signature = signer.sign(&envelope.signed_bytes()).map_err(SignError::Signing)?;
    let id = envelope
        .add(&signer.public(), signature)
        .map_err(|source| SignError::AlreadySigned { path: args.document.clone(), source })?;
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
    if let Some(expires) = said.expires.filter(|expires| expires.timestamp() <= now) {
        eprintln!("warning: it expired at {expires}; every host will refuse it");
    }
    if let Some(path) = written {
        tell(args, &envelope, said, id, path)?;
    }
    Ok(Exit::Done)
}

fn signer(args: &Args) -> Result<Signer, SignError> {
    Ok(match (&args.key, &args.signer, &args.public) {
        (None, Some(command), Some(public)) => {
            Signer::Command { command: command.clone(), public: signing::read_public_key(public)? }
        }
        (key, ..) => {
            let passphrase = Passphrase::from_file(args.passphrase_file.as_deref());
            let key = key.as_deref().expect("clap wants a key where there is no signer");
            Signer::Key(signing::read_key(key, &passphrase)?)
        }
    })
}

/// The envelope to sign, what it holds, and where it goes.
fn read_document(args: &Args) -> Result<(Envelope, Said, Target), SignError> {
    let path = args.document.clone();
    let read = || -> Result<Vec<u8>, BoundedError> { bounded::read(File::open(&path)?, Envelope::MAX_BYTES) };
    let bytes = read().map_err(|source| SignError::Read { path: path.clone(), source })?;
    // A statement is JSON, too.
    let bare = args.kind == Kind::Evidence && statement::predicate_type(&bytes).is_ok();
    let (envelope, kind, beside) = if Envelope::looks_like_one(&bytes) && !bare {
        let envelope =
            Envelope::parse(&bytes).map_err(|source| SignError::Envelope { path: path.clone(), source })?;
        let Some(kind) = Kind::ALL.into_iter().find(|kind| envelope.kind() == Some(kind.document())) else {
            return Err(SignError::PayloadType { path, found: envelope.payload_type().to_owned() });
        };
        (envelope, kind, Target::InPlace(path.clone()))
    } else {
        let kind = args.kind.document();
        let beside = path.with_extension(format!("{kind}.json"));
        (Envelope::new(kind, bytes), args.kind, Target::New(beside))
    };
    let said = kind.read(envelope.unverified_payload()).map_err(|source| SignError::Document {
        path: path.clone(),
        kind: kind.document(),
        source,
    })?;
    let target = match &args.out {
        None => beside,
        Some(out) if out.as_os_str() == "-" => Target::Output,
        Some(out) if *out == path => beside,
        Some(out) => Target::New(out.clone()),
    };
    Ok((envelope, said, target))
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

fn tell(args: &Args, envelope: &Envelope, said: Said, id: KeyId, path: &Path) -> Result<(), Failure> {
    let (digest, count) = (envelope.payload_digest(), envelope.signatures().len());
    if args.json {
        let mut told = json!({
            "schema": 1, "envelope": path, "sha256": digest, "signed_by": id, "signatures": count,
        });
        if let (Some(told), Value::Object(facts)) = (told.as_object_mut(), said.facts) {
            told.extend(facts);
        }
        return output::print_json(&told);
    }
    let signatures = if count == 1 { "1 signature" } else { &format!("{count} signatures") };
    output::print(&format!(
        "{}\n  sha256:{digest}\n  signed by key {id}\n{}: {signatures}\n",
        said.words,
        path.display()
    ))
}
