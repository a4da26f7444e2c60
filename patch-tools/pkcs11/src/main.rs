//! `update-sign-pkcs11`: signs with a key in a token (PKCS#11), which the key never leaves.
//!
//! It is what `patch-tools sign --signer` starts: `sign` reads the bytes to sign from standard input and writes the 64
//! bytes of an Ed25519 signature to standard output. `generate` makes the key in the token, `public` writes the file that
//! `--public` and a trust policy want. Whoever asked checks the signature.
//!
//! A token comes with a library that is loaded here: a program of its own, so that nothing else runs in its process.

mod token;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use manifests::{KeyName, PublicKey, PublicKeyFile};
use system::exit::{Exit, Failure, Program, guard};
use zeroize::Zeroizing;

use crate::token::{Token, TokenError};

const PROGRAM: Program = Program {
    name: "update-sign-pkcs11",
    state_after_a_bug: "nothing was signed",
    next_after_a_bug: "please report the bug with the lines above",
};

/// The most that is signed, in bytes: more than any document of ours with its type.
const MOST: u64 = 4 << 20;

/// Sign with an Ed25519 key in a PKCS#11 token
#[derive(Debug, Parser)]
#[command(
    name = "update-sign-pkcs11",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  update-sign-pkcs11 public --module /usr/lib/softhsm/libsofthsm2.so --token office --key build-2026 >build-2026.pub\n  patch-tools sign fix.yaml --public build-2026.pub \\\n    --signer 'update-sign-pkcs11 sign --module /usr/lib/softhsm/libsofthsm2.so --token office --key build-2026'"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Task(Task),
    #[command(flatten)]
    Manual(manual::Manual),
}

/// What is asked of a token.
#[derive(Debug, Subcommand)]
enum Task {
    /// Sign what comes on standard input; the signature goes to standard output
    Sign(Place),
    /// Write the public key, as trust policies and --public want it, to standard output
    Public(Place),
    /// Make a new key in the token, which it cannot leave, and write its public key to standard output
    Generate(Place),
}

/// Where the key is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The token's library
    #[arg(long, value_name = "FILE")]
    module: PathBuf,
    /// The token's label
    #[arg(long, value_name = "LABEL")]
    token: String,
    /// The key's label, which is its name in trust policies, too
    #[arg(long, value_name = "LABEL")]
    key: KeyName,
    /// The PIN is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

impl Place {
    fn open(&self) -> Result<Token, TokenError> {
        Token::open(&self.module, &self.token, |token| pin(token, self.pin_file.as_deref()))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match guard(&PROGRAM, || run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(false);
            failure.exit().into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Task(task) => answer(task).map_err(|error| {
            let next = error.next();
            Failure::new(Exit::Refused, error).next(next)
        }),
        Command::Manual(manual) => manual.run(Arguments::command()),
    }
}

fn answer(task: &Task) -> Result<(), TokenError> {
    let bytes = match task {
        Task::Sign(place) => {
            let mut message = Vec::new();
            io::stdin().lock().take(MOST + 1).read_to_end(&mut message).map_err(TokenError::Pipe)?;
            if message.len() as u64 > MOST {
                return Err(TokenError::TooLong { most: MOST });
            }
            place.open()?.sign(&place.key, &message)?.to_vec()
        }
        Task::Public(place) => written(place, place.open()?.public(&place.key)?),
        Task::Generate(place) => written(place, place.open()?.generate(&place.key)?),
    };
    let mut out = io::stdout().lock();
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(TokenError::Pipe)
}

fn written(place: &Place, key: PublicKey) -> Vec<u8> {
    PublicKeyFile::new(place.key.clone(), key).to_text().into_bytes()
}

/// The PIN of a token: of a file, or of whoever sits at the terminal. Standard input has other things to say.
fn pin(token: &str, file: Option<&Path>) -> Result<Zeroizing<String>, TokenError> {
    let Some(path) = file else {
        return rpassword::prompt_password(format!("PIN of {token}: "))
            .map(Zeroizing::new)
            .map_err(|source| TokenError::NobodyToAsk { source });
    };
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|source| TokenError::PinFile { path: path.to_owned(), source })?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}
