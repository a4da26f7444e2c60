//! `update key`: make signing keys and look at them.
//!
//! A private key is PKCS#8 in PEM, readable by its owner only and never overwritten; a public key is
//! the three lines that a trust policy wants. Where private keys live afterwards is the operator's
//! affair: hosts that apply manifests need none.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use manifests::bounded::{self, BoundedError};
use manifests::key::KeyError;
use manifests::{KeyName, NameError, PublicKeyFile, SecretKey};
use patch_tools::signing::{self, Passphrase, SigningError};
use serde_json::json;
use system::durable::Unnamed;
use system::exit::{Exit, Failure};
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::cli::output::{line, object};

/// Make signing keys, show them, and keep them under passphrases
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Generate(Generate),
    Show(Show),
    Convert(Convert),
}

/// Make a new Ed25519 key: NAME.key, readable by you alone, and NAME.pub
///
/// Never overwrites a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update key generate --out keys/build-2026")]
struct Generate {
    /// Where the two files go, and what the key is called
    #[arg(long, value_name = "DIR/NAME")]
    out: PathBuf,
    #[command(flatten)]
    rest: AtRest,
}

/// How a private key is kept.
#[derive(Debug, Default, clap::Args)]
struct AtRest {
    /// Encrypt the private key under a passphrase, which is asked for twice
    #[arg(long)]
    encrypt: bool,
    /// Encrypt it under the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "encrypt")]
    new_passphrase_file: Option<PathBuf>,
}

/// Write a private key anew: under a passphrase, under another one, or under none
///
/// The key stays the same, and so does its id. Never overwrites a file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update key convert build.key --out safe/build.key --encrypt\n  update key convert safe/build.key --out ci/build.key --passphrase-file pass"
)]
struct Convert {
    /// The private key: Ed25519 in PKCS#8 PEM
    key: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The passphrase of the key is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    rest: AtRest,
}

/// Show a key's id, and the entry for a trust policy
#[derive(Debug, clap::Args)]
struct Show {
    /// A private or a public key file
    file: PathBuf,
    /// The passphrase of a private key is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::Generate(args) => generate(args, global),
        Command::Show(args) => show(args, global),
        Command::Convert(args) => convert(args, global),
    }
}

impl AtRest {
    /// The text of a private key as it is to be kept.
    fn pem(&self, key: &SecretKey, file: &Path) -> Result<Zeroizing<String>, KeyFileError> {
        let passphrase = match &self.new_passphrase_file {
            None if !self.encrypt => return Ok(key.to_pem()),
            from_file => Passphrase::from_file(from_file.as_deref()).new_of(file)?,
        };
        let refused = |source| KeyFileError::NotEncrypted { path: file.to_owned(), source };
        key.to_encrypted_pem(&passphrase).map_err(refused)
    }
}

