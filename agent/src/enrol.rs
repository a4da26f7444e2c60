//! `update enrol`: this host comes into a fleet.

use std::path::Path;

use fleet::local::{Answer, Membership, Question};
use fleet::protocol::{Certificate, Enrol, HostFacts, Version, paths};
use manifests::{Nonce, Sha256};
use rustls::pki_types::CertificateDer;
use system::durable;

use crate::client::{Client, ClientError};
use crate::executor::{Executor, ExecutorError, strange};
use crate::identity::{Directory, Identity, IdentityError};
use crate::memory::{Memory, MemoryError};
use crate::pinned::Pinned;

/// Why this host is not in the fleet.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The key or the certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The controller.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What this host is like.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The controller showed no authority, which cannot be after its word was believed.
    #[error("the controller showed no authority")]
    NoAuthority,
    /// The certificate is for somebody else.
    #[error("the certificate is for another host")]
    Another,
    /// A file cannot be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What an operator says.
pub struct Invitation<'a> {
    /// The controller.
    pub controller: &'a str,
    /// What lets this host in.
    pub token: Nonce,
    /// The digest of the authority's certificate.
    pub fingerprint: Sha256,
}

/// Comes into a fleet; who this host is there. The same invitation twice is once.
///
/// # Errors
/// [`EnrolError`]; a key that was made stays, and nothing else.
pub async fn enrol(
    invitation: &Invitation<'_>,
    directory: &Directory,
    identity: &Identity,
    executor: &Executor,
    settings: &Path,
) -> Result<Membership, EnrolError> {
    let facts = facts(executor).await?;
    let pinned = Pinned::new(invitation.fingerprint);
    let client = Client::pinned(invitation.controller, pinned.clone())?;
    let enrol = Enrol {
        version: Version,
        token: invitation.token,
        request: identity.request()?,
        facts: facts.clone(),
    };
    let certificate: Certificate = client.ask(paths::ENROL, &enrol).await?;
    if certificate.host != identity.host() {
        return Err(EnrolError::Another);
    }
    let authority = pinned.authority().ok_or(EnrolError::NoAuthority)?;
    directory.keep(&directory.authority(), &pem(&authority))?;
    directory.keep(&directory.certificate(), &certificate.chain)?;
    let memory = Memory {
        facts: Some(facts.digest()),
        renew_at: Some(crate::duty::renewal(certificate.renew_at, crate::run::now(), crate::run::chance())),
        ..Memory::read(&directory.0.join(crate::run::MEMORY))?
    };
    memory.write(&directory.0.join(crate::run::MEMORY))?;
    let membership = Membership {
        host: certificate.host,
        groups: certificate.groups,
        controllers: vec![invitation.controller.to_owned()],
    };
    publish(&settings.with_file_name(AUTHORITY), &pem(&authority))?;
    // Last: with this file the executor knows its fleet, and the agent may be started.
    write(settings, &membership)?;
    Ok(membership)
}

/// What this host is like, by the executor's word.
async fn facts(executor: &Executor) -> Result<HostFacts, EnrolError> {
    match executor.ask(&Question::Look { manifests: None }).await? {
        Answer::Host(look) => Ok(look.facts.at_first()),
        other => Err(strange(&other).into()),
    }
}

/// Beside what the host is in its fleet: whom it believes to be a controller, for `authorities` of `update.yaml` where a
/// controller serves the repository, too. The agent goes by its own copy.
const AUTHORITY: &str = "fleet-ca.pem";

fn write(path: &Path, membership: &Membership) -> Result<(), EnrolError> {
    let text = serde_yaml::to_string(membership);
    let failed =
        |error| EnrolError::Write { path: path.display().to_string(), source: std::io::Error::other(error) };
    publish(path, &text.map_err(failed)?)
}

/// Writes what everybody on this host may read.
fn publish(path: &Path, text: &str) -> Result<(), EnrolError> {
    let failed = |source| EnrolError::Write { path: path.display().to_string(), source };
    durable::publish(path, text.as_bytes()).map_err(failed)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let base64 = base64(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
    }
    text + "-----END CERTIFICATE-----\n"
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
