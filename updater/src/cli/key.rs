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
use manifests::{KeyName, NameError, PublicKeyFile, SecretKey};
use serde_json::json;
use system::durable::Unnamed;
use system::exit::{Exit, Failure};

use crate::cli::Global;
use crate::cli::output::{line, object};

/// Make a signing key, or show one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Generate(Generate),
    Show(Show),
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
}

/// Show a key's id, and the entry for a trust policy
#[derive(Debug, clap::Args)]
struct Show {
    /// A private or a public key file
    file: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::Generate(args) => generate(args, global),
        Command::Show(args) => show(args, global),
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

    write_new(&private, key.to_pem().as_bytes(), 0o600)?;
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
        let key = SecretKey::from_pem(text).map_err(|error| not_a_key(error.into()))?;
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

/// The entry under `keys:` of a trust policy.
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
        generate(&Generate { out: directory.join(name) }, &Global { json: true, config: None })
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