/// Why a key file cannot be made or read.
#[derive(Debug, thiserror::Error)]
enum KeyFileError {
    #[error("{} already exists", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: BoundedError },
    #[error("{} does not end in the name of a key", path.display())]
    Name { path: PathBuf, source: Option<NameError> },
    #[error("{} is not a key file", path.display())]
    NotAKey { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the operating system gave no random numbers")]
    Random(#[source] io::Error),
    #[error("{} is not written", path.display())]
    NotEncrypted { path: PathBuf, source: KeyError },
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let next = match &error {
            KeyFileError::Exists { .. } => "choose another name; a key is never overwritten",
            KeyFileError::Write { .. } => "choose a directory that you can write",
            KeyFileError::Name { .. } => "give a directory and a name, such as --out keys/build-2026",
            KeyFileError::Read { .. } | KeyFileError::NotAKey { .. } => {
                "give a file that update key generate has made, or an Ed25519 key in PKCS#8 PEM"
            }
            KeyFileError::Random(_) => "try again later",
            KeyFileError::NotEncrypted { .. } => "choose a passphrase of some words",
            KeyFileError::Signing(SigningError::NotTheSame { .. }) => "give the same command again",
            KeyFileError::Signing(_) => {
                "give the private key, and its passphrase with --passphrase-file or when asked"
            }
        };
        let exit = if matches!(error, KeyFileError::Name { .. }) { Exit::Usage } else { Exit::Refused };
        Failure::new(exit, error).next(next)
    }
}

fn generate(args: &Generate, global: &Global) -> Result<(), Failure> {
    let name = name_of(&args.out)?;
    let with = |extension: &str| args.out.with_file_name(format!("{name}.{extension}"));
    let (private, public) = (with("key"), with("pub"));
    let key = SecretKey::generate().map_err(|error| KeyFileError::Random(io::Error::other(error)))?;
    let file = PublicKeyFile::new(name, key.public());

    write_new(&private, args.rest.pem(&key, &private)?.as_bytes(), 0o600)?;
    if let Err(error) = write_new(&public, file.to_text().as_bytes(), 0o644) {
        // Half a pair is of no use, and this half was made just now by us.
        let _ = fs::remove_file(&private);
        return Err(error.into());
    }
    if global.json {
        object(
            &json!({ "name": file.name, "id": file.id, "public": file.public, "private_file": private, "public_file": public }),
        );
    } else {
        line(&format!("{}  private key; keep it secret", private.display()));
        line(&format!("{}  public key, for trust policies:", public.display()));
        print_entry(&file);
    }
    Ok(())
}

fn convert(args: &Convert, global: &Global) -> Result<(), Failure> {
    let passphrase = Passphrase::from_file(args.passphrase_file.as_deref());
    let key = signing::read_key(&args.key, &passphrase).map_err(KeyFileError::from)?;
    let encrypted = args.rest.encrypt || args.rest.new_passphrase_file.is_some();
    write_new(&args.out, args.rest.pem(&key, &args.out)?.as_bytes(), 0o600)?;
    let id = key.public().id();
    if global.json {
        object(&json!({ "id": id, "private_file": args.out, "encrypted": encrypted }));
    } else {
        let how = if encrypted { "under a passphrase" } else { "as it is: keep it secret" };
        line(&format!("{}  private key {id}, {how}", args.out.display()));
    }
    Ok(())
}

fn show(args: &Show, global: &Global) -> Result<(), Failure> {
    let path = &args.file;
    let read = || -> Result<(File, Vec<u8>), BoundedError> {
        let file = File::open(path)?;
        let bytes = bounded::read(&file, PublicKeyFile::MAX_BYTES)?;
        Ok((file, bytes))
    };
    let (file, bytes) = read().map_err(|source| KeyFileError::Read { path: path.clone(), source })?;
    let not_a_key = |source| KeyFileError::NotAKey { path: path.clone(), source };
    let text = std::str::from_utf8(&bytes).map_err(|error| not_a_key(error.into()))?;
    let private = text.trim_start().starts_with("-----BEGIN");
    let key = if private {
        let key = if SecretKey::is_encrypted(text) {
            let passphrase = Passphrase::from_file(args.passphrase_file.as_deref()).of(path);
            let passphrase = passphrase.map_err(KeyFileError::from)?;
            SecretKey::from_encrypted_pem(text, &passphrase)
        } else {
            SecretKey::from_pem(text)
        }
        .map_err(|error| not_a_key(error.into()))?;
        PublicKeyFile::new(name_of(&path.with_extension(""))?, key.public())
    } else {
        PublicKeyFile::parse(&bytes).map_err(|error| not_a_key(error.into()))?
    };
    // A private key that others can read is one to replace; say so, since nobody else will.
    let exposed = private && file.metadata().is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0);

    if global.json {
        let kind = if private { "private" } else { "public" };
        object(
            &json!({ "kind": kind, "name": key.name, "id": key.id, "public": key.public, "exposed": exposed }),
        );
    } else {
        line(&format!("{} key {}", if private { "private" } else { "public" }, key.name));
        print_entry(&key);
        if exposed {
            line("WARNING: others than its owner can read this private key; replace it");
        }
    }
    Ok(())
}

/// Prints the entry of a key in a trust policy.
fn print_entry(key: &PublicKeyFile) {
    line(&format!("  - name: {}", key.name));
    line(&format!("    id: {}", key.id));
    line(&format!("    public: {}", key.public));
}

