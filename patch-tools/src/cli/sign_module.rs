//! `patch-tools sign-module`: the signature that a locked-down kernel wants of a livepatch.

use std::path::{Path, PathBuf};

use patch_tools::module::{Layout, Signer};
use patch_tools::signing::module::{Digest, ModuleCertificate, ModuleKey, ModuleSigningError};
use patch_tools::signing::{Passphrase, SigningError};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use system::durable;
use system::exit::{Exit, Failure};

use super::{file, output};

/// Sign a kernel module with a key that kernels under Secure Boot trust
///
/// Appends what the kernel's scripts/sign-file would: a detached CMS signature, without the certificate. The kernel has to
/// know the certificate, for example as a machine owner's key (MOK). Sign before the manifest is written: the manifest has the
/// digest of the signed file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  patch-tools sign-module livepatch-fix.ko --key mok.key --certificate mok.pem\n  patch-tools sign-module fix.ko --certificate mok.der --signer 'openssl dgst -sha256 -engine pkcs11 -keyform engine -sign \"pkcs11:object=mok\"' -o signed.ko\n\nHow to make a key and have hosts trust it: docs/secure-boot.md."
)]
pub(crate) struct Args {
    /// The module (.ko, not compressed)
    module: PathBuf,
    /// The certificate of the key, in PEM or DER: RSA with 2048 to 8192 bits, or ECDSA on P-384
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The private key, in PKCS#8 PEM
    #[arg(long, value_name = "FILE", required_unless_present = "signer")]
    key: Option<PathBuf>,
    /// The passphrase of the key is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Have this shell command sign: it reads the module and writes the signature
    #[arg(long, value_name = "COMMAND", conflicts_with = "key")]
    signer: Option<String>,
    /// The digest that is signed; by default sha256, and sha384 by ECDSA
    #[arg(long, value_enum)]
    digest: Option<DigestName>,
    /// Write the signed module here instead of in place of the other
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DigestName {
    Sha256,
    Sha384,
    Sha512,
}

impl From<DigestName> for Digest {
    fn from(name: DigestName) -> Self {
        match name {
            DigestName::Sha256 => Self::Sha256,
            DigestName::Sha384 => Self::Sha384,
            DigestName::Sha512 => Self::Sha512,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let bytes = std::fs::read(&args.module).map_err(|error| {
        Failure::new(
            Exit::Refused,
            anyhow::Error::new(error).context(format!("cannot read {}", args.module.display())),
        )
    })?;
    file::module(&args.module, &bytes, &Layout::default())?;
    let certificate =
        ModuleCertificate::read(&args.certificate, args.digest.map(Digest::from)).map_err(refuse)?;
    let key = match (&args.signer, &args.key) {
        (Some(command), _) => ModuleKey::Command(command.clone()),
        (None, key) => {
            let key = key.as_deref().expect("clap wants a key where there is no signer");
            ModuleKey::read(key, &Passphrase::from_file(args.passphrase_file.as_deref())).map_err(refuse)?
        }
    };
    let signed = certificate.sign(&bytes, &key).map_err(refuse)?;
    let out = args.out.as_deref().unwrap_or(&args.module);
    // Read again, as a host will: what is written has a signature that can be.
    let module = file::module(out, &signed, &Layout::default())?;
    durable::publish(out, &signed).map_err(|error| {
        Failure::new(
            Exit::Refused,
            anyhow::Error::new(error).context(format!("cannot write {}", out.display())),
        )
    })?;
    let signers = module.signature.map(|signature| signature.signers).unwrap_or_default();
    tell(args, out, &signed, &signers, &certificate)?;
    Ok(Exit::Done)
}

fn refuse(error: ModuleSigningError) -> Failure {
    let hint = match &error {
        ModuleSigningError::Signing(SigningError::Exposed { path, .. }) => {
            Some(format!("chmod 600 {}, and replace the key if somebody may have read it", path.display()))
        }
        ModuleSigningError::Signing(SigningError::NobodyToAsk { .. }) => {
            Some("give --passphrase-file".to_owned())
        }
        ModuleSigningError::AlreadySigned { .. } => Some(
            "strip --strip-debug MODULE takes the signature away; or sign what it was built as".to_owned(),
        ),
        ModuleSigningError::Mismatch { .. } => {
            Some("give the certificate that was made with this key".to_owned())
        }
        _ => None,
    };
    let failure = Failure::new(Exit::Refused, error);
    match hint {
        Some(hint) => failure.next(hint),
        None => failure,
    }
}

fn tell(
    args: &Args,
    out: &Path,
    signed: &[u8],
    signers: &[Signer],
    certificate: &ModuleCertificate,
) -> Result<(), Failure> {
    let (digest, size) = (hex::encode(Sha256::digest(signed)), signed.len());
    if args.json {
        return output::print_json(&json!({
            "schema": 1, "module": out, "sha256": digest, "size": size,
            "subject": certificate.subject(), "signers": signers,
        }));
    }
    let mut text = format!("{}\n  sha256:{digest}, {size} bytes\n", out.display());
    for signer in signers {
        text += &format!(
            "  signed by {} ({}), {} over {}\n",
            signer.identity,
            certificate.subject(),
            signer.algorithm,
            signer.digest
        );
    }
    output::print(&text)
}