fn name_of(path: &Path) -> Result<KeyName, KeyFileError> {
    let refuse = |source| KeyFileError::Name { path: path.to_owned(), source };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse(None))?;
    name.parse().map_err(|error| refuse(Some(error)))
}

/// Writes a file that is not there yet, and its name, to the disk.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let written = Unnamed::with_mode(path, mode).and_then(|mut file| {
        file.write_all(bytes)?;
        file.create()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
        _ => KeyFileError::Write { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate_in(directory: &Path, name: &str) -> Result<(), Failure> {
        let generate_plain = Generate { out: directory.join(name), rest: AtRest::default() };
        generate(&generate_plain, &Global { json: true, config: None })
    }

    #[test]
    fn a_key_goes_under_a_passphrase_and_out_of_it_and_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("pass"), "correct horse\n").unwrap();
        fs::write(at("empty"), "\n").unwrap();
        generate_in(directory.path(), "plain").unwrap();
        let global = Global { json: true, config: None };
        let under = |passphrase: &str| AtRest { encrypt: false, new_passphrase_file: Some(at(passphrase)) };
        let to = |key: &str, out: &str, with: Option<&str>, rest: AtRest| {
            let passphrase_file = with.map(at);
            convert(&Convert { key: at(key), out: at(out), passphrase_file, rest }, &global)
        };
        to("plain.key", "safe.key", None, under("pass")).unwrap();
        let safe = fs::read_to_string(at("safe.key")).unwrap();
        assert!(SecretKey::is_encrypted(&safe));
        assert_eq!(fs::metadata(at("safe.key")).unwrap().permissions().mode() & 0o777, 0o600);
        to("safe.key", "again.key", Some("pass"), AtRest::default()).unwrap();
        assert_eq!(fs::read(at("again.key")).unwrap(), fs::read(at("plain.key")).unwrap());

        assert_eq!(
            to("safe.key", "x.key", Some("empty"), AtRest::default()).unwrap_err().exit(),
            Exit::Refused
        );
        assert_eq!(to("plain.key", "x.key", None, under("empty")).unwrap_err().exit(), Exit::Refused);
        assert_eq!(to("plain.key", "again.key", None, AtRest::default()).unwrap_err().exit(), Exit::Refused);
        assert!(!at("x.key").exists(), "nothing is written of a key that does not open");
    }

    #[test]
    fn a_new_key_is_readable_by_its_owner_only_and_matches_its_public_file() {
        let directory = tempfile::tempdir().unwrap();
        generate_in(directory.path(), "build-2026").unwrap();
        let private = directory.path().join("build-2026.key");
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let key = SecretKey::from_pem(&fs::read_to_string(private).unwrap()).unwrap();
        let file = PublicKeyFile::parse(&fs::read(directory.path().join("build-2026.pub")).unwrap()).unwrap();
        assert_eq!((file.name.as_str(), file.public), ("build-2026", key.public()));
    }

    #[test]
    fn a_key_is_never_overwritten_and_half_a_pair_is_never_left() {
        let directory = tempfile::tempdir().unwrap();
        generate_in(directory.path(), "a").unwrap();
        let before = fs::read(directory.path().join("a.key")).unwrap();
        assert_eq!(generate_in(directory.path(), "a").unwrap_err().exit(), Exit::Refused);
        assert_eq!(fs::read(directory.path().join("a.key")).unwrap(), before);

        fs::write(directory.path().join("b.pub"), "mine").unwrap();
        assert_eq!(generate_in(directory.path(), "b").unwrap_err().exit(), Exit::Refused);
        assert!(!directory.path().join("b.key").exists());
        assert_eq!(fs::read(directory.path().join("b.pub")).unwrap(), b"mine");
    }

    #[test]
    fn a_name_that_no_policy_can_hold_is_a_usage_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(generate_in(directory.path(), "a b").unwrap_err().exit(), Exit::Usage);
        assert_eq!(generate_in(directory.path(), "..").unwrap_err().exit(), Exit::Usage);
    }
}
